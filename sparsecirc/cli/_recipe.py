"""The recipe of ``prune``: what was asked, checked, and written beside the result so that it can be repeated."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import yaml
from pydantic import BaseModel, ConfigDict, Field, field_validator

from sparsecirc.cli._choices import Adjacency, Budget, Keep, Method, Order, Schedule, Scope
from sparsecirc.cli._console import split_names
from sparsecirc.cli._recipe_checks import check_recipe
from sparsecirc.cli._recipe_file import RecipeFile, build_recipe, read_recipe_file, recipe_path
from sparsecirc.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

    from sparsecirc._prune import Sparsity
    from sparsecirc.ir import Graph
    from sparsecirc.patterns import Lattice
    from sparsecirc.scores import Score


PATTERN_FORMS = "unstructured, block:ROWSxCOLS (block:16x1), N:M (2:4), fan-in:K (fan-in:8), rows, columns"
NEURONS = "neurons"
_WORDS = ("unstructured", "rows", "columns")
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
    if text not in _WORDS:
        raise UsageError(f"pattern '{text}' is unknown: expected one of {PATTERN_FORMS}")
    return {"rows": patterns.rows, "columns": patterns.columns}.get(text, patterns.unstructured)


def numbers(text: str, option: str) -> tuple[float, ...]:
    """The sparsities of an option with commas.

    Raises:
        UsageError: no numbers in [0, 1).
    """
    try:
        found = tuple(float(n) for n in split_names(text, option) or ())
    except ValueError:
        found = (-1.0,)
    if not all(0 <= s < 1 for s in found):
        raise UsageError(f"{option} '{text}' is not understood: expected sparsities from 0 to below 1, e.g. .5,.9,.95")
    return found


class Recipe(BaseModel):
    """Everything that decides the result of ``prune`` besides the model."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    sparsity: float | None = Field(None, ge=0.0, lt=1.0)
    sparsities: dict[str, Annotated[float, Field(ge=0.0, lt=1.0)]] = Field(
        default_factory=dict, description="names with a sparsity for each"
    )
    method: Method = Method.MAGNITUDE
    pattern: str = "unstructured"
    keep_diagonal: bool = False
    scope: Scope = Scope.PER_GATE
    budget: Budget = Budget.UNIFORM
    minimum_density: float = Field(0.0, ge=0.0, le=1.0)
    schedule: Schedule = Schedule.ONE_SHOT
    rounds: int = Field(3, ge=1)
    rewind_to: float = Field(0.0, ge=0.0)
    tolerance: float = Field(0.01, ge=0.0)
    share: float = Field(0.2, gt=0.0, lt=1.0)
    score_samples: int = Field(1000, ge=1)
    data: str | None = None
    epochs: int = Field(0, ge=0)
    learning_rate: float = Field(1e-3, gt=0)
    batch_size: int = Field(64, ge=1)
    seed: int = Field(0, ge=0)
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    lattice_adjacency: Adjacency = Adjacency.BINARY
    lattice_order: Order = Order.ACYCLIC
    lattice_keep: Keep = Keep.COVER
    lattice_threshold: float | None = Field(None, ge=0)
    lattice_centrality: float = Field(0.0, ge=0)
    lattice_ranked: bool = True
    lattice_per_gate: bool = False

    @field_validator("pattern")
    @classmethod
    def _known_pattern(cls, text: str) -> str:
        if text in (*_WORDS, NEURONS) or any(form.fullmatch(text) for form in (_BLOCK, _N_M, _FAN_IN)):
            return text
        raise ValueError(f"expected one of {PATTERN_FORMS}, {NEURONS}")

    def pattern_maker(self) -> Callable[..., Any]:
        """The chosen pattern as the library's callable.

        Raises:
            UsageError: its sizes are out of range.
        """
        if self.method is Method.LATTICE and self.pattern == "unstructured":
            return self._lattice()
        made = pattern_named(self.pattern)
        if not self.keep_diagonal:
            return made
        from sparsecirc.patterns import keep_diagonal

        return keep_diagonal(made)

    @property
    def sparsity_is_implied(self) -> bool:
        """Whether a pattern or a threshold says how many connections stay."""
        fixed = _N_M.fullmatch(self.pattern) or _FAN_IN.fullmatch(self.pattern)
        return bool(fixed) or (self.method is Method.LATTICE and self.lattice_threshold is not None)

    def sparsity_for(self, graph: Graph) -> Sparsity:
        """The sparsity, those by name, or those of the budget for the weights of ``graph``; 0.9 where none was given.

        Raises:
            UsageError: a minimum density that leaves more than the sparsity.
            NothingMatchedError: no weight is selected for the budget.
        """
        if self.sparsities:
            return cast("Sparsity", self.sparsities)
        if self.sparsity_is_implied:
            return self.sparsity
        wanted = 0.9 if self.sparsity is None else self.sparsity
        if self.budget is Budget.UNIFORM:
            return wanted
        from sparsecirc import budgets
        from sparsecirc.ir import Conv

        kernels: dict[str, tuple[int, ...]] = {}
        if self.budget is Budget.ERDOS_RENYI_KERNEL:
            convolutions = [view for view in graph.weights() if isinstance(view.node, Conv)]
            kernels = {view.name: view.node.weight(view.role).shape[2:] for view in convolutions}
        return cast(
            "Sparsity",
            budgets.erdos_renyi_kernel(graph, wanted, kernels, minimum=self.minimum_density, select=self._select()),
        )

    def plain_score(self) -> Score:
        """The score of a method that looks at nothing but weights; magnitude stands for the others.

        Raises:
            UsageError: the options of a lattice contradict each other.
        """
        from sparsecirc import scores

        if self.method is Method.LATTICE and self.pattern not in ("unstructured", NEURONS):
            return scores.lattice(self._lattice())  # any other pattern is ranked by how much of the order it carries
        return scores.random(self.seed) if self.method is Method.RANDOM else scores.magnitude

    def criteria(self, score: Score | None = None) -> dict[str, Any]:
        """How connections are chosen, as the keyword arguments of the library's ``prune``.

        Args:
            score: that of the method where it looks at data; by default `plain_score`.
        """
        from sparsecirc import _prune

        return {
            "score": self.plain_score() if score is None else score,
            "pattern": self.pattern_maker(),
            "scope": _prune.Scope(self.scope.value),
            "select": self._select(),
        }

    def lattice_of_neurons(self) -> Lattice:
        """The lattice that tells which neurons are irreducible.

        Raises:
            UsageError: its options contradict each other.
        """
        from sparsecirc import patterns

        return patterns.lattice(
            adjacency=patterns.Adjacency(self.lattice_adjacency.value),
            order=patterns.Order(self.lattice_order.value),
            keep=patterns.Keep.BOTH,
            threshold=self.lattice_threshold,
            centrality=self.lattice_centrality,
        )

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
            ranked=self.lattice_ranked and self.lattice_adjacency is Adjacency.BINARY,
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
        FileFormatError: the file is missing or not YAML; a name of the package's recipes counts as its file.
        UsageError: an unknown field, or a value out of range; names the file and the line, or the option, the value and
            what is expected.
    """
    file = RecipeFile() if path is None else read_recipe_file(recipe_path(path))
    options = {k: v for k, v in given.items() if v is not None}
    recipe = build_recipe(Recipe, file, options)
    check_recipe(recipe, file, options)
    return recipe
