"""`python -m benchmarks`: the table of sparse networks beside every engine that is installed."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from benchmarks import _machine as machine
from benchmarks import _results as results
from benchmarks._forward import Budget, blocks_case, gated_case, spiking_case, wavernn_case
from benchmarks._integer import integer_case
from benchmarks._networks import CELLS
from benchmarks._rows import Measured, noise, table
from benchmarks._streamed import streamed
from benchmarks._training import train_gru, train_gru_input, train_rlif, train_rlif_input
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
    "gru_block16": blocks_case("gru_block16", CELLS["gru"], 16),
    "rlif_event": spiking_case("rlif_event"),
    "train_gru": train_gru,
    "train_rlif": train_rlif,
    "wavernn": wavernn_case("wavernn"),
}
MORE: dict[str, Callable[[Budget], Iterator[Measured]]] = {
    "lstm_unstructured_int16": integer_case("lstm_unstructured_int16", CELLS["lstm"]),
    "gru_block8": blocks_case("gru_block8", CELLS["gru"], 8),
    "gru_streamed": streamed,
    "train_gru_input": train_gru_input,
    "train_rlif_input": train_rlif_input,
}
"""Measured in the full run, or if asked for."""


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print the table, write JSON; Ctrl-C prints and writes what was measured so far."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=(__doc__ or "").strip())
    parser.add_argument("--quick", action="store_true", help="shorter measurements: under 5 minutes on 2 cores")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the rows as a JSON list")
    parser.add_argument("--results", action="store_true", help=f"keep all that was measured under {results.RESULTS}")
    parser.add_argument("--case", action="append", choices=[*CASES, *MORE], help="measure only this; may be repeated")
    parser.add_argument(
        "--batch", action="append", type=int, metavar="B", help="batch of the forward cases, repeatable"
    )
    parser.add_argument(
        "--isa",
        choices=[isa.value for isa in available_isas()],
        help="instruction set of our kernels (default: the best)",
    )
    args = parser.parse_args(argv)
    if any(batch < 1 for batch in args.batch or ()):
        parser.error(f"--batch {min(args.batch)}: expected at least 1")
    kept = results.folder_of(Host.here(1)) / f"table{'-' + args.isa if args.isa else ''}.json" if args.results else None
    for path in (args.json, kept):
        if path is not None and (why := results.writable(path)):
            parser.error(why)
    import torch

    torch.set_num_threads(1)
    started = time.monotonic()

    def say(line: str) -> None:
        print(f"[{time.monotonic() - started:5.0f} s] {line}", file=sys.stderr, flush=True)

    seconds, rounds = (0.15, 9) if args.quick else (0.6, 25)
    budget = Budget(args.quick, seconds, rounds, say, Target.cpu(args.isa), tuple(args.batch or ()))
    parts: list[tuple[str, Measured]] = []
    code = 0
    every = CASES | MORE
    command = results.command_of("benchmarks", {name: getattr(args, name) for name in ("quick", "isa", "batch")})
    try:
        for name in args.case or (CASES if args.quick else every):
            parts.extend((name, group) for group in every[name](budget))
            if kept is not None:  # after every case: what is killed later has not been in vain
                results.write(kept, "table", command, results.with_earlier(kept, parts, list(every)))
    except KeyboardInterrupt:
        print("interrupted: what follows was measured before", file=sys.stderr)
        code = 130
    except SparsecircError as error:
        print(f"error: {error}", file=sys.stderr)
        code = error.exit_code
    measured = [group for _, group in parts]
    print(table(measured))
    print(f"one core reads {machine.described(machine.levels())}")
    print(Host.here(1).line())
    if warning := noise(measured):
        print(warning)
    if args.json is not None:
        rows = [row.to_json() for group in measured for row in group.rows]
        write_atomic(args.json, json.dumps(rows, indent=1, allow_nan=False).encode())
    return code


if __name__ == "__main__":
    sys.exit(main())
