"""The page itself: one HTML document that needs no network and no script."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from sparsecirc import __version__
from sparsecirc._report._collect import Run, collect
from sparsecirc._report._pareto import Point, pareto
from sparsecirc._report._pictures import bars, matrix, raster

STYLE = """
:root { color-scheme: light dark; --ink: #1c2430; --paper: #fff; --soft: #667; --line: #d5dae2; --ours: #0b7a5c;
  --peer: #8d9ab0; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e4e8ef; --paper: #14181f; --soft: #9aa5b5; --line: #333c4a; --ours: #35c99b; --peer: #5d6b80; } }
body { font: 16px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper); margin: 0 auto;
  padding: 1.5rem; max-width: 68rem; }
h1 { font-size: 1.7rem; margin: 0 0 .3rem; } h2 { margin: 2.4rem 0 .4rem; border-top: 2px solid var(--line);
  padding-top: 1.2rem; }
h3 { margin: 1.5rem 0 .3rem; font-size: 1.05rem; } p { margin: .4rem 0; } .soft { color: var(--soft);
  font-size: .9rem; }
.wide { overflow-x: auto; } table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { text-align: right; padding: .25rem .9rem .25rem 0; border-bottom: 1px solid var(--line);
  white-space: nowrap; }
th:first-child, td:first-child, .words td:last-child, .words th:last-child { text-align: left; }
td.text { text-align: left; } th { font-weight: 600; color: var(--soft); }
svg { width: 100%; min-width: 32rem; max-width: 42rem; font-size: 13px; } svg text { fill: var(--ink); }
.ours { fill: var(--ours); } .peer { fill: var(--peer); } .spread { stroke: var(--ink); stroke-width: 2; }
.frame { fill: none; stroke: var(--line); } .dots { fill: var(--ours); }
figure { display: inline-block; margin: .5rem 1.5rem .5rem 0; vertical-align: top; max-width: 100%; }
  figcaption { font-size: .85rem; color: var(--soft); }
.drawing { image-rendering: auto; }
img { max-width: 100%; height: auto; image-rendering: pixelated; border: 1px solid var(--line); background: #fff; }
code, pre { font-family: ui-monospace, monospace; font-size: .88rem; } pre { overflow-x: auto; }
.good { color: var(--ours); font-weight: 600; } .bad { color: #c0392b; font-weight: 600; }
"""


def render(directories: Sequence[Path], *, shown: Sequence[Path] | None = None) -> str:
    """One page about all networks below ``directories``.

    Args:
        directories: output directories of ours.
        shown: the paths to print in their place, where the files are still to be moved; the same number.

    Raises:
        FileFormatError: a directory is missing or holds no network of ours.
    """
    runs = [
        run
        for directory, name in zip(directories, shown or directories, strict=True)
        for run in collect(Path(directory), Path(name))
    ]
    body = [
        "<h1>sparsecirc report</h1>",
        f'<p class="soft">written by sparsecirc {escape(__version__)}; measured on {_host(runs)}</p>',
        _summary(runs),
        _trade(runs),
        *(_section(run) for run in runs),
    ]
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>sparsecirc report</title><style>{STYLE}</style></head><body>{''.join(body)}</body></html>\n"
    )


def table(head: Sequence[str], rows: Sequence[Sequence[object]], *, words: bool = False) -> str:
    """Numbers to the right, the first column to the left; with ``words`` the last one too."""
    top = "".join(f"<th>{escape(h)}</th>" for h in head)
    lines = "".join("<tr>" + "".join(f"<td>{escape(str(c))}</td>" for c in row) + "</tr>" for row in rows)
    kind = ' class="words"' if words else ""
    return f'<div class="wide"><table{kind}><thead><tr>{top}</tr></thead><tbody>{lines}</tbody></table></div>'


def _host(runs: Sequence[Run]) -> str:
    host: Mapping[str, Any] = next((r.bench["host"] for r in runs if r.bench and "host" in r.bench), {})
    if not host:
        return "nothing: no benchmark was run"
    versions = ", ".join(f"{k} {v}" for k, v in dict(host.get("versions", {})).items())
    parts = [str(host.get(k)) for k in ("cpu", "isa", "os") if host.get(k)]
    return escape(", ".join([*parts, f"{host.get('threads', 1)} thread", f"Python {host.get('python', '')}", versions]))


def _summary(runs: Sequence[Run]) -> str:
    rows = []
    for run in runs:
        accuracy = _accuracies(run)
        rows.append(
            (
                run.title,
                _percent(accuracy[0]),
                _percent(accuracy[1]),
                f"{run.row.get('density', run.graph.density):.1%}",
                "-" if run.packed is None else f"{run.packed[1] / 1024:.0f}",
                "-" if run.packed is None else f"{run.packed[0] / 1024:.0f}",
                "-" if not run.bench else f"{_ours(run.bench):.2f}",
                "-" if not run.bench or run.bench.get("speedup") is None else f"{run.bench['speedup']:.1f}x",
                "-" if not run.verify else "PASS" if run.verify["ok"] else "FAIL",
            )
        )
    head = (
        "network",
        "dense accuracy",
        "pruned",
        "density",
        "KiB dense",
        "KiB packed",
        "us/step",
        "over best dense",
        "verify",
    )
    return table(head, rows)


def _points(runs: Sequence[Run]) -> list[Point]:
    """Each network as compiled, and each network before pruning on its fastest dense engine."""
    ours: list[Point] = []
    dense: dict[tuple[float, int], Point] = {}  # several runs may start from the same network
    for run in runs:
        before, after = _accuracies(run)
        if not run.bench or run.packed is None or before is None or after is None:
            continue
        engines = {e["name"]: float(e["us_per_step"]) for e in run.bench["engines"]}
        if "sparsecirc" in engines:
            ours.append(Point(run.title, after, engines["sparsecirc"], run.packed[0], True))
        best, key = run.bench.get("best_dense"), (before, run.packed[1])
        if best in engines and (key not in dense or engines[best] < dense[key].us):
            dense[key] = Point(f"dense, {best}", before, engines[best], run.packed[1], False)
    return [*dense.values(), *ours]


def _trade(runs: Sequence[Run]) -> str:
    points = _points(runs)
    if not points:
        return ""
    note = (
        "Area: bytes of the weights. Filled: no other network here is at least as accurate, as fast and as small. "
        "Dense: the network before pruning, on the fastest dense engine that was measured."
    )
    return f'<h2>Accuracy, time and size</h2><div class="wide">{pareto(points)}</div><p class="soft">{note}</p>'


def _accuracies(run: Run) -> tuple[float | None, float | None]:
    if "accuracy_dense" in run.row:
        return run.row["accuracy_dense"], run.row["accuracy_pruned"]
    found = run.row.get("accuracy") or {}
    return (found.get("dense"), found.get("pruned")) if isinstance(found, Mapping) else (None, None)


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{value:.1%}"


def _ours(bench: Mapping[str, Any]) -> float:
    return next((float(e["us_per_step"]) for e in bench["engines"] if e["name"] == "sparsecirc"), float("nan"))


def _section(run: Run) -> str:
    parts = [f"<h2>{escape(run.title)}</h2>", f'<p class="soft">{escape(run.where)}</p>']
    parts += [f"<p>{escape(note)}</p>" for note in run.notes]
    if run.bench:
        batch, steps, rounds = run.bench["batch"], run.bench["steps"], run.bench["rounds"]
        parts += [
            "<h3>Time per step</h3>",
            f'<div class="wide">{bars(run.bench["engines"])}</div>',
            f'<p class="soft">batch {batch}, {steps} steps a call, median of {rounds} rounds; the line marks p10 to '
            "p90; in brackets: times the program. Every engine was first compared with the interpreter.</p>",
        ]
        parts += [f'<p class="soft">{escape(s["name"])}: {escape(s["reason"])}</p>' for s in run.bench["skipped"]]
    if run.verify:
        parts += ["<h3>Same results?</h3>", _verify(run.verify)]
    if run.row.get("exports"):
        parts += ["<h3>Exports, run and compared</h3>", _exports(run.row["exports"])]
    if run.explanation:
        parts += ["<h3>Kernels</h3>", _kernels(run)]
    if run.drawings:
        parts += ["<h3>Why these neurons</h3>", _drawings(run)]
    parts += ["<h3>Connections</h3>", _connections(run)]
    if run.raster:
        parts += [f"<h3>Spikes of layer {escape(str(run.raster['layer']))}</h3>"]
        parts.append(f'<div class="wide">{raster(run.raster)}</div>')
    parts += ["<h3>Do it again</h3>", _commands(run)]
    return "".join(parts)


def _verify(found: Mapping[str, Any]) -> str:
    word = '<span class="good">PASS</span>' if found["ok"] else '<span class="bad">FAIL</span>'
    text = f"largest difference from the float64 interpreter {found['max_abs_diff']:.1e}"
    if found["spikes"] or found["spike_mismatches"]:
        wrong, ties = found["spike_mismatches"], len(found["ties"])
        text += f"; {wrong} of {found['spikes']:,} spikes differ, {ties} decided by rounding"
    return f"<p>{word}: {text} ({found['steps']} steps, {found['batch']} samples)</p>"


def _exports(exports: Mapping[str, Mapping[str, Any]]) -> str:
    rows = [
        (
            name,
            f"{e['bytes'] / 1024:.0f}",
            f"{e['bytes_dense'] / 1024:.0f}",
            f"{e['bytes_gzip'] / 1024:.0f}",
            "-" if e["max_abs_diff"] is None else f"{e['max_abs_diff']:.1e}",
            e["ran_with"],
        )
        for name, e in exports.items()
    ]
    return table(("format", "KiB", "KiB dense", "KiB gzip", "largest difference", "ran with"), rows, words=True)


def _kernels(run: Run) -> str:
    assert run.explanation is not None
    rows = [
        (
            c.weight,
            f"{c.density:.3f}",
            f"{c.nbytes_dense / 1024:.1f}",
            f"{c.nbytes / 1024:.1f}",
            f"{c.padding:.2f}",
            "-" if c.us is None else f"{c.us:.2f}",
            f"{c.kernel}: {c.why}",
        )
        for c in run.explanation.rows
    ]
    return table(("weight", "density", "KiB dense", "KiB packed", "padding", "us", "kernel"), rows, words=True)


def _drawings(run: Run) -> str:
    """Drawings as images, so that their styles do not touch the page."""
    parts = []
    for name, svg in run.drawings.items():
        data = base64.b64encode(svg).decode()
        parts.append(
            f'<figure><img class="drawing" alt="{escape(name)}" src="data:image/svg+xml;base64,{data}">'
            f"<figcaption>{escape(name)}: the order of the neurons; each one and its reason "
            f"stands in {escape(name.replace('.svg', '.txt'))}</figcaption></figure>"
        )
    return "".join(parts)


def _connections(run: Run) -> str:
    before = {} if run.dense is None else {v.name: v for v in run.dense.weights()}
    figures = []
    for view in run.graph.weights():
        if view.pattern.nnz == view.value.size and view.name not in before:
            continue
        pictures = []
        if view.name in before:
            old = before[view.name]
            pictures.append((old.value, old.pattern.mask(), "before"))
        pictures.append((view.value, view.pattern.mask(), f"after: {view.pattern.nnz} of {view.value.size} live"))
        if view.pattern.nnz == view.value.size:
            continue
        figures += [
            f"<figure>{matrix(w, live, f'{view.name} {what}')}<figcaption>{escape(view.name)} "
            f"{view.value.shape[0]} x {view.value.shape[1]}, {escape(what)}</figcaption></figure>"
            for w, live, what in pictures
        ]
    return "".join(figures) or "<p>nothing was pruned</p>"


def _commands(run: Run) -> str:
    lines = [
        f"sparsecirc verify {run.where}",
        f"sparsecirc bench {run.where}",
        f"sparsecirc export {run.where} --format onnx",
    ]
    return f"<pre>{escape(chr(10).join(lines))}</pre>"
