"""Recipes as files: YAML, with the line of every field for the messages."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from sparsecirc.errors import FileFormatError, UsageError

AnyRecipe = TypeVar("AnyRecipe", bound=BaseModel)

SHIPPED = Path(__file__).with_name("recipes")
"""Where the recipes of ``prune`` lie, one YAML file each, with a comment about it in the first line."""
STREAMS = SHIPPED / "continual"
"""Where those of ``continual`` lie."""


def recipe_path(path: Path, folder: Path = SHIPPED) -> Path:
    """``path`` itself where that is a file, else the recipe of the package called so.

    Raises:
        FileFormatError: there is neither.
    """
    if path.is_file():
        return path
    known = sorted(p.stem for p in folder.glob("*.yaml"))
    if str(path) in known:
        return folder / f"{path}.yaml"
    near = get_close_matches(str(path), known, n=1)
    hint = f"; did you mean '{near[0]}'?" if near else ""
    raise FileFormatError(f"recipe {path} is not a file: expected YAML, or one of {', '.join(known)}{hint}")


@dataclass(frozen=True)
class RecipeFile:
    """The fields of a recipe and where they stand.

    Attributes:
        path: of the file; ``None`` where there is none.
        fields: as written.
        lines: line of each key, from 1, by the keys that lead to it.
    """

    path: Path | None = None
    fields: Mapping[str, Any] = field(default_factory=dict)
    lines: Mapping[tuple[str, ...], int] = field(default_factory=dict)

    def where(self, *keys: str) -> str:
        """``"recipe FILE, line N: "`` for a field of the file; nothing for one that is not in it."""
        for known in (keys[:n] for n in range(len(keys), 0, -1)):
            if known in self.lines:
                return f"recipe {self.path}, line {self.lines[known]}: "
        return ""


def read_recipe_file(path: Path) -> RecipeFile:
    """The fields of a file.

    Raises:
        FileFormatError: not YAML, not a mapping, or names a field twice.
    """
    try:
        text = path.read_text(encoding="utf-8")
        root = yaml.compose(text, yaml.SafeLoader)
        found = yaml.safe_load(text)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        mark = getattr(error, "problem_mark", None)
        at = "" if mark is None else f", line {mark.line + 1}"
        why = getattr(error, "problem", None) or error
        raise FileFormatError(f"recipe {path}{at} is not YAML: {why}") from error
    if not isinstance(found, dict) or not isinstance(root, yaml.MappingNode):
        raise FileFormatError(f"recipe {path} holds {type(found).__name__}: expected fields such as 'sparsity: 0.9'")
    lines: dict[tuple[str, ...], int] = {}
    _collect(root, (), lines, path)
    return RecipeFile(path, {str(k): v for k, v in found.items()}, lines)


def build_recipe(kind: type[AnyRecipe], file: RecipeFile, options: Mapping[str, Any]) -> AnyRecipe:
    """A recipe of the fields of a file, with the options that were given on top.

    Raises:
        UsageError: an unknown field, or a value out of range; names the file and the line, or the option, the value and
            what is expected.
    """
    fields = {**file.fields, **options}
    for name in fields:
        if name not in kind.model_fields:
            near = get_close_matches(name, kind.model_fields, n=1)
            hint = f": did you mean '{near[0]}'?" if near else f": expected {', '.join(kind.model_fields)}"
            raise UsageError(f"{file.where(name)}recipe field '{name}' is unknown{hint}")
    try:
        return kind(**fields)
    except ValidationError as error:
        raise _refused(error, kind, file, options) from error


def _refused(error: ValidationError, kind: type[BaseModel], file: RecipeFile, options: Mapping[str, Any]) -> UsageError:
    """The first complaint, in our words; the description of a field says what its mapping holds."""
    first = error.errors()[0]
    keys = [str(part) for part in first["loc"]]
    where = "" if keys[0] in options else file.where(*keys)
    name = " ".join([keys[0].replace("_", "-"), *(f"'{key}'" for key in keys[1:])])
    message = first["msg"].removeprefix("Value error, ").removeprefix("Input should be ")
    entries = kind.model_fields[keys[0]].description or "names with a value for each"
    message = message.replace("a valid dictionary", entries)
    lead = "" if message.startswith("expected") else "expected "
    return UsageError(f"{where}{name} {first['input']!r} is not possible: {lead}{message}")


def _collect(node: yaml.MappingNode, above: tuple[str, ...], lines: dict[tuple[str, ...], int], path: Path) -> None:
    for key, value in node.value:
        keys = (*above, str(key.value))
        line = key.start_mark.line + 1
        if keys in lines:
            raise FileFormatError(
                f"recipe {path}, line {line}: field '{'.'.join(keys)}' stands in line {lines[keys]} already: "
                "expected it once"
            )
        lines[keys] = line
        if isinstance(value, yaml.MappingNode):
            _collect(value, keys, lines, path)
