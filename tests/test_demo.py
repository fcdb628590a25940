"""The main job end to end, small, and the page about it."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch", reason="needs torch (extra 'torch')")
pytest.importorskip("snntorch", reason="needs snntorch (extra 'torch')")
pytest.importorskip("sklearn", reason="needs scikit-learn (extra 'demo')")

from sparsecirc import Program, compile, load_graph, to_graph, verify
from sparsecirc._report import render
from sparsecirc._report._pareto import Point, front, pareto
from sparsecirc._report._pictures import bars, matrix, png, raster
from sparsecirc.data import Dataset
from sparsecirc.demo import NAMES, _trained, build, load_trained, run_demo
from sparsecirc.errors import FileFormatError
from sparsecirc.masks import Masks

KEYS = {
    "name", "kind", "density", "accuracy_dense", "accuracy_pruned", "us_per_step", "speedup_vs_best_dense", "verify",
    "exports",
}  # fmt: skip


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("demo") / "out"
    said: list[str] = []
    import torch

    threads = torch.get_num_threads()
    run_demo(directory, quick=True, say=said.append, shown=Path("runs/there"))
    assert torch.get_num_threads() == threads
    assert any("epoch" in line for line in said), "no progress was told"
    return directory


def test_report_json_holds_what_it_promises(demo: Path) -> None:
    report = json.loads((demo / "report.json").read_text())
    assert {"version", "host", "models"} <= set(report)
    assert [m["kind"] for m in report["models"]] == ["gated", "spiking"]
    for model in report["models"]:
        assert set(model) >= KEYS
        assert model["density"] < 0.15
        assert model["us_per_step"]["sparsecirc"] > 0
        assert {"max_abs_diff", "spike_mismatches"} <= set(model["verify"])
        assert model["verify"]["ok"]
        assert model["verify"]["spike_mismatches"] == 0
        for made in model["exports"].values():
            assert {"bytes", "bytes_dense", "max_abs_diff", "ran_with"} <= set(made)
            assert made["max_abs_diff"] is None or made["max_abs_diff"] < 1e-3
    assert set(report["models"][1]["exports"]) == {"onnx", "c", "nir"}


def test_everything_written_can_be_used_again(demo: Path) -> None:
    for name in ("gru", "snn"):
        graph = load_graph(demo / name / "graph.safetensors")
        program = Program.load(demo / name / "program.safetensors")
        assert load_graph(demo / name / "dense.safetensors").density == 1
        x = build(name).example
        assert verify(program, np.repeat(x, 3, axis=1), reference=graph).ok
        model = build(name, units=64).model
        masks = Masks.load(demo / name / "masks.safetensors", model)
        assert {v.name: v.pattern.digest for v in graph.weights() if v.name in masks.patterns} == {
            n: p.digest for n, p in masks.patterns.items()
        }


class _Tags(HTMLParser):
    """Opened and closed tags must match; addresses are collected."""

    VOID = {"meta", "img", "rect", "line", "circle"}  # noqa: RUF012 - constant

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.addresses: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.addresses += [v for k, v in attrs if k in ("src", "href") and v]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.VOID:
            assert self.open.pop() == tag


def test_the_page_stands_alone(demo: Path) -> None:
    page = (demo / "report.html").read_text("utf-8")
    tags = _Tags()
    tags.feed(page)
    assert not tags.open
    assert all(a.startswith("data:image/png;base64,") for a in tags.addresses)
    assert "<script" not in page
    for words in (
        "Time per step",
        "Same results?",
        "Exports, run and compared",
        "Kernels",
        "Connections",
        "Spikes of",
        "Accuracy, time and size",
    ):
        assert words in page
    assert not re.search(r"\bnan\b|\bNone\b", page)
    assert "sparsecirc verify runs/there/gru" in page, "the page must name the place where the files end up"
    assert str(demo) not in page


def test_the_page_escapes_names_and_takes_what_there_is(demo: Path, tmp_path: Path) -> None:
    odd = tmp_path / "a<b>&c"
    odd.mkdir()
    (odd / "graph.safetensors").write_bytes((demo / "gru" / "graph.safetensors").read_bytes())
    page = render([odd])
    assert "a&lt;b&gt;&amp;c" in page
    assert "a<b>" not in page
    assert "no benchmark was run" in page


def test_a_directory_without_a_network_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileFormatError, match="holds no graph"):
        render([tmp_path])
    with pytest.raises(FileFormatError, match="is not a directory"):
        render([tmp_path / "gone"])
    (tmp_path / "report.json").write_text("{")
    with pytest.raises(FileFormatError, match="not valid JSON"):
        render([tmp_path])


@pytest.mark.parametrize("name", NAMES)
def test_demo_networks_convert_and_compile(name: str) -> None:
    built = build(name, units=17)
    program = compile(to_graph(built.model, example=built.example))
    assert verify(program, built.example).ok
    again = build(name, units=17)
    for a, b in zip(built.model.state_dict().values(), again.model.state_dict().values(), strict=True):
        assert bool((a == b).all()), "the same name and seed must give the same network"


def test_unknown_demo_network() -> None:
    with pytest.raises(KeyError):
        build("gnu")
    with pytest.raises(KeyError):
        load_trained("gru", lambda line: None)


def test_a_trained_network_is_trained_once_and_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    x = rng.random((70, 28, 28), dtype=np.float32)
    y = rng.integers(0, 10, 70)
    monkeypatch.setattr(_trained, "mnist", lambda: Dataset("mnist", x, y, x[:9], y[:9]))
    monkeypatch.setenv("SPARSECIRC_CACHE", str(tmp_path))
    said: list[str] = []
    first = load_trained("mnist-lstm", said.append, epochs=1)
    assert len(said) == 2
    assert first.example.shape == (1, 28, 28)
    again = load_trained("mnist-lstm", said.append, epochs=1)
    assert len(said) == 2, "the second time nothing is trained"
    fresh = build("mnist-lstm").model.state_dict()
    for name, value in first.model.state_dict().items():
        assert bool((value == again.model.state_dict()[name]).all())
        assert not bool((value == fresh[name]).all())
    kept = next(tmp_path.rglob("*.safetensors"))
    kept.write_bytes(kept.read_bytes()[:100])
    load_trained("mnist-lstm", said.append, epochs=1)
    assert len(said) == 4, "a damaged file is made again"


def test_the_trade_off_marks_what_is_not_beaten() -> None:
    points = [
        Point("dense", 0.98, 10.0, 4000, False),
        Point("small", 0.97, 2.0, 400, True),
        Point("worse", 0.96, 3.0, 500, True),
        Point("twin", 0.97, 2.0, 400, True),
    ]
    assert front(points) == [True, True, False, True]
    svg = pareto(points)
    opacity = re.findall(r'class="(?:ours|peer)".*?fill-opacity="([0-9.]+)"', svg)
    assert sorted(opacity) == ["0.2", "0.75", "0.75", "0.75"]
    assert "small: 97.00%, 2.00 us/step" in svg
    assert pareto(points[:1]).count("<circle") == 1
    starts = [(float(x), float(y)) for x, y in re.findall(r'<text x="([0-9.]+)" y="([0-9.]+)">', svg)]
    assert len(starts) == 4
    words = re.findall(r'<text x="[0-9.]+" y="[0-9.]+">(\w+)<', svg)
    boxes = [(x, y - 11, x + 7 * len(word), y + 3) for (x, y), word in zip(starts, words, strict=True)]
    for k, a in enumerate(boxes):
        for b in boxes[k + 1 :]:
            assert a[0] >= b[2] or b[0] >= a[2] or a[1] >= b[3] or b[1] >= a[3], "labels lie on each other"


def test_pictures() -> None:
    image = png(np.arange(6, dtype=np.uint8).reshape(2, 3))
    assert image.startswith(b"\x89PNG\r\n\x1a\n")
    pillow = pytest.importorskip("PIL.Image", reason="needs Pillow to read the picture back")
    import io

    assert np.array_equal(np.asarray(pillow.open(io.BytesIO(image))), np.arange(6, dtype=np.uint8).reshape(2, 3))
    assert 'width="' in matrix(np.ones((3, 1000)), np.eye(3, 1000) > 0, "wide")
    assert matrix(np.ones((0, 4)), np.zeros((0, 4), bool), "none") == "<p>empty</p>"
    engine = {"name": "<x>", "us_per_step": 2.0, "p10": 1.0, "p90": 3.0, "speedup": 1.0}
    assert "&lt;x&gt;" in bars([engine])
    assert "nothing was measured" in bars([])
    assert raster({"steps": 3, "units": 2, "events": [[0, 1], [2, 0]]}).count("<circle") == 2
