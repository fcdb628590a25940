"""``continual``: tasks one after another from the command line, stopped and gone on with, reported and exported."""

from __future__ import annotations

import json
import os
import re
import signal
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import yaml
from cli_support import Cli

pytest.importorskip("torch", reason="needs torch")
pytest.importorskip("sklearn", reason="needs scikit-learn's digits")
pytest.importorskip("snntorch", reason="needs snntorch")

from sparsecirc.cli._continual_methods import known, make_method
from sparsecirc.cli._recipe_file import STREAMS
from sparsecirc.cli._stream import make_stream
from sparsecirc.continual import Learner

SMALL = ("--tasks", "2", "--train", "600", "--epochs", "2", "--hidden", "60,60")
NAMES = sorted(p.stem for p in STREAMS.glob("*.yaml"))


def rows(folder: str) -> list[dict[str, Any]]:
    """Results without the seconds."""
    found = json.loads(Path(folder, "continual.json").read_text("utf-8"))["results"]
    return [{k: v for k, v in r.items() if k != "seconds"} for r in found]


class Page(HTMLParser):
    """Counts tags and collects addresses."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.links: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.links += [v or "" for k, v in attrs if k in ("src", "href")]


def test_several_methods_and_seeds_end_in_tables_a_page_and_drawings(cli: Cli) -> None:
    ran = cli("continual", "--method", "hlop,finetune,ewc", "--seeds", "0,1", *SMALL, "-o", "out")
    assert ran.code == 0, ran.err
    for word in ("hlop", "finetune", "ewc", "ACC", "BWT", "±", "mean of 2 seeds with 95 % intervals"):
        assert word in ran.out
    told = [line for line in ran.err.splitlines() if re.match(r"\S+, seed \d, task \d/2", line)]
    assert len(told) == 3 * 2 * 2  # progress per task without a terminal
    assert "left" in told[0]

    found = json.loads(Path("out/continual.json").read_text("utf-8"))
    wanted = {"scenario", "method", "seed", "acc", "bwt", "fwt", "forgetting", "seconds", "rank_used"}
    assert all(set(r) == wanted for r in found["rows"])
    assert [(r["method"], r["seed"]) for r in found["rows"]][:4] == [
        ("hlop", 0), ("finetune", 0), ("ewc", 0), ("hlop", 1),
    ]  # fmt: skip
    accs = [r["acc"] for r in found["rows"] if r["method"] == "hlop"]
    assert found["summary"]["hlop"]["acc"]["mean"] == pytest.approx(sum(accs) / 2)
    half = 12.706 * abs(accs[0] - accs[1]) / 2  # Student's t with one degree of freedom, times s / sqrt(2)
    assert found["summary"]["hlop"]["acc"]["half"] == pytest.approx(half, rel=1e-3)

    page = Page()
    text = Path("out/report.html").read_text("utf-8")
    page.feed(text)
    assert "script" not in page.tags
    assert page.links == []
    assert page.tags.count("svg") >= 4 + 3 + 1
    for word in ("Forgetting", "Task by task", "Capacity", "synaptic operations", "What tasks share"):
        assert word in text
    drawings = {p.name for p in Path("out").glob("*.svg")}
    assert {
        "forgetting.svg", "first-task.svg", "accuracy-hlop.svg", "accuracy-ewc.svg", "capacity-hlop.svg", "spikes.svg",
        "synaptic-operations.svg",
    } <= drawings  # fmt: skip
    for name in drawings:
        assert ElementTree.parse(Path("out", name)).getroot().tag.endswith("svg")
    heat = Path("out/accuracy-hlop.svg").read_text("utf-8")
    mean = sum(r["accuracy"][1][0] for r in found["results"] if r["method"] == "hlop") / 2
    assert f">{100 * mean:.1f}<" in heat
    assert yaml.safe_load(Path("out/recipe.yaml").read_text())["methods"] == ["hlop", "finetune", "ewc"]
    assert not Path("out.partial").exists()

    again = cli("report", "out", "-o", "again.html")
    assert again.code == 0
    assert Path("again.html").read_text("utf-8") == text


def test_one_run_prints_the_matrix_and_json_is_one_document(cli: Cli) -> None:
    ran = cli("continual", "split-digits", "--method", "finetune", *SMALL[2:], "--tasks", "2", "-o", "a")
    assert ran.code == 0, ran.err
    assert "task 0" in ran.out
    assert "split-digits" in ran.out
    made = cli("continual", "split-digits", "-m", "finetune", *SMALL[2:], "--tasks", "2", "-o", "b", "--json", "-q")
    assert made.err == ""
    assert made.json["results"][0]["accuracy"] == rows("a")[0]["accuracy"]  # the same seed, the same numbers
    refused = cli("continual", "split-digits", "-o", "a")
    assert refused.code == 2
    assert "--force" in refused.line


def test_what_it_trains_compiles_and_exports_with_the_same_spikes(cli: Cli) -> None:
    args = ("--method", "hlop,ledger", "--density", "0.9", *SMALL)
    assert cli("continual", *args, "-o", "out").code == 0
    assert {p.name for p in Path("out/networks").iterdir()} == {"hlop", "ledger-task0", "ledger-task1"}
    assert cli("compile", "out/networks/hlop").code == 0
    ran = cli("verify", "out/networks/hlop", "--against", "interpret,onnx,nir", "--json")
    assert ran.code == 0, ran.err
    checked = ran.json["rows"]
    assert {r["against"] for r in checked} >= {"program", "onnx", "nir"}
    assert sum(r["spikes"] for r in checked) > 500
    assert sum(r["mismatches"] for r in checked) == 0
    for form in ("onnx", "c", "nir"):
        done = cli("export", "out/networks/hlop", "--format", form, "-o", f"made-{form}", "--json")
        assert done.code == 0, done.err
        assert done.json["check"]["spike_mismatches"] == 0


def test_an_interruption_in_a_task_goes_on_with_the_same_numbers(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    args = ("continual", "--method", "hlop,replay", *SMALL)
    assert cli(*args, "-o", "whole").code == 0
    step = Learner._step

    def stopped_at(count: int) -> None:
        left = [count]

        def counted(self: Learner, batch: Any) -> float:
            left[0] -= 1
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGINT)  # in the middle of a step
            return step(self, batch)

        monkeypatch.setattr(Learner, "_step", counted)

    stopped_at(45)
    ran = cli(*args, "-o", "halves")
    assert ran.code == 130
    assert "interrupted in hlop, seed 0, task 2 of 2" in ran.err
    assert "--resume" in ran.err
    assert not Path("halves").exists()
    assert "--resume" in cli(*args, "-o", "halves").line
    assert "another recipe" in cli(*args, "--learning-rate", "0.2", "-o", "halves", "--resume").line
    stopped_at(50)  # in the second method
    assert cli(*args, "-o", "halves", "--resume").code == 130
    monkeypatch.setattr(Learner, "_step", step)
    ran = cli(*args, "-o", "halves", "--resume")
    assert ran.code == 0, ran.err
    assert "going on with replay" in ran.err
    assert rows("halves") == rows("whole")
    for name in ("hlop", "replay"):
        first, second = (Path(o, "networks", name, "graph.safetensors").read_bytes() for o in ("halves", "whole"))
        assert first == second
    assert not Path("halves.partial").exists()
    assert "nothing to resume" in cli(*args, "-o", "third", "--resume").line


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (("--method", "hlp"), ("method 'hlp' is unknown", "did you mean 'hlop'", "derpp")),
        (("--method", "hlop+ewc"), ("behind a + expected replay",)),
        (("--method", "hlop,hlop"), ("methods", "each one once")),
        (("permuted-digit",), ("did you mean 'permuted-digits'",)),
        (("--tasks", "0"), ("tasks 0", "greater than or equal to 1")),
        (("split-digits", "--tasks", "3"), ("10 classes do not divide", "divisor")),
        (("--increment", "class"), ("--scenario split", "domain")),
        (("--seeds", "one"), ("--seeds 'one'", "whole numbers")),
        (("--hidden", "20,x"), ("--hidden", "whole numbers")),
        (("--density", "0"), ("density 0.0", "greater than 0")),
    ],
)
def test_mistakes_are_one_line_and_write_nothing(cli: Cli, args: tuple[str, ...], words: tuple[str, ...]) -> None:
    ran = cli("continual", *args, "-o", "out")
    assert ran.code == 2
    for word in words:
        assert word in ran.line
    assert list(Path().iterdir()) == []


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("data: digits\nscenario: permuted\ntask: 3\n", ("line 3", "'task' is unknown", "did you mean 'tasks'")),
        ("data: digits\nscenario: permutted\n", ("line 2", "'permutted'", "'permuted'")),
        ("data: digits\nscenario: permuted\nmethods: [hlop, si, gpmm]\n", ("line 3", "did you mean 'gpm'")),
        ("data: digits\nscenario: split\nsettings:\n  ewc:\n    force: 3\n", ("line 5", "'force'", "strength")),
        ("data: digits\nscenario: split\nsettings:\n  ewc:\n    strength: much\n", ("line 5", "'much'", "a number")),
        ("data: digits\nscenario: split\nsettings:\n  hlop:\n    mode: both\n", ("line 5", "trace, grad, delta")),
        ("scenario: split\n", ("data",)),
        ("data: japanese_vowels\nscenario: rotated\n", ("line 2", "turns images")),
        ("data: japanese_vowels\nscenario: split\ncoding: rate\n", ("line 3", "sequences already")),
    ],
)
def test_mistakes_in_a_recipe_name_their_line(cli: Cli, text: str, words: tuple[str, ...]) -> None:
    Path("mine.yaml").write_text(text)
    for ran in (cli("continual", "mine.yaml"), cli("recipes", "validate", "mine.yaml")):
        assert ran.code == 2
        for word in words:
            assert word in ran.line


def test_missing_data_say_what_and_where(cli: Cli, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SPARSECIRC_DATA", str(tmp_path / "nothing"))
    monkeypatch.setenv("SPARSECIRC_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("urllib.request.urlopen", lambda *a, **k: (_ for _ in ()).throw(OSError("no network")))
    ran = cli("continual", "split-mnist", "-o", "out")
    assert ran.code == 2
    assert "SPARSECIRC_DATA" in ran.err.splitlines()[-1]
    assert not Path("out").exists()
    assert not Path("out.partial").exists()


@pytest.mark.parametrize("name", NAMES)
def test_each_recipe_is_valid_prints_and_copies(cli: Cli, name: str) -> None:
    assert cli("recipes", "validate", name).code == 0
    shown = yaml.safe_load(cli("recipes", "cat", name).out)
    assert shown.items() <= cli("recipes", "cat", name, "--json").json["recipe"].items()
    assert cli("recipes", "cp", name, "mine.yaml").code == 0
    assert make_stream("mine.yaml", {}) == make_stream(name, {})


@pytest.mark.parametrize("name", sorted(known()))
def test_each_method_runs_by_its_name(cli: Cli, name: str) -> None:
    assert make_method(name, {}).name == name
    few = ("--tasks", "2", "--train", "96", "--test", "50", "--epochs", "1", "--hidden", "60", "--no-save")
    ran = cli("continual", "--method", name, *few, "-o", "out", "--json")
    assert ran.code == 0, ran.err
    assert ran.json["rows"][0]["method"] == name
    assert not Path("out/networks").exists()


@pytest.mark.skipif(not os.environ.get("SPARSECIRC_DATA"), reason="real recordings are missing: set SPARSECIRC_DATA")
@pytest.mark.parametrize("name", ["split-nmnist", "speakers", "split-speech", "split-vowels"])
def test_streams_of_real_sequences_are_learned_and_export(cli: Cli, name: str) -> None:
    few = ["--train", "120", "--test", "40", "--epochs", "2", "--hidden", "60"]
    few += ["--tasks", "2"] if name == "speakers" else []
    ran = cli("continual", name, "--method", "replay", *few, "-o", "out", "--json")
    assert ran.code == 0, ran.err
    assert ran.json["inputs"] == {"split-nmnist": 578, "split-vowels": 12}.get(name, 20)
    folder = next(Path("out/networks").iterdir())
    ran = cli("verify", folder, "--against", "interpret,onnx,nir", "--json")
    assert ran.code == 0, ran.err
    assert sum(r["mismatches"] for r in ran.json["rows"]) == 0


def test_streams_that_are_none_are_refused(cli: Cli) -> None:
    Path("a.yaml").write_text("data: mnist\nscenario: speakers\n")
    assert "line 2: scenario 'speakers' needs data spoken_digits" in cli("continual", "a.yaml").line
    Path("b.yaml").write_text("data: japanese_vowels\nscenario: split\nsteps: 3\n")
    assert "line 3: steps 3" in cli("continual", "b.yaml").line
