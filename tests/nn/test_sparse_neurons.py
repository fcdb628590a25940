"""Spiking layers beside the loops of snntorch, forward and backward."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

snntorch = pytest.importorskip("snntorch", reason="the package snntorch is not installed")
from snntorch import surrogate  # noqa: E402

from sparsecirc import nn as sparse_nn  # noqa: E402
from sparsecirc.errors import UnsupportedError, UsageError  # noqa: E402
from sparsecirc.nn import SparseLI, SparseLIF, SparseRLIF, SparseRSynaptic, SparseSynaptic  # noqa: E402
from sparsecirc.nn._neurons import SparseNeurons  # noqa: E402

STEPS, BATCH, UNITS = 13, 5, 17
SURROGATES = {
    "atan": surrogate.atan(2.0),
    "fast_sigmoid": surrogate.fast_sigmoid(slope=25),
    "sigmoid": surrogate.sigmoid(slope=5),
    "triangular": surrogate.triangular(0.5),
    "straight_through": surrogate.straight_through_estimator(),
}


KINDS: dict[str, type[SparseNeurons]] = {
    "Leaky": SparseLIF, "RLeaky": SparseRLIF, "Synaptic": SparseSynaptic, "RSynaptic": SparseRSynaptic
}  # fmt: skip


def loop(module: object, x: Tensor, *states: Tensor) -> tuple[Tensor, ...]:
    """Every state of every step; the spikes come first."""
    steps, now = [], states
    for step in x:
        out = module(step, *now)
        now = out if len(states) == len(out) else out[1:]  # spikes go back in where there is feedback
        steps.append(out)
    return tuple(torch.stack(s) for s in zip(*steps, strict=True))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("delay", [True, False])
@pytest.mark.parametrize("reset", ["subtract", "zero", "none"])
@pytest.mark.parametrize("name", SURROGATES)
def test_like_the_loop(name: str, reset: str, delay: bool, kind: str):
    cls = KINDS[kind]
    vectors = ["beta", "threshold", *(["alpha"] if "syn" in cls.states else [])]
    settings = {
        "beta": 0.6 + 0.3 * torch.rand(UNITS),
        "threshold": 0.5 + 0.3 * torch.rand(UNITS),
        "spike_grad": SURROGATES[name],
        "reset_mechanism": reset,
        "reset_delay": delay,
    }
    settings |= {f"learn_{v}": True for v in vectors}
    settings |= {"alpha": 0.2 + 0.3 * torch.rand(UNITS)} if "alpha" in vectors else {}
    settings |= {"linear_features": UNITS} if "spk" in cls.states else {}
    dense = getattr(snntorch, kind)(**settings)
    if "spk" in cls.states:
        with torch.no_grad():
            dense.recurrent.weight[torch.rand(UNITS, UNITS) < 0.6] = 0
    sparse = cls.from_dense(dense)
    assert sparse.surrogate.kind == name
    x = 0.7 * torch.randn(STEPS, BATCH, UNITS)
    states = [torch.rand(BATCH, UNITS).round() if s == "spk" else torch.randn(BATCH, UNITS) for s in cls.states]
    results = []
    for run in (sparse, lambda *args: loop(dense, *args)):
        given = [t.clone().requires_grad_() for t in (x, *states)]
        z, *others = run(*given)
        loss = (z * torch.linspace(-1, 1, z.numel()).view_as(z)).sum() + sum(o.sin().sum() for o in others)
        loss.backward()
        results.append([z, *others, *(g.grad for g in given)])
    assert torch.equal(results[0][0], results[1][0])
    assert 0.05 < float(results[0][0].detach().mean()) < 0.95
    pairs = list(zip(*results, strict=True))
    pairs += [(getattr(sparse, v).grad, getattr(dense, v).grad) for v in vectors]
    if "spk" in cls.states:
        assert sparse.recurrent.nnz < 0.6 * UNITS**2
        pairs += [(sparse.recurrent.values.grad, sparse.recurrent.live(dense.recurrent.weight.grad))]
        pairs += [(sparse.recurrent_bias.grad, dense.recurrent.bias.grad)]
    for mine, theirs in pairs:
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=2e-4)


def test_an_immediate_reset_of_recurrent_synapses():
    """snntorch's RSynaptic ignores it; without feedback it must act as in Synaptic."""
    settings = {"alpha": 0.5, "beta": 0.8, "reset_delay": False}
    recurrent, plain = SparseRSynaptic(linear_features=6, **settings), SparseSynaptic(**settings)
    with torch.no_grad():
        recurrent.recurrent.values.zero_()
        recurrent.recurrent_bias.zero_()
    x = torch.randn(20, 3, 6)
    for one, other in zip(recurrent(x), plain(x), strict=True):
        assert torch.equal(one, other)
    with pytest.raises(UnsupportedError, match="reset_delay=False"):
        recurrent.to_dense()


def test_one_number_for_all_neurons_and_one_step():
    lif = SparseRLIF(1.5, 8, 0.7, sparse_nn.fast_sigmoid(10), learn_beta=True, learn_threshold=True, density=0.5)
    dense = lif.to_dense()
    x = torch.randn(3, 8)
    for one, other in zip(lif(x), dense(x, torch.zeros(3, 8), torch.zeros(3, 8)), strict=True):
        torch.testing.assert_close(one, other)
    for layer in (lif, dense):
        z, v = loop(layer, torch.randn(6, 3, 8, generator=torch.Generator().manual_seed(1)), x, x)
        (z + v).sum().backward()
    assert lif.beta.grad.shape == ()
    torch.testing.assert_close(lif.beta.grad, dense.beta.grad)  # zero: a decay above 1 is clamped
    torch.testing.assert_close(lif.threshold.grad, dense.threshold.grad)


@pytest.mark.parametrize("kind", KINDS)
def test_there_and_back(kind: str):
    cls = KINDS[kind]
    size = {"linear_features": 6} if "spk" in cls.states else {}
    alpha = {"alpha": 0.7, "learn_alpha": True} if "syn" in cls.states else {}
    dense = getattr(snntorch, kind)(beta=0.8, reset_mechanism="zero", spike_grad=surrogate.sigmoid(7), **size, **alpha)
    again = cls.from_dense(cls.from_dense(dense).to_dense())
    assert again.surrogate == sparse_nn.sigmoid(7)
    assert again.reset is cls.zero_reset
    assert not isinstance(again.beta, torch.nn.Parameter)
    assert not alpha or isinstance(again.alpha, torch.nn.Parameter)


def test_half_precision_input_and_frozen_feedback():
    lif = SparseRLIF(0.9, 8, learn_recurrent=False)
    x = torch.randn(4, 3, 8).bfloat16().requires_grad_()
    z, v = lif(x)
    assert (z.dtype, v.dtype) == (torch.bfloat16, torch.float32)
    z.sum().backward()
    assert x.grad.dtype == torch.bfloat16
    assert lif.recurrent.values.grad is None
    z, i, v = SparseSynaptic(0.5, 0.9)(x)
    assert (z.dtype, i.dtype, v.dtype) == (torch.bfloat16, torch.float32, torch.float32)


def test_integrators_are_leaky_without_reset():
    sparse = SparseLI(0.4 + 0.5 * torch.rand(6), learn_beta=True)
    dense = sparse.to_dense()
    x, mem = torch.randn(9, 3, 6), torch.randn(3, 6)
    results = []
    for run in (sparse, lambda x, mem: loop(dense, x, mem)[1]):
        given = [t.clone().requires_grad_() for t in (x, mem)]
        out = run(*given)
        out.square().sum().backward()
        results.append([out, *(g.grad for g in given)])
    for mine, theirs in zip(*results, strict=True):
        torch.testing.assert_close(mine, theirs)
    torch.testing.assert_close(sparse.beta.grad, dense.beta.grad)
    assert torch.equal(sparse(x[0]), sparse(x)[0])
    with pytest.raises(UsageError, match=r"state of shape \(2, 6\)"):
        sparse(x, mem[:2])
    with pytest.raises(UsageError, match=r"expected \(T, B, N\)"):
        sparse(x[0, 0])


@pytest.mark.parametrize(
    ("make", "error", "words"),
    [
        (lambda: SparseLIF(0.9, reset_mechanism="soft"), UsageError, "'soft'"),
        (lambda: SparseLIF(0.9, spike_grad=surrogate.SSO()), UnsupportedError, "has no kernel"),
        (lambda: SparseLIF(0.9)(torch.zeros(3)), UsageError, r"\(3,\)"),
        (lambda: SparseLIF(0.9)(torch.zeros(3, 4), torch.zeros(2, 4)), UsageError, "states of shapes"),
        (lambda: SparseLIF.from_dense(snntorch.Leaky(beta=0.9, graded_spikes_factor=2.0)), UnsupportedError, "graded"),
        (lambda: SparseLIF.from_dense(snntorch.Synaptic(alpha=0.9, beta=0.9)), UnsupportedError, "is no dense form"),
        (lambda: SparseRLIF.from_dense(snntorch.RLeaky(beta=0.9, all_to_all=False)), UnsupportedError, "all-to-all"),
    ],
)  # fmt: skip
def test_refusals(make: object, error: type[Exception], words: str):
    with pytest.raises(error, match=words):
        make()
