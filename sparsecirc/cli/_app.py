"""The application: commands, shared options, and one place where errors become one line and an exit code."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Sequence
from types import TracebackType
from typing import Annotated, Any

import typer

from sparsecirc import __version__
from sparsecirc.cli import (
    _bench,
    _compile,
    _continual,
    _demo,
    _doctor,
    _env,
    _export,
    _fits,
    _inspect,
    _prune,
    _recipes,
    _report,
    _sensitivity,
    _verify,
)
from sparsecirc.cli._command import Interrupted, register
from sparsecirc.errors import SparsecircError

USAGE = 2
UNEXPECTED = 1
INTERRUPTED = 130

# ClickException, from typer's own copy of click or from the click package: BadParameter < UsageError < ClickException.
_USAGE_ERROR: type[BaseException] = typer.BadParameter.__mro__[2]

app = typer.Typer(
    name="sparsecirc",
    help="Prune recurrent and spiking networks, compile them to sparse kernels, prove it, measure it, export them.",
    epilog="\n\n".join(
        [
            "Examples:",
            "sparsecirc demo",
            "sparsecirc inspect demo:gru --per-gate",
            "sparsecirc sensitivity demo:mnist-lstm --data mnist",
            "sparsecirc prune demo:gru --sparsity 0.9 -o runs/gru",
            "sparsecirc compile runs/gru",
            "sparsecirc verify runs/gru --against interpret,torch",
            "sparsecirc bench runs/gru",
            "sparsecirc continual",
            "Exit codes: 0 done, 1 unexpected, 2 usage, 3 unsupported, 4 mismatch, 5 too slow, 6 accuracy, 7 missing "
            "extra, 130 interrupted.",
        ]
    ),
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(asked: bool) -> None:
    if asked:
        print(__version__)
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and stop.")
    ] = False,
) -> None:
    pass


for _module in (
    _inspect,
    _sensitivity,
    _prune,
    _compile,
    _verify,
    _bench,
    _export,
    _fits,
    _continual,
    _report,
    _recipes,
    _demo,
    _env,
    _doctor,
):
    register(app, _module.COMMAND)


class _Boundary:
    """The outermost frame: whatever leaves a command becomes one line on stderr and ``code``."""

    def __init__(self, debug: bool) -> None:
        self.debug = debug
        self.code = 0

    def __enter__(self) -> _Boundary:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> bool:
        if error is None or isinstance(error, SystemExit):
            return False
        if isinstance(error, SparsecircError):
            self.code, text = error.exit_code, str(error)
        elif isinstance(error, _USAGE_ERROR):
            self.code, text = USAGE, _usage_text(error)
        elif isinstance(error, (KeyboardInterrupt, typer.Abort)):
            self.code, text = INTERRUPTED, "interrupted: nothing was written"
        elif isinstance(error, BrokenPipeError):
            # Whoever read our output has gone: no words, and no second complaint when Python flushes at exit.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            self.code = UNEXPECTED
            return True
        else:
            self.code = UNEXPECTED
            hint = "" if self.debug else "; run it again with --debug for the traceback"
            text = f"unexpected {type(error).__name__}: {error}{hint}"
        if self.debug:
            traceback.print_exception(kind, error, tb)
        print(f"sparsecirc: {'' if self.code == INTERRUPTED else 'error: '}{_one_line(text)}", file=sys.stderr)
        return True


def _usage_text(error: Any) -> str:
    context = getattr(error, "ctx", None)
    where = context.command_path if context is not None else "sparsecirc"
    return f"{error.format_message()} (see {where} --help)"


_SPELLINGS = {
    "pass example=": "give --input-shape",
    ", or chip.with_limits(neurons_per_core=1024)": "",
    "select=named('...')": "--include NAMES",
    "pass allow_approximate=True": "add --allow-approximate",
    "choose another keep, adjacency='continuous', or ranked=True": "choose another --lattice-keep, --lattice-adjacency "
    "continuous, or --lattice-ranked",
    "(sparsity None), or rank the connections with ranked=True": "or rank the connections with --lattice-ranked",
    "use a higher threshold": "use a higher --lattice-threshold",
    "order='acyclic'": "--lattice-order acyclic",
}
"""What the library's errors advise in Python, and the option that does it here."""


def _one_line(text: str) -> str:
    for python, option in _SPELLINGS.items():
        text = text.replace(python, option)
    return " ".join(text.split())


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        argv: arguments without the program's name; those of the process where absent.

    Returns:
        the exit code: 0 done, 1 unexpected, 2 usage, 3 unsupported, 4 mismatch, 5 too slow, 6 accuracy, 7 missing
        extra, 130 interrupted.
    """
    # An editable install rebuilds the kernels on import, and may print that on our stdout.
    os.environ.setdefault("SKBUILD_EDITABLE_VERBOSE", "0")
    args = list(sys.argv[1:] if argv is None else argv)
    boundary = _Boundary("--debug" in args)
    with boundary:
        result = app(args or ["--help"], prog_name="sparsecirc", standalone_mode=False)
        return result if isinstance(result, int) else 0
    return boundary.code


__all__ = ["Interrupted", "app", "main"]
