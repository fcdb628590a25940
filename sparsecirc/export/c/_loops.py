"""Which function of ``runtime/`` multiplies a packed matrix, and with what it is filled in."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sparsecirc.export.c._matrix import Layout, Packed
from sparsecirc.export.c._options import Weights

_UNSIGNED = {np.dtype(np.uint8): "uint8_t", np.dtype(np.uint16): "uint16_t", np.dtype(np.uint32): "uint32_t"}
_VALUE = {Weights.F32: "float", Weights.INT16: "int16_t", Weights.INT8: "int8_t"}


_DEPTH = {"i": 12, "b": 12, "j": 8}
"""Indentation of the loops that count with these variables."""


@dataclass(frozen=True)
class Loop:
    """One function of ``runtime/``.

    Attributes:
        file: the template.
        suffix: of the function's name; two loops with the same one have the same text.
        values: what to fill in.
        needs_dot8: whether it calls the dense 8-bit sum, whose name is to be filled in as ``dot8``.
    """

    file: str
    suffix: str
    values: dict[str, object]
    needs_dot8: bool = False


def value_type(weights: Weights) -> str:
    """C type of a stored weight."""
    return _VALUE[weights]


def loop_of(
    packed: Packed, weights: Weights, *, integers: bool = False, scaled: bool = True, counting: bool = False
) -> Loop:
    """The loop for ``packed``.

    Args:
        packed: the matrix.
        weights: number type of its values.
        integers: whether the inputs are 8-bit integers; only for products by rows of 8-bit weights.
        scaled: whether rows of words have a scale; else the result is in words. By rows.
        counting: whether the result is an array of int32; by columns, of words.
    """
    verb = "add" if packed.by_column else "dot"
    number = "" if weights is Weights.F32 else f"_{_VALUE[weights].removesuffix('_t')}"
    numbers = _numbers(weights, integers, scaled, counting)
    values = {**numbers, **_index(packed), **_tile(packed.rows_per_tile, str(numbers["cast"]), str(numbers["scaled"]))}
    if packed.layout_kind is Layout.SPARSE:
        tile = f"_{packed.rows_per_tile}x1" if packed.rows_per_tile > 1 else ""
        assert packed.index is not None
        bits = f"{'gap' if packed.gaps else 'at'}{8 * packed.index.itemsize}_n{8 * packed.count_dtype.itemsize}"
        shape, suffix = "block" if tile else "sparse", f"{tile}_{bits}"
    else:
        shape = packed.layout_kind.value
        suffix = "" if packed.index is None else f"{8 * packed.index.itemsize}"
    by_8 = integers and packed.layout_kind is not Layout.SPARSE
    file = f"{verb}_{shape}{'_int8' if by_8 else ''}.c"
    name = f"{verb}{'' if shape in ('block', 'sparse') else '_' + shape}{suffix}{number}"
    name += ("_by_8" if integers else "") + ("_counting" if counting else "")
    name += "_unscaled" if weights is not Weights.F32 and not scaled and not packed.by_column else ""
    return Loop(file, name, values, by_8)


def _numbers(weights: Weights, integers: bool, scaled: bool, counting: bool) -> dict[str, object]:
    """Types of weights, inputs and sums, and how a sum enters the result."""
    scaled = scaled and weights is not Weights.F32
    value = ("scale[i] * " if scaled else "") + ("unit * (float)sum" if integers else "sum")
    parameters = ("const float *scale, " if scaled else "") + ("float unit, " if integers else "")
    return {
        "value_t": _VALUE[weights],
        "x_t": "int8_t" if integers else "float",
        "sum_t": "int32_t" if integers else "float",
        "y_t": "int32_t" if counting else "float",
        "cast": "" if integers or counting or weights is Weights.F32 else "(float)",
        "scaled": value,
        "scale_parameter": parameters,
    }


def _index(packed: Packed) -> dict[str, object]:
    if packed.index is None:
        return {}
    across = ("block of rows" if packed.rows_per_tile > 1 else "row") if packed.by_column else "column"
    return {
        "index_t": _UNSIGNED[packed.index.dtype],
        "count_t": _UNSIGNED[packed.count_dtype],
        **{f"start_{v}": f"\n{' ' * wide}uint32_t {v} = 0u;" if packed.gaps else "" for v, wide in _DEPTH.items()},
        **{f"next_{v}": f"{v} +=" if packed.gaps else f"const uint32_t {v} =" for v in _DEPTH},
        "meaning": f"distance from the previous {across}" if packed.gaps else across,
        "r": packed.rows_per_tile,
    }


def _tile(rows: int, cast: str, scaled: str) -> dict[str, object]:
    """Statements for each row of a tile, written out: compilers that save space would leave a loop of four."""
    store = [f"y[i + {r}u] += {scaled.replace('sum', f's{r}').replace('[i]', f'[i + {r}u]')};" for r in range(rows)]
    return {
        "sums": ", ".join(f"s{r} = 0" for r in range(rows)),
        "accumulate": f"\n{' ' * 12}".join(f"s{r} += {cast}w[{r}] * v;" for r in range(rows)),
        "store": f"\n{' ' * 8}".join(store),
        "add": f"\n{' ' * 16}".join(f"to[{r}] += {cast}tile[{r}];" for r in range(rows)),
    }
