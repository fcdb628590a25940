"""Exported C on emulated Cortex-M boards and on foreign hosts: the same network, and where nothing is left to a library
the same bits. Run by ``make test-boards``."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from c_nets import example
from c_problems import STRICT, gru_of, layer, sequence

from benchmarks.studies._boards import (
    BOARDS,
    HOSTS,
    SOURCES,
    count_instructions,
    make_board,
    missing_tools,
    run_board,
)
from sparsecirc.cells import CELLS
from sparsecirc.errors import SparsecircError
from sparsecirc.export.c import (
    Activations,
    Arithmetic,
    COptions,
    Neurons,
    Weights,
    as_exported,
    export_c,
    footprint_c,
    run_c,
)
from sparsecirc.ir import Graph, interpret

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(bool(missing_tools()), reason=f"needs {' '.join(missing_tools())} (docs/c.md lists packages)"),
]
WERROR = ("-Werror",)
INTEGER = COptions(Weights.INT8, arithmetic=Arithmetic.INT8)
SMALL = COptions(Weights.INT8, arithmetic=Arithmetic.INT8, activations=Activations.FAST)
FIXED = COptions(Weights.INT8, neurons=Neurons.FIXED)
FIXED16 = COptions(Weights.INT16, neurons=Neurons.FIXED)
# name: graph, options, tolerance; with 0 every machine has to give the same bits
PROBLEMS: dict[str, tuple[Graph, COptions, float]] = {
    "gru exact": (gru_of(0.1), COptions(), 1e-6),
    "lstm exact": (layer(CELLS["lstm"], 16, 48), COptions(), 1e-6),
    "gru fast": (gru_of(0.1), COptions(activations=Activations.FAST), 0),
    "gru tiles small": (gru_of(0.1, tile=4), SMALL, 0),
    "gru dense small": (gru_of(1.0, units=33, inputs=7), SMALL, 0),
    "lif": (layer(CELLS["lif"], 16, 128, drive=2.0), COptions(), 0),
    "lif fixed": (layer(CELLS["lif"], 16, 128, drive=2.0), FIXED, 0),
    "synaptic fixed": (layer(CELLS["synaptic"], 16, 64, drive=3.0), FIXED16, 0),
    "alif fixed": (layer(CELLS["alif"], 16, 64, drive=3.0), FIXED, 0),
    "li fixed": (layer(CELLS["li"], 16, 64, density=0.02, drive=0.3), FIXED16, 0),
    "synaptic int8": (layer(CELLS["synaptic"], 16, 64, drive=3.0), COptions(Weights.INT8), 0),
}


def x_of(graph: Graph) -> np.ndarray:
    return sequence(graph.inputs[0].shape[0], steps=20)


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, np.ndarray]]:
    """What this machine makes of every problem."""
    found = {}
    for name, (graph, options, _) in PROBLEMS.items():
        folder = tmp_path_factory.mktemp("here")
        found[name] = run_c(export_c(graph, folder, options=options), x_of(graph), flags=STRICT)
    return found


def check(name: str, got: dict[str, np.ndarray], here: dict[str, dict[str, np.ndarray]]) -> None:
    graph, options, tolerance = PROBLEMS[name]
    exact = interpret(as_exported(graph, options), x_of(graph)).outputs
    for output, value in here[name].items():
        if tolerance == 0:
            assert np.array_equal(got[output], value), output
        else:
            assert np.abs(got[output] - exact[output]).max() <= tolerance, output
    if "spk" in exact:
        assert exact["spk"].any()
        assert np.array_equal(got["spk"], exact["spk"])


@pytest.mark.parametrize("name", PROBLEMS)
@pytest.mark.parametrize("core", BOARDS)
def test_boards_compute_the_network(
    core: str, name: str, here: dict[str, dict[str, np.ndarray]], tmp_path: Path
) -> None:
    graph, options, _ = PROBLEMS[name]
    export = export_c(graph, tmp_path / "net", options=options)
    check(name, run_board(export, x_of(graph), core, tmp_path, WERROR).outputs, here)


@pytest.mark.parametrize("name", PROBLEMS)
@pytest.mark.parametrize("host", HOSTS)
def test_hosts_compute_the_network(
    host: str, name: str, here: dict[str, dict[str, np.ndarray]], tmp_path: Path
) -> None:
    if HOSTS[host].missing:
        pytest.skip(f"needs {' '.join(HOSTS[host].missing)}")
    graph, options, _ = PROBLEMS[name]
    export = export_c(graph, tmp_path / "net", options=options)
    machine = HOSTS[host]
    flags = [f for f in STRICT if f != "-O1"]
    got = run_c(
        export, x_of(graph), flags=(*flags, "-O2"), compile_with=machine.compile_with, run_with=machine.run_with
    )
    check(name, got, here)


@pytest.mark.parametrize("core", ["Cortex-M4F", "Cortex-M7", "Cortex-M33", "Cortex-M55"])
def test_simd_and_the_plain_form_give_the_same_integers(core: str, tmp_path: Path) -> None:
    graph = gru_of(1.0, units=33, inputs=7)
    export = export_c(graph, tmp_path / "net", options=SMALL)
    simd = run_board(export, x_of(graph), core, tmp_path / "simd")
    plain = run_board(export, x_of(graph), core, tmp_path / "plain", ("-DNET_PLAIN",))
    assert np.array_equal(simd.outputs["h"], plain.outputs["h"])
    assert simd.instructions != plain.instructions


def test_goals_of_size_and_instructions(tmp_path: Path) -> None:
    """A GRU of 128 units with 16 inputs at 90 %: at least 11 times less flash, 3 times fewer instructions."""
    x = sequence(16, steps=50, batch=1)
    dense = run_board(export_c(gru_of(1.0), tmp_path / "dense"), x, "Cortex-M4F", tmp_path / "dense")
    for tile, options in ((1, INTEGER), (1, SMALL), (4, COptions(Weights.INT8)), (4, SMALL)):
        folder = tmp_path / f"{tile} {options.form}".replace(" ", "_")
        export = export_c(gru_of(0.1, tile=tile), folder / "net", options=options)
        small = run_board(export, x, "Cortex-M4F", folder)
        assert dense.flash >= 11 * small.flash, (tile, options.form, dense.flash / small.flash)
        assert dense.instructions >= 3 * small.instructions, (tile, dense.instructions / small.instructions)
        sizes = footprint_c(export, "Cortex-M4F")
        assert small.flash == sizes.flash
        # A step is a call less deep than a run, and functions of the C library may add a little.
        assert 0 < small.stack <= sizes.stack + 256


@pytest.mark.parametrize("name", ["direct", "words", "images"])
def test_golden_vectors_pass_on_a_board(name: str, tmp_path: Path) -> None:
    graph, _ = example(name)
    export_c(graph, tmp_path / "net", options=SMALL)
    assert "net: 0 failures" in make_board(tmp_path / "net", "Cortex-M33", tmp_path, ("test",))


def test_a_failing_program_fails_the_call(tmp_path: Path) -> None:
    graph, _ = example("words")
    export_c(graph, tmp_path / "net")
    source = tmp_path / "net" / "net_test.c"
    source.write_text(source.read_text().replace("golden_y[", "golden_y_unused[", 1).replace(
        "#define SAMPLES", "static const float golden_y[999];\n#define SAMPLES", 1))  # fmt: skip
    with pytest.raises(SparsecircError, match="test on Cortex-M4F failed"):
        make_board(tmp_path / "net", "Cortex-M4F", tmp_path, ("test",))
    with pytest.raises(SparsecircError, match=r"run on Cortex-M4F failed.*expected a file x.bin"):
        make_board(tmp_path / "net", "Cortex-M4F", tmp_path, ("run",))


def test_cmake_builds_for_a_board(tmp_path: Path) -> None:
    if shutil.which("cmake") is None:
        pytest.skip("needs cmake")
    graph, _ = example("words")
    export_c(graph, tmp_path / "net")
    build = str(tmp_path / "build")
    first = ["cmake", "-S", str(SOURCES), "-B", build, "-DBOARD=mps2-an505", f"-DNET_DIR={tmp_path / 'net'}"]
    first += [f"-DCMAKE_TOOLCHAIN_FILE={SOURCES / 'arm-none-eabi.cmake'}"]
    for call in (first, ["cmake", "--build", build], ["ctest", "--test-dir", build]):
        done = subprocess.run(call, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


def test_a_network_beyond_the_memory_of_its_core_uses_external_memory(tmp_path: Path) -> None:
    graph = gru_of(1.0, units=200, inputs=40)  # 576 kB
    export = export_c(graph, tmp_path / "net")
    ran = run_board(export, x_of(graph)[:3], "Cortex-M55", tmp_path)
    assert ran.external
    assert ran.flash > 512 * 1024
    assert np.abs(ran.outputs["h"] - interpret(graph, x_of(graph)[:3]).outputs["h"]).max() < 1e-6
    with pytest.raises(SparsecircError, match="will not fit"):
        make_board(tmp_path / "net", "Cortex-M55", tmp_path / "own", ("run",))


@pytest.mark.parametrize("host", [name for name, host in HOSTS.items() if host.count_with])
def test_instructions_of_hosts_are_counted(host: str, tmp_path: Path) -> None:
    """A dense layer costs at least one instruction a weight, twice the units between two and five times as many."""
    machine = HOSTS[host]
    if machine.missing or shutil.which(machine.count_with) is None:
        pytest.skip(f"needs {machine.count_with} and {machine.compile_with[0]}")
    counts = []
    for units in (20, 40):
        export = export_c(gru_of(1.0, units=units, inputs=4), tmp_path / str(units))
        counted = count_instructions(machine, export, sequence(4, steps=6, batch=1), tmp_path, ("-O2",))
        assert counted is not None
        counts.append(counted)
    assert counts[0] > 3 * 20 * 24
    assert 2 < counts[1] / counts[0] < 5
