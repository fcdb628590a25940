"""``sparsecirc recipes``: the recipes that come with the package, and a check of your own."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from sparsecirc.cli._choices import RecipeAction
from sparsecirc.cli._command import Command
from sparsecirc.cli._console import Out, table
from sparsecirc.errors import UsageError


def recipes(
    out: Out,
    action: Annotated[
        RecipeAction, typer.Argument(help="ls: list them; cat: print one; cp: copy one; validate: check files.")
    ] = RecipeAction.LS,
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="[NAME|FILE]...", help="A recipe of ls or a file; for cp a name and where it goes."),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="cp: replace the file if it exists.")] = False,
) -> None:
    """List, print and copy the recipes of the package, and check recipe files without running them."""
    given = names or []
    expected = {
        RecipeAction.LS: (0, 0, "nothing after it"),
        RecipeAction.CAT: (1, 1, "one name, e.g. recipes cat one-shot-90"),
        RecipeAction.CP: (2, 2, "a name and a file, e.g. recipes cp one-shot-90 mine.yaml"),
        RecipeAction.VALIDATE: (1, None, "one file or more"),
    }
    least, most, what = expected[action]
    if len(given) < least or (most is not None and len(given) > most):
        raise UsageError(f"recipes {action.value} got {len(given)} arguments: expected {what}")
    if action is RecipeAction.LS:
        _list(out)
    elif action is RecipeAction.CAT:
        _print(out, given[0])
    elif action is RecipeAction.CP:
        _copy(out, given[0], Path(given[1]), force)
    else:
        _validate(out, given)


def _list(out: Out) -> None:
    from sparsecirc.cli._recipe_file import SHIPPED

    found = [
        {"name": path.stem, "about": path.read_text(encoding="utf-8").splitlines()[0].removeprefix("#").strip()}
        for path in sorted(SHIPPED.glob("*.yaml"))
    ]
    out.data({"recipes": found}, table(("recipe:", "about:"), [(r["name"], r["about"]) for r in found]))
    out.suggest(f"sparsecirc prune demo:gru --recipe {found[-1]['name']}")


def _print(out: Out, name: str) -> None:
    from sparsecirc.cli._recipe import make_recipe
    from sparsecirc.cli._recipe_file import recipe_path

    path = recipe_path(Path(name))
    recipe = make_recipe(path, {})
    document: dict[str, Any] = {"name": name, "recipe": recipe.model_dump(mode="json")}
    out.data(document, path.read_text(encoding="utf-8").rstrip("\n"))


def _copy(out: Out, name: str, target: Path, force: bool) -> None:
    from sparsecirc._files import write_atomic
    from sparsecirc.cli._outputs import check_free
    from sparsecirc.cli._recipe_file import read_recipe_file, recipe_path

    path = recipe_path(Path(name))
    read_recipe_file(path)
    goal = target / path.name if target.is_dir() else target
    check_free(goal, force)
    write_atomic(goal, path.read_bytes())
    out.data({"recipe": name, "file": goal}, f"copied {name} to {goal}")
    out.suggest(f"sparsecirc prune demo:gru --recipe {goal}")


def _validate(out: Out, files: list[str]) -> None:
    from sparsecirc.cli._recipe import NEURONS, make_recipe
    from sparsecirc.cli._recipe_file import recipe_path

    checked = []
    for name in files:
        recipe = make_recipe(recipe_path(Path(name)), {})
        _ = recipe.lattice_of_neurons() if recipe.pattern == NEURONS else recipe.criteria()  # sizes, lattice options
        checked.append({"file": name, "ok": True, "recipe": recipe.model_dump(mode="json")})
    out.data({"recipes": checked}, "\n".join(f"{c['file']}: ok" for c in checked))


COMMAND = Command(
    recipes,
    (
        "sparsecirc recipes ls",
        "sparsecirc recipes cat blocks-cubic",
        "sparsecirc recipes cp blocks-cubic mine.yaml",
        "sparsecirc recipes validate mine.yaml",
        "sparsecirc prune demo:gru --recipe one-shot-90",
    ),
    model=False,
)
