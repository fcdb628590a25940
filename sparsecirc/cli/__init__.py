"""The command line: ``sparsecirc`` and ``python -m sparsecirc``.

Nothing here imports torch before a command needs it, so ``--help`` and ``env`` answer at once.
"""

from __future__ import annotations

from sparsecirc.cli._app import main

__all__ = ["main"]
