"""``sparsecirc report``: one self-contained HTML page from the results of other commands."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sparsecirc.cli._command import Command
from sparsecirc.cli._console import Out


def report(
    out: Out,
    directories: Annotated[list[Path], typer.Argument(metavar="DIR...", help="Output directories of ours.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="HTML file to write.")] = Path("report.html"),
    force: Annotated[bool, typer.Option("--force", help="Replace the output if it exists.")] = False,
) -> None:
    """Put the results of several runs on one HTML page that needs no network."""
    from sparsecirc._files import write_atomic
    from sparsecirc._report import CONTINUAL_FILE, read_continual, render, render_continual
    from sparsecirc.cli._outputs import check_free
    from sparsecirc.errors import UsageError

    check_free(output, force)
    streams = [d for d in directories if (d / CONTINUAL_FILE).is_file()]
    if streams and len(streams) < len(directories):
        other = next(d for d in directories if d not in streams)
        raise UsageError(f"{streams[0]} is of continual and {other} is not: expected runs of one kind on a page")
    page = render_continual([read_continual(d) for d in streams]) if streams else render(directories)
    write_atomic(output, page.encode())
    out.data({"report": output}, str(output))


COMMAND = Command(
    report, ("sparsecirc report runs/demo", "sparsecirc report runs/a runs/b -o compare.html"), model=False
)
