"""Every native gradient against the float64 reference, for every cell, size and instruction set; and the reference
itself against gradcheck.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from sparsecirc._native import kernels
from sparsecirc._pattern import Pattern
from sparsecirc.ops import _autograd as ops

CELLS = ("rnn_tanh", "rnn_relu", "gru", "lstm")
SIZES = [(1, 1, 1), (1, 17, 3), (63, 17, 1), (5, 17, 64), (63, 17, 3), (2, 500, 3), (3, 40, 19)]
NAMES = ("x", "state0", "state1", "ih", "hh", "bias_ih", "bias_hh", "beta", "theta")


def pattern(rows: int, cols: int, density: float) -> Pattern:
    mask = torch.rand(rows, cols) < density
    if rows > 2:
        mask[1] = False  # an empty row
    mask[0, 0] = True
    return Pattern.from_mask(mask.numpy())


def tensors(cell: str, steps: int, units: int, batch: int, density: float = 0.3) -> dict[str, Tensor | None]:
    rows, width = ops.GATES[cell] * units, rng_width(units)
    gated = cell != "lif"
    made: dict[str, Tensor | None] = dict.fromkeys(NAMES)
    made["x"] = torch.randn(steps, batch, width if gated else units)
    made["state0"] = torch.randn(batch, units) if gated else torch.rand(batch, units).round()
    if cell in ("lstm", "lif"):
        made["state1"] = torch.randn(batch, units)
    for role, cols in (("ih", width), ("hh", units)):
        if gated or role == "hh":
            p = pattern(rows, cols, density)
            made[f"{role}_indptr"] = torch.from_numpy(p.indptr.copy())
            made[f"{role}_indices"] = torch.from_numpy(p.indices.copy())
            made[role] = torch.randn(p.nnz) / np.sqrt(max(1.0, density * cols))
            made[f"bias_{role}"] = 0.3 * torch.randn(rows)
    if not gated:
        made["beta"], made["theta"] = torch.rand(units), 0.5 + torch.rand(units)
    return made


def rng_width(units: int) -> int:
    return {1: 1, 17: 5, 500: 70}.get(units, 50)


def run(job: ops.Recurrence, made: dict[str, Tensor | None], dtype: torch.dtype) -> dict[str, Tensor]:
    """Outputs and gradients of a random functional of them all."""
    t = {k: None if v is None else v.detach().to(dtype).requires_grad_() for k, v in made.items() if k in NAMES}

    def sparse(role: str) -> ops.Sparse | None:
        values = t[role]
        if values is None:
            return None
        indptr, indices = made[f"{role}_indptr"], made[f"{role}_indices"]
        cols = t["x"].shape[2] if role == "ih" else t["state0"].shape[1]
        return ops.Sparse(indptr, indices, values, (len(indptr) - 1, cols))

    state = [t[n] for n in ("state0", "state1") if t[n] is not None]
    outs = ops.recurrent(
        job, t["x"], state, ih=sparse("ih"), hh=sparse("hh"), bias_ih=t["bias_ih"], bias_hh=t["bias_hh"],
        beta=t["beta"], theta=t["theta"],
    )  # fmt: skip
    generator = torch.Generator().manual_seed(1)
    loss = sum(((o * torch.randn(o.shape, generator=generator).to(dtype)).sum() for o in outs), torch.zeros(()))
    loss.backward()
    results = {f"out{i}": o.detach() for i, o in enumerate(outs)}
    return results | {f"d {k}": v.grad for k, v in t.items() if v is not None and v.grad is not None}


def assert_same(native: dict[str, Tensor], truth: dict[str, Tensor], tolerance: float = 3e-5) -> None:
    assert native.keys() == truth.keys()
    for name, right in truth.items():
        scale = 1 + float(right.abs().max()) if right.numel() else 1.0
        assert torch.isfinite(native[name]).all(), name
        error = float((native[name].double() - right).abs().max()) / scale if right.numel() else 0.0
        assert error < tolerance, f"{name}: {error}"


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("size", SIZES)
def test_gated_cells(cell: str, size: tuple[int, int, int], reverse: bool):
    made = tensors(cell, *size)
    job = ops.Recurrence(cell, reverse=reverse)
    truth = run(job, made, torch.float64)
    assert {f"d {n}" for n in ("x", "state0", "ih", "hh", "bias_ih", "bias_hh")} <= truth.keys()
    assert_same(run(job, made, torch.float32), truth)


@pytest.mark.parametrize("size", [(9, 21, 13), (4, 48, 64), (350, 32, 48)])  # the last is written past the caches
@pytest.mark.parametrize("isa", kernels.isas())
@pytest.mark.parametrize("cell", [*CELLS, "lif"])
def test_every_instruction_set(monkeypatch: pytest.MonkeyPatch, cell: str, isa: str, size: tuple[int, int, int]):
    monkeypatch.setattr(ops, "best_isa", lambda: isa)
    made = tensors(cell, *size)
    job = ops.Recurrence(cell, reset="subtract", surrogate="fast_sigmoid", scale=5.0)
    truth = run(job, made, torch.float64)
    assert_same(run(job, made, torch.float32), truth)
    with torch.no_grad():  # nothing is kept: the states alternate between two places
        again = {k: v.detach() if isinstance(v, Tensor) else v for k, v in made.items()}
        assert_same(outputs_only(job, again), {k: v for k, v in truth.items() if k.startswith("out")})


def outputs_only(job: ops.Recurrence, made: dict[str, Tensor | None]) -> dict[str, Tensor]:
    def sparse(role: str, cols: int) -> ops.Sparse | None:
        values = made[role]
        if values is None:
            return None
        indptr = made[f"{role}_indptr"]
        return ops.Sparse(indptr, made[f"{role}_indices"], values, (len(indptr) - 1, cols))

    state = [made[n] for n in ("state0", "state1") if made[n] is not None]
    outs = ops.recurrent(
        job, made["x"], state, ih=sparse("ih", made["x"].shape[2]), hh=sparse("hh", state[0].shape[1]),
        bias_ih=made["bias_ih"], bias_hh=made["bias_hh"], beta=made["beta"], theta=made["theta"],
    )  # fmt: skip
    return {f"out{i}": o for i, o in enumerate(outs)}


@pytest.mark.parametrize("delay", [True, False])
@pytest.mark.parametrize("reset", ["none", "subtract", "zero", "zero_update"])
@pytest.mark.parametrize("surrogate", ["fast_sigmoid", "atan", "sigmoid", "triangular", "straight_through"])
def test_spiking(surrogate: str, reset: str, delay: bool):
    made = tensors("lif", 12, 17, 3)
    job = ops.Recurrence("lif", reset=reset, delay=delay, surrogate=surrogate, scale=2.0)
    truth = run(job, made, torch.float64)
    assert {"d state1", "d beta", "d theta", "d hh", "d bias_hh"} <= truth.keys()
    assert_same(run(job, made, torch.float32), truth, 2e-4)


def test_the_same_bits_every_time():
    made = tensors("gru", 20, 40, 19)
    first, second = (run(ops.Recurrence("gru"), made, torch.float32) for _ in range(2))
    assert all(torch.equal(first[k], second[k]) for k in first)


@pytest.mark.parametrize("cell", ["rnn_tanh", "gru", "lstm"])
def test_gradcheck_of_the_reference(cell: str):
    made = {k: v if v is None or not v.is_floating_point() else v.double() for k, v in tensors(cell, 3, 3, 2).items()}
    names = [n for n in NAMES if made[n] is not None]

    def f(*values: Tensor) -> tuple[Tensor, ...]:
        outs = outputs_only(ops.Recurrence(cell), made | dict(zip(names, values, strict=True)))
        return tuple(o for o in outs.values() if o.numel())

    assert torch.autograd.gradcheck(f, [made[n].requires_grad_() for n in names])


@pytest.mark.parametrize("n", [0, 1, 63, 64, 130])
def test_linear(n: int):
    p = pattern(33, 18, 0.3)
    indptr, indices = torch.from_numpy(p.indptr.copy()), torch.from_numpy(p.indices.copy())
    given = (torch.randn(n, 18), torch.randn(p.nnz), torch.randn(33))
    results = []
    for dtype in (torch.float32, torch.float64):
        x, v, b = (g.detach().to(dtype).requires_grad_() for g in given)
        y = ops.linear(x, ops.Sparse(indptr, indices, v, p.shape), b)
        (y * torch.linspace(-1, 1, y.numel(), dtype=dtype).reshape(y.shape)).sum().backward()
        results.append({"y": y.detach(), "dx": x.grad, "dv": v.grad, "db": b.grad})
    assert_same(*results)


@pytest.mark.parametrize(("steps", "batch"), [(0, 3), (3, 0), (0, 0)])
@pytest.mark.parametrize("cell", [*CELLS, "lif"])
def test_nothing_to_do(cell: str, steps: int, batch: int):
    made = tensors(cell, steps, 17, batch)
    job = ops.Recurrence(cell, reset="subtract", delay=False)
    native = run(job, made, torch.float32)
    outs = {k: v for k, v in native.items() if k.startswith("out")}
    doubles = {k: v.double() if v is not None and v.is_floating_point() else v for k, v in made.items()}
    assert_same(outs, outputs_only(job, doubles))
    for name, grad in native.items():  # the last state is the first one, so its gradient comes back as it went in
        if name.startswith("d ") and not (name in ("d state0", "d state1") and cell != "lif"):
            assert not grad.count_nonzero(), name


def test_damaged_patterns_are_refused():
    made = tensors("gru", 2, 5, 2)
    made["hh_indices"][0] = 5
    with pytest.raises(ValueError, match="hh: an index is outside the matrix"):
        outputs_only(ops.Recurrence("gru"), made)


def test_mixed_types_are_refused():
    made = tensors("gru", 2, 5, 2)
    made["x"] = made["x"].double()
    with pytest.raises(ValueError, match=r"torch\.float32, torch\.float64"):
        outputs_only(ops.Recurrence("gru"), made)
