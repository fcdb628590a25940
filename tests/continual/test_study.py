"""The continual study on a few made-up images: rows in the agreed form, kept results, a page."""

from __future__ import annotations

import json
import sys
import xml.etree.ElementTree as ET
from dataclasses import replace
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent.parent.parent))  # a bare `pytest` does not look there

from benchmarks.studies import __main__ as command
from benchmarks.studies import _continual as study
from sparsecirc.continual import Result

KEYS = {"scenario", "method", "seed", "acc", "bwt", "fwt", "forgetting", "seconds", "rank_used"}


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    g = torch.Generator().manual_seed(0)
    y = torch.arange(400) % 10
    x = torch.randn(10, 784, generator=g)[y] + torch.randn(400, 784, generator=g)
    small = {"train": 400, "test": 100, "hidden": 24}
    monkeypatch.setattr(study, "data", lambda: (x, y, x[:100], y[:100]))
    streams = (study.FIVE, study.SPLIT, study.SPARSE, study.MODULAR)
    five, halves, sparse, modules = (replace(s, tasks=2, **small) for s in streams)
    modules = replace(modules, density=0.3, groups=2)
    halves = replace(halves, tasks=5)
    monkeypatch.setattr(study, "QUICK", ((five, ("hlop", "finetune"), None), (halves, ("gpm", "ledger"), None)))
    monkeypatch.setattr(
        study,
        "FULL",
        (
            (five, tuple(study.METHODS), None),
            (sparse, tuple(study.SPARSE_METHODS)[:4], 1),
            (modules, tuple(study.SPARSE_METHODS)[4:], 1),
            (five, ("hlop",), 1),
        ),
    )


@pytest.mark.filterwarnings("ignore::sparsecirc.continual.CapacityWarning")
def test_quick_rows_have_the_agreed_fields(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out.json"
    assert command.main(["continual", "--quick", "--json", str(out), "--work", str(tmp_path / "work")]) == 0
    rows = json.loads(out.read_text("utf-8"))
    assert [(r["scenario"], r["method"]) for r in rows] == [
        ("permuted-mnist-5x20k", "hlop"), ("permuted-mnist-5x20k", "finetune"),
        ("split-mnist", "gpm"), ("split-mnist", "ledger"),
    ]  # fmt: skip
    assert all(set(r) == KEYS for r in rows)
    assert all(0 <= r["acc"] <= 1 for r in rows)
    assert rows[0]["rank_used"]["blocks.1.connection"] == 24
    assert "ledger" in capsys.readouterr().out


@pytest.mark.filterwarnings("ignore::sparsecirc.continual.CapacityWarning")
def test_every_method_of_the_full_study_gives_a_row_and_a_place_on_the_page(tmp_path: Path) -> None:
    work = tmp_path / "work"
    line = ["continual", "--seeds", "0,1", "--work", str(work), "--out", str(tmp_path)]
    assert command.main(line) == 0
    text = (tmp_path / "continual.md").read_text("utf-8")
    for name in (*study.METHODS, *study.SPARSE_METHODS):
        assert f"| {name} |" in text
    ET.fromstring((tmp_path / "continual-permuted-mnist-5x20k.svg").read_text("utf-8"))
    rows = json.loads((tmp_path / "continual.json").read_text("utf-8"))["rows"]
    assert len(rows) == 2 * len(study.METHODS) + len(study.SPARSE_METHODS)
    kept = work / f"continual-full-{study.CONTINUAL.version}" / "results" / "permuted-mnist-5x20k-hlop-1.json"
    found = Result.from_json(json.loads(kept.read_text("utf-8")))
    assert found.row() == next(r for r in rows if (r["method"], r["seed"]) == ("hlop", 1))


def test_a_partial_page_can_be_written(tmp_path: Path) -> None:
    line = ["continual", "--quick", "--work", str(tmp_path / "work"), "--out", str(tmp_path), "--minutes", "0"]
    assert command.main(line) == 0
    assert not (tmp_path / "continual.md").is_file()
