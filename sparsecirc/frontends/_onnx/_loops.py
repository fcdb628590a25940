"""Loop and Scan operators whose body is the step of a cell: one recurrent layer each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from sparsecirc.cells import CELLS
from sparsecirc.errors import FileFormatError, UnsupportedError
from sparsecirc.frontends._onnx._build import Build
from sparsecirc.frontends._onnx._expressions import Expression, Leaf
from sparsecirc.frontends._onnx._fold import FOLDS
from sparsecirc.frontends._onnx._read import attributes
from sparsecirc.frontends._onnx._recognise import Found, recognise
from sparsecirc.frontends._onnx._recurrent import final_state, ours, zero
from sparsecirc.frontends._onnx._steps import Body, Counter, Inner, Step
from sparsecirc.frontends._onnx._values import Anything, Array, Fill, Size, Unknown, Value
from sparsecirc.ir import Node, Recurrent, ResetFirstGru

TRIALS = (1, 2, 5)
"""Lengths that the end of a loop is tried with."""


def loop(b: Build, node: Any, body: Any, x: Sequence[Anything], env: Mapping[str, Anything]) -> list[Anything]:
    """A Loop operator as a layer.

    Args:
        b: the graph that is built.
        node: the operator.
        body: its graph.
        x: trip count, condition, and first values of what is carried.
        env: what the body sees from outside, its own constants included.

    Raises:
        UnsupportedError: its step is no cell here, it starts from states that are not zero, or it does not run over all
            steps of a sequence.
        FileFormatError: its inputs and outputs do not fit.
    """
    name, carried = node.name or node.output[0], x[2:]
    if isinstance(x[1], np.ndarray) and not np.all(x[1]):
        raise UnsupportedError(f"the loop '{name}' never runs")
    names, outs = [i.name for i in body.input], [o.name for o in body.output]
    if len(names) != 2 + len(carried) or len(outs) < 1 + len(carried):
        raise FileFormatError(f"Loop '{name}' carries {len(carried)} values, its body {len(names) - 2}")
    produced = {n for inner in body.node for n in inner.output}
    inside = Body(b, name, dict(env))
    inside.env[names[0]] = Counter(0)
    inside.env[names[1]] = np.array(True)
    moving: list[int] = []
    for k, (inner, first) in enumerate(zip(names[2:], carried, strict=True)):
        if outs[1 + k] == inner or outs[1 + k] not in produced:
            inside.env[inner] = first  # the same in every step
        elif isinstance(first, np.ndarray) and first.dtype.kind in "iu" and first.size == 1:
            inside.env[inner] = Counter(int(first.ravel()[0]))
        else:
            moving.append(k)
            inside.env[inner] = _state(inside, k, name, first, body, inner)
    inside.read(body.node)
    _runs_over_all(b, name, body, x, env)
    ends = [inside.env.get(o) for o in outs[1 : 1 + len(carried)]]
    stacked = [inside.env.get(o) for o in outs[1 + len(carried) :]]
    layer, found, after = _layer(inside, [ends[k] for k in moving], reverse=False)
    turned = inside.source is not None and inside.source.reversed
    results: list[Anything] = []
    for k, first in enumerate(carried):
        if k in moving:
            port = found.ports[moving.index(k)]
            results.append(Value((final_state(b, layer, port, turned),), ("B", 0)))
        else:
            results.append(
                first if not isinstance(ends[k], Counter) else Unknown("the number of the last step of a loop")
            )
    for out in stacked:
        results.append(Value((f"{layer}.{_port(name, out, after)}",), ("T", "B", 0), reversed=turned))
    return results[: len(node.output)]


def _state(inside: Body, k: int, name: str, first: Anything, body: Any, state: str) -> Step:
    if not zero(first):
        raise UnsupportedError(f"the loop '{name}' starts from a state that is not zero: layers here start from zero")
    leaf = Leaf(f"state {k}", _units(inside, body, first, state))
    inside.states.append(leaf)
    return Step(leaf)


def _units(inside: Body, body: Any, first: Anything, state: str) -> int:
    """Entries of a state: of its first value, or of the weights that it is multiplied by in the body."""
    if isinstance(first, np.ndarray) and first.ndim >= 1 and first.dtype != object and first.shape[-1] > 1:
        return int(first.shape[-1])
    if isinstance(first, Fill) and first.width:
        return first.width
    for inner in body.node:
        weight = (
            inside.env.get(inner.input[1]) if inner.op_type in ("MatMul", "Gemm") and inner.input[0] == state else None
        )
        if isinstance(weight, np.ndarray) and weight.ndim == 2:
            return int(weight.shape[0])
    raise UnsupportedError(f"the loop '{inside.name}' does not say how wide its state '{state}' is")


def scan(
    b: Build, node: Any, a: Mapping[str, Any], body: Any, x: Sequence[Anything], env: Mapping[str, Anything]
) -> list[Anything]:
    """A Scan operator as a layer; see :func:`loop`."""
    name, count = node.name or node.output[0], int(a.get("num_scan_inputs", 1))
    first, sequences = x[: len(x) - count], x[len(x) - count :]
    names, outs = [i.name for i in body.input], [o.name for o in body.output]
    if len(names) != len(x) or len(outs) < len(first):
        raise FileFormatError(f"Scan '{name}' has {len(x)} inputs, its body {len(names)}")
    if any(a.get("scan_input_axes") or ()) or any(a.get("scan_output_axes") or ()):
        raise UnsupportedError(f"Scan '{name}' runs along another axis than the first")
    ways = set(a.get("scan_input_directions") or [0]) | set(a.get("scan_output_directions") or [0])
    if len(ways) > 1:
        raise UnsupportedError(f"Scan '{name}' reads in one direction and writes in the other")
    inside = Body(b, name, dict(env))
    for k, (inner, start) in enumerate(zip(names, first, strict=False)):
        inside.env[inner] = _state(inside, k, name, start, body, inner)
    for inner, sequence in zip(names[len(first) :], sequences, strict=True):
        if not isinstance(sequence, Value):
            raise UnsupportedError(f"Scan '{name}' reads a constant, or what nothing here can follow")
        inside.env[inner] = inside.entry(sequence)
    inside.read(body.node)
    reverse = bool(ways.pop())
    layer, found, after = _layer(inside, [inside.env.get(o) for o in outs[: len(first)]], reverse=reverse)
    turned = inside.source is not None and inside.source.reversed
    results: list[Anything] = [
        Value((final_state(b, layer, port, reverse != turned),), ("B", 0)) for port in found.ports
    ]
    for out in outs[len(first) :]:
        port = _port(name, inside.env.get(out), after)
        results.append(Value((f"{layer}.{port}",), ("T", "B", 0), reversed=turned))
    return results[: len(node.output)]


def _layer(inside: Body, ends: Sequence[Inner], *, reverse: bool) -> tuple[str, Found, dict[Expression, str]]:
    """The layer; what it is; its outputs by their expressions."""
    b, name, source, x = inside.b, inside.name, inside.source, inside.x
    after = [e.e for e in ends if isinstance(e, Step)]
    if source is None or x is None or len(after) != len(ends) or not after:
        raise UnsupportedError(f"the loop '{name}' has no state, or reads no sequence step by step")
    found = recognise(x, inside.states, after)
    if found is None:
        raise UnsupportedError(f"the step of the loop '{name}' is no RNN, GRU or LSTM")
    cell = CELLS[f"rnn_{found.activation.lower()}" if found.kind == "RNN" else found.kind.lower()]
    params = {role: ours(cell, found.kind, w) for role, w in found.weights.items() if "bias" not in role or np.any(w)}
    params |= {r: ours(cell, found.kind, found.weights[r]) for r in ("bias_ih", "bias_hh") if len(params) > 2}
    label, units = b.label(name), inside.states[0].size
    backwards = reverse != source.reversed
    if found.reset_first:
        made: Node = ResetFirstGru(label, (source.name,), params, units=units, reverse=backwards)
    else:
        made = Recurrent(label, (source.name,), params, cell=cell, units=units, reverse=backwards)
    return b.add(made), found, dict(zip(after, found.ports, strict=True))


def _port(name: str, out: Inner, after: Mapping[Expression, str]) -> str:
    port = after.get(out.e) if isinstance(out, Step) else None
    if port is None:
        raise UnsupportedError(f"the loop '{name}' gives something else than its states at every step")
    return port


# ---- how often it runs ----------------------------------------------------------------------------------------------
def _runs_over_all(b: Build, name: str, body: Any, x: Sequence[Anything], env: Mapping[str, Anything]) -> None:
    """That a loop runs once for each step, tried with some lengths.

    Raises:
        UnsupportedError: it does not, or its end depends on what it computes.
    """
    steps = b.sizes.get("T", 1)
    for length in TRIALS if isinstance(steps, Size) else (steps,):
        if _count(b, name, body, x, env, length) != length:
            raise UnsupportedError(f"the loop '{name}' does not run once for each step of its sequence")


def _count(b: Build, name: str, body: Any, x: Sequence[Anything], env: Mapping[str, Anything], length: int) -> int:
    """Times that the loop runs over a sequence of ``length``: the part of its body that counts, in numbers."""
    names, outs = [i.name for i in body.input], [o.name for o in body.output]
    wanted, needed = {outs[0]}, []
    counters = {
        n: k for k, n in enumerate(names[2:])
        if isinstance(v := x[2 + k], np.ndarray) and v.dtype.kind in "iub" and v.size == 1
    }  # fmt: skip
    wanted |= {outs[1 + k] for k in counters.values()}
    for inner in reversed(body.node):
        if wanted & set(inner.output):
            needed.append(inner)
            wanted |= set(inner.input)
    needed.reverse()
    outside = {n: w for n, v in env.items() if n in wanted and (w := _numbers(v, length)) is not None}
    limit = length + 2 if x[0] is None else _numbers(x[0], length)
    if limit is None:
        raise UnsupportedError(f"the loop '{name}' runs a number of times that nothing here can follow")
    limit = int(np.ravel(limit)[0])
    now = {n: w for k, n in enumerate(names[2:]) if (w := _numbers(x[2 + k], length)) is not None}
    for done in range(length + 2):
        if done >= limit:
            return done
        at = {**outside, **now, names[0]: np.array(done), names[1]: np.array(True)}
        for inner in needed:
            if any(n and n not in at for n in inner.input) or inner.op_type not in FOLDS:
                if outs[0] in inner.output:
                    raise UnsupportedError(f"the loop '{name}' ends by what it computes, not by a number of steps")
                continue
            made = FOLDS[inner.op_type](
                b.tensors, {**attributes(inner, b.tensors), "outputs": len(inner.output)},
                [at[n] if n else None for n in inner.input],
            )  # fmt: skip
            at.update(zip(inner.output, made if isinstance(made, list) else [made], strict=False))
        if outs[0] not in at:
            raise UnsupportedError(f"the loop '{name}' ends by what it computes, not by a number of steps")
        now |= {n: at[outs[1 + k]] for n, k in counters.items() if outs[1 + k] in at}
        if not bool(np.ravel(at[outs[0]])[0]):
            return done + 1
    return length + 2


def _numbers(value: Anything, length: int) -> Array | None:
    """A small constant, with T as ``length``; ``None`` for what depends on anything else."""
    if not isinstance(value, np.ndarray) or value.size > 16:
        return None
    if value.dtype != object:
        return value
    flat = [_size(n, length) if isinstance(n, Size) else int(n) for n in value.ravel().tolist()]
    return None if any(n is None for n in flat) else np.array(flat, np.int64).reshape(value.shape)


def _size(size: Size, length: int) -> int | None:
    return None if set(size.of) - {"T"} else size.factor * length ** len(size.of)
