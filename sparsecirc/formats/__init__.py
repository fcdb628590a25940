"""Layouts of a weight matrix for one loop: `Packed`, and the formats by name."""

from sparsecirc._target import Isa
from sparsecirc.formats._blocks import BLOCK_SHAPES, BLOCKS
from sparsecirc.formats._diagonal import BLOCK_DIAGONAL, MOST_PADDING, block_diagonal_padding
from sparsecirc.formats._integer import DENSE8, DENSE16, lookup8, lookup8_for, lookup16, lookup16_for
from sparsecirc.formats._lookup import lookup, lookup_bf16, lookup_bf16_for, lookup_for, mantissa, mantissa_for
from sparsecirc.formats._packed import Format, Grid, Packed, Tile
from sparsecirc.formats._plain import COLUMNS, COLUMNS16, CSR, DENSE, TILED_CSR


def formats_for(isa: Isa, dtype: str = "f32") -> dict[str, Format]:
    """Formats by name that hold weights of ``dtype``, with the windows that ``isa`` reads.

    Those of ``"bf16"`` include the float32 ones; integers stand beside them, for recurrent weights only.
    """
    if dtype == "int16":
        return {f.name: f for f in (lookup16_for(isa), DENSE16)}
    if dtype == "int8":
        return {f.name: f for f in (lookup8_for(isa), DENSE8)}
    rounded = (lookup_bf16_for(isa),) if dtype == "bf16" else ()
    tiled = (lookup_for(isa), mantissa_for(isa), *rounded)
    return {f.name: f for f in (DENSE, CSR, *BLOCKS.values(), BLOCK_DIAGONAL, *tiled, COLUMNS, COLUMNS16)}


def every_format(isa: Isa) -> dict[str, Format]:
    """Every format of every number type by name, with the windows that ``isa`` reads."""
    tiled = {TILED_CSR.name: TILED_CSR}
    return {**formats_for(isa, "bf16"), **tiled, **formats_for(isa, "int16"), **formats_for(isa, "int8")}


__all__ = [
    "BLOCKS",
    "BLOCK_DIAGONAL",
    "BLOCK_SHAPES",
    "COLUMNS",
    "COLUMNS16",
    "CSR",
    "DENSE",
    "DENSE8",
    "DENSE16",
    "MOST_PADDING",
    "TILED_CSR",
    "Format",
    "Grid",
    "Packed",
    "Tile",
    "block_diagonal_padding",
    "every_format",
    "formats_for",
    "lookup",
    "lookup8",
    "lookup8_for",
    "lookup16",
    "lookup16_for",
    "lookup_bf16",
    "lookup_bf16_for",
    "lookup_for",
    "mantissa",
    "mantissa_for",
]
