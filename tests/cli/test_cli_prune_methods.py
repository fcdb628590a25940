"""Scores that look at data, budgets, structured patterns and schedules, as ``prune`` and recipes spell them."""

from __future__ import annotations

import importlib
import json
import sys
import textwrap
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cli_support import Cli, gru_graph
from safetensors.numpy import load_file

import sparsecirc as sc
from sparsecirc.cli._recipe_file import SHIPPED
from sparsecirc.ir import load_graph, save_graph
from sparsecirc.patterns import load_patterns

torch = pytest.importorskip("torch", reason="torch is not installed")
pytest.importorskip("sklearn", reason="scikit-learn is not installed")

NETS = textwrap.dedent(
    """
    import torch
    from torch import nn

    class Net(nn.Module):
        def __init__(self, units=16):
            super().__init__()
            self.rnn = nn.GRU(8, units, batch_first=True)
            self.drop = nn.Dropout(0.3)
            self.fc = nn.Linear(units, 10)

        def forward(self, x):
            return self.fc(self.drop(self.rnn(x)[0][:, -1]))

    class Picture(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(1, 16, 3)
            self.fc1 = nn.Linear(16 * 36, 24)
            self.fc2 = nn.Linear(24, 10)

        def forward(self, x):
            return self.fc2(self.fc1(self.conv(x).relu().flatten(1)).relu())

    def build():
        torch.manual_seed(1)
        return Net()

    def picture():
        torch.manual_seed(1)
        return Picture()
    """
)


@pytest.fixture(autouse=True)
def nets(tmp_path: Path, cli: Cli) -> Path:
    (tmp_path / "methodnets.py").write_text(NETS)
    sys.modules.pop("methodnets", None)
    importlib.invalidate_caches()
    return tmp_path


def prune(cli: Cli, output: str, *options: object, model: str = "methodnets:build") -> Any:
    ran = cli("prune", model, *options, "-o", output, "--json")
    assert ran.code == 0, ran.err
    return ran.json


def scored(function: str, seed: int, count: int, size: int) -> dict[str, np.ndarray]:
    """The masks of a score by the Python API, on the samples that the command line draws."""
    from sparsecirc import Masks, data, saliency

    net = importlib.import_module("methodnets").build().eval()
    digits = data.digits()
    part = np.random.default_rng(seed).permutation(len(digits.y_train))[:count]
    batches = [
        (torch.from_numpy(digits.x_train[k]), torch.from_numpy(digits.y_train[k]))
        for k in (part[s : s + size] for s in range(0, count, size))
    ]

    def loss(model: Any, batch: Any) -> Any:
        return torch.nn.functional.cross_entropy(model(batch[0]), batch[1])

    masks = Masks.prune(net, 0.75, score=getattr(saliency, function)(net, batches, loss))
    return {name: pattern.mask() for name, pattern in masks.patterns.items()}


@pytest.mark.parametrize("method", ["snip", "taylor", "fisher", "grasp"])
def test_scores_of_gradients_are_those_of_the_library(cli: Cli, method: str) -> None:
    options = ("-s", "0.75", "--method", method, "--data", "digits", "--score-samples", "96", "--batch-size", "32")
    first = prune(cli, "a", *options, "--seed", "3")
    assert prune(cli, "b", *options, "--seed", "3")["mask_hash"] == first["mask_hash"]
    assert prune(cli, "c", *options, "--seed", "4")["mask_hash"] != first["mask_hash"]
    assert prune(cli, "d", "--recipe", "a/recipe.yaml")["mask_hash"] == first["mask_hash"]
    expected = scored(method, 3, 96, 32)
    found = load_patterns("a/masks.safetensors")
    assert set(found) == set(expected)
    for name, mask in expected.items():
        np.testing.assert_array_equal(found[name].mask(), mask)


def test_activity_takes_data_or_its_own_input(cli: Cli, lif_file: Path) -> None:
    ran = cli("prune", lif_file, "-s", "0.5", "--method", "activity", "-o", "a", "--json")
    assert ran.code == 0
    assert "activity is measured on random input" in ran.err
    again = cli("prune", lif_file, "-s", "0.5", "--method", "activity", "-o", "b", "--json")
    assert again.json["mask_hash"] == ran.json["mask_hash"]
    plain = prune(cli, "c", "-s", "0.5")
    measured = cli(
        "prune", "methodnets:build", "-s", "0.5", "--method", "activity", "--data", "digits", "-o", "d", "--json"
    )
    assert measured.code == 0
    assert "activity is measured" not in measured.err
    assert measured.json["mask_hash"] != plain["mask_hash"]


def test_gradients_need_a_torch_model(cli: Cli) -> None:
    save_graph(gru_graph(classes=10), "ten.safetensors")
    ran = cli("prune", "ten.safetensors", "--method", "snip", "--data", "digits", "-o", "a")
    assert ran.code == 2
    assert "no torch model" in ran.line
    assert not Path("a").exists()


def test_rows_columns_and_the_diagonal(cli: Cli) -> None:
    prune(cli, "a", "-s", "0.5", "--pattern", "columns", "--scope", "tensor")
    mask = load_patterns("a/masks.safetensors")["rnn.l0.hh"].mask()
    assert sorted(mask.sum(axis=0)) == [0] * 8 + [48] * 8
    prune(cli, "b", "-s", "0.5", "--pattern", "rows")
    mask = load_patterns("b/masks.safetensors")["rnn.l0.hh"].mask()
    assert all(sorted(gate.sum(axis=1)) == [0] * 8 + [16] * 8 for gate in mask.reshape(3, 16, 16))
    report = prune(cli, "c", "-s", "0.9", "--keep-diagonal")
    mask = load_patterns("c/masks.safetensors")["rnn.l0.hh"].mask().reshape(3, 16, 16)
    assert all(gate.diagonal().all() for gate in mask)
    assert report["weights"][1]["pattern"] == "unstructured with diagonal"


def test_budgets_share_the_sparsity(cli: Cli) -> None:
    report = prune(cli, "a", "-s", "0.8", "--budget", "erdos-renyi")
    ih, hh = (next(w for w in report["weights"] if w["name"] == f"rnn.l0.{role}") for role in ("ih", "hh"))
    assert ih["density"] > hh["density"]
    assert (ih["nnz"] + hh["nnz"]) / (3 * 16 * 24) == pytest.approx(0.2, abs=0.005)
    report = prune(cli, "b", "-s", "0.8", "--budget", "erdos-renyi", "--minimum-density", "0.19")
    assert min(w["density"] for w in report["weights"]) >= 0.185
    whole = prune(
        cli, "c", "-s", "0.8", "--budget", "erdos-renyi", "--schedule", "cubic", "--data", "digits", "--epochs", "1"
    )
    assert next(w for w in whole["weights"] if w["name"] == "rnn.l0.hh")["nnz"] == hh["nnz"]


def test_the_kernel_budget_knows_convolutions(cli: Cli) -> None:
    args = ("-s", "0.9", "--input-shape", "1,1,8,8")
    plain = prune(cli, "a", *args, "--budget", "erdos-renyi", model="methodnets:picture")
    kernels = prune(cli, "b", *args, "--budget", "erdos-renyi-kernel", model="methodnets:picture")
    linear = [next(w for w in r["weights"] if w["name"] == "fc1.weight")["nnz"] for r in (plain, kernels)]
    assert [r["nnz"] for r in (plain, kernels)] == pytest.approx([plain["nnz"]] * 2, abs=2)
    assert linear[0] != linear[1]


def test_neurons_leave_and_matrices_shrink(cli: Cli) -> None:
    report = prune(cli, "a", "-s", "0.5", "--pattern", "neurons")
    assert report["units"] == {"rnn.l0": {"before": 16, "after": 8}}
    assert {w["name"]: w["shape"] for w in report["weights"]} == {
        "rnn.l0.ih": [24, 8], "rnn.l0.hh": [24, 8], "fc.weight": [10, 8]
    }  # fmt: skip
    whole, small = importlib.import_module("methodnets").build(), load_graph("a/graph.safetensors")
    keep = sc.rank_units(sc.to_graph(whole), 0.5)
    expected = sc.remove_units(sc.to_graph(whole), keep)
    np.testing.assert_array_equal(small.node("rnn.l0").params["hh"], expected.node("rnn.l0").params["hh"])
    # The torch module is built again from its factory, also after units were taken out twice.
    assert cli("verify", "a", "--against", "interpret,torch").code == 0
    again = prune(cli, "b", "-s", "0.5", "--pattern", "neurons", model="a")
    assert again["units"]["rnn.l0"]["after"] == 4
    assert cli("verify", "b", "--against", "interpret,torch").code == 0
    third = prune(cli, "c", "-s", "0.5", "--data", "digits", "--epochs", "1", model="b")
    assert third["mask_hash"] not in (again["mask_hash"], report["mask_hash"])
    assert cli("verify", "c", "--against", "torch").code == 0
    assert prune(cli, "d", "-s", "0.5", "--pattern", "neurons")["mask_hash"] == report["mask_hash"]
    other = prune(cli, "e", "-s", "0.5", "--pattern", "neurons", "--method", "random")
    assert other["mask_hash"] != report["mask_hash"]


def test_every_result_of_a_directory_has_its_mask_hash(cli: Cli) -> None:
    for name, pattern in (("a", "unstructured"), ("b", "neurons")):
        wanted = prune(cli, name, "-s", "0.5", "--pattern", pattern)["mask_hash"]
        assert cli("compile", name, "--no-cache", "--json").json["mask_hash"] == wanted
        assert cli("verify", name, "--json").json["mask_hash"] == wanted
        assert cli("inspect", name, "--json").json["mask_hash"] == wanted
        assert cli("sensitivity", name, "--levels", ".5", "--json").json["mask_hash"] == wanted
        cli("bench", name, "--engines", "sparsecirc", "--min-secs", "0.01", "--seq-len", "3")
        for file in ("verify.json", "bench.json", "manifest.json"):
            assert json.loads(Path(name, file).read_text())["mask_hash"] == wanted


def test_reducible_neurons_leave_with_a_reason(cli: Cli) -> None:
    report = prune(cli, "a", "--pattern", "neurons", "--method", "lattice")
    why = json.loads(Path("a/why.json").read_text())
    left = sum(n["irreducible"] for n in why["neurons"] if n["layer"] == "rnn.l0")
    assert report["units"]["rnn.l0"]["after"] == left < 16
    assert report["explanations"] == ["why.txt", "why.json", "why.svg"]


def test_neurons_are_trained_on_and_of_graphs_too(cli: Cli, gru_file: Path) -> None:
    args = ("-s", "0.5", "--pattern", "neurons", "--method", "taylor", "--data", "digits", "--epochs", "3")
    report = prune(cli, "a", *args, "--learning-rate", "0.01")
    assert report["accuracy"]["pruned"] > report["accuracy"]["dense"] + 0.2
    assert load_file("a/model.safetensors")["rnn.weight_hh_l0"].shape == (24, 8)
    assert prune(cli, "b", "-s", "0.25", "--pattern", "neurons", model=str(gru_file))["units"]["rnn.l0"]["after"] == 12


@pytest.mark.parametrize(
    "options", [("--include", "*.ih"), ("--include", "*.ih", "--schedule", "cubic"), ("--pattern", "neurons")]
)
def test_what_was_pruned_before_stays_pruned_while_other_weights_are(cli: Cli, options: tuple[str, ...]) -> None:
    prune(cli, "a", "-s", "0.75", "--include", "*.hh")
    before = load_patterns("a/masks.safetensors")["rnn.l0.hh"]
    prune(cli, "b", "-s", "0.5", *options, "--data", "digits", "--epochs", "1", model="a")
    after, state = load_patterns("b/masks.safetensors")["rnn.l0.hh"], load_file("b/model.safetensors")
    assert after.density < 0.5
    if "neurons" not in options:
        assert after == before
    np.testing.assert_array_equal(state["rnn.weight_hh_l0"] != 0, after.mask())
    assert cli("verify", "b", "--against", "interpret,torch").code == 0


TRAIN = ("--data", "digits", "--batch-size", "64")


def test_rewinding_returns_to_early_weights(cli: Cli) -> None:
    args = ("-s", "0.75", "--schedule", "rewind", "--rounds", "2", *TRAIN)
    report = prune(cli, "a", *args, "--epochs", "3")
    assert [round(h["density"], 2) for h in report["accuracy"]["history"]] == [0.5, 0.25, 0.25]
    # Rounds of one epoch: after the second one every live weight is where it began, and the last epoch trains it.
    one = prune(cli, "b", *args, "--epochs", "3", "--learning-rate", "1e-30")
    assert one["mask_hash"] != ""
    start = importlib.import_module("methodnets").build().state_dict()
    now = load_file("b/model.safetensors")
    live = load_patterns("b/masks.safetensors")["rnn.l0.hh"].mask()
    np.testing.assert_array_equal(now["rnn.weight_hh_l0"], np.where(live, start["rnn.weight_hh_l0"].numpy(), 0))


def test_the_search_ends_at_the_drop_or_at_the_limit(cli: Cli) -> None:
    trained = ("--sparsity", "0", *TRAIN, "--learning-rate", "0.01", "--epochs", "6")
    prune(cli, "trained", *trained)
    search = ("--schedule", "until-drop", "--share", "0.5", *TRAIN, "--learning-rate", "0.01")
    ran = cli("prune", "trained", *search, "-s", "0.6", "--tolerance", "0.5", "--epochs", "6", "-o", "easy", "--json")
    assert ran.code == 0
    assert "reached without a drop" in ran.err
    hh = next(w for w in ran.json["weights"] if w["name"] == "rnn.l0.hh")
    assert hh["density"] == pytest.approx(0.4, abs=0.01)
    assert len(ran.json["accuracy"]["history"]) == 3  # dense, half, the limit
    ran = cli("prune", "trained", *search, "-s", "0.99", "--tolerance", "0.05", "--epochs", "8", "-o", "hard", "--json")
    assert ran.code == 0
    assert "is the last good one" in ran.err
    tried = ran.json["accuracy"]["search"]
    assert tried[-1]["held_out"] < tried[0]["held_out"] - 0.05 <= tried[-2]["held_out"]
    hh = next(w for w in ran.json["weights"] if w["name"] == "rnn.l0.hh")
    assert 1 - hh["density"] == pytest.approx(tried[-2]["sparsity"], abs=0.01)


def test_the_last_share_of_a_search_is_judged(cli: Cli) -> None:
    """Training ends with the last epoch; what was pruned before it is kept only if it is good."""
    args = ("-s", "0.99", "--schedule", "until-drop", "--share", "0.5", "--tolerance", "1", *TRAIN, "--epochs", "2")
    report = prune(cli, "a", *args)
    search = report["accuracy"]["search"]
    assert [s["sparsity"] for s in search] == [0.0, 0.0, 0.5]
    assert next(w for w in report["weights"] if w["name"] == "rnn.l0.hh")["density"] == 0.5


@pytest.mark.parametrize(
    "options",
    [
        ("--schedule", "rewind", "--rounds", "2"),
        ("--schedule", "until-drop", "--tolerance", "1", "--share", "0.5"),
        ("--schedule", "cubic", "--method", "movement"),
        ("--schedule", "cubic", "--method", "taylor", "--score-samples", "64"),
        ("--pattern", "neurons"),
    ],
)
def test_an_interrupted_run_goes_on_to_the_same_bits(
    cli: Cli, options: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    from sparsecirc.cli._training import Run

    args = ("prune", "methodnets:build", "-s", "0.75", *options, *TRAIN, "--epochs", "3", "--seed", "3")
    assert cli(*args, "-o", "whole").code == 0
    train_epoch = Run.train_epoch

    def stopped(self: Run, advance: object) -> None:
        if self.epoch == 1:
            raise KeyboardInterrupt
        train_epoch(self, advance)

    monkeypatch.setattr(Run, "train_epoch", stopped)
    assert cli(*args, "-o", "parts").code == 130
    assert not Path("parts").exists()
    monkeypatch.setattr(Run, "train_epoch", train_epoch)
    assert cli(*args, "-o", "parts", "--resume").code == 0
    whole, parts = (load_file(f"{d}/model.safetensors") for d in ("whole", "parts"))
    for key in whole:
        np.testing.assert_array_equal(whole[key], parts[key])
    reports = [json.loads(Path(d, "report.json").read_text()) for d in ("whole", "parts")]
    assert reports[0] == reports[1]


TRAINED = ("--data", "digits", "--epochs", "2")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--method", "snip"), ("'snip' needs a loss", "--data")),
        (("--method", "snp"), ("snip", "taylor", "movement")),
        (("--method", "movement", *TRAINED), ("follows weights while they are trained", "--schedule cubic")),
        (("--score-samples", "5"), ("--score-samples needs --method snip", "--method magnitude")),
        (
            ("--method", "taylor", "--data", "digits", "--score-samples", "0"),
            ("score-samples 0", "greater than or equal to 1"),
        ),
        (("--schedule", "rewind"), ("'rewind' prunes while it trains", "--epochs")),
        (("--schedule", "rewind", *TRAINED, "--rewind-to", "1"), ("rewind-to 1", "4 trainings", "--rounds")),
        (("--rounds", "2"), ("--rounds needs --schedule rewind", "--schedule one-shot")),
        (("--schedule", "cubic", *TRAINED, "--tolerance", "0.1"), ("--tolerance needs --schedule until-drop",)),
        (("--schedule", "until-drop", *TRAINED, "--share", "1"), ("share 1.0", "less than 1")),
        (("--schedule", "until-drop", *TRAINED, "--budget", "erdos-renyi"), ("excludes budget erdos-renyi",)),
        (("--schedule", "rewind", *TRAINED, "--pattern", "2:4"), ("needs a sparsity to grow to",)),
        (("--minimum-density", "0.1"), ("--minimum-density needs --budget erdos-renyi",)),
        (("--budget", "erdos-renyi", "--minimum-density", "0.5"), ("minimum density of 0.5", "sparsity 0.9")),
        (("--budget", "erdos-renyi", "--pattern", "fan-in:2"), ("'erdos-renyi'", "fixes the sparsity")),
        (("--budget", "erk"), ("erdos-renyi-kernel",)),
        (("--pattern", "rows", "--keep-diagonal"), ("whole lines",)),
        (("--method", "lattice", "--keep-diagonal"), ("by the order alone",)),
        (("--pattern", "rows", "--scope", "global"), ("rows",)),
        (("--pattern", "row"), ("'row'", "rows, columns")),
        (("--pattern", "neurons", *TRAINED, "--schedule", "cubic"), ("whole units", "--schedule one-shot")),
        (("--pattern", "neurons", "--include", "*.hh"), ("whole units", "include says nothing")),
        (("--pattern", "neurons", "--budget", "erdos-renyi"), ("budget says nothing",)),
        (("--pattern", "neurons", "--method", "lattice", "-s", "0.5"), ("the lattice decides", "leave sparsity out")),
        (("--pattern", "neurons", "--method", "lattice", "--lattice-keep", "both"), ("leave lattice-keep out",)),
    ],
)
def test_what_cannot_be_is_refused(cli: Cli, options: tuple[str, ...], words: tuple[str, ...]) -> None:
    ran = cli("prune", "methodnets:build", *options, "-o", "out")
    assert ran.code == 2
    for word in words:
        assert word in ran.err
    assert not Path("out").exists()
    assert not Path("out.partial").exists()


def test_a_resolved_recipe_takes_another_method(cli: Cli) -> None:
    prune(cli, "a", "-s", "0.75", "--method", "taylor", "--data", "digits", "--score-samples", "64")
    assert cli("prune", "methodnets:build", "--recipe", "a/recipe.yaml", "--method", "random", "-o", "b").code == 0
    Path("bad.yaml").write_text("method: magnitude\ntolerance: 0.2\n")
    ran = cli("recipes", "validate", "bad.yaml")
    assert ran.code == 2
    assert "bad.yaml, line 2: --tolerance needs --schedule until-drop" in ran.line


@pytest.mark.parametrize("name", sorted(p.stem for p in SHIPPED.glob("*.yaml")))
def test_every_recipe_that_ships_runs(cli: Cli, name: str) -> None:
    text = (SHIPPED / f"{name}.yaml").read_text("utf-8")
    small = ("--data", "digits", "--epochs", "2") if "epochs:" in text else ()
    more = ("--rewind-to", "0.1") if "rewind_to" in text else ()
    report = prune(cli, "a", "--recipe", name, *small, *more)
    assert report["nnz"] < report["nnz_before"]
    assert len(report["mask_hash"]) == 16
