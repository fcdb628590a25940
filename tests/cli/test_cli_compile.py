"""compile, verify, bench and export on small networks."""

from __future__ import annotations

import importlib.util
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cli_support import Cli, gru_graph, lif_graph

from sparsecirc import _program
from sparsecirc.cli import _bench as bench_command
from sparsecirc.ir import Graph, interpret, load_graph, save_graph

if importlib.util.find_spec("sparsecirc._kernels") is None:
    pytest.skip("the native kernels are not built", allow_module_level=True)


@pytest.fixture
def pruned(cli: Cli, gru_file: Path) -> Path:
    assert cli("prune", gru_file, "-s", "0.8", "-o", "run").code == 0
    return Path("run")


def test_compile_writes_into_the_directory(cli: Cli, pruned: Path) -> None:
    ran = cli("compile", pruned, "--json")
    assert ran.code == 0
    assert ran.json["program"] == "run/program.safetensors"
    assert {w["weight"] for w in ran.json["explain"]["weights"]} == {"rnn.l0.ih", "rnn.l0.hh", "fc.weight"}
    program = _program.Program.load(pruned / "program.safetensors")
    assert program.packed_bytes == ran.json["packed_bytes"]
    manifest = json.loads((pruned / "manifest.json").read_text())
    assert manifest["kind"] == "prune"
    assert manifest["files"]["program.safetensors"] == (pruned / "program.safetensors").stat().st_size
    again = cli("compile", pruned)
    assert again.code == 2
    assert "--force" in again.line
    assert cli("compile", pruned, "--force").code == 0


def test_compile_prints_the_kernel_and_why(cli: Cli, pruned: Path) -> None:
    ran = cli("compile", pruned, "--kernel", "csr", "--isa", "scalar")
    assert "sc_f32_csr_gru__scalar" in ran.out
    assert "asked for" in ran.out
    assert "next: sparsecirc verify run" in ran.err


def test_compile_without_a_place_writes_nothing(cli: Cli, gru_file: Path) -> None:
    before = set(Path().iterdir())
    ran = cli("compile", gru_file)
    assert ran.code == 0
    assert "nothing was written" in ran.err
    assert set(Path().iterdir()) == before
    assert cli("compile", gru_file, "-o", "p").code == 0
    assert Path("p.safetensors").is_file()
    assert cli("inspect", "p.safetensors").code == 0


def test_inputs_declared_to_be_spikes(cli: Cli, gru_file: Path) -> None:
    def columns(*options: object) -> dict[str, object]:
        ran = cli("compile", *options, "--json", "--no-cache", "--force")
        return {w["weight"]: w["candidates"]["columns"] for w in ran.json["explain"]["weights"]}

    no = "the inputs are not spikes"
    assert set(columns(gru_file).values()) == {no}
    found = columns(gru_file, "--spiking-input")
    assert isinstance(found["rnn.l0.ih"], float)
    assert found["rnn.l0.hh"] == no
    assert cli("prune", gru_file, "-s", "0.5", "--spiking-input", "-o", "run").code == 0
    assert load_graph("run/graph.safetensors").inputs[0].spiking
    assert isinstance(columns("run")["rnn.l0.ih"], float)
    assert columns("run", "--no-spiking-input")["rnn.l0.ih"] == no


@pytest.mark.parametrize(
    ("option", "value", "code", "words"),
    [
        ("--kernel", "crs", 2, "csr"),
        ("--isa", "sse", 2, "avx2"),
        ("--threads", "0", 2, "threads is 0"),
        ("--kernel", "block16x1", 3, "block16x1"),
    ],
)
def test_compile_refuses(cli: Cli, pruned: Path, option: str, value: str, code: int, words: str) -> None:
    ran = cli("compile", pruned, option, value)
    assert ran.code == code, ran.err
    assert words in ran.line
    assert not (pruned / "program.safetensors").exists()


def test_verify_passes_and_fails(cli: Cli, pruned: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert cli("compile", pruned).code == 0
    good = cli("verify", pruned, "--seq-len", "20", "--json")
    assert good.code == 0
    assert good.json["ok"]
    assert {r["against"] for r in good.json["rows"]} == {"program", "packing"}
    assert 0 < good.json["rows"][0]["max_abs"] < 1e-5
    compute_all = _program.Program.compute_all

    def off(self: Any, node: Any, *args: Any) -> Any:
        out, state = compute_all(self, node, *args)
        return ({k: v + 1e-3 for k, v in out.items()} if node.name == "fc" else out), state

    monkeypatch.setattr(_program.Program, "compute_all", off)
    ran = cli("verify", pruned, "--seq-len", "20")
    assert ran.code == 4
    assert "FAIL" in ran.out
    assert "'y'" in ran.line
    assert "0.001" in ran.line


def test_verify_notices_a_program_of_other_weights(cli: Cli, pruned: Path) -> None:
    assert cli("compile", pruned).code == 0
    graph = load_graph(pruned / "graph.safetensors")
    node = graph.node("fc")
    save_graph(graph.replace_nodes(node.with_params(weight=node.params["weight"] * 1.01)), pruned / "graph.safetensors")
    ran = cli("verify", pruned, "--seq-len", "8")
    assert ran.code == 4
    assert "packing" in ran.line


def test_verify_exports(cli: Cli, pruned: Path) -> None:
    names = []
    if shutil.which("cc"):
        names.append("c")
    if importlib.util.find_spec("onnxruntime"):
        names.append("onnx")
    if not names:
        pytest.skip("neither a C compiler nor onnxruntime is here")
    ran = cli("verify", pruned, "--against", ",".join(names), "--seq-len", "12", "--json")
    assert ran.code == 0, ran.err
    assert {r["against"] for r in ran.json["rows"]} == set(names)


def test_verify_torch(cli: Cli) -> None:
    pytest.importorskip("torch", reason="torch is not installed")
    Path("vnets.py").write_text(
        "import torch\nfrom torch import nn\n\ndef build():\n    torch.manual_seed(2)\n    return nn.LSTM(5, 12)\n"
    )
    assert cli("prune", "vnets:build", "-s", "0.5", "-o", "run").code == 0
    ran = cli("verify", "run", "--against", "torch", "--json")
    assert ran.code == 0, ran.err
    assert ran.json["rows"][0]["max_abs"] < 1e-5
    graph = load_graph("run/graph.safetensors")
    node = graph.node("lstm.l0")
    save_graph(graph.replace_nodes(node.with_params(bias_hh=node.params["bias_hh"] + 0.01)), "run/graph.safetensors")
    assert cli("verify", "run", "--against", "torch").code == 4


def test_verify_torch_needs_a_torch_model(cli: Cli, gru_file: Path) -> None:
    ran = cli("verify", gru_file, "--against", "torch")
    assert ran.code == 2
    assert "no torch model" in ran.line


@pytest.mark.parametrize("speed", [0.001, 1e9])
def test_bench_and_its_gate(cli: Cli, pruned: Path, speed: float) -> None:
    if not importlib.util.find_spec("torch"):
        pytest.skip("torch is not installed")
    ran = cli("bench", pruned, "--engines", "torch_dense", "--seq-len", "5", "--min-secs", "0.01", "--fail-if-slower",
              speed, "-o", "bench.json", "--json")  # fmt: skip
    assert ran.code == (0 if speed < 1 else 5), ran.err
    assert {e["name"] for e in ran.json["engines"]} == {"sparsecirc", "torch_dense"}
    assert json.loads(Path("bench.json").read_text()) == ran.json
    if ran.code:
        assert "1e+09" in ran.line


@pytest.mark.parametrize(
    ("threads", "options", "clock"), [(1, (), "processor"), (2, (), "wall"), (1, ("--clock", "wall"), "wall")]
)
def test_bench_says_what_it_counts(
    cli: Cli, pruned: Path, threads: int, options: tuple[str, ...], clock: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import time

    from sparsecirc import _bench

    if threads > 1:
        assert cli("compile", pruned, "--threads", threads, "--no-cache").code == 0
    real, given = _bench.bench, []
    monkeypatch.setattr(_bench, "bench", lambda *a, **k: [given.append(k["clock"]), real(*a, **k)][1])
    args = ("bench", pruned, "--engines", "sparsecirc", "--seq-len", "3", "--min-secs", "0.01", *options)
    assert cli(*args, "--json").json["clock"] == clock
    assert given == [time.process_time if clock == "processor" else None]
    said = "processor time" if clock == "processor" else "time on the wall"
    assert f"measured in {said}" in cli(*args).out


def test_bench_without_a_dense_engine_misses_the_gate(cli: Cli, pruned: Path) -> None:
    ran = cli("bench", pruned, "--engines", "sparsecirc", "--seq-len", "3", "--min-secs", "0.01", "--fail-if-slower", 1)
    assert ran.code == 5
    assert "no dense engine" in ran.err
    ran = cli("bench", pruned, "--engines", "torhc")
    assert ran.code == 2


def test_export_c(cli: Cli, pruned: Path) -> None:
    ran = cli("export", pruned, "--format", "c", "--name", "tiny", "--json")
    assert ran.code == 0, ran.err
    assert "run/c/tiny.h" in ran.json["paths"]
    assert all(Path(p).is_file() for p in ran.json["paths"])
    assert ran.json["bytes"] < ran.json["bytes_dense"]
    if shutil.which("cc"):
        assert ran.json["check"]["max_abs_diff"] < 1e-5
    manifest = json.loads(Path("run/c/manifest.json").read_text())
    assert manifest["kind"] == "export"
    assert cli("export", pruned, "--format", "c").code == 2


def test_export_c_with_integers(cli: Cli, pruned: Path) -> None:
    options = ("--weights", "int8", "--arithmetic", "int8", "--activations", "fast", "--index", "absolute")
    ran = cli("export", pruned, "--format", "c", *options, "-o", "small", "--json")
    assert ran.code == 0, ran.err
    assert ran.json["form"] == "c99 int8 x int8, index absolute, fast activations"
    assert 3 * ran.json["bytes"] < ran.json["bytes_dense"]
    if shutil.which("cc"):
        assert ran.json["check"]["ok"]
        assert 1e-5 < ran.json["check"]["rounding"] < 0.1
    wrong = cli("export", pruned, "--format", "c", "--arithmetic", "int8", "-o", "other")
    assert wrong.code == 2
    assert "integer arithmetic needs 8-bit weights" in wrong.err
    wrong = cli("export", pruned, "--format", "nir", "--weights", "int8", "-o", "other.nir")
    assert wrong.code == 2
    assert "--weights int8 is for --format c" in wrong.err
    assert not Path("other").exists()


def test_export_c_tells_its_footprint(cli: Cli, pruned: Path) -> None:
    if shutil.which("arm-none-eabi-gcc") is None:
        pytest.skip("needs arm-none-eabi-gcc")
    ran = cli("export", pruned, "--format", "c", "--footprint", "-o", "sized", "--json")
    assert ran.code == 0, ran.err
    found = {row["core"]: row for row in ran.json["footprint"]}
    assert found["Cortex-M4F"]["rodata"] == ran.json["bytes"]
    assert all(0 < row["stack"] < 1024 and row["bss"] == 0 for row in found.values())
    assert "rodata" in cli("export", pruned, "--format", "c", "--footprint", "-o", "sized", "--force").out
    wrong = cli("export", pruned, "--format", "nir", "--footprint", "-o", "other.nir")
    assert wrong.code == 2
    assert "--footprint is for --format c" in wrong.err


def test_export_onnx_to_one_file(cli: Cli, pruned: Path) -> None:
    pytest.importorskip("onnx", reason="onnx is not installed")
    ran = cli("export", pruned, "--format", "onnx", "-o", "out/net.onnx")
    assert ran.code == 0, ran.err
    assert {p.name for p in Path("out").iterdir()} == {"net.onnx", "net_step.onnx"}
    assert "gzip" in ran.out
    again = cli("export", pruned, "--format", "onnx", "-o", "out/net.onnx")
    assert again.code == 2


def test_export_onnx_with_lengths(cli: Cli, pruned: Path) -> None:
    pytest.importorskip("onnxruntime", reason="needs the package onnxruntime")
    from sparsecirc.export.onnx import metadata

    ran = cli("export", pruned, "--format", "onnx", "--lengths", "-o", "ragged.onnx", "--json")
    assert ran.code == 0
    assert ran.json["check"]["ok"]
    assert metadata("ragged.onnx")["lengths"] == "lengths"
    refused = cli("export", pruned, "--format", "c", "--lengths", "-o", "ragged_c")
    assert refused.code == 2
    assert "--lengths is for --format onnx" in refused.line


def test_export_that_computes_something_else_is_4(cli: Cli, pruned: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from sparsecirc.cli import _runners

    run = _runners.run_artefact

    def off(*args: Any) -> Any:
        graph, got = run(*args)
        return graph, {k: v * 1.01 for k, v in got.items()}

    if not shutil.which("cc"):
        pytest.skip("there is no C compiler")
    monkeypatch.setattr(_runners, "run_artefact", off)
    ran = cli("export", pruned, "--format", "c")
    assert ran.code == 4
    assert "differs from the network" in ran.line


def test_a_gated_network_has_no_nir(cli: Cli, pruned: Path) -> None:
    pytest.importorskip("nir", reason="nir is not installed")
    ran = cli("export", pruned, "--format", "nir")
    assert ran.code == 3
    assert "gru" in ran.line
    assert not Path("run/nir").exists()


def test_spiking_network_through_every_command(cli: Cli, lif_file: Path) -> None:
    pytest.importorskip("nir", reason="nir is not installed")
    assert cli("prune", lif_file, "-s", "0.5", "-o", "run").code == 0
    assert cli("compile", "run").code == 0
    against = "interpret,nir" + (",c" if shutil.which("cc") else "")
    ran = cli("verify", "run", "--against", against, "--seq-len", "30", "--json")
    assert ran.code == 0, ran.err
    assert all(r["mismatches"] == 0 for r in ran.json["rows"])
    spikes = {r["against"]: r["spikes"] for r in ran.json["rows"] if r["output"] == "spk"}
    assert spikes["nir"] > 0
    ran = cli("export", "run", "--format", "nir", "--json")
    assert ran.code == 0, ran.err
    assert ran.json["check"]["spike_mismatches"] == 0
    read = cli("inspect", "run/nir/model.nir", "--json")
    assert read.code == 0, read.err
    assert read.json["spiking"]


def tied_graph() -> tuple[Graph, np.ndarray]:
    """Two layers of spikes; in the first a membrane is at its threshold at step 5, but for rounding."""
    graph = lif_graph()
    first = graph.node("lif1")
    theta = np.ones(12, np.float32)
    weight = np.zeros((12, 6), np.float32)
    weight[:6] = np.eye(6)
    x = np.zeros((20, 2, 6), np.float32)
    x[::4] = 1.5
    layer = first.with_params(hh=np.zeros((12, 12), np.float32), threshold=theta)
    graph = graph.replace_nodes(graph.node("fc1").with_params(weight=weight), layer)
    x[5, 0, 3] = 1 - interpret(graph, x, keep_values=True).values["lif1.mem"][5, 0, 3]
    return graph, x


def test_only_a_spike_at_its_threshold_may_differ() -> None:
    from sparsecirc.cli._compare import compare

    graph, x = tied_graph()
    truth = interpret(graph, x, keep_values=True)
    assert abs(truth.values["lif1.mem"][5, 0, 3] - 1) < 1e-6
    assert [r.ok for r in compare(graph, "other", truth, truth.outputs)] == [True, True]
    flipped = {k: v.copy() for k, v in truth.outputs.items()}
    flipped["spk"][5, 0, 3] = 1 - flipped["spk"][5, 0, 3]
    flipped["y"][5:, 0] += 1
    first, second = compare(graph, "other", truth, flipped)
    assert (first.mismatches, first.ties, first.ok, second.ok) == (0, 1, True, True)
    wrong = {k: v.copy() for k, v in truth.outputs.items()}
    wrong["spk"][7, 0, 3] = 1 - wrong["spk"][7, 0, 3]  # after the tie, but no tie itself
    first, _ = compare(graph, "other", truth, wrong)
    assert (first.mismatches, first.ties, first.ok) == (1, 1, False)
    other = {k: v.copy() for k, v in truth.outputs.items()}
    other["spk"][5, 1, 3] = 1 - other["spk"][5, 1, 3]  # the other sample has none
    assert not compare(graph, "other", truth, other)[0].ok


def test_a_tie_in_a_layer_that_is_not_shown_explains_what_follows_it_only() -> None:
    from sparsecirc.cli._compare import compare

    graph, x = tied_graph()
    graph = replace(graph, outputs={"y": "fc2"})
    truth = interpret(graph, x, keep_values=True)
    for step, ok in ((4, False), (5, True), (12, True)):
        got = truth.outputs["y"].copy()
        got[step:, 0] += 0.5
        (row,) = compare(graph, "other", truth, {"y": got})
        assert (row.ok, row.ties) == (ok, int(ok)), step
    got[:, 1] += 0.5
    assert not compare(graph, "other", truth, {"y": got})[0].ok


def test_outputs_of_another_shape_or_name_fail() -> None:
    from sparsecirc.cli._compare import compare
    from sparsecirc.errors import MismatchError

    graph, x = tied_graph()
    truth = interpret(graph, x, keep_values=True)
    rows = compare(graph, "other", truth, {**truth.outputs, "spk": truth.outputs["spk"][:5]})
    assert {r.output: r.ok for r in rows} == {"spk": False, "y": True}
    with pytest.raises(MismatchError, match="other gives the outputs z, the network has spk, y"):
        compare(graph, "other", truth, {"z": truth.outputs["y"]})


def test_program_of_compiles_where_there_is_none(gru_file: Path) -> None:
    from sparsecirc.cli._command import ModelSpec
    from sparsecirc.cli._models import Loaded

    loaded = Loaded(ModelSpec("x"), "x", stored=replace(gru_graph(), meta={}))
    assert bench_command.program_of(loaded).packed_bytes > 0


SNN = """
import snntorch as snn
import torch
from torch import nn


class Loop(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc1 = nn.Linear(5, 12)
        self.lif1 = snn.RLeaky(beta=0.9, linear_features=12)

    def forward(self, x):
        spk, mem = self.lif1.init_rleaky()
        out = []
        for t in range(x.shape[0]):
            spk, mem = self.lif1(self.fc1(x[t]), spk, mem)
            out.append(spk)
        return torch.stack(out)


class Step(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc1 = nn.Linear(5, 12)
        self.lif1 = snn.Leaky(beta=0.9, init_hidden=True)
        self.fc2 = nn.Linear(12, 4)

    def forward(self, x):
        return self.fc2(self.lif1(self.fc1(x)))


def seeded(make):
    torch.manual_seed(3)
    return make()


def loop():
    return seeded(Loop)


def step():
    return seeded(Step)


def layers():
    return seeded(lambda: nn.Sequential(nn.Linear(5, 12), snn.Leaky(beta=0.9, init_hidden=True), nn.Linear(12, 4)))
"""


@pytest.mark.parametrize("name", ["loop", "step", "layers"])
def test_torch_models_of_a_step_and_of_a_sequence_are_run_as_they_are_meant(cli: Cli, name: str) -> None:
    pytest.importorskip("snntorch", reason="snntorch is not installed")
    Path("clisnn.py").write_text(SNN)
    assert cli("prune", f"clisnn:{name}", "-s", "0.4", "-o", "run").code == 0
    ran = cli("verify", "run", "--against", "interpret,torch", "--seq-len", "25", "--json")
    assert ran.code == 0, ran.err
    assert ran.json["rows"][0]["spikes"] > 10
    assert {r["against"] for r in ran.json["rows"]} == {"program", "packing", "torch"}


def test_measurements_are_kept_unless_told_otherwise(
    cli: Cli, gru_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SPARSECIRC_CACHE", str(tmp_path / "cache"))
    assert "from cache" not in cli("compile", gru_file, "--no-cache").out
    assert not (tmp_path / "cache").exists()
    assert "from cache" not in cli("compile", gru_file).out
    again = cli("compile", gru_file)
    assert "from cache" in again.out
    weights = cli("compile", gru_file, "--json").json["explain"]["weights"]
    assert all(w["cached"] for w in weights)
    assert not any(w["cached"] for w in cli("compile", gru_file, "--json", "--no-cache").json["explain"]["weights"])


@pytest.mark.filterwarnings("default::sparsecirc.errors.CacheWarning")
def test_a_damaged_cache_is_a_line_on_stderr(
    cli: Cli, gru_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SPARSECIRC_CACHE", str(tmp_path / "cache"))
    cli("compile", gru_file)
    for file in (tmp_path / "cache").rglob("*.json"):
        file.write_text("{")
    ran = cli("compile", gru_file)
    assert ran.code == 0
    assert "warning: measurements in" in ran.err
    assert "CacheWarning" not in ran.err
