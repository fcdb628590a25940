"""What compile chooses, what it refuses and with which reasons, and how it explains itself."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from native_support import FORMATS, ISAS

import sparsecirc
from sparsecirc import Graph, Pattern, Program, Target, interpret
from sparsecirc import _native as native_module
from sparsecirc._target import Isa
from sparsecirc.cells import GRU, LIF, LSTM
from sparsecirc.errors import UnsupportedError, UsageError
from sparsecirc.formats import BLOCK_SHAPES
from sparsecirc.ops import kernels_for
from sparsecirc.patterns import block
from sparsecirc.testing import TOLERANCE, classifier_graph, recurrent_graph, relative_difference


def network(density: float = 0.1) -> Graph:
    return classifier_graph(GRU, 32, 64, 5, density)


def test_every_weight_gets_the_fastest_measured_kernel() -> None:
    program = sparsecirc.compile(network())
    rows = {r.weight: r for r in program.explain().rows}
    assert list(rows) == ["rnn.ih", "rnn.hh", "fc.weight"]
    for name, row in rows.items():
        measured = {k: v for k, v in row.candidates.items() if not isinstance(v, str)}
        refused = {k: v for k, v in row.candidates.items() if isinstance(v, str)}
        assert set(measured) | set(refused) == set(kernels_for(program.isa))
        assert "dense" in measured
        assert all(math.isfinite(t) and t > 0 for t in measured.values())
        assert row.us == min([*measured.values(), *row.orders.values()])
        assert row.us == (row.orders[f"{row.format}, {row.order}"] if row.order else measured[row.format])
        assert program.packed[name].format == row.format
        assert row.nbytes == program.packed[name].nbytes
        assert row.kernel.startswith(f"sc_f32_{row.format}_")
        assert row.kernel.endswith(f"__{program.isa.value}")
    assert rows["rnn.hh"].nnz == round(0.1 * 192 * 64)
    assert rows["rnn.hh"].candidates["columns"] == "the inputs are not spikes"
    assert rows["fc.weight"].candidates["csr"] == "every connection is alive: an index would only add bytes"
    assert rows["fc.weight"].format == "dense"
    assert program.packed_bytes == sum(r.nbytes for r in rows.values())
    assert program.dense_bytes == 4 * (192 * 32 + 192 * 64 + 5 * 64)


def test_spiking_networks_stay_exact_unless_told_otherwise() -> None:
    graph = recurrent_graph(LIF, 16, 64, 0.2)
    by_default = sparsecirc.compile(graph)
    assert by_default.exact
    assert "exact weights were asked for" in by_default.choices["rnn.hh"].candidates["mantissa"]
    assert not isinstance(by_default.choices["rnn.hh"].candidates["columns"], str)  # spikes feed the recurrence
    assert by_default.choices["rnn.ih"].candidates["columns"] == "the inputs are not spikes"
    loose = sparsecirc.compile(graph, exact=False)
    assert not loose.exact
    assert not isinstance(loose.choices["rnn.hh"].candidates["mantissa"], str)
    gated = sparsecirc.compile(network(), exact=True)
    assert gated.exact
    assert isinstance(gated.choices["rnn.hh"].candidates["mantissa"], str)


def test_spikes_of_one_layer_feed_the_next_as_spikes() -> None:
    first = recurrent_graph(LIF, 8, 32, 0.5, recurrence=False)
    from sparsecirc.ir import Linear

    weight = np.ones((4, 32), np.float32)
    graph = Graph((*first.nodes, Linear("fc", ("rnn",), {"weight": weight})), {"y": "fc"}, dt=1e-3)
    assert not isinstance(sparsecirc.compile(graph).choices["fc.weight"].candidates["columns"], str)


@pytest.mark.parametrize("isa", ISAS, ids=lambda i: i.value)
@pytest.mark.parametrize("form", FORMATS)
def test_a_forced_kernel_is_used_or_refused_with_every_reason(form: str, isa: Isa) -> None:
    graph = recurrent_graph(GRU, 20, 33, 0.2)
    target = Target.cpu(isa)
    problem_reasons = dict.fromkeys(("columns", "columns16"), "the inputs are not spikes")
    problem_reasons["block_diagonal"] = "it is not block-diagonal: its groups of rows would store"
    problem_reasons |= {n: f"99 x 20 is not a whole number of {h}x{w}" for n, (h, w) in BLOCK_SHAPES.items()}
    if form in problem_reasons:
        with pytest.raises(UnsupportedError) as caught:
            sparsecirc.compile(graph, target, kernel=form)
        message = str(caught.value)
        assert message.startswith(f"kernel '{form}' cannot run weight 'rnn.ih' of shape (99, 20)")
        assert problem_reasons[form] in message
        for name in FORMATS:  # every kernel with its reason, or that it can
            assert f"{name}: " in message
        assert "csr: can run it" in message
        return
    program = sparsecirc.compile(graph, target, kernel=form)
    assert {p.format for p in program.packed.values()} == {form}
    row = program.explain().rows[0]
    assert row.reason == "asked for"
    assert row.us is None
    assert row.kernel == f"sc_f32_{form}_product__{isa.value}"
    x = np.random.default_rng(0).standard_normal((9, 2, 20)).astype(np.float32)
    assert relative_difference(program.run(x).y, interpret(program.graph, x).y) < TOLERANCE.outputs


def test_block_kernels_need_their_pattern() -> None:
    graph = recurrent_graph(GRU, 16, 64, 0.25, pattern=block(16, 1))
    program = sparsecirc.compile(graph, kernel="block16x1")
    assert {p.format for p in program.packed.values()} == {"block16x1"}
    with pytest.raises(UnsupportedError, match="the pattern is not made of 4x4 blocks"):
        sparsecirc.compile(graph, kernel="block4x4")
    sparsecirc.compile(recurrent_graph(GRU, 16, 64, 0.25, pattern=block(4, 4)), kernel="block4x4")


def test_kernels_may_be_forced_by_weight() -> None:
    program = sparsecirc.compile(network(), kernel={"rnn.*": "lookup", "*.hh": "csr"})
    assert {n: p.format for n, p in program.packed.items()} == {
        "rnn.ih": "lookup",
        "rnn.hh": "csr",
        "fc.weight": "dense",
    }
    assert program.choices["fc.weight"].reason != "asked for"


def test_one_name_means_every_pruned_weight() -> None:
    program = sparsecirc.compile(network(), kernel="csr")
    assert {n: p.format for n, p in program.packed.items()} == {"rnn.ih": "csr", "rnn.hh": "csr", "fc.weight": "dense"}


def test_kernel_names_that_mean_nothing_are_refused() -> None:
    with pytest.raises(UsageError, match=r"kernel 'ell' is unknown: expected one of dense, csr, .*columns"):
        sparsecirc.compile(network(), kernel="ell")
    with pytest.raises(UsageError, match=r"no weight matches 'lstm\.\*': the graph has rnn.ih, rnn.hh, fc.weight"):
        sparsecirc.compile(network(), kernel={"lstm.*": "csr"})
    with pytest.raises(UsageError, match="but no pruned weight"):
        sparsecirc.compile(network(1.0), kernel="csr")


def test_dense_networks_are_compiled_dense() -> None:
    program = sparsecirc.compile(recurrent_graph(LSTM, 7, 19, 1.0))
    assert {p.format for p in program.packed.values()} == {"dense"}
    x = np.random.default_rng(1).standard_normal((9, 2, 7)).astype(np.float32)
    assert relative_difference(program.run(x).y, interpret(program.graph, x).y) < TOLERANCE.outputs


def test_a_graph_without_matrices_compiles() -> None:
    graph = recurrent_graph(LIF, 6, 6, 1.0, input_product=False, recurrence=False)
    program = sparsecirc.compile(graph)
    assert program.packed == {}
    assert program.packed_bytes == 0
    x = np.random.default_rng(1).standard_normal((9, 2, 6)).astype(np.float32)
    assert np.array_equal(program.run(x).y, interpret(graph, x).y)


def test_targets_that_this_machine_lacks_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UnsupportedError, match="'neon' is not available here: this machine and build have scalar"):
        sparsecirc.compile(network(), Target.cpu("neon"))
    with pytest.raises(UnsupportedError, match="device 'cuda' has no kernels in this version"):
        sparsecirc.compile(network(), Target.cuda())
    with pytest.raises(UsageError, match="instruction set 'mmx' is unknown: expected one of scalar"):
        Target.cpu("mmx")
    with pytest.raises(UsageError, match="dtype 'f64' is unknown"):
        Target.cpu(dtype="f64")
    with pytest.raises(UsageError, match="threads is 0"):
        Target.cpu(threads=0)
    with pytest.raises(UsageError, match="memory_limit is 0"):
        Target(memory_limit=0)
    monkeypatch.setattr(native_module, "available_isas", lambda: (Isa.SCALAR,))
    assert sparsecirc.compile(network()).isa is Isa.SCALAR
    with pytest.raises(UnsupportedError, match="'avx2' is not available here: this machine and build have scalar"):
        sparsecirc.compile(network(), Target.cpu("avx2"))


def test_a_memory_limit_is_kept_or_refused(tmp_path: Path) -> None:
    roomy = Target(memory_limit=10_000_000)
    program = sparsecirc.compile(network(), roomy)
    assert program.packed_bytes <= 10_000_000
    program.save(tmp_path / "net.scp")
    assert Program.load(tmp_path / "net.scp").target == roomy
    with pytest.raises(UnsupportedError, match=r"packed weights take \d+ bytes, the target allows 1000: prune more"):
        sparsecirc.compile(network(), Target(memory_limit=1000))


def test_the_best_instruction_set_is_the_default() -> None:
    assert sparsecirc.compile(network()).isa is ISAS[-1]


def test_the_graph_of_a_program_holds_the_packed_weights() -> None:
    graph = network()
    exact = sparsecirc.compile(graph, kernel="lookup")
    rounded = sparsecirc.compile(graph, kernel="mantissa", exact=False)
    for before, same, moved in zip(graph.weights(), exact.graph.weights(), rounded.graph.weights(), strict=True):
        assert np.array_equal(before.value, same.value)
        live = before.value != 0
        change = np.abs(moved.value - before.value.astype(np.float64))[live] / np.abs(before.value[live])
        assert change.max() <= TOLERANCE.mantissa
        assert (change.max() > 0) == (before.name != "fc.weight")
        assert moved.pattern == before.pattern


def test_explanations_read_well() -> None:
    program = sparsecirc.compile(network(), kernel={"rnn.hh": "csr"})
    explanation = program.explain()
    lines = str(explanation).splitlines()
    assert " ".join(lines[0].split()) == "weight density kernel in batches us KiB dense KiB padding why"
    hh = next(line for line in lines if line.startswith("rnn.hh"))
    assert hh.split()[:5] == ["rnn.hh", "0.100", f"sc_f32_csr_gru__{program.isa.value}", "csr", "-"]
    assert hh.endswith("asked for")
    assert len({line.index("sc_f32") for line in lines[1:]}) == 1  # columns are aligned
    data = json.loads(explanation.to_json_text())
    assert data == json.loads(json.dumps(explanation.to_json()))
    assert [w["weight"] for w in data["weights"]] == ["rnn.ih", "rnn.hh", "fc.weight"]
    assert data["isa"] == program.isa.value
    assert data["numpy_nodes"] == []


def test_nodes_without_a_native_kernel_are_named() -> None:
    from sparsecirc.ir import Conv, Input

    conv = Conv("conv", ("x",), {"weight": np.ones((2, 3, 3), np.float32)}, over_time=True, padding=(1,))
    program = sparsecirc.compile(Graph((Input("x", shape=(3,)), conv), {"y": "conv"}))
    assert program.explain().numpy_nodes == ("conv",)
    assert str(program.explain()).endswith("in numpy, without a native kernel: conv")


def test_compiled_programs_agree_whatever_was_measured() -> None:
    x = np.random.default_rng(2).standard_normal((11, 3, 32)).astype(np.float32)
    for density in (0.02, 0.4, 1.0):
        program: Program = sparsecirc.compile(network(density))
        assert relative_difference(program.run(x).y, interpret(program.graph, x).y) < TOLERANCE.outputs


@pytest.mark.parametrize("isa", ISAS, ids=lambda i: i.value)
def test_bfloat16_is_admitted_when_it_is_asked_for(isa: Isa, tmp_path: Path) -> None:
    graph = classifier_graph(GRU, 20, 67, 5, 0.2)
    x = np.random.default_rng(0).standard_normal((30, 3, 20)).astype(np.float32)
    target = Target.cpu(isa, dtype="bf16")
    program = sparsecirc.compile(graph, target, kernel={"rnn.*": "lookup_bf16"})
    assert program.choices["rnn.hh"].kernel == f"sc_bf16_lookup_bf16_gru__{isa.value}"
    assert not program.exact
    report = sparsecirc.verify(program, x, reference=graph).check()
    assert report.rounding is not None
    assert 2.0**-12 < report.rounding <= 2.0**-8
    assert relative_difference(program.run(x).y, interpret(graph, x).y) < 1e-2
    program.save(tmp_path / "net.scp")
    assert np.array_equal(Program.load(tmp_path / "net.scp").run(x).y, program.run(x).y)
    free = sparsecirc.compile(graph, target)
    assert "lookup_bf16" in free.choices["rnn.hh"].candidates
    assert free.choices["rnn.ih"].kernel.startswith(("sc_f32_", "sc_bf16_"))
    with pytest.raises(UnsupportedError, match="it rounds them to bfloat16"):
        sparsecirc.compile(graph, target, kernel={"rnn.hh": "lookup_bf16"}, exact=True)
    with pytest.raises(UsageError, match="kernel 'lookup_bf16' is unknown"):
        sparsecirc.compile(graph, Target.cpu(isa), kernel={"rnn.hh": "lookup_bf16"})


def test_groups_of_rows_are_found_by_compile() -> None:
    rng = np.random.default_rng(1)
    mask = np.concatenate([rng.permutation(60)[:, None] % 3 == np.arange(60) % 3 for _ in range(3)])
    graph = recurrent_graph(GRU, 12, 60, 1.0)
    graph = graph.replace_nodes(graph.recurrent[0].with_patterns(hh=Pattern.from_mask(mask)))
    program = sparsecirc.compile(graph, kernel={"rnn.hh": "block_diagonal"})
    assert program.packed["rnn.hh"].order is not None
    assert program.packed["rnn.hh"].padding == pytest.approx(64 / 60)  # rows of all gates, 60 to a group
    x = np.random.default_rng(0).standard_normal((40, 2, 12)).astype(np.float32)
    sparsecirc.verify(program, x).check()
    assert isinstance(sparsecirc.compile(graph, cache=None).choices["rnn.hh"].candidates["block_diagonal"], float)
