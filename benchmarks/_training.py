"""Forward and backward of a whole sequence: sparse layers beside dense torch and the snntorch loop.

Outputs and gradients are compared before anything is timed, the sparse ones on their live connections.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from benchmarks import _networks as networks
from benchmarks._forward import Budget
from benchmarks._rows import Measured, Setting, rows_of_seconds
from sparsecirc import Pattern
from sparsecirc._bench._measure import interleaved
from sparsecirc.errors import MismatchError
from sparsecirc.nn import SparseGRU, SparseRLIF
from sparsecirc.patterns import unstructured

TOLERANCE = 1e-3
"""Largest difference of a gradient from float64, relative to the largest value of that gradient."""
N, DENSITY, BATCH, STEPS = 512, 0.1, 64, 100
KEPT_PER_WEIGHT = 4
"""Weight, gradient, and Adam's two moments."""
Tensors = dict[str, torch.Tensor]
Step = Callable[[], Tensors]


@dataclass(frozen=True)
class Trained:
    """A step of training that returns outputs and gradients by name, and the bytes it keeps per weight matrix."""

    step: Step
    nbytes: int


def train_gru(budget: Budget) -> Iterator[Measured]:
    """N = 512, 90 % sparse, T = 100, batch 64: `SparseGRU` beside torch.nn.GRU on the same masked weights."""
    budget.say(f"train_gru N={N}: prove")
    rng = np.random.default_rng(0)
    pattern = networks.random_pattern(rng, (3 * N, N), DENSITY, unstructured)
    torch.manual_seed(0)
    dense = torch.nn.GRU(networks.FEATURES, N)
    live = torch.from_numpy(pattern.mask(np.float32))
    with torch.no_grad():
        dense.get_parameter("weight_hh_l0").mul_(live)
    sparse = SparseGRU.from_dense(dense, {"rnn.l0.hh": pattern})
    x = torch.randn(STEPS, BATCH, networks.FEATURES, requires_grad=True)
    towards = torch.randn(STEPS, BATCH, N) / (STEPS * BATCH)

    def of(module: torch.nn.Module, x: torch.Tensor) -> Step:
        cotangent = towards.to(x.dtype)

        def step() -> Tensors:
            module.zero_grad()
            x.grad = None
            out = module(x)[0]
            (out * cotangent).sum().backward()
            return {"y": out.detach(), "x": _grad(x), **_gradients(module, pattern)}

        return step

    exact = torch.nn.GRU(networks.FEATURES, N, dtype=torch.float64)
    exact.load_state_dict({k: v.double() for k, v in dense.state_dict().items()})
    truth = of(exact, x.detach().double().requires_grad_())()
    contenders = {
        "sparsecirc": Trained(of(sparse, x), _kept(sparse, pattern)),
        "torch_dense": Trained(of(dense, x), _kept(dense)),
    }
    diffs = {name: _difference(name, c.step(), truth) for name, c in contenders.items()}
    yield _time(Setting("train_gru", N, pattern.density, BATCH, STEPS), contenders, "torch_dense", diffs, budget)


def train_rlif(budget: Budget) -> Iterator[Measured]:
    """N = 512 recurrent LIF neurons, 90 % sparse, T = 100, batch 64: `SparseRLIF` beside snntorch's RLeaky loop."""
    budget.say(f"train_rlif N={N}: prove")
    try:
        import snntorch
    except ImportError:
        yield Measured((), ("train_rlif SKIPPED: snntorch is not installed",))
        return
    rng = np.random.default_rng(0)
    pattern = networks.random_pattern(rng, (N, N), DENSITY, unstructured)
    torch.manual_seed(0)
    dense: Any = snntorch.RLeaky(beta=0.9, linear_features=N)
    with torch.no_grad():
        dense.recurrent.weight.mul_(torch.from_numpy(pattern.mask()))
    sparse = SparseRLIF.from_dense(dense, {"lif.hh": pattern})
    x = 0.2 * torch.randn(STEPS, BATCH, N)

    def looped(x: torch.Tensor) -> torch.Tensor:
        spk, mem = dense.reset_mem()
        spikes = []
        for x_t in x.unbind(0):
            spk, mem = dense(x_t, spk, mem)
            spikes.append(spk)
        return torch.stack(spikes)

    def of(module: torch.nn.Module, forward: Callable[[torch.Tensor], torch.Tensor], x: torch.Tensor) -> Step:
        leaf = x.clone().requires_grad_()
        towards = torch.randn(x.shape, generator=torch.Generator().manual_seed(1)) / (x.shape[0] * x.shape[1])

        def step() -> Tensors:
            module.zero_grad()
            leaf.grad = None
            out = forward(leaf)
            (out * towards).sum().backward()  # type: ignore[no-untyped-call]
            return {"y": out.detach(), "x": _grad(leaf), **_gradients(module, pattern)}

        return step

    def unrolled(x: torch.Tensor) -> torch.Tensor:
        spikes: torch.Tensor = sparse(x)[0]
        return spikes

    short = x[:20, :8]  # short enough that no membrane ties with its threshold: every spike must be equal
    truth, got = of(dense, looped, short)(), of(sparse, unrolled, short)()
    if not 0.001 < float(truth["y"].mean()) < 0.5:
        raise MismatchError(f"train_rlif: {float(truth['y'].mean()):.2%} of the neurons spike, so little is compared")
    if not torch.equal(truth["y"], got["y"]):
        raise MismatchError(f"train_rlif: {int((truth['y'] != got['y']).sum())} spikes differ from snntorch's")
    diffs = {"sparsecirc": _difference("sparsecirc", got, truth), "snntorch": 0.0}
    contenders = {
        "sparsecirc": Trained(of(sparse, unrolled, x), _kept(sparse, pattern)),
        "snntorch": Trained(of(dense, looped, x), _kept(dense)),
    }
    yield _time(Setting("train_rlif", N, pattern.density, BATCH, STEPS), contenders, "snntorch", diffs, budget)


def _time(
    setting: Setting, contenders: Mapping[str, Trained], dense: str, diffs: Mapping[str, float], budget: Budget
) -> Measured:
    budget.say(f"{setting.case} N={setting.n}: {', '.join(contenders)}")
    runs = {name: c.step for name, c in contenders.items()}
    seconds = interleaved(runs, min_seconds=budget.seconds, rounds=3 if budget.quick else 7)
    sizes = {name: c.nbytes for name, c in contenders.items()}
    rows = rows_of_seconds(setting, seconds, [dense], diffs, sizes)
    share = sizes["sparsecirc"] / sizes[dense]
    note = (
        f"gradient and Adam's moments of the pruned matrix take {setting.density:.1%} of the dense ones; all bytes of "
        f"the layer, dense input weights and indices included, {share:.1%}"
    )
    return Measured(rows, (note,))


def _grad(tensor: torch.Tensor) -> torch.Tensor:
    assert tensor.grad is not None
    return tensor.grad.detach()


def _gradients(module: torch.nn.Module, pattern: Pattern) -> Tensors:
    """Gradients by the dense parameter's name; that of the pruned matrix on its live connections only."""
    rows, cols = torch.from_numpy(pattern.rows.astype(np.int64)), torch.from_numpy(pattern.indices.astype(np.int64))
    found: Tensors = {}
    for name, parameter in module.named_parameters():
        key = name.removesuffix(".values").replace("recurrent_bias", "recurrent.bias")
        key = "recurrent.weight" if key == "recurrent" else key
        grad = _grad(parameter)
        found[key] = (grad[rows, cols] if tuple(grad.shape) == pattern.shape else grad).flatten()
    return found


def _difference(engine: str, got: Tensors, truth: Tensors) -> float:
    """Largest difference of an output or gradient, relative to its largest value."""
    worst = 0.0
    for name, want in truth.items():
        scale = max(float(want.abs().max()), 1e-30)
        diff = float((got[name].double().flatten() - want.double().flatten()).abs().max()) / scale
        if not diff <= TOLERANCE:
            raise MismatchError(f"{engine}: gradient or output '{name}' differs by {diff:.3g} of its largest value")
        worst = max(worst, diff)
    return worst


def _kept(module: torch.nn.Module, pattern: Pattern | None = None) -> int:
    """Bytes of parameters, gradients and moments, and of the pattern's indices."""
    values = sum(p.numel() for p in module.parameters())
    index = 0 if pattern is None else 4 * (pattern.nnz + pattern.shape[0] + 1)
    return KEPT_PER_WEIGHT * 4 * values + index
