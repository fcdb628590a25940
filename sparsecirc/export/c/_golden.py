"""The test program: inputs with what the float64 interpreter makes of them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sparsecirc.cells import crossed
from sparsecirc.errors import UsageError
from sparsecirc.export.c._options import Arithmetic
from sparsecirc.export.c._plan import Plan
from sparsecirc.export.c._text import array_text, snippet, to_float32
from sparsecirc.ir import Embedding, Graph, Recurrent, Repeat, Result, interpret

TOLERANCE = {Arithmetic.FLOAT: 1e-4, Arithmetic.INT8: 5e-3}
"""In integers an input that rounds up here and down there moves a sum by a whole step."""
_STEPS = 12
_STATIC_SAMPLES = 4
_CLOSE = 4e-6


@dataclass(frozen=True)
class Golden:
    """Inputs (samples, steps, ...) or (samples, ...), expected outputs likewise, and what to know about them."""

    x: NDArray[Any]
    outputs: dict[str, NDArray[np.float64]]
    steps: int
    notes: tuple[str, ...]


def _user(graph: Graph, plan: Plan, x: NDArray[Any]) -> NDArray[Any]:
    """(samples, steps, ...) to the layout that ``interpret`` takes."""
    return np.swapaxes(x, 0, 1) if plan.input.time and not graph.batch_first else x


def _spiking(graph: Graph) -> list[Recurrent]:
    return [n for n in graph.recurrent if n.cell.spiking]


def _run(graph: Graph, plan: Plan, x: NDArray[Any], dtype: Any) -> Result:
    return interpret(graph, _user(graph, plan, x), dtype=dtype, keep_values=True)


def _default_input(graph: Graph, plan: Plan) -> NDArray[Any]:
    """Fixed pseudo-random input; for spiking networks as strong as it takes for every layer to spike, at most x 32."""
    rng = np.random.default_rng(0)
    shape = (1, _STEPS, *plan.input.shape) if plan.input.time else (_STATIC_SAMPLES, *plan.input.shape)
    if plan.input_type == "int32_t":
        tables = [n for n in graph.nodes if isinstance(n, Embedding) and n.inputs[0] == plan.input.name]
        return rng.integers(0, min(len(n.params["weight"]) for n in tables), shape).astype(np.int32)
    x = rng.standard_normal(shape).astype(np.float32)
    layers = _spiking(graph)
    if not layers:
        return x
    x = np.abs(x)
    for scale in (1, 2, 4, 8, 16, 32):
        for candidate in (np.float32(scale) * x, np.float32(scale) * (x - 1)):
            values = _run(graph, plan, candidate, np.float32).values
            if all(np.any(values[n.name]) for n in layers):
                return candidate
    return x


def _given_input(graph: Graph, plan: Plan, golden: ArrayLike) -> NDArray[Any]:
    x = np.asarray(golden)
    lead = 2 if plan.input.time else 1
    if x.ndim != lead + len(plan.input.shape) or tuple(x.shape[lead:]) != tuple(plan.input.shape) or not x.size:
        axes = ("(B, T" if graph.batch_first else "(T, B") if plan.input.time else "(B"
        raise UsageError(
            f"the golden input has shape {x.shape}: expected {axes}{''.join(f', {n}' for n in plan.input.shape)}), "
            "not empty"
        )
    x = np.swapaxes(x, 0, 1) if plan.input.time and not graph.batch_first else x
    return x.astype(np.int32) if plan.input_type == "int32_t" else to_float32(x, "the golden input")


def _certain_steps(graph: Graph, exact: Result, single: Result, steps: int) -> int:
    """Steps before rounding may decide a spike: single and double precision agree and no membrane is too close."""
    for node in _spiking(graph):
        theta = crossed(node.vectors(), {s: exact.values[f"{node.name}.{s}"] for s in node.cell.states})
        distance = np.abs(exact.values[f"{node.name}.mem"] - theta)
        doubtful = (exact.values[node.name] != single.values[node.name]) | (
            (distance > 0) & (distance < _CLOSE * (1 + np.abs(theta)))
        )
        per_step = doubtful.reshape(len(doubtful), -1).any(axis=1)
        steps = min(steps, int(np.argmax(per_step)) if per_step.any() else steps)
    return steps


def make_golden(graph: Graph, plan: Plan, golden: ArrayLike | None) -> Golden:
    """Inputs and expected outputs; cut before the first step in which rounding may decide a spike.

    Raises:
        UsageError: ``golden`` does not fit the graph.
    """
    x = _default_input(graph, plan) if golden is None else _given_input(graph, plan, golden)
    exact = _run(graph, plan, x, np.float64)
    notes: list[str] = []
    steps = x.shape[1] if plan.input.time else (plan.repeat or 1)
    if _spiking(graph):
        single = _run(graph, plan, x, np.float32)
        certain = _certain_steps(graph, exact, single, steps)
        if certain < steps:
            notes.append(f"golden vectors end after {certain} of {steps} steps: there rounding may decide a spike")
            steps = max(certain, 1)
            if plan.input.time:
                x = x[:, :steps]
                exact = _run(graph, plan, x, np.float64)
            elif certain:
                exact = _run(_shorter(graph, steps), plan, x, np.float64)
        if not any(np.any(exact.values[n.name]) for n in _spiking(graph)):
            notes.append("no spike occurs in the golden vectors: pass an input that drives the network")
    outputs = {}
    for o in plan.outputs:
        value = exact.outputs[o.name]
        outputs[o.name] = np.swapaxes(value, 0, 1) if o.time and not graph.batch_first else value
    return Golden(x, outputs, steps, tuple(notes))


def _shorter(graph: Graph, steps: int) -> Graph:
    return graph.replace_nodes(*(replace(n, steps=steps) for n in graph.nodes if isinstance(n, Repeat)))


def test_program_text(plan: Plan, name: str, golden: Golden, version: str) -> str:
    """The ``_test.c`` file."""
    allowed = TOLERANCE[plan.builder.options.arithmetic]
    sequence = any(o.time for o in plan.outputs)
    results = golden.steps if sequence else 1
    arrays = [array_text("golden_x", plan.input_type, golden.x)]
    comparisons: list[str] = []
    stepped: list[str] = []
    for o in plan.outputs:
        arrays.append(array_text(f"golden_{o.member}", "float", to_float32(golden.outputs[o.name], "the output")))
        count = golden.steps if o.time else 1
        tolerance = "0.0f" if o.spikes else f"{allowed}f"
        at = "t" if o.time else "RESULTS - 1u"
        want = f"golden_{o.member} + (sample * {count}u + {'t' if o.time else '0u'}) * {o.size}u"
        check = f'compare("{o.member}", y[{at}].{o.member}, {want}, {o.size}u, {tolerance});'
        if o.time:
            comparisons += ["for (uint32_t t = 0u; t < STEPS; ++t) {", f"    {check}", "}"]
            stepped.append(f'compare("{o.member}, stepped", one.{o.member}, y[t].{o.member}, {o.size}u, 0.0f);')
        else:
            comparisons.append(check)
    per_step = int(np.prod(plan.input.shape, dtype=np.int64)) if plan.input.time else 0
    return snippet(
        "test_main.c",
        name=name,
        version=version,
        tolerance=f"{allowed:g}",
        samples=len(golden.x),
        steps=golden.steps,
        results=results,
        arrays="".join(arrays),
        input_type=plan.input_type,
        per_sample=golden.x[0].size,
        per_step=per_step,
        comparisons="\n".join(f"        {c}" for c in comparisons),
        stepped="\n".join(f"            {s}" for s in stepped),
    )
