"""Every case beside every engine that is installed; progress goes to stderr, the table to stdout."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks._cases import CASES, FULL, QUICK, Row, table
from benchmarks._training import TRAINING
from sparsecirc._bench import Host
from sparsecirc.errors import SparsecircError


def main(argv: Sequence[str] | None = None) -> int:
    """Run the cases; the exit code is 130 after Ctrl-C, with what was measured until then."""
    cases = {**CASES, **TRAINING}
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer sizes and shorter measurements, under 5 minutes")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the rows to FILE")
    parser.add_argument("--case", action="append", choices=list(cases), help="only this one; may be repeated")
    args = parser.parse_args(argv)
    effort = QUICK if args.quick else FULL
    rows: list[Row] = []
    code = 0
    try:
        for name in args.case or cases:
            print(f"{name} ...", file=sys.stderr, flush=True)
            try:
                rows += list(cases[name](effort))
            except SparsecircError as error:
                print(f"{name} skipped: {error}", file=sys.stderr)
    except KeyboardInterrupt:
        print("interrupted: what follows was measured until then", file=sys.stderr)
        code = 130
    print(table(rows))
    print(Host.here().line())
    if args.json is not None:
        args.json.write_text(json.dumps([r.to_json() for r in rows], indent=1))
    return code


if __name__ == "__main__":
    sys.exit(main())
