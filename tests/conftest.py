"""Shared by all tests: workspace is poisoned, and random tests are the same on every run."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile

os.environ.setdefault("OMP_NUM_THREADS", "1")  # two workers with two threads each take ten times as long

import pytest
from hypothesis import settings

from sparsecirc.ops import _run

os.environ["SPARSECIRC_CACHE"] = tempfile.mkdtemp(prefix="sparsecirc-tests-")  # not the user's measurements
atexit.register(shutil.rmtree, os.environ["SPARSECIRC_CACHE"], ignore_errors=True)

settings.register_profile("repeatable", derandomize=True, deadline=None)
settings.load_profile("repeatable")


@pytest.fixture(autouse=True)
def _poisoned_workspace(monkeypatch: pytest.MonkeyPatch) -> None:
    """Native runs start from workspace full of NaN: what is read before it was written shows in the results."""
    monkeypatch.setattr(_run, "POISON", True)
