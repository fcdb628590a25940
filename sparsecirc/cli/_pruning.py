"""What ``prune`` does: choose patterns, train on where asked, and write the result."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sparsecirc._files import write_atomic
from sparsecirc._pattern import Pattern
from sparsecirc.cli._console import Out
from sparsecirc.cli._facts import live_patterns, mask_hash
from sparsecirc.cli._models import GRAPH_FILE, MASKS_FILE, MODEL_FILE, Loaded
from sparsecirc.cli._outputs import staged, write_json, write_manifest
from sparsecirc.cli._recipe import NEURONS, Recipe
from sparsecirc.cli._units import Smaller, without_units
from sparsecirc.errors import UsageError
from sparsecirc.ir import Graph, save_graph
from sparsecirc.patterns import Explained, save_patterns

if TYPE_CHECKING:
    from sparsecirc._prune import PruneReport, Sparsity


def run_recipe(out: Out, loaded: Loaded, recipe: Recipe, path: Path, *, resume: bool, force: bool) -> dict[str, Any]:
    """Prune ``loaded`` by ``recipe`` into the directory ``path``; returns the report written there.

    Raises:
        UsageError: the recipe does not fit the model, or a run to resume is absent or of another recipe.
        NothingMatchedError: the model has nothing to prune.
        Interrupted: stopped while training; what was reached is kept for ``--resume``.
    """
    from sparsecirc._prune import PruneReport, plan
    from sparsecirc.cli._models import has_torch_model, torch_model
    from sparsecirc.cli._scoring import score_of

    graph = loaded.graph
    fitted = None
    if recipe.data is not None:
        from sparsecirc.cli._fit import fit, load_data

        fitted = fit(graph, load_data(recipe.data, out))
    model = torch_model(loaded, out) if fitted is not None or has_torch_model(loaded) else None
    score = score_of(out, recipe, loaded, model, fitted)
    smaller: Smaller | None = None
    sparsity: Sparsity = None
    how: dict[str, Any] = {"score": score}
    before = None
    if recipe.pattern == NEURONS:
        before = None if fitted is None else fitted.accuracy(model)
        smaller = without_units(loaded, recipe, model, score)
        loaded, model = smaller.loaded, smaller.loaded.model
        planned = PruneReport({}, (), (), smaller.explanations)
    else:
        sparsity, how = recipe.sparsity_for(graph), recipe.criteria(score)
        planned = plan(graph, sparsity, **how)  # refuses before any training
    if fitted is None:
        if resume:
            raise UsageError("nothing to resume: only a run with --data and --epochs can be interrupted halfway")
        if model is not None:
            apply_patterns(model, planned.patterns)
        pruned = loaded.graph.with_patterns(planned.patterns)
        accuracy = None
    else:
        from sparsecirc.cli._training import Job, train

        job = Job(loaded, recipe, model, fitted, planned, sparsity, how, before)
        planned, accuracy = train(out, job, path, resume=resume, force=force)
        pruned = _graph_of(loaded, model, planned.patterns)
    report = _report(loaded, recipe, graph, pruned, planned, accuracy, smaller)
    with staged(path, force=force) as stage:
        write_all(stage, loaded, recipe, model, pruned, report, planned.explanations)
    return report


def apply_patterns(model: Any, patterns: Mapping[str, Pattern]) -> None:
    """Set the dead connections of a torch module to zero, in place."""
    from sparsecirc.masks import Masks

    Masks(model, patterns).apply()


def _graph_of(loaded: Loaded, model: Any, patterns: Mapping[str, Pattern]) -> Graph:
    from sparsecirc.cli._models import convert

    # Trained weights may be zero by chance; the masks say what is dead.
    made = convert(loaded, model)
    bare = made.replace_nodes(*(replace(n, patterns={}) for n in made.nodes if n.patterns))
    return bare.with_patterns({**live_patterns(loaded.graph), **patterns})


def _report(
    loaded: Loaded,
    recipe: Recipe,
    before: Graph,
    after: Graph,
    planned: PruneReport,
    accuracy: dict[str, Any] | None,
    smaller: Smaller | None,
) -> dict[str, Any]:
    old = {v.name: v.pattern for v in before.weights()}
    weights = []
    for view in after.weights():
        gates = [v for v in after.weights(per_gate=True) if v.name.startswith(f"{view.name}.")]
        weights.append(
            {
                "name": view.name,
                "shape": list(view.pattern.shape),
                "nnz_before": old[view.name].nnz,
                "nnz": view.pattern.nnz,
                "density": view.pattern.density,
                "pattern": view.pattern.origin,
                "digest": view.pattern.digest,
                "gates": {v.name: v.pattern.density for v in gates},
            }
        )
    return {
        "model": loaded.spec.text,
        "recipe": recipe.model_dump(mode="json"),
        "weights": weights,
        "nnz_before": sum(p.nnz for p in old.values()),
        "nnz": sum(w["nnz"] for w in weights),
        "density": after.density,
        "mask_hash": mask_hash(after, loaded.origin),
        "units": {} if smaller is None else smaller.counts(),
        "skipped": [list(s) for s in planned.skipped],
        "accuracy": accuracy,
        "explanations": [name for name, _ in _explained(planned.explanations)],
    }


def _explained(explanations: Sequence[Explained]) -> Iterator[tuple[str, bytes]]:
    """Files that say why, by name; numbered where there are several (one per gate)."""
    for k, explained in enumerate(explanations):
        stem = "why" if len(explanations) == 1 else f"why-{k}"
        yield f"{stem}.txt", (explained.table() + "\n").encode()
        yield f"{stem}.json", (json.dumps(explained.to_json(), indent=1) + "\n").encode()
        yield f"{stem}.svg", explained.svg().encode()


def write_all(
    stage: Path,
    loaded: Loaded,
    recipe: Recipe,
    model: Any,
    graph: Graph,
    report: dict[str, Any],
    explanations: Sequence[Explained] = (),
) -> None:
    """Every file of a prune run."""
    for name, content in _explained(explanations):
        write_atomic(stage / name, content)
    save_graph(graph, stage / GRAPH_FILE)
    save_patterns(stage / MASKS_FILE, live_patterns(graph))
    if model is not None:
        from safetensors.torch import save

        # A copy each: tied tensors and views into a flat buffer cannot be stored as they are.
        state = {k: v.detach().cpu().contiguous().clone() for k, v in model.state_dict().items()}
        write_atomic(stage / MODEL_FILE, save(state))
    if loaded.example is not None:
        np.save(stage / "example.npy", loaded.example)
    (stage / "recipe.yaml").write_text(recipe.to_yaml(), encoding="utf-8")
    write_json(stage / "report.json", report)
    write_manifest(stage, "prune", origin=dict(loaded.origin), mask_hash=report["mask_hash"], density=report["density"])
