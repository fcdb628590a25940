"""``sparsecirc inspect``: what is in a model, weight by weight."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from sparsecirc.cli._command import Command, ModelSpec
from sparsecirc.cli._console import Out, human_bytes, human_count, table
from sparsecirc.errors import UsageError

if TYPE_CHECKING:
    from sparsecirc._cost import WhatIf
    from sparsecirc.cli._facts import Activity
    from sparsecirc.cli._models import Loaded
    from sparsecirc.ir import Graph


def inspect(
    out: Out,
    spec: ModelSpec,
    per_gate: Annotated[bool, typer.Option("--per-gate", help="One row per gate of stacked weights.")] = False,
    what_if: Annotated[
        str | None,
        typer.Option("--what-if", metavar="S,...", help="Predict the time of each layer at these sparsities."),
    ] = None,
    pattern: Annotated[
        str, typer.Option("--pattern", help="What --what-if prunes to: unstructured or block:16x1.")
    ] = "unstructured",
    steps: Annotated[int, typer.Option("--seq-len", help="Time steps of the input that activity is measured on.")] = 16,
    seed: Annotated[int, typer.Option("--seed", help="Seed of that input where the model brings none.")] = 0,
) -> None:
    """Show every weight: shape, live connections, gates, detected pattern, bytes, operations and predicted time."""
    from sparsecirc.cli._facts import graph_warnings, mask_hash, measure_activity, weight_rows
    from sparsecirc.cli._models import load

    wanted = _sparsities(what_if, pattern)
    loaded = load(spec, out)
    graph = loaded.graph
    activity = measure_activity(graph, loaded.input(batch=2, steps=steps, seed=seed))
    rows = weight_rows(graph, activity, per_gate=per_gate)
    totals = {
        key: sum(r[key] for r in rows)
        for key in ("size", "nnz", "bytes_dense", "bytes_live", "macs_dense_per_step", "macs_per_step")
    }
    totals["synops_per_step"] = sum(r["synops_per_step"] or 0 for r in rows)
    totals["density"] = totals["nnz"] / totals["size"] if totals["size"] else 0.0
    warnings = [*graph_warnings(graph), *loaded.notes]
    document = {
        "model": spec.text,
        "mask_hash": mask_hash(loaded.graph, loaded.origin),
        "spiking": graph.spiking,
        "batch_first": graph.batch_first,
        "dt": graph.dt,
        "inputs": [{"name": n.name, "shape": list(n.shape), "time": n.time} for n in graph.inputs],
        "outputs": dict(graph.outputs),
        "nodes": [{"name": n.name, "kind": n.kind, "inputs": list(n.inputs)} for n in graph.nodes],
        "weights": rows,
        "totals": totals,
        "activity": {"input": loaded.input_note, "rates": activity.rates},
        "warnings": warnings,
    }
    shown = [_tree(rows, totals), _summary(loaded, activity.rates)]
    if wanted is not None:
        predicted = _predict(graph, activity, wanted, pattern)
        document["what_if"] = predicted.to_json()
        head, cells = predicted.rows()
        shown += [table([f"{name}:" for name in head], cells), "\n".join(predicted.notes())]
    out.data(document, *shown)
    for warning in warnings:
        out.warn(warning)
    if graph.density == 1.0:
        out.suggest(f"sparsecirc prune {spec.text} --sparsity 0.9 -o runs/{loaded.name}")
    else:
        out.suggest(f"sparsecirc compile {spec.text}")


def _sparsities(text: str | None, pattern: str) -> tuple[float, ...] | None:
    """The numbers of ``--what-if``; ``None`` where nothing is predicted.

    Raises:
        UsageError: no numbers in [0, 1), or a pattern that fixes the sparsity itself.
    """
    from sparsecirc.cli._recipe import numbers, pattern_named
    from sparsecirc.patterns import Ranked

    if text is None:
        if pattern != "unstructured":
            raise UsageError("--pattern says what --what-if prunes to: add --what-if .5,.9,.95")
        return None
    if not isinstance(pattern_named(pattern), Ranked):
        raise UsageError(f"pattern '{pattern}' fixes the sparsity itself: expected unstructured or block:ROWSxCOLS")
    return numbers(text, "--what-if")


def _predict(graph: Graph, activity: Activity, sparsities: tuple[float, ...], pattern: str) -> WhatIf:
    from sparsecirc._cost import what_if as predict
    from sparsecirc.cli._recipe import pattern_named

    rates = {name: float(events.mean()) for name, events in activity.events.items() if events.size}
    return predict(graph, sparsities, pattern=pattern_named(pattern), rates=rates)


def _tree(rows: list[dict[str, Any]], totals: dict[str, Any]) -> Any:
    columns = ("weight:", "shape", "nnz", "density", "pattern:", "bytes", "live", "MAC/step", "dense", "SynOp/step")
    shown: list[tuple[Any, ...]] = []
    node = None
    for r in rows:
        if r["node"] != node:
            node = r["node"]
            shown.append((f"{node}  {r['kind']}", *[""] * 9))
        shown.append(
            (
                "  " + r["name"].removeprefix(f"{node}."),
                "x".join(str(n) for n in r["shape"]),
                f"{r['nnz']:,}",
                f"{r['density']:.1%}",
                r["pattern"],
                human_bytes(r["bytes_dense"]),
                human_bytes(r["bytes_live"]),
                human_count(r["macs_per_step"]) + ("" if r["per_step"] else " *"),
                human_count(r["macs_dense_per_step"]),
                "-" if r["synops_per_step"] is None else human_count(round(r["synops_per_step"], 1)),
            )
        )
    total = (
        "total",
        "",
        f"{totals['nnz']:,}",
        f"{totals['density']:.1%}",
        "",
        human_bytes(totals["bytes_dense"]),
        human_bytes(totals["bytes_live"]),
        human_count(totals["macs_per_step"]),
        human_count(totals["macs_dense_per_step"]),
        human_count(round(totals["synops_per_step"], 1)) if totals["synops_per_step"] else "-",
    )
    return table(columns, [*shown, total])


def _summary(loaded: Loaded, rates: dict[str, float]) -> str:
    graph = loaded.graph
    lines = [
        "live: bytes of the live values alone; *: once per sequence, not per step",
        f"inputs: {', '.join(f'{n.name} {n.shape}' for n in graph.inputs)}; outputs: {', '.join(graph.outputs)}; "
        f"layout {'(B, T, ...)' if graph.batch_first else '(T, B, ...)'}"
        + (f"; dt {graph.dt:g} s" if graph.dt is not None else ""),
    ]
    if rates:
        shown = ", ".join(f"{name} {rate:.3f}" for name, rate in rates.items())
        lines.append(f"spikes per unit and step on {loaded.input_note}: {shown}")
    return "\n".join(lines)


COMMAND = Command(
    inspect,
    (
        "sparsecirc inspect demo:gru",
        "sparsecirc inspect runs/gru --per-gate",
        "sparsecirc inspect demo:gru --what-if .5,.9,.95",
        "sparsecirc inspect model.safetensors --arch mynet:build --json",
    ),
)
