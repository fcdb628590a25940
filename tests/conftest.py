"""Shared by all tests: workspace is poisoned, and random tests are the same on every run."""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # two workers with two threads each take ten times as long

import pytest
from hypothesis import settings

from sparsecirc.ops import _run

settings.register_profile("repeatable", derandomize=True, deadline=None)
settings.load_profile("repeatable")


@pytest.fixture(autouse=True)
def _poisoned_workspace(monkeypatch: pytest.MonkeyPatch) -> None:
    """Native runs start from workspace full of NaN: what is read before it was written shows in the results."""
    monkeypatch.setattr(_run, "POISON", True)
