"""What all commands share: help, one-line errors, exit codes, streams, speed of the start."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from cli_support import Cli

from sparsecirc import __version__
from sparsecirc.cli import _app

COMMANDS = [
    "inspect",
    "sensitivity",
    "prune",
    "compile",
    "verify",
    "bench",
    "export",
    "fits",
    "report",
    "recipes",
    "demo",
    "env",
    "doctor",
]


@pytest.mark.parametrize("command", COMMANDS)
def test_help_ends_with_examples(cli: Cli, command: str) -> None:
    ran = cli(command, "--help")
    assert ran.code == 0
    tail = ran.out[ran.out.index("Examples:") :]
    assert f"sparsecirc {command}" in tail
    assert "--json" in ran.out


def test_no_arguments_is_help(cli: Cli) -> None:
    ran = cli()
    assert ran.code == 0
    assert all(c in ran.out for c in COMMANDS)


def test_version(cli: Cli) -> None:
    assert cli("--version").out.strip() == __version__


@pytest.mark.parametrize(
    ("args", "hint"),
    [
        (("comple",), "compile"),
        (("prune", "x", "--sparsty", "0.5"), "--sparsity"),
        (("verify", "x", "--against", "onx"), "onnx"),
        (("prune",), "MODEL"),
        (("prune", "x", "--method", "magic"), "magnitude"),
    ],
)
def test_usage_errors_are_one_line_with_a_hint(cli: Cli, args: tuple[str, ...], hint: str) -> None:
    ran = cli(*args)
    assert ran.code == 2
    assert ran.out == ""
    assert hint in ran.line


def test_unexpected_error_is_one_line_and_debug_shows_the_traceback(
    cli: Cli, gru_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sparsecirc.cli import _models

    def broken(*args: object) -> None:
        raise ZeroDivisionError("two\nlines")

    monkeypatch.setattr(_models, "load", broken)
    ran = cli("inspect", gru_file)
    assert ran.code == 1
    assert "ZeroDivisionError: two lines" in ran.line
    assert "--debug" in ran.line
    shown = cli("inspect", gru_file, "--debug")
    assert shown.code == 1
    assert "Traceback" in shown.err


def test_interrupt_is_130(cli: Cli, gru_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from sparsecirc.cli import _models

    def stopped(*args: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(_models, "load", stopped)
    ran = cli("inspect", gru_file)
    assert ran.code == 130
    assert "interrupted" in ran.line


def test_env_is_json_and_loads_no_framework() -> None:
    code = (
        "import sys; from sparsecirc.cli import main; code = main(['env', '--json']); main(['--help']); "
        "print(*[m for m in ('torch', 'snntorch', 'onnx', 'matplotlib') if m in sys.modules], file=sys.stderr); "
        "sys.exit(code)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr.strip() == ""
    assert f'"sparsecirc": "{__version__}"' in done.stdout


def test_env_names_packages_and_processor(cli: Cli) -> None:
    found = cli("env", "--json").json
    assert found["packages"]["numpy"]
    assert found["cpu"]
    text = cli("env").out
    assert found["packages"]["numpy"] in text


def test_module_runs() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "sparsecirc", "--version"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0
    assert done.stdout.strip() == __version__


def test_reader_that_leaves_early_gives_no_words(gru_file: Path) -> None:
    command = f"{sys.executable} -m sparsecirc inspect {gru_file} --quiet --json | head -c 1"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    assert done.stdout == "{"
    assert done.stderr == ""


def test_every_documented_exit_code_has_an_error() -> None:
    from sparsecirc import errors

    kinds = [e for e in vars(errors).values() if isinstance(e, type) and issubclass(e, errors.SparsecircError)]
    assert {e.exit_code for e in kinds} == {1, 2, 3, 4, 5, 6, 7}
    assert _app.INTERRUPTED == 130


@pytest.mark.skipif(sys.platform == "win32", reason="pseudo-terminals are of Unix")
def test_a_bar_on_a_terminal_only(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    import io

    from sparsecirc.cli._console import Out

    with Out().progress("work", 3) as advance:
        advance(1, "note")
    assert capsys.readouterr().err == ""

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    screen = Terminal()
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "100")
    out = Out()
    with out.progress("work", 3) as advance:
        out.say("words above the bar")
        advance(3, "note")
    shown = screen.getvalue()
    assert "work" in shown
    assert "words above the bar\n" in shown
    assert "3/3" in shown
    quiet = Terminal()
    monkeypatch.setattr(sys, "stderr", quiet)
    with Out(quiet=True).progress("work", 3) as advance:
        advance(3, "note")
    assert quiet.getvalue() == ""


def test_json_spells_every_result() -> None:
    import math
    from enum import Enum

    import numpy as np

    from sparsecirc.cli._console import jsonable

    class Colour(str, Enum):
        RED = "red"

    value = {"a": np.float32(0.5), "b": np.arange(2), "c": math.nan, "d": (Colour.RED, Path("x/y")), 1: np.bool_(True)}
    assert jsonable(value) == {"a": 0.5, "b": [0, 1], "c": None, "d": ["red", "x/y"], "1": True}
    with pytest.raises(TypeError, match="object has no JSON form"):
        jsonable(object())
