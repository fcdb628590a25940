"""Units leave a network for good: chosen ones, or those that do nothing."""

from sparsecirc._shrink._dead import Shrunk, live_units, max_difference, shrink
from sparsecirc._shrink._rank import rank_units
from sparsecirc._shrink._remove import layers, remove_units

__all__ = ["Shrunk", "layers", "live_units", "max_difference", "rank_units", "remove_units", "shrink"]
