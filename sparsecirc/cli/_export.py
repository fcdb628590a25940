"""``sparsecirc export``: ONNX, C99, NIR or files for simulators, their sizes and errors, and what readers will do."""

from __future__ import annotations

from dataclasses import replace
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sparsecirc.cli._choices import (
    CActivations,
    CArithmetic,
    CIndex,
    CNeurons,
    CWeights,
    Format,
    OnnxConsumer,
    OnnxForm,
)
from sparsecirc.cli._command import Command, ModelSpec
from sparsecirc.cli._console import Out, human_bytes, table
from sparsecirc.errors import MismatchError, UsageError

if TYPE_CHECKING:
    from sparsecirc.cli._models import Loaded
    from sparsecirc.export import Export
    from sparsecirc.export.c import COptions

SUFFIX = {Format.ONNX: ".onnx", Format.NIR: ".nir"}
"""Of formats that are one file; the others are directories."""


def export(
    out: Out,
    spec: ModelSpec,
    format_: Annotated[Format, typer.Option("--format", "-f", help="What to write.", show_default=False)],
    output: Annotated[
        Path | None,
        typer.Option(
            "-o", "--output", help="Directory, or a .onnx or .nir file. Default: FORMAT in MODEL's directory."
        ),
    ] = None,
    check: Annotated[bool, typer.Option("--check/--no-check", help="Run the artefact and compare it.")] = True,
    allow_approximate: Annotated[
        bool, typer.Option("--allow-approximate", help="NIR: write what the format can only approximate.")
    ] = False,
    name: Annotated[str, typer.Option("--name", help="C: prefix of every symbol.")] = "net",
    lengths: Annotated[
        bool, typer.Option("--lengths", help="ONNX: also take the valid steps of each sample, input 'lengths'.")
    ] = False,
    form: Annotated[
        OnnxForm, typer.Option("--form", help="ONNX: how layers are written; packed: small file; custom: our kernels.")
    ] = OnnxForm.AUTO,
    consumer: Annotated[
        OnnxConsumer, typer.Option("--consumer", help="ONNX: who will read the file; form auto chooses for it.")
    ] = OnnxConsumer.ANY,
    python: Annotated[
        Path | None,
        typer.Option("--python", help="brian2, lava: the interpreter that has the simulator, to run the artefact."),
    ] = None,
    weights: Annotated[
        CWeights,
        typer.Option(
            "--weights", help="C: number type of the weights; integers have a scale per row. ONNX: f32 or int8."
        ),
    ] = CWeights.F32,
    index: Annotated[
        CIndex, typer.Option("--index", help="C: how sparse weights say where they belong; auto takes the smallest.")
    ] = CIndex.AUTO,
    arithmetic: Annotated[
        CArithmetic, typer.Option("--arithmetic", help="C: int8 rounds the inputs of products, and sums integers.")
    ] = CArithmetic.FLOAT,
    activations: Annotated[
        CActivations, typer.Option("--activations", help="C: fast has tanh and sigmoid within 1.5e-6, without libm.")
    ] = CActivations.EXACT,
    neurons: Annotated[
        CNeurons, typer.Option("--neurons", help="C: membranes in single precision, or in 32-bit integers.")
    ] = CNeurons.FLOAT,
    footprint: Annotated[
        bool, typer.Option("--footprint", help="C: also compile for Cortex-M cores and print sections and stack.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace the output if it exists.")] = False,
) -> None:
    """Write the network for another runtime, run what was written, and compare."""
    from sparsecirc.cli._models import load
    from sparsecirc.cli._outputs import check_free, record_export, staged, staged_files, write_manifest
    from sparsecirc.cli._runners import check_artefact

    if footprint and format_ is not Format.C:
        raise UsageError(f"--footprint is for --format c: {format_.value} files are not compiled")
    loaded = load(spec, out)
    path = _path(loaded, format_, output)
    check_free(path, force)
    rounding = None
    if format_ is Format.ONNX and weights is CWeights.INT8:
        form, weights = _packing(form, consumer), CWeights.F32
        loaded, rounding = _rounded(loaded)
    graph = loaded.graph
    c = c_options(format_, weights, index, arithmetic, activations, neurons)
    suffix = SUFFIX.get(format_)
    single = suffix is not None and path.suffix == suffix
    with (staged_files if single else staged)(path, force=force) as stage:
        target = stage / path.name if single else stage if suffix is None else stage / f"model{suffix}"
        made = write(
            graph,
            format_,
            target,
            allow_approximate=allow_approximate,
            name=name,
            lengths=lengths,
            c=c,
            form=form,
            consumer=consumer,
        )
        if rounding is not None:
            made = replace(made, notes=(*made.notes, rounding))
        found = check_artefact(loaded, format_, made, python, c) if check else None
        document = {"model": spec.text, **_moved(made, stage, path.parent if single else path)}
        document["check"] = found
        if footprint:
            document["footprint"] = _footprint(made)
        if not single:
            facts = {k: v for k, v in document.items() if k not in ("paths", "format")}
            write_manifest(stage, "export", runtime=format_.value, **facts)
    record_export(loaded.directory, format_.value, _facts(document))
    out.data(document, *_shown(document))
    if found is not None and not found["ok"]:
        raise MismatchError(
            f"the {format_.value} artefact differs from the network by {found['max_abs_diff']:.3g} "
            f"(allowed {found['tolerance']:.3g}) with {found['spike_mismatches']} unexplained spikes: it is kept in "
            f"{path}"
        )
    if format_ in (Format.ONNX, Format.NIR, Format.C):
        out.suggest(f"sparsecirc verify {spec.text} --against {format_.value}")


def _path(loaded: Loaded, format_: Format, output: Path | None) -> Path:
    if output is not None:
        wrong = output.suffix in (".onnx", ".nir") and output.suffix != SUFFIX.get(format_)
        if wrong:
            raise UsageError(f"output {output} does not fit --format {format_.value}: expected a directory or "
                             f"'{SUFFIX.get(format_) or 'no extension'}'")  # fmt: skip
        return output
    if loaded.directory is None:
        raise UsageError(
            f"output is missing: add -o, e.g. -o {loaded.name}{SUFFIX.get(format_) or '_' + format_.value}"
        )
    return loaded.directory / format_.value


def _packing(form: OnnxForm, consumer: OnnxConsumer) -> OnnxForm:
    """The ONNX form that stores bytes, as far as the consumer reads them.

    Raises:
        UsageError: one was asked for that does not.
    """
    if form in (OnnxForm.OP, OnnxForm.SCAN):
        raise UsageError(f"--weights int8 needs --form packed or custom: form '{form.value}' stores float32")
    return OnnxForm.PACKED if form is OnnxForm.AUTO and consumer is OnnxConsumer.ANY else form


def _rounded(loaded: Loaded) -> tuple[Loaded, str]:
    """The model with its weights rounded to bytes, and what that changed."""
    from sparsecirc.export.onnx import round_int8

    graph, moved = round_int8(loaded.graph)
    note = f"weights are rounded to bytes: each moved by up to {moved:.2%} of the largest of its row; the check "
    return replace(loaded, stored=graph), f"{note}compares with the rounded network"


def write(
    graph: Any,
    format_: Format,
    path: Path,
    *,
    allow_approximate: bool = False,
    name: str = "net",
    lengths: bool = False,
    c: COptions | None = None,
    form: OnnxForm = OnnxForm.AUTO,
    consumer: OnnxConsumer = OnnxConsumer.ANY,
) -> Export:
    """Write ``graph`` to ``path``, a directory for C, else a file."""
    if format_ is Format.ONNX:
        from sparsecirc.export.onnx import export_onnx

        return export_onnx(graph, path, lengths=lengths, form=form.value, consumer=consumer.value)
    only_onnx = {
        "--lengths": lengths, "--form": form is not OnnxForm.AUTO, "--consumer": consumer is not OnnxConsumer.ANY
    }  # fmt: skip
    for option in (k for k, given in only_onnx.items() if given):
        raise UsageError(f"{option} is for --format onnx: {format_.value} has no such choice")
    if format_ is Format.NIR:
        from sparsecirc.export.nir import export_nir

        return export_nir(graph, path, allow_approximate=allow_approximate)
    if format_ is not Format.C:
        from sparsecirc import hardware

        exporter = {
            Format.BRIAN2: hardware.export_brian2, Format.LAVA: hardware.export_lava, Format.XYLO: hardware.export_xylo,
            Format.PYNN: hardware.export_pynn, Format.NENGO_LOIHI: hardware.export_nengo_loihi,
        }[format_]  # fmt: skip
        return exporter(graph, path)
    from sparsecirc.export.c import export_c

    return export_c(graph, path, name=name, options=c)


def c_options(
    format_: Format,
    weights: CWeights,
    index: CIndex,
    arithmetic: CArithmetic,
    activations: CActivations,
    neurons: CNeurons,
) -> COptions | None:
    """The options of a C export, or ``None`` for the other formats.

    Raises:
        UsageError: an option of C for another format, or two that exclude each other.
    """
    if format_ is not Format.C:
        given: tuple[tuple[str, Enum, Enum], ...] = (
            ("--weights", weights, CWeights.F32),
            ("--index", index, CIndex.AUTO),
            ("--arithmetic", arithmetic, CArithmetic.FLOAT),
            ("--activations", activations, CActivations.EXACT),
            ("--neurons", neurons, CNeurons.FLOAT),
        )
        wrong = [f"{option} {value.value}" for option, value, standard in given if value is not standard]
        if wrong:
            raise UsageError(f"{wrong[0]} is for --format c: {format_.value} files hold float32 weights")
        return None
    from sparsecirc.export.c import Activations, Arithmetic, COptions, Index, Neurons, Weights

    return COptions(
        Weights(weights.value),
        Index(index.value),
        Arithmetic(arithmetic.value),
        Activations(activations.value),
        Neurons(neurons.value),
    )


def _footprint(made: Export) -> list[dict[str, Any]]:
    """What the code takes on each core."""
    from sparsecirc.export.c import CORES, footprint_c

    return [footprint_c(made, core).to_json() for core in CORES]


def _moved(made: Export, stage: Path, final: Path) -> dict[str, Any]:
    """The export's facts with its paths where they end up."""
    paths = [final / p.relative_to(stage) for p in made.paths]
    return {**made.to_json(), "paths": [p.as_posix() for p in paths]}


def _facts(document: dict[str, Any]) -> dict[str, Any]:
    """What a report says about an export."""
    check = document["check"] or {"ran_with": None, "why": "not checked"}
    return {
        **{k: document[k] for k in ("bytes", "bytes_dense", "bytes_gzip")},
        "max_abs_diff": check.get("max_abs_diff"),
        "spike_mismatches": check.get("spike_mismatches", 0),
        "ran_with": check["ran_with"] or f"nothing: {check['why']}",
    }


def _shown(document: dict[str, Any]) -> list[Any]:
    rows = [("file", human_bytes(document["bytes"])), ("dense", human_bytes(document["bytes_dense"])),
            ("gzip", human_bytes(document["bytes_gzip"]))]  # fmt: skip
    check = document["check"]
    if check is None:
        ran = "not checked"
    elif check["ran_with"] is None:
        ran = f"not run: {check['why']}"
    else:
        ran = (
            f"max difference {check['max_abs_diff']:.3g}, unexplained spikes {check['spike_mismatches']} "
            f"({check['ran_with']}): {'PASS' if check['ok'] else 'FAIL'}"
        )
    if check is not None and check.get("rounding") is not None:
        ran += f"; integers and fast activations move the network by {check['rounding']:.3g}"
    lines = [f"{document['format']} ({document['form']}): {', '.join(document['paths'])}"]
    notes = [f"note: {n}" for n in document["notes"]]
    parts = ["\n".join(lines), table(("size:", "bytes"), rows), "\n".join([ran, *notes])]
    if "footprint" in document:
        columns = ("core", "text", "rodata", "data", "bss", "state", "stack")
        body = [tuple(row["core"] if c == "core" else f"{row[c]:,}" for c in columns) for row in document["footprint"]]
        parts.insert(2, table(("bytes:", *columns[1:]), body))
    return parts


COMMAND = Command(
    export,
    (
        "sparsecirc export runs/gru --format onnx --form custom",
        "sparsecirc export demo:snn --format nir -o snn.nir",
        "sparsecirc export runs/gru --format c -o gru_c --json",
        "sparsecirc export runs/snn --format brian2 --python .emulators/brian2/bin/python",
        "sparsecirc export runs/gru --format c --weights int8 --arithmetic int8 --activations fast --footprint -o g8",
    ),
)
