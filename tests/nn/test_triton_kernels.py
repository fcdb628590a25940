"""The GPU kernels against the float64 reference: on a GPU where torch has one, else by Triton's interpreter on the CPU.

`conftest.py` switches the interpreter on before Triton is imported.
"""

from __future__ import annotations

import gc
import weakref

import pytest
import torch
from gradient_cases import Made, assert_same, gated, neurons, weight
from torch import Tensor

pytest.importorskip("triton", reason="the package triton is not installed: pip install -c constraints.txt '.[gpu]'")

from sparsecirc._pattern import Pattern
from sparsecirc.errors import UnsupportedError, UsageError
from sparsecirc.ops import _autograd as cpu
from sparsecirc.ops import triton as gpu
from sparsecirc.ops.triton import _kernels, _matrix
from sparsecirc.patterns import block

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


@pytest.fixture(autouse=True)
def _few_lanes(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(_kernels, "LANES", 16)  # so that small batches need more than one program


def results(op: object, job: object, made: Made, dtype: torch.dtype, device: str) -> dict[str, Tensor]:
    """Outputs, and gradients of a random functional of them all."""
    leaves = {
        k: v.detach().to(device, dtype).requires_grad_()
        for k, v in made.items()
        if v is not None and v.is_floating_point()
    }
    t = {k: None if v is None else v.to(device) for k, v in made.items()} | leaves
    if isinstance(job, cpu.Recurrence):
        w = {r: weight(t, r, t["x"].shape[-1] if r == "ih" else t["state0"].shape[1]) for r in ("ih", "hh")}
        out, last = op.recurrent(job, t["x"], [t["state0"]], **w, bias_ih=t["bias_ih"], bias_hh=t["bias_hh"])
        outs = {"out": out, "last": last[0]}
    else:
        spk, _, mem = op.spiking(
            job, t["x"], t["spk"], None, t["mem"], beta=t["beta"], theta=t["theta"],
            hh=weight(t, "hh", t["x"].shape[2]), bias=t.get("bias"),
        )  # fmt: skip
        outs = {"spk": spk, "mem": mem}
    generator = torch.Generator().manual_seed(1)
    loss = sum((o * torch.randn(o.shape, generator=generator).to(device, dtype)).sum() for o in outs.values())
    loss.backward()
    found = {name: o.detach() for name, o in outs.items()}
    found |= {f"d {k}": v.grad for k, v in leaves.items() if v.grad is not None}
    return {k: v.cpu() for k, v in found.items()}


def compare(job: object, made: Made, tolerance: float = 3e-5) -> None:
    truth = results(cpu, job, made, torch.float64, "cpu")
    assert_same(results(gpu, job, made, torch.float32, DEVICE), truth, tolerance)


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("size", [(1, 1, 1), (2, 3, 18), (3, 3, 2)])
def test_gru(size: tuple[int, int, int], bias: bool, reverse: bool):
    made = gated("gru", *size, features=4)
    if not bias:
        made |= {"bias_ih": None, "bias_hh": None}
    compare(cpu.Recurrence("gru", reverse), made)


@pytest.mark.parametrize("delay", [True, False])
@pytest.mark.parametrize("reset", ["none", "subtract", "zero", "zero_update"])
@pytest.mark.parametrize("surrogate", ["fast_sigmoid", "atan", "sigmoid", "triangular", "straight_through"])
def test_lif(surrogate: str, reset: str, delay: bool):
    job = cpu.Spiking(reset, delay, surrogate, 2.0)
    compare(job, neurons(4, 3, 2), 2e-4)


@pytest.mark.parametrize("feedback", [True, False])
@pytest.mark.parametrize("size", [(1, 1, 1), (2, 3, 18), (3, 3, 2)])
def test_lif_of_any_size(size: tuple[int, int, int], feedback: bool):
    made, job = neurons(*size, feedback=feedback), cpu.Spiking("subtract", True, "atan", 2.0)
    truth = results(cpu, job, made, torch.float64, "cpu")
    assert_same(results(gpu, job, made, torch.float32, DEVICE), truth, 2e-4)


@pytest.mark.parametrize(("steps", "batch"), [(0, 2), (3, 0)])
@pytest.mark.parametrize("cell", ["gru", "lif", "without feedback"])
def test_nothing_to_do(cell: str, steps: int, batch: int):
    if cell == "gru":
        job, made = cpu.Recurrence("gru"), gated("gru", steps, 3, batch)
    else:
        job, made = cpu.Spiking("subtract"), neurons(steps, 3, batch, feedback=cell == "lif")
    got = results(gpu, job, made, torch.float32, DEVICE)
    assert got["out" if cell == "gru" else "mem"].shape == (steps, batch, 3)
    for name, grad in got.items():
        if name.startswith("d ") and name != "d state0":
            assert grad.shape == made[name[2:]].shape
            assert not grad.count_nonzero()


def linear(
    op: object, pattern: Pattern, given: tuple[Tensor, ...], dtype: torch.dtype, device: str
) -> dict[str, Tensor]:
    indptr, indices = (torch.from_numpy(a.copy()).to(device) for a in (pattern.indptr, pattern.indices))
    x, v, b = (t.detach().to(device, dtype).requires_grad_() for t in given)
    y = op.linear(x, cpu.Sparse(indptr, indices, v, pattern.shape), b)
    (y * torch.linspace(-1, 1, y.numel(), dtype=dtype, device=device).reshape(y.shape)).sum().backward()
    return {"y": y.detach().cpu(), "dx": x.grad.cpu(), "dv": v.grad.cpu(), "db": b.grad.cpu()}


def layout(pattern: Pattern) -> _matrix.Layout:
    indptr, indices = (torch.from_numpy(a.copy()) for a in (pattern.indptr, pattern.indices))
    return _matrix.layout_of(indptr, indices, pattern.shape)


PATTERNS = {
    "scattered": Pattern.from_mask((torch.arange(7 * 5).reshape(7, 5) % 3 == 0).numpy()),
    "empty": Pattern.from_mask(torch.zeros(4, 3).numpy() > 0),
    "blocks": block(16, 16)(torch.rand(32, 48, generator=torch.Generator().manual_seed(0)).numpy(), 0.5),
    "shifted blocks": Pattern.from_mask((torch.arange(16 * 32).reshape(16, 32) % 32 // 8 % 4 == 1).numpy()),
}


@pytest.mark.parametrize("n", [0, 1, 19])
@pytest.mark.parametrize("name", PATTERNS)
def test_products(name: str, n: int):
    pattern = PATTERNS[name]
    rows, cols = pattern.shape
    given = (torch.randn(n, 1, cols), torch.randn(pattern.nnz), torch.randn(rows))
    assert_same(linear(gpu, pattern, given, torch.float32, DEVICE), linear(cpu, pattern, given, torch.float64, "cpu"))
    assert (layout(pattern).blocks is not None) == (name == "blocks")


def test_layouts_are_kept_while_their_tensors_live_and_do_not_change():
    pattern = PATTERNS["scattered"]
    indptr, indices = (torch.from_numpy(a.copy()) for a in (pattern.indptr, pattern.indices))
    first = _matrix.layout_of(indptr, indices, pattern.shape)
    assert _matrix.layout_of(indptr, indices, pattern.shape) is first
    indices.copy_(indices.clone())
    assert _matrix.layout_of(indptr, indices, pattern.shape) is not first
    gone = weakref.ref(_matrix.layout_of(indptr, indices, pattern.shape))
    del indices, first
    gc.collect()
    assert gone() is None


def test_what_has_no_kernel_is_refused():
    made = gated("lstm", 2, 3, 2)
    with pytest.raises(UnsupportedError, match="cell 'lstm' has no GPU kernels"):
        gpu.recurrent(
            cpu.Recurrence("lstm"), made["x"], [made["state0"]], ih=weight(made, "ih", 50), hh=weight(made, "hh", 3)
        )
    made = neurons(2, 3, 2, synaptic=True)
    with pytest.raises(UnsupportedError, match="synaptic current"):
        gpu.spiking(
            cpu.Spiking(),
            made["x"],
            made["spk"],
            made["syn"],
            made["mem"],
            **{n: made[n] for n in ("alpha", "beta", "theta")},
        )
    with pytest.raises(UsageError, match="expected float32"):
        linear(
            gpu,
            PATTERNS["scattered"],
            (torch.randn(2, 5), torch.randn(PATTERNS["scattered"].nnz), torch.randn(7)),
            torch.float64,
            DEVICE,
        )
