"""The host application of the top-level ``export/`` folder, built around a small network."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from c_nets import gru, net, normal

from sparsecirc.export.c import export_c
from sparsecirc.export.c._host import build
from sparsecirc.ir import Graph, Input, Linear, TimeReduce, interpret

HOST = Path(__file__).parents[2] / "export" / "c"
pytestmark = pytest.mark.skipif(not any(map(shutil.which, ("cc", "gcc", "clang"))), reason="needs a C compiler")


@pytest.fixture
def graph() -> Graph:
    return net(
        Input("x", shape=(6,)),
        gru("rnn.l0", "x", 6, 9),
        TimeReduce("last", ("rnn.l0",), how="last", feature_shape=(9,)),
        Linear("fc", ("last",), {"weight": normal(4, 9)}),
        y="fc",
        h="rnn.l0",
    )


def check_stream(program: Path, graph: Graph) -> None:
    x = normal(7, 1, 6)
    text = "\n".join(" ".join(f"{v:.9g}" for v in row) for row in x[:, 0])
    done = subprocess.run([str(program)], input=text, capture_output=True, text=True, check=True)
    lines = np.array([[float(v) for v in line.split()] for line in done.stdout.splitlines()])
    assert lines.shape == (7, 13)
    want = interpret(graph, x).outputs
    assert np.abs(lines[:, 4:] - want["h"][:, 0]).max() < 1e-5
    for t in range(7):  # the reduced output is the one for the steps so far
        assert np.abs(lines[t, :4] - interpret(graph, x[: t + 1]).outputs["y"][0]).max() < 1e-5
    broken = subprocess.run([str(program)], input="1 2 three", capture_output=True, text=True, check=False)
    assert broken.returncode == 1
    assert "6 a step" in broken.stderr


def test_make_builds_the_host_application(graph: Graph, tmp_path: Path) -> None:
    if shutil.which("make") is None:
        pytest.skip("needs make")
    export_c(graph, tmp_path / "net")
    call = ["make", "-C", str(HOST), f"NET_DIR={tmp_path / 'net'}", f"BUILD={tmp_path / 'build'}"]
    flags = "CFLAGS=-O1 -Wall -Wextra -Wpedantic -Wconversion -Werror"
    done = subprocess.run([*call, flags, "all", "test"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    check_stream(tmp_path / "build" / "stream", graph)


def test_cmake_builds_the_host_application(graph: Graph, tmp_path: Path) -> None:
    if shutil.which("cmake") is None:
        pytest.skip("needs cmake")
    export_c(graph, tmp_path / "net")
    out = str(tmp_path / "build")
    for call in (
        ["cmake", "-S", str(HOST), "-B", out, f"-DNET_DIR={tmp_path / 'net'}"],
        ["cmake", "--build", out],
        ["ctest", "--test-dir", out],
    ):
        done = subprocess.run(call, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
    check_stream(tmp_path / "build" / "stream", graph)


def test_the_example_of_the_readme_compiles(graph: Graph, tmp_path: Path) -> None:
    text = (HOST.parent / "README.md").read_text(encoding="utf-8")
    example = text.split("```c\n")[1].split("```")[0]
    export_c(graph, tmp_path)
    (tmp_path / "example.c").write_text(f"{example}\nint main(void) {{ setup(); return 0; }}\n")
    build([tmp_path / "example.c", tmp_path / "net.c"], tmp_path / "example")
    assert subprocess.run([str(tmp_path / "example")], check=False).returncode == 0
