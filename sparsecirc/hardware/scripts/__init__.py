"""Runners that exports copy beside their networks; each needs numpy and its simulator, nothing of this package."""
