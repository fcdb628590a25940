"""The body of a loop: its nodes as expressions of the input of a step and of the states before it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np

from sparsecirc.errors import FileFormatError, UnsupportedError
from sparsecirc.frontends._onnx import _expressions as ex
from sparsecirc.frontends._onnx._build import Build
from sparsecirc.frontends._onnx._expressions import Expression, Leaf
from sparsecirc.frontends._onnx._fold import FOLDS, axes_of, slices
from sparsecirc.frontends._onnx._read import TooLargeError, attributes
from sparsecirc.frontends._onnx._values import Anything, Array, Unknown, Value

NODES = 500
"""Nodes in the body of a loop."""
COST = 2**38
"""Multiplications that reading off the weights of one step may take."""


@dataclass(frozen=True)
class Counter:
    """The number of the step, plus something."""

    plus: int


@dataclass(frozen=True)
class Step:
    """What the input of a step was made of: the entry of a sequence, with so many axes of length one in front."""

    e: Expression
    rank: int = 2


Inner = Array | Anything | Counter | Step
"""What a name in the body stands for."""


@dataclass
class Body:
    """The body of a loop while it is read.

    Attributes:
        b: the graph that is built.
        name: of the operator.
        env: by name.
        source: the sequence that the steps read.
        x: its entry.
    """

    b: Build
    name: str
    env: dict[str, Inner]
    source: Value | None = None
    x: Leaf | None = None
    states: list[Leaf] = field(default_factory=list)
    cost: int = 0

    def entry(self, sequence: Value) -> Step:
        """The entry of a sequence in this step.

        Raises:
            UnsupportedError: the loop reads several, or one whose axes are others.
        """
        if sequence.axes != ("T", "B", 0):
            raise UnsupportedError(f"the loop '{self.name}' runs over other axes: {self.b.layout(sequence)}")
        if self.source is None:
            self.source, self.x = sequence, Leaf("x", self.b.specs[sequence.name].shape[0])
        elif self.source != sequence:
            raise UnsupportedError(f"the loop '{self.name}' reads several sequences: a layer here has one input")
        assert self.x is not None
        return Step(self.x)

    def read(self, nodes: Sequence[Any]) -> None:
        """Follow the nodes of the body.

        Raises:
            UnsupportedError: an operator that no step of a cell here has.
            FileFormatError: a node reads what nothing gives.
        """
        if len(nodes) > NODES:
            raise UnsupportedError(f"the loop '{self.name}' has {len(nodes)} nodes in a step: no cell here has")
        for node in nodes:
            missing = [n for n in node.input if n and n not in self.env]
            if missing:
                raise FileFormatError(
                    f"{node.op_type} '{node.name}' reads '{missing[0]}', which nothing before it gives"
                )
            made = self._node(node, [self.env[n] if n else None for n in node.input])
            self.env.update({n: m for n, m in zip(node.output, made, strict=False) if n})

    def _node(self, node: Any, x: Sequence[Inner]) -> Sequence[Inner]:
        kind, a = node.op_type, attributes(node, self.b.tensors)
        if any(isinstance(v, Step) for v in x):
            self._pay(kind, x)
            handler = _STEPS.get(kind)
            made = None if handler is None else handler(a, x, len(node.output))
            if made is None:
                raise UnsupportedError(
                    f"{kind} '{node.name}' in the loop '{self.name}' is no part of an RNN, GRU or LSTM"
                )
            return made
        if kind in ("Identity", "Cast"):
            return [x[0]]
        if kind in ("Gather", "Squeeze", "Unsqueeze", "Reshape") and isinstance(x[0], Counter):
            return [x[0]]
        if kind in ("Unsqueeze", "Squeeze", "Reshape") and isinstance(x[0], Value):
            return [Unknown("a sequence is laid out anew in a loop")] * len(node.output)
        if kind == "Gather" and isinstance(x[0], Value) and isinstance(x[1], Counter):
            if a.get("axis", 0) or x[1].plus:
                raise UnsupportedError(
                    f"the loop '{self.name}' reads its sequence along another axis, or at another step"
                )
            return [self.entry(x[0])]
        if kind == "Add" and any(isinstance(v, Counter) for v in x):
            counter, other = (x[0], x[1]) if isinstance(x[0], Counter) else (x[1], x[0])
            if (
                isinstance(counter, Counter)
                and isinstance(other, np.ndarray)
                and other.size == 1
                and other.dtype != object
            ):
                return [Counter(counter.plus + int(other.ravel()[0]))]
        if kind in FOLDS and all(v is None or (isinstance(v, np.ndarray) and v.dtype != object) for v in x):
            self.b.tensors.spend(sum(v.size for v in x if isinstance(v, np.ndarray)), kind)
            try:
                made = FOLDS[kind](self.b.tensors, {**a, "outputs": len(node.output)}, x)
            except (ValueError, IndexError, KeyError, TypeError, ZeroDivisionError, AttributeError) as error:
                raise FileFormatError(f"{kind} '{node.name}' has inputs that do not fit ({error})") from error
            return list(made) if isinstance(made, list) else [made]
        return [Unknown(f"{kind} '{node.name}' in the loop '{self.name}' works on lengths")] * len(node.output)

    def _pay(self, kind: str, x: Sequence[Inner]) -> None:
        """Count what products with a weight, or joining vectors, will take."""
        steps = [v.e for v in x if isinstance(v, Step)]
        wide = sum(leaf.size for e in steps for leaf in (e.terms if isinstance(e, ex.Sum) else (e,)))
        weight = next((v.size for v in x if isinstance(v, np.ndarray)), 0)
        self.cost += wide * (weight if kind in ("MatMul", "Gemm") else sum(e.size for e in steps))
        if self.cost > COST:
            raise TooLargeError(f"the loop '{self.name}' multiplies its weights with each other: it is not read")


def _number(v: Inner) -> Array | None:
    return v if isinstance(v, np.ndarray) and v.dtype.kind in "fiu" else None


def _both(a: Mapping[str, Any], x: Sequence[Inner], sign: float) -> list[Inner] | None:
    rank = max(v.rank for v in x[:2] if isinstance(v, Step))
    size = next(v.e.size for v in x[:2] if isinstance(v, Step))
    parts: list[Expression] = []
    for v in x[:2]:
        if isinstance(v, Step):
            parts.append(v.e)
        else:
            number = _number(v)
            if number is None or number.size not in (1, size):
                return None
            parts.append(ex.constant(number, size))
    if parts[0].size != parts[1].size:
        return None
    return [Step(ex.add(parts[0], ex.scale(parts[1], np.array(sign))), rank)]


def _mul(a: Mapping[str, Any], x: Sequence[Inner], count: int) -> list[Inner] | None:
    left, right = x[0], x[1]
    if isinstance(left, Step) and isinstance(right, Step):
        if left.e.size != right.e.size:
            return None
        return [Step(ex.product(left.e, right.e), max(left.rank, right.rank))]
    step, other = (left, right) if isinstance(left, Step) else (right, left)
    number = _number(other)
    if not isinstance(step, Step) or number is None or number.size not in (1, step.e.size):
        return None
    return [Step(ex.scale(step.e, number), step.rank)]


def _matmul(a: Mapping[str, Any], x: Sequence[Inner], count: int) -> list[Inner] | None:
    step, weight = x[0], _number(x[1])
    if not isinstance(step, Step) or weight is None or weight.ndim != 2 or weight.shape[0] != step.e.size:
        return None
    return [Step(ex.times(step.e, weight), step.rank)]


def _gemm(a: Mapping[str, Any], x: Sequence[Inner], count: int) -> list[Inner] | None:
    weight = _number(x[1])
    if weight is None or weight.ndim != 2 or a.get("transA"):
        return None
    made = _matmul({}, [x[0], (weight.T if a.get("transB") else weight) * a.get("alpha", 1.0)], 1)
    if made is None or len(x) < 3 or x[2] is None:
        return made
    bias = _number(x[2])
    return None if bias is None else _both({}, [made[0], bias * a.get("beta", 1.0)], 1.0)


def _last_axis(a: Mapping[str, Any], step: Step) -> bool:
    return a.get("axis", 0) in (-1, step.rank - 1)


def _split(a: Mapping[str, Any], x: Sequence[Inner], count: int) -> list[Inner] | None:
    step = x[0]
    if not isinstance(step, Step) or not _last_axis(a, step):
        return None
    given = a.get("split") or (None if len(x) < 2 or x[1] is None else np.ravel(x[1]).tolist())  # type: ignore[arg-type]
    if given is None and step.e.size % count:
        return None
    sizes = [int(s) for s in given] if given else [step.e.size // count] * count
    ends = np.cumsum([0, *sizes])
    if ends[-1] != step.e.size:
        return None
    return [Step(ex.part(step.e, slice(int(p), int(q))), step.rank) for p, q in pairwise(ends)]


def _slice(a: Mapping[str, Any], x: Sequence[Inner], count: int) -> list[Inner] | None:
    step = x[0]
    if not isinstance(step, Step) or any(v is not None and _number(v) is None for v in x[1:]):
        return None
    parts = slices(a, [None, *x[1:]], step.rank)
    for s in parts[:-1]:
        if s.start not in (None, 0) or s.step not in (None, 1) or (s.stop is not None and s.stop < 2**31 - 1):
            return None
    return [Step(ex.part(step.e, parts[-1]), step.rank)]


def _concat(a: Mapping[str, Any], x: Sequence[Inner], count: int) -> list[Inner] | None:
    steps = [v for v in x if isinstance(v, Step)]
    if len(steps) < len(x) or not _last_axis(a, steps[0]):
        return None
    return [Step(ex.joined([s.e for s in steps]), steps[0].rank)]


def _act(kind: str) -> Callable[[Mapping[str, Any], Sequence[Inner], int], list[Inner] | None]:
    def handler(a: Mapping[str, Any], x: Sequence[Inner], count: int) -> list[Inner] | None:
        return [Step(ex.Act(kind, x[0].e), x[0].rank)] if isinstance(x[0], Step) else None

    return handler


def _axes(by: int) -> Callable[[Mapping[str, Any], Sequence[Inner], int], list[Inner] | None]:
    """Axes of length one come in front of the batch, or go there."""

    def handler(a: Mapping[str, Any], x: Sequence[Inner], count: int) -> list[Inner] | None:
        step, axes = x[0], axes_of(a, [v if isinstance(v, np.ndarray) else None for v in x])
        if not isinstance(step, Step) or axes is None or axes != (0,) or (by < 0 and step.rank < 3):
            return None
        return [Step(step.e, step.rank + by)]

    return handler


_STEPS: Mapping[str, Callable[[Mapping[str, Any], Sequence[Inner], int], Sequence[Inner] | None]] = {
    "Add": lambda a, x, _: _both(a, x, 1.0),
    "Sub": lambda a, x, _: _both(a, x, -1.0),
    "Neg": lambda _a, x, _: [Step(ex.scale(x[0].e, np.array(-1.0)), x[0].rank)] if isinstance(x[0], Step) else None,
    "Mul": _mul,
    "MatMul": _matmul,
    "Gemm": _gemm,
    "Split": _split,
    "Slice": _slice,
    "Concat": _concat,
    "Squeeze": _axes(-1),
    "Unsqueeze": _axes(1),
    "Identity": lambda _a, x, _: [x[0]],
    "Cast": lambda _a, x, _: [x[0]],
    "Sigmoid": _act("Sigmoid"),
    "Tanh": _act("Tanh"),
    "Relu": _act("Relu"),
}
"""Operators of a step."""
