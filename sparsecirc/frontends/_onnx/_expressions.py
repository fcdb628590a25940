"""What the body of a loop computes in one step, as an expression of the step's input and the states before it.

Vectors are kept as sums of products with constant matrices, so that the weights of a cell can be read off however an
exporter wrote them: fused or gate by gate, with biases added anywhere, sliced before an activation or after it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from sparsecirc.frontends._onnx._values import Array


@dataclass(frozen=True, eq=False)
class Leaf:
    """The input of the step, or a state before it."""

    name: str
    size: int


@dataclass(frozen=True, eq=False)
class Act:
    """A pointwise function of a vector: Sigmoid, Tanh or Relu."""

    kind: str
    of: Expression

    @property
    def size(self) -> int:
        """Entries."""
        return self.of.size


@dataclass(frozen=True, eq=False)
class Product:
    """Two vectors multiplied entry by entry."""

    a: Expression
    b: Expression

    @property
    def size(self) -> int:
        """Entries."""
        return self.a.size


@dataclass(frozen=True, eq=False)
class Sum:
    """``bias + sum over terms of matrix @ term``; a matrix is ``None`` where it is the identity."""

    terms: Mapping[Leaf | Act | Product, Array | None]
    bias: Array

    @property
    def size(self) -> int:
        """Entries."""
        return len(self.bias)


Expression: TypeAlias = Leaf | Act | Product | Sum


def _sum(e: Expression) -> Sum:
    return e if isinstance(e, Sum) else Sum({e: None}, np.zeros(e.size))


def _plain(e: Expression) -> Expression:
    """The one term of a sum that is nothing else."""
    if isinstance(e, Sum) and len(e.terms) == 1 and not np.any(e.bias):
        term, matrix = next(iter(e.terms.items()))
        return term if matrix is None else e
    return e


def constant(values: Array, size: int) -> Sum:
    """A vector of numbers."""
    return Sum({}, np.array(np.broadcast_to(np.asarray(values, np.float64).ravel(), (size,))))


def add(a: Expression, b: Expression) -> Expression:
    """A + b."""
    left, right = _sum(a), _sum(b)
    terms = dict(left.terms)
    for term, matrix in right.terms.items():
        if term in terms:
            both = [np.eye(left.size) if m is None else m for m in (terms[term], matrix)]
            terms[term] = both[0] + both[1]
        else:
            terms[term] = matrix
    return _plain(Sum(terms, left.bias + right.bias))


def scale(e: Expression, by: Array) -> Expression:
    """Each entry times a number."""
    factor = np.broadcast_to(np.asarray(by, np.float64).ravel(), (e.size,))
    found = _sum(e)
    if np.all(factor == 1):
        return e
    terms = {t: np.diag(factor) if m is None else factor[:, None] * m for t, m in found.terms.items()}
    return Sum(terms, factor * found.bias)


def times(e: Expression, weight: Array) -> Expression:
    """``e @ weight`` with a constant (in, out)."""
    matrix, found = np.asarray(weight, np.float64).T, _sum(e)
    terms = {t: matrix if m is None else matrix @ m for t, m in found.terms.items()}
    return Sum(terms, matrix @ found.bias)


def product(a: Expression, b: Expression) -> Expression:
    """A b, entry by entry."""
    for one, other in ((a, b), (b, a)):
        if isinstance(one, Sum) and not one.terms:
            return scale(other, one.bias)
    return Product(_plain(a), _plain(b))


def part(e: Expression, which: slice) -> Expression:
    """Some entries: of the matrices, and inside of activations and products."""
    size = len(range(*which.indices(e.size)))
    if size == e.size and (which.step or 1) > 0:
        return e
    if isinstance(e, Act):
        return Act(e.kind, part(e.of, which))
    if isinstance(e, Product):
        return Product(part(e.a, which), part(e.b, which))
    if isinstance(e, Leaf):
        return Sum({e: np.eye(e.size)[which]}, np.zeros(size))
    result: Expression = Sum({}, e.bias[which])
    for term, matrix in e.terms.items():
        result = add(result, part(term, which) if matrix is None else Sum({term: matrix[which]}, np.zeros(size)))
    return result


def joined(parts: Sequence[Expression]) -> Expression:
    """Entries of several vectors behind each other."""
    size, low = sum(p.size for p in parts), 0
    result: Expression = Sum({}, np.zeros(size))
    for p in parts:
        place = np.zeros((p.size, size))
        place[:, low : low + p.size] = np.eye(p.size)
        result, low = add(result, times(p, place)), low + p.size
    return result


def evaluate(e: Expression, at: Mapping[str, Array], known: dict[Expression, Array] | None = None) -> Array:
    """Numbers (B, size) for numbers (B, n) of the leaves."""
    found = {} if known is None else known
    if e not in found:
        if isinstance(e, Leaf):
            found[e] = at[e.name]
        elif isinstance(e, Act):
            x = evaluate(e.of, at, found)
            found[e] = np.tanh(x) if e.kind == "Tanh" else sigmoid(x) if e.kind == "Sigmoid" else np.maximum(x, 0)
        elif isinstance(e, Product):
            found[e] = evaluate(e.a, at, found) * evaluate(e.b, at, found)
        else:
            total = np.broadcast_to(e.bias, (len(next(iter(at.values()))), e.size))
            for term, matrix in e.terms.items():
                value = evaluate(term, at, found)
                total = total + (value if matrix is None else value @ matrix.T)
            found[e] = total
    return found[e]


def sigmoid(x: Array) -> Array:
    """1 / (1 + exp(-x))."""
    return 0.5 * (1 + np.tanh(0.5 * x))


def activations(e: Expression, seen: set[Expression] | None = None) -> Iterator[Act]:
    """All activations inside an expression, each once."""
    known = set() if seen is None else seen
    if e in known:
        return
    known.add(e)
    if isinstance(e, Act):
        yield e
        yield from activations(e.of, known)
    elif isinstance(e, Product):
        yield from activations(e.a, known)
        yield from activations(e.b, known)
    elif isinstance(e, Sum):
        for term in e.terms:
            yield from activations(term, known)
