"""Rules: what changes patterns over time, stepped by the user's own training loop."""

from sparsecirc.rules._rule import Rule
from sparsecirc.rules._schedule import Cubic, OneShot, Schedule
from sparsecirc.rules._search import Rewind, UntilDrop

__all__ = ["Cubic", "OneShot", "Rewind", "Rule", "Schedule", "UntilDrop"]
