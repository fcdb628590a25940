"""Exported C under every warning we know, in C99 to C2x and C++, and several networks in one program."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from c_nets import example
from c_problems import gru_of, layer, sequence

from sparsecirc.cells import CELLS
from sparsecirc.export.c import Activations, Arithmetic, COptions, Neurons, Weights, as_exported, export_c
from sparsecirc.ir import Graph, interpret

WARNINGS = (
    "-Wall", "-Wextra", "-Wpedantic", "-Wconversion", "-Wsign-conversion", "-Wfloat-conversion", "-Wdouble-promotion",
    "-Wshadow", "-Wcast-qual", "-Wcast-align", "-Wundef", "-Wwrite-strings", "-Wswitch-default", "-Werror", "-O2",
)  # fmt: skip
OF_C = ("-Wstrict-prototypes", "-Wmissing-prototypes", "-Wvla", "-Wbad-function-cast")
# Hexadecimal floats are C++17; GNU's dialects had them before.
CPP11 = tuple("-Wno-pedantic" if w == "-Wpedantic" else w for w in WARNINGS)
# What is left out of -Weverything: padding at the end of a struct, C90's rules, warnings on its own suppressions.
EVERYTHING = ("-Weverything", "-Wno-padded", "-Wno-declaration-after-statement", "-Wno-unknown-warning-option",
              "-Wno-unsafe-buffer-usage")  # fmt: skip
CALLS: dict[str, tuple[str, ...]] = {
    "gcc c99": ("gcc", "-std=c99", *OF_C),
    "gcc c2x": ("gcc", "-std=c2x", *OF_C),
    "clang c99": ("clang", "-std=c99", *EVERYTHING, *OF_C),
    "g++ 17": ("g++", "-std=c++17", "-x", "c++"),
    "clang++ 17": ("clang++", "-std=c++17", "-x", "c++"),
    "g++ gnu 11": ("g++", "-std=gnu++11", "-x", "c++"),
    "arm": ("arm-none-eabi-gcc", "-std=c99", "-mthumb", "-mcpu=cortex-m4", "-mfloat-abi=hard", "-mfpu=fpv4-sp-d16"),
}
SMALL = COptions(Weights.INT8, arithmetic=Arithmetic.INT8, activations=Activations.FAST)
FIXED = COptions(Weights.INT8, arithmetic=Arithmetic.INT8, neurons=Neurons.FIXED)
PROBLEMS: dict[str, tuple[Graph, COptions]] = {
    "lstm exact": (layer(CELLS["lstm"], 5, 17, projected=7), COptions()),
    "gru small": (gru_of(0.3, units=12, inputs=300, tile=4), SMALL),
    "alif fixed": (layer(CELLS["alif"], 5, 17), FIXED),
    "nodes": (example("direct")[0], COptions(Weights.INT16, neurons=Neurons.FIXED)),
    "words": (example("words")[0], SMALL),
    "images": (example("images")[0], COptions(Weights.INT8)),
}


@pytest.mark.parametrize("problem", PROBLEMS)
@pytest.mark.parametrize("call", CALLS)
def test_no_compiler_has_a_word_to_say(call: str, problem: str, tmp_path: Path) -> None:
    if shutil.which(CALLS[call][0]) is None:
        pytest.skip(f"needs {CALLS[call][0]}")
    graph, options = PROBLEMS[problem]
    export_c(graph, tmp_path, options=options)
    warnings = CPP11 if "gnu" in call else WARNINGS
    for file in ("net.c", "net_test.c"):
        strict = [w for w in CALLS[call] if file == "net.c" or w != "-Weverything"]  # the test program prints
        command = [*strict, *warnings, "-c", "-o", str(tmp_path / "out.o"), str(tmp_path / file)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr[:2000]
        assert not done.stderr


MAIN = """
#include "first.h"
#include "second.h"
#include "third.h"
#include <stdio.h>

int main(void) {
  static first_state a;
  static second_state b;
  static third_state c;
  static first_output y;
  static second_output z;
  static third_output w;
  static float x[5] = {0.5f, -1.0f, 2.0f, 0.25f, 1.5f};
  first_init(&a);
  second_init(&b);
  third_init(&c);
  for (int t = 0; t < 3; ++t) { /* in turns */
    first_step(&a, x, &y);
    second_step(&b, x, &z);
    third_step(&c, x, &w);
  }
  printf("%.9g %.9g %.9g\\n", (double)y.h[3], (double)z.h[3], (double)w.mem[3]);
  return 0;
}
"""


@pytest.mark.parametrize("language", ["c", "c++"])
def test_several_networks_live_in_one_program(language: str, tmp_path: Path) -> None:
    """Same layers, other names: nothing clashes. A C++ caller links against the C objects."""
    compiler = {"c": "gcc", "c++": "g++"}[language]
    if shutil.which(compiler) is None or shutil.which("gcc") is None:
        pytest.skip(f"needs gcc and {compiler}")
    nets = {
        "first": (gru_of(0.3, units=8, inputs=5), SMALL),
        "second": (gru_of(0.3, units=8, inputs=5), COptions()),
        "third": (layer(CELLS["lif"], 5, 8, density=0.5), FIXED),
    }
    objects = []
    for name, (graph, options) in nets.items():
        export_c(graph, tmp_path, name=name, options=options)
        objects.append(str(tmp_path / f"{name}.o"))
        subprocess.run(
            ["gcc", "-std=c99", "-ffp-contract=off", "-c", "-o", objects[-1], str(tmp_path / f"{name}.c")], check=True
        )
    (tmp_path / "main.cc").write_text(MAIN)
    link = [compiler, "-x", language, f"-I{tmp_path}", str(tmp_path / "main.cc"), "-x", "none", *objects, "-lm"]
    subprocess.run([*link, "-o", str(tmp_path / "main")], check=True)
    said = subprocess.run([str(tmp_path / "main")], capture_output=True, text=True, check=True).stdout
    x = np.tile(np.array([0.5, -1.0, 2.0, 0.25, 1.5], np.float32), (3, 1, 1))
    for got, (graph, options) in zip(map(float, said.split()), nets.values(), strict=True):
        outputs = interpret(as_exported(graph, options), x).outputs
        assert abs(got - outputs["mem" if "mem" in outputs else "h"][-1, 0, 3]) < 2e-5


def test_nothing_is_exported_but_the_three_functions(tmp_path: Path) -> None:
    if shutil.which("nm") is None or shutil.which("gcc") is None:
        pytest.skip("needs gcc and nm")
    graph, options = PROBLEMS["gru small"]
    export_c(graph, tmp_path, options=options)
    subprocess.run(["gcc", "-std=c99", "-c", "-o", str(tmp_path / "net.o"), str(tmp_path / "net.c")], check=True)
    listed = subprocess.run(["nm", str(tmp_path / "net.o")], capture_output=True, text=True, check=True).stdout
    symbols = [line.split() for line in listed.splitlines()]
    assert {s[-1] for s in symbols if s[-2] == "T"} == {"net_init", "net_run", "net_step"}
    assert not [s for s in symbols if s[-2] in "DdBbCG"], "no variable: all memory is the caller's"
    assert {s[-1] for s in symbols if s[-2] == "U"} <= {"memcpy", "memset"}


@pytest.mark.parametrize("steps", [0, 1])
def test_few_steps(steps: int, tmp_path: Path) -> None:
    from sparsecirc.export.c import run_c

    for name in ("gru small", "alif fixed"):
        graph, options = PROBLEMS[name]
        x = sequence(graph.inputs[0].shape[0], steps=5)[:steps]
        got = run_c(export_c(graph, tmp_path / name.split()[0], options=options), x)
        for key, want in interpret(as_exported(graph, options), x).outputs.items():
            assert got[key].shape == want.shape
            assert np.abs(got[key] - want).max(initial=0) < 1e-5, key
