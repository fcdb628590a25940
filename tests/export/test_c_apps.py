"""The applications of ``export/boards/apps``, each on its board, over the serial line of the emulator."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from c_problems import gru_of, layer

from benchmarks.studies._boards import BOARDS, SOURCES, make_board, missing_tools
from sparsecirc.cells import CELLS
from sparsecirc.errors import SparsecircError
from sparsecirc.export import Export
from sparsecirc.export.c import Activations, Arithmetic, COptions, Neurons, Weights, as_exported, export_c
from sparsecirc.ir import Graph, interpret

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(bool(missing_tools()), reason=f"needs {' '.join(missing_tools())} (docs/c.md lists packages)"),
]
SMALL = COptions(Weights.INT8, arithmetic=Arithmetic.INT8, activations=Activations.FAST)
FIXED = COptions(Weights.INT8, neurons=Neurons.FIXED)
GRU = gru_of(0.2, units=9, inputs=4)
OVER = "\x04\n"
PRINTED = 6e-7  # six decimals


@pytest.fixture(scope="module")
def gru(tmp_path_factory: pytest.TempPathFactory) -> Export:
    return export_c(GRU, tmp_path_factory.mktemp("gru"), options=SMALL)


def numbers(steps: int, seed: int = 3, features: int = 4) -> np.ndarray:
    """Input (T, 1, features) of three decimals, which both sides read as the same float."""
    return np.random.default_rng(seed).normal(0, 1, (steps, 1, features)).round(3).astype(np.float32)


def lines(x: np.ndarray) -> str:
    return "".join(" ".join(f"{v:.3f}" for v in row) + "\n" for row in x[:, 0])


def states(graph: Graph, options: COptions, x: np.ndarray) -> np.ndarray:
    return np.asarray(interpret(as_exported(graph, options), x).outputs["h"])[:, 0]


def start(export: Export, core: str, folder: Path, typed: str, *more: str) -> list[str]:
    net = export.paths[0].parent
    app = [m for m in more if m.startswith("APP=")]
    flags = [m for m in more if m not in app]
    return make_board(net, core, folder, [*app, "start"], ("-Werror", *flags), typed + OVER).splitlines()


def test_classify_starts_every_sequence_anew(tmp_path: Path) -> None:
    graph = layer(CELLS["lif"], 4, 12, density=0.5, drive=3.0)
    graph = Graph(graph.nodes, {"h": graph.outputs["mem"]})
    export = export_c(graph, tmp_path / "net", options=FIXED)
    first, second = numbers(9), numbers(5, seed=4)
    said = start(export, "Cortex-M3", tmp_path, f"{lines(first)}\n\n{lines(second)}")
    best = [int(states(graph, FIXED, x)[-1].argmax()) for x in (first, second)]
    assert said == [f"class {best[0]} after 9 steps", f"class {best[1]} after 5 steps"]


def test_the_sampler_keeps_its_pace(gru: Export, tmp_path: Path) -> None:
    x = numbers(6)
    want = states(GRU, SMALL, x)
    said = start(gru, "Cortex-M4F", tmp_path / "slow", lines(x))
    assert [line.split()[0] for line in said[:-1]] == [str(k) for k in want.argmax(axis=1)]
    assert np.allclose([float(line.split()[1]) for line in said[:-1]], want.max(axis=1), atol=2e-6)
    assert said[-1] == "6 steps, 0 late"
    assert start(gru, "Cortex-M4F", tmp_path / "fast", lines(x), "-DRATE_HZ=1000000u")[-1] == "6 steps, 6 late"


def test_a_stream_of_numbers(gru: Export, tmp_path: Path) -> None:
    x = numbers(5)
    said = start(gru, "Cortex-M7", tmp_path, lines(x).replace(" ", ",\t", 3).replace("\n", "\r\n"))
    got = np.array([[float(v) for v in line.split()] for line in said])
    assert np.abs(got - states(GRU, SMALL, x)).max() < 2e-6 + PRINTED


def test_channels_do_not_disturb_each_other(gru: Export, tmp_path: Path) -> None:
    a, b = numbers(4), numbers(4, seed=5)
    typed = "".join(f"A {p}\nD {q}\n" for p, q in zip(lines(a).splitlines(), lines(b).splitlines(), strict=True))
    said = start(gru, "Cortex-M33", tmp_path, f"Z 1 2\n? {typed}")
    for name, x in (("A", a), ("D", b)):
        got = np.array([[float(v) for v in line.split()[1:]] for line in said if line.startswith(name)])
        assert np.abs(got - states(GRU, SMALL, x)).max() < 2e-6 + PRINTED, name


def test_telemetry(gru: Export, tmp_path: Path) -> None:
    x = numbers(4)
    said = start(gru, "Cortex-M55", tmp_path, lines(x))
    assert [int(line.split()[0]) for line in said[:-1]] == states(GRU, SMALL, x).argmax(axis=1).tolist()
    told = re.fullmatch(r"at most (\d+) instructions and (\d+) bytes of stack", said[-1])
    assert told is not None
    assert 1000 < int(told[1]) < 100_000
    assert 0 < int(told[2]) < 1024


def test_every_application_builds_for_every_board(gru: Export, tmp_path: Path) -> None:
    apps = sorted(p.stem for p in (SOURCES / "apps").glob("*.c"))
    assert len(apps) == len(BOARDS)
    for core in BOARDS:
        for app in apps:
            make_board(gru.paths[0].parent, core, tmp_path / core, [f"APP={app}", "app"], ("-Werror", "-Wshadow"))


def test_numbers_are_read_and_printed_exactly(tmp_path: Path) -> None:
    """An identity layer: the odd spellings of numbers, and the corners of printing."""
    from sparsecirc.ir import Input, Linear

    graph = Graph((Input("x", shape=(1,)), Linear("y", ("x",), {"weight": np.ones((1, 1), np.float32)})), {"y": "y"})
    export = export_c(graph, tmp_path / "net")
    typed = {
        "0": "0.000000", "-12.625": "-12.625000", ".5": "0.500000", "7.": "7.000000", "0.9999999": "1.000000",
        "-0.0000001": "-0.000000", "0.125000000000": "0.125000", "123456.5": "123456.500000", "000.25": "0.250000",
    }  # fmt: skip
    odd = "1e5 - . 1.2.3 abc 12345678901 "  # words: skipped
    said = start(export, "Cortex-M3", tmp_path, odd + " ".join(typed) + "\n", "APP=stream")
    assert said == list(typed.values())


def test_a_network_without_steps_is_refused(tmp_path: Path) -> None:
    from c_nets import example

    graph, _ = example("still")
    export_c(graph, tmp_path / "net")
    with pytest.raises(SparsecircError, match="takes one input for all steps"):
        make_board(tmp_path / "net", "Cortex-M3", tmp_path, ["app"])


def test_the_guide_leads_from_a_model_to_a_board(tmp_path: Path) -> None:
    """The first shell block of export/README.md, as it stands there."""
    guide = (SOURCES.parent / "README.md").read_text(encoding="utf-8")
    commands = guide.split("```sh\n")[1].split("```")[0]
    (tmp_path / "export").symlink_to(SOURCES.parent, target_is_directory=True)
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    call = ["bash", "-euo", "pipefail", "-c", commands]
    done = subprocess.run(
        call, cwd=tmp_path, env={**os.environ, "PATH": path}, capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert "net: 0 failures" in done.stdout
    assert re.fullmatch(r"class \d after 1 steps", done.stdout.splitlines()[-1])


def test_cmake_builds_the_application_of_a_board(gru: Export, tmp_path: Path) -> None:
    if shutil.which("cmake") is None:
        pytest.skip("needs cmake")
    build = str(tmp_path / "build")
    first = ["cmake", "-S", str(SOURCES), "-B", build, "-DBOARD=mps2-an500", f"-DNET_DIR={gru.paths[0].parent}"]
    first += [f"-DCMAKE_TOOLCHAIN_FILE={SOURCES / 'arm-none-eabi.cmake'}"]
    for call in (first, ["cmake", "--build", build]):
        done = subprocess.run(call, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
    run = ["qemu-system-arm", "-M", "mps2-an500", "-display", "none", "-monitor", "none", "-serial", "stdio"]
    run += ["-semihosting-config", "enable=on,target=native", "-kernel", f"{build}/stream.elf"]
    x = numbers(3)
    done = subprocess.run(run, input=lines(x) + OVER, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    got = np.array([[float(v) for v in line.split()] for line in done.stdout.splitlines()])
    assert np.abs(got - states(GRU, SMALL, x)).max() < 2e-6 + PRINTED
