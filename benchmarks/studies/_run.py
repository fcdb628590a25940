"""Running the tasks of a study: progress, rows that are kept as they come, and going on after a stop."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from benchmarks.studies._study import AnyRow, Setting, Study, Task
from sparsecirc._files import write_atomic


@dataclass
class Progress:
    """What a run has reached.

    Attributes:
        rows: of all finished tasks, in order.
        done: finished tasks, those of earlier runs included.
        complete: whether no task is left.
    """

    rows: list[Any] = field(default_factory=list)
    done: int = 0
    complete: bool = False


def run(
    study: Study, setting: Setting, progress: Progress, *, seconds: float | None = None, clock: Callable[[], float]
) -> None:
    """Do the tasks of ``study`` that were not done before, filling ``progress``; stop for good after ``seconds``.

    Rows of a finished task lie in the work folder, so that whatever ends a run (Ctrl-C, an error, the time) loses one
    task at most.
    """
    started, fresh = clock(), 0
    for task in study.tasks(setting):
        kept = setting.folder / "rows" / task.file
        if not kept.is_file():
            if seconds is not None and clock() - started > seconds:
                return
            begun = clock()
            rows = list(task.run())
            write_atomic(kept, json.dumps({"key": task.key, "rows": [r.to_json() for r in rows]}).encode())
            fresh += 1
            setting.say(
                f"{progress.done + 1}: {task.key}: {', '.join(r.summary() for r in rows)} ({clock() - begun:.0f} s)"
            )
        progress.rows += read(study, task, setting)
        progress.done += 1
    progress.complete = True


def read(study: Study, task: Task, setting: Setting) -> list[AnyRow]:
    """Rows of a finished task."""
    found = json.loads((setting.folder / "rows" / task.file).read_text("utf-8"))
    return [study.row(**row) for row in found["rows"]]


def wall_clock() -> float:
    """Seconds of a steady clock."""
    return time.monotonic()
