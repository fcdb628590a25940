"""Interpreters of other simulators, one environment each: ``make test-emulators`` makes them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

ROOT = Path(os.environ.get("SPARSECIRC_EMULATORS", Path(__file__).parents[2] / ".emulators"))


def interpreter(name: str) -> Path:
    """The Python of the environment called ``name``; skips the test where it is missing."""
    path = ROOT / name / "bin" / "python"
    if not path.exists():
        pytest.skip(f"the environment of '{name}' is missing ({path}): make test-emulators")
    return path


@pytest.fixture
def brian2() -> Path:
    return interpreter("brian2")


@pytest.fixture
def pynn() -> Path:
    return interpreter("pynn")


@pytest.fixture
def lava() -> Path:
    return interpreter("lava")


@pytest.fixture
def xylosim() -> Path:
    return interpreter("xylosim")


@pytest.fixture
def nengo_loihi() -> Path:
    return interpreter("nengo_loihi")
