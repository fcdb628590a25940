"""What the examples share: one-line errors, the folder of trained models, tables."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from sparsecirc.errors import MismatchError, SparsecircError, UsageError


def run(main: Callable[[Sequence[str] | None], int], argv: Sequence[str] | None = None) -> int:
    """Exit code of ``main``; a known error is one line on stderr and its own exit code, Ctrl-C is 130."""
    try:
        return main(argv)
    except SparsecircError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130


def model_folder(name: str, files: Sequence[str]) -> Path:
    """The folder ``models/<name>`` inside $SPARSECIRC_DATA.

    Raises:
        UsageError: the variable is not set, or a file is not there.
    """
    root = os.environ.get("SPARSECIRC_DATA")
    if not root:
        raise UsageError(f"SPARSECIRC_DATA is not set: expected the folder that holds models/{name}")
    folder = Path(root) / "models" / name
    missing = [f for f in files if not (folder / f).is_file()]
    if missing:
        raise UsageError(
            f"{folder / missing[0]} is not a file: get it as models/{name} describes, or pass another folder"
        )
    return folder


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Aligned plain text: the first column to the left, the others to the right."""
    lines = [tuple(head), *(tuple(r) for r in rows)]
    widths = [max(len(line[k]) for line in lines) for k in range(len(head))]
    return "\n".join(
        "  ".join(
            cell.ljust(w) if k == 0 else cell.rjust(w) for k, (cell, w) in enumerate(zip(line, widths, strict=True))
        )
        for line in lines
    )


def must(condition: bool, message: str) -> None:
    """Raise `MismatchError` with ``message`` where ``condition`` does not hold."""
    if not condition:
        raise MismatchError(message)
