"""Networks and tolerances that tests, benchmarks and the documentation share, and that yours may use.

`PROBLEMS` is the catalogue: every cell at sizes that no vector length divides, at several densities, batches and
lengths, and each option once. A problem is plain data; ``graph()``, ``x()`` and ``valid()`` build the same arrays on
every machine. `wrong_weight` and `late_state` are programs with a fault, for checks that must be able to fail::

    from sparsecirc.testing import PROBLEMS, TOLERANCE

    for problem in PROBLEMS.values():
        want = sparsecirc.interpret(problem.graph(), problem.x(), lengths=problem.valid())
        assert relative_difference(my_run(problem), want.y) < TOLERANCE.outputs
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sparsecirc._pattern import Pattern
from sparsecirc._program import Program
from sparsecirc.cells import ALIF, CELLS, LI, LSTM, Cell, Options, Reset
from sparsecirc.errors import UsageError
from sparsecirc.ir import Context, Graph, Input, Linear, Node, Recurrent, State, TimeReduce, Values
from sparsecirc.patterns import PatternMaker, block

Array = NDArray[Any]


@dataclass(frozen=True)
class Tolerance:
    """Every bound that a check in this project uses, in one place.

    Attributes:
        outputs: of a float32 run against float64, relative to the largest value of the output.
        product: of one matrix product, relative to the sum of the magnitudes that are added.
        mantissa: relative change of a weight that holds its column in its low bits.
        exp_ulp, tanh_ulp, sigmoid_ulp: units in the last place of the native functions: exp between -87 and 88,
            sigmoid from -87 up, tanh everywhere.
    """

    outputs: float = 1e-5
    product: float = 2e-6
    mantissa: float = 2.0**-17
    exp_ulp: float = 1.2
    tanh_ulp: float = 1.5
    sigmoid_ulp: float = 2.5


TOLERANCE = Tolerance()
"""The bounds themselves."""


def relative_difference(got: ArrayLike, want: ArrayLike) -> float:
    """Largest |got - want| over largest |want|; 0 where both are empty or equal, NaN agrees with NaN only.

    Raises:
        UsageError: the shapes differ.
    """
    a, b = np.asarray(got, np.float64), np.asarray(want, np.float64)
    if a.shape != b.shape:
        raise UsageError(f"arrays to compare have shapes {a.shape} and {b.shape}: expected the same")
    same = (a == b) | (np.isnan(a) & np.isnan(b))
    if np.all(same):
        return 0.0
    with np.errstate(invalid="ignore"):
        gap = np.where(same, 0.0, np.abs(a - b))
    if not np.all(np.isfinite(gap)):
        return float("inf")
    return float(gap.max() / max(float(np.max(np.abs(b), initial=0.0, where=np.isfinite(b))), 1e-3))


_RANGES = {
    "alpha": (0.6, 0.9),
    "beta": (0.7, 0.95),
    "threshold": (0.5, 1.5),
    "rho": (0.8, 0.98),
    "strength": (0.1, 0.5),
}
"""Random parameters of neurons."""


def random_pattern(rows: int, cols: int, density: float, seed: int) -> Pattern:
    """A pattern with ``round(density * rows * cols)`` live connections at random places."""
    size = rows * cols
    mask = np.zeros(size, bool)
    mask[np.random.default_rng(seed).permutation(size)[: round(density * size)]] = True
    return Pattern.from_mask(mask.reshape(rows, cols)) if size else Pattern.empty(rows, cols)


def recurrent_graph(
    cell: Cell,
    inputs: int,
    units: int,
    density: float,
    *,
    bias: bool = True,
    recurrence: bool = True,
    one_to_one: bool = False,
    input_product: bool = True,
    projection: int | None = None,
    reverse: bool = False,
    options: Options | None = None,
    feature_shape: tuple[int, ...] = (),
    pattern: PatternMaker | None = None,
    batch_first: bool = False,
    spiking_input: bool = False,
    seed: int = 0,
) -> Graph:
    """One recurrent layer named ``rnn`` that reads the input ``x``; every state is an output.

    Args:
        cell: the recurrence.
        inputs: features of ``x``; without ``input_product`` they must be ``gates * units``.
        units: units of the layer.
        density: of every weight matrix; at 1 no pattern is attached.
        bias: whether there are biases (of the recurrent product only where there is one).
        recurrence: whether the state is fed back.
        one_to_one: feedback by one weight per unit instead of a matrix (cells with a decay per unit).
        input_product: whether the layer multiplies its input by a matrix.
        projection: width of the fed-back state of an LSTM.
        reverse: whether it runs from the last step to the first.
        options: reset of a spiking cell.
        feature_shape: shape of the units where they are no vector.
        pattern: makes the pattern of a weight from its magnitudes; random places by default.
        batch_first: layout of ``x`` and of the outputs.
        spiking_input: whether ``x`` is declared to be spikes.
        seed: of weights and patterns.
    """
    rng = np.random.default_rng(seed)
    rows, width = cell.n_gates * units, projection or units
    params: dict[str, Array] = {}
    found: dict[str, Pattern] = {}

    def matrix(role: str, n: int, m: int, gain: float) -> None:
        scale = gain / np.sqrt(max(m * density, 1.0))
        params[role] = (rng.standard_normal((n, m)) * scale).astype(np.float32)
        if density < 1:
            made = pattern(np.abs(params[role]), 1 - density) if pattern else None
            found[role] = made or random_pattern(n, m, density, seed + len(found))
            params[role] = found[role].apply(params[role])

    if input_product:
        matrix("ih", rows, inputs, 1.0)
    if recurrence and one_to_one:
        high = 0.5 if cell is not LI else 0.05
        params["hh_diag"] = rng.uniform(-0.5, high, feature_shape or units).astype(np.float32)
    elif recurrence:
        matrix("hh", rows, width, 0.9 if cell is not LI else 0.05)  # a linear recurrence has to shrink by itself
    if projection is not None:
        matrix("hr", projection, units, 1.0)
    if bias:
        params["bias_ih"] = rng.uniform(-0.3, 0.3, feature_shape or rows).astype(np.float32)
        if recurrence:
            params["bias_hh"] = rng.uniform(-0.3, 0.3, feature_shape or rows).astype(np.float32)
    for name in cell.vectors:
        low, high = _RANGES[name]
        params[name] = rng.uniform(low, high, units).astype(np.float32)
    layer = Recurrent(
        "rnn", ("x",), params, found, cell=cell, units=units, reverse=reverse, options=options or Options(),
        feature_shape=feature_shape,
    )  # fmt: skip
    shape = (inputs,) if input_product or not feature_shape else feature_shape
    outputs = {state: f"rnn.{state}" for state in cell.states}
    source = Input("x", shape=shape, spiking=spiking_input)
    return Graph((source, layer), outputs, batch_first=batch_first, dt=1e-3 if cell.vectors else None)


def classifier_graph(cell: Cell, inputs: int, units: int, classes: int, density: float, *, seed: int = 0) -> Graph:
    """`recurrent_graph` followed by a reduction over time (last step; mean of spikes) and a linear layer."""
    base = recurrent_graph(cell, inputs, units, density, seed=seed)
    rng = np.random.default_rng(seed + 1)
    weight = (rng.standard_normal((classes, units)) / np.sqrt(max(units, 1))).astype(np.float32)
    how = "mean" if cell.spiking else "last"
    reduce = TimeReduce("reduce", ("rnn",), how=how, feature_shape=(units,))
    head = Linear("fc", ("reduce",), {"weight": weight, "bias": rng.uniform(-0.1, 0.1, classes).astype(np.float32)})
    return replace(base, nodes=(*base.nodes, reduce, head), outputs={"y": "fc"})


@dataclass(frozen=True)
class Problem:
    """One entry of the catalogue.

    Attributes:
        name: e.g. ``"gru-64-d0.1-b9-t63"``.
        cell: the recurrence.
        inputs, units: sizes.
        density: of every weight matrix.
        steps, batch: size of the input.
        lengths: whether samples end at different steps (0 among them).
        options: further arguments of `recurrent_graph`.
    """

    name: str
    cell: Cell
    inputs: int
    units: int
    density: float
    steps: int
    batch: int
    lengths: bool = False
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def seed(self) -> int:
        """From the name: the same everywhere."""
        return zlib.crc32(self.name.encode()) % 2**31

    def graph(self) -> Graph:
        """The network."""
        return recurrent_graph(self.cell, self.inputs, self.units, self.density, seed=self.seed, **self.options)

    def x(self) -> NDArray[np.float32]:
        """The input, float32 of shape (steps, batch, features); spikes where the graph says so."""
        rng = np.random.default_rng(self.seed + 1)
        source = self.graph().inputs[0]
        shape = source.shape
        if source.spiking:
            return (rng.random((self.steps, self.batch, *shape)) < 0.15).astype(np.float32)
        return rng.standard_normal((self.steps, self.batch, *shape)).astype(np.float32)

    def valid(self) -> NDArray[np.int64] | None:
        """Valid steps per sample, or ``None``: the first sample is whole, the second empty."""
        if not self.lengths:
            return None
        ends = np.random.default_rng(self.seed + 2).integers(0, self.steps + 1, self.batch)
        ends[:2] = (self.steps, 0)[: self.batch]
        return ends

    def state(self) -> dict[str, NDArray[np.float32]]:
        """A first state that is not zero, as a run returns it."""
        rng = np.random.default_rng(self.seed + 3)
        layer = self.graph().recurrent[0]
        state = {
            f"rnn.{s}": rng.uniform(-0.5, 0.5, (self.batch, *shape)).astype(np.float32)
            for s, shape in layer.states().items()
        }
        if self.cell.spiking:
            state["rnn.spk"] = (state["rnn.spk"] > 0).astype(np.float32)
        return state


def _catalogue() -> dict[str, Problem]:
    found: dict[str, Problem] = {}

    def add(cell: Cell, inputs: int, units: int, density: float, steps: int, batch: int, **more: Any) -> None:
        lengths, label = more.pop("lengths", False), more.pop("label", "")
        parts = (cell.name, units, f"d{density:g}", f"b{batch}", f"t{steps}", label, "ragged" if lengths else "")
        name = "-".join(str(p) for p in parts if p != "")
        found[name] = Problem(name, cell, inputs, units, density, steps, batch, lengths, more)

    for cell in CELLS.values():
        add(cell, 3, 1, 1.0, 63, 3)
        add(cell, 5, 17, 0.5, 63, 1)
        add(cell, 20, 17, 0.3, 63, 9, lengths=True, reverse=True)
        add(cell, 64, 64, 0.1, 63, 3, lengths=True)
        add(cell, 37, 500, 0.1, 63, 1)
        add(cell, 37, 500, 0.05, 1, 9)
        add(cell, 5, 17, 0.5, 0, 3)
        add(cell, 5, 17, 0.5, 63, 0)
        add(cell, 5, 17, 0.0, 1, 1)
        add(cell, 64, 64, 1.0, 63, 9)
        add(cell, 5, 17, 0.5, 63, 3, bias=False, reverse=True, label="nobias-reverse")
        add(cell, cell.n_gates * 17, 17, 0.5, 63, 3, input_product=False, label="drive")
        add(cell, 5, 17, 0.5, 63, 3, recurrence=False, label="feedforward")
        add(cell, 70, 33, 0.3, 63, 3, spiking_input=True, label="spikes-in")
        for height, width in ((16, 1), (8, 1), (8, 4), (4, 4)):
            add(cell, 16, 64, 0.25, 63, 3, pattern=block(height, width), label=f"block{height}x{width}")
        if cell.spiking:
            for reset in Reset:
                for delay in (True, False):
                    word = f"{reset.value}-{'delayed' if delay else 'at-once'}"
                    add(cell, 5, 17, 0.5, 63, 3, options=Options(reset, delay), label=word)
                    if cell is ALIF and reset is Reset.SUBTRACT:
                        options = Options(reset, delay, adapted=True)
                        add(cell, 5, 17, 0.5, 63, 3, options=options, label=f"{word}-adapted")
        if cell.vectors:
            add(cell, 5, 17, 0.5, 63, 3, one_to_one=True, label="one-to-one")
            add(
                cell, 24, 24, 1.0, 63, 3,
                input_product=False, recurrence=False, feature_shape=(2, 3, 4), label="image",
            )  # fmt: skip
    add(LSTM, 5, 17, 0.5, 63, 3, projection=9, label="projection")
    add(LSTM, 5, 64, 0.2, 63, 9, projection=20, reverse=True, lengths=True, label="projection")
    return found


PROBLEMS: dict[str, Problem] = _catalogue()
"""The catalogue by name."""


def wrong_weight(program: Program, weight: str | None = None, *, factor: float = 1.01) -> Program:
    """``program`` with the largest packed value of one weight multiplied by ``factor``; its graph is left as it was.

    A check that passes this program checks nothing.
    """
    name = weight or next(iter(program.packed))
    pack = program.packed[name]
    values = pack.values.copy()
    values[np.abs(values).argmax()] *= np.float32(factor)
    return replace(program, packed={**program.packed, name: replace(pack, values=values)})


@dataclass(frozen=True, eq=False)
class _Late(Program):
    def _compute(self, node: Node, inputs: Values, state: State, ctx: Context) -> tuple[dict[str, Any], State]:
        return _delayed(node, *super()._compute(node, inputs, state, ctx))

    def compute_all(self, node: Node, inputs: Values, state: State, ctx: Context) -> tuple[dict[str, Any], State]:
        return _delayed(node, *super().compute_all(node, inputs, state, ctx))


def _delayed(node: Node, out: dict[str, Array], state: State) -> tuple[dict[str, Array], State]:
    if not isinstance(node, Recurrent):
        return out, state
    return {p: np.concatenate([np.zeros_like(a[:1]), a[:-1]]) for p, a in out.items()}, state


def late_state(program: Program) -> Program:
    """``program`` with every recurrent layer emitting the state of the step before."""
    return _Late(**{name: getattr(program, name) for name in program.__dataclass_fields__})


__all__ = [
    "PROBLEMS",
    "TOLERANCE",
    "Problem",
    "Tolerance",
    "classifier_graph",
    "late_state",
    "random_pattern",
    "recurrent_graph",
    "relative_difference",
    "wrong_weight",
]
