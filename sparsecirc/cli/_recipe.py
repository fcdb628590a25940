"""The recipe of ``prune``: what was asked, checked, and written beside the result so that it can be repeated."""

from __future__ import annotations

import re
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from sparsecirc.cli._choices import Adjacency, Keep, Method, Order, Schedule, Scope
from sparsecirc.errors import FileFormatError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

    from sparsecirc.patterns import Lattice


PATTERN_FORMS = "unstructured, block:ROWSxCOLS (block:16x1), N:M (2:4), fan-in:K (fan-in:8)"
_BLOCK = re.compile(r"block:(\d+)x(\d+)")
_N_M = re.compile(r"(\d+):(\d+)")
_FAN_IN = re.compile(r"fan-in:(\d+)")


def pattern_named(text: str) -> Callable[..., Any]:
    """The pattern that ``text`` names, as the library's callable.

    Raises:
        UsageError: no such pattern, or its sizes are out of range.
    """
    from sparsecirc import patterns

    if match := _BLOCK.fullmatch(text):
        return patterns.block(int(match[1]), int(match[2]))
    if match := _N_M.fullmatch(text):
        return patterns.n_m(int(match[1]), int(match[2]))
    if match := _FAN_IN.fullmatch(text):
        return patterns.fan_in(int(match[1]))
    if text != "unstructured":
        raise UsageError(f"pattern '{text}' is unknown: expected one of {PATTERN_FORMS}")
    return patterns.unstructured


class Recipe(BaseModel):
    """Everything that decides the result of ``prune`` besides the model."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    sparsity: float | None = Field(None, ge=0.0, lt=1.0)
    method: Method = Method.MAGNITUDE
    pattern: str = "unstructured"
    scope: Scope = Scope.PER_GATE
    schedule: Schedule = Schedule.ONE_SHOT
    data: str | None = None
    epochs: int = Field(0, ge=0)
    learning_rate: float = Field(1e-3, gt=0)
    batch_size: int = Field(64, ge=1)
    seed: int = Field(0, ge=0)
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    lattice_adjacency: Adjacency = Adjacency.CONTINUOUS
    lattice_order: Order = Order.ACYCLIC
    lattice_keep: Keep = Keep.COVER
    lattice_threshold: float | None = Field(None, ge=0)
    lattice_centrality: float = Field(0.0, ge=0)
    lattice_ranked: bool = False
    lattice_per_gate: bool = False

    @field_validator("pattern")
    @classmethod
    def _known_pattern(cls, text: str) -> str:
        if text == "unstructured" or any(form.fullmatch(text) for form in (_BLOCK, _N_M, _FAN_IN)):
            return text
        raise ValueError(f"expected one of {PATTERN_FORMS}")

    def pattern_maker(self) -> Callable[..., Any]:
        """The chosen pattern as the library's callable.

        Raises:
            UsageError: its sizes are out of range.
        """
        if self.method is Method.LATTICE and self.pattern == "unstructured":
            return self._lattice()
        return pattern_named(self.pattern)

    @property
    def resolved_sparsity(self) -> float | None:
        """The sparsity; 0.9 where none was given, ``None`` where the pattern or a threshold implies it."""
        implied = _N_M.fullmatch(self.pattern) or _FAN_IN.fullmatch(self.pattern)
        threshold = self.method is Method.LATTICE and self.lattice_threshold is not None
        return self.sparsity if self.sparsity is not None or implied or threshold else 0.9

    def criteria(self) -> dict[str, Any]:
        """How connections are chosen, as the keyword arguments of the library's ``prune``."""
        from sparsecirc import _prune, scores

        score: Any = scores.random(self.seed) if self.method is Method.RANDOM else scores.magnitude
        if self.method is Method.LATTICE and self.pattern != "unstructured":
            score = scores.lattice(self._lattice())  # any other pattern is ranked by how much of the order it carries
        return {
            "score": score,
            "pattern": self.pattern_maker(),
            "scope": _prune.Scope(self.scope.value),
            "select": self._select(),
        }

    def _lattice(self) -> Lattice:
        """The lattice that the options describe.

        Raises:
            UsageError: they contradict each other.
        """
        from sparsecirc import patterns

        return patterns.lattice(
            adjacency=patterns.Adjacency(self.lattice_adjacency.value),
            order=patterns.Order(self.lattice_order.value),
            keep=patterns.Keep(self.lattice_keep.value),
            threshold=self.lattice_threshold,
            centrality=self.lattice_centrality,
            ranked=self.lattice_ranked,
            per_gate=self.lattice_per_gate,
        )

    def _select(self) -> Callable[[Any], bool] | None:
        from sparsecirc._prune import default_select, named

        if not self.include and not self.exclude:
            return None
        by_name = named(*self.include, exclude=self.exclude)
        if self.include:
            return by_name
        return lambda info: default_select(info) and by_name(info)

    def to_yaml(self) -> str:
        """All fields, resolved."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False)


def make_recipe(path: Path | None, given: Mapping[str, Any]) -> Recipe:
    """The recipe of a file, with the options that were given on the command line on top.

    Raises:
        FileFormatError: the file is missing or not YAML.
        UsageError: an unknown field, or a value out of range; names the field, the value and what is expected.
    """
    fields: dict[str, Any] = {} if path is None else _read(path)
    fields.update({k: v for k, v in given.items() if v is not None})
    for name in fields:
        if name not in Recipe.model_fields:
            near = get_close_matches(str(name), Recipe.model_fields, n=1)
            hint = f": did you mean '{near[0]}'?" if near else f": expected {', '.join(Recipe.model_fields)}"
            raise UsageError(f"recipe field '{name}' is unknown{hint}")
    try:
        recipe = Recipe(**fields)
    except ValidationError as error:
        first = error.errors()[0]
        name = str(first["loc"][0])
        message = first["msg"].removeprefix("Value error, ").removeprefix("Input should be ")
        lead = "" if message.startswith("expected") else "expected "
        raise UsageError(f"{name.replace('_', '-')} {first['input']!r} is not possible: {lead}{message}") from error
    if recipe.epochs and recipe.data is None:
        raise UsageError(f"epochs {recipe.epochs} needs data to train on: add --data, e.g. --data digits")
    if recipe.method is not Method.LATTICE:
        given_here = [n for n in fields if str(n).startswith("lattice_") and n in given and given[n] is not None]
        if given_here:
            option = given_here[0].replace("_", "-")
            raise UsageError(f"--{option} needs --method lattice, got --method {recipe.method.value}")
    if recipe.schedule is Schedule.CUBIC and recipe.epochs == 0:
        raise UsageError("schedule 'cubic' prunes while it trains: add --data and --epochs, or use --schedule one-shot")
    return recipe


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise FileFormatError(f"recipe {path} is not a file: expected YAML")
    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise FileFormatError(f"recipe {path} is not YAML: {error}") from error
    if not isinstance(found, dict):
        raise FileFormatError(f"recipe {path} holds {type(found).__name__}: expected fields such as 'sparsity: 0.9'")
    return found
