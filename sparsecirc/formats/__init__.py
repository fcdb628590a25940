"""Layouts of a weight matrix for one loop: `Packed`, and the formats by name."""

from sparsecirc._target import Isa
from sparsecirc.formats._blocks import BLOCK_SHAPES, BLOCKS
from sparsecirc.formats._integer import DENSE8, DENSE16, lookup16, lookup16_for
from sparsecirc.formats._lookup import Tile, lookup, lookup_for, mantissa, mantissa_for
from sparsecirc.formats._packed import Format, Grid, Packed
from sparsecirc.formats._plain import COLUMNS, COLUMNS16, CSR, DENSE, TILED_CSR


def formats_for(isa: Isa) -> dict[str, Format]:
    """Every format by name, with the tiles that ``isa`` reads."""
    tiled = (lookup_for(isa), mantissa_for(isa))
    return {f.name: f for f in (DENSE, CSR, *BLOCKS.values(), *tiled, COLUMNS, COLUMNS16)}


def every_format(isa: Isa) -> dict[str, Format]:
    """Every format of every number type by name, with the tiles that ``isa`` reads."""
    tiled = {TILED_CSR.name: TILED_CSR}
    return {**formats_for(isa), **tiled, **integer_formats("int16", isa), **integer_formats("int8", isa)}


def integer_formats(dtype: str, isa: Isa) -> dict[str, Format]:
    """Formats of the recurrent weights of an integer target: ``"int16"`` or ``"int8"``."""
    return {f.name: f for f in {"int16": (lookup16_for(isa), DENSE16), "int8": (DENSE8,)}.get(dtype, ())}


__all__ = [
    "BLOCKS",
    "BLOCK_SHAPES",
    "COLUMNS",
    "COLUMNS16",
    "CSR",
    "DENSE",
    "DENSE8",
    "DENSE16",
    "TILED_CSR",
    "Format",
    "Grid",
    "Packed",
    "Tile",
    "every_format",
    "formats_for",
    "integer_formats",
    "lookup",
    "lookup16",
    "lookup16_for",
    "lookup_for",
    "mantissa",
    "mantissa_for",
]
