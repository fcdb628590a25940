"""Fields of a recipe that do not go together, each named with where it stands."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from typing import TYPE_CHECKING

from sparsecirc.cli._choices import Budget, Keep, Method, Schedule, Scope
from sparsecirc.errors import UsageError

if TYPE_CHECKING:
    from sparsecirc.cli._recipe import Recipe
    from sparsecirc.cli._recipe_file import RecipeFile

Belongs = tuple[str, str, Callable[["Recipe"], bool]]
"""The option that a field needs, what it must be, and whether it is."""

BELONGS: dict[str, Belongs] = {
    "score_samples": (
        "method",
        "snip, taylor, fisher, grasp or activity",
        lambda r: r.method.looks_at_gradients or r.method is Method.ACTIVITY,
    ),
    "rounds": ("schedule", "rewind", lambda r: r.schedule is Schedule.REWIND),
    "rewind_to": ("schedule", "rewind", lambda r: r.schedule is Schedule.REWIND),
    "tolerance": ("schedule", "until-drop", lambda r: r.schedule is Schedule.UNTIL_DROP),
    "share": ("schedule", "until-drop", lambda r: r.schedule is Schedule.UNTIL_DROP),
    "minimum_density": ("budget", "erdos-renyi or erdos-renyi-kernel", lambda r: r.budget is not Budget.UNIFORM),
}
LATTICE: Belongs = ("method", "lattice", lambda r: r.method is Method.LATTICE)


def check_recipe(recipe: Recipe, file: RecipeFile, options: Collection[str]) -> None:
    """Refuse a recipe that contradicts itself.

    Args:
        recipe: each field by itself is good.
        file: where its fields come from.
        options: fields that were given on the command line instead.

    Raises:
        UsageError: names the fields, where they stand, and what to do.
    """
    for name, message in _contradictions(recipe, options):
        raise UsageError(f"{'' if name in options else file.where(name)}{message}")


def _contradictions(r: Recipe, options: Collection[str]) -> Iterator[tuple[str, str]]:
    """(field, message) of everything that is wrong, the most telling first."""
    if r.sparsity is not None and r.sparsities:
        yield (
            "sparsities",
            (
                f"sparsities and sparsity {r.sparsity:g} exclude each other: keep one, or write the sparsity as '*' "
                "first in sparsities"
            ),
        )
    if r.epochs and r.data is None:
        yield "epochs", f"epochs {r.epochs} needs data to train on: add --data, e.g. --data digits"
    yield from _left_over(r, options)
    yield from _of_schedule(r)
    if r.method.looks_at_gradients and r.data is None:
        yield "method", f"method '{r.method.value}' needs a loss to differentiate: add --data, e.g. --data digits"
    if r.method is Method.MOVEMENT and r.schedule is Schedule.ONE_SHOT:
        yield (
            "method",
            ("method 'movement' follows weights while they are trained: add --schedule cubic, rewind or until-drop"),
        )
    if r.budget is not Budget.UNIFORM and (r.sparsities or r.sparsity_is_implied):
        other = "sparsities" if r.sparsities else "a pattern or threshold that fixes the sparsity"
        yield "budget", f"budget '{r.budget.value}' shares one sparsity among the weights and excludes {other}"
    yield from _of_neurons(r)
    if r.keep_diagonal and r.pattern in ("rows", "columns"):
        yield "keep_diagonal", f"pattern '{r.pattern}' removes whole lines: it cannot keep a diagonal"
    if r.keep_diagonal and r.method is Method.LATTICE and r.pattern == "unstructured":
        yield (
            "keep_diagonal",
            "method 'lattice' chooses by the order alone: keep-diagonal needs another pattern or method",
        )


def _of_neurons(r: Recipe) -> Iterator[tuple[str, str]]:
    if r.pattern != "neurons":
        return
    lead = "pattern 'neurons' takes whole units out of the network"
    if r.schedule is not Schedule.ONE_SHOT:
        yield "schedule", f"{lead}, before training: use --schedule one-shot"
    for name, said in (
        ("sparsities", bool(r.sparsities)),
        ("budget", r.budget is not Budget.UNIFORM),
        ("keep_diagonal", r.keep_diagonal),
        ("include", bool(r.include)),
        ("exclude", bool(r.exclude)),
        ("scope", r.scope is not Scope.PER_GATE),
    ):
        if said:
            yield name, f"{lead}: {name.replace('_', '-')} says nothing about that, leave it out"
    for name, said in (
        ("sparsity", r.sparsity is not None),
        ("lattice_per_gate", r.lattice_per_gate),
        ("lattice_keep", r.lattice_keep is not Keep.COVER),
        ("lattice_ranked", not r.lattice_ranked),
    ):
        if said and r.method is Method.LATTICE:
            yield name, f"{lead}, and the lattice decides which by one order: leave {name.replace('_', '-')} out"


def _left_over(r: Recipe, options: Collection[str]) -> Iterator[tuple[str, str]]:
    """Fields that say something about a choice which was not made.

    A recipe that was written with all its fields may be used with another method: only what differs from the default
    counts, and not what the command line has made pointless.
    """
    for name, field in type(r).model_fields.items():
        belongs = LATTICE if name.startswith("lattice_") else BELONGS.get(name)
        if belongs is None or belongs[2](r):
            continue
        of, needed, _ = belongs
        if name in options or (getattr(r, name) != field.default and of not in options):
            has = getattr(r, of).value
            yield name, f"--{name.replace('_', '-')} needs --{of} {needed}, got --{of} {has}"


def _of_schedule(r: Recipe) -> Iterator[tuple[str, str]]:
    schedule = r.schedule
    if schedule is Schedule.ONE_SHOT:
        return
    if r.epochs == 0:
        yield (
            "schedule",
            (
                f"schedule '{schedule.value}' prunes while it trains: add --data and --epochs, or use "
                "--schedule one-shot"
            ),
        )
    if r.sparsity_is_implied:
        yield (
            "schedule",
            (
                f"schedule '{schedule.value}' needs a sparsity to grow to, and a pattern or threshold fixes it: use "
                "--schedule one-shot"
            ),
        )
    if schedule is not Schedule.CUBIC and (r.sparsities or r.budget is not Budget.UNIFORM):
        other = "sparsities" if r.sparsities else f"budget {r.budget.value}"
        yield (
            "schedule",
            (
                f"schedule '{schedule.value}' removes the same share of every weight and excludes {other}: use "
                "--schedule cubic or one-shot"
            ),
        )
