"""`Node`: the base of every operation of a `Graph`.

Values are numpy arrays. A *sequence* value has shape (T, B, *features), a *static* one (B, *features). A value is
named by its node, with a port where a node has several: ``"rnn.l0"``, ``"rnn.l0.c"``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, TypeVar

import numpy as np
from numpy.typing import NDArray

from sparsecirc._pattern import Pattern
from sparsecirc.errors import UsageError

Array = NDArray[Any]
Values = Sequence[Array]
State = dict[str, Array]
N = TypeVar("N", bound="Node")


@dataclass(frozen=True)
class Spec:
    """Shape of one value without time and batch.

    Attributes:
        shape: feature axes; () for an index into an embedding.
        time: whether it is a sequence.
        spikes: whether its entries are known to be 0 or 1, mostly 0: then products may go by events. No part of
            equality: what can be combined does not depend on it.
    """

    shape: tuple[int, ...]
    time: bool
    spikes: bool = field(default=False, compare=False)


@dataclass(frozen=True)
class Context:
    """What a node may ask while it computes: number type, and valid length per sample."""

    dtype: Any
    lengths: NDArray[np.int64] | None


@dataclass(frozen=True)
class Node:
    """One operation.

    Attributes:
        name: unique in the graph; dots allowed, the empty string not.
        inputs: names of the values it reads.
        params: arrays by role, e.g. ``"ih"`` (out, in), ``"bias_ih"`` (out,).
        patterns: live connections by role, for the roles that are pruned.
    """

    name: str
    inputs: tuple[str, ...] = ()
    params: Mapping[str, Array] = field(default_factory=dict)
    patterns: Mapping[str, Pattern] = field(default_factory=dict)

    kind: ClassVar[str] = ""
    matrix_roles: ClassVar[tuple[str, ...]] = ()  # roles that are weight matrices and may carry a pattern

    def ports(self) -> tuple[str, ...]:
        """Names of the outputs; the first is the default one."""
        return ("",)

    def states(self) -> dict[str, tuple[int, ...]]:
        """What it carries between calls: name -> feature shape."""
        return {}

    def infer(self, inputs: Sequence[Spec]) -> dict[str, Spec]:
        """Specs of the outputs by port.

        Raises:
            UsageError: the inputs do not fit this node.
        """
        raise NotImplementedError(self.kind)

    def compute(self, inputs: Values, state: State, ctx: Context) -> tuple[dict[str, Array], State]:
        """Outputs by port, and the new state, at the precision of ``ctx.dtype``."""
        raise NotImplementedError(self.kind)

    def attrs(self) -> dict[str, Any]:
        """JSON-able fields beyond name, inputs, params and patterns."""
        return {}

    def gates(self, role: str) -> tuple[str, ...]:
        """Gate names stacked along the rows of a weight role; () where it has none."""
        return ()

    def weight(self, role: str) -> Array:
        """The parameter ``role`` with exact zeros at dead connections."""
        value = self.params[role]
        return self.patterns[role].apply(value) if role in self.patterns else value

    def cast(self, role: str, ctx: Context) -> Array | None:
        """The masked parameter at the working precision, or ``None`` where it is absent."""
        return self.weight(role).astype(ctx.dtype, copy=False) if role in self.params else None

    def with_params(self: N, **params: Array) -> N:
        """The same node with some parameters replaced."""
        return replace(self, params={**self.params, **params})

    def with_patterns(self: N, **patterns: Pattern) -> N:
        """The same node with some patterns replaced."""
        for role, pattern in patterns.items():
            if role not in self.params:
                raise UsageError(f"node '{self.name}' has no weight '{role}': it has {sorted(self.params)}")
            shape = self.params[role].shape
            rows = shape[0] if len(shape) > 1 else 1
            if pattern.shape != (rows, int(np.prod(shape)) // max(rows, 1)):
                raise UsageError(f"weight '{self.name}.{role}' has shape {shape}, the pattern {pattern.shape}")
        return replace(self, patterns={**self.patterns, **patterns})

    def _one(self, inputs: Sequence[Spec]) -> Spec:
        if len(inputs) != 1:
            raise UsageError(f"node '{self.name}' ({self.kind}) takes one input, got {len(inputs)}")
        return inputs[0]


def product(x: Array, weight: Array) -> Array:
    """X W^T along the last axis of ``x``; an empty x or weight gives exact zeros of the right shape."""
    return np.asarray(x @ weight.T)
