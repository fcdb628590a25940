"""What a study is: tasks that give rows, and a page made of the rows.

A study is added in one place, the table `STUDIES` of ``__main__``. Its tasks are small (minutes at most) and
independent of each other but for what they keep in the work folder, so that a study can be stopped and goes on later.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any


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
    run: Callable[[], Sequence[Row]]

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
    """

    name: str
    title: str
    source: str
    tasks: Callable[[Setting], Iterator[Task]]
    page: Callable[[Sequence[Row], Setting], Page]
    version: int = 1
