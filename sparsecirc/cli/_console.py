"""`Out`: where a command's words go. Data on stdout, words on stderr, one JSON document where it is asked for."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, is_dataclass
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sparsecirc.errors import UsageError

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

PIPE_WIDTH = 160
"""Columns of a table that is not shown on a terminal: nothing is cut for a file or a pipe."""


def jsonable(value: Any) -> Any:
    """``value`` as plain JSON types; a number that JSON cannot spell becomes ``null``."""
    if isinstance(value, Enum):
        return jsonable(value.value)
    if value is None or isinstance(value, (str, bool, int)):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(k): jsonable(v) for k, v in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [jsonable(v) for v in value]
    if is_dataclass(value) and not isinstance(value, type):
        return jsonable(asdict(value))
    if isinstance(value, Path):
        return value.as_posix()
    if hasattr(value, "tolist"):  # numpy's scalars and arrays; numpy itself is not imported for this
        return jsonable(value.tolist())
    raise TypeError(f"{type(value).__name__} has no JSON form")


def human_bytes(count: float) -> str:
    """Bytes in the largest unit that keeps at least one digit before the point."""
    if count < 1024:
        return f"{int(count)} B"
    for unit in ("KiB", "MiB", "GiB"):
        count /= 1024
        if count < 1024:
            return f"{count:.1f} {unit}"
    return f"{count / 1024:.1f} TiB"


def human_count(count: float) -> str:
    """A count with k, M or G."""
    for limit, unit in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if count >= limit:
            return f"{count / limit:.3g}{unit}" if unit != "k" else f"{count / 1e3:.3g}k"
    return f"{count:g}"


def split_names(text: str | None, option: str) -> tuple[str, ...] | None:
    """Names of a comma-separated option, or ``None`` where it is absent.

    Raises:
        UsageError: it names nothing.
    """
    if text is None:
        return None
    names = tuple(n.strip() for n in text.split(",") if n.strip())
    if not names:
        raise UsageError(f"{option} is empty: expected names with commas between them")
    return names


@dataclass(frozen=True)
class Out:
    """What one command says.

    Attributes:
        as_json: print one JSON document instead of tables.
        quiet: no words on stderr; errors still are.
    """

    as_json: bool = False
    quiet: bool = False
    _live: list[Console] = field(default_factory=list)  # of the bar on screen: words go above it, not through it

    def _console(self, stream: Any) -> Console:
        from rich.console import Console

        width = None if stream.isatty() else PIPE_WIDTH
        return Console(file=stream, width=width, highlight=False, markup=False, soft_wrap=False)

    def data(self, document: Mapping[str, Any], *shown: Any) -> None:
        """The command's result: ``document`` with ``--json``, else what people read (tables, texts)."""
        if self.as_json:
            print(json.dumps(jsonable(document), indent=2, allow_nan=False), flush=True)
            return
        console = self._console(sys.stdout)
        for item in shown:
            console.print(item, soft_wrap=isinstance(item, str))  # only tables are fitted to the width

    def say(self, text: str) -> None:
        """Words for people, on stderr."""
        if not self.quiet:
            (self._live[-1] if self._live else self._console(sys.stderr)).print(text, soft_wrap=True)

    def warn(self, text: str) -> None:
        """A warning, on stderr."""
        self.say(f"warning: {text}")

    def suggest(self, command: str) -> None:
        """The command that usually comes next."""
        self.say(f"next: {command}")

    @contextmanager
    def progress(self, what: str, total: int) -> Iterator[Callable[[int, str], None]]:
        """A bar with rate and time left on a terminal, else nothing; yields ``advance(steps, note)``."""
        if self.quiet or not sys.stderr.isatty():
            yield lambda _steps, _note: None
            return
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"),
        )
        with Progress(*columns, console=self._console(sys.stderr), transient=True) as bar:
            self._live.append(bar.console)
            task = bar.add_task(what, total=total, note="", rate="")

            def advance(steps: int, note: str) -> None:
                speed = bar.tasks[task].speed
                bar.update(task, advance=steps, note=note, rate=f"{speed:.1f}/s" if speed else "")

            try:
                yield advance
            finally:
                self._live.pop()


def table(columns: Sequence[str], rows: Sequence[Sequence[Any]], *, title: str | None = None) -> Table:
    """A table without a frame; every column but those whose heading ends in ``:`` is right-aligned."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    made = Table(box=SIMPLE_HEAD, title=title, title_justify="left", pad_edge=False)
    for column in columns:
        left = column.endswith(":")
        made.add_column(column.rstrip(":"), justify="left" if left else "right", no_wrap=not left, overflow="fold")
    for row in rows:
        made.add_row(*(Text(str(cell)) for cell in row))
    return made
