"""What a C export may trade: number type of the weights, index encoding, arithmetic, activations."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

import numpy as np
from numpy.typing import DTypeLike

from sparsecirc.errors import UsageError


class Weights(str, Enum):
    """Number type of stored weights; the integers have one scale per row of a matrix, symmetric about zero."""

    F32 = "f32"
    INT16 = "int16"
    INT8 = "int8"

    @property
    def dtype(self) -> DTypeLike:
        """Of the stored words."""
        return {Weights.F32: np.float32, Weights.INT16: np.int16, Weights.INT8: np.int8}[self]

    @property
    def top(self) -> int:
        """Largest magnitude of a word; 0 for f32."""
        return {Weights.F32: 0, Weights.INT16: 32767, Weights.INT8: 127}[self]


class Index(str, Enum):
    """How sparse weights say where they belong.

    ``AUTO`` takes the layout with the fewest bytes, dense and runs included. ``RUNS`` groups lines that share their
    columns and stores first and length of each run once a group: next to no index for block-diagonal, modular and
    compacted matrices. ``ABSOLUTE`` has a position, ``GAPS`` a distance in a byte per value or tile; ``NONE`` stores
    the zeros.
    """

    AUTO = "auto"
    RUNS = "runs"
    ABSOLUTE = "absolute"
    GAPS = "gaps"
    NONE = "none"


class Activations(str, Enum):
    """tanh and sigmoid: of the C library, or `FAST_TANH_ERROR` away from it at a fraction of the instructions."""

    EXACT = "exact"
    FAST = "fast"


class Arithmetic(str, Enum):
    """How products of real inputs are summed: in single precision, or with inputs rounded to 8 bits, in integers."""

    FLOAT = "float"
    INT8 = "int8"


class Neurons(str, Enum):
    """Membranes of spiking layers and leaky integrators: single precision, or 32-bit integers (`fixed`)."""

    FLOAT = "float"
    FIXED = "fixed"


FAST_TANH_ERROR = 1.5e-6
"""Largest absolute error of the fast tanh in single precision; of the fast sigmoid half of it."""


@dataclass(frozen=True)
class COptions:
    """Trade-offs of `export_c`. The default is exact: what ``interpret`` computes, within single precision.

    Attributes:
        weights: of matrices, convolutions and embeddings. Biases and vectors stay float.
        index: the layouts to choose from.
        arithmetic: ``INT8`` rounds the input of every product with real inputs to 8 bits, with one scale for the whole
            vector (1 / 127 for states that lie in [-1, 1]), and needs ``weights`` int8. Products with spikes are sums
            of words either way.
        activations: see `Activations`; the fast ones give the same bits on every machine.
        neurons: ``FIXED`` computes layers of ``lif``, ``synaptic`` and ``alif`` cells, and of ``li`` cells that have
            weights (a linear layer before them counts), in integers; needs integer weights. What drives neurons
            behind a convolution or a pool is computed in single precision. Others stay in it.

    Raises:
        UsageError: integer arithmetic with weights that are not int8, or fixed point with float weights.
    """

    weights: Weights = Weights.F32
    index: Index = Index.AUTO
    arithmetic: Arithmetic = Arithmetic.FLOAT
    activations: Activations = Activations.EXACT
    neurons: Neurons = Neurons.FLOAT

    def __post_init__(self) -> None:
        if self.fixed and self.weights is Weights.F32:
            raise UsageError("neurons in fixed point need integer weights, got f32: expected weights int8 or int16")
        if self.arithmetic is Arithmetic.INT8 and self.weights is not Weights.INT8:
            raise UsageError(
                f"integer arithmetic needs 8-bit weights, got {self.weights.value}: expected weights int8, or "
                "arithmetic float"
            )

    @property
    def fixed(self) -> bool:
        """Whether neurons are computed in fixed point."""
        return self.neurons is Neurons.FIXED

    @property
    def inexact(self) -> bool:
        """Whether the code computes something else than the network, within single precision."""
        return self.weights is not Weights.F32 or self.activations is Activations.FAST

    @property
    def form(self) -> str:
        """The choice in words, e.g. ``"c99 int8, fast activations"``."""
        number = {Weights.F32: "float32"}.get(self.weights, self.weights.value)
        parts = [f"c99 {number}"]
        if self.arithmetic is Arithmetic.INT8:
            parts[0] += " x int8"
        if self.index is not Index.AUTO:
            parts.append(f"index {self.index.value}")
        if self.activations is Activations.FAST:
            parts.append("fast activations")
        if self.fixed:
            parts.append("fixed-point neurons")
        return ", ".join(parts)
