"""What torch offers around a layer: compile, autocast, no_grad, opcheck, hooks of its op registry."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from sparsecirc.nn import SparseGRU, SparseLinear, SparseLSTM, SparseRLIF
from sparsecirc.ops import _autograd as ops

LAYERS: dict[str, Callable[[], nn.Module]] = {
    "gru": lambda: SparseGRU(5, 12, num_layers=2, bidirectional=True, density=0.3),
    "lstm": lambda: SparseLSTM(5, 12, density=0.3),
    "lif": lambda: SparseRLIF(0.9, 5, learn_beta=True, density=0.5, reset_delay=False),
    "linear": lambda: SparseLinear(5, 12, density=0.5),
}


def first(out: Tensor | tuple[Tensor, ...]) -> Tensor:
    return out if isinstance(out, Tensor) else out[0]


def gradients(layer: nn.Module, run: Callable[[Tensor], Tensor | tuple[Tensor, ...]], x: Tensor) -> list[Tensor]:
    layer.zero_grad()
    given = x.clone().requires_grad_()
    out = first(run(given))
    out.square().sum().backward()
    return [out.detach(), given.grad, *(p.grad.clone() for p in layer.parameters() if p.grad is not None)]


@pytest.mark.parametrize("name", LAYERS)
def test_compiled_as_one_graph(name: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(ops, "POISON", False)
    torch._dynamo.reset()
    layer = LAYERS[name]()
    x = torch.randn(4, 3, 5)
    eager = gradients(layer, layer, x)
    compiled = gradients(layer, torch.compile(layer, fullgraph=True, backend="aot_eager"), x)
    for mine, theirs in zip(compiled, eager, strict=True):
        torch.testing.assert_close(mine, theirs)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of torch itself
def test_compiled_by_inductor(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))  # it would take code for an older form of the ops
    monkeypatch.setattr(ops, "POISON", False)
    layer = LAYERS["gru"]()
    x = torch.randn(4, 3, 5)
    compiled = gradients(layer, torch.compile(layer, fullgraph=True), x)
    for mine, theirs in zip(compiled, gradients(layer, layer, x), strict=True):
        torch.testing.assert_close(mine, theirs)


@pytest.mark.parametrize("name", LAYERS)
def test_autocast_computes_in_float32(name: str):
    layer = LAYERS[name]()
    x = torch.randn(4, 3, 5).bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        cast = gradients(layer, layer, x)
    plain = gradients(layer, layer, x.float())
    assert cast[0].dtype == torch.bfloat16
    torch.testing.assert_close(cast[0].float(), plain[0], rtol=1e-2, atol=1e-2)
    assert all(p.grad.dtype == torch.float32 for p in layer.parameters() if p.grad is not None)


@pytest.mark.parametrize("name", ["gru", "lstm", "lif"])
def test_nothing_is_kept_where_no_gradient_is_wanted(name: str, monkeypatch: pytest.MonkeyPatch):
    layer = LAYERS[name]()
    kept: list[bool] = []
    original = ops._outputs

    def watched(*args: object) -> tuple[Tensor, ...]:
        made = original(*args)
        kept.append(any(t.numel() for t in made[4:]))
        return made

    monkeypatch.setattr(ops, "_outputs", watched)
    x = torch.randn(4, 3, 5)
    with_grad = first(layer(x))
    assert all(kept)
    kept.clear()
    with torch.no_grad():
        without = first(layer(x))
    assert not any(kept)
    assert torch.equal(with_grad, without)


@pytest.mark.parametrize("cell", ["gru", "lif"])
def test_ops_keep_the_rules_of_torch(cell: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(ops, "POISON", False)
    rows, width = ops.GATES[cell] * 3, 4 if cell == "gru" else 3
    indptr, indices = torch.arange(rows + 1, dtype=torch.int32), torch.zeros(rows, dtype=torch.int32)
    values = torch.randn(rows, requires_grad=True)
    gated = cell == "gru"
    args = (
        torch.randn(2, 5, width, requires_grad=True), torch.randn(5, 3), None if gated else torch.randn(5, 3),
        values.detach().requires_grad_() if gated else None, values, None, torch.randn(rows, requires_grad=True),
        None if gated else torch.rand(3, requires_grad=True), None if gated else torch.rand(3),
        *((indptr, indices) if gated else (None, None)), indptr, indices,
        cell, False, "none" if gated else "subtract", True, "atan", 2.0, True,
    )  # fmt: skip
    torch.library.opcheck(
        ops._recurrent, args, test_utils=("test_schema", "test_faketensor", "test_autograd_registration")
    )
    x, bias = torch.randn(5, 1, requires_grad=True), torch.randn(rows)
    torch.library.opcheck(ops._linear, (x, values, bias, indptr, indices))


def test_second_derivatives_are_refused():
    layer = SparseGRU(3, 4, density=0.5)
    x = torch.randn(2, 2, 3, requires_grad=True)
    (grad,) = torch.autograd.grad(layer(x)[0].sum(), x, create_graph=True)
    with pytest.raises(RuntimeError):
        grad.sum().backward()


def test_float64_runs_on_the_reference():
    layer = SparseGRU(3, 4, density=0.5, dtype=torch.float64)
    x = torch.randn(2, 2, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda v: layer(v)[0], [x])
