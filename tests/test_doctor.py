"""The doctor finds kernels that are wrong, and knows a noisy clock."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from native_support import ISAS

from sparsecirc._cost._problems import DTYPES, kernels_of
from sparsecirc._doctor import Timer, layer_checks, product_checks, timer_noise
from sparsecirc._doctor import _parity as parity
from sparsecirc._native import kernels
from sparsecirc.cells import CELLS
from sparsecirc.formats import CSR
from sparsecirc.ops import kernels_for


def test_every_kernel_of_every_instruction_set_is_checked_and_right() -> None:
    checks = list(product_checks())
    assert [c for c in checks if not c.ok] == []
    names = {(c.isa, *c.name.split()[:2]) for c in checks}
    assert names == {(i.value, d, name) for i in ISAS for d in DTYPES for name in kernels_of(i, d)}
    assert {c.what for c in checks} == {"product", "step", "batch"}
    for c in checks:
        assert 0 <= c.error <= c.limit
        if c.name.startswith("int"):
            assert c.error > 1e-6  # integers round, so that the limit is one that matters


def test_every_cell_is_checked_and_right() -> None:
    checks = list(layer_checks())
    assert [c for c in checks if not c.ok] == []
    assert len(checks) == len(ISAS) * len(CELLS) * len(parity.BATCHES)


class Wrong:
    """The native module with one fault in its products."""

    def __init__(self, fault: str) -> None:
        self.fault = fault

    def __getattr__(self, name: str) -> object:
        return getattr(kernels, name)

    def product(
        self, matrix: kernels.Matrix, isa: str, x: np.ndarray, bias: None, y: np.ndarray, step: bool = False
    ) -> None:
        kernels.product(matrix, isa, x, bias, y, step=step)
        if step:
            return
        if matrix.format == "csr" and self.fault == "weight":
            y *= np.float32(1 + 1e-4)
        elif matrix.format == "csr":
            y[0, 0] = np.nan


@pytest.mark.parametrize("fault", ["weight", "nan"])
def test_a_wrong_kernel_is_found(monkeypatch: pytest.MonkeyPatch, fault: str) -> None:
    monkeypatch.setattr(parity, "native", Wrong(fault))
    bad = [c for c in product_checks() if not c.ok]
    assert {c.name.split()[1] for c in bad} == {"csr"}
    assert {c.what for c in bad} == {"product"}


def test_a_packer_that_changes_a_weight_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def pack(pattern, weight):
        return CSR.pack(pattern, np.nextafter(weight, np.float32(9)))

    kernel = replace(kernels_for(ISAS[0])["csr"], format=replace(CSR, pack=pack))
    monkeypatch.setattr(parity, "kernels_of", lambda isa, dtype: {"csr": kernel})
    monkeypatch.setattr(parity, "available_isas", lambda: (ISAS[0],))
    assert {c.note for c in product_checks() if c.what != "batch"} == {"packing changed a weight"}


def test_a_kernel_that_nothing_fits_is_no_success(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parity, "supported", lambda *args: None)
    checks = list(product_checks())
    assert checks
    assert not any(c.ok for c in checks)


def test_wrong_layers_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    from sparsecirc.testing import wrong_weight

    made = parity.compile
    monkeypatch.setattr(parity, "compile", lambda *args, **kwargs: wrong_weight(made(*args, **kwargs), factor=1.05))
    monkeypatch.setattr(parity, "available_isas", lambda: ISAS[-1:])
    assert not any(c.ok for c in layer_checks())


def test_the_clock() -> None:
    timer = timer_noise()
    assert 0 < timer.resolution_ns < 1e7
    assert timer.sample_us > 0
    assert 0 <= timer.spread <= timer.worst
    assert Timer(50, 100, 0.3, 2).noisy
    assert not Timer(50, 100, 0.01, 2).noisy
