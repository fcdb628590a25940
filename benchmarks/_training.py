"""Training steps, forward and backward through whole sequences, beside torch and snntorch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

import numpy as np

from benchmarks._cases import DENSITY, Effort, Row
from sparsecirc._bench._measure import interleaved

STEPS, BATCH = 100, 64


def _measured(
    case: str, n: int, runs: Mapping[str, Callable[[], object]], dense: str, off: float, sizes: Mapping[str, int],
    effort: Effort,
) -> Iterator[Row]:  # fmt: skip
    seconds = interleaved(runs, min_seconds=effort.seconds, rounds=min(effort.rounds, 7))
    us = {k: float(np.median(s)) * 1e6 / STEPS for k, s in seconds.items()}
    for name, value in us.items():
        yield Row(
            case, name, n, DENSITY, BATCH, STEPS, round(value, 2), round(us[dense] / value, 2),
            0.0 if name == dense else off, sizes[name],
        )  # fmt: skip


def _first(module: Any, x: Any) -> Any:
    return module(x)[0]


def _step(forward: Callable[[Any], Any], module: Any, x: Any) -> Callable[[], object]:
    def run() -> object:
        for p in module.parameters():
            p.grad = None
        x.grad = None
        forward(x).sum().backward()
        return None

    return run


def train_gru(effort: Effort) -> Iterator[Row]:
    """A GRU of 512 units, 90 % sparse, against the dense torch layer with the same weights; one thread."""
    import torch

    from sparsecirc import Masks
    from sparsecirc.nn import SparseGRU

    torch.set_num_threads(1)
    torch.manual_seed(0)
    n = 512
    dense = torch.nn.GRU(128, n)
    masks = Masks.prune(dense, 1 - DENSITY)
    sparse = SparseGRU.from_dense(dense, masks, "gru")
    x = torch.randn(STEPS, BATCH, 128, requires_grad=True)
    with torch.no_grad():
        off = float((dense(x)[0] - sparse(x)[0]).abs().max())
    runs = {
        "torch_dense": _step(partial(_first, dense), dense, x),
        "sparsecirc": _step(partial(_first, sparse), sparse, x),
    }
    sizes = {k: sum(4 * p.numel() for p in m.parameters()) for k, m in (("torch_dense", dense), ("sparsecirc", sparse))}
    yield from _measured("train_gru", n, runs, "torch_dense", off, sizes, effort)


def train_rlif(effort: Effort) -> Iterator[Row]:
    """Recurrent LIF neurons, 90 % sparse, against snntorch's loop with the same weights; one thread."""
    import snntorch
    import torch

    from sparsecirc import Masks
    from sparsecirc.nn import SparseRLIF

    torch.set_num_threads(1)
    torch.manual_seed(0)
    for n in (512, 1024):
        dense = snntorch.RLeaky(beta=0.9, linear_features=n, spike_grad=snntorch.surrogate.fast_sigmoid(25))
        masks = Masks.prune(dense, 1 - DENSITY)
        sparse = SparseRLIF.from_dense(dense, masks, "rleaky")
        x = (torch.randn(STEPS, BATCH, n) * 0.5).requires_grad_()

        def loop(v: Any, dense: Any = dense, n: int = n) -> Any:
            spk, mem, out = torch.zeros(BATCH, n), torch.zeros(BATCH, n), []
            for t in range(STEPS):
                spk, mem = dense(v[t], spk, mem)
                out.append(spk)
            return torch.stack(out)

        with torch.no_grad():
            off = float((loop(x)[:10] - sparse(x)[0][:10]).abs().mean())  # ties: the share of spikes that differ
        runs = {"snntorch": _step(loop, dense, x), "sparsecirc": _step(partial(_first, sparse), sparse, x)}
        sizes = {
            k: sum(4 * p.numel() for p in m.parameters()) for k, m in (("snntorch", dense), ("sparsecirc", sparse))
        }
        yield from _measured("train_rlif", n, runs, "snntorch", off, sizes, effort)


TRAINING: Mapping[str, Callable[[Effort], Iterator[Row]]] = {"train_gru": train_gru, "train_rlif": train_rlif}
"""Training cases by name."""
