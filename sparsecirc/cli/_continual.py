"""``sparsecirc continual``: one task after another, and what is left of the first."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sparsecirc.cli._command import Command
from sparsecirc.cli._console import Out, split_names, table
from sparsecirc.cli._stream import DEFAULT, OptimizerName, Told
from sparsecirc.errors import UsageError

if TYPE_CHECKING:
    from sparsecirc._mean import Mean
    from sparsecirc.cli._continual_run import Session
    from sparsecirc.cli._stream import Stream


def continual(
    out: Out,
    recipe: Annotated[
        str, typer.Argument(metavar="[RECIPE]", help="A name of 'recipes ls', or a YAML file.", show_default=True)
    ] = DEFAULT,
    method: Annotated[
        str | None,
        typer.Option("--method", "-m", metavar="NAME,...", help="Methods to compare: hlop,finetune,ewc, hlop+replay."),
    ] = None,
    tasks: Annotated[int | None, typer.Option("--tasks", help="How many.")] = None,
    seeds: Annotated[
        str | None, typer.Option("--seeds", "--seed", metavar="N,...", help="One run each: 0,1,2. Default 0.")
    ] = None,
    increment: Annotated[
        Told | None, typer.Option("--increment", help="What the network is told of a split stream.")
    ] = None,
    train: Annotated[int | None, typer.Option("--train", help="Most training samples of each task.")] = None,
    test: Annotated[int | None, typer.Option("--test", help="Most test samples of each task.")] = None,
    hidden: Annotated[str | None, typer.Option("--hidden", metavar="N,...", help="Neurons of each layer.")] = None,
    density: Annotated[
        float | None, typer.Option("--density", help="Share of live connections of the hidden layers.")
    ] = None,
    optimizer: Annotated[OptimizerName | None, typer.Option("--optimizer", help="sgd or adam.")] = None,
    learning_rate: Annotated[float | None, typer.Option("--learning-rate", help="Of the optimizer.")] = None,
    epochs: Annotated[int | None, typer.Option("--epochs", help="Passes over each task.")] = None,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="Directory. Default runs/NAME.")] = None,
    save: Annotated[
        bool, typer.Option("--save/--no-save", help="Keep the networks of the first seed, for compile and export.")
    ] = True,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with an interrupted run of the same recipe.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace the output if it exists.")] = False,
) -> None:
    """Learn tasks one after another with several methods: accuracy, forgetting, capacity, spikes; tables and a page."""
    from sparsecirc.cli._outputs import check_free
    from sparsecirc.cli._stream import make_stream
    from sparsecirc.errors import missing_extra

    given = {
        "methods": split_names(method, "--method"), "tasks": tasks, "seeds": _whole(seeds, "--seeds"),
        "increment": increment, "train": train, "test": test, "hidden": _whole(hidden, "--hidden"),
        "density": density, "optimizer": optimizer, "learning_rate": learning_rate, "epochs": epochs,
    }  # fmt: skip
    try:
        import torch  # noqa: F401
    except ModuleNotFoundError as error:
        raise missing_extra("torch", "torch", "continual") from error
    stream = make_stream(recipe, given)
    name = Path(recipe).stem
    path = Path("runs") / name if output is None else output
    check_free(path, force)
    from sparsecirc.cli._continual_run import Session

    session = Session(out, stream, name, path, save=save)
    session.open(resume=resume, force=force)
    results = session.run()
    document = _document(session, stream, name, results, _again(recipe, given, path))
    networks = _write(session, document, path, force)
    _show(out, document)
    out.say(f"written to {path}: open {path / 'report.html'}")
    if networks:
        out.suggest(f"sparsecirc verify {networks[0]} --against interpret,onnx,c,nir")
    else:
        out.suggest(f"sparsecirc report {path} -o {path.name}.html")


def _whole(text: str | None, option: str) -> tuple[int, ...] | None:
    names = split_names(text, option)
    if names is None:
        return None
    if not all(n.isdecimal() for n in names):
        raise UsageError(f"{option} '{text}' is not understood: expected whole numbers with commas, e.g. 0,1,2")
    return tuple(int(n) for n in names)


def _again(recipe: str, given: Mapping[str, Any], path: Path) -> str:
    """The command that repeats the run."""
    words = ["sparsecirc", "continual", recipe]
    for name, value in given.items():
        if value is not None:
            text = ",".join(str(v) for v in value) if isinstance(value, tuple) else str(getattr(value, "value", value))
            words += [f"--{'method' if name == 'methods' else name.replace('_', '-')}", text]
    return " ".join([*words, "-o", str(path)])


def summary(results: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, Mean]]:
    """Of each method: means over seeds with 95 % intervals."""
    from sparsecirc._mean import Mean
    from sparsecirc._report import by_method

    names = ("acc", "bwt", "fwt", "forgetting", "learning_accuracy", "seconds")
    return {m: {name: Mean.of([r[name] for r in found]) for name in names} for m, found in by_method(results).items()}


def _document(
    session: Session, stream: Stream, name: str, results: list[dict[str, Any]], command: str
) -> dict[str, Any]:
    from sparsecirc._bench import Host

    scenario = session.source.scenario(stream.seeds[0])
    return {
        "name": name,
        "command": command,
        "recipe": stream.model_dump(mode="json"),
        "host": Host.here(1).line(),
        "inputs": scenario.features[-1],
        "outputs": scenario.outputs,
        "steps": session.source.network(scenario, 0).steps,
        "tasks": [t.name for t in scenario.tasks],
        "train_samples": stream.train or 0,
        "rows": [{k: r[k] for k in _ROW} for r in results],
        "summary": summary(results),
        "results": results,
    }


_ROW = ("scenario", "method", "seed", "acc", "bwt", "fwt", "forgetting", "seconds", "rank_used")


def _write(session: Session, document: Mapping[str, Any], path: Path, force: bool) -> list[Path]:
    """All files; the directories of the networks are returned."""
    from sparsecirc._files import write_atomic
    from sparsecirc._report import CONTINUAL_FILE, figures, render_continual
    from sparsecirc.cli._console import jsonable
    from sparsecirc.cli._outputs import staged, write_json, write_manifest

    plain = jsonable(document)
    with staged(path, force=force) as stage:
        write_json(stage / CONTINUAL_FILE, plain)
        write_atomic(stage / "recipe.yaml", session.stream.to_yaml().encode())
        write_atomic(stage / "report.html", render_continual([plain]).encode())
        for name, svg in figures(plain).items():
            write_atomic(stage / name, svg.encode())
        kept = session.folder / "networks"
        names = sorted(p.name for p in kept.iterdir()) if kept.is_dir() else []
        if names:
            shutil.copytree(kept, stage / "networks")
        write_manifest(stage, "continual", recipe=document["name"])
    shutil.rmtree(session.folder, ignore_errors=True)
    first = [n for n in names if n.startswith(session.stream.methods[0])]
    return [path / "networks" / n for n in [*first, *(n for n in names if n not in first)]]


def _show(out: Out, document: dict[str, Any]) -> None:
    def cell(found: Mean) -> str:
        spread = "" if found.count < 2 else f" ± {100 * found.half:.2f}"
        return f"{100 * found.mean:.2f}{spread}"

    rows = []
    for name, found in document["summary"].items():
        first = next(r for r in document["results"] if r["method"] == name)
        used = first["capacity"][-1] if first["capacity"] else {}
        share = " ".join(f"{u / of:.0%}" for u, of in used.values() if of) or "-"
        spikes = f"{sum(a['spikes'] for a in first['activity']) / len(first['activity']):,.0f}"
        figures = [cell(found[k]) for k in ("acc", "bwt", "forgetting", "fwt", "learning_accuracy")]
        rows.append((name, *figures, spikes, share, f"{found['seconds'].mean:.1f}"))
    head = ("method:", "ACC", "BWT", "forgetting", "FWT", "just learned", "spikes", "capacity used", "s")
    shown: list[Any] = [table(head, rows)]
    count = next(iter(document["summary"].values()))["acc"].count
    seeds = "one seed" if count == 1 else f"mean of {count} seeds with 95 % intervals"
    shown.append(f"{document['name']}: {len(document['tasks'])} tasks, {seeds}, in percent; spikes per test sample")
    if len(document["results"]) == 1:
        from sparsecirc.continual import Result

        shown.insert(0, Result.from_json(document["results"][0]).table())
    out.data(document, *shown)


COMMAND = Command(
    continual,
    (
        "sparsecirc continual",
        "sparsecirc continual permuted-digits --method hlop,finetune,ewc --seeds 0,1,2 -o runs/digits",
        "sparsecirc continual split-mnist --method hlop,hlop_published,gpm,hlop+replay",
        "sparsecirc continual permuted-mnist-5x20k --optimizer adam --learning-rate 0.001 -o runs/adam",
        "sparsecirc continual permuted-mnist-5x20k --resume",
        "sparsecirc continual mine.yaml --tasks 3 --json",
    ),
    model=False,
)
