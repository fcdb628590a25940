"""``sensitivity``, and the recipe it writes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from cli_support import Cli

from sparsecirc.ir import load_graph


def test_the_recipe_it_writes_is_what_prune_does(cli: Cli, gru_file: Path) -> None:
    ran = cli("sensitivity", gru_file, "--tolerance", "0.3", "-o", "s", "--json")
    assert ran.code == 0
    found = ran.json
    files = {"sensitivity.txt", "sensitivity.svg", "sensitivity.json", "recipe.yaml", "manifest.json"}
    assert {p.name for p in Path("s").iterdir()} == files
    assert json.loads(Path("s/sensitivity.json").read_text()) == found
    recipe = yaml.safe_load(Path("s/recipe.yaml").read_text())
    assert recipe["sparsities"] == found["proposal"] != {}
    assert "prune" in ran.err.splitlines()[-1]
    assert "--recipe s/recipe.yaml" in ran.err
    assert cli("prune", gru_file, "--recipe", "s/recipe.yaml", "-o", "p").code == 0
    gates = {v.name: v.pattern.sparsity for v in load_graph("p/graph.safetensors").weights(per_gate=True)}
    for name, sparsity in found["proposal"].items():
        assert gates[name] == pytest.approx(sparsity, abs=0.01)
    repeated = cli("prune", gru_file, "--recipe", "p/recipe.yaml", "-o", "q", "--json").json
    assert repeated["mask_hash"] == json.loads(Path("p/report.json").read_text())["mask_hash"]


def test_levels_names_and_shown_text(cli: Cli, lif_file: Path) -> None:
    ran = cli("sensitivity", lif_file, "--levels", ".5,.9", "--include", "*.hh", "--seq-len", "5", "--samples", "3")
    assert ran.code == 0
    assert "lif1.hh" in ran.out
    assert "fc1" not in ran.out
    assert "3 samples of 5 steps" in ran.out
    assert "at 90%" in ran.out
    assert "-o" in ran.err or "no recipe" in ran.err


@pytest.mark.parametrize(
    ("options", "code", "word"),
    [
        (("--levels", "x"), 2, "--levels 'x'"),
        (("--levels", "0"), 2, "above 0"),
        (("--tolerance", "-1"), 2, "tolerance -1"),
        (("--samples", "0"), 2, "samples is 0"),
        (("--pattern", "2:4"), 2, "fixes the sparsity"),
        (("--include", "rmn*"), 2, "matches no weight"),
        (("--data", "digts"), 2, "did you mean 'digits'"),
    ],
)
def test_errors_are_one_line_and_nothing_is_written(
    cli: Cli, gru_file: Path, options: tuple[str, ...], code: int, word: str
) -> None:
    ran = cli("sensitivity", gru_file, *options, "-o", "s")
    assert ran.code == code
    assert word in ran.line
    assert not Path("s").exists()


def test_interrupted_it_leaves_nothing(cli: Cli, gru_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from sparsecirc import _sensitivity

    def stopped(*args: object, **options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(_sensitivity, "sensitivity", stopped)
    before = set(Path().iterdir())
    ran = cli("sensitivity", gru_file, "-o", "deep/s")
    assert ran.code == 130
    assert set(Path().iterdir()) == before


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("seed: 1\nsparsities:\n  rnn.l0.hh: 1.5\n", ("r.yaml, line 3", "'rnn.l0.hh' 1.5", "less than 1")),
        ("seed: 1\nsparsities: 3\n", ("r.yaml, line 2", "sparsities 3", "names with a sparsity")),
        ("sparsities:\n  nothing: 0.5\n", ("'nothing' matches no weight",)),
        ("sparsities: {a: 0.5}\nsparsity: 0.5\n", ("r.yaml, line 1", "exclude each other")),
        ("seed: 1\n\nsparsty: 0.5\n", ("r.yaml, line 3", "did you mean 'sparsity'")),
        ("seed: 1\nseed: 2\n", ("r.yaml, line 2", "stands in line 1")),
        ("seed: [1\n", ("r.yaml, line 2", "not YAML")),
        ("- 1\n", ("holds list",)),
    ],
)
def test_recipes_name_file_line_and_field(cli: Cli, gru_file: Path, text: str, words: tuple[str, ...]) -> None:
    Path("r.yaml").write_text(text)
    ran = cli("prune", gru_file, "--recipe", "r.yaml", "-o", "out")
    assert ran.code == 2
    for word in words:
        assert word in ran.line
    assert not Path("out").exists()


def test_gates_may_be_given_by_glob(cli: Cli, gru_file: Path) -> None:
    Path("r.yaml").write_text("sparsities:\n  '*.hh': 0.5\n  '*.hh.n': 0.75\n")
    assert cli("prune", gru_file, "--recipe", "r.yaml", "-o", "out").code == 0
    found = {v.name: v.pattern.sparsity for v in load_graph("out/graph.safetensors").weights(per_gate=True)}
    assert found["rnn.l0.hh.r"] == 0.5
    assert found["rnn.l0.hh.n"] == 0.75
    assert found["rnn.l0.ih.r"] == 0
