"""What a study is: tasks that give rows, and a page made of the rows.

A study is added in one place, the table `STUDIES` of ``__main__``. Its tasks are small (minutes at most) and
independent of each other but for what they keep in the work folder, so that a study can be stopped and goes on later.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol


class AnyRow(Protocol):
    """What every study's rows can do."""

    def to_json(self) -> dict[str, Any]:
        """The fields, from which the row can be made again."""
        ...

    def summary(self) -> str:
        """A few words for the progress line."""
        ...


SEEDS = (0, 1, 2)
"""Of a full study, unless others are asked for."""


@dataclass(frozen=True)
class Row:
    """One pruned network.

    Attributes:
        study: name of the study.
        cell: recurrence of the network, or the network itself.
        method: what chose the connections; ``"dense"`` where nothing was pruned.
        scope: which weights were pruned.
        sparsity: share of dead connections among them.
        seed: of the dense network and of whatever the method draws.
        accuracy_before: share of the test part right after pruning.
        accuracy_after: after fine-tuning, or ``None`` where there is none.
        published: what the paper reports for this row, or ``None``.
    """

    study: str
    cell: str
    method: str
    scope: str
    sparsity: float
    seed: int
    accuracy_before: float
    accuracy_after: float | None
    published: float | None = None

    def to_json(self) -> dict[str, Any]:
        """The fields."""
        return asdict(self)

    def summary(self) -> str:
        """Accuracy before and after."""
        after = "" if self.accuracy_after is None else f" -> {100 * self.accuracy_after:.2f} %"
        return f"{100 * self.accuracy_before:.2f} %{after}"


def accuracies(rows: Sequence[Row]) -> str:
    """Rows as aligned text."""
    lines = [
        f"{'cell':<14}{'method':<38}{'scope':<8}{'sparsity':>9}{'seed':>6}{'before':>9}{'after':>9}{'published':>11}"
    ]
    for r in rows:
        after = "-" if r.accuracy_after is None else f"{r.accuracy_after:.4f}"
        published = "-" if r.published is None else f"{r.published:.3g}"
        lines.append(
            f"{r.cell:<14}{r.method:<38}{r.scope:<8}{r.sparsity:>9.4f}{r.seed:>6}{r.accuracy_before:>9.4f}{after:>9}"
            f"{published:>11}"
        )
    return "\n".join(lines)


@dataclass(frozen=True)
class Setting:
    """How a study is run.

    Attributes:
        quick: smaller data and fewer rows: shows that all of it works, means little.
        seeds: one network for each.
        folder: for what is kept between tasks (trained networks).
        say: told what goes on, a line each.
    """

    quick: bool
    seeds: tuple[int, ...]
    folder: Path
    say: Callable[[str], None]

    def kept(self, name: str) -> Path:
        """A file in the work folder."""
        return self.folder / name


@dataclass(frozen=True)
class Task:
    """One piece of work.

    Attributes:
        key: unique within the study; finished tasks are found again by it.
        run: the work.
    """

    key: str
    run: Callable[[], Sequence[AnyRow]]

    @property
    def file(self) -> str:
        """File name of its rows: readable, and safe on every system."""
        safe = "".join(c if c.isalnum() or c in "-_." else "_" for c in self.key)
        return f"{safe}-{zlib.crc32(self.key.encode()):08x}.json"


@dataclass(frozen=True)
class Page:
    """What a study has to say: Markdown without its heading and facts, and drawings by file name."""

    text: str
    figures: Mapping[str, str]


@dataclass(frozen=True)
class Study:
    """An experiment.

    Attributes:
        name: on the command line.
        title: of its page.
        source: the paper.
        tasks: all tasks of a setting, in order; a later one may be planned from what earlier ones left in the folder.
        page: from all rows.
        version: raise it when rows of an earlier version must not be taken over.
        row: makes a row from the fields that it wrote.
        table: rows as text.
    """

    name: str
    title: str
    source: str
    tasks: Callable[[Setting], Iterator[Task]]
    page: Callable[[Sequence[Any], Setting], Page]
    version: int = 1
    row: Callable[..., AnyRow] = Row
    table: Callable[[Sequence[Any]], str] = accuracies
