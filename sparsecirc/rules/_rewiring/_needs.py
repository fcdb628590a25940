"""What choices of connections have to know."""

from __future__ import annotations

from enum import IntFlag


class Needs(IntFlag):
    """Gathered by a rule only in the steps before it rewires."""

    NOTHING = 0
    ACTIVITY = 1
    GRADIENT = 2
