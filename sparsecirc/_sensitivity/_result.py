"""What `sensitivity` found: numbers, a table, a picture, and a recipe."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import yaml

from sparsecirc._sensitivity._draw import draw, sparkline
from sparsecirc.errors import NothingMatchedError


@dataclass(frozen=True)
class Point:
    """One pruned network beside the network as it is.

    Attributes:
        sparsity: of what was pruned.
        error: ``|y' - y| / |y|`` in the Euclidean norm over all entries of an output; the worst output.
        largest: ``max |y' - y| / max |y|``; the worst output.
        accuracy: share of labels met; ``None`` without labels.
        drift: by time step, ``|s'_t - s_t|`` over the root mean square of ``|s_t|`` over the steps, where s is the
            recurrent state (batch and units together) that departs most; () where no recurrent layer changes.
        drift_of: that state, ``"layer.state"``.
    """

    sparsity: float
    error: float
    largest: float
    accuracy: float | None
    drift: tuple[float, ...]
    drift_of: str

    @property
    def drift_last(self) -> float:
        """Drift at the last step that the layer computes."""
        return self.drift[-1] if self.drift else 0.0

    @property
    def drift_largest(self) -> float:
        """Largest drift over the steps."""
        return max(self.drift, default=0.0)


@dataclass(frozen=True)
class WeightSensitivity:
    """One weight, or one gate of it, pruned alone.

    Attributes:
        name: ``"rnn.l0.hh"``, or for a gate ``"rnn.l0.hh.f"``.
        shape: (rows, columns).
        gate: whether it is a gate of the weight above it.
        points: one per level.
        safe: the largest level up to which every level is within the tolerance; 0 where none is.
    """

    name: str
    shape: tuple[int, int]
    gate: bool
    points: tuple[Point, ...]
    safe: float


@dataclass(frozen=True)
class Sensitivity:
    """Result of `sensitivity`.

    Attributes:
        rows: weights, each followed by its gates.
        levels: sparsities, ascending.
        tolerance: largest loss that counts as safe: of accuracy where there are labels, else `Point.error`.
        accuracy: of the network as it is; ``None`` without labels.
        proposal: sparsity by weight or gate name such that all of them *together* stay within the tolerance.
        proposed: the network pruned by ``proposal``; ``None`` where that is empty.
        samples, steps: size of the input; ``steps`` is 1 where nothing has time.
    """

    rows: tuple[WeightSensitivity, ...]
    levels: tuple[float, ...]
    tolerance: float
    accuracy: float | None
    proposal: Mapping[str, float]
    proposed: Point | None
    samples: int
    steps: int

    def loss(self, point: Point) -> float:
        """What is compared with the tolerance: accuracy lost, or the relative error of the output."""
        return loss_of(point, self.accuracy)

    def recipe(self, *, alone: bool = False) -> dict[str, float]:
        """Sparsity by name, for `prune` and `Masks.prune` as they are.

        Args:
            alone: what each weight and gate would bear if the others stayed as they are. Errors add up, so all of it at
                once is usually too much; by default it is the proposal, which was measured as a whole.

        Raises:
            NothingMatchedError: nothing can be pruned within the tolerance.
        """
        found = {row.name: row.safe for row in self.leaves if row.safe > 0} if alone else dict(self.proposal)
        if not found:
            raise NothingMatchedError(
                f"no weight bears a sparsity of {self.levels[0]:g} within the tolerance {self.tolerance:g}: "
                "use a larger tolerance or lower levels, or train on after pruning"
            )
        return found

    def recipe_yaml(self, **fields: Any) -> str:
        """`recipe` as a file for ``sparsecirc prune --recipe``, with other ``fields`` of a recipe beside it.

        Raises:
            NothingMatchedError: nothing can be pruned within the tolerance.
        """
        text: str = yaml.safe_dump({"sparsities": self.recipe(), **fields}, sort_keys=False)
        return text

    @property
    def leaves(self) -> tuple[WeightSensitivity, ...]:
        """The gates, and the weights that have none."""
        weights = {row.name.rpartition(".")[0] for row in self.rows if row.gate}
        return tuple(row for row in self.rows if row.name not in weights)

    @property
    def proposed_sparsity(self) -> float:
        """Share of the measured weights that the proposal removes."""
        sizes = {row.name: math.prod(row.shape) for row in self.leaves}
        return sum(sizes[name] * s for name, s in self.proposal.items()) / (sum(sizes.values()) or 1)

    def cells(self) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
        """Headings and cells of the table; sparklines are of the loss over the levels and of the drift over time."""
        head = ("weight", "shape", *(f"at {s:.0%}" for s in self.levels), "loss", "safe", "drift", "last", "largest")
        body = []
        for row in self.rows:
            losses = [self.loss(p) for p in row.points]
            last = row.points[-1]
            body.append(
                (
                    ("  " if row.gate else "") + row.name,
                    f"{row.shape[0]}x{row.shape[1]}",
                    *(f"{value:.4f}" for value in losses),
                    sparkline(losses),
                    f"{row.safe:.0%}" if row.safe else "-",
                    sparkline(thin(last.drift)),
                    f"{last.drift_last:.3f}",
                    f"{last.drift_largest:.3f}",
                )
            )
        return head, body

    def notes(self) -> list[str]:
        """What the reader of the table has to know."""
        what = "relative error of the output" if self.accuracy is None else f"accuracy lost from {self.accuracy:.2%}"
        lines = [
            f"loss: {what}, each weight alone, {self.samples} samples of {self.steps} steps; safe: within "
            f"{self.tolerance:g}; drift of the state over time at {self.levels[-1]:.0%}"
        ]
        if self.proposed is None:
            lines.append("no proposal: even the lowest level is out of tolerance")
        else:
            lines.append(
                f"proposal: {len(self.proposal)} of {len(self.leaves)} parts, {self.proposed_sparsity:.1%} of the "
                f"connections, measured together: loss {self.loss(self.proposed):.4f}"
                + ("" if self.proposed.accuracy is None else f", accuracy {self.proposed.accuracy:.2%}")
            )
        return lines

    def table(self) -> str:
        """Aligned plain text."""
        head, body = self.cells()
        widths = [max(len(r[k]) for r in [head, *body]) for k in range(len(head))]
        lines = ["  ".join(cell.ljust(w) for cell, w in zip(r, widths, strict=True)).rstrip() for r in [head, *body]]
        return "\n".join([*lines, *self.notes()])

    def __str__(self) -> str:
        return self.table()

    def to_json(self) -> dict[str, Any]:
        """JSON-able form, with the loss of each point."""
        rows = [{**asdict(r), "points": [self._point(p) for p in r.points]} for r in self.rows]
        proposed = None if self.proposed is None else self._point(self.proposed)
        return {
            **asdict(self), "rows": rows, "proposal": dict(self.proposal), "proposed": proposed,
            "proposed_sparsity": self.proposed_sparsity,
        }  # fmt: skip

    def to_json_text(self) -> str:
        """JSON text; numbers that are not finite become ``null``."""
        return json.dumps(_finite(self.to_json()), indent=2, allow_nan=False)

    def svg(self) -> str:
        """A picture: by row the loss at each level, coloured by its share of the tolerance, and the drift over time."""
        rows = [(("  " if r.gate else "") + r.name, [self.loss(p) for p in r.points], r.safe, r.points[-1].drift)
                for r in self.rows]  # fmt: skip
        return draw(rows, self.levels, self.tolerance)

    def _point(self, point: Point) -> dict[str, Any]:
        return {
            **asdict(point), "loss": self.loss(point), "drift_last": point.drift_last,
            "drift_largest": point.drift_largest,
        }  # fmt: skip


def loss_of(point: Point, accuracy: float | None) -> float:
    """Accuracy lost, never below 0, where ``accuracy`` is that of the whole network; else the relative error."""
    if accuracy is None or point.accuracy is None:
        return point.error
    return max(0.0, accuracy - point.accuracy)


def thin(values: Sequence[float], most: int = 16) -> list[float]:
    """At most ``most`` of the values, evenly spread, with the first and the last."""
    if len(values) <= most:
        return list(values)
    return [values[round(k * (len(values) - 1) / (most - 1))] for k in range(most)]


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {k: _finite(v) for k, v in value.items()}
    return [_finite(v) for v in value] if isinstance(value, (list, tuple)) else value
