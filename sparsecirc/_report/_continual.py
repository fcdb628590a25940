"""The page of a continual run: what was forgotten, where, and what it cost."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from sparsecirc import __version__
from sparsecirc._mean import Mean
from sparsecirc._report._curves import Points, capacity, curves, heat, standalone
from sparsecirc._report._page import STYLE, table
from sparsecirc.errors import FileFormatError

_MORE = """
.grid { stroke: var(--line); } .track { fill: var(--line); } figure svg { max-width: 100%; }
td.best { font-weight: 700; } figcaption { margin-bottom: .3rem; }
"""
Document = Mapping[str, Any]
"""Content of a ``continual.json``."""
Found = Mapping[str, Sequence[Mapping[str, Any]]]
"""Results of each method, one per seed."""


CONTINUAL_FILE = "continual.json"
"""What ``sparsecirc continual`` keeps its figures in."""


def read_continual(path: Path) -> Document:
    """What ``sparsecirc continual`` wrote into a directory.

    Raises:
        FileFormatError: there is none, or it is something else.
    """
    file = path / CONTINUAL_FILE
    if not file.is_file():
        raise FileFormatError(f"{path} holds no {file.name}: expected an output directory of 'sparsecirc continual'")
    try:
        found = json.loads(file.read_text("utf-8"))
    except ValueError as error:
        raise FileFormatError(f"{file} is not valid JSON ({error}): run 'sparsecirc continual' again") from error
    if not isinstance(found, dict) or not found.get("results"):
        raise FileFormatError(f"{file} is not what 'sparsecirc continual' wrote: run it again")
    return found


def by_method(results: Sequence[Mapping[str, Any]]) -> Found:
    """Results of each method, in the order in which they were asked for."""
    found: dict[str, list[Mapping[str, Any]]] = {}
    for result in results:
        found.setdefault(result["method"], []).append(result)
    return found


def render_continual(documents: Sequence[Document]) -> str:
    """One page about one or several runs of ``sparsecirc continual``."""
    title = "Continual learning: " + ", ".join(d["name"] for d in documents)
    body = [
        f"<h1>{escape(title)}</h1>",
        f'<p class="soft">written by sparsecirc {escape(__version__)}; {escape(documents[0]["host"])}</p>',
    ]
    for document in documents:
        if len(documents) > 1:
            body.append(f"<h2>{escape(document['name'])}</h2>")
        body += _sections(document)
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{STYLE}{_MORE}</style></head><body>{''.join(body)}</body></html>\n"
    )


def figures(document: Document) -> dict[str, str]:
    """The drawings of the page as SVG files, by name."""
    found = by_method(document["results"])
    made = {"forgetting.svg": _so_far(found), "first-task.svg": _first(found)}
    for name, results in found.items():
        made[f"accuracy-{name}.svg"] = _matrix(name, results)
        if results[0]["capacity"] and results[0]["capacity"][-1]:
            made[f"capacity-{name}.svg"] = _capacity(results)
    if _has_activity(found):
        made |= {"spikes.svg": _activity(found, "spikes"), "synaptic-operations.svg": _activity(found, "synaptic_ops")}
    return {name: standalone(svg) for name, svg in made.items() if svg}


def _sections(document: Document) -> list[str]:
    found = by_method(document["results"])
    count = len(next(iter(found.values())))
    seeds = "one seed" if count == 1 else f"means over {count} seeds with 95 % intervals"
    parts = [
        f"<p>{escape(_sentence(document))}</p>",
        _summary(found),
        f'<p class="soft">{seeds}, in percent. ACC: mean accuracy over all tasks at the end. BWT: what was lost (-) '
        "since each task was learned. Forgetting: lost since its best. FWT: gained on a task before it came. Just "
        "learned: mean accuracy right after each task. Spikes and synaptic operations are per test sample, mean over "
        "tasks; seconds of processor time.</p>",
        "<h3>Forgetting</h3>",
        f'<div class="wide">{_so_far(found)}</div>',
        f'<div class="wide">{_first(found)}</div>',
        "<h3>Task by task</h3>",
        '<p class="soft">Accuracy on each task (columns) after each task was learned (rows), in percent.</p>',
        *(f"<figure><figcaption>{escape(m)}</figcaption><div class='wide'>{_matrix(m, r)}</div></figure>"
          for m, r in found.items()),
    ]  # fmt: skip
    bars = [(m, r) for m, r in found.items() if r[0]["capacity"] and r[0]["capacity"][-1]]
    if bars:
        parts += [
            "<h3>Capacity</h3>",
            '<p class="soft">Directions of each layer&#39;s input (for the ledger: connections) that tasks have taken; '
            "a piece per task. What is taken cannot be learned in any more.</p>",
            *(f"<p>{escape(m)}</p><div class='wide'>{_capacity(r)}</div>" for m, r in bars),
        ]
    if _has_activity(found):
        parts += [
            "<h3>Spikes and synaptic operations</h3>",
            '<p class="soft">Per test sample of each task, right after it was learned.</p>',
            f'<div class="wide">{_activity(found, "spikes")}</div>',
            f'<div class="wide">{_activity(found, "synaptic_ops")}</div>',
        ]
    shared = [(m, r) for m, r in found.items() if r[0]["overlap"]]
    if shared:
        parts += [
            "<h3>What tasks share</h3>",
            '<p class="soft">Overlap of the directions that carry 95 % of each layer&#39;s input, in percent, at the '
            "end: 0 where two tasks use other directions, 100 where one uses those of the other.</p>",
            *(f"<figure><figcaption>{escape(m)}, {escape(layer)}</figcaption><div class='wide'>"
              f"{_overlap(r, layer)}</div></figure>" for m, r in shared for layer in r[0]["overlap"]),
        ]  # fmt: skip
    command = document.get("command", "")
    if command:
        parts += ["<h3>Do it again</h3>", f"<pre>{escape(command)}</pre>"]
    return parts


def _sentence(document: Document) -> str:
    r = document["recipe"]
    sparse = f", {1 - r['density']:.0%} of the hidden connections absent" if r["density"] < 1 else ""
    size = "-".join(str(n) for n in (document["inputs"], *r["hidden"], document["outputs"]))
    few = f" of {document['train_samples']:,} samples" if document["train_samples"] else ""
    return (
        f"{r['data']}, {r['scenario']}: {r['tasks']} tasks{few} ({r['increment']}-incremental), {r['epochs']} "
        f"{'pass' if r['epochs'] == 1 else 'passes'} over each. {size} {r['neurons']} neurons{sparse}, "
        f"{document['steps']} steps, {r['learning']}, {r['optimizer']} at {r['learning_rate']:g}, batches of "
        f"{r['batch_size']}."
    )


def _point(values: Sequence[float]) -> tuple[float, float]:
    found = Mean.of(values)
    return found.mean, found.half


def _cell(values: Sequence[float], scale: float = 100.0, digits: int = 2) -> str:
    mean, half = _point(values)
    text = f"{scale * mean:,.{digits}f}"
    return text if math.isnan(half) else f"{text} ± {scale * half:,.{digits}f}"


def _summary(found: Found) -> str:
    head = (
        "method", "ACC", "BWT", "forgetting", "FWT", "just learned", "spikes", "synaptic ops", "seconds"
    )  # fmt: skip
    rows = []
    for method, results in found.items():
        active = [r["activity"] for r in results if r["activity"]]
        rows.append(
            (
                method,
                *(_cell([r[k] for r in results]) for k in ("acc", "bwt", "forgetting", "fwt", "learning_accuracy")),
                *(
                    _cell([statistics.fmean(a[k] for a in run) for run in active], 1.0, 0) if active else "-"
                    for k in ("spikes", "synaptic_ops")
                ),
                f"{statistics.fmean(r['seconds'] for r in results):,.1f}",
            )
        )
    return table(head, rows)


def _over_tasks(found: Found, value: Callable[[Sequence[Sequence[float]], int], float]) -> dict[str, Points]:
    series: dict[str, Points] = {}
    for method, results in found.items():
        tasks = len(results[0]["accuracy"])
        per_task = [[100 * value(r["accuracy"], t) for r in results] for t in range(tasks)]
        series[method] = [(float(t + 1), *_point(v)) for t, v in enumerate(per_task)]
    return series


def _so_far(found: Found) -> str:
    series = _over_tasks(found, lambda r, t: statistics.fmean(r[t][: t + 1]))
    return curves(series, x_label="tasks learned", y_label="mean accuracy on them (%)")


def _first(found: Found) -> str:
    return curves(_over_tasks(found, lambda r, t: r[t][0]), x_label="tasks learned", y_label="accuracy on task 1 (%)")


def _mean(matrices: Sequence[Sequence[Sequence[float | None]]]) -> list[list[float | None]]:
    out: list[list[float | None]] = []
    for lines in zip(*matrices, strict=True):
        cells = [[v for v in values if v is not None] for values in zip(*lines, strict=True)]
        out.append([statistics.fmean(c) if c else None for c in cells])
    return out


def _matrix(method: str, results: Sequence[Mapping[str, Any]]) -> str:
    values = _mean([r["accuracy"] for r in results])
    return heat(values, low=0.0, high=1.0, rows="after task", cols="on task", label=f"accuracy by task, {method}")


def _overlap(results: Sequence[Mapping[str, Any]], layer: str) -> str:
    values = _mean([r["overlap"][layer] for r in results])
    return heat(values, low=0.0, high=1.0, rows="task", cols="task", label=f"overlap of tasks in {layer}")


def _capacity(results: Sequence[Mapping[str, Any]]) -> str:
    last = results[0]["capacity"][-1]
    used = {
        name: [statistics.fmean(r["capacity"][t][name][0] for r in results) for t in range(len(results[0]["capacity"]))]
        for name in last
    }
    return capacity(used, {name: of for name, (_, of) in last.items()})


def _has_activity(found: Found) -> bool:
    return all(r["activity"] for results in found.values() for r in results)


def _activity(found: Found, key: str) -> str:
    series: dict[str, Points] = {}
    for method, results in found.items():
        per_task = [[r["activity"][t][key] for r in results] for t in range(len(results[0]["activity"]))]
        series[method] = [(float(t + 1), *_point(v)) for t, v in enumerate(per_task)]
    label = "spikes per sample" if key == "spikes" else "synaptic operations per sample"
    return curves(series, x_label="task", y_label=label, from_zero=True)
