"""`from_onnx`: an ONNX file to a `Graph`."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from sparsecirc.errors import FileFormatError, SparsecircError, UnsupportedError, UsageError
from sparsecirc.frontends._convert import with_zero_patterns
from sparsecirc.frontends._onnx._build import Build
from sparsecirc.frontends._onnx._fold import FOLDS, ON_SHAPES
from sparsecirc.frontends._onnx._indices import of_indices
from sparsecirc.frontends._onnx._layers import HANDLERS, KEEP_ORDER
from sparsecirc.frontends._onnx._loops import loop, scan
from sparsecirc.frontends._onnx._read import DEPTH_LIMIT, NODE_LIMIT, Tensors, TooLargeError, attributes, read_model
from sparsecirc.frontends._onnx._recurrent import recurrent
from sparsecirc.frontends._onnx._values import Anything, Axis, Fill, Size, Skipped, Unknown, Value
from sparsecirc.ir import Graph, Input

_RECURRENT = ("RNN", "GRU", "LSTM")
_HANDLERS: Mapping[str, Callable[..., list[Anything]]] = {**HANDLERS, **dict.fromkeys(_RECURRENT, recurrent)}
_KEEP_FILLS = frozenset({"Cast", "Concat", "Expand", "Gather", "Identity", "Reshape", "Slice", "Split", "Squeeze",
                         "Transpose", "Unsqueeze"})  # fmt: skip
"""Operators whose outputs hold nothing but what their first input holds."""
_INT32, _INT64, _FLOATS = 6, 7, (1, 10, 11, 16)
_TIME_FIRST, _BATCH_FIRST, _STATIC, _STATE, _LENGTHS = "TB", "BT", "B", "state", "lengths"


def from_onnx(path_or_model: str | os.PathLike[str] | Any, *, dt: float | None = None) -> Graph:
    """A graph that computes what an ONNX file computes.

    Read are RNN, GRU (reset after the product) and LSTM in one or both directions, stacked; Gemm, MatMul, Conv,
    pooling, batch normalisation, embeddings, pointwise functions, and the shape operators around them; weights in
    initializers, sparse initializers, constants, other files of the same folder, in functions of the file and in
    branches whose condition is constant, also where operators on constants compute them. Which axes are time and batch
    is found by trying. Exact zeros of a weight become its pattern. Inputs for valid steps and for first states are left
    out: ``interpret`` and ``Program.run`` take lengths and states of their own; ``meta["notes"]`` says so.

    Args:
        path_or_model: a file, or an ``onnx.ModelProto``, which is not changed.
        dt: seconds per step, kept in the graph.

    Raises:
        FileFormatError: missing, damaged, or contradicting itself; or data outside the folder of the file.
        UnsupportedError: an operator, or a use of one, that no layer here computes; names it. Also more nodes or
            constants than a network has.
        MissingExtraError: the package ``onnx`` is not installed.
    """
    is_path = isinstance(path_or_model, str | os.PathLike)
    model = read_model(path_or_model) if is_path else path_or_model
    folder = Path(path_or_model).parent if is_path else None
    failed: list[tuple[int, SparsecircError]] = []
    for layouts in _layouts(model):
        reader = _Reader(model, folder, layouts)
        try:
            graph = reader.graph(dt, Path(path_or_model).name if is_path else None)
        except (FileFormatError, TooLargeError):
            raise
        except (UnsupportedError, UsageError) as error:
            failed.append((reader.reached, error))
            continue
        return with_zero_patterns(graph)
    if not failed:
        raise UnsupportedError("the ONNX file has no input whose axes could be time, batch and features")
    raise max(failed, key=lambda f: f[0])[1]  # of the attempt that came furthest


def _layouts(model: Any) -> Iterator[dict[str, str]]:
    """What the axes of the inputs may be: time first, batch first, no time; in the order of likelihood."""
    weights = {t.name for t in model.graph.initializer} | {t.values.name for t in model.graph.sparse_initializer}
    lengths, states = _side_inputs(model)
    choices: dict[str, tuple[str, ...]] = {}
    for given in model.graph.input:
        if given.name in weights:
            continue
        kind = given.type.tensor_type
        rank = len(kind.shape.dim)
        if given.name in lengths:
            choices[given.name] = (_LENGTHS,)
        elif given.name in states:
            choices[given.name] = (_STATE,)
        elif kind.elem_type in (_INT32, _INT64) and rank == 1:
            choices[given.name] = (_STATIC,)
        elif rank >= 3 or (rank == 2 and kind.elem_type in (_INT32, _INT64)):
            choices[given.name] = (_TIME_FIRST, _BATCH_FIRST, _STATIC)
        elif rank == 2:
            choices[given.name] = (_STATIC,)
        else:
            raise UnsupportedError(
                f"input '{given.name}' of the ONNX file has {rank} axes: expected batch and features"
            )
    tried: set[tuple[str, ...]] = set()
    for wanted in (_TIME_FIRST, _BATCH_FIRST, _STATIC):
        layout = {n: wanted if wanted in c else c[0] for n, c in choices.items()}
        if tuple(layout.values()) not in tried:
            tried.add(tuple(layout.values()))
            yield layout
    for mixed in product(*choices.values()):
        if len(tried) < 16 and mixed not in tried:
            tried.add(mixed)
            yield dict(zip(choices, mixed, strict=True))


def _side_inputs(model: Any) -> tuple[set[str], set[str]]:
    """Inputs that recurrent operators alone read: as valid steps, and as first states."""
    graph = model.graph
    told = {p.key: p.value.strip('"') for p in model.metadata_props if p.key == "sparsecirc.lengths"}
    uses: dict[str, set[int]] = {}
    for node in graph.node:
        for k, name in enumerate(node.input):
            uses.setdefault(name, set()).add(k if node.op_type in _RECURRENT else -1)
    lengths = {n for n, at in uses.items() if at == {4}} | (set(told.values()) - {"null"})
    return lengths, {n for n, at in uses.items() if at and at <= {5, 6}}


@dataclass
class _Reader:
    model: Any
    folder: Path | None
    layouts: Mapping[str, str]
    reached: int = 0
    env: dict[str, Anything] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.b = Build(Tensors(self.folder))
        self.functions = {(f.domain, f.name): f for f in self.model.functions}

    # ---- the whole file ---------------------------------------------------------------------------------------------
    def graph(self, dt: float | None, name: str | None) -> Graph:
        graph, env = self.model.graph, self.env
        self._constants(graph, env)
        for given in graph.input:
            if given.name not in env:
                env[given.name] = self._input(given)
        self._nodes(graph.node, env, {}, 0)
        outputs, first = self._outputs(graph.output, env)
        meta = {"source": "onnx", "file": name, "producer": self.model.producer_name or None,
                "notes": self.b.notes or None}  # fmt: skip
        return Graph(
            self.b.needed(outputs.values()),
            outputs,
            batch_first=first,
            dt=dt,
            meta={k: v for k, v in meta.items() if v is not None},
        )

    def _constants(self, graph: Any, env: dict[str, Anything]) -> None:
        for tensor in graph.initializer:
            env[tensor.name] = self.b.tensors.array(tensor)
        for sparse in graph.sparse_initializer:
            env[sparse.values.name] = self.b.tensors.sparse(sparse)

    def _input(self, given: Any) -> Anything:
        layout = self.layouts[given.name]
        if layout in (_STATE, _LENGTHS):
            what = "first states: runs start from zero" if layout == _STATE else "valid steps: pass lengths= instead"
            self.b.notes.append(f"input '{given.name}' of the file is left out, it holds {what}")
            return Skipped(given.name, layout)
        kind = given.type.tensor_type
        if kind.elem_type not in (_INT32, _INT64, *_FLOATS):
            raise UnsupportedError(f"input '{given.name}' of the ONNX file holds no floats and no indices")
        axes: tuple[Axis, ...] = tuple(layout)
        dims = [d.dim_value if d.WhichOneof("value") == "dim_value" else None for d in kind.shape.dim]
        for axis, size in zip(axes, dims, strict=False):
            known = self.b.sizes.get(str(axis))
            new = Size(1, (str(axis),)) if size is None else size
            if isinstance(known, int) and isinstance(new, int) and known != new:
                raise UsageError(f"inputs of the ONNX file differ in the axis {axis}: {known} and {new}")
            self.b.sizes[str(axis)] = known if isinstance(known, int) else new
        shape = dims[len(axes) :]
        if any(n is None or n < 1 for n in shape):
            raise UnsupportedError(f"input '{given.name}' of the ONNX file leaves the number of its features open")
        features = tuple(int(n) for n in shape if n is not None)
        node = Input(self.b.label(given.name), shape=features, time="T" in axes)
        dtype = "i" if kind.elem_type in (_INT32, _INT64) else "f"
        return Value((self.b.add(node),), (*axes, *range(len(features))), dtype)

    def _outputs(self, declared: Any, env: Mapping[str, Anything]) -> tuple[dict[str, str], bool]:
        outputs: dict[str, str] = {}
        orders = {layout for layout in self.layouts.values() if layout in (_TIME_FIRST, _BATCH_FIRST)}
        for out in declared:
            value = env.get(out.name)
            if isinstance(value, Skipped):
                raise UnsupportedError(f"output '{out.name}' of the ONNX file is one of its inputs")
            if not isinstance(value, Value):
                why = value.why if isinstance(value, Unknown) else "it depends on no input"
                raise UnsupportedError(f"output '{out.name}' of the ONNX file cannot be followed: {why}")
            plain = [a for a in value.axes if a not in (None, "D")]
            lead = [a for a in plain if isinstance(a, str)]
            if plain != [*lead, *range(len(self.b.specs[value.names[0]].shape))] or sorted(lead) not in (
                ["B"],
                ["B", "T"],
            ):
                raise UnsupportedError(
                    f"output '{out.name}' of the ONNX file has another order: {self.b.layout(value)}"
                )
            if len(lead) == 2:
                orders.add("".join(lead))
            if len(plain) != len(value.axes):
                self.b.notes.append(f"output '{out.name}' of the file has axes that the graph's has not")
            for k, name in enumerate(value.names):
                outputs[out.name if len(value.names) == 1 else f"{out.name}.{k}"] = name
        if len(orders) > 1:
            raise UnsupportedError("some inputs and outputs of the ONNX file have time first, others batch first")
        return outputs, orders == {_BATCH_FIRST}

    # ---- nodes ------------------------------------------------------------------------------------------------------
    def _nodes(self, nodes: Any, env: dict[str, Anything], outer: Mapping[str, Any], depth: int) -> None:
        if depth > DEPTH_LIMIT:
            raise TooLargeError(f"functions or branches of the ONNX file lie more than {DEPTH_LIMIT} deep")
        for node in nodes:
            self.reached += 1
            if self.reached > NODE_LIMIT:
                raise TooLargeError(
                    f"the ONNX file asks for more than {NODE_LIMIT:,} nodes, functions counted each time"
                )
            missing = [n for n in node.input if n and n not in env]
            if missing:
                raise FileFormatError(
                    f"{node.op_type} '{node.name}' reads '{missing[0]}', which nothing before it gives: a missing "
                    "initializer, or a cycle"
                )
            results = self._node(node, [env[n] if n else None for n in node.input], env, outer, depth)
            for name, result in zip(node.output, results, strict=False):
                if name and name in env:
                    raise FileFormatError(f"the ONNX file gives '{name}' twice")
                if name:
                    env[name] = result

    def _node(
        self, node: Any, x: Sequence[Anything], env: Mapping[str, Anything], outer: Mapping[str, Any], depth: int
    ) -> Sequence[Anything]:
        kind = node.op_type
        inner = self.functions.get((node.domain, kind))
        if inner is not None:
            return self._function(inner, node, x, outer, depth)
        if node.domain not in ("", "ai.onnx"):
            raise UnsupportedError(
                f"node '{node.name}' is of the domain '{node.domain}', which this file does not explain"
            )
        a = attributes(node, self.b.tensors, outer)
        if kind == "If":
            return self._branch(node, a, x, env, outer, depth)
        if kind in ("Loop", "Scan"):
            return self._loop(node, a, x, env)
        index = of_indices(kind, x, self.b.notes)
        if index is not None:
            return [index]
        unknown = next((v for v in x if isinstance(v, Unknown)), None)
        if unknown is not None:
            return [unknown] * len(node.output)
        if kind == "Shape" and isinstance(x[0], Value):
            lengths = self.b.array(self.b.shape(x[0]))
            return [lengths[a.get("start", 0) : a.get("end", len(lengths))]]
        if kind in FOLDS and all(v is None or isinstance(v, np.ndarray) for v in x):
            return self._fold(node, a, x)
        if kind in _KEEP_FILLS and isinstance(x[0], Fill):
            same = all(isinstance(v, Fill) and v.value == x[0].value for v in x) if kind == "Concat" else True
            unlike = Unknown(f"Concat '{node.name}' joins different numbers along T or B")
            kept = x[0] if kind in ("Cast", "Identity") else Fill(x[0].value)
            return [kept if same else unlike] * len(node.output)
        handler = _HANDLERS.get(kind)
        if handler is None:
            known = ", ".join(sorted(_HANDLERS))
            raise UnsupportedError(
                f"node '{node.name}' of the ONNX file is a {kind}, which is not read: known are {known}"
            )
        if not any(isinstance(v, Value) for v in x):
            return [Unknown(f"{kind} '{node.name}' works on what is neither a constant nor a value")] * len(node.output)
        if kind not in KEEP_ORDER and any(isinstance(v, Value) and v.reversed for v in x):
            raise UnsupportedError(f"{kind} '{node.name}' works on a sequence that the file has turned round in time")
        return handler(self.b, node, a, x)

    def _loop(
        self, node: Any, a: Mapping[str, Any], x: Sequence[Anything], env: Mapping[str, Anything]
    ) -> Sequence[Anything]:
        if "body" not in a or len(x) < 2:
            raise FileFormatError(f"{node.op_type} '{node.name}' of the ONNX file has no body, or nothing to run on")
        inner = dict(env)
        self._constants(a["body"], inner)
        self.reached += len(a["body"].node)
        try:
            if node.op_type == "Scan":
                return scan(self.b, node, a, a["body"], x, inner)
            return loop(self.b, node, a["body"], x, inner)
        except SparsecircError:
            raise
        except (ValueError, IndexError, KeyError, TypeError, ZeroDivisionError, AttributeError) as error:
            raise FileFormatError(
                f"the body of {node.op_type} '{node.name}' of the ONNX file has inputs that do not fit ({error})"
            ) from error

    def _fold(self, node: Any, a: dict[str, Any], x: Sequence[Any]) -> Sequence[Anything]:
        open_ended = any(v is not None and v.dtype == object for v in x)
        if open_ended and node.op_type not in ON_SHAPES:
            return [Unknown(f"{node.op_type} '{node.name}' computes with T or B")] * len(node.output)
        self.b.tensors.spend(sum(v.size for v in x if v is not None), node.op_type)
        try:
            made = FOLDS[node.op_type](self.b.tensors, {**a, "outputs": len(node.output)}, x)
        except (ValueError, IndexError, KeyError, TypeError, ZeroDivisionError, AttributeError, OverflowError) as error:
            raise FileFormatError(
                f"{node.op_type} '{node.name}' of the ONNX file has inputs that do not fit ({error})"
            ) from error
        found = made if isinstance(made, list) else [made]
        return [np.asarray(m) if isinstance(m, np.generic) else m for m in found]

    def _function(
        self, function: Any, node: Any, x: Sequence[Anything], outer: Mapping[str, Any], depth: int
    ) -> Sequence[Anything]:
        defaults = attributes(_WithAttributes(function.attribute_proto), self.b.tensors)
        given = attributes(node, self.b.tensors, outer)
        env: dict[str, Anything] = dict(zip(function.input, [*x, *[None] * len(function.input)], strict=False))
        outermost = not self.b.prefix
        self.b.prefix = self.b.prefix or node.name
        self._nodes(function.node, env, {**defaults, **given}, depth + 1)
        if outermost:
            self.b.prefix = ""
        missing = [n for n in function.output if n not in env]
        if missing:
            raise FileFormatError(
                f"function '{function.name}' of the ONNX file does not give its output '{missing[0]}'"
            )
        return [env[n] for n in function.output]

    def _branch(
        self, node: Any, a: Mapping[str, Any], x: Sequence[Anything], env: Mapping[str, Anything],
        outer: Mapping[str, Any], depth: int,
    ) -> Sequence[Anything]:  # fmt: skip
        condition = x[0]
        if not isinstance(condition, np.ndarray) or condition.size != 1 or condition.dtype == object:
            raise UnsupportedError(f"If '{node.name}' has a condition that is no constant: no graph here decides")
        body = a["then_branch" if bool(condition.ravel()[0]) else "else_branch"]
        inner = dict(env)
        self._constants(body, inner)
        self._nodes(body.node, inner, outer, depth + 1)
        missing = [o.name for o in body.output if o.name not in inner]
        if missing:
            raise FileFormatError(f"a branch of If '{node.name}' does not give its output '{missing[0]}'")
        return [inner[o.name] for o in body.output]


@dataclass(frozen=True)
class _WithAttributes:
    """Default attributes of a function, as :func:`attributes` reads those of a node."""

    attribute: Any
    name: str = ""
    op_type: str = "function"
