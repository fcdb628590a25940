"""Native nodes prepared for one time step over arrays that stay: no allocation and no checks when they run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sparsecirc._native import kernels
from sparsecirc.ops import _run
from sparsecirc.ops._run import LinearRunner, RecurrentRunner, Runner

Array = NDArray[Any]


@dataclass(frozen=True, eq=False)
class Fixed:
    """One step of a node on arrays of its own.

    Attributes:
        run: computes ``out``, and moves ``state`` on, from what ``x`` holds.
        x: the input with a time axis of one step, float32.
        out: outputs by port, likewise; written by every run.
        state: by name, (batch, features); changed by every run.
    """

    run: Callable[[], None]
    x: Array
    out: Mapping[str, Array]
    state: Mapping[str, Array]


def fixed_step(runner: Runner, x: Array) -> Fixed | None:
    """``runner`` prepared for the input ``x`` (1, batch, ...), contiguous float32; ``None`` for what runs in numpy."""
    if isinstance(runner, RecurrentRunner):
        return _recurrent(runner, x)
    return _linear(runner, x) if isinstance(runner, LinearRunner) else None


def _linear(runner: LinearRunner, x: Array) -> Fixed:
    rows, cols = runner.packed.shape
    y = np.zeros((*x.shape[:-1], rows), np.float32)
    n = int(np.prod(x.shape[:-1]))
    matrix, isa, bias = runner.packed.matrix, runner.isa.value, runner.bias
    flat_x, flat_y = x.reshape(n, cols), y.reshape(n, rows)
    product, threads = kernels.product, runner.threads
    return Fixed(lambda: product(matrix, isa, flat_x, bias, flat_y, threads=threads), x, {"": y}, {})


def _recurrent(runner: RecurrentRunner, x: Array) -> Fixed:
    node, batch, isa = runner.node, x.shape[1], runner.isa.value
    shapes = node.states()
    state = {s: np.zeros((batch, *shape), np.float32) for s, shape in shapes.items()}
    out = {p: np.zeros((1, batch, *shapes[p]), np.float32) for p in shapes if p in runner.ports}
    layer, batched = runner.layer_for(batch, state)
    states, outs = [state[s] for s in node.cell.states], [out.get(p) for p in node.cell.states]
    flat = x.reshape(1, batch, int(np.prod(x.shape[2:])))
    run, bias, more = layer.run, runner.drive_bias, (batched, _run.POISON, runner.threads)
    if bias is None:
        return Fixed(lambda: run(isa, flat, None, states, outs, *more), x, out, state)
    drive = np.zeros_like(flat)

    def shifted() -> None:
        np.add(flat, bias, out=drive)
        run(isa, drive, None, states, outs, *more)

    return Fixed(shifted, x, out, state)
