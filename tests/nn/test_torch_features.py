"""What torch offers around a layer: compile, autocast, no_grad, opcheck, hooks of its op registry."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from gradient_cases import gated, neurons
from layer_catalogue import LAYERS, first, gradients
from torch import Tensor
from torch.nn.utils.rnn import pack_sequence

from sparsecirc.nn import SparseGRU
from sparsecirc.ops._autograd import _arrays, _gated, _linear, _spiking

RULES = ("test_schema", "test_faketensor", "test_autograd_registration")


@pytest.mark.parametrize("name", LAYERS)
def test_compiled_as_one_graph(name: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(_arrays, "POISON", False)
    torch._dynamo.reset()
    layer = LAYERS[name]()
    x = torch.randn(4, 3, 5)
    eager = gradients(layer, layer, x)
    compiled = gradients(layer, torch.compile(layer, fullgraph=True, backend="aot_eager"), x)
    for mine, theirs in zip(compiled, eager, strict=True):
        torch.testing.assert_close(mine, theirs)


@pytest.mark.filterwarnings("ignore::UserWarning")  # torch warns of the break
def test_packed_sequences_break_the_graph_and_nothing_else(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(_arrays, "POISON", False)
    torch._dynamo.reset()
    layer = SparseGRU(4, 8, density=0.5)
    packed = pack_sequence([torch.randn(5, 4), torch.randn(2, 4)])
    compiled, h = torch.compile(layer, backend="aot_eager")(packed)
    eager, g = layer(packed)
    torch.testing.assert_close((compiled.data, h), (eager.data, g))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["gru", "recurrent_synaptic"])
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of torch itself
def test_compiled_by_inductor(name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))  # it would take code for an older form of the ops
    monkeypatch.setattr(_arrays, "POISON", False)
    layer = LAYERS[name]()
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


@pytest.mark.parametrize("name", ["gru", "lstm"])
def test_nothing_is_kept_where_no_gradient_is_wanted(name: str, monkeypatch: pytest.MonkeyPatch):
    layer = LAYERS[name]()
    kept: list[bool] = []
    original = _gated._outputs

    def watched(*args: object) -> tuple[Tensor, ...]:
        made = original(*args)
        kept.append(any(t.numel() for t in made[3:]))
        return made

    monkeypatch.setattr(_gated, "_outputs", watched)
    x = torch.randn(4, 3, 5)
    with_grad = first(layer(x))
    assert all(kept)
    kept.clear()
    with torch.no_grad():
        without = first(layer(x))
    assert not any(kept)
    assert torch.equal(with_grad, without)


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("cell", ["gru", "lstm"])
def test_gated_ops_keep_the_rules_of_torch(cell: str, packed: bool, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(_arrays, "POISON", False)
    made = gated(cell, 2, 3, 5, lengths=[2, 2, 2, 1, 1] if packed else None, width=2 if cell == "lstm" else None)
    tensors = [made.get(n) for n in ("x", "state0", "state1", "ih", "hh", "hr", "bias_ih", "bias_hh")]
    pattern = [made.get(f"{role}_{part}") for role in ("ih", "hh", "hr") for part in ("indptr", "indices")]
    leaves = [None if t is None else t.requires_grad_() for t in tensors]
    args = (*leaves, *pattern, made["offsets"], cell, False, True)
    torch.library.opcheck(_gated._recurrent, args, test_utils=RULES)


@pytest.mark.parametrize("delay", [False, True])
@pytest.mark.parametrize("synaptic", [False, True])
def test_spiking_ops_keep_the_rules_of_torch(synaptic: bool, delay: bool, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(_arrays, "POISON", False)
    made = neurons(2, 3, 5, synaptic=synaptic)
    names = ("x", "spk", "syn", "mem", "hh", "bias", "alpha", "beta", "theta")
    leaves = [None if made[n] is None else made[n].requires_grad_() for n in names]
    args = (*leaves, made["hh_indptr"], made["hh_indices"], "subtract", delay, "atan", 2.0)
    torch.library.opcheck(_spiking._spiking, args, test_utils=RULES)


def test_the_linear_op_keeps_the_rules_of_torch(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(_arrays, "POISON", False)
    indptr, indices = torch.arange(4, dtype=torch.int32), torch.zeros(3, dtype=torch.int32)
    leaves = [torch.randn(5, 1).requires_grad_(), torch.randn(3).requires_grad_(), torch.randn(3).requires_grad_()]
    torch.library.opcheck(_linear._linear, (*leaves, indptr, indices))


def test_second_derivatives_are_refused():
    layer = SparseGRU(3, 4, density=0.5)
    x = torch.randn(2, 2, 3, requires_grad=True)
    (grad,) = torch.autograd.grad(layer(x)[0].sum(), x, create_graph=True)
    with pytest.raises(RuntimeError):
        grad.sum().backward()


SMOOTH = [name for name in LAYERS if "lif" not in name and "synaptic" not in name]


@pytest.mark.parametrize("name", SMOOTH)
def test_gradcheck_in_float64(name: str):
    layer = LAYERS[name]().double()
    parameters = dict(layer.named_parameters())

    def f(x: Tensor, *values: Tensor) -> Tensor:
        return first(torch.func.functional_call(layer, dict(zip(parameters, values, strict=True)), (x,)))

    x = torch.randn(2, 2, 5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(f, [x, *parameters.values()], fast_mode=True)


@pytest.mark.parametrize("name", [name for name in LAYERS if name not in SMOOTH])
def test_spiking_layers_in_float64(name: str):  # a surrogate is no derivative that differences could check
    layer = LAYERS[name]()
    x = torch.randn(4, 3, 5)
    native = gradients(layer, layer, x)
    for mine, truth in zip(native, gradients(layer.double(), layer, x.double()), strict=True):
        torch.testing.assert_close(mine.double(), truth, rtol=1e-4, atol=1e-5)
