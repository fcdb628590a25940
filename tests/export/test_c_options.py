"""Integer weights, index encodings, 8-bit arithmetic and fast activations of the C writer, on this machine."""

from __future__ import annotations

import itertools
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from c_nets import NETS, example
from c_problems import GATED, STRICT, layer, sequence

from sparsecirc.cells import CELLS
from sparsecirc.errors import UsageError
from sparsecirc.export.c import (
    FAST_TANH_ERROR,
    Activations,
    Arithmetic,
    COptions,
    Index,
    Weights,
    as_exported,
    check_c,
    export_c,
    run_c,
)
from sparsecirc.export.c._build import Builder
from sparsecirc.export.c._host import build
from sparsecirc.ir import Graph, interpret

pytestmark = pytest.mark.skipif(not any(map(shutil.which, ("cc", "gcc", "clang"))), reason="needs a C compiler")
INTEGER = COptions(weights=Weights.INT8, arithmetic=Arithmetic.INT8)
SMALL = COptions(weights=Weights.INT8, arithmetic=Arithmetic.INT8, activations=Activations.FAST)


def assert_computes(graph: Graph, options: COptions, x: np.ndarray, folder: Path, tolerance: float) -> None:
    """C gives what the network of the stored weights gives."""
    got = run_c(export_c(graph, folder, options=options), x, flags=STRICT)
    for name, want in interpret(as_exported(graph, options), x).outputs.items():
        assert np.abs(got[name] - want).max() <= tolerance * max(1.0, np.abs(want).max()), name


@pytest.mark.parametrize("weights", [Weights.INT8, Weights.INT16])
@pytest.mark.parametrize("name", GATED)
def test_integer_weights_compute_the_network_they_stand_for(name: str, weights: Weights, tmp_path: Path) -> None:
    for k, (inputs, units) in enumerate([(1, 1), (5, 17), (16, 300)]):
        graph = layer(CELLS[name], inputs, units)
        assert_computes(graph, COptions(weights=weights), sequence(inputs), tmp_path / str(k), 2e-6)


@pytest.mark.parametrize("name", NETS)
def test_every_node_takes_integer_weights(name: str, tmp_path: Path) -> None:
    graph, x = example(name)
    options = COptions(weights=Weights.INT16)
    assert_computes(graph, options, x, tmp_path, 1e-5)
    found = check_c(graph, export_c(graph, tmp_path, options=options), x, options=options)
    assert found.max_abs_diff < 1e-4
    assert found.spike_mismatches == 0


@pytest.mark.parametrize("index", [Index.RUNS, Index.ABSOLUTE, Index.GAPS, Index.NONE])
@pytest.mark.parametrize("weights", [Weights.F32, Weights.INT8])
def test_every_encoding_gives_the_same_numbers(index: Index, weights: Weights, tmp_path: Path) -> None:
    for name, tile in itertools.product(("gru", "lif"), (1, 4)):
        graph = layer(CELLS[name], 12, 32, tile=tile, drive=2.0)
        options = COptions(weights=weights, index=index)
        got = run_c(export_c(graph, tmp_path / name / "a", options=options), sequence(12), flags=STRICT)
        want = run_c(
            export_c(graph, tmp_path / name / "b", options=COptions(weights=weights)), sequence(12), flags=STRICT
        )
        for output, value in want.items():
            assert np.array_equal(got[output], value), (name, tile, output)


@pytest.mark.parametrize("density", [1.0, 0.1])
@pytest.mark.parametrize("name", GATED)
def test_integer_products_round_as_they_say(name: str, density: float, tmp_path: Path) -> None:
    """Halves that fall differently in single and double precision move a sum by one step: hence the tolerance."""
    graph = layer(CELLS[name], 12, 64, density=density)
    x = 5 * sequence(12)
    want = interpret(as_exported(graph, INTEGER), x).outputs["h"]
    got = run_c(export_c(graph, tmp_path, options=INTEGER), x, flags=STRICT)["h"]
    assert np.mean(np.abs(got - want) > 1e-5) < 0.01
    assert np.abs(got - want).max() < 0.01
    assert np.abs(got - interpret(graph, x).outputs["h"]).max() > 1e-4, "rounding has to show"


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e38, 1e-40, 0.0])
def test_no_input_breaks_the_rounding(value: float, tmp_path: Path) -> None:
    graph = layer(CELLS["gru"], 4, 8, density=1.0)
    x = sequence(4)
    x[3] = value
    flags = (*STRICT, "-fsanitize=undefined,float-cast-overflow", "-fno-sanitize-recover=all")
    got = run_c(export_c(graph, tmp_path, options=INTEGER), x, flags=flags)["h"]
    assert np.all(np.isfinite(got[:3]))
    if abs(value) < 1e38:
        assert np.all(np.abs(got) <= 1)


def test_integer_arithmetic_needs_8_bit_weights() -> None:
    with pytest.raises(UsageError, match="integer arithmetic needs 8-bit weights, got f32: expected weights int8"):
        COptions(arithmetic=Arithmetic.INT8)


ACTIVATIONS = """
#include <math.h>
#include <stdio.h>
#include <stdint.h>
#include <string.h>
%s
int main(void)
{
    double worst = 0.0, worst_sigmoid = 0.0, top = 0.0;
    for (uint32_t bits = 0u; bits < 0x7f800000u; bits += 997u) {
        float x;
        memcpy(&x, &bits, sizeof x);
        for (int sign = 0; sign < 2; ++sign, x = -x) {
            const double t = fabs((double)net_fast_tanh(x) - tanh((double)x));
            const double s = fabs((double)net_sigmoid(x) - 1.0 / (1.0 + exp(-(double)x)));
            worst = t > worst ? t : worst;
            worst_sigmoid = s > worst_sigmoid ? s : worst_sigmoid;
            top = fabs((double)net_fast_tanh(x)) > top ? fabs((double)net_fast_tanh(x)) : top;
        }
    }
    printf("%%.9g %%.9g %%.9g %%d\\n", worst, worst_sigmoid, top, net_fast_tanh(NAN) != net_fast_tanh(NAN));
    return 0;
}
"""


def test_the_fast_activations_keep_their_promise(tmp_path: Path) -> None:
    b = Builder("net", COptions(activations=Activations.FAST))
    assert b.sigmoid() == "net_sigmoid"
    (tmp_path / "t.c").write_text(ACTIVATIONS % "\n".join(b.helpers.values()))
    build([tmp_path / "t.c"], tmp_path / "t", ("-std=c99", "-O2", "-ffp-contract=off"))
    done = subprocess.run([str(tmp_path / "t")], capture_output=True, text=True, check=True)
    worst, sigmoid, top, nan = (float(v) for v in done.stdout.split())
    assert FAST_TANH_ERROR / 2 < worst <= FAST_TANH_ERROR
    assert sigmoid <= FAST_TANH_ERROR / 2
    assert top <= 1
    assert nan == 1


@pytest.mark.parametrize("name", ["gru", "lstm", "rnn_tanh"])
def test_fast_activations_stay_close(name: str, tmp_path: Path) -> None:
    graph = layer(CELLS[name], 12, 64)
    options = COptions(activations=Activations.FAST)
    assert_computes(graph, options, sequence(12, 200), tmp_path, 2e-5)
    assert "tanhf" not in (tmp_path / "net.c").read_text()


@pytest.mark.parametrize("options", [COptions(weights=Weights.INT16), INTEGER, SMALL], ids=lambda o: o.form)
def test_golden_programs_of_every_form_pass(options: COptions, tmp_path: Path) -> None:
    for name in NETS:
        export_c(example(name)[0], tmp_path, name=name, options=options)
    flags = f"CFLAGS={' '.join(STRICT)}"
    done = subprocess.run(["make", "-C", str(tmp_path), "test", flags], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count(": 0 failures") == len(NETS)
    if shutil.which("g++"):
        plain = [f for f in STRICT if not f.startswith("-std")]
        files = [str(p) for p in sorted(tmp_path.glob("*.c"))]
        again = subprocess.run(
            ["g++", "-std=c++17", *plain, "-fsyntax-only", "-x", "c++", *files],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert again.returncode == 0, again.stderr
