"""`sensitivity`: what each weight and gate of a network costs when it alone is pruned."""

from sparsecirc._sensitivity._measure import LEVELS, sensitivity
from sparsecirc._sensitivity._result import Point, Sensitivity, WeightSensitivity

__all__ = ["LEVELS", "Point", "Sensitivity", "WeightSensitivity", "sensitivity"]
