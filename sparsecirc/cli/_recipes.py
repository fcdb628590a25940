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
    from sparsecirc.cli._recipe_file import SHIPPED, STREAMS

    found = [
        {
            "name": path.stem,
            "command": command,
            "about": path.read_text(encoding="utf-8").splitlines()[0].removeprefix("#").strip(),
        }
        for command, folder in (("prune", SHIPPED), ("continual", STREAMS))
        for path in sorted(folder.glob("*.yaml"))
    ]
    shown = [(r["name"], r["command"], r["about"]) for r in found]
    out.data({"recipes": found}, table(("recipe:", "command:", "about:"), shown))
    out.suggest("sparsecirc prune demo:gru --recipe one-shot-90, or sparsecirc continual split-digits")


def _print(out: Out, name: str) -> None:
    path = _find(name)
    document: dict[str, Any] = {"name": name, "recipe": _checked(path)}
    out.data(document, path.read_text(encoding="utf-8").rstrip("\n"))


def _copy(out: Out, name: str, target: Path, force: bool) -> None:
    from sparsecirc._files import write_atomic
    from sparsecirc.cli._outputs import check_free
    from sparsecirc.cli._recipe_file import STREAMS, read_recipe_file

    path = _find(name)
    read_recipe_file(path)
    goal = target / path.name if target.is_dir() else target
    check_free(goal, force)
    write_atomic(goal, path.read_bytes())
    out.data({"recipe": name, "file": goal}, f"copied {name} to {goal}")
    stream = path.parent == STREAMS
    out.suggest(f"sparsecirc continual {goal}" if stream else f"sparsecirc prune demo:gru --recipe {goal}")


def _validate(out: Out, files: list[str]) -> None:
    checked = [{"file": name, "ok": True, "recipe": _checked(_find(name))} for name in files]
    out.data({"recipes": checked}, "\n".join(f"{c['file']}: ok" for c in checked))


def _find(name: str) -> Path:
    """A file, or a recipe of the package for either command.

    Raises:
        FileFormatError: there is none.
    """
    from sparsecirc.cli._recipe_file import SHIPPED, STREAMS, recipe_path

    stream = (STREAMS / f"{name}.yaml").is_file() and not Path(name).is_file()
    return recipe_path(Path(name), STREAMS if stream else SHIPPED)


def _checked(path: Path) -> dict[str, Any]:
    """All fields of a recipe of ``prune``, or of ``continual``, which is one that has a scenario.

    Raises:
        FileFormatError: not YAML.
        UsageError: a field that is unknown or out of range, or fields that do not go together.
    """
    from sparsecirc.cli._recipe import NEURONS, make_recipe
    from sparsecirc.cli._recipe_file import read_recipe_file

    if "scenario" in read_recipe_file(path).fields:
        from sparsecirc.cli._stream import make_stream

        return make_stream(str(path), {}).model_dump(mode="json")
    recipe = make_recipe(path, {})
    _ = recipe.lattice_of_neurons() if recipe.pattern == NEURONS else recipe.criteria()  # sizes, lattice options
    return recipe.model_dump(mode="json")


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
