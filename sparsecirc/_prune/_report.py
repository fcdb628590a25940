"""What pruning does, as a table and as JSON."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field

from sparsecirc._pattern import Pattern
from sparsecirc.patterns import Explained, combined_digest


@dataclass(frozen=True)
class PruneRow:
    """One line of a report: a weight, or one of its gates."""

    name: str
    shape: tuple[int, int]
    nnz_before: int
    nnz_after: int
    density: float
    digest: str
    origin: str
    gate: bool = False


def rows_of(name: str, gates: Sequence[str], before: Pattern, after: Pattern) -> list[PruneRow]:
    """The line of a weight, then those of its gates."""

    def row(label: str, old: Pattern, new: Pattern, gate: bool) -> PruneRow:
        return PruneRow(label, new.shape, old.nnz, new.nnz, new.density, new.digest, new.origin, gate)

    height = after.shape[0] // max(len(gates), 1)
    spans = [(f"{name}.{g}", k * height, (k + 1) * height) for k, g in enumerate(gates)]
    parts = [row(label, before.row_block(i, j), after.row_block(i, j), True) for label, i, j in spans]
    return [row(name, before, after, False), *parts]


def format_rows(rows: Iterable[PruneRow], per_gate: bool = False) -> str:
    """Plain-text table, one line per weight and, where asked, per gate; the last line is the sum over the weights."""
    shown = [r for r in rows if per_gate or not r.gate]
    cells = [_cells(r) for r in shown]
    whole = [r for r in shown if not r.gate]
    size = sum(r.shape[0] * r.shape[1] for r in whole)
    live = sum(r.nnz_after for r in whole)
    density = f"{live / size if size else 0:.4f}"
    cells.append(("total", str(size), str(sum(r.nnz_before for r in whole)), str(live), density, "", ""))
    head = ("weight", "shape", "nnz before", "nnz after", "density", "digest", "pattern")
    widths = [max(len(row[k]) for row in [head, *cells]) for k in range(len(head))]
    left = {0, 5, 6}
    lines = [
        "  ".join(c.ljust(w) if k in left else c.rjust(w) for k, (c, w) in enumerate(zip(row, widths, strict=True)))
        for row in [head, *cells]
    ]
    return "\n".join(line.rstrip() for line in lines)


def _cells(r: PruneRow) -> tuple[str, ...]:
    shape = f"{r.shape[0]}x{r.shape[1]}"
    return r.name, shape, str(r.nnz_before), str(r.nnz_after), f"{r.density:.4f}", r.digest, r.origin


@dataclass(frozen=True)
class PruneReport:
    """What pruning does.

    Attributes:
        patterns: new pattern by weight name.
        rows: weights and their gates, before and after.
        skipped: (name, why) of what is left as it is.
        explanations: of a pattern that says why it chose as it did (lattice); else ().
    """

    patterns: Mapping[str, Pattern] = field(repr=False)
    rows: tuple[PruneRow, ...]
    skipped: tuple[tuple[str, str], ...] = ()
    explanations: tuple[Explained, ...] = ()

    @property
    def density(self) -> float:
        """Live connections over all, over the pruned weights."""
        size = sum(p.shape[0] * p.shape[1] for p in self.patterns.values())
        return sum(p.nnz for p in self.patterns.values()) / size if size else 0.0

    @property
    def digest(self) -> str:
        """16 hex digits over the names and patterns, as `Masks.digest`; the same in every run."""
        return combined_digest(self.patterns)

    def table(self, *, per_gate: bool = False) -> str:
        """Plain-text table; ends with what was skipped and why."""
        skips = [f"skipped {name}: {why}" for name, why in self.skipped]
        return "\n".join([format_rows(self.rows, per_gate), *skips])

    def to_json(self) -> str:
        """The same as JSON."""
        return json.dumps(
            {
                "density": self.density,
                "digest": self.digest,
                "weights": [asdict(r) for r in self.rows],
                "skipped": [{"name": n, "reason": w} for n, w in self.skipped],
            }
        )
