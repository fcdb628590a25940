"""Sections and stack of exported C: what the compiler's call graph says, and what the command shows."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from c_problems import gru_of, layer

from sparsecirc.cells import CELLS
from sparsecirc.errors import MissingExtraError, SparsecircError, UsageError
from sparsecirc.export.c import CORES, Activations, Arithmetic, COptions, Weights, export_c, footprint_c
from sparsecirc.export.c._footprint import read_call_graph

needs_compiler = pytest.mark.skipif(shutil.which("arm-none-eabi-gcc") is None, reason="needs arm-none-eabi-gcc")
SMALL = COptions(Weights.INT8, arithmetic=Arithmetic.INT8, activations=Activations.FAST)


def node(name: str, taken: int | None, how: str = "static") -> str:
    if taken is None:
        return f'node: {{ title: "{name}" label: "{name}\\n<built-in>" shape : ellipse }}'
    return f'node: {{ title: "{name}" label: "{name}\\nnet.c:1:2\\n{taken} bytes ({how})" }}'


def edge(source: str, target: str) -> str:
    return f'edge: {{ sourcename: "{source}" targetname: "{target}" label: "net.c:3:4" }}'


def test_the_deepest_chain_counts() -> None:
    lines = [node("run", 24), node("step", 8), node("each", 40), node("dot", 32), node("tanhf", None)]
    lines += [edge("run", "each"), edge("step", "each"), edge("each", "dot"), edge("each", "tanhf")]
    assert read_call_graph("\n".join(lines)) == (96, ("tanhf",))
    assert read_call_graph("") == (0, ())


def test_a_stack_without_a_bound_is_refused() -> None:
    with pytest.raises(SparsecircError, match="run takes stack without a bound"):
        read_call_graph(node("run", 24, "dynamic"))
    loop = [node("a", 8), node("b", 8), edge("a", "b"), edge("b", "a")]
    with pytest.raises(SparsecircError, match="calls itself"):
        read_call_graph("\n".join(loop))


def test_missing_tools_and_cores_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    export = export_c(gru_of(0.2, units=8, inputs=3), tmp_path)
    with pytest.raises(UsageError, match="core 'Z80' is unknown: expected one of Cortex-M3"):
        footprint_c(export, "Z80")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MissingExtraError, match="apt install gcc-arm-none-eabi"):
        footprint_c(export)


@needs_compiler
@pytest.mark.parametrize("core", CORES)
def test_exported_code_has_constants_code_and_a_small_stack(core: str, tmp_path: Path) -> None:
    exact = footprint_c(export_c(gru_of(0.1), tmp_path / "exact"), core)
    export = export_c(gru_of(0.1), tmp_path / "small", options=SMALL)
    small = footprint_c(export, core)
    for found in (exact, small):
        assert (found.data, found.bss) == (0, 0), "all memory is the caller's"
        assert 0 < found.stack < 512
        assert 200 < found.text < 4096
        assert found.flash == found.text + found.rodata
    assert small.rodata == export.bytes, "constants are in flash, all of them"
    assert small.rodata < 0.6 * exact.rodata
    assert "tanhf" in exact.calls
    assert "tanhf" not in small.calls
    assert not {"malloc", "printf", "free"} & {*exact.calls, *small.calls}
    if core != "Cortex-M3":
        assert set(small.calls) == {"memcpy", "memset"}, "with a floating-point unit no other library"


@needs_compiler
def test_flags_reach_the_compiler(tmp_path: Path) -> None:
    export = export_c(layer(CELLS["lif"], 16, 64), tmp_path)
    assert footprint_c(export, flags=("-O0",)).text > footprint_c(export).text
    with pytest.raises(SparsecircError, match="failed"):
        footprint_c(export, flags=("-no-such-flag",))
