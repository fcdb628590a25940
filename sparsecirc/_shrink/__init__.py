"""Units leave a network for good: chosen ones, or those that do nothing."""

from sparsecirc._shrink._dead import Shrunk, live_units, shrink
from sparsecirc._shrink._remove import layers, remove_units

__all__ = ["Shrunk", "layers", "live_units", "remove_units", "shrink"]
