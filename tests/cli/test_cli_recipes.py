"""``recipes``: what is shipped works, what is not a recipe is refused by file, line and field."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from cli_support import Cli

from sparsecirc.cli._recipe import make_recipe
from sparsecirc.cli._recipe_file import SHIPPED, STREAMS

NAMES = sorted(p.stem for p in SHIPPED.glob("*.yaml"))
STREAM_NAMES = sorted(p.stem for p in STREAMS.glob("*.yaml"))


def test_the_list_tells_what_each_does(cli: Cli) -> None:
    ran = cli("recipes", "ls")
    assert ran.code == 0
    listed = cli("recipes", "--json").json["recipes"]
    assert [r["name"] for r in listed] == NAMES + STREAM_NAMES
    assert len(NAMES) == 9
    assert {r["command"] for r in listed} == {"prune", "continual"}
    assert all(r["name"] in ran.out and len(r["about"]) > 30 for r in listed)


@pytest.mark.parametrize("name", NAMES)
def test_each_is_valid_prints_and_copies(cli: Cli, name: str) -> None:
    assert cli("recipes", "validate", name).code == 0
    shown = cli("recipes", "cat", name).out
    assert yaml.safe_load(shown).items() <= cli("recipes", "cat", name, "--json").json["recipe"].items()
    assert cli("recipes", "cp", name, "mine.yaml").code == 0
    assert make_recipe(Path("mine.yaml"), {}) == make_recipe(SHIPPED / f"{name}.yaml", {})
    again = cli("recipes", "cp", name, "mine.yaml")
    assert again.code == 2
    assert "--force" in again.line
    assert cli("recipes", "cp", name, "mine.yaml", "--force").code == 0
    assert {p.name for p in Path().iterdir()} == {"mine.yaml"}


def test_prune_takes_a_name(cli: Cli, gru_file: Path) -> None:
    named = cli("prune", gru_file, "--recipe", "one-shot-90", "-o", "a", "--json").json
    by_hand = cli("prune", gru_file, "--sparsity", "0.9", "-o", "b", "--json").json
    assert named["mask_hash"] == by_hand["mask_hash"]
    Path("one-shot-90").write_text("sparsity: 0.5\n")  # a file of that name comes first
    other = cli("prune", gru_file, "--recipe", "one-shot-90", "-o", "c", "--json").json
    assert other["mask_hash"] != named["mask_hash"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("method: magic\n", ("bad.yaml, line 1", "method 'magic'", "lattice")),
        ("sparsity: 0.9\nepochs: 2\n", ("bad.yaml, line 2", "needs data")),
        ("sparsity: 0.9\nschedule: cubic\n", ("bad.yaml, line 2", "prunes while it trains")),
        ("pattern: block:0x4\n", ("block",)),
        ("sparsities:\n  a: half\n", ("bad.yaml, line 2", "'a' 'half'", "number")),
        ("sparsity: .9\nsed: 3\n", ("bad.yaml, line 2", "did you mean 'seed'")),
    ],
)
def test_mistakes_are_found_without_a_model(cli: Cli, text: str, words: tuple[str, ...]) -> None:
    Path("good.yaml").write_text("sparsity: 0.5\n")
    Path("bad.yaml").write_text(text)
    ran = cli("recipes", "validate", "good.yaml", "bad.yaml")
    assert ran.code == 2
    assert ran.out == ""
    for word in words:
        assert word in ran.line


@pytest.mark.parametrize(
    ("args", "word"),
    [
        (("cat",), "expected one name"),
        (("cp", "one-shot-90"), "a name and a file"),
        (("ls", "x"), "nothing after it"),
        (("validate",), "one file or more"),
        (("cat", "one-shot-9"), "did you mean 'one-shot-90'"),
        (("tell",), "validate"),
    ],
)
def test_wrong_arguments(cli: Cli, args: tuple[str, ...], word: str) -> None:
    ran = cli("recipes", *args)
    assert ran.code == 2
    assert word in ran.line
