"""``--pattern neurons``: whole units leave the network, and its matrices shrink."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sparsecirc.cli._choices import Method
from sparsecirc.cli._models import Loaded, smaller_model
from sparsecirc.ir import Graph
from sparsecirc.patterns import Explained

if TYPE_CHECKING:
    from sparsecirc.cli._recipe import Recipe
    from sparsecirc.scores import Score

Kept = Mapping[str, NDArray[np.bool_]]


@dataclass(frozen=True)
class Smaller:
    """A network that has lost units.

    Attributes:
        loaded: the smaller network, which knows how to be built again.
        kept: flags of the units of each layer that lost some.
        explanations: why, where a lattice chose.
    """

    loaded: Loaded
    kept: Kept
    explanations: tuple[Explained, ...]

    def counts(self) -> dict[str, dict[str, int]]:
        """Units before and after, by layer."""
        return {name: {"before": len(flags), "after": int(flags.sum())} for name, flags in self.kept.items()}


def without_units(loaded: Loaded, recipe: Recipe, model: Any, score: Score) -> Smaller:
    """The network without the units that are worth least, or without those that a lattice calls reducible.

    Args:
        loaded: the network.
        recipe: sparsity (share of units that go) and method.
        model: its torch module, or ``None``; it stays as it is.
        score: of connections.

    Raises:
        UsageError: see `rank_units` and the options of the lattice.
        NothingMatchedError: no layer has units that could go.
        UnsupportedError: something reads them that cannot be made smaller.
    """
    from sparsecirc import rank_units, remove_units

    graph = loaded.graph
    explanations: tuple[Explained, ...] = ()
    if recipe.method is Method.LATTICE:
        kept, explanations = _irreducible(graph, recipe)
    else:
        kept = rank_units(graph, 0.9 if recipe.sparsity is None else recipe.sparsity, score=score)
    numbers = {name: np.flatnonzero(flags).tolist() for name, flags in kept.items()}
    origin = {**loaded.origin, "kept_units": [*loaded.origin.get("kept_units", []), numbers]}
    if model is None:
        small = replace(loaded, stored=remove_units(graph, kept), program=None, origin=origin)
    else:
        small = replace(loaded, model=smaller_model(loaded, model, numbers), stored=None, program=None, origin=origin)
    return Smaller(small, kept, explanations)


def _irreducible(graph: Graph, recipe: Recipe) -> tuple[Kept, tuple[Explained, ...]]:
    """Irreducible units of every layer that may lose some, and why."""
    from sparsecirc import plan, rank_units
    from sparsecirc.patterns import LatticeExplanation

    report = plan(graph, None, pattern=recipe.lattice_of_neurons())
    (why,) = report.explanations
    assert isinstance(why, LatticeExplanation)
    may = rank_units(graph, 0.0)
    return {name: flags for name, flags in why.critical().items() if name in may}, report.explanations
