"""What `compile` decided for each weight matrix, and the table that says why."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True)
class Choice:
    """The kernel of one weight.

    Attributes:
        weight: its name.
        format: the layout it is packed in.
        kernel: full name of the kernel.
        reason: why this one.
        us: measured time of one product in microseconds, ``None`` where nothing was measured.
        candidates: format -> measured microseconds, or the reason why it cannot run.
        nnz: live connections.
        density: live over all.
        nbytes: bytes packed.
        nbytes_dense: bytes of the dense float32 matrix.
        padding: stored values per live connection.
        forced: whether the kernel was asked for; then it serves every batch.
        batched: layout in batches of at least 8 samples (16 of spikes); empty where samples run one after another, or
            where one product serves every batch.
        cached: whether the times were measured by an earlier compile on this machine.
        order: name of the order in which its rows are packed (`sparsecirc.orders`); empty: as given.
        orders: ``"<format>, <order>"`` -> measured microseconds, of every order that was tried.
        padding_as_given: padding of the same format without the order.
    """

    weight: str
    format: str
    kernel: str
    reason: str
    us: float | None
    candidates: Mapping[str, float | str]
    nnz: int
    density: float
    nbytes: int
    nbytes_dense: int
    padding: float
    cached: bool = False
    forced: bool = False
    batched: str = ""
    order: str = ""
    orders: Mapping[str, float] = field(default_factory=dict)
    padding_as_given: float | None = None

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> Choice:
        """Inverse of ``asdict``."""
        return Choice(**data)

    @property
    def why(self) -> str:
        """The reason, with what an order of rows brought and where the times come from."""
        parts = [self.reason]
        if self.order:
            padding = f", padding {self.padding_as_given:.2f} to {self.padding:.2f}" if self.padding_as_given else ""
            given = self.candidates.get(self.format)
            us = f", {given:.2f} to {self.us:.2f} us" if isinstance(given, float) and self.us is not None else ""
            parts.append(f"rows {self.order}{padding}{us}")
        return ", ".join([*parts, "from cache"] if self.cached else parts)


@dataclass(frozen=True)
class Explanation:
    """Every choice of a program.

    Attributes:
        rows: one per weight matrix, in the order of the graph.
        isa: instruction set.
        numpy_nodes: nodes without a native kernel, run in numpy.
    """

    rows: tuple[Choice, ...]
    isa: str
    numpy_nodes: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """JSON-able form."""
        return {"isa": self.isa, "numpy_nodes": list(self.numpy_nodes), "weights": [asdict(r) for r in self.rows]}

    def table(self) -> str:
        """Aligned plain text."""
        head = ("weight", "density", "kernel", "in batches", "us", "KiB", "dense KiB", "padding", "why")
        body = [
            (
                c.weight,
                f"{c.density:.3f}",
                c.kernel,
                c.batched or "same",
                "-" if c.us is None else f"{c.us:.2f}",
                f"{c.nbytes / 1024:.1f}",
                f"{c.nbytes_dense / 1024:.1f}",
                f"{c.padding:.2f}",
                c.why,
            )
            for c in self.rows
        ]
        widths = [max(len(r[i]) for r in [head, *body]) for i in range(len(head) - 1)]
        left = (0, 2, 3)
        lines = [
            "  ".join(
                cell.ljust(w) if i in left else cell.rjust(w)
                for i, (cell, w) in enumerate(zip(r, widths, strict=False))
            )
            + "  "
            + r[-1]
            for r in [head, *body]
        ]
        if self.numpy_nodes:
            lines.append(f"in numpy, without a native kernel: {', '.join(self.numpy_nodes)}")
        return "\n".join(lines)

    def __str__(self) -> str:
        return self.table()

    def to_json_text(self) -> str:
        """JSON text."""
        return json.dumps(self.to_json(), indent=2)
