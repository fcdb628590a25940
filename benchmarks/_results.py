"""Measurements as files: benchmarks/results/<machine>/, one folder per machine."""

from __future__ import annotations

import json
import re
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks import _machine as machine
from benchmarks._rows import Measured, Row
from sparsecirc._bench import Host
from sparsecirc._files import write_atomic

RESULTS = Path(__file__).parent / "results"


def folder_of(host: Host) -> Path:
    """Where the results of a machine are kept, named after its processor."""
    words = re.sub(r"\((r|tm)\)|cpu|processor|@.*", "", host.cpu.lower())
    return RESULTS / "-".join([*re.findall(r"[a-z0-9]+", words), host.isa])


def writable(path: Path) -> str:
    """Why ``path`` cannot be written, or "": asked before hours are spent on what it is to hold."""
    if path.is_dir():
        return f"{path} is a folder: expected a file"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path.parent):
            return ""
    except OSError as error:
        return f"{path} cannot be written: {error.strerror or error}"


def command_of(module: str, options: Mapping[str, object]) -> str:
    """The command of a run, without where it wrote."""
    words = ["python", "-m", module]
    for name, value in options.items():
        if value is True:
            words.append(f"--{name}")
        elif value is not None and value is not False:
            for one in value if isinstance(value, list) else [value]:
                words += [f"--{name}", str(one)]
    return " ".join(words)


def with_earlier(path: Path, parts: Sequence[tuple[str, Measured]], order: Sequence[str]) -> list[tuple[str, Measured]]:
    """``parts``, and from the file what else was measured on this machine at this commit, in ``order``.

    A long run can so be made piece by piece. What a part is of is its name up to a colon.
    """
    kept: list[tuple[str, Measured]] = []
    if path.is_file():
        data, earlier = read(path)
        here = Host.here(1)
        if (data["host"]["cpu"], data["host"]["commit"]) == (here.cpu, here.commit):
            new = {_head(of) for of, _ in parts}
            kept = [(of, group) for of, group in earlier if _head(of) not in new]
    return sorted([*kept, *parts], key=lambda part: order.index(_head(part[0])))


def _head(of: str) -> str:
    return of.partition(":")[0]


def write(path: Path, kind: str, command: str, parts: Sequence[tuple[str, Measured]]) -> None:
    """Everything known about a run: machine, versions, commit, the command, and groups of rows with their notes."""
    data = {
        "kind": kind,
        "command": command,
        "date": time.strftime("%Y-%m-%d"),
        "host": Host.here(1).to_json(),
        "memory": [vars(level) for level in machine.levels()],
        "groups": [
            {"of": of, "rows": [row.to_record() for row in group.rows], "notes": list(group.notes)}
            for of, group in parts
        ],
    }
    write_atomic(path, (json.dumps(data, indent=1, allow_nan=False) + "\n").encode())


def read(path: Path) -> tuple[dict[str, Any], list[tuple[str, Measured]]]:
    """What `write` wrote: all of it, and its groups."""
    data = json.loads(path.read_text())
    groups = [
        (group["of"], Measured(tuple(Row(**row) for row in group["rows"]), tuple(group["notes"])))
        for group in data["groups"]
    ]
    return data, groups
