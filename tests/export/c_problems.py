"""Single layers of every cell, for the tests of the C writer."""

from __future__ import annotations

import numpy as np

from sparsecirc._pattern import Pattern
from sparsecirc.cells import CELLS, Cell, Options
from sparsecirc.ir import Graph, Input, Recurrent

STRICT = ("-std=c99", "-Wall", "-Wextra", "-Wpedantic", "-Wconversion", "-Werror", "-ffp-contract=off", "-O1")
SIZES = [(1, 1), (5, 17), (17, 5), (16, 300), (300, 16)]  # (inputs, units)
GATED = ("rnn_tanh", "rnn_relu", "gru", "lstm")


def matrix(rng: np.random.Generator, rows: int, cols: int, density: float, tile: int) -> tuple[np.ndarray, Pattern]:
    tile = tile if rows % tile == 0 else 1
    live = rng.random((rows // tile, cols)) < density
    live.flat[0] |= density > 0  # a tiny matrix keeps something
    pattern = Pattern.from_mask(np.repeat(live, tile, axis=0))
    scale = 1 / np.sqrt(max(1.0, density * cols))
    return (rng.standard_normal((rows, cols)) * scale).astype(np.float32), pattern


def layer(
    cell: Cell,
    inputs: int,
    units: int,
    *,
    density: float = 0.1,
    tile: int = 1,
    feedback: str = "hh",
    projected: int = 0,
    options: Options | None = None,
    bias: bool = True,
    drive: float = 1.0,
    seed: int = 0,
) -> Graph:
    """Input -> one layer; every state is an output."""
    rng = np.random.default_rng(seed)
    rows, width = cell.n_gates * units, projected or units
    params: dict[str, np.ndarray] = {}
    patterns: dict[str, Pattern] = {}
    params["ih"], patterns["ih"] = matrix(rng, rows, inputs, max(density, 0.2), tile)
    params["ih"] = params["ih"] * np.float32(drive)
    if feedback == "hh":
        params["hh"], patterns["hh"] = matrix(rng, rows, width, density, tile)
    elif feedback == "hh_diag":
        params["hh_diag"] = rng.standard_normal(units).astype(np.float32)
    if projected:
        params["hr"], patterns["hr"] = matrix(rng, projected, units, 0.4, 1)
    if bias:
        params["bias_ih"] = (0.3 * rng.standard_normal(rows)).astype(np.float32)
        if feedback:
            params["bias_hh"] = (0.3 * rng.standard_normal(rows)).astype(np.float32)
    ranges = {"alpha": (0.5, 0.9), "beta": (0.7, 0.95), "threshold": (0.8, 1.2), "rho": (0.8, 0.95)}
    ranges["strength"] = (0.1, 0.4)
    for name in cell.vectors:
        params[name] = rng.uniform(*ranges[name], units).astype(np.float32)
    node = Recurrent("cell.l0", ("x",), params, patterns, cell=cell, units=units, options=options or Options())
    return Graph((Input("x", shape=(inputs,)), node), {s: f"cell.l0.{s}" for s in cell.states})


def sequence(inputs: int, steps: int = 25, batch: int = 2) -> np.ndarray:
    return np.random.default_rng(7).standard_normal((steps, batch, inputs)).astype(np.float32)


def gru_of(density: float, *, tile: int = 1, units: int = 128, inputs: int = 16) -> Graph:
    """A GRU with the same density and tiles in both weights; its state is the output ``h``."""
    rng = np.random.default_rng(3)
    params: dict[str, np.ndarray] = {}
    patterns: dict[str, Pattern] = {}
    params["ih"], patterns["ih"] = matrix(rng, 3 * units, inputs, density, tile)
    params["hh"], patterns["hh"] = matrix(rng, 3 * units, units, density, tile)
    for role in ("bias_ih", "bias_hh"):
        params[role] = (0.1 * rng.standard_normal(3 * units)).astype(np.float32)
    node = Recurrent("gru", ("x",), params, patterns, cell=CELLS["gru"], units=units)
    return Graph((Input("x", shape=(inputs,)), node), {"h": "gru"})
