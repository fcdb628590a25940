"""Whole networks in C: every node, and the calling conventions."""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from c_nets import NETS, example, gru, net, normal

from sparsecirc._pattern import Pattern
from sparsecirc.export.c import COptions, Index, Weights, as_exported, export_c, run_c
from sparsecirc.export.c._host import build
from sparsecirc.ir import Conv, Graph, Input, Linear, TimeReduce, interpret

pytestmark = pytest.mark.skipif(not any(map(shutil.which, ("cc", "gcc", "clang"))), reason="needs a C compiler")
STRICT = ("-std=c99", "-Wall", "-Wextra", "-Wpedantic", "-Wconversion", "-Werror", "-ffp-contract=off", "-O1")


def assert_agrees(got: dict[str, np.ndarray], want: dict[str, np.ndarray]) -> None:
    assert got.keys() == want.keys()
    for key, value in want.items():
        assert got[key].shape == value.shape, key
        if value.size:
            assert np.abs(got[key] - value).max() <= 1e-5 * max(1.0, np.abs(value).max()), key


@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("name", NETS)
def test_every_node_agrees(name: str, batch_first: bool, tmp_path: Path) -> None:
    graph, x = example(name)
    if batch_first:
        graph = replace(graph, batch_first=True)
        x = np.swapaxes(x, 0, 1) if graph.inputs[0].time else x
    assert_agrees(run_c(export_c(graph, tmp_path), x, flags=STRICT), interpret(graph, x).outputs)


@pytest.mark.parametrize("name", ["words", "reductions", "pointwise"])
def test_no_step_at_all(name: str, tmp_path: Path) -> None:
    graph, x = example(name)
    assert_agrees(run_c(export_c(graph, tmp_path), x[:0], flags=STRICT), interpret(graph, x[:0]).outputs)


def test_golden_programs_pass_and_compile_clean_in_one_makefile(tmp_path: Path) -> None:
    for name in NETS:
        export_c(example(name)[0], tmp_path, name=name)
    flags = f"CFLAGS={' '.join(STRICT)}"
    done = subprocess.run(["make", "-C", str(tmp_path), "test", flags], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.findall(r"(\w+): 0 failures", done.stdout) == sorted(NETS)
    # The same sources as C++.
    if shutil.which("g++") is None:
        pytest.skip("needs g++ for the second half")
    strict = [f for f in STRICT if not f.startswith("-std")]
    files = [str(p) for p in sorted(tmp_path.glob("*.c"))]
    again = subprocess.run(
        ["g++", "-std=c++17", *strict, "-fsyntax-only", "-x", "c++", *files],
        capture_output=True,
        text=True,
        check=False,
    )
    assert again.returncode == 0, again.stderr


CALLS = """
#include "net.h"
#include <string.h>
int main(void)
{
    static net_state a, b;
    static net_output y[20], one, last;
    static float x[20 * NET_INPUTS];
    for (uint32_t i = 0u; i < 20u * NET_INPUTS; ++i) {
        x[i] = (float)(i % 7u) - 3.0f;
    }
    memset(&a, 0xff, sizeof a); /* init may not rely on what was there */
    memset(&b, 0x55, sizeof b);
    net_init(&a);
    net_init(&b);
    net_run(&a, x, 20u, y);
    for (uint32_t t = 0u; t < 20u; ++t) {
        net_step(&b, x + t * NET_INPUTS, &one);
        if (memcmp(one.seq, y[t].seq, sizeof one.seq) != 0) {
            return 1; /* stepping differs from running */
        }
    }
    if (memcmp(&one, &y[19], sizeof one) != 0) {
        return 2; /* results for the steps so far differ */
    }
    net_init(&a);
    net_run(&a, x, 13u, y);
    net_run(&a, x + 13u * NET_INPUTS, 7u, y + 13);
    if (memcmp(&one, &y[19], sizeof one) != 0) {
        return 3; /* a sequence cut in two differs */
    }
    net_step(&a, x, &last);
    if (memcmp(&one, &last, sizeof one) == 0) {
        return 4; /* the state has to matter */
    }
    net_init(&a);
    net_run(&a, x, 20u, y);
    if (memcmp(&one, &y[19], sizeof one) != 0) {
        return 5; /* init does not forget */
    }
    return sizeof a == NET_STATE_BYTES && NET_INPUTS == 6u && NET_OUTPUTS == 13u ? 0 : 6;
}
"""


def test_step_run_and_init_fit_together(tmp_path: Path) -> None:
    graph = net(
        Input("x", shape=(6,)),
        gru("rnn.l0", "x", 6, 9),
        TimeReduce("mean", ("rnn.l0",), how="mean", feature_shape=(9,)),
        Linear("fc", ("mean",), {"weight": normal(4, 9)}),
        y="fc",
        seq="rnn.l0",
    )
    export_c(graph, tmp_path)
    (tmp_path / "calls.c").write_text(CALLS)
    build([tmp_path / "calls.c", tmp_path / "net.c"], tmp_path / "calls", STRICT)
    assert subprocess.run([str(tmp_path / "calls")], check=False).returncode == 0


def sparse_images(density: float) -> Graph:
    """The convolutions of `images` with dead taps: padded, grouped, strided, dilated; real input and spikes."""
    graph, _ = example("images")
    rng = np.random.default_rng(9)
    made = []
    for node in graph.nodes:
        if isinstance(node, Conv):
            out = node.params["weight"].shape[0]
            live = rng.random((out, node.params["weight"].size // out)) < density
            live[0] = False  # a dead channel
            made.append(node.with_patterns(weight=Pattern.from_mask(live)))
    return graph.replace_nodes(*made)


@pytest.mark.parametrize("density", [0.0, 0.3])
@pytest.mark.parametrize("index", [Index.AUTO, Index.ABSOLUTE, Index.GAPS, Index.NONE], ids=lambda i: i.value)
@pytest.mark.parametrize("weights", [Weights.F32, Weights.INT8], ids=lambda w: w.value)
def test_dead_taps_of_convolutions_are_not_stored(
    weights: Weights, index: Index, density: float, tmp_path: Path
) -> None:
    graph, options = sparse_images(density), COptions(weights, index)
    _, x = example("images")
    export = export_c(graph, tmp_path, options=options)
    assert_agrees(run_c(export, x, flags=STRICT), interpret(as_exported(graph, options), x).outputs)
    same = run_c(export_c(graph, tmp_path / "dense", options=COptions(weights, Index.NONE)), x, flags=STRICT)
    assert np.array_equal(run_c(export, x, flags=STRICT)["y"], same["y"]), "the layout may not change a bit"
    if density and index is Index.AUTO:
        notes = [n for n in export.notes if n.startswith("c")]
        assert all("sparse rows, u8 columns" in n for n in notes), notes
        assert export.bytes < 0.8 * export.bytes_dense


def test_a_wide_sparse_convolution_takes_gaps(tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    weight = (rng.standard_normal((3, 40, 3, 3)) * (rng.random((3, 40, 3, 3)) < 0.05)).astype(np.float32)
    graph = net(
        Input("x", shape=(40, 4, 5)),
        Conv("c", ("x",), {"weight": weight}, stride=(1, 1), padding=(1, 1), dilation=(1, 1)),
        y="c",
    )
    export = export_c(graph, tmp_path)  # no pattern: its zeros count
    assert "column gaps" in export.notes[2]
    x = normal(2, 1, 40, 4, 5)
    assert_agrees(run_c(export, x, flags=STRICT), interpret(graph, x).outputs)
