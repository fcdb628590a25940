"""``sparsecirc sensitivity``: what each weight bears alone, and a recipe of what all bear together."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sparsecirc.cli._command import Command, ModelSpec
from sparsecirc.cli._console import Out, split_names, table
from sparsecirc.errors import UsageError

if TYPE_CHECKING:
    from sparsecirc._sensitivity import Sensitivity
    from sparsecirc.cli._models import Loaded


def sensitivity(
    out: Out,
    spec: ModelSpec,
    data: Annotated[
        str | None,
        typer.Option("--data", help="Judge by accuracy on: digits, mnist, fashion_mnist or japanese_vowels."),
    ] = None,
    samples: Annotated[
        int | None, typer.Option("--samples", help="Samples to run. Default 256 of the test part of --data, else 16.")
    ] = None,
    levels: Annotated[
        str | None, typer.Option("--levels", metavar="S,...", help="Sparsities. Default .25,.5,.7,.8,.9,.95.")
    ] = None,
    tolerance: Annotated[
        float | None,
        typer.Option("--tolerance", help="Accuracy that may be lost (0.01), or relative error of the output (0.05)."),
    ] = None,
    pattern: Annotated[
        str, typer.Option("--pattern", help="What is pruned to: unstructured or block:16x1.")
    ] = "unstructured",
    include: Annotated[
        str | None, typer.Option("--include", help="Only weights of these names; globs with commas: 'rnn.*'.")
    ] = None,
    exclude: Annotated[str | None, typer.Option("--exclude", help="Not the weights of these names.")] = None,
    steps: Annotated[int, typer.Option("--seq-len", help="Time steps of the input where --data is not given.")] = 32,
    seed: Annotated[int, typer.Option("--seed", help="Seed of that input where the model brings none.")] = 0,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Directory for the table, the picture and the recipe.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace the output if it exists.")] = False,
) -> None:
    """Prune each weight and gate alone: loss, drift of the state over time, what is safe, and a recipe for all."""
    from sparsecirc._sensitivity import LEVELS
    from sparsecirc._sensitivity import sensitivity as measure
    from sparsecirc.cli._facts import mask_hash
    from sparsecirc.cli._models import load
    from sparsecirc.cli._outputs import check_free
    from sparsecirc.cli._recipe import Recipe, make_recipe, numbers
    from sparsecirc.patterns import Ranked

    wanted = LEVELS if levels is None else numbers(levels, "--levels")
    count = (16 if data is None else 256) if samples is None else samples
    if count < 1:
        raise UsageError(f"samples is {count}: expected at least 1")
    names = {"include": split_names(include, "--include"), "exclude": split_names(exclude, "--exclude")}
    made: Recipe = make_recipe(None, {"pattern": pattern, **names})
    if not isinstance(made.pattern_maker(), Ranked):
        raise UsageError(f"pattern '{pattern}' fixes the sparsity itself: expected unstructured or block:ROWSxCOLS")
    if output is not None:
        check_free(output, force)
    loaded = load(spec, out)
    x, labels, lengths, note = _input(out, loaded, data, count, steps, seed)
    how = made.criteria()
    rows = _rows(loaded, how["select"])
    with out.progress("sensitivity", rows * len(set(wanted))) as advance:
        found = measure(
            loaded.graph, x, labels=labels, lengths=lengths, levels=wanted, tolerance=tolerance,
            pattern=how["pattern"], select=how["select"], progress=advance,
        )  # fmt: skip
    document = {
        "model": spec.text,
        "mask_hash": mask_hash(loaded.graph, loaded.origin),
        "input": note,
        **found.to_json(),
    }
    head, cells = found.cells()
    shown = [f"{name}:" if name in ("weight", "loss", "drift") else name for name in head]
    out.data(document, table(shown, cells), "\n".join([*found.notes(), f"input: {note}"]))
    for warning in loaded.notes:
        out.warn(warning)
    if output is not None:
        _write(output, found, document, pattern, force)
        out.say(f"written to {output}")
    if not found.proposal:
        out.warn("no recipe: raise --tolerance, give lower --levels, or prune and train on with prune --data --epochs")
        out.suggest(f"sparsecirc prune {spec.text} --sparsity {found.levels[0]:g}")
    elif output is None:
        out.say("nothing was written: pass -o DIR to keep the recipe")
        more = f" --data {data}" if data else ""
        out.suggest(f"sparsecirc sensitivity {spec.text}{more} -o runs/{loaded.name}-sensitivity")
    else:
        out.suggest(f"sparsecirc prune {spec.text} --recipe {output / 'recipe.yaml'} -o runs/{loaded.name}")


def _input(
    out: Out, loaded: Loaded, data: str | None, samples: int, steps: int, seed: int
) -> tuple[Any, Any, Any, str]:
    """Input in the graph's layout, labels, lengths, and where they come from."""
    if data is None:
        return loaded.input(batch=samples, steps=steps, seed=seed), None, None, loaded.input_note
    from sparsecirc.cli._fit import fit, load_data

    fitted = fit(loaded.graph, load_data(data, out))
    x = fitted.x_test[:samples]
    if fitted.timed and not fitted.batch_first:
        x = x.swapaxes(0, 1)
    lengths = None if fitted.lengths_test is None else fitted.lengths_test[:samples]
    return x, fitted.y_test[:samples], lengths, f"{data}, first {len(fitted.y_test[:samples])} of the test part"


def _rows(loaded: Loaded, select: Any) -> int:
    """Rows of the table, for the bar."""
    from sparsecirc._prune import default_select, graph_weights

    return sum(1 + len(i.gates) for i in graph_weights(loaded.graph) if (select or default_select)(i))


def _write(path: Path, found: Sensitivity, document: dict[str, Any], pattern: str, force: bool) -> None:
    from sparsecirc._files import write_atomic
    from sparsecirc.cli._outputs import staged, write_json, write_manifest

    with staged(path, force=force) as stage:
        write_atomic(stage / "sensitivity.txt", (found.table() + "\n").encode())
        write_atomic(stage / "sensitivity.svg", found.svg().encode())
        write_json(stage / "sensitivity.json", document)
        if found.proposal:
            write_atomic(stage / "recipe.yaml", found.recipe_yaml(pattern=pattern).encode())
        write_manifest(stage, "sensitivity", model=document["model"], tolerance=found.tolerance)


COMMAND = Command(
    sensitivity,
    (
        "sparsecirc sensitivity demo:gru --tolerance 0.2",
        "sparsecirc sensitivity demo:mnist-lstm --data mnist --levels .5,.8,.9 -o runs/sensitivity",
        "sparsecirc sensitivity runs/gru --pattern block:16x1 --include '*.hh' --json",
    ),
)
