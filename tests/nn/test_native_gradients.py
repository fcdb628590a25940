"""Every native gradient against the float64 reference, for every cell, size and instruction set; and the reference
itself against gradcheck.
"""

from __future__ import annotations

import pytest
import torch
from gradient_cases import CELLS, Made, assert_same, gated, neurons, outputs, pattern, run
from torch import Tensor

from sparsecirc._native import kernels
from sparsecirc.ops import _autograd as ops
from sparsecirc.ops._autograd import _arrays

SIZES = [(1, 1, 1), (1, 17, 3), (63, 17, 1), (5, 17, 64), (63, 17, 3), (2, 500, 3), (3, 40, 19)]
RESETS = ("none", "subtract", "zero", "zero_update")
SURROGATES = ("fast_sigmoid", "atan", "sigmoid", "triangular", "straight_through")


SPIKING_TOLERANCE = 2e-4
"""Steep surrogates pass rounding of a membrane near its threshold on, step after step."""


def layer(cell: str, steps: int, units: int, batch: int) -> tuple[ops.Recurrence | ops.Spiking, Made]:
    if cell in CELLS:
        return ops.Recurrence(cell), gated(cell, steps, units, batch)
    job = ops.Spiking(reset="subtract", surrogate="fast_sigmoid", scale=5.0)
    return job, neurons(steps, units, batch, synaptic=cell == "synaptic")


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("size", SIZES)
def test_gated_cells(cell: str, size: tuple[int, int, int], reverse: bool):
    made = gated(cell, *size)
    job = ops.Recurrence(cell, reverse=reverse)
    truth = run(job, made, torch.float64)
    assert {f"d {n}" for n in ("x", "state0", "ih", "hh", "bias_ih", "bias_hh")} <= truth.keys()
    assert_same(run(job, made, torch.float32), truth)


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("cell", [*CELLS, "projected"])
@pytest.mark.parametrize("lengths", [[9, 7, 7, 2, 1], [6], [4] * 17, [20, *[3] * 33]])
def test_packed_sequences(cell: str, lengths: list[int], reverse: bool):
    projected = cell == "projected"
    cell = "lstm" if projected else cell
    made = gated(cell, max(lengths), 19, len(lengths), lengths=lengths, width=7 if projected else None)
    job = ops.Recurrence(cell, reverse=reverse)
    assert_same(run(job, made, torch.float32), run(job, made, torch.float64))


@pytest.mark.parametrize("size", [(1, 17, 3), (12, 17, 1), (9, 40, 19), (3, 500, 64)])
@pytest.mark.parametrize("width", [1, 9])
def test_projections(size: tuple[int, int, int], width: int):
    made = gated("lstm", *size, width=width)
    truth = run(ops.Recurrence("lstm"), made, torch.float64)
    assert truth["d hr"].count_nonzero()
    assert_same(run(ops.Recurrence("lstm"), made, torch.float32), truth)


@pytest.mark.parametrize("size", [(9, 21, 13), (6, 48, 64), (350, 32, 48)])  # the last is written past the caches
@pytest.mark.parametrize("isa", kernels.isas())
@pytest.mark.parametrize("cell", [*CELLS, "lif", "synaptic"])
def test_every_instruction_set(monkeypatch: pytest.MonkeyPatch, cell: str, isa: str, size: tuple[int, int, int]):
    monkeypatch.setattr(_arrays, "best_isa", lambda: isa)
    job, made = layer(cell, *size)
    truth = run(job, made, torch.float64)
    assert_same(run(job, made, torch.float32), truth, 3e-5 if cell in CELLS else SPIKING_TOLERANCE)
    with torch.no_grad():  # nothing is kept: the states alternate between two places
        again = {k: v.detach() if isinstance(v, Tensor) else v for k, v in made.items()}
        assert_same(outputs(job, again), {k: v for k, v in truth.items() if not k.startswith("d ")})


@pytest.mark.parametrize("isa", kernels.isas())
@pytest.mark.parametrize("cell", ["gru", "lif"])
def test_products_in_tiles_of_columns(monkeypatch: pytest.MonkeyPatch, cell: str, isa: str):
    monkeypatch.setattr(_arrays, "best_isa", lambda: isa)
    if cell == "gru":
        job, made = ops.Recurrence("gru"), gated("gru", 9, 300, 70, density=0.4)
    else:
        job, made = ops.Spiking(reset="subtract", surrogate="atan", scale=2.0), neurons(9, 300, 70)
    assert_same(run(job, made, torch.float32), run(job, made, torch.float64), SPIKING_TOLERANCE)


@pytest.mark.parametrize("synaptic", [False, True])
@pytest.mark.parametrize("delay", [True, False])
@pytest.mark.parametrize("reset", RESETS)
@pytest.mark.parametrize("surrogate", SURROGATES)
def test_spiking(surrogate: str, reset: str, delay: bool, synaptic: bool):
    made = neurons(12, 17, 3, synaptic=synaptic)
    job = ops.Spiking(reset=reset, delay=delay, surrogate=surrogate, scale=2.0)
    truth = run(job, made, torch.float64)
    wanted = ("mem", "beta", "theta", "hh", "bias", *(("syn", "alpha") if synaptic else ()))
    assert {f"d {n}" for n in wanted} <= truth.keys()
    assert_same(run(job, made, torch.float32), truth, SPIKING_TOLERANCE)


@pytest.mark.parametrize("isa", kernels.isas())
@pytest.mark.parametrize("drive", [0.0, 0.3, 0.6, 1.0, 4.0])
@pytest.mark.parametrize("size", [(1, 40, 5), (12, 40, 5), (12, 3, 70), (12, 40, 64), (7, 64, 32)])
def test_spikes_one_by_one_and_all_at_once(
    monkeypatch: pytest.MonkeyPatch, size: tuple[int, int, int], drive: float, isa: str
):
    monkeypatch.setattr(_arrays, "best_isa", lambda: isa)
    made = neurons(*size, drive=drive)
    job = ops.Spiking(reset="subtract", surrogate="atan", scale=2.0)
    assert_same(run(job, made, torch.float32), run(job, made, torch.float64), SPIKING_TOLERANCE)


@pytest.mark.parametrize("batch", [1, 3, 20, 33, 64])
def test_a_membrane_is_the_same_float_however_spikes_are_added(monkeypatch: pytest.MonkeyPatch, batch: int):
    made = neurons(40, 50, batch, drive=0.5)
    job = ops.Spiking(reset="subtract", surrogate="atan", scale=2.0)
    results = []
    for isa in kernels.isas():
        monkeypatch.setattr(_arrays, "best_isa", lambda isa=isa: isa)
        results.append(outputs(job, made))
        now, stepped = dict(made), []
        for x in made["x"]:  # one step per call: always all at once
            one = outputs(job, now | {"x": x[None]})
            now |= {"spk": one["spk"][0], "mem": one["mem"][0]}
            stepped.append(one["mem"][0])
        assert torch.equal(torch.stack(stepped), results[-1]["mem"])
    assert 0.01 < float(results[0]["spk"].mean()) < 0.5
    assert all(torch.equal(r["mem"], results[0]["mem"]) for r in results)


def test_neurons_without_feedback():
    made = neurons(12, 17, 3, synaptic=True, feedback=False)
    job = ops.Spiking(reset="zero", surrogate="atan", scale=2.0)
    assert_same(run(job, made, torch.float32), run(job, made, torch.float64), SPIKING_TOLERANCE)


@pytest.mark.parametrize("size", [(1, 1, 1), (12, 17, 3), (350, 32, 48), (3, 3, 0)])
@pytest.mark.parametrize("isa", kernels.isas())
def test_integrators(monkeypatch: pytest.MonkeyPatch, isa: str, size: tuple[int, int, int]):
    monkeypatch.setattr(_arrays, "best_isa", lambda: isa)
    made = neurons(*size, feedback=False) | {"theta": None}
    truth = run(ops.Spiking(), made, torch.float64)
    assert truth["spk"].numel() == 0
    native = run(ops.Spiking(), made, torch.float32)
    assert_same({k: v for k, v in native.items() if k in truth}, truth, SPIKING_TOLERANCE)


def test_initial_spikes_may_be_any_numbers():
    made = neurons(6, 17, 3)
    made["spk"] = torch.randn(3, 17)
    job = ops.Spiking(reset="subtract", surrogate="atan", scale=2.0)
    truth = run(job, made, torch.float64)
    assert truth["d spk"].count_nonzero()
    assert_same(run(job, made, torch.float32), truth, SPIKING_TOLERANCE)


@pytest.mark.parametrize("cell", ["gru", "lif"])
def test_the_same_bits_every_time(cell: str):
    job, made = layer(cell, 20, 40, 19)
    first, second = (run(job, made, torch.float32) for _ in range(2))
    assert all(torch.equal(first[k], second[k]) for k in first)


@pytest.mark.parametrize("lengths", [None, [3, 1]])
@pytest.mark.parametrize("cell", ["rnn_tanh", "gru", "lstm", "projected"])
def test_gradcheck_of_the_reference(cell: str, lengths: list[int] | None):
    projected = cell == "projected"
    cell = "lstm" if projected else cell
    made = gated(cell, 3, 3, 2, lengths=lengths, width=2 if projected else None)
    made = {k: v if v is None or not v.is_floating_point() else v.double() for k, v in made.items()}
    names = [n for n, v in made.items() if v is not None and v.is_floating_point()]

    def f(*values: Tensor) -> tuple[Tensor, ...]:
        return tuple(outputs(ops.Recurrence(cell), made | dict(zip(names, values, strict=True))).values())

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
@pytest.mark.parametrize("cell", [*CELLS, "lif", "synaptic"])
def test_nothing_to_do(cell: str, steps: int, batch: int):
    job, made = layer(cell, steps, 17, batch)
    native = run(job, made, torch.float32)
    doubles = {k: v.double() if v is not None and v.is_floating_point() else v for k, v in made.items()}
    assert_same({k: v for k, v in native.items() if not k.startswith("d ")}, outputs(job, doubles))
    for name, grad in native.items():  # the last state is the first one, so its gradient comes back as it went in
        if name.startswith("d ") and not name.startswith("d state"):
            assert not grad.count_nonzero(), name


def test_damaged_patterns_are_refused():
    made = gated("gru", 2, 5, 2)
    made["hh_indices"][0] = 5
    with pytest.raises(ValueError, match="hh: an index is outside the matrix"):
        outputs(ops.Recurrence("gru"), made)


@pytest.mark.parametrize("offsets", [[0, 2, 5], [0, 1, 3], [1, 2, 3], [0, 2, 2], [0, 3, 2], [0, 2, 9]])
def test_damaged_offsets_are_refused(offsets: list[int]):
    made = gated("gru", 2, 5, 2, lengths=[2, 1])
    made["offsets"] = torch.tensor(offsets)
    with pytest.raises(ValueError, match=r"offsets must|ever fewer samples"):
        outputs(ops.Recurrence("gru"), made)


def test_mixed_types_are_refused():
    made = gated("gru", 2, 5, 2)
    made["x"] = made["x"].double()
    with pytest.raises(ValueError, match=r"torch\.float32, torch\.float64"):
        outputs(ops.Recurrence("gru"), made)
