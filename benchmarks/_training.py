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
from benchmarks._forward import CLOCK, Budget
from benchmarks._rows import Measured, Setting, rows_of_seconds
from sparsecirc import Pattern
from sparsecirc._bench._measure import interleaved
from sparsecirc.errors import MismatchError
from sparsecirc.nn import SparseGRU, SparseLinear, SparseRLIF
from sparsecirc.patterns import unstructured

TOLERANCE = 1e-3
"""Largest difference of a gradient from float64, relative to the largest value of that gradient."""
N, DENSITY, BATCH, STEPS = 512, 0.1, 64, 100
KEPT_PER_WEIGHT = 4
"""Weight, gradient, and Adam's two moments."""
Tensors = dict[str, torch.Tensor]
Step = Callable[[], Tensors]
Patterns = dict[str, Pattern]
"""By name of the dense parameter."""


@dataclass(frozen=True)
class Trained:
    """A step of training that returns outputs and gradients by name, and the bytes that training keeps."""

    step: Step
    nbytes: int


class Neurons(torch.nn.Module):
    """Recurrent neurons over a sequence (T, B, N), behind input weights if ``drive`` is given."""

    def __init__(self, neurons: torch.nn.Module, run: Callable[[Any], Any], drive: torch.nn.Module | None) -> None:
        super().__init__()
        self.drive, self.neurons, self.run = drive, neurons, run

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        spikes: torch.Tensor = self.run(x if self.drive is None else self.drive(x))
        return spikes


def train_gru(budget: Budget) -> Iterator[Measured]:
    """N = 512, 90 % sparse, T = 100, batch 64: `SparseGRU` beside torch.nn.GRU on the same masked weights."""
    yield _gru("train_gru", networks.FEATURES, False, budget)


def train_gru_input(budget: Budget) -> Iterator[Measured]:
    """As `train_gru`, fed by as many units as it has, the input weights pruned alike."""
    yield _gru("train_gru_input", N, True, budget)


def train_rlif(budget: Budget) -> Iterator[Measured]:
    """N = 512 recurrent LIF neurons, 90 % sparse, T = 100, batch 64: `SparseRLIF` beside snntorch's RLeaky loop."""
    yield _rlif("train_rlif", False, budget)


def train_rlif_input(budget: Budget) -> Iterator[Measured]:
    """As `train_rlif`, behind a linear layer of N inputs that is pruned alike."""
    yield _rlif("train_rlif_input", True, budget)


def _gru(case: str, features: int, sparse_input: bool, budget: Budget) -> Measured:
    budget.say(f"{case} N={N}: prove")
    rng = np.random.default_rng(0)
    patterns = {"weight_hh_l0": networks.random_pattern(rng, (3 * N, N), DENSITY, unstructured)}
    if sparse_input:
        patterns["weight_ih_l0"] = networks.random_pattern(rng, (3 * N, features), DENSITY, unstructured)
    torch.manual_seed(0)
    dense = torch.nn.GRU(features, N)
    _prune(dense, patterns)
    masks = {f"rnn.l0.{name[7:9]}": pattern for name, pattern in patterns.items()}
    sparse = SparseGRU.from_dense(dense, masks)
    x = torch.randn(STEPS, BATCH, features, requires_grad=True)
    towards = torch.randn(STEPS, BATCH, N) / (STEPS * BATCH)

    def of(module: torch.nn.Module, x: torch.Tensor) -> Step:
        return _step(module, lambda value: module(value)[0], x, towards.to(x.dtype), patterns)

    exact = torch.nn.GRU(features, N, dtype=torch.float64)
    exact.load_state_dict({k: v.double() for k, v in dense.state_dict().items()})
    truth = of(exact, x.detach().double().requires_grad_())()
    contenders = {
        "sparsecirc": Trained(of(sparse, x), _kept(sparse, patterns)),
        "torch_dense": Trained(of(dense, x), _kept(dense)),
    }
    diffs = {name: _difference(name, c.step(), truth) for name, c in contenders.items()}
    return _time(_setting(case, patterns["weight_hh_l0"]), contenders, "torch_dense", diffs, budget)


def _rlif(case: str, sparse_input: bool, budget: Budget) -> Measured:
    budget.say(f"{case} N={N}: prove")
    try:
        import snntorch
    except ImportError:
        return Measured((), (f"{case} SKIPPED: snntorch is not installed",))
    rng = np.random.default_rng(0)
    patterns = {"neurons.recurrent.weight": networks.random_pattern(rng, (N, N), DENSITY, unstructured)}
    torch.manual_seed(0)
    rleaky: Any = snntorch.RLeaky(beta=0.9, linear_features=N)
    drive = None
    if sparse_input:
        patterns["drive.weight"] = networks.random_pattern(rng, (N, N), DENSITY, unstructured)
        drive = torch.nn.Linear(N, N)
        with torch.no_grad():
            drive.weight.mul_(3)  # as strong a drive from a tenth of the weights

    def looped(x: torch.Tensor) -> torch.Tensor:
        spk, mem = rleaky.reset_mem()
        spikes = []
        for x_t in x.unbind(0):
            spk, mem = rleaky(x_t, spk, mem)
            spikes.append(spk)
        return torch.stack(spikes)

    dense = Neurons(rleaky, looped, drive)
    _prune(dense, patterns)
    lif = SparseRLIF.from_dense(rleaky, {"lif.hh": patterns["neurons.recurrent.weight"]})
    thin = None if drive is None else SparseLinear.from_dense(drive, {"linear.weight": patterns["drive.weight"]})
    sparse = Neurons(lif, lambda x: lif(x)[0], thin)
    x = (1.0 if sparse_input else 0.2) * torch.randn(STEPS, BATCH, N)

    def of(module: torch.nn.Module, x: torch.Tensor) -> Step:
        towards = torch.randn(x.shape, generator=torch.Generator().manual_seed(1)) / (x.shape[0] * x.shape[1])
        return _step(module, module, x.clone().requires_grad_(), towards, patterns)

    short = x[:20, :8]  # short enough that no membrane ties with its threshold: every spike must be equal
    truth, got = of(dense, short)(), of(sparse, short)()
    rate = float(truth["y"].mean())
    if not 0.001 < rate < 0.5:
        raise MismatchError(f"{case}: {rate:.2%} of the neurons spike, so little is compared")
    if not torch.equal(truth["y"], got["y"]):
        raise MismatchError(f"{case}: {int((truth['y'] != got['y']).sum())} spikes differ from snntorch's")
    diffs = {"sparsecirc": _difference("sparsecirc", got, truth), "snntorch": 0.0}
    contenders = {
        "sparsecirc": Trained(of(sparse, x), _kept(sparse, patterns)),
        "snntorch": Trained(of(dense, x), _kept(dense)),
    }
    setting = _setting(case, patterns["neurons.recurrent.weight"])
    measured = _time(setting, contenders, "snntorch", diffs, budget)
    return Measured(measured.rows, (*measured.notes, f"{rate:.1%} of the neurons spike per step"))


def _setting(case: str, pattern: Pattern) -> Setting:
    return Setting(case, N, pattern.density, BATCH, STEPS, pattern.nnz)


def _prune(module: torch.nn.Module, patterns: Mapping[str, Pattern]) -> None:
    with torch.no_grad():
        for name, pattern in patterns.items():
            module.get_parameter(name).mul_(torch.from_numpy(pattern.mask(np.float32)))


def _step(
    module: torch.nn.Module,
    forward: Callable[[torch.Tensor], torch.Tensor],
    leaf: torch.Tensor,
    towards: torch.Tensor,
    patterns: Mapping[str, Pattern],
) -> Step:
    def step() -> Tensors:
        module.zero_grad()
        leaf.grad = None
        out = forward(leaf)
        out.backward(towards)  # type: ignore[no-untyped-call]  # (out * towards).sum(), without a product to fill
        return {"y": out.detach(), "x": _grad(leaf), **_gradients(module, patterns)}

    return step


def _time(
    setting: Setting, contenders: Mapping[str, Trained], dense: str, diffs: Mapping[str, float], budget: Budget
) -> Measured:
    budget.say(f"{setting.case} N={setting.n}: {', '.join(contenders)}")
    runs = {name: c.step for name, c in contenders.items()}
    seconds = interleaved(runs, min_seconds=budget.seconds, rounds=3 if budget.quick else 9, clock=CLOCK)
    sizes = {name: c.nbytes for name, c in contenders.items()}
    rows = rows_of_seconds(setting, seconds, [dense], diffs, sizes)
    gain = next(r.speedup_vs_best_dense for r in rows if r.engine == "sparsecirc")
    return Measured(
        rows,
        (
            f"sparsity and one native call a sequence give {gain:.2f}x over {dense}, quantisation 1.00x: all are f32",
            f"gradient and Adam's moments of a pruned matrix take {setting.density:.1%} of the dense ones; all bytes "
            f"of the layer, what is dense in it and indices included, {sizes['sparsecirc'] / sizes[dense]:.1%}",
        ),
    )


def _grad(tensor: torch.Tensor) -> torch.Tensor:
    assert tensor.grad is not None
    return tensor.grad.detach()


def _gradients(module: torch.nn.Module, patterns: Mapping[str, Pattern]) -> Tensors:
    """Gradients by the dense parameter's name; those of pruned matrices on their live connections only."""
    found: Tensors = {}
    for name, parameter in module.named_parameters():
        key = name.removesuffix(".values").replace("recurrent_bias", "recurrent.bias")
        key = f"{key}.weight" if key.endswith("recurrent") else key
        grad, pattern = _grad(parameter), patterns.get(key)
        if pattern is not None and tuple(grad.shape) == pattern.shape:
            rows, cols = (torch.from_numpy(index.astype(np.int64)) for index in (pattern.rows, pattern.indices))
            grad = grad[rows, cols]
        found[key] = grad.flatten()
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


def _kept(module: torch.nn.Module, patterns: Mapping[str, Pattern] | None = None) -> int:
    """Bytes of parameters, gradients and moments, and of the patterns' indices."""
    values = sum(p.numel() for p in module.parameters())
    index = sum(4 * (p.nnz + p.shape[0] + 1) for p in (patterns or {}).values())
    return KEPT_PER_WEIGHT * 4 * values + index
