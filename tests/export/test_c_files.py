"""What the C writer leaves in a folder: golden vectors, sizes, names; and what it refuses."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from c_nets import example, lif, net, normal

from sparsecirc._pattern import Pattern
from sparsecirc.cells import GRU, RNN_TANH
from sparsecirc.errors import MissingExtraError, SparsecircError, UnsupportedError, UsageError
from sparsecirc.export.c import COptions, Weights, as_exported, check_c, export_c, run_c
from sparsecirc.export.c._host import build
from sparsecirc.ir import (
    Add,
    Conv,
    Elementwise,
    Embedding,
    Input,
    Linear,
    Node,
    Recurrent,
    Repeat,
    TimeReduce,
    interpret,
)

pytestmark = pytest.mark.skipif(not any(map(shutil.which, ("cc", "gcc", "clang"))), reason="needs a C compiler")
STRICT = ("-std=c99", "-Wall", "-Wextra", "-Wpedantic", "-Wconversion", "-Werror", "-ffp-contract=off", "-O1")


def assert_agrees(got: dict[str, np.ndarray], want: dict[str, np.ndarray]) -> None:
    assert got.keys() == want.keys()
    for key, value in want.items():
        assert got[key].shape == value.shape, key
        if value.size:
            assert np.abs(got[key] - value).max() <= 1e-5 * max(1.0, np.abs(value).max()), key


def run_golden(folder: Path) -> subprocess.CompletedProcess[str]:
    build([folder / "net.c", folder / "net_test.c"], folder / "golden", STRICT)
    return subprocess.run([str(folder / "golden")], capture_output=True, text=True, check=False)


@pytest.mark.parametrize("name", ["words", "direct"])
def test_golden_vectors_notice_an_altered_weight(name: str, tmp_path: Path) -> None:
    graph, _ = example(name)
    export_c(graph, tmp_path)
    assert run_golden(tmp_path).returncode == 0
    weight = "fc" if name == "words" else "fc1"
    node = graph.node(weight)
    value = node.params["weight"].copy()
    value[0, :] += 0.5
    export_c(graph.replace_nodes(node.with_params(weight=value)), tmp_path / "other")
    shutil.copy(tmp_path / "other" / "net.c", tmp_path / "net.c")
    done = run_golden(tmp_path)
    assert done.returncode == 1
    assert "expected" in done.stdout


def test_golden_vectors_of_ones_own(tmp_path: Path) -> None:
    graph, x = example("words")
    export_c(graph, tmp_path, golden=x)
    done = run_golden(tmp_path)
    assert done.returncode == 0
    assert "0 failures in 3 samples of 13 steps" in done.stdout
    with pytest.raises(UsageError, match=r"golden input has shape \(13, 3, 2\): expected \(T, B\)"):
        export_c(graph, tmp_path / "b", golden=np.zeros((13, 3, 2)))
    assert not (tmp_path / "b").exists()


def test_golden_vectors_end_where_rounding_would_decide(tmp_path: Path) -> None:
    """The membrane climbs to within 1e-6 of the threshold in the fourth step."""
    x = np.array([0.1, 0.2, 0.3, 0.4000005, 0.1, 0.1], np.float32).reshape(6, 1, 1)
    graph = net(Input("x", shape=(1,)), lif("lif", "x", (1,), np.ones(1, np.float32)), y="lif.mem")
    notes = export_c(graph, tmp_path, golden=x).notes
    assert any("golden vectors end after 3 of 6 steps" in n for n in notes)
    assert any("no spike occurs" in n for n in notes)


def test_sizes_and_notes_say_what_was_written(tmp_path: Path) -> None:
    graph, _ = example("words")
    export = export_c(graph, tmp_path)
    assert [p.name for p in export.paths] == ["net.h", "net.c", "net_test.c", "Makefile"]
    assert export.format == "c"
    assert export.bytes < export.bytes_dense
    source, header = (tmp_path / "net.c").read_text(), (tmp_path / "net.h").read_text()
    width = {"float": 4, "uint8_t": 1, "uint16_t": 2}
    arrays = re.findall(r"^static const (\w+) \w+\[(\d+)\]", source, re.MULTILINE)
    assert export.bytes == sum(width[t] * int(n) for t, n in arrays)
    assert f"NET_FLASH_BYTES {export.bytes}u" in header
    dense = sum(v.size for n in graph.nodes for v in n.params.values()) * 4
    assert export.bytes_dense == dense
    assert any("rnn.l0.hh 27x9" in n and "sparse rows, u8 columns" in n for n in export.notes)
    for forbidden in ("malloc", "stdio", "stdlib"):
        assert forbidden not in source + header


def test_working_memory_is_shared(tmp_path: Path) -> None:
    """Ten layers in a row need room for two values, not ten."""
    nodes: list[Node] = [Input("x", shape=(64,))]
    for k in range(10):
        nodes.append(Elementwise(f"t{k}", (nodes[-1].name,), fn="tanh"))
    export_c(net(*nodes, y="t9"), tmp_path)
    header = (tmp_path / "net.h").read_text()
    assert "float work[128];" in header
    assert "NET_CARRIED_BYTES 0u" in header


def test_a_makefile_of_someone_else_stays(tmp_path: Path) -> None:
    (tmp_path / "Makefile").write_text("all:\n")
    export = export_c(example("still")[0], tmp_path)
    assert (tmp_path / "Makefile").read_text() == "all:\n"
    assert any("Makefile of its own" in n for n in export.notes)
    assert "Makefile" not in [p.name for p in export.paths]


def test_awkward_names_stay_apart(tmp_path: Path) -> None:
    graph = net(
        Input("if", shape=(3,)),
        Linear("a.b", ("if",), {"weight": normal(3, 3)}),
        Linear("a_b", ("a.b",), {"weight": normal(3, 3)}),
        Linear("a */ b", ("a_b",), {"weight": normal(3, 3)}),
        **{"double": "a.b", "0": "a_b", "v0": "a */ b"},
    )
    x = normal(4, 1, 3)
    assert_agrees(run_c(export_c(graph, tmp_path), x, flags=STRICT), interpret(graph, x).outputs)


def test_an_index_beyond_the_table_reads_zeros(tmp_path: Path) -> None:
    graph = net(Input("x", shape=()), Embedding("emb", ("x",), {"weight": normal(5, 3)}), y="emb")
    y = run_c(export_c(graph, tmp_path), np.array([[4], [5], [-1]]), flags=STRICT)["y"]
    assert np.array_equal(y[0, 0], graph.node("emb").params["weight"][4])
    assert not y[1:].any()


X, H = Input("x", shape=(4,)), {"ih": np.ones((3, 4)), "hh": np.eye(3)}
REFUSED = {
    "runs backwards in time.*without the reverse direction": net(
        X, Recurrent("r", ("x",), H, cell=RNN_TANH, units=3, reverse=True), y="r"
    ),
    "convolution 'c' runs over time.*ONNX": net(
        X, Conv("c", ("x",), {"weight": np.ones((2, 4, 3))}, over_time=True), y="c"
    ),
    "has 2 inputs.*join them": net(X, Input("z", shape=(4,)), Add("a", ("x", "z")), y="a"),
    "second pass over time": net(
        X,
        TimeReduce("last", ("x",), feature_shape=(4,)),
        Elementwise("e", ("last",), fn="tanh"),
        Repeat("again", ("e",), steps=3),
        y="again",
    ),
    "read as indices": net(
        Input("x", shape=(2,)),
        Embedding("emb", ("x",), {"weight": np.ones((5, 3))}),
        Elementwise("e", ("x",), fn="tanh"),
        y="emb",
        z="e",
    ),
    "one-to-one feedback into 3 gates": net(
        X, Recurrent("r", ("x",), {"ih": np.ones((9, 4)), "hh_diag": np.ones(3)}, cell=GRU, units=3), y="r"
    ),
}


@pytest.mark.parametrize("message", REFUSED)
def test_what_c_cannot_do_is_refused_with_a_cure(message: str, tmp_path: Path) -> None:
    with pytest.raises(UnsupportedError, match=message):
        export_c(REFUSED[message], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_missing_compiler_and_wrong_input_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    graph, x = example("still")
    export = export_c(graph, tmp_path)
    with pytest.raises(UsageError, match=r"input has shape \(3, 5\): expected \(B, 6\)"):
        run_c(export, x[:, :5])
    (tmp_path / "net.c").write_text("int broken(\n")
    with pytest.raises(SparsecircError, match=r"failed with 1: .*error"):
        check_c(graph, export, x)
    monkeypatch.setenv("CC", "no-such-compiler -O2")
    with pytest.raises(MissingExtraError, match="none of no-such-compiler is on the path"):
        run_c(export, x)


@pytest.mark.parametrize("name", ["images", "words", "direct", "still"])
def test_the_call_that_a_header_shows_compiles_and_runs(name: str, tmp_path: Path) -> None:
    graph, _ = example(name)
    export_c(graph, tmp_path)
    header = (tmp_path / "net.h").read_text()
    shown = [line.strip() for line in header.splitlines() if line.startswith("       ") and line.rstrip().endswith(";")]
    shown += [line.strip() for line in header.splitlines() if "then read" in line]
    assert shown[0] == "static net_state state;"
    assert shown[3] == "net_init(&state);"
    call = shown[-1].removeprefix("for every step: ").removeprefix("fill x, ")
    code = re.sub(r"then read (.*)$", r"return \1[0] * 0.0f != 0.0f;", call)
    body = "\n".join([shown[0], shown[1].replace("]", "] = {0}").replace("static", ""), *shown[2:4], code])
    (tmp_path / "main.c").write_text(f'#include "net.h"\nint main(void) {{\n{body}\n}}\n')
    build([tmp_path / "main.c", tmp_path / "net.c"], tmp_path / "main", STRICT)
    assert subprocess.run([str(tmp_path / "main")], check=False).returncode == 0


def test_a_header_tells_shapes_layers_and_memory(tmp_path: Path) -> None:
    graph, _ = example("images")
    export_c(graph, tmp_path)
    header = (tmp_path / "net.h").read_text()
    for text in (
        "x: 198 numbers per step, 2 x 11 x 9, the last axis fastest",
        "y.spk: 396 numbers per step, 4 x 11 x 9, the last axis fastest, spikes, 0 or 1",
        "l1: 4 x 11 x 9 units of lif",
        "p1: pool max",
        "No argument may be null",
    ):
        assert text in header, text
    assert max(len(line) for line in header.splitlines() if "manifest:" not in line) <= 130
    source = (tmp_path / "net.c").read_text()
    assert "    /* c2: conv 6 x 2 x 2 x 3 */\n" in source


@pytest.mark.parametrize("options", [COptions(), COptions(Weights.INT8), COptions(Weights.INT16)], ids=lambda o: o.form)
@pytest.mark.parametrize(("entries", "width", "density"), [(300, 24, 0.1), (1, 1, 1.0), (40, 300, 0.02), (9, 5, 0.0)])
def test_a_pruned_embedding_stores_its_live_entries(
    entries: int, width: int, density: float, options: COptions, tmp_path: Path
) -> None:
    rng = np.random.default_rng(entries)
    live = rng.random((entries, width)) < density
    live[entries // 2] = density == 1.0  # a row of nothing
    weight = np.where(live, rng.standard_normal((entries, width)), 0).astype(np.float32)
    emb = Embedding("emb", ("x",), {"weight": weight}, {"weight": Pattern.from_mask(live)})
    graph = net(Input("x", shape=()), emb, y="emb")
    made = export_c(graph, tmp_path, options=options)
    index = np.arange(-1, entries + 1)[:, None]
    got = run_c(made, index, flags=(*STRICT, "-fsanitize=address,undefined", "-fno-sanitize-recover=all"))["y"]
    want = interpret(as_exported(graph, options), index[1:-1]).outputs["y"]
    np.testing.assert_allclose(got[1:-1], want, rtol=1e-6, atol=1e-7)
    assert not got[[0, -1]].any()
    if weight.size > 1000:
        word = {Weights.F32: 4, Weights.INT8: 1, Weights.INT16: 2}[options.weights]
        assert made.bytes < word * weight.size * 0.6 + 1000
    text = " ".join(made.notes)
    assert ("sparse rows" in text) == (0 < density < 0.5)
    assert ("nothing stored" in text) == (density == 0)


def test_a_table_that_zeros_do_not_shrink_is_stored_whole(tmp_path: Path) -> None:
    live = np.random.default_rng(0).random((30, 8)) < 0.9
    weight = np.where(live, normal(30, 8), 0)
    emb = Embedding("emb", ("x",), {"weight": weight}, {"weight": Pattern.from_mask(live)})
    graph = net(Input("x", shape=()), emb, y="emb")
    (told,) = [n for n in export_c(graph, tmp_path).notes if n.startswith("emb.weight 30x8")]
    assert ": dense; 960 of 960 bytes" in told
