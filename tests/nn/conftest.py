"""One thread, poisoned memory, the same random numbers in every test."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
import torch

from sparsecirc.ops._autograd import _arrays

if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")  # read when kernels are imported


@pytest.fixture(autouse=True)
def _poisoned_and_repeatable(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(_arrays, "POISON", True)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    yield
    torch.set_num_threads(threads)
