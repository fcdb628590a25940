"""What the demo found: the content of ``report.json``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from sparsecirc import __version__


@dataclass(frozen=True)
class ExportRow:
    """One written artefact: bytes as written, bytes of the dense network, largest difference, what ran it."""

    bytes: int
    bytes_dense: int
    bytes_gzip: int
    max_abs_diff: float | None
    spike_mismatches: int
    ran_with: str


@dataclass(frozen=True)
class ModelRow:
    """Everything about one network of the demo; accuracies are fractions of the test part, the pruned one compiled."""

    name: str
    kind: str
    density: float
    accuracy_dense: float
    accuracy_pruned: float
    us_per_step: Mapping[str, float]
    speedup_vs_best_dense: float | None
    best_dense: str
    verify: Mapping[str, Any]
    bytes_packed: int
    bytes_dense: int
    exports: Mapping[str, ExportRow]


@dataclass(frozen=True)
class DemoReport:
    """Result of `run_demo`; ``to_json`` is ``report.json``."""

    host: Mapping[str, Any]
    models: tuple[ModelRow, ...]
    seconds: float

    def to_json(self) -> dict[str, Any]:
        """JSON-able form."""
        return {
            "version": __version__,
            "host": dict(self.host),
            "seconds": round(self.seconds, 1),
            "models": [asdict(m) for m in self.models],
        }

    def __str__(self) -> str:
        head = (
            "",
            "dense acc",
            "pruned acc",
            "density",
            "us/step",
            "best dense",
            "speed-up",
            "KiB dense",
            "KiB packed",
        )
        rows = [head, *(self._row(m) for m in self.models)]
        widths = [max(len(r[i]) for r in rows) for i in range(len(head))]
        lines = [
            "  ".join(c.ljust(w) if i == 0 else c.rjust(w) for i, (c, w) in enumerate(zip(r, widths, strict=True)))
            for r in rows
        ]
        for m in self.models:
            for name, e in m.exports.items():
                off = "not compared" if e.max_abs_diff is None else f"largest difference {e.max_abs_diff:.1e}"
                spikes = f", {e.spike_mismatches} spikes differ" if m.kind == "spiking" else ""
                lines.append(f"{m.name} as {name}: {e.bytes / 1024:.0f} KiB, {off}{spikes}, ran with {e.ran_with}")
        return "\n".join(lines)

    @staticmethod
    def _row(m: ModelRow) -> tuple[str, ...]:
        best = f"{m.us_per_step[m.best_dense]:.1f} {m.best_dense}" if m.best_dense else "-"
        return (
            m.name,
            f"{m.accuracy_dense:.1%}",
            f"{m.accuracy_pruned:.1%}",
            f"{m.density:.1%}",
            f"{m.us_per_step['sparsecirc']:.2f}",
            best,
            "-" if m.speedup_vs_best_dense is None else f"{m.speedup_vs_best_dense:.1f}x",
            f"{m.bytes_dense / 1024:.0f}",
            f"{m.bytes_packed / 1024:.0f}",
        )
