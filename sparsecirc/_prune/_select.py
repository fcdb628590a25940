"""Which weights take part in pruning, with how much sparsity, and how what stays alive is chosen."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from fnmatch import fnmatchcase
from typing import Any

from numpy.typing import NDArray

from sparsecirc._pattern import Pattern
from sparsecirc.errors import UsageError
from sparsecirc.patterns import PatternMaker, check_sparsity, unstructured
from sparsecirc.scores import Score, magnitude


class Scope(Enum):
    """Which connections compete for staying alive; the values are what a recipe or the command line spells."""

    PER_GATE = "per-gate"  # each gate block of a weight gets the sparsity
    TENSOR = "tensor"  # the whole stacked matrix
    LAYER = "layer"  # all matrices of a layer: ih, hh, hr
    GLOBAL = "global"  # all selected matrices


@dataclass(frozen=True)
class WeightInfo:
    """One weight matrix, as a selection and the planner see it.

    Attributes:
        name: e.g. ``"rnn.l0.hh"``.
        layer: node or torch layer that owns it, e.g. ``"rnn.l0"``.
        role: ``ih``, ``hh``, ``hr``, ``hh_diag`` or ``weight``.
        kind: ``recurrent``, ``linear``, ``conv`` or ``embedding``.
        gates: gate blocks of equal height along its rows; () where it has one block.
        value: (rows, cols).
        pattern: live connections so far.
        readout: whether it is the last linear layer of the network.
        target: the layer whose units are its rows; empty for ``layer``.
        sources: (layer or input, width) of its columns from left to right; empty where it is not known.
    """

    name: str
    layer: str
    role: str
    kind: str
    gates: tuple[str, ...]
    value: NDArray[Any] = field(repr=False)
    pattern: Pattern
    readout: bool = False
    target: str = ""
    sources: tuple[tuple[str, int], ...] = ()

    def blocks(self) -> Iterator[tuple[str, slice]]:
        """(name, rows) of each gate block, or of the whole where there is one block."""
        height = self.pattern.shape[0] // max(len(self.gates), 1)
        for k, gate in enumerate(self.gates):
            yield f"{self.name}.{gate}", slice(k * height, (k + 1) * height)
        if not self.gates:
            yield self.name, slice(0, height)


Select = Callable[[WeightInfo], bool]
Sparsity = float | Mapping[str | re.Pattern[str], float] | None
"""One number; or numbers by weight or gate name (a glob, or a compiled regular expression matched in full; where two
match, the later one counts); or ``None`` where the pattern implies it, as N:M does."""


def skip_reason(info: WeightInfo) -> str | None:
    """Why the default selection leaves a weight alone; ``None`` where it takes it."""
    if info.kind == "embedding":
        return "embedding"
    if info.role == "hh_diag":
        return "vector, not a matrix"
    return "last linear layer, taken for the read-out" if info.readout else None


def default_select(info: WeightInfo) -> bool:
    """Every ih, hh, hr, linear and convolution matrix, but not the last linear layer, embeddings and vectors."""
    return skip_reason(info) is None


@dataclass(frozen=True)
class Named:
    """Selection by name: matches one of the globs ``include`` and none of ``exclude``."""

    include: tuple[str, ...] = ("*",)
    exclude: tuple[str, ...] = ()

    def __call__(self, info: WeightInfo) -> bool:
        """Whether ``info`` is selected."""
        return any(fnmatchcase(info.name, g) for g in self.include) and not any(
            fnmatchcase(info.name, g) for g in self.exclude
        )


def named(*include: str, exclude: Sequence[str] = ()) -> Named:
    """Selection of the weights that match one of the globs, e.g. ``named("rnn.*", exclude=["*.ih"])``."""
    return Named(include or ("*",), tuple(exclude))


@dataclass(frozen=True)
class Criteria:
    """How to choose what stays alive.

    Attributes:
        score: what a connection is worth.
        pattern: which shapes are allowed.
        scope: who competes with whom.
        select: which weights take part; ``None`` is `default_select`, or with a mapping of sparsities what it names.
        regrow: let dead connections compete too. Otherwise they stay dead, whatever their score.
    """

    score: Score = magnitude
    pattern: PatternMaker = unstructured
    scope: Scope = Scope.PER_GATE
    select: Select | None = None
    regrow: bool = False


def unknown_name(what: str, name: str, known: Sequence[str]) -> UsageError:
    """The error for a name that matches nothing, with the closest one there is."""
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.4)
    hint = f"did you mean '{close[0]}'? " if close else ""
    return UsageError(f"{what} '{name}' matches no weight: {hint}There are {', '.join(known) or 'none'}")


def sparsity_by_block(weights: Sequence[WeightInfo], sparsity: Sparsity, scope: Scope) -> dict[str, float | None]:
    """Sparsity by block name."""
    blocks = {info.name: [name for name, _ in info.blocks()] for info in weights}
    if not isinstance(sparsity, Mapping):
        value = None if sparsity is None else check_sparsity(sparsity)
        return {b: value for names in blocks.values() for b in names}
    out: dict[str, float | None] = {}
    known = list(dict.fromkeys(n for w, names in blocks.items() for n in (w, *names)))
    for key, number in sparsity.items():
        label = key if isinstance(key, str) else key.pattern
        value = check_sparsity(number, f"sparsity of '{label}'")
        hits = [n for n in known if (fnmatchcase(n, key) if isinstance(key, str) else key.fullmatch(n))]
        if not hits:
            raise unknown_name("sparsity for", label, known)
        if scope is not Scope.PER_GATE and not any(n in blocks for n in hits):
            raise UsageError(
                f"sparsity for '{label}' names a gate, the scope is {scope.value}: use the scope per-gate, "
                "or name the weight"
            )
        for name in hits:
            if name in blocks:
                out.update(dict.fromkeys(blocks[name], value))
            elif scope is Scope.PER_GATE:
                out[name] = value
    return out


def check_names(select: Select, weights: Sequence[WeightInfo]) -> None:
    if isinstance(select, Named):
        known = [w.name for w in weights]
        for glob in [*select.include, *select.exclude]:
            if glob != "*" and not any(fnmatchcase(n, glob) for n in known):
                raise unknown_name("selection", glob, known)
