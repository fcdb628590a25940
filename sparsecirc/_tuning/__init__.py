"""Measuring kernels on this machine, and remembering what was measured."""

from sparsecirc._tuning._cache import USER_CACHE, Entry, TuningCache, kernels_version
from sparsecirc._tuning._measure import measure

__all__ = ["USER_CACHE", "Entry", "TuningCache", "kernels_version", "measure"]
