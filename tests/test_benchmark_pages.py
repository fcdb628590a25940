"""What is made of measurements: sweeps, pictures, goals, and the tables of README and docs."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from xml.etree import ElementTree

import pytest

pytest.importorskip("torch", reason="torch is not installed")
pytest.importorskip("snntorch", reason="snntorch is not installed")
pytest.importorskip("scipy", reason="scipy is not installed")
pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
sys.path.insert(0, str(Path(__file__).parent.parent))  # a bare `pytest` does not look there

from benchmarks import _curves as curves
from benchmarks import _goals as goals
from benchmarks import _machine as machine
from benchmarks import _networks as networks
from benchmarks import _plot as plot
from benchmarks import _results as results
from benchmarks import publish, sweeps
from benchmarks._forward import Budget
from benchmarks._rows import Measured, Row
from sparsecirc._bench import Host, _measure
from sparsecirc._cost import Bandwidth
from sparsecirc.errors import MismatchError

HOST = Host("Some CPU", "avx2", 2, 1, "Linux", "3.11", {"torch": "2.13", "scipy": "1.17"}, "abc123")
BUDGET = Budget(True, 0.002, 2, lambda line: None)


def row(engine: str, us: float, speedup: float, case: str = "gru_unstructured", n: int = 512, batch: int = 1) -> Row:
    return Row(case, engine, n, 0.1, batch, 100, us, speedup, 1e-7, 1000, 0.9 * us, 1.1 * us, 99)


def gru(n: int = 512, batch: int = 1, ours: float = 6.0, case: str = "gru_unstructured") -> Measured:
    rows = [
        row("sparsecirc", 10 / ours, ours, case, n, batch), row("sparsecirc_dense", 10, 1, case, n, batch),
        row("onnxruntime", 20, 0.5, case, n, batch), row("scipy_csr", 40, 0.25, case, n, batch),
    ]  # fmt: skip
    return Measured(tuple(rows), ("recurrent product alone 2 us, 50 GB/s of weights, 70% of the 71 GB/s at which",))


@pytest.fixture(autouse=True)
def _short(monkeypatch):
    """No warm-up worth the name: figures mean nothing here."""
    monkeypatch.setattr(_measure, "WARM_CALLS", 1)
    monkeypatch.setattr(_measure, "WARM_SECONDS", 0.0)
    monkeypatch.setattr(machine, "read_limit", lambda size: 100.0)
    monkeypatch.setattr(machine, "levels", lambda: (Bandwidth("L2", 1 << 20, 100.0),))


@pytest.fixture
def kept(tmp_path, monkeypatch):
    """A folder of results, and a README and a page that are to hold them."""
    monkeypatch.setattr(publish, "ROOT", tmp_path)
    monkeypatch.setattr(results, "RESULTS", tmp_path / "results")
    folder = tmp_path / "results" / "some-avx2"
    folder.mkdir(parents=True)
    groups = [
        ("gru_unstructured", gru()),
        ("gru_unstructured", gru(1024, ours=4.0)),
        ("gru_unstructured", gru(batch=64)),
    ]
    results.write(folder / "table.json", "table", "python -m benchmarks", groups)
    points = [(f"sparsity:{x}", gru(ours=y)) for x, y in ((0.5, 0.7), (0.9, 4.0))]
    results.write(folder / "sweeps.json", "sweeps", "python -m benchmarks.sweeps", points)
    for name in ("README", "PAGE"):
        path = tmp_path / f"{name}.md"
        path.write_text(f"before\n{publish.BEGIN}\nold\n{publish.END}\nafter\n")
        monkeypatch.setattr(publish, name, path)
    return folder


def test_publish_rewrites_what_is_between_the_marks(kept, capsys):
    assert publish.main(["--machine", "some-avx2"]) == 0
    for path in (publish.README, publish.PAGE):
        text = path.read_text()
        assert text.startswith("before\n")
        assert text.endswith("after\n")
        assert "old" not in text
        assert "results/some-avx2" in text
    readme, page = publish.README.read_text(), publish.PAGE.read_text()
    assert (
        "| gru_unstructured | 512 | 90% | 1 | **1.7** | 10.0 sparsecirc_dense (6.0x) | 40.0 scipy_csr (24.0x) |"
        in readme
    )
    assert "GRU 12.0x, 8.0x" not in page, "LSTM and RNN are missing, so nothing is said of the three"
    assert "| not measured |" in page
    assert "| onnxruntime | 20.00 | 18.00 to 22.00 | 0.50 |" in page
    assert "![What sparsity gives](../results/some-avx2/sparsity.svg)" in page
    assert (kept / "sparsity.svg").is_file()
    before = readme, page
    publish.main(["--machine", "some-avx2"])
    assert (publish.README.read_text(), publish.PAGE.read_text()) == before


def test_publish_without_results(kept, capsys):
    with pytest.raises(SystemExit) as left:
        publish.main(["--machine", "elsewhere"])
    assert left.value.code == 2
    assert "--results" in capsys.readouterr().err
    with pytest.raises(ValueError, match="has no"):
        publish.between("nothing marked", "text")


@pytest.mark.parametrize("path", [publish.README, publish.PAGE], ids=["README", "page"])
def test_the_real_pages_have_a_place_for_results(path):
    text = path.read_text()
    assert text.count(publish.BEGIN) == text.count(publish.END) == 1
    assert f"{publish.BEGIN}\nnew\n{publish.END}" in publish.between(text, "new")


def test_goals_are_judged_by_the_engines_they_name():
    groups = [gru(n, 1, ours, case) for case in goals.GATED.values() for n, ours in ((512, 6.0), (1024, 4.0))]
    judged = {v.goal: v for v in goals.verdicts([*groups, gru(batch=64), gru(1024, 64, 4.9)], [])}
    others = next(v for g, v in judged.items() if g.endswith("best dense engine of others") and "unstructured" in g)
    assert (others.measured, others.word) == ("GRU 12.0x, 8.0x; LSTM 12.0x, 8.0x; RNN 12.0x, 8.0x", "reached")
    ours = next(v for g, v in judged.items() if "our own dense kernel" in g)
    assert (ours.measured, ours.word) == ("GRU 6.0x, 4.0x; LSTM 6.0x, 4.0x; RNN 6.0x, 4.0x", "missed")
    batched = next(v for g, v in judged.items() if "batch 64: 5x" in g)
    assert (batched.measured, batched.reached) == ("6.0x, 4.9x", False)
    assert next(v for g, v in judged.items() if "bandwidth" in g).measured == "70 % to 70 % over 8 layers"
    assert next(v for g, v in judged.items() if "WaveRNN" in g).reached is None
    assert next(v for g, v in judged.items() if "WaveRNN" in g).measured == "wavernn N = 1024 B = 1 was not measured"


def test_break_even_is_where_the_gain_crosses_one():
    gains = [(0.5, 0.5), (0.7, 0.9), (0.9, 1.3)]
    points = [(x, row("sparsecirc", 1, y)) for x, y in gains]
    assert curves.crossing(points) == pytest.approx(0.75)
    assert curves.crossing(points[2:]) == 0.9
    assert curves.crossing(points[:2]) is None
    assert curves.crossing([]) is None


def test_pictures_are_well_formed_and_name_every_engine():
    points = [("sparsity", x, gru(ours=y)) for x, y in ((0.5, 0.7), (0.9, 4.0))]
    points += [("break_even", x, gru(1024, ours=y)) for x, y in ((0.5, 0.9), (0.9, 3.0))]
    points += [("growth", float(n), gru(n)) for n in (512, 1024)] + [("rate", 0.05, gru())]
    found = curves.pictures(points, HOST)
    assert set(found) == {"sparsity", "break_even", "growth", "growth_memory"}, "one point is no curve"
    for picture in found.values():
        root = ElementTree.fromstring(picture)
        assert root.tag.endswith("svg")
        assert "abc123" in picture
        assert "nan" not in picture
    for engine in ("sparsecirc", "sparsecirc_dense", "onnxruntime", "scipy_csr", "proportional"):
        assert f">{engine}</text>" in found["growth"]
    assert ">90 %</text>" in found["sparsity"]


def test_names_at_line_ends_do_not_overlap():
    lines = tuple(plot.Line(f"engine{k}", (1.0, 10.0), (1.0, 5 + 0.001 * k)) for k in range(9))
    picture = plot.svg(plot.Chart("t", "s", "x", "y", lines, (1.0, 10.0)))
    ends = [e for e in ElementTree.fromstring(picture).iter() if e.tag.endswith("text") and "engine" in (e.text or "")]
    heights = sorted(float(e.attrib["y"]) for e in ends)
    assert len(heights) == 9
    assert min(b - a for a, b in pairwise(heights)) > plot.LABEL_STEP - 1
    assert heights[0] >= plot.TOP
    assert heights[-1] <= plot.HEIGHT - plot.BOTTOM + 5


def test_every_sweep_has_points_of_what_it_sweeps(monkeypatch):
    asked = []

    def measured(setting, graph, x, budget):
        asked.append((setting, x.shape))
        return gru(setting.n)

    monkeypatch.setattr(sweeps, "measure", measured)
    gated, spiking = networks.gated, networks.spiking
    monkeypatch.setattr(networks, "gated", lambda cell, n, density: gated(cell, n // 16, density))
    monkeypatch.setattr(networks, "spiking", lambda n, *args, **more: spiking(n // 16, *args, **more))
    xs = {}
    for name, sweep in sweeps.SWEEPS.items():
        asked.clear()
        xs[name] = [x for x, _ in sweep(replace(BUDGET, quick=name != "break_even"))]
        for x, (setting, shape) in zip(xs[name], asked, strict=True):
            if name == "size":
                assert setting.n == x // 16
            elif name in ("sparsity", "break_even"):
                assert setting.density == pytest.approx(1 - x, abs=0.03)
            elif name == "batch":
                assert shape[1] == x
            elif name == "length":
                assert shape[0] == x
            elif name == "growth":
                assert (setting.n, setting.nnz) == (x, sweeps.FAN_IN * x)
    assert all(len(found) >= 2 for found in xs.values())


def test_growth_leaves_dense_engines_behind(monkeypatch):
    monkeypatch.setattr(sweeps, "DENSE_UP_TO", 0)
    monkeypatch.setattr(networks, "grown", lambda n, fan_in, make=networks.grown: make(64, 4))
    _, found = next(sweeps.growth(BUDGET))
    assert {"sparsecirc", "scipy_csr", "torch_csr"} <= {r.engine for r in found.rows}
    assert not {"torch_dense", "onnxruntime"} & {r.engine for r in found.rows}
    assert all(r.speedup_vs_best_dense == 0 for r in found.rows)


def test_the_command_writes_rows_and_pictures_even_when_stopped(monkeypatch, tmp_path, capsys):
    def stopped(budget):
        yield 0.5, gru(ours=0.9)
        yield 0.9, gru(ours=4.0)
        raise KeyboardInterrupt

    monkeypatch.setitem(sweeps.SWEEPS, "sparsity", stopped)
    arguments = ["--sweep", "sparsity", "--json", str(tmp_path / "s.json"), "--plots", str(tmp_path / "plots")]
    assert sweeps.main(arguments) == 130
    rows = json.loads((tmp_path / "s.json").read_text())
    assert [r["x"] for r in rows if r["engine"] == "sparsecirc"] == [0.5, 0.9]
    assert (tmp_path / "plots" / "sparsity.svg").is_file()
    assert "interrupted" in capsys.readouterr().err


def test_a_mismatch_in_a_sweep_is_an_exit_code(monkeypatch, capsys):
    def wrong(budget):
        yield 0.5, gru()
        raise MismatchError("it differs")

    monkeypatch.setitem(sweeps.SWEEPS, "size", wrong)
    assert sweeps.main(["--sweep", "size"]) == MismatchError.exit_code


def test_the_command_of_a_run_is_kept_without_its_paths():
    options = {"quick": True, "isa": None, "case": ["a", "b"], "batch": None}
    assert results.command_of("benchmarks", options) == "python -m benchmarks --quick --case a --case b"
