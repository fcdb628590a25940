"""How a command is declared: its function, its examples, and the options all commands share."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Annotated, Any, TextIO

import typer

from sparsecirc.cli._console import Out
from sparsecirc.errors import SparsecircError, SparsecircWarning

MODEL_HELP = (
    "demo:NAME, pkg.mod:factory, pkg.mod:factory@checkpoint, an output directory of ours, a .nir file, a graph or "
    "program file of ours, or a checkpoint (.safetensors .pt .pth .ckpt) with --arch."
)


class Interrupted(SparsecircError):
    """Stopped by the user; says what was left and how to go on (exit code 130)."""

    exit_code = 130


@dataclass(frozen=True)
class ModelSpec:
    """A model as the user named it.

    Attributes:
        text: the argument.
        arch: ``pkg.mod:factory`` that builds the torch module of a checkpoint.
        allow_pickle: whether a checkpoint may run code while it is read.
        dt: seconds per time step of a spiking network, where the user said so.
        input_shape: sizes of an input batch as the model takes it, with commas.
        spiking_input: whether its inputs are spikes, where the user said so.
    """

    text: str
    arch: str | None = None
    allow_pickle: bool = False
    dt: float | None = None
    input_shape: str | None = None
    spiking_input: bool | None = None


@dataclass(frozen=True)
class Command:
    """One command.

    Attributes:
        run: ``run(out, spec, **options)``, or ``run(out, **options)`` without a model; its docstring is the help.
        examples: complete command lines.
        model: whether the first argument is a model.
    """

    run: Callable[..., None]
    examples: tuple[str, ...]
    model: bool = True


_MODEL = (
    ("model", Annotated[str, typer.Argument(metavar="MODEL", help=MODEL_HELP, show_default=False)], ...),
    (
        "arch",
        Annotated[
            str | None,
            typer.Option("--arch", metavar="PKG.MOD:FACTORY", help="What builds the torch module of a checkpoint."),
        ],
        None,
    ),
    (
        "allow_pickle",
        Annotated[
            bool, typer.Option("--allow-pickle", help="Read a checkpoint that runs code while it is read. Trust it.")
        ],
        False,
    ),
    (
        "dt",
        Annotated[
            float | None, typer.Option("--dt", metavar="SECONDS", help="Time step of a spiking network, in seconds.")
        ],
        None,
    ),
    (
        "input_shape",
        Annotated[
            str | None,
            typer.Option(
                "--input-shape", metavar="B,...", help="One input of a torch model whose layers leave it open."
            ),
        ],
        None,
    ),
    (
        "spiking_input",
        Annotated[
            bool | None,
            typer.Option(
                "--spiking-input/--no-spiking-input",
                help="Inputs are spikes (0 or 1, mostly 0), or not: products by events are tried on them.",
                show_default=False,
            ),
        ],
        None,
    ),
)
_COMMON = (
    ("as_json", Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout.")], False),
    ("quiet", Annotated[bool, typer.Option("--quiet", "-q", help="No words on stderr but errors.")], False),
    ("debug", Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")], False),
)


def _parameter(name: str, annotation: Any, default: Any) -> inspect.Parameter:
    kind = inspect.Parameter.KEYWORD_ONLY
    empty = inspect.Parameter.empty
    return inspect.Parameter(name, kind, annotation=annotation, default=empty if default is ... else default)


@contextmanager
def _warnings_to(out: Out) -> Iterator[None]:
    """Our own warnings become a line of ``out``; those of others are shown as ever."""
    others = warnings.showwarning

    def show(
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,
        line: str | None = None,
    ) -> None:
        if issubclass(category, SparsecircWarning):
            out.warn(str(message))
        else:
            others(message, category, filename, lineno, file, line)

    with warnings.catch_warnings():
        warnings.showwarning = show
        yield


def register(app: typer.Typer, command: Command) -> None:
    """Add ``command`` to ``app`` with the shared options."""
    run = command.run
    own = list(inspect.signature(run, eval_str=True).parameters.values())[2 if command.model else 1 :]
    shared_before = [_parameter(*p) for p in _MODEL] if command.model else []
    parameters = [*shared_before, *(p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in own)]
    parameters += [_parameter(*p) for p in _COMMON]

    def wrapper(**given: Any) -> None:
        out = Out(given.pop("as_json"), given.pop("quiet"))
        given.pop("debug")  # read before parsing, so that it also covers errors of parsing
        try:
            with _warnings_to(out):
                if command.model:
                    spec = ModelSpec(*(given.pop(name) for name, _, _ in _MODEL))
                    run(out, spec, **given)
                else:
                    run(out, **given)
        except KeyboardInterrupt as stop:
            raise Interrupted("interrupted: nothing was written") from stop

    wrapper.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    wrapper.__annotations__ = {p.name: p.annotation for p in parameters}
    wrapper.__doc__ = run.__doc__
    epilog = "\n\n".join(["Examples:", *command.examples])
    app.command(name=run.__name__.strip("_"), epilog=epilog)(wrapper)
