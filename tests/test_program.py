"""Programs: running, stepping, files, and threads."""

from __future__ import annotations

import json
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from native_support import FORMATS, ISAS, packed_program
from safetensors import safe_open
from safetensors.numpy import save_file

import sparsecirc
from sparsecirc import Graph, Program, Target, interpret
from sparsecirc import _native as native_module
from sparsecirc._target import Isa
from sparsecirc.cells import CELLS, GRU, LIF, LSTM, Cell
from sparsecirc.errors import FileFormatError, UnsupportedError, UsageError
from sparsecirc.formats import BLOCK_SHAPES
from sparsecirc.ir import Conv, Input, Linear, TimeReduce
from sparsecirc.testing import PROBLEMS, TOLERANCE, classifier_graph, recurrent_graph, relative_difference

EVERY_CELL = pytest.mark.parametrize("cell", CELLS.values(), ids=lambda c: c.name)


def random_x(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


# Running -------------------------------------------------------------------------------------------------------------


@EVERY_CELL
def test_run_returns_float32_in_the_layout_of_the_user(cell: Cell) -> None:
    for batch_first in (False, True):
        graph = recurrent_graph(cell, 5, 20, 0.3, batch_first=batch_first)
        x = random_x(3, 7, 5) if batch_first else random_x(7, 3, 5)
        result = sparsecirc.compile(graph, kernel="csr").run(x)
        want = interpret(graph, x)
        assert list(result.outputs) == list(cell.states)
        for key, value in want.outputs.items():
            assert result.outputs[key].dtype == np.float32
            assert result.outputs[key].shape == value.shape == (*x.shape[:2], 20)
        for key, value in want.state.items():
            assert result.state[key].shape == value.shape == (3, 20), key
            assert result.state[key].dtype == np.float32
        assert result.y is result.outputs[cell.states[0]]
        assert result.values == {}


def test_reductions_read_only_valid_steps() -> None:
    graph = classifier_graph(LSTM, 5, 20, 3, 0.3)
    program = sparsecirc.compile(graph, kernel="csr")
    x, lengths = random_x(9, 4, 5), np.array([9, 4, 1, 0])
    got = program.run(x, lengths=lengths)
    assert relative_difference(got.y, interpret(graph, x, lengths=lengths).y) < TOLERANCE.outputs
    for b, n in enumerate(lengths[:3]):
        assert relative_difference(program.run(x[:n, b : b + 1]).y[0], got.y[b]) < TOLERANCE.outputs


def test_several_inputs_and_outputs() -> None:
    nodes = (
        Input("a", shape=(4,)),
        Input("b", shape=(3,), time=False),
        Linear("fa", ("a",), {"weight": random_x(2, 4)}),
        Linear("fb", ("b",), {"weight": random_x(2, 3, seed=1)}),
        TimeReduce("mean", ("fa",), how="mean", feature_shape=(2,)),
    )
    program = sparsecirc.compile(Graph(nodes, {"mean": "mean", "static": "fb", "steps": "fa"}))
    x = {"a": random_x(6, 2, 4), "b": random_x(2, 3)}
    got, want = program.run(x), interpret(program.graph, x)
    for key in ("mean", "static", "steps"):
        assert relative_difference(got.outputs[key], want.outputs[key]) < TOLERANCE.outputs
    with pytest.raises(UsageError, match="the graph has 2 inputs: pass a dict"):
        program.run(x["a"])
    state = None
    for t in range(6):
        result = program.step({"a": x["a"][t], "b": x["b"]}, state)
        state = result.state
    assert relative_difference(result.outputs["mean"], want.outputs["mean"]) < TOLERANCE.outputs


@pytest.mark.parametrize(
    ("x", "more", "message"),
    [
        (np.ones((3, 5)), {}, r"input 'x' has shape \(3, 5\): expected \(T, B, 5\)"),
        (np.ones((3, 2, 6)), {}, r"input 'x' has shape \(3, 2, 6\): expected \(T, B, 5\)"),
        ({"y": np.ones((3, 2, 5))}, {}, r"input 'x' is missing: got \['y'\]"),
        (np.ones((3, 2, 5)), {"lengths": [1, 4]}, "lengths run from 1 to 4: expected 0 to 3"),
        (np.ones((3, 2, 5)), {"lengths": [1, -1]}, "lengths run from -1 to 1"),
        (np.ones((3, 2, 5)), {"lengths": [1.5, 2]}, "expected 2 whole numbers"),
        (np.ones((3, 2, 5)), {"state": {"rnn.c": np.ones((2, 8))}}, "state 'rnn.c' is not one of the graph's: rnn.h"),
        (np.ones((3, 2, 5)), {"state": {"rnn.h": np.ones((1, 8))}}, r"has shape \(1, 8\): expected \(2, 8\)"),
    ],
)
def test_what_does_not_fit_is_refused(x: object, more: dict, message: str) -> None:
    program = sparsecirc.compile(recurrent_graph(GRU, 5, 8, 1.0))
    with pytest.raises(UsageError, match=message):
        program.run(x, **more)


@EVERY_CELL
def test_no_steps_and_no_samples(cell: Cell) -> None:
    program = sparsecirc.compile(classifier_graph(cell, 5, 9, 3, 0.5), kernel="csr")
    assert program.run(np.ones((4, 0, 5), np.float32)).y.shape == (0, 3)
    state = program.run(random_x(4, 2, 5)).state
    idle = program.run(np.ones((0, 2, 5), np.float32), state)
    for key, value in state.items():
        assert np.array_equal(idle.state[key], value)


# Stepping ------------------------------------------------------------------------------------------------------------


def test_steps_have_no_time_axis() -> None:
    for batch_first in (False, True):
        program = sparsecirc.compile(recurrent_graph(LSTM, 5, 8, 0.5, batch_first=batch_first), kernel="csr")
        result = program.step(random_x(3, 5))
        assert {k: v.shape for k, v in result.outputs.items()} == {"h": (3, 8), "c": (3, 8)}
        assert np.array_equal(program.step({"x": random_x(3, 5)}).y, result.y)


def test_networks_that_need_the_whole_sequence_cannot_be_stepped() -> None:
    backwards = sparsecirc.compile(recurrent_graph(GRU, 5, 8, 1.0, reverse=True))
    with pytest.raises(UnsupportedError, match=r"layer 'rnn' needs the whole sequence.*use run\(\)"):
        backwards.step(random_x(3, 5))
    conv = Conv("conv", ("x",), {"weight": np.ones((2, 5, 3), np.float32)}, over_time=True, padding=(1,))
    over_time = sparsecirc.compile(Graph((Input("x", shape=(5,)), conv), {"y": "conv"}))
    with pytest.raises(UnsupportedError, match="layer 'conv' needs the whole sequence"):
        over_time.step(random_x(3, 5))


# Files ---------------------------------------------------------------------------------------------------------------


@EVERY_CELL
@pytest.mark.parametrize("isa", ISAS, ids=lambda i: i.value)
def test_a_loaded_program_gives_the_same_bits(cell: Cell, isa: Isa, tmp_path: Path) -> None:
    graph = classifier_graph(cell, 16, 48, 3, 0.2)
    x = random_x(8, 2, 16)
    for form in FORMATS:
        kernel = {"rnn.ih": "csr", "rnn.hh": form}
        try:
            program = sparsecirc.compile(graph, Target.cpu(isa), kernel=kernel, exact=False)
        except UnsupportedError:
            assert form in ("columns", "columns16", "block_diagonal", *BLOCK_SHAPES)
            continue
        path = tmp_path / f"{form}.scp"
        program.save(path)
        loaded = Program.load(path)
        assert np.array_equal(loaded.run(x).y, program.run(x).y)
        assert loaded.choices == program.choices
        assert (loaded.isa, loaded.exact, loaded.target) == (program.isa, program.exact, program.target)
        assert loaded.packed_bytes == program.packed_bytes
        for name, pack in program.packed.items():
            assert np.array_equal(loaded.packed[name].values, pack.values)
        assert sorted(p.name for p in tmp_path.iterdir()) == [path.name]  # nothing temporary is left
        path.unlink()


def test_program_files_shrink_with_density(tmp_path: Path) -> None:
    sizes = []
    for density in (1.0, 0.1):
        path = tmp_path / f"{density}.scp"
        sparsecirc.compile(recurrent_graph(GRU, 64, 128, density), kernel={"*": "dense"}).save(path)
        sizes.append(path.stat().st_size)
    assert sizes[1] < 0.2 * sizes[0]


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    path = tmp_path / "net.scp"
    sparsecirc.compile(classifier_graph(GRU, 8, 16, 3, 0.3), Target.cpu("scalar"), kernel={"rnn.*": "csr"}).save(path)
    return path


def rewrite(path: Path, change: dict) -> None:
    """The same file with another header."""
    with safe_open(str(path), framework="numpy") as file:
        header = json.loads(file.metadata()["sparsecirc"])
        arrays = {k: file.get_tensor(k) for k in file.keys()}  # noqa: SIM118 - not a dict
    save_file(arrays, str(path), metadata={"sparsecirc": json.dumps({**header, **change})})


def test_damaged_files_are_refused(saved: Path, tmp_path: Path) -> None:
    whole = saved.read_bytes()
    for size in (0, 4, 100, len(whole) // 2, len(whole) - 1):
        saved.write_bytes(whole[:size])
        with pytest.raises(FileFormatError, match=r"net\.scp cannot be read as safetensors .*truncated"):
            Program.load(saved)
    with pytest.raises(FileFormatError, match="is not a file: expected a sparsecirc program file"):
        Program.load(tmp_path / "absent.scp")
    saved.write_bytes(b"\x80\x04pickle" + whole)
    with pytest.raises(FileFormatError, match="truncated or of another kind"):
        Program.load(saved)


def test_a_newer_format_is_refused_by_name(saved: Path) -> None:
    rewrite(saved, {"format": 99, "version": "7.1"})
    with pytest.raises(
        FileFormatError, match=r"has format 99 \(written by sparsecirc 7\.1\), this version reads up to 1"
    ):
        Program.load(saved)


def test_files_of_another_kind_are_refused(saved: Path, tmp_path: Path) -> None:
    sparsecirc.save_graph(recurrent_graph(GRU, 5, 8, 0.5), tmp_path / "net.scg")
    with pytest.raises(FileFormatError, match="is a sparsecirc graph file: expected a program file"):
        Program.load(tmp_path / "net.scg")
    save_file({"a": np.ones(3)}, str(tmp_path / "other.safetensors"))
    with pytest.raises(FileFormatError, match="sparsecirc did not write it"):
        Program.load(tmp_path / "other.safetensors")


@pytest.mark.parametrize(
    "change",
    [
        {"isa": "sse9"},
        {"choices": [{"weight": "rnn.hh"}]},
        {"choices": None},
        {"target": {"device": "tpu"}},
        {"target": None},
        {"target": {"device": "cpu", "isa": "sse9"}},
        {"graph": {}},
        {"graph": None},
        {"exact": None, "graph": {"nodes": 3}},
    ],
    ids=str,
)
def test_headers_that_make_no_sense_are_refused(saved: Path, change: dict) -> None:
    rewrite(saved, change)
    with pytest.raises(FileFormatError, match=r"net\.scp"):
        Program.load(saved)


def test_choices_of_weights_that_do_not_exist_are_refused(saved: Path) -> None:
    with safe_open(str(saved), framework="numpy") as file:
        choices = json.loads(file.metadata()["sparsecirc"])["choices"]
    rewrite(saved, {"choices": [{**choices[0], "format": "ell"}]})
    with pytest.raises(FileFormatError, match="in format 'ell', which does not exist"):
        Program.load(saved)
    rewrite(saved, {"choices": [{**choices[0], "weight": "rnn.xx"}]})
    with pytest.raises(FileFormatError, match=r"names weight 'rnn\.xx'"):
        Program.load(saved)


@pytest.mark.skipif(Isa.AVX2 not in ISAS, reason="this machine has no AVX2")
def test_a_program_for_another_machine_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "avx2.scp"
    sparsecirc.compile(recurrent_graph(GRU, 8, 16, 0.3), Target.cpu("avx2")).save(path)
    monkeypatch.setattr(native_module, "available_isas", lambda: (Isa.SCALAR,))
    with pytest.raises(UnsupportedError, match=r"avx2\.scp: .*'avx2' is not available here.*compile the network again"):
        Program.load(path)


# Threads -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["gru-500-d0.1-b1-t63", "lstm-64-d1-b9-t63", "lif-64-d0.1-b3-t63-ragged"])
def test_threads_share_one_program(name: str) -> None:
    problem = PROBLEMS[name]
    program = packed_program(problem.graph(), ISAS[-1], "lookup")
    inputs = [problem.x(), problem.x()[::-1].copy()]
    alone = [packed_program(problem.graph(), ISAS[-1], "lookup").run(x) for x in inputs]
    wrong: list[str] = []
    start = threading.Barrier(len(inputs))

    def work(k: int) -> None:
        start.wait()
        for _ in range(10):  # the first runs also race to prepare the layers
            got = program.run(inputs[k])
            for key, value in alone[k].outputs.items():
                if not np.array_equal(got.outputs[key], value):
                    wrong.append(key)

    threads = [threading.Thread(target=work, args=(k,)) for k in range(len(inputs))]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert wrong == []


def test_programs_are_immutable() -> None:
    program = sparsecirc.compile(recurrent_graph(LIF, 5, 8, 1.0))
    with pytest.raises(AttributeError):
        program.exact = False  # type: ignore[misc]
    assert replace(program, exact=False).exact is False
