"""``sparsecirc verify``: does the program, the torch model and every export compute what the interpreter computes?"""

from __future__ import annotations

import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sparsecirc.cli._choices import Against, Format
from sparsecirc.cli._command import Command, ModelSpec
from sparsecirc.cli._console import Out, split_names, table
from sparsecirc.errors import MismatchError, UsageError, missing_extra

if TYPE_CHECKING:
    from sparsecirc._verify import VerifyReport
    from sparsecirc.cli._compare import Row
    from sparsecirc.cli._models import Loaded
    from sparsecirc.ir import Result

ROUNDING = 2.0**-16
"""Largest relative change of a weight by a layout that rounds."""


def verify(
    out: Out,
    spec: ModelSpec,
    against: Annotated[
        str, typer.Option("--against", help="Names with commas: interpret, torch, onnx, c, nir.")
    ] = "interpret",
    batch: Annotated[int, typer.Option("--batch", help="Samples.")] = 4,
    steps: Annotated[int, typer.Option("--seq-len", help="Time steps.")] = 64,
    seed: Annotated[int, typer.Option("--seed", help="Seed of the input where the model brings none.")] = 0,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="Also write the JSON document here.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace the output if it exists.")] = False,
) -> None:
    """Compare the program with the interpreter, and further computations of the same network; exit 4 if one differs."""
    from sparsecirc.cli._facts import mask_hash
    from sparsecirc.cli._models import load
    from sparsecirc.cli._outputs import check_free, record, write_json
    from sparsecirc.ir import interpret

    names = against_names(against)
    if output is not None:
        check_free(output, force)
    loaded = load(spec, out)
    x = loaded.input(batch=batch, steps=steps, seed=seed)
    reference = interpret(loaded.graph, x, keep_values=True)
    rows: list[Row] = []
    reports: list[VerifyReport] = []
    with out.progress("verify", len(names)) as advance:
        for name in names:
            rows += _against(loaded, name, x, reference, out, reports)
            advance(1, name.value)
    document = {
        "model": spec.text, "batch": batch, "seq_len": steps, "input": loaded.input_note,
        "mask_hash": mask_hash(loaded.graph, loaded.origin),
        "ok": all(r.ok for r in rows), "rows": [{**asdict(r), "ok": r.ok} for r in rows],
    }  # fmt: skip
    if reports:
        record(
            loaded.directory,
            "verify.json",
            {**reports[0].to_json(), **{key: document[key] for key in ("mask_hash", "ok", "rows")}},
        )
    if output is not None:
        write_json(output, document)
    out.data(document, _table(rows), f"{batch} samples of {steps} steps, {loaded.input_note}")
    bad = [r for r in rows if not r.ok]
    if bad:
        worst = bad[0]
        raise MismatchError(
            f"output '{worst.output}' differs between interpret and {worst.against}: largest difference "
            f"{worst.max_abs:.3g} (allowed {worst.tolerance:.3g}), {worst.mismatches} spikes that no tie explains"
        )
    out.suggest(f"sparsecirc bench {spec.text}")


def against_names(text: str) -> list[Against]:
    """The computations to compare with, each once.

    Raises:
        UsageError: an unknown name.
    """
    from difflib import get_close_matches

    known = [a.value for a in Against]
    names = split_names(text, "--against") or ()
    for name in names:
        if name not in known:
            near = get_close_matches(name, known, n=1)
            hint = f"did you mean '{near[0]}'? " if near else ""
            raise UsageError(f"--against '{name}' is unknown: {hint}There are {', '.join(known)}")
    return [Against(n) for n in dict.fromkeys(names)]


def _against(
    loaded: Loaded, name: Against, x: Any, reference: Result, out: Out, reports: list[VerifyReport]
) -> list[Row]:
    from sparsecirc.cli._compare import compare

    graph = loaded.graph
    if name is Against.INTERPRET:
        return _program_rows(loaded, x, reports)
    if name is Against.TORCH:
        from sparsecirc.cli._models import torch_model
        from sparsecirc.cli._runners import run_torch

        return compare(graph, "torch", reference, run_torch(torch_model(loaded, out), graph, x, reference))
    from sparsecirc.cli._export import write
    from sparsecirc.cli._runners import run_artefact, why_not
    from sparsecirc.ir import interpret

    format_ = Format(name.value)
    reason = why_not(format_)
    if reason is not None:
        package = "onnxruntime" if format_ is Format.ONNX else "a C compiler"
        if format_ is Format.ONNX:
            raise missing_extra(package, "onnx", "verify --against onnx")
        raise UsageError(f"verify --against c cannot run: {reason}")
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) if format_ is Format.C else Path(folder) / f"model.{format_.value}"
        made = write(graph, format_, target)
        cut, got = run_artefact(graph, format_, made, x)
        return compare(cut, name.value, reference if cut is graph else interpret(cut, x, keep_values=True), got)


def _program_rows(loaded: Loaded, x: Any, reports: list[VerifyReport]) -> list[Row]:
    """The program against the interpreter on the weights it packed, and those against the network's own."""
    from sparsecirc._verify import verify as verify_program
    from sparsecirc.cli._bench import program_of
    from sparsecirc.cli._compare import Row, rows_of

    program = program_of(loaded)
    original = None if loaded.graph is program.graph else loaded.graph
    report = verify_program(program, x, reference=original)
    reports.append(report)
    rows = rows_of(report, "program", program.tolerance)
    if report.rounding is not None:
        moved = report.rounding
        allowed = 0.0 if program.exact else ROUNDING if program.target.dtype == "f32" else float("inf")
        rows.append(Row("packing", "weights", moved, moved, moved, moved, 0, 0, 0, allowed))
    return rows


def _table(rows: list[Row]) -> Any:
    columns = ("against:", "output:", "max diff", "mean diff", "first 1/4", "last 1/4", "allowed", "spikes", "differ",
               "ties", "result:")  # fmt: skip
    return table(
        columns,
        [
            (r.against, r.output, f"{r.max_abs:.2e}", f"{r.mean_abs:.2e}", f"{r.first:.2e}", f"{r.last:.2e}",
             f"{r.tolerance:.1e}", r.spikes or "-", r.mismatches, r.ties, "PASS" if r.ok else "FAIL")
            for r in rows
        ],
    )  # fmt: skip


COMMAND = Command(
    verify,
    (
        "sparsecirc verify runs/gru --against interpret,torch",
        "sparsecirc verify demo:snn --against interpret,onnx,c,nir --seq-len 32",
        "sparsecirc verify program.safetensors --json",
    ),
)
