"""``sparsecirc prune``: fewer connections, optionally while training on, and everything needed to repeat it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sparsecirc.cli._choices import Adjacency, Budget, Keep, Method, Order, Schedule, Scope
from sparsecirc.cli._command import Command, ModelSpec
from sparsecirc.cli._console import Out, split_names, table


def prune(
    out: Out,
    spec: ModelSpec,
    sparsity: Annotated[
        float | None, typer.Option("--sparsity", "-s", help="Share of dead connections, 0 to below 1. Default 0.9.")
    ] = None,
    method: Annotated[
        Method | None, typer.Option("--method", help="What a connection is worth. Default magnitude.")
    ] = None,
    score_samples: Annotated[
        int | None,
        typer.Option("--score-samples", help="Training samples that a score of data looks at. Default 1000."),
    ] = None,
    pattern: Annotated[
        str | None,
        typer.Option("--pattern", help="unstructured, block:16x1, 2:4, fan-in:8, rows, columns, or neurons."),
    ] = None,
    keep_diagonal: Annotated[
        bool | None,
        typer.Option("--keep-diagonal/--free-diagonal", help="Keep the connection of each unit to itself."),
    ] = None,
    scope: Annotated[Scope | None, typer.Option("--scope", help="Where sparsity is counted. Default per-gate.")] = None,
    budget: Annotated[
        Budget | None, typer.Option("--budget", help="How the weights share the sparsity. Default uniform.")
    ] = None,
    minimum_density: Annotated[
        float | None, typer.Option("--minimum-density", help="Least of any weight, with another budget. Default 0.")
    ] = None,
    schedule: Annotated[Schedule | None, typer.Option("--schedule", help="How it grows. Default one-shot.")] = None,
    rounds: Annotated[int | None, typer.Option("--rounds", help="Of --schedule rewind. Default 3.")] = None,
    rewind_to: Annotated[
        float | None, typer.Option("--rewind-to", help="Epoch whose weights come back, e.g. 0.5. Default 0.")
    ] = None,
    tolerance: Annotated[
        float | None, typer.Option("--tolerance", help="Accuracy that until-drop may lose. Default 0.01.")
    ] = None,
    share: Annotated[
        float | None, typer.Option("--share", help="Of the live connections, per epoch of until-drop. Default 0.2.")
    ] = None,
    include: Annotated[
        str | None, typer.Option("--include", help="Only weights of these names; globs with commas: 'rnn.*'.")
    ] = None,
    exclude: Annotated[str | None, typer.Option("--exclude", help="Not the weights of these names.")] = None,
    data: Annotated[
        str | None, typer.Option("--data", help="Train on: digits, mnist, fashion_mnist or japanese_vowels.")
    ] = None,
    epochs: Annotated[int | None, typer.Option("--epochs", help="Passes over the data. Default 0.")] = None,
    learning_rate: Annotated[float | None, typer.Option("--learning-rate", help="Of Adam. Default 0.001.")] = None,
    batch_size: Annotated[int | None, typer.Option("--batch-size", help="Default 64.")] = None,
    seed: Annotated[int | None, typer.Option("--seed", help="Of random scores and of the order of data.")] = None,
    lattice_adjacency: Annotated[
        Adjacency | None, typer.Option("--lattice-adjacency", help="Of --method lattice. Default binary.")
    ] = None,
    lattice_order: Annotated[
        Order | None, typer.Option("--lattice-order", help="What becomes of cycles. Default acyclic.")
    ] = None,
    lattice_keep: Annotated[
        Keep | None, typer.Option("--lattice-keep", help="Connections that survive. Default cover.")
    ] = None,
    lattice_threshold: Annotated[
        float | None,
        typer.Option("--lattice-threshold", help="Instead of --sparsity: |w| or worth to exceed."),
    ] = None,
    lattice_centrality: Annotated[
        float | None, typer.Option("--lattice-centrality", help="Weight of a neuron's centrality. Default 0.")
    ] = None,
    lattice_ranked: Annotated[
        bool | None,
        typer.Option("--lattice-ranked/--lattice-unranked", help="Its choice first, then the largest |w|."),
    ] = None,
    lattice_per_gate: Annotated[
        bool | None, typer.Option("--lattice-per-gate/--lattice-joint", help="An order for each gate.")
    ] = None,
    recipe: Annotated[Path | None, typer.Option("--recipe", help="YAML, or a name of recipes ls; options win.")] = None,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="Directory. Default runs/NAME.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with an interrupted run of the same recipe.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace the output if it exists.")] = False,
) -> None:
    """Remove connections, by gate if you do not say otherwise; trains on where --data and --epochs are given."""
    from sparsecirc.cli._models import load
    from sparsecirc.cli._outputs import check_free
    from sparsecirc.cli._pruning import run_recipe
    from sparsecirc.cli._recipe import make_recipe

    given = {
        "sparsity": sparsity, "method": method, "pattern": pattern, "scope": scope, "schedule": schedule, "data": data,
        "score_samples": score_samples, "keep_diagonal": keep_diagonal, "budget": budget,
        "minimum_density": minimum_density, "rounds": rounds, "rewind_to": rewind_to, "tolerance": tolerance,
        "share": share,
        "epochs": epochs, "learning_rate": learning_rate, "batch_size": batch_size, "seed": seed,
        "include": split_names(include, "--include"), "exclude": split_names(exclude, "--exclude"),
        "lattice_adjacency": lattice_adjacency, "lattice_order": lattice_order, "lattice_keep": lattice_keep,
        "lattice_threshold": lattice_threshold, "lattice_centrality": lattice_centrality,
        "lattice_ranked": lattice_ranked, "lattice_per_gate": lattice_per_gate,
    }  # fmt: skip
    made = make_recipe(recipe, given)
    if output is not None:
        check_free(output, force)
    loaded = load(spec, out)
    path = Path("runs") / loaded.name if output is None else output
    check_free(path, force)
    report = run_recipe(out, loaded, made, path, resume=resume, force=force)
    rows = [
        (
            w["name"],
            "x".join(str(n) for n in w["shape"]),
            f"{w['nnz_before']:,}",
            f"{w['nnz']:,}",
            f"{w['density']:.1%}",
            w["pattern"],
        )
        for w in report["weights"]
    ]
    total = ("total", "", f"{report['nnz_before']:,}", f"{report['nnz']:,}", f"{report['density']:.1%}", "")
    facts = [f"{name}: {n['before']} units, {n['after']} of them left" for name, n in report["units"].items()]
    facts.append(f"mask hash {report['mask_hash']}")
    if report["accuracy"] is not None:
        accuracy = report["accuracy"]
        facts.append(
            f"accuracy {accuracy['dense']:.2%} before, {accuracy['pruned']:.2%} after ({made.data}, test part)"
        )
    out.data(
        report, table(("weight:", "shape", "before", "after", "density", "pattern:"), [*rows, total]), "\n".join(facts)
    )
    for name, why in report["skipped"]:
        out.warn(f"not pruned: '{name}', {why}")
    out.say(f"written to {path}")
    if report["explanations"]:
        out.say(f"why each neuron was kept or cut: {', '.join(str(path / f) for f in report['explanations'])}")
    out.suggest(f"sparsecirc compile {path}")


COMMAND = Command(
    prune,
    (
        "sparsecirc prune demo:gru --sparsity 0.9 -o runs/gru",
        "sparsecirc prune demo:gru --sparsity 0.95 --pattern block:16x1 --data digits --epochs 5 -o runs/blocks",
        "sparsecirc prune model.safetensors --arch mynet:build --pattern 2:4 -o runs/mine",
        "sparsecirc prune demo:mnist-lstm --method lattice --sparsity 0.9 --data mnist --epochs 1 -o runs/lattice",
        "sparsecirc prune demo:gru --schedule cubic --data digits --epochs 8 -o runs/slow --resume",
        "sparsecirc prune demo:mnist-lstm --method taylor --budget erdos-renyi --data mnist --epochs 1 -o runs/taylor",
        "sparsecirc prune demo:gru --schedule until-drop --tolerance 0.02 --data digits --epochs 20 -o runs/far",
    ),
)
