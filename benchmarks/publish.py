"""`python -m benchmarks.publish`: kept results as the tables of README.md and docs/benchmarks.md, and as pictures."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks import _curves as curves
from benchmarks import _goals as goals
from benchmarks import _machine as machine
from benchmarks import _results as results
from benchmarks._rows import Measured, Row
from sparsecirc._bench import Host
from sparsecirc._cost import Bandwidth
from sparsecirc._files import write_atomic

ROOT = Path(__file__).resolve().parent.parent
README, PAGE = ROOT / "README.md", ROOT / "docs" / "benchmarks.md"
BEGIN, END = "<!-- measured: begin -->", "<!-- measured: end -->"
PICTURES = {
    "sparsity": "What sparsity gives",
    "break_even": "Where it begins to pay",
    "size": "By size",
    "batch": "By batch",
    "length": "By length of a call",
    "rate": "By spike rate",
    "growth": "Growing at 32 live connections a unit",
    "growth_memory": "The same, in memory",
}
NOT_PEERS = ("sparsecirc_csr",)
SPARSE = (*goals.LOOPS, "deepsparse")


def main(argv: Sequence[str] | None = None) -> int:
    """Rewrite what stands between the marks in both files."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.publish", description=(__doc__ or "").strip())
    parser.add_argument("--machine", metavar="NAME", help=f"a folder of {results.RESULTS} (default: this machine's)")
    args = parser.parse_args(argv)
    folder = results.RESULTS / args.machine if args.machine else results.folder_of(Host.here(1))
    if not (folder / "table.json").is_file():
        parser.error(f"{folder} holds no table.json: run 'python -m benchmarks --results' first")
    points = sweep_points(folder)
    if points:
        host = Host(**results.read(folder / "sweeps.json")[0]["host"])
        for name, picture in curves.pictures(points, host).items():
            write_atomic(folder / f"{name}.svg", picture.encode())
    for path, text in ((README, readme(folder)), (PAGE, page(folder))):
        write_atomic(path, between(path.read_text(), text).encode())
        print(f"wrote {path}")
    return 0


def between(document: str, text: str) -> str:
    """``document`` with ``text`` between its marks."""
    before, _, rest = document.partition(BEGIN)
    _, found, after = rest.partition(END)
    if not found:
        raise ValueError(f"the document has no {BEGIN} ... {END}")
    return f"{before}{BEGIN}\n{text}\n{END}{after}"


def sweep_points(folder: Path) -> list[curves.Point]:
    """Points of the sweeps, or none."""
    path = folder / "sweeps.json"
    if not path.is_file():
        return []
    return [(of.partition(":")[0], float(of.partition(":")[2]), group) for of, group in results.read(path)[1]]


def readme(folder: Path) -> str:
    """One line for every configuration: ours, the best dense engine, the best sparse one of others."""
    data, groups = results.read(folder / "table.json")
    host = Host(**data["host"])
    lines = [
        "Microseconds per time step of the whole batch; in brackets our speed-up over that engine. One core of an",
        f"{host.cpu} ({host.isa}), one thread, sparsecirc at `{host.commit}`; `{folder.relative_to(ROOT).as_posix()}`.",
        "",
        "| case | units | sparse | batch | ours | best dense engine | best sparse engine of others |",
        "|---|---|---|---|---|---|---|",
    ]
    for _, group in groups:
        if line := _line(group):
            lines.append(line)
    return "\n".join(lines)


def _line(group: Measured) -> str:
    rows = {row.engine: row for row in group.rows if not row.engine.endswith("_hot") and row.engine not in NOT_PEERS}
    own = [rows.pop(name) for name in ("sparsecirc", "sparsecirc_int16", "sparsecirc_int8") if name in rows]
    if not own:
        return ""
    ours = min(own, key=lambda row: row.us_per_step)
    sparse = [row for name, row in rows.items() if name in SPARSE]
    integers = ours.engine != "sparsecirc"
    dense = [row for name, row in rows.items() if name not in SPARSE and ("_int" in name) <= integers]
    return (
        f"| {ours.case} | {ours.n} | {1 - ours.density:.0%} | {ours.batch} | **{ours.us_per_step:.1f}**"
        f"{' ' + ours.engine.removeprefix('sparsecirc_') if integers else ''} | {_best(ours, dense)} "
        f"| {_best(ours, sparse)} |"
    )


def _best(ours: Row, others: Sequence[Row]) -> str:
    if not others:
        return "-"
    best = max(others, key=lambda row: row.speedup_vs_best_dense)
    return f"{best.us_per_step:.1f} {best.engine} ({ours.speedup_vs_best_dense / best.speedup_vs_best_dense:.1f}x)"


def page(folder: Path) -> str:
    """Goals, pictures, and every row with its notes."""
    data, groups = results.read(folder / "table.json")
    narrow = folder / "table-avx2.json"
    avx2 = results.read(narrow)[1] if narrow.is_file() else []
    level = machine.described(tuple(Bandwidth(**m) for m in data["memory"]))
    host = Host(**data["host"])
    wanted = ("torch", "onnxruntime", "openvino", "scipy", "torch_sparse", "snntorch", "norse", "spikingjelly")
    versions = ", ".join(f"{name} {host.versions[name]}" for name in wanted if name in host.versions)
    lines = [
        f"Measured on {data['date']} on one core of an {host.cpu} ({host.isa}), one thread; sparsecirc at",
        f"`{host.commit}`, Python {host.python}, {versions}.",
        f"The core reads {level}. Made from `{folder.relative_to(ROOT).as_posix()}`.",
        "",
        "| goal | measured | |",
        "|---|---|---|",
        *(
            f"| {v.goal} | {v.measured} | {v.word} |"
            for v in goals.verdicts([g for _, g in groups], [g for _, g in avx2])
        ),
        "",
    ]
    shown = [name for name in PICTURES if (folder / f"{name}.svg").is_file()]
    lines += [f"![{PICTURES[name]}](../{(folder / name).relative_to(ROOT).as_posix()}.svg)" for name in shown]
    lines += ["", f"### `{data['command']}`", "", *_rows(groups)]
    if avx2:
        lines += ["", "### The same with our kernels held to AVX2", "", *_rows(avx2)]
    return "\n".join(lines)


def _rows(groups: Sequence[tuple[str, Measured]]) -> list[str]:
    head = "| engine | us/step | 80 % of rounds within | speed-up | max diff | bytes | GB/s |"
    lines: list[str] = []
    for _, group in groups:
        if group.rows:
            r = group.rows[0]
            lines += [
                "",
                f"**{r.case}**, N = {r.n}, {r.nnz} live ({r.density:.1%}), batch {r.batch}, T = {r.seq_len}",
                "",
            ]
            lines += [head, "|---|---|---|---|---|---|---|"]
        lines += [
            f"| {r.engine} | {r.us_per_step:.2f} | {r.low:.2f} to {r.high:.2f} | {r.speedup_vs_best_dense:.2f} "
            f"| {r.max_abs_diff:.1e} | {r.bytes} | {f'{r.rate:.0f}' if r.batch == 1 else '-'} |"
            for r in group.rows
        ]
        lines += ["", *(f"- {note}" for note in group.notes)]
    return lines[1:]


if __name__ == "__main__":
    sys.exit(main())
