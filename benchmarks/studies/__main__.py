"""`python -m benchmarks.studies NAME`: run a study again, print its rows, write its page."""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.studies._chips import CHIP_STUDY
from benchmarks.studies._continual import CONTINUAL
from benchmarks.studies._exports import EXPORTS
from benchmarks.studies._footprint import FOOTPRINT
from benchmarks.studies._forms import ONNX_FORMS
from benchmarks.studies._g2g import DST_STUDY, G2G_STUDY
from benchmarks.studies._integers import INTEGERS
from benchmarks.studies._lattice import LATTICE
from benchmarks.studies._page import write_page
from benchmarks.studies._reber import REBER
from benchmarks.studies._run import Progress, run, wall_clock
from benchmarks.studies._structures import STRUCTURES
from benchmarks.studies._study import SEEDS, Setting, Study
from sparsecirc._files import write_atomic
from sparsecirc.errors import SparsecircError

STUDIES: dict[str, Study] = {
    study.name: study
    for study in (
        CHIP_STUDY,
        CONTINUAL,
        DST_STUDY,
        EXPORTS,
        FOOTPRINT,
        G2G_STUDY,
        INTEGERS,
        LATTICE,
        ONNX_FORMS,
        REBER,
        STRUCTURES,
    )
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run or go on with a study; Ctrl-C prints and writes what was reached."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.studies", description=(__doc__ or "").strip())
    parser.add_argument("study", choices=sorted(STUDIES))
    parser.add_argument("--quick", action="store_true", help="small data, one seed: under 3 minutes, means little")
    parser.add_argument("--seeds", default=None, metavar="N,N", help="default 0,1,2; with --quick 0")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the rows as a JSON list")
    parser.add_argument("--out", type=Path, metavar="DIR", help="write page, drawings and rows of a complete study")
    parser.add_argument("--work", type=Path, default=Path("runs/studies"), metavar="DIR", help="default runs/studies")
    parser.add_argument("--partial", action="store_true", help="with --out: write the page before all rows are there")
    parser.add_argument("--minutes", type=float, metavar="N", help="start no new task after this time; go on later")
    parser.add_argument("--fresh", action="store_true", help="forget what earlier runs of this study kept")
    args = parser.parse_args(argv)
    try:
        seeds = tuple(int(s) for s in args.seeds.split(",")) if args.seeds else ((0,) if args.quick else SEEDS)
    except ValueError:
        parser.error(f"--seeds {args.seeds}: expected whole numbers with commas, e.g. 0,1,2")
    study = STUDIES[args.study]
    folder = args.work / f"{study.name}-{'quick' if args.quick else 'full'}-{study.version}"
    if args.fresh:
        shutil.rmtree(folder, ignore_errors=True)
    started = wall_clock()

    def say(line: str) -> None:
        print(f"[{wall_clock() - started:5.0f} s] {line}", file=sys.stderr, flush=True)

    setting = Setting(args.quick, seeds, folder, say)
    progress = Progress()
    seconds = None if args.minutes is None else 60 * args.minutes
    code = 0
    try:
        run(study, setting, progress, seconds=seconds, clock=wall_clock)
    except KeyboardInterrupt:
        print("interrupted: the same command goes on from here", file=sys.stderr)
        code = 130
    except SparsecircError as error:
        print(f"error: {error}", file=sys.stderr)
        code = error.exit_code
    print(study.table(progress.rows))
    if args.json is not None:
        write_atomic(args.json, json.dumps([r.to_json() for r in progress.rows], indent=1).encode())
    if args.out is not None and (progress.complete or (args.partial and progress.rows)):
        write_page(study, setting, progress.rows, args.out)
        say(f"written to {args.out / study.name}.md")
    elif not progress.complete and code == 0:
        say(f"{progress.done} tasks are done, the time is over: the same command goes on from here")
    return code


if __name__ == "__main__":
    sys.exit(main())
