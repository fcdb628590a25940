"""`python -m benchmarks`: the table of sparse networks beside every engine that is installed."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from benchmarks._forward import Budget, blocks_case, gated_case, spiking_case, wavernn_case
from benchmarks._integer import integer_case
from benchmarks._networks import CELLS
from benchmarks._rows import Measured, table
from benchmarks._training import train_gru, train_rlif
from sparsecirc import Target
from sparsecirc._bench import Host
from sparsecirc._files import write_atomic
from sparsecirc._native import available_isas
from sparsecirc.errors import SparsecircError

CASES: dict[str, Callable[[Budget], Iterator[Measured]]] = {
    "gru_unstructured": gated_case("gru_unstructured", CELLS["gru"], batches=True),
    "lstm_unstructured": gated_case("lstm_unstructured", CELLS["lstm"]),
    "rnn_unstructured": gated_case("rnn_unstructured", CELLS["rnn"]),
    "gru_unstructured_int16": integer_case("gru_unstructured_int16", CELLS["gru"]),
    "gru_block16": blocks_case("gru_block16", CELLS["gru"]),
    "rlif_event": spiking_case("rlif_event"),
    "train_gru": train_gru,
    "train_rlif": train_rlif,
    "wavernn": wavernn_case("wavernn"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print the table, write JSON; Ctrl-C prints and writes what was measured so far."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=(__doc__ or "").strip())
    parser.add_argument("--quick", action="store_true", help="shorter measurements: under 5 minutes on 2 cores")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the rows as a JSON list")
    parser.add_argument("--case", action="append", choices=sorted(CASES), help="measure only this; may be repeated")
    parser.add_argument(
        "--isa",
        choices=[isa.value for isa in available_isas()],
        help="instruction set of our kernels (default: the best)",
    )
    args = parser.parse_args(argv)
    if args.json is not None and args.json.is_dir():
        parser.error(f"--json {args.json} is a folder: expected a file")
    import torch

    torch.set_num_threads(1)
    started = time.monotonic()

    def say(line: str) -> None:
        print(f"[{time.monotonic() - started:5.0f} s] {line}", file=sys.stderr, flush=True)

    budget = Budget(args.quick, 0.15 if args.quick else 0.6, 7 if args.quick else 15, say, Target.cpu(args.isa))
    measured: list[Measured] = []
    code = 0
    try:
        for name in args.case or CASES:
            for group in CASES[name](budget):
                measured.append(group)
    except KeyboardInterrupt:
        print("interrupted: what follows was measured before", file=sys.stderr)
        code = 130
    except SparsecircError as error:
        print(f"error: {error}", file=sys.stderr)
        code = error.exit_code
    print(table(measured))
    print(Host.here(1).line())
    if args.json is not None:
        rows = [row.to_json() for group in measured for row in group.rows]
        write_atomic(args.json, json.dumps(rows, indent=1, allow_nan=False).encode())
    return code


if __name__ == "__main__":
    sys.exit(main())
