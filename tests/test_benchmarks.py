"""The benchmark command: its rows, its proofs, and what it does when it is stopped."""

from __future__ import annotations

import json
import math
import os
import sys
from dataclasses import replace
from importlib import util
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch", reason="torch is not installed")
pytest.importorskip("snntorch", reason="snntorch is not installed")
pytest.importorskip("scipy", reason="scipy is not installed")
pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
sys.path.insert(0, str(Path(__file__).parent.parent))  # a bare `pytest` does not look there

from benchmarks import __main__ as command
from benchmarks import _deepsparse as deepsparse
from benchmarks import _forward as forward
from benchmarks import _gru_onnx as gru_onnx
from benchmarks import _integer as integer
from benchmarks import _machine as machine
from benchmarks import _networks as networks
from benchmarks import _quantised as quantised
from benchmarks import _results as results
from benchmarks import _streamed as streamed
from benchmarks import _training as training
from benchmarks._rows import Measured, Row, Setting, bytes_of, noise, rows_of_seconds, table
from sparsecirc import compile, interpret
from sparsecirc._bench import ENGINES, CannotRun, Engine, Host, Job, _measure
from sparsecirc._cost import Bandwidth
from sparsecirc._native import kernels
from sparsecirc.errors import MismatchError, UsageError
from sparsecirc.patterns import block, unstructured

KEYS = {
    "case", "engine", "n", "density", "batch", "seq_len", "us_per_step", "speedup_vs_best_dense", "max_abs_diff",
    "bytes",
}  # fmt: skip
ROW = Row("gru_unstructured", "sparsecirc", 8, 0.1, 1, 4, 2.0, 3.0, 1e-7, 99, 1.9, 2.2, 19)
BUDGET = forward.Budget(True, 0.002, 2, lambda line: None)


@pytest.fixture(autouse=True)
def _short(monkeypatch):
    """No warm-up worth the name: figures mean nothing here."""
    monkeypatch.setattr(_measure, "WARM_CALLS", 1)
    monkeypatch.setattr(_measure, "WARM_SECONDS", 0.0)
    monkeypatch.setattr(machine, "read_limit", lambda size: 100.0)
    monkeypatch.setattr(machine, "levels", lambda: (Bandwidth("L2", 1 << 20, 100.0),))


def installed(*names):
    """The engines of these that can run here."""
    return {name for name in names if util.find_spec(ENGINES[name].package)}


def test_reading_is_timed_over_every_word():
    for n in (1, 7, 128, 1003):
        words = np.random.default_rng(n).integers(0, 2**32, n, dtype=np.uint32)
        assert kernels.read_words(words, 1) == kernels.read_words(words, 3) == int(np.bitwise_or.reduce(words))
    assert kernels.read_words(np.zeros(0, np.uint32), 2) == 0


def test_every_promised_case_is_there():
    assert set(command.CASES) == {
        "gru_unstructured", "lstm_unstructured", "rnn_unstructured", "gru_unstructured_int16", "gru_block16",
        "rlif_event", "train_gru", "train_rlif", "wavernn",
    }  # fmt: skip


@pytest.mark.parametrize("cell", networks.CELLS.values(), ids=networks.CELLS)
def test_a_gated_layer_has_a_row_for_every_engine(cell):
    graph = networks.gated(cell, 64, 0.1)
    found = forward.measure(Setting.of("c", graph, 1, 4), graph, networks.gated_input(4, 1), BUDGET)
    engines = {r.engine for r in found.rows}
    assert engines == {
        "sparsecirc", "sparsecirc_dense", "sparsecirc_csr", "torch_dense", "torch_csr", "onnxruntime", "scipy_csr"
    } | installed("openvino", "torch_sparse")  # fmt: skip
    assert "sparsity gives" in found.notes[0]
    for row in found.rows:
        assert set(row.to_json()) == KEYS
        assert row.max_abs_diff < 1e-5
        assert row.us_per_step > 0
    best = [r for r in found.rows if r.speedup_vs_best_dense == 1]
    assert best
    assert all("dense" in r.engine or r.engine in ("onnxruntime", "openvino") for r in best)


def test_our_other_kernels_stand_beside_the_chosen_one_in_batches_too():
    graph = networks.gated(networks.CELLS["gru"], 32, 0.1)
    found = forward.measure(Setting.of("c", graph, 16, 2), graph, networks.gated_input(2, 16), BUDGET)
    assert {"sparsecirc", "sparsecirc_dense", "sparsecirc_csr"} <= {r.engine for r in found.rows}
    assert "recurrent kernel units x batch over" in found.notes[1]


def test_spiking_layers_spike_and_are_compared():
    graph, x = networks.spiking(128, 0.1, 30, 1)
    assert 0.02 < interpret(graph, x).y.mean() < 0.1
    found = forward.measure(Setting.of("c", graph, 1, 30), graph, x, BUDGET)
    peers = installed("snntorch", "norse", "spikingjelly")
    assert peers | {"sparsecirc"} <= {r.engine for r in found.rows}
    assert max(r.max_abs_diff for r in found.rows) == 0


def test_integers_stand_beside_dense_f32_and_dense_integers():
    graph = networks.gated(networks.CELLS["gru"], 64, 0.1)
    found = integer._measure(Setting.of("c", graph, 1, 5), graph, networks.gated_input(5, 1), BUDGET)
    rows = {r.engine: r for r in found.rows}
    assert {"sparsecirc_int16", "sparsecirc_int16_dense", "sparsecirc_int8_dense"} <= set(rows)
    assert {"torch_int8", "onnxruntime_int8"} <= set(rows)
    assert {"sparsecirc", "sparsecirc_dense", "torch_dense", "onnxruntime"} <= set(rows)
    assert 1e-5 < rows["sparsecirc_int16"].max_abs_diff < 1e-2
    text = "\n".join(found.notes)
    assert "sparsity in f32 gives" in text
    assert "the best dense int8" in text


def test_an_integer_engine_that_is_wrong_is_not_timed(monkeypatch):
    wrong = Engine("torch_int8", True, "torch", lambda job: lambda: [np.ones((3, 1, 32))], "")
    monkeypatch.setattr(integer, "INT8_ENGINES", (wrong,))
    graph = networks.gated(networks.CELLS["gru"], 32, 0.1)
    with pytest.raises(MismatchError, match="torch_int8 differs"):
        integer._measure(Setting.of("c", graph, 1, 3), graph, networks.gated_input(3, 1), BUDGET)


@pytest.mark.parametrize("unrolled", [False, True])
def test_int8_gru_of_onnxruntime_rounds_and_nothing_else(unrolled):
    graph = networks.gated(networks.CELLS["gru"], 48, 0.3)
    (layer,), x = graph.recurrent, networks.gated_input(12, 1)
    session = quantised.onnxruntime_session(gru_onnx.write_gru(layer, 12, 1, int8=True, unrolled=unrolled), 1)
    (got,) = session.run(["y"], {"x": x})
    words, scale = gru_onnx.rounded(layer.weight("hh"))
    rounded = layer.with_params(hh=(words * scale).T)
    off = {
        name: np.abs(got - interpret(graph.replace_nodes(n), x).y).max()
        for name, n in (
            ("rounded weights", rounded),
            ("exact weights", layer),
            ("no recurrence", layer.with_params(hh=0 * words.T)),
        )
    }
    assert off["rounded weights"] < 0.01
    assert off["exact weights"] < 0.015
    assert off["no recurrence"] > 0.1


def test_a_gru_written_out_is_that_gru():
    graph = networks.gated(networks.CELLS["gru"], 24, 0.3)
    x = networks.gated_input(5, 3)
    content = gru_onnx.write_gru(graph.recurrent[0], 5, 3, int8=False, unrolled=True)
    (got,) = quantised.onnxruntime_session(content, 1).run(["y"], {"x": x})
    assert np.abs(got - interpret(graph, x).y).max() < 1e-6


DEAF = """import sys
print("cannot read it")
"""
SERVER = """import sys, pathlib
sys.argv = sys.argv[1:]
sys.modules["deepsparse"] = type(sys)("deepsparse")
class Engine:
    def __init__(self, model, batch_size, num_cores):
        import onnxruntime
        self.session = onnxruntime.InferenceSession(model)
    def run(self, inputs, val_inp):
        return self.session.run(None, {"x": inputs[0]})
sys.modules["deepsparse"].Engine = Engine
exec(compile(pathlib.Path(sys.argv[0]).read_text(), sys.argv[0], "exec"))
"""


@pytest.mark.parametrize(("script", "reason"), [(SERVER, ""), (DEAF, "did not start")])
def test_an_engine_in_another_process(monkeypatch, tmp_path, script, reason):
    (tmp_path / "script.py").write_text(script)
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{tmp_path}/script.py" "$@"\n')
    python.chmod(0o755)
    monkeypatch.setenv(deepsparse.VARIABLE, str(python))
    graph, x = networks.gated(networks.CELLS["gru"], 16, 0.3), networks.gated_input(4, 8)
    job = Job(graph, compile(graph), {"x": x}, {"x": x}, None, 1, 8, 4)
    if reason:
        with pytest.raises(CannotRun, match=reason):
            deepsparse.prepare(job)
        return
    run = deepsparse.prepare(job)
    assert np.abs(run()[0] - interpret(graph, x).y).max() < 1e-6
    run.process.kill()
    run.process.wait()
    with pytest.raises(CannotRun, match="has gone"):
        run()


def test_deepsparse_is_skipped_with_what_it_needs(monkeypatch):
    monkeypatch.delenv(deepsparse.VARIABLE, raising=False)
    graph = networks.gated(networks.CELLS["gru"], 32, 0.1)
    found = forward.measure(Setting.of("c", graph, 8, 2), graph, networks.gated_input(2, 8), BUDGET)
    assert any("deepsparse skipped" in note and "SPARSECIRC_DEEPSPARSE" in note for note in found.notes)


def test_weights_are_streamed_from_copies(monkeypatch):
    monkeypatch.setattr(streamed, "cache_sizes", lambda: (1 << 14, 1 << 15, 1 << 16))
    graph = networks.gated(networks.CELLS["gru"], 32, 0.1)
    twin = streamed.copied(graph)
    for node, other in zip(graph.recurrent, twin.recurrent, strict=True):
        assert not np.shares_memory(node.params["hh"], other.params["hh"])
        assert not np.shares_memory(node.patterns["hh"].indices, other.patterns["hh"].indices)
    found = streamed._measure(Setting.of("c", graph, 1, 1), graph, BUDGET)
    names = {r.engine for r in found.rows}
    assert {"sparsecirc", "sparsecirc_hot", "torch_dense", "torch_dense_hot", "onnxruntime_hot"} <= names
    for suffix in ("", "_hot"):
        assert 1 in [r.speedup_vs_best_dense for r in found.rows if r.engine.endswith("_hot") == bool(suffix)]
    calls = []
    turn = streamed._next_of([lambda k=k: calls.append(k) for k in range(3)])
    for _ in range(4):
        turn()
    assert calls == [0, 1, 2, 0]


@pytest.mark.parametrize(
    ("case", "peer"),
    [("train_gru", "torch_dense"), ("train_gru_input", "torch_dense"), ("train_rlif", "snntorch"),
     ("train_rlif_input", "snntorch")],
)  # fmt: skip
def test_training_compares_gradients_first(case, peer, monkeypatch):
    monkeypatch.setattr(training, "N", 48)
    monkeypatch.setattr(training, "STEPS", 24)
    monkeypatch.setattr(training, "BATCH", 9)
    (found,) = getattr(training, case)(BUDGET)
    rows = {r.engine: r for r in found.rows}
    assert set(rows) == {"sparsecirc", peer}
    assert 0 < rows["sparsecirc"].max_abs_diff < 1e-4
    assert rows["sparsecirc"].bytes < rows[peer].bytes


def test_a_wrong_gradient_is_found(monkeypatch):
    monkeypatch.setattr(training, "N", 16)
    monkeypatch.setattr(training, "STEPS", 4)
    monkeypatch.setattr(training, "BATCH", 2)
    right = training.SparseGRU.from_dense

    def wrong(*args):
        made = right(*args)
        made.weight_hh_l0.values.register_hook(lambda grad: 1.01 * grad)
        return made

    monkeypatch.setattr(training.SparseGRU, "from_dense", wrong)
    with pytest.raises(MismatchError, match="weight_hh_l0"):
        next(training.train_gru(BUDGET))


def test_blocks_and_scattered_patterns_have_the_density_asked_for():
    rng = np.random.default_rng(0)
    for maker, shape in ((unstructured, (1, 1)), (block(16, 1), (16, 1))):
        pattern = networks.random_pattern(rng, (192, 64), 0.1, maker)
        assert abs(pattern.density - 0.1) < 0.01
        assert pattern.block_shape() == shape


def test_bytes_of_peers():
    graph = networks.gated(networks.CELLS["rnn"], 32, 0.1)
    pattern = next(v for v in graph.weights() if v.role == "hh").pattern
    ih = 32 * networks.FEATURES
    assert bytes_of(graph, "torch_dense") == 4 * (ih + 32 * 32)
    assert bytes_of(graph, "torch_int8") == ih + 32 * 32
    assert bytes_of(graph, "scipy_csr") == 4 * ih + 8 * pattern.nnz + 4 * 33
    assert bytes_of(graph, "torch_sparse") == 4 * ih + 12 * pattern.nnz + 8 * 33


def test_speedups_are_medians_of_quotients_within_a_round():
    seconds = {"a": np.array([2.0, 4.0, 6.0]), "b": np.array([1.0, 1.0, 3.0])}
    rows = rows_of_seconds(Setting("c", 1, 0.1, 1, 2, 1), seconds, ["a"], {"a": 0.0, "b": 0.0}, {"a": 1, "b": 1})
    assert [(r.engine, r.us_per_step, r.speedup_vs_best_dense) for r in rows] == [("b", 5e5, 2.0), ("a", 2e6, 1.0)]


def test_the_table_is_aligned_and_has_the_notes():
    text = table(
        [Measured((ROW, replace(ROW, case="gru_unstructured_int16", engine="sparsecirc_int16_dense")), ("why",))]
    )
    head, first, second, note = text.splitlines()
    assert len(head) == len(first) == len(second)
    assert note.strip() == "why"


def test_noise_is_told():
    calm, wild = ROW, replace(ROW, low=1.0, high=3.0)
    assert noise([Measured((calm,))]) == ""
    said = noise([Measured((calm, wild))])
    assert said.startswith("NOISE: 1 of 2 rows")
    assert "100%" in said


def test_results_come_back_as_they_were_written(tmp_path):
    path = tmp_path / "table.json"
    results.write(path, "table", "python -m benchmarks", [("gru_unstructured", Measured((ROW,), ("why",)))])
    data, groups = results.read(path)
    assert groups == [("gru_unstructured", Measured((ROW,), ("why",)))]
    assert data["host"]["cpu"] == Host.here(1).cpu
    assert [level["level"] for level in data["memory"]] == ["L2"]


def test_a_run_in_pieces_is_one_run(tmp_path, monkeypatch):
    path = tmp_path / "table.json"
    first, again, second = (Measured((replace(ROW, us_per_step=us),)) for us in (2.0, 3.0, 4.0))
    results.write(path, "table", "c", results.with_earlier(path, [("b:1", first), ("b:2", first)], ["a", "b"]))
    results.write(path, "table", "c", results.with_earlier(path, [("a", second)], ["a", "b"]))
    assert results.read(path)[1] == [("a", second), ("b:1", first), ("b:2", first)]
    assert results.with_earlier(path, [("b:1", again)], ["a", "b"]) == [("a", second), ("b:1", again)]
    here = Host.here(1)
    monkeypatch.setattr(results.Host, "here", staticmethod(lambda threads: replace(here, commit="another")))
    assert results.with_earlier(path, [("b:1", again)], ["a", "b"]) == [("b:1", again)]


def test_a_folder_for_every_machine():
    host = replace(Host.here(1), cpu="Intel(R) Xeon(R) CPU E5-2670 v3 @ 2.30GHz", isa="avx2")
    assert results.folder_of(host).name == "intel-xeon-e5-2670-v3-avx2"
    assert results.folder_of(replace(host, cpu="AMD EPYC", isa="avx512")).name == "amd-epyc-avx512"


def test_the_command_writes_exactly_the_keys(monkeypatch, tmp_path, capsys):
    monkeypatch.setitem(command.CASES, "rnn_unstructured", lambda budget: iter([Measured((ROW,))]))
    assert command.main(["--quick", "--case", "rnn_unstructured", "--json", str(tmp_path / "out.json")]) == 0
    (row,) = json.loads((tmp_path / "out.json").read_text())
    assert set(row) == KEYS
    assert "sparsecirc" in capsys.readouterr().out


def test_what_cannot_be_written_is_refused_before_anything_runs(monkeypatch, tmp_path, capsys):
    monkeypatch.setitem(command.CASES, "rnn_unstructured", lambda budget: pytest.fail("it ran"))
    (tmp_path / "file").write_text("")
    for path, why in ((tmp_path, "is a folder"), (tmp_path / "file" / "out.json", "cannot be written")):
        with pytest.raises(SystemExit) as left:
            command.main(["--case", "rnn_unstructured", "--json", str(path)])
        assert left.value.code == 2
        assert why in capsys.readouterr().err


def test_batches_are_those_asked_for(monkeypatch):
    asked = []
    monkeypatch.setattr(forward, "measure", lambda setting, graph, x, budget: asked.append((x.shape, budget.batches)))
    list(command.CASES["gru_unstructured"](replace(BUDGET, batches=(2, 8))))
    assert [shape[1] for shape, _ in asked] == [2, 8, 2, 8]
    with pytest.raises(SystemExit):
        command.main(["--batch", "0"])


def test_ctrl_c_keeps_what_was_measured(monkeypatch, tmp_path, capsys):
    def stopped(budget):
        yield Measured((ROW,))
        raise KeyboardInterrupt

    monkeypatch.setitem(command.CASES, "rnn_unstructured", stopped)
    assert command.main(["--case", "rnn_unstructured", "--json", str(tmp_path / "out.json")]) == 130
    assert len(json.loads((tmp_path / "out.json").read_text())) == 1
    shown = capsys.readouterr()
    assert "gru_unstructured" in shown.out
    assert "interrupted" in shown.err


def test_a_mismatch_is_an_exit_code(monkeypatch, capsys):
    def wrong(budget):
        yield Measured((ROW,))
        raise MismatchError("the program does not compute its own graph")

    monkeypatch.setitem(command.CASES, "rnn_unstructured", wrong)
    assert command.main(["--case", "rnn_unstructured"]) == MismatchError.exit_code
    assert "does not compute" in capsys.readouterr().err


def test_wavernn_without_its_weights_is_skipped_aloud(monkeypatch):
    def missing(steps):
        raise UsageError("it is nowhere")

    monkeypatch.setattr(networks, "wavernn", missing)
    (found,) = command.CASES["wavernn"](BUDGET)
    assert not found.rows
    assert "SKIPPED" in found.notes[0]
    assert "SPARSECIRC_DATA" in found.notes[0]


def test_an_unknown_case_names_those_there_are(capsys):
    with pytest.raises(SystemExit) as left:
        command.main(["--case", "nothing"])
    assert left.value.code == 2
    assert "gru_block16" in capsys.readouterr().err


@pytest.mark.slow
def test_quick_run_of_everything(tmp_path):
    if not os.environ.get("SPARSECIRC_DATA"):
        pytest.skip("SPARSECIRC_DATA is not set: the case wavernn needs models/wavernn_768")
    path = tmp_path / "out.json"
    assert command.main(["--quick", "--json", str(path)]) == 0
    rows = json.loads(path.read_text())
    assert {r["case"] for r in rows} == set(command.CASES)
    for row in rows:
        assert set(row) == KEYS
        assert math.isfinite(row["us_per_step"])
        assert math.isfinite(row["speedup_vs_best_dense"])
