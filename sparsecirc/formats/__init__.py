"""Layouts of a weight matrix for one loop: `Packed`, and the formats by name."""

from sparsecirc._target import Isa
from sparsecirc.formats._blocks import BLOCK4X4, BLOCK16X1
from sparsecirc.formats._lookup import lookup, lookup_for, mantissa, mantissa_for
from sparsecirc.formats._packed import Format, Packed
from sparsecirc.formats._plain import COLUMNS, CSR, DENSE


def formats_for(isa: Isa) -> dict[str, Format]:
    """Every format by name, with the tiles that ``isa`` reads."""
    return {f.name: f for f in (DENSE, CSR, BLOCK16X1, BLOCK4X4, lookup_for(isa), mantissa_for(isa), COLUMNS)}


__all__ = [
    "BLOCK4X4",
    "BLOCK16X1",
    "COLUMNS",
    "CSR",
    "DENSE",
    "Format",
    "Packed",
    "formats_for",
    "lookup",
    "lookup_for",
    "mantissa",
    "mantissa_for",
]
