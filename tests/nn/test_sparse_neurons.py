"""SparseLIF and SparseRLIF beside the loops of snntorch, forward and backward."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

snntorch = pytest.importorskip("snntorch", reason="the package snntorch is not installed")
from snntorch import surrogate  # noqa: E402

from sparsecirc import nn as sparse_nn  # noqa: E402
from sparsecirc.errors import UnsupportedError, UsageError  # noqa: E402
from sparsecirc.nn import SparseLIF, SparseRLIF  # noqa: E402

STEPS, BATCH, UNITS = 13, 5, 17
SURROGATES = {
    "atan": surrogate.atan(2.0),
    "fast_sigmoid": surrogate.fast_sigmoid(slope=25),
    "sigmoid": surrogate.sigmoid(slope=5),
    "triangular": surrogate.triangular(0.5),
    "straight_through": surrogate.straight_through_estimator(),
}


def loop(module: object, x: Tensor, *states: Tensor) -> tuple[Tensor, Tensor]:
    spikes, membranes = [], []
    now = states
    for step in x:
        spk, mem = module(step, *now)
        now = (spk, mem) if len(states) == 2 else (mem,)
        spikes.append(spk)
        membranes.append(mem)
    return torch.stack(spikes), torch.stack(membranes)


@pytest.mark.parametrize("recurrent", [True, False])
@pytest.mark.parametrize("delay", [True, False])
@pytest.mark.parametrize("reset", ["subtract", "zero", "none"])
@pytest.mark.parametrize("name", SURROGATES)
def test_like_the_loop(name: str, reset: str, delay: bool, recurrent: bool):
    settings = {
        "beta": 0.6 + 0.3 * torch.rand(UNITS),
        "threshold": 0.5 + 0.3 * torch.rand(UNITS),
        "spike_grad": SURROGATES[name],
        "learn_beta": True,
        "learn_threshold": True,
        "reset_mechanism": reset,
        "reset_delay": delay,
    }
    if recurrent:
        dense = snntorch.RLeaky(linear_features=UNITS, **settings)
        with torch.no_grad():
            dense.recurrent.weight[torch.rand(UNITS, UNITS) < 0.6] = 0
        sparse = SparseRLIF.from_dense(dense)
        assert sparse.recurrent.nnz < 0.6 * UNITS**2
    else:
        dense = snntorch.Leaky(**settings)
        sparse = SparseLIF.from_dense(dense)
    assert sparse.surrogate.kind == name
    x = 0.7 * torch.randn(STEPS, BATCH, UNITS)
    spk, mem = torch.rand(BATCH, UNITS).round(), torch.randn(BATCH, UNITS)
    results = []
    for run in (sparse, lambda *args: loop(dense, *args)):
        given = [t.clone().requires_grad_() for t in ((x, spk, mem) if recurrent else (x, mem))]
        z, v = run(*given)
        (z * torch.linspace(-1, 1, z.numel()).view_as(z) + v.sin()).sum().backward()
        results.append([z, v, *(g.grad for g in given)])
    assert torch.equal(results[0][0], results[1][0])
    assert 0.05 < float(results[0][0].detach().mean()) < 0.95
    pairs = list(zip(*results, strict=True))
    pairs += [(sparse.beta.grad, dense.beta.grad), (sparse.threshold.grad, dense.threshold.grad)]
    if recurrent:
        pairs += [(sparse.recurrent.values.grad, sparse.recurrent.live(dense.recurrent.weight.grad))]
        pairs += [(sparse.recurrent_bias.grad, dense.recurrent.bias.grad)]
    for mine, theirs in pairs:
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-4)


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


@pytest.mark.parametrize("kind", ["Leaky", "RLeaky"])
def test_there_and_back(kind: str):
    size = {"linear_features": 6} if kind == "RLeaky" else {}
    dense = getattr(snntorch, kind)(beta=0.8, reset_mechanism="zero", spike_grad=surrogate.sigmoid(7), **size)
    cls = SparseRLIF if kind == "RLeaky" else SparseLIF
    again = cls.from_dense(cls.from_dense(dense).to_dense())
    assert again.surrogate == sparse_nn.sigmoid(7)
    assert again.reset is cls.zero_reset
    assert not isinstance(again.beta, torch.nn.Parameter)


def test_half_precision_input_and_frozen_feedback():
    lif = SparseRLIF(0.9, 8, learn_recurrent=False)
    x = torch.randn(4, 3, 8).bfloat16().requires_grad_()
    z, v = lif(x)
    assert (z.dtype, v.dtype) == (torch.bfloat16, torch.float32)
    z.sum().backward()
    assert x.grad.dtype == torch.bfloat16
    assert lif.recurrent.values.grad is None


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
