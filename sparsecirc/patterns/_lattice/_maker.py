"""Lattice pruning as a pattern maker."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from sparsecirc._lattice import Centrality, degree
from sparsecirc._pattern import Pattern
from sparsecirc.errors import UsageError
from sparsecirc.patterns._lattice._choice import (
    Adjacency,
    Choice,
    Keep,
    Order,
    Settings,
    choose,
    masks,
    rank,
    search,
    threshold_of_degree,
    threshold_of_quantile,
)
from sparsecirc.patterns._lattice._explain import LatticeExplanation, explain
from sparsecirc.patterns._lattice._system import Aggregate, Flags, System, build, build_per_gate, gate_max
from sparsecirc.patterns._maker import Scores, Wired, check_scores, check_sparsity

E = TypeVar("E", bound=Enum)
DEGREE = 1.0
"""Of `Order.SCC`: at 2 one component of a random graph holds 0.64 of the neurons already, at 1.5 it holds 0.34."""
QUANTILE = 0.9
Wiring = Mapping[str, Sequence[tuple[str, int]]]


@dataclass(frozen=True)
class Lattice:
    r"""Connections that carry the order of a network (lattice pruning, Sengupta 2025, arXiv:2502.16525).

    The network becomes an order of its neurons, j below i where j acts on i; neurons that are irreducible in the
    smallest lattice that contains the order are critical, and connections are kept by their ends.

    From the paper: the network as a partially ordered set, a dependency lattice, meet-irreducible neurons and
    centrality as criteria, a binary and a continuous adjacency, several layers with top-down feedback. Our definition,
    checked against brute force, since the rest could not be read:

    - S[i, j] is the largest \|w\| over the gates, 0 for i = j. All layers stand in one adjacency: recurrent weights on
      its diagonal, weights between layers beside it.
    - Binary: a connection is there where S > threshold. Continuous: S / max S is closed by widest paths, and a neuron
      counts by the share of all thresholds at which it is irreducible (its persistence).
    - Cycles: light edges that close one are turned away (``acyclic``; greedy feedback arc set, Eades, Lin & Smyth
      1993), or neurons on a cycle are equivalent (``scc``), or one step is unrolled in time (``time``).
    - The lattice is the Dedekind-MacNeille completion; in that of all down-sets nothing would be reducible.
    - A neuron is worth irr + lambda * centrality. A connection is kept where ``either`` end is critical, or ``both``
      are, or where no others imply it (``cover``). The same mask serves all gates.
    - Inputs and read-outs are part of the order but are not judged.

    A sparsity given to `prune` is the wanted density: of a binary adjacency the threshold is searched that comes
    closest; a continuous or ``ranked`` one keeps exactly the round((1 - sparsity) * size) best connections of each
    gate.

    Attributes:
        adjacency: binary or continuous.
        order: what becomes of cycles.
        keep: which connections survive.
        threshold: binary, the strength to exceed (in units of the scores); continuous, the worth of a connection to
            exceed, 0 to 1.
        quantile: binary, threshold at this quantile of the strengths; 0.9 where nothing is said.
        target_degree: binary, threshold at which a neuron has so many connections out on average; 1 for ``scc``
            where nothing is said.
        target_density: share of connections to keep, as a sparsity would say.
        join: judge by join-irreducible instead of meet-irreducible neurons.
        centrality: lambda.
        measure: centrality of the neurons in the adjacency.
        ranked: rank connections by critical or not, then by score, so that any density is met exactly: the lattice's
            choice of neurons, magnitude inside it.
        per_gate: an order for each gate, instead of one over the strongest gate.
        aggregate: how gates are joined.
        cuts: continuous, most thresholds looked at; ``None`` for all different ones.
        wiring: (layer, width) of the columns of a weight, by its name, where the model does not say it.

    Raises:
        UsageError: values out of range, or several thresholds; on use, a component of more than half of the neurons
            (``scc``), or a density that no threshold reaches.
    """

    adjacency: Adjacency = Adjacency.BINARY
    order: Order = Order.ACYCLIC
    keep: Keep = Keep.EITHER
    threshold: float | None = None
    quantile: float | None = None
    target_degree: float | None = None
    target_density: float | None = None
    join: bool = False
    centrality: float = 0.0
    measure: Centrality = degree
    ranked: bool = False
    per_gate: bool = False
    aggregate: Aggregate = gate_max
    cuts: int | None = 256
    wiring: Wiring = field(default_factory=dict)

    def __post_init__(self) -> None:
        given = [n for n in ("threshold", "quantile", "target_degree") if getattr(self, n) is not None]
        if len(given) > 1:
            raise UsageError(f"{' and '.join(given)} both set the threshold of a lattice: give one of them")
        if self.adjacency is Adjacency.CONTINUOUS and (self.quantile is not None or self.target_degree is not None):
            raise UsageError(
                f"{given[0]} is for a binary adjacency: a continuous one takes threshold or target_density"
            )
        if self.target_density is not None and not 0 < self.target_density <= 1:
            raise UsageError(f"target_density is {self.target_density!r}: expected a share above 0, up to 1")
        if self.quantile is not None and not 0 <= self.quantile <= 1:
            raise UsageError(f"quantile is {self.quantile!r}: expected 0 to 1")
        for name in ("threshold", "target_degree", "centrality"):
            value = getattr(self, name)
            if value is not None and not value >= 0:
                raise UsageError(f"{name} is {value!r}: expected 0 or more")

    @property
    def origin(self) -> str:
        """E.g. ``"lattice binary acyclic either"``."""
        words = ["lattice", self.adjacency.value, self.order.value, self.keep.value]
        return " ".join([*words, *(n for n in ("join", "ranked", "per_gate") if getattr(self, n))])

    def __call__(self, scores: NDArray[Any], sparsity: float | None = None, /) -> Pattern:
        """Pattern of one matrix by itself: of a recurrence where it is square, else between inputs and outputs."""
        array = check_scores(scores)
        square = array.shape[0] == array.shape[1]
        source = "units" if square else "inputs"
        return self.joint([Wired("weight", array, (), "units", ((source, array.shape[1]),))], sparsity)[0][0]

    def joint(
        self, matrices: Sequence[Wired], sparsity: float | None = None, /
    ) -> tuple[list[Pattern], tuple[LatticeExplanation, ...]]:
        """A pattern for each matrix, and why each neuron was kept or cut."""
        wired = [self._wired(m) for m in matrices]
        density = self._density(sparsity)
        if not self.per_gate:
            choice, found = self._solve(build(wired, self.aggregate), density)
            return self._patterns(found), (explain(choice, self._settings, found),)
        parts = [(k, *self._solve(s, density)) for k, s in build_per_gate(wired, self.aggregate)]
        joined = [self._stack(m, [(k, found[i]) for k, _, found in parts]) for i, m in enumerate(wired)]
        return self._patterns(joined), tuple(explain(c, self._settings, found) for _, c, found in parts)

    def connection_scores(self, matrix: Wired) -> Scores:
        """What each connection of one weight is worth in its lattice, 0 or more, of the shape of its scores."""
        wired = self._wired(matrix)
        if not self.per_gate:
            choice = self._choose(build([wired], self.aggregate))
            return choice.system.blocks[0].tiled(choice.score)
        parts = [self._choose(system) for _, system in build_per_gate([wired], self.aggregate)]
        return np.concatenate([choice.system.blocks[0].tiled(choice.score) for choice in parts])

    def _choose(self, system: System) -> Choice:
        """What is critical where no density is asked for."""
        binary = self.adjacency is Adjacency.BINARY
        return choose(system, self._settings, self._threshold(system) if binary else self.threshold or 0.0)

    def _wired(self, matrix: Wired) -> Wired:
        sources = self.wiring.get(matrix.name)
        made = matrix if sources is None else replace(matrix, sources=tuple((str(g), int(n)) for g, n in sources))
        return replace(made, scores=check_scores(made.scores))

    @staticmethod
    def _stack(matrix: Wired, parts: Sequence[tuple[int, Flags]]) -> Flags:
        """Masks of the gates one above the other; of a weight without gates, what any gate keeps."""
        if matrix.gates:
            return np.concatenate([found for _, found in parts])
        kept: Flags = np.any([found for _, found in parts], axis=0)
        return kept

    def _patterns(self, found: Sequence[Flags]) -> list[Pattern]:
        return [Pattern.from_mask(mask, self.origin) for mask in found]

    @property
    def _settings(self) -> Settings:
        return Settings(self.adjacency, self.order, self.keep, self.join, self.centrality, self.measure, self.cuts)

    def _density(self, sparsity: float | None) -> float | None:
        if sparsity is None:
            wanted = self.target_density
        else:
            wanted = 1.0 - check_sparsity(sparsity)
            if self.target_density is not None and abs(wanted - self.target_density) > 1e-9:
                raise UsageError(
                    f"sparsity {sparsity} and target_density {self.target_density} contradict each other: give one"
                )
        fixed = [n for n in ("threshold", "quantile", "target_degree") if getattr(self, n) is not None]
        if wanted is not None and fixed and not self.ranked:
            raise UsageError(
                f"{fixed[0]} already decides how much a lattice prunes: leave it or the sparsity out (sparsity None), "
                "or rank the connections with ranked=True"
            )
        return wanted

    def _solve(self, system: System, density: float | None) -> tuple[Choice, list[Flags]]:
        if density is not None and self.adjacency is Adjacency.BINARY and not self.ranked:
            choice = search(system, self._settings, density)
            return choice, masks(choice)
        choice = self._choose(system)
        return choice, masks(choice) if density is None else rank(choice, density)

    def _threshold(self, system: System) -> float:
        if self.threshold is not None:
            return self.threshold
        if self.target_degree is not None or (self.order is Order.SCC and self.quantile is None):
            return threshold_of_degree(system, DEGREE if self.target_degree is None else self.target_degree)
        return threshold_of_quantile(system, QUANTILE if self.quantile is None else self.quantile)


def lattice(
    adjacency: Adjacency | str = Adjacency.BINARY,
    order: Order | str = Order.ACYCLIC,
    keep: Keep | str = Keep.EITHER,
    *,
    threshold: float | None = None,
    quantile: float | None = None,
    target_degree: float | None = None,
    target_density: float | None = None,
    join: bool = False,
    centrality: float = 0.0,
    measure: Centrality = degree,
    ranked: bool = False,
    per_gate: bool = False,
    aggregate: Aggregate = gate_max,
    cuts: int | None = 256,
    wiring: Wiring | None = None,
) -> Lattice:
    """Maker of lattice patterns; choices may be given by name. Arguments and errors as `Lattice`."""
    return Lattice(
        _coerce(Adjacency, "adjacency", adjacency),
        _coerce(Order, "order", order),
        _coerce(Keep, "keep", keep),
        threshold=threshold,
        quantile=quantile,
        target_degree=target_degree,
        target_density=target_density,
        join=join,
        centrality=centrality,
        measure=measure,
        ranked=ranked,
        per_gate=per_gate,
        aggregate=aggregate,
        cuts=cuts,
        wiring=wiring or {},
    )


def _coerce(kind: type[E], name: str, value: Any) -> E:
    try:
        return kind(value)
    except ValueError:
        choices = ", ".join(str(k.value) for k in kind)
        raise UsageError(f"{name} is {value!r}: expected one of {choices}") from None
