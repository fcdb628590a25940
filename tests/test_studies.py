"""Studies: tasks that are kept, runs that go on, rows and pages; the lattice study on a toy."""

from __future__ import annotations

import json
import sys
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch", reason="torch is not installed")
sys.path.insert(0, str(Path(__file__).parent.parent))  # a bare `pytest` does not look there

from benchmarks import lattice_algebra
from benchmarks import lattice_tiles as tiles
from benchmarks._networks import gated
from benchmarks.studies import __main__ as command
from benchmarks.studies import _lattice as study_lattice
from benchmarks.studies import _reber as study_reber
from benchmarks.studies import _strings as study_strings
from benchmarks.studies import _structures as study_structures
from benchmarks.studies._page import lines, markdown, scatter, spread
from benchmarks.studies._run import Progress, run
from benchmarks.studies._study import Page, Row, Setting, Study, Task
from sparsecirc import interpret, prune
from sparsecirc._prune import named
from sparsecirc.cells import LSTM
from sparsecirc.data import Dataset, reber
from sparsecirc.errors import UsageError

KEYS = {"study", "cell", "method", "scope", "sparsity", "seed", "accuracy_before", "accuracy_after", "published"}


class Toy:
    """A study of four tasks that counts what is run."""

    def __init__(self, fail_at: int | None = None, error: type[BaseException] = KeyboardInterrupt) -> None:
        self.ran: list[int] = []
        self.fail_at, self.error = fail_at, error
        self.study = Study("toy", "A toy", "nobody", self.tasks, lambda rows, setting: Page(f"{len(rows)} rows", {}))

    def tasks(self, setting: Setting) -> Iterator[Task]:
        for k in range(4):
            yield Task(f"toy: number {k}", lambda k=k: self.work(k))

    def work(self, k: int) -> list[Row]:
        if k == self.fail_at:
            raise self.error
        self.ran.append(k)
        return [Row("toy", "lstm", "magnitude", "h2h", 0.5, k, 0.25, None)]


def setting(folder: Path, said: list[str] | None = None) -> Setting:
    return Setting(True, (0,), folder, (said if said is not None else []).append)


def test_finished_tasks_are_not_done_again(tmp_path):
    first = Toy(fail_at=2)
    progress = Progress()
    with pytest.raises(KeyboardInterrupt):
        run(first.study, setting(tmp_path), progress, clock=lambda: 0.0)
    assert (progress.done, progress.complete) == (2, False)
    second, said = Toy(), []
    progress = Progress()
    run(second.study, setting(tmp_path, said), progress, clock=lambda: 0.0)
    assert second.ran == [2, 3]
    assert [r.seed for r in progress.rows] == [0, 1, 2, 3]
    assert progress.complete
    assert [line.split(":")[0] for line in said] == ["3", "4"]


def test_a_run_stops_when_its_time_is_over(tmp_path):
    toy, now = Toy(), iter(range(1000))
    progress = Progress()
    run(toy.study, setting(tmp_path), progress, seconds=4, clock=lambda: float(next(now)))
    assert 0 < progress.done < 4
    assert not progress.complete


def test_the_command_writes_what_was_reached(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    toy = Toy(fail_at=1)
    monkeypatch.setitem(command.STUDIES, "toy", toy.study)
    assert command.main(["toy", "--quick", "--json", "rows.json", "--out", "pages"]) == 130
    rows = json.loads(Path("rows.json").read_text())
    assert [set(r) for r in rows] == [KEYS]
    assert not Path("pages").exists()
    toy.fail_at, toy.error = 2, UsageError
    assert command.main(["toy", "--quick", "--json", "rows.json"]) == 2
    toy.fail_at = None
    assert command.main(["toy", "--quick", "--json", "rows.json", "--out", "pages"]) == 0
    assert toy.ran == [0, 1, 2, 3]
    assert len(json.loads(Path("rows.json").read_text())) == 4
    document = json.loads(Path("pages/toy.json").read_text())
    assert document["seeds"] == [0]
    assert len(document["rows"]) == 4
    assert "commit" in Path("pages/toy.md").read_text()
    assert "magnitude" in capsys.readouterr().out
    assert command.main(["toy", "--quick", "--fresh"]) == 0
    assert toy.ran == [0, 1, 2, 3] * 2


def test_wrong_arguments_are_refused(capsys):
    for args in (["nothing"], ["lattice", "--seeds", "one"]):
        with pytest.raises(SystemExit) as stop:
            command.main(args)
        assert stop.value.code == 2
    assert "expected whole numbers" in capsys.readouterr().err


def test_file_names_are_safe_and_differ():
    names = {Task(key, lambda: []).file for key in ("a/b: 1 %", "a/b; 1 %", "a b  1 %", "x" * 5)}
    assert len(names) == 4
    assert all(c.isalnum() or c in "-_." for name in names for c in name)


def test_tables_and_drawings():
    assert markdown(("a", "b"), [("|x|", "1")]).splitlines() == ["| a | b |", "|---|---:|", r"| \|x\| | 1 |"]
    assert spread([0.5]) == "50.00"
    assert spread([0.5, 0.7]) == "60.00 ± 14.14"
    drawn = lines({"one": [(50, 98.0, 1.0), (90, 20.0, 0.0)], "<two>": [(50, 97.0, 0.0)]},
                  x_label="sparsity, %", y_label="accuracy", ticks=[50, 90], y_range=(80.0, 100.0))  # fmt: skip
    root = ET.fromstring(drawn)
    circles = root.findall("{http://www.w3.org/2000/svg}circle")
    assert len(circles) == 3
    heights = [float(c.attrib["cy"]) for c in circles]
    assert heights[0] < heights[2] < heights[1], "higher values lie higher; what is too low lies at the edge"
    assert "&lt;two&gt;" in drawn


@pytest.fixture
def toy_mnist(monkeypatch):
    rng = np.random.default_rng(0)
    x, y = rng.random((160, 28, 28), dtype=np.float32), rng.integers(0, 10, 160)
    data = Dataset("mnist", x[:128], y[:128], x[128:], y[128:])
    monkeypatch.setattr(study_lattice, "load", lambda quick: data)
    small = study_lattice.Sizes(
        16, 64, 1, (0.5, 0.9), (0.9,), tuple(study_lattice.VARIANTS), tuple(study_lattice.CURVE)
    )
    monkeypatch.setattr(study_lattice, "QUICK", small)
    study_lattice._data.cache_clear()
    study_lattice._net.cache_clear()
    yield
    study_lattice._data.cache_clear()
    study_lattice._net.cache_clear()


def test_the_lattice_study_on_a_toy(toy_mnist, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert command.main(["lattice", "--quick", "--seeds", "0,1", "--json", "rows.json", "--out", "pages"]) == 0
    rows = json.loads(Path("rows.json").read_text())
    assert {r["study"] for r in rows} == {"lattice"}
    assert {r["cell"] for r in rows} == {"lstm", "rnn_feedback"}
    assert {"dense", "lattice_binary", "lattice_continuous", "magnitude", "random", "gradient"} <= {
        r["method"] for r in rows
    }
    assert {r["published"] for r in rows if r["method"] == "lattice_binary" and r["cell"] == "lstm"} >= {0.98}
    for seed in (0, 1):
        own = [
            r
            for r in rows
            if (r["method"], r["scope"], r["cell"], r["seed"]) == ("lattice_binary", "h2h", "lstm", seed)
        ]
        assert len(own) == 1
        same = [r["method"] for r in rows if r["seed"] == seed and r["cell"] == "lstm" and r["scope"] == "h2h"
                and abs(r["sparsity"] - own[0]["sparsity"]) < 1e-3]  # fmt: skip
        assert {"magnitude", "random", "gradient"} <= set(same)
    page = Path("pages/lattice.md").read_text()
    assert "lattice_continuous minus magnitude, in points: 50 %" in page
    for name in ("lattice-before.svg", "lattice-after.svg"):
        assert name in page
        ET.fromstring(Path("pages", name).read_text())
    said_again = json.loads(Path("rows.json").read_text())
    assert command.main(["lattice", "--quick", "--seeds", "0,1", "--json", "again.json"]) == 0
    assert json.loads(Path("again.json").read_text()) == said_again


# Renumbered units ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("order", tiles.ORDERS, ids=lambda f: f.__name__)
def test_a_renumbered_layer_computes_the_same(order):
    if order is tiles.cuthill_mckee:
        pytest.importorskip("scipy", reason="scipy is not installed")
    graph = prune(gated(LSTM, 24, 1.0), 0.9, select=named("*.hh"))
    new_order = order(tiles.strengths_of(graph, "rnn"))
    assert sorted(new_order.tolist()) == list(range(24))
    x = np.random.default_rng(0).standard_normal((5, 2, 64))
    y = interpret(graph, x).y
    np.testing.assert_allclose(interpret(tiles.permuted(graph, "rnn", new_order), x).y, y[..., new_order], atol=1e-12)


# The studies on Reber strings ----------------------------------------------------------------------------------------


@pytest.fixture
def few_strings(monkeypatch: pytest.MonkeyPatch) -> None:
    data = reber(96, 64)
    monkeypatch.setattr(study_reber, "strings", lambda quick: data)
    monkeypatch.setattr(study_structures, "strings", lambda quick: data)
    monkeypatch.setattr(study_reber, "QUICK", study_reber.Sizes(("gru",), (0.8, 1.0), 1, 32))
    monkeypatch.setattr(study_structures, "QUICK", study_structures.Sizes(("rnn_tanh",), 3, 1))


@pytest.mark.usefixtures("few_strings")
def test_reber_prunes_all_scopes_and_quotes_the_thesis(tmp_path):
    progress, here = Progress(), setting(tmp_path)
    run(study_reber.REBER, here, progress, clock=lambda: 0.0)
    assert progress.complete
    assert {(r.scope, r.sparsity) for r in progress.rows[1:]} == {
        (s, level) for s in ("i2h", "h2h", "both") for level in (0.8, 1.0)
    }
    assert [r.published for r in progress.rows if r.published is not None] == [0.994]
    page = study_reber.REBER.page(progress.rows, here)
    assert "| gru 80 % | 99.4 | - |" in page.text
    assert {ET.fromstring(svg).tag.split("}")[1] for svg in page.figures.values()} == {"svg"}


def test_reber_masks_count_over_all_layers_together():
    model = study_strings.Reader("lstm")
    masks = study_reber.masks_for(model, "i2h", 0.9)
    total = sum(p.shape[0] * p.shape[1] for p in masks.patterns.values())
    assert sum(p.nnz for p in masks.patterns.values()) == round(0.1 * total)
    assert {name.rsplit(".", 1)[1] for name in masks.patterns} == {"ih"}
    nothing = study_reber.masks_for(model, "both", 1.0)
    nothing.apply()
    assert not any(bool(p.detach().any()) for n, p in model.rnn.named_parameters() if n.startswith("weight"))


@pytest.mark.usefixtures("few_strings")
def test_structures_correlate_accuracy_with_the_graphs(tmp_path):
    progress, here = Progress(), setting(tmp_path)
    run(study_structures.STRUCTURES, here, progress, clock=lambda: 0.0)
    assert len(progress.rows) == 6
    assert progress.rows[0].published == 0.842
    text = study_structures.STRUCTURES.page(progress.rows, here).text
    assert "| source_nodes | " in text
    assert "(+0.35)" in text


def test_correlation_and_fit_of_known_numbers():
    x = np.array([1.0, 2.0, 3.0, 4.0, 5.0])
    assert study_structures._pearson(x, -2 * x) == pytest.approx(-1)
    assert np.isnan(study_structures._pearson(x, np.ones(5)))
    assert study_structures._fit(x[:, None], 3 * x + 1) == pytest.approx(1)
    assert np.isnan(study_structures._fit(x[:2, None], x[:2]))


def test_the_cost_of_the_lattice_is_measured_step_by_step(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert lattice_algebra.main(["--neurons", "64,65", "--json", str(tmp_path / "cost.json")]) == 0
    rows = json.loads((tmp_path / "cost.json").read_text())["rows"]
    assert {r["n"] for r in rows} == {64, 65}
    assert len(rows) == 14
    assert all(r["seconds"] >= 0 and r["peak_over_bit_matrix"] > 0 for r in rows)
    assert capsys.readouterr().out.count("together") == 2
    monkeypatch.setitem(lattice_algebra.GOALS, 64, 0.0)
    assert lattice_algebra.main(["--neurons", "64"]) == 5


def test_points_are_drawn_where_they_belong() -> None:
    series = {"a": [(0.0, 50.0), (1.0, 100.0)], "b<": [(0.5, 20.0)]}
    root = ET.fromstring(scatter(series, x_label="x", y_label="y", y_range=(45.0, 100.0)))
    circles = [e for e in root.iter() if e.tag.endswith("circle")]
    assert len(circles) == 5  # the points, and one mark for each name
    low, high, legend, middle, _ = ((float(c.get("cx", "")), float(c.get("cy", ""))) for c in circles)
    assert low[0] < middle[0] < high[0] < legend[0]
    assert high[1] < low[1] < middle[1]  # what lies below the range is drawn at its edge
    assert circles[0].get("fill") != circles[3].get("fill") == "#fff"
    assert "b<" in [e.text for e in root.iter() if e.tag.endswith("text")]
