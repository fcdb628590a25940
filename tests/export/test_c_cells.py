"""Every cell in C, compiled with all warnings as errors and under the sanitizers, against the interpreter."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from c_problems import GATED, SIZES, STRICT, layer, matrix, sequence

from sparsecirc.cells import CELLS, Options, Reset
from sparsecirc.errors import SparsecircError
from sparsecirc.export.c import check_c, export_c, run_c
from sparsecirc.export.c._host import build, compiler
from sparsecirc.ir import Graph, Input, Linear, Recurrent, interpret
from sparsecirc.ir import _layers as layers
from sparsecirc.ir import _recurrent as recurrent

pytestmark = pytest.mark.skipif(not any(map(shutil.which, ("cc", "gcc", "clang"))), reason="needs a C compiler")
SANITIZE = ("-fsanitize=address,undefined", "-fno-sanitize-recover=all")


@pytest.fixture(scope="module")
def flags(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ...]:
    """Strict flags, with the sanitizers where the compiler's installation has them."""
    folder = tmp_path_factory.mktemp("probe")
    (folder / "probe.c").write_text("int main(void) { return 0; }\n")
    done = subprocess.run(
        [*compiler(), *SANITIZE, "-o", str(folder / "probe"), str(folder / "probe.c")], capture_output=True, check=False
    )
    return (*STRICT, *SANITIZE) if done.returncode == 0 else STRICT


def test_the_sanitizers_notice_a_broken_index(tmp_path: Path, flags: tuple[str, ...]) -> None:
    if SANITIZE[0] not in flags:
        pytest.skip("the C compiler has no address and undefined-behaviour sanitizers (Debian: gcc brings libasan)")
    export = export_c(layer(CELLS["gru"], 12, 32), tmp_path)
    source = tmp_path / "net.c"
    text = source.read_text()
    start = text.index("{", text.index("net_cell_l0_hh_count["))
    source.write_text(text[: start + 1] + "\n    255," + text[text.index(",", start) + 1 :])
    with pytest.raises(SparsecircError, match="global-buffer-overflow"):
        run_c(export, sequence(12), flags=flags)


@pytest.fixture
def ascending(monkeypatch: pytest.MonkeyPatch) -> None:
    """Products of the interpreter summed over ascending columns, one rounding each, as the C code does."""

    def product(x: np.ndarray, weight: np.ndarray) -> np.ndarray:
        total = np.zeros((*x.shape[:-1], len(weight)), x.dtype)
        for j in range(weight.shape[1]):
            total = total + x[..., j, None] * weight[:, j]
        return total

    monkeypatch.setattr(recurrent, "product", product)
    monkeypatch.setattr(layers, "product", product)


def assert_close(graph: Graph, folder: Path, x: np.ndarray, flags: tuple[str, ...]) -> None:
    got = run_c(export_c(graph, folder), x, flags=flags)
    for name, want in interpret(graph, x).outputs.items():
        assert got[name].shape == want.shape
        assert np.abs(got[name] - want).max() <= 1e-5 * max(1.0, np.abs(want).max()), name


def assert_identical(graph: Graph, folder: Path, x: np.ndarray, flags: tuple[str, ...]) -> None:
    """Spikes and membranes bit for bit those of single precision in the same order, and the spikes of float64 too."""
    got = run_c(export_c(graph, folder), x, flags=flags)
    for name, want in interpret(graph, x, dtype=np.float32).outputs.items():
        assert np.array_equal(got[name], want), name
    exact = interpret(graph, x).outputs["spk"]
    assert 0 < exact.mean() < 1
    assert np.array_equal(got["spk"], exact)


@pytest.mark.parametrize(("inputs", "units"), SIZES)
@pytest.mark.parametrize("name", GATED)
def test_gated_cells_agree_at_odd_sizes(
    name: str, inputs: int, units: int, tmp_path: Path, flags: tuple[str, ...]
) -> None:
    assert_close(layer(CELLS[name], inputs, units), tmp_path, sequence(inputs), flags)


@pytest.mark.parametrize(("density", "tile"), [(1.0, 1), (0.0, 1), (0.3, 16), (0.3, 4)])
@pytest.mark.parametrize("name", ["gru", "lstm"])
def test_gated_cells_agree_in_every_layout(
    name: str, density: float, tile: int, tmp_path: Path, flags: tuple[str, ...]
) -> None:
    assert_close(layer(CELLS[name], 12, 32, density=density, tile=tile), tmp_path, sequence(12), flags)


@pytest.mark.parametrize("feedback", ["hh", "hh_diag", ""])
@pytest.mark.parametrize(("inputs", "units"), SIZES)
def test_leaky_integrators_agree(
    feedback: str, inputs: int, units: int, tmp_path: Path, flags: tuple[str, ...]
) -> None:
    graph = layer(CELLS["li"], inputs, units, density=0.3, feedback=feedback)
    node = graph.recurrent[0]
    if feedback:  # a linear recurrence has to shrink by itself
        graph = graph.replace_nodes(node.with_params(**{feedback: node.params[feedback] * np.float32(0.04)}))
    assert_close(graph, tmp_path, sequence(inputs), flags)


def without(graph: Graph, *roles: str) -> Graph:
    node = graph.recurrent[0]
    kept = {r: v for r, v in node.params.items() if r not in roles}
    patterns = {r: p for r, p in node.patterns.items() if r not in roles}
    width = kept["ih"].shape[1] if "ih" in kept else node.cell.n_gates * node.units
    new = Recurrent(node.name, ("x",), kept, patterns, cell=node.cell, units=node.units, options=node.options)
    return Graph((Input("x", shape=(width,)), new), graph.outputs)


@pytest.mark.parametrize(
    "graph",
    [
        lambda: layer(CELLS["lstm"], 9, 20, projected=7),
        lambda: layer(CELLS["gru"], 9, 20, bias=False),
        lambda: layer(CELLS["lstm"], 9, 20, bias=False),
        lambda: layer(CELLS["rnn_tanh"], 9, 20, feedback="hh_diag"),
        lambda: without(layer(CELLS["gru"], 9, 20), "hh", "bias_hh"),
        lambda: without(layer(CELLS["lstm"], 9, 20), "hh", "bias_hh"),
        lambda: without(layer(CELLS["gru"], 9, 20), "ih"),
        lambda: without(layer(CELLS["gru"], 9, 20), "ih", "bias_ih"),
        lambda: without(layer(CELLS["lstm"], 9, 20), "ih"),
    ],
    ids=["proj", "gru_nobias", "lstm_nobias", "diag", "gru_nohh", "lstm_nohh", "gru_noih", "gru_bare", "lstm_noih"],
)
def test_gated_variants_agree(graph: Callable[[], Graph], tmp_path: Path, flags: tuple[str, ...]) -> None:
    g = graph()
    assert_close(g, tmp_path, sequence(g.inputs[0].shape[0]), flags)


RESETS = [(name, Options(r, d)) for name in ("lif", "synaptic", "alif") for r in Reset for d in (True, False)]
RESETS += [("alif", Options(Reset.SUBTRACT, delay, adapted=True)) for delay in (True, False)]


@pytest.mark.usefixtures("ascending")
@pytest.mark.parametrize(("name", "options"), RESETS)
def test_every_reset_gives_the_same_spikes(name: str, options: Options, tmp_path: Path, flags: tuple[str, ...]) -> None:
    graph = layer(CELLS[name], 11, 24, density=0.3, options=options, drive=2.0)
    assert_identical(graph, tmp_path, sequence(11, 40), flags)


@pytest.mark.usefixtures("ascending")
@pytest.mark.parametrize(("inputs", "units"), SIZES)
@pytest.mark.parametrize("feedback", ["hh", "hh_diag", ""])
@pytest.mark.parametrize("name", ["lif", "alif"])
def test_spiking_layers_give_the_same_spikes_at_odd_sizes(
    name: str, feedback: str, inputs: int, units: int, tmp_path: Path, flags: tuple[str, ...]
) -> None:
    graph = layer(CELLS[name], inputs, units, feedback=feedback, drive=2.0 if inputs > 1 else 10.0)
    assert_identical(graph, tmp_path, sequence(inputs), flags)


@pytest.mark.usefixtures("ascending")
@pytest.mark.parametrize(("density", "tile"), [(1.0, 1), (0.3, 16), (0.3, 4)])
def test_spike_products_by_column_are_bit_equal_in_every_layout(
    density: float, tile: int, tmp_path: Path, flags: tuple[str, ...]
) -> None:
    """Two layers: the second reads spikes through 'ih', a readout through a Linear."""
    first = layer(CELLS["lif"], 12, 48, density=density, tile=tile, drive=2.0)
    second = layer(CELLS["synaptic"], 48, 32, density=density, tile=tile, drive=3.0, seed=1).recurrent[0]
    rng = np.random.default_rng(2)
    weight, pattern = matrix(rng, 16, 32, density, tile)
    bias = rng.standard_normal(16).astype(np.float32)
    graph = Graph(
        (
            *first.nodes,
            Recurrent(
                "next", ("cell.l0",), second.params, second.patterns, cell=second.cell, units=32, options=second.options
            ),
            Linear("fc", ("next",), {"weight": weight, "bias": bias}, {"weight": pattern}),
        ),
        {"spk": "cell.l0", "mem": "cell.l0.mem", "spk2": "next", "syn2": "next.syn", "y": "fc"},
    )
    assert_identical(graph, tmp_path, sequence(12), flags)
    header = (tmp_path / "net.h").read_text()
    for name in ("cell.l0.hh", "next.ih", "next.hh", "fc.weight"):
        line = next(row for row in header.splitlines() if name in row)
        assert "columns" in line.split(":")[1]


def test_a_matrix_without_a_pattern_is_packed_by_its_zeros(tmp_path: Path) -> None:
    graph = layer(CELLS["gru"], 12, 32)
    node = graph.recurrent[0]
    plain = {r: node.weight(r) for r in node.params}
    bare = graph.replace_nodes(Recurrent(node.name, ("x",), plain, cell=node.cell, units=node.units))
    assert export_c(bare, tmp_path / "a").bytes == export_c(graph, tmp_path / "b").bytes


def test_everything_is_cplusplus_too(tmp_path: Path) -> None:
    if shutil.which("g++") is None:
        pytest.skip("needs g++")
    graphs = {
        "gru": layer(CELLS["gru"], 12, 32),
        "lstm": layer(CELLS["lstm"], 300, 16, projected=7, tile=4),
        "lif": layer(CELLS["lif"], 12, 32, tile=4, drive=2.0),
        "synaptic": layer(CELLS["synaptic"], 12, 300, options=Options(Reset.ZERO_UPDATE, False), drive=2.0),
        "alif": layer(CELLS["alif"], 12, 32, drive=2.0),
        "li": layer(CELLS["li"], 12, 32, feedback=""),
    }
    sources = []
    for name, graph in graphs.items():
        sources += [p for p in export_c(graph, tmp_path, name=name).paths if p.suffix == ".c"]
    strict = [f for f in STRICT if not f.startswith("-std")]
    done = subprocess.run(
        ["g++", "-std=c++17", *strict, "-fsyntax-only", "-x", "c++", *map(str, sources)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    # One program of several networks: no name of one meets a name of another.
    main = "#include <stdio.h>\n" + "".join(f'#include "{n}.h"\n' for n in graphs)
    main += "int main(void) {\n" + "".join(f"    static {n}_state {n}; {n}_init(&{n});\n" for n in graphs)
    (tmp_path / "main.c").write_text(main + "    return 0;\n}\n")
    build([tmp_path / "main.c", *(tmp_path / f"{n}.c" for n in graphs)], tmp_path / "main", STRICT)


def test_check_counts_spikes_and_differences(tmp_path: Path) -> None:
    graph = layer(CELLS["lif"], 12, 32, drive=2.0)
    export, x = export_c(graph, tmp_path), sequence(12)
    good = check_c(graph, export, x)
    assert good.spike_mismatches == 0
    assert good.spikes > 0
    assert good.max_abs_diff < 1e-5
    node = graph.recurrent[0]
    other = graph.replace_nodes(node.with_params(threshold=node.params["threshold"] * np.float32(0.9)))
    bad = check_c(other, export, x)
    assert bad.spike_mismatches > 0
    assert bad.max_abs_diff > 0.1
