"""Native kernels against float64: products, functions, whole layers, and everything a layer must refuse."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import pytest
from native_support import FLOATS, FORMATS, ISAS, packed_program, reference

from sparsecirc import Pattern, interpret
from sparsecirc._native import kernels
from sparsecirc._target import Isa
from sparsecirc.cells import CELLS
from sparsecirc.errors import UnsupportedError
from sparsecirc.formats import BLOCK_SHAPES, COLUMNS, Tile, every_format, formats_for, lookup, mantissa
from sparsecirc.ir import Elementwise, Graph, Input, Linear
from sparsecirc.testing import (
    PROBLEMS,
    TOLERANCE,
    classifier_graph,
    late_state,
    random_pattern,
    recurrent_graph,
    relative_difference,
    wrong_weight,
)

EVERY_ISA = pytest.mark.parametrize("isa", ISAS, ids=lambda i: i.value)
SHAPES = [(1, 1), (1, 70), (17, 5), (16, 64), (33, 65), (50, 128), (129, 36), (0, 4), (4, 0), (0, 0)]


# Products ------------------------------------------------------------------------------------------------------------


@EVERY_ISA
@pytest.mark.parametrize("form", FLOATS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_product_of_every_format(isa: Isa, form: str, shape: tuple[int, int]) -> None:
    rows, cols = shape
    rng = np.random.default_rng(3)
    for density in (0.0, 0.15, 0.7, 1.0):
        pattern = random_pattern(rows, cols, density, 5)
        weight = rng.standard_normal(shape).astype(np.float32)
        chosen = every_format(isa)[form]
        try:
            packed = chosen.pack(pattern, weight)
        except UnsupportedError:
            assert rows % 16 if form == "columns16" else cols % BLOCK_SHAPES[form][1]
            continue
        for bias in (None, rng.standard_normal(rows).astype(np.float32)):
            for n in (0, 1, 4, 7, 90):
                x = rng.standard_normal((n, cols)).astype(np.float32)
                x[:, ::3] = 0  # inactive inputs, which event columns skip
                y = np.full((n, rows), np.nan, np.float32)
                kernels.product(packed.matrix, isa.value, x, bias, y)
                loop = chosen.unpack(packed).astype(np.float64)
                want = x @ loop.T + (0 if bias is None else bias)
                scale = np.abs(x) @ np.abs(loop).T + (0 if bias is None else np.abs(bias))
                assert np.all(np.abs(y - want) <= TOLERANCE.product * scale)


@EVERY_ISA
@pytest.mark.parametrize("form", [f for f in kernels.formats() if kernels.has_batched("scalar", f)])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_batched_product(isa: Isa, form: str, shape: tuple[int, int]) -> None:
    rows, cols = shape
    if form in BLOCK_SHAPES and cols % BLOCK_SHAPES[form][1]:
        pytest.skip(f"{form} needs a multiple of {BLOCK_SHAPES[form][1]} columns")
    rng = np.random.default_rng(4)
    lanes = kernels.vector(isa.value)
    for density in (0.0, 0.2, 1.0):
        pattern = random_pattern(rows, cols, density, 6)
        chosen = every_format(isa)[form]
        packed = chosen.pack(pattern, rng.standard_normal(shape).astype(np.float32))
        for batch in (0, lanes, 2 * lanes, 5 * lanes):
            x = rng.standard_normal((cols, batch)).astype(np.float32)
            bias = rng.standard_normal(rows).astype(np.float32)
            y = np.full((rows, batch), np.nan, np.float32)
            kernels.product_batched(packed.matrix, isa.value, x, bias, y)
            loop = chosen.unpack(packed).astype(np.float64)
            scale = np.abs(loop) @ np.abs(x) + np.abs(bias)[:, None]
            assert np.all(np.abs(y - (loop @ x + bias[:, None])) <= TOLERANCE.product * scale)


@EVERY_ISA
@pytest.mark.parametrize("form", FLOATS)
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_non_finite_inputs_reach_the_rows_that_read_them(isa: Isa, form: str, bad: float) -> None:
    pattern = random_pattern(48, 68, 0.2, 1)
    weight = np.where(pattern.mask(), np.float32(0.5), np.float32(0))
    packed = every_format(isa)[form].pack(pattern, weight)
    for column in (0, 3, 31, 32, 63, 64, 67):
        x = np.ones((1, 68), np.float32)
        x[0, column] = bad
        y = np.zeros((1, 48), np.float32)
        kernels.product(packed.matrix, isa.value, x, None, y)
        readers = pattern.mask()[:, column]
        assert readers.any()
        assert not np.any(np.isfinite(y[0, readers]))


def test_a_batch_that_is_no_multiple_of_the_vector_is_refused() -> None:
    packed = formats_for(Isa.SCALAR)["csr"].pack(Pattern.full(4, 4), np.ones((4, 4), np.float32))
    with pytest.raises(ValueError, match="a multiple of the vector length"):
        kernels.product_batched(packed.matrix, "scalar", np.ones((4, 3), np.float32), None, np.ones((4, 3), np.float32))
    tiled = formats_for(Isa.SCALAR)["lookup"].pack(Pattern.full(4, 4), np.ones((4, 4), np.float32))
    with pytest.raises(ValueError, match="'lookup' has no batched kernel"):
        kernels.product_batched(tiled.matrix, "scalar", np.ones((4, 4), np.float32), None, np.ones((4, 4), np.float32))


# Functions -----------------------------------------------------------------------------------------------------------

# Exact function, the inputs between which the bound in units of the last place holds, and the bound. Outside, exp stays
# at its value at the end, and so does sigmoid below; tanh holds everywhere.
FUNCTIONS: dict[str, tuple[Callable[[np.ndarray], np.ndarray], float, float, float]] = {
    "exp": (np.exp, -87, 88, TOLERANCE.exp_ulp),
    "tanh": (np.tanh, -np.inf, np.inf, TOLERANCE.tanh_ulp),
    "sigmoid": (lambda x: 1 / (1 + np.exp(-x)), -87, np.inf, TOLERANCE.sigmoid_ulp),
}
EXPONENTS = 255  # of a finite float; from bits 0 on: denormal numbers, then 2^-126, ...


def function_error(name: str, isa: Isa, bits: np.ndarray) -> float:
    """Largest error in units of the last place over the floats with these bits and their negatives."""
    exact, low, high, _ = FUNCTIONS[name]
    x = np.concatenate([bits, bits | np.uint32(1 << 31)]).view(np.float32)
    x = x[(x >= low) & (x <= high)]
    y = np.empty_like(x)
    kernels.pointwise(name, isa.value, x, y)
    want = exact(x.astype(np.float64))
    ulp = np.spacing(np.abs(want).astype(np.float32)).astype(np.float64)
    return float(np.max(np.abs(y - want) / ulp, initial=0.0))


@EVERY_ISA
@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_stay_within_their_ulps(isa: Isa, name: str) -> None:
    """Over the whole range: of every exponent, denormal numbers too, the ends and 8000 between."""
    bits = np.concatenate([
        (np.uint32(e) << np.uint32(23)) | np.linspace(0, 2**23 - 1, 8000).astype(np.uint32) for e in range(EXPONENTS)
    ])  # fmt: skip
    assert function_error(name, isa, bits) <= FUNCTIONS[name][3]


@pytest.mark.slow
@EVERY_ISA
@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_stay_within_their_ulps_at_every_float(isa: Isa, name: str) -> None:
    """Each float from 2^-30 to 2^8: below, all three are as good as linear, and above as good as constant."""
    for first in range((127 - 30) << 23, (127 + 8) << 23, 1 << 22):
        assert function_error(name, isa, np.arange(first, first + (1 << 22), dtype=np.uint32)) <= FUNCTIONS[name][3]


@EVERY_ISA
def test_functions_of_the_smallest_numbers(isa: Isa) -> None:
    tiny = np.array([0.0, 1e-45, 1e-40, 1.1754944e-38, 1e-30], np.float32)
    x = np.concatenate([tiny, -tiny])
    y = np.empty_like(x)
    kernels.pointwise("tanh", isa.value, x, y)
    assert np.array_equal(y, x)
    for name, value in (("exp", 1.0), ("sigmoid", 0.5)):
        kernels.pointwise(name, isa.value, x, y)
        assert y.tolist() == [value] * 10


@EVERY_ISA
def test_functions_at_the_ends(isa: Isa) -> None:
    x = np.array([-np.inf, -1e30, -200, 0, 200, 1e30, np.inf, np.nan], np.float32)
    y = np.empty_like(x)
    kernels.pointwise("tanh", isa.value, x, y)
    assert y[:7].tolist() == [-1, -1, -1, 0, 1, 1, 1]
    assert np.isnan(y[7])
    kernels.pointwise("sigmoid", isa.value, x, y)
    assert np.all(y[:3] < 1e-37)
    assert y[3:7].tolist() == [0.5, 1, 1, 1]
    assert np.isnan(y[7])
    kernels.pointwise("exp", isa.value, x, y)
    ends = np.exp(np.array([-87, 88], np.float64))
    assert y[:7] == pytest.approx([ends[0]] * 3 + [1] + [ends[1]] * 3, rel=2e-7)
    assert np.isnan(y[7])
    with pytest.raises(ValueError, match="unknown function 'erf'"):
        kernels.pointwise("erf", isa.value, x, y)


# Layers --------------------------------------------------------------------------------------------------------------


@EVERY_ISA
@pytest.mark.parametrize("name", PROBLEMS)
def test_layer_agrees_with_the_interpreter(name: str, isa: Isa) -> None:
    """Every port, every step and the final states, from a state that is not zero, in every format."""
    graph, x, state, exact = reference(name)
    problem = PROBLEMS[name]
    for form in FORMATS:
        program = packed_program(graph, isa, form)
        want = exact if program.exact else interpret(program.graph, x, state, lengths=problem.valid())
        got = program.run(x, state, lengths=problem.valid())
        assert got.outputs.keys() == want.outputs.keys()
        assert got.state.keys() == want.state.keys()
        for key, value in want.outputs.items():
            assert relative_difference(got.outputs[key], value) <= TOLERANCE.outputs, (form, key)
        for key, value in want.state.items():
            assert relative_difference(got.state[key], value) <= TOLERANCE.outputs, (form, key)


@EVERY_ISA
@pytest.mark.parametrize("cell", CELLS.values(), ids=lambda c: c.name)
def test_drift_over_a_thousand_steps(cell, isa: Isa) -> None:
    graph = recurrent_graph(cell, 9, 40, 0.3, seed=2)
    x = np.random.default_rng(0).standard_normal((1000, 2, 9)).astype(np.float32)
    want = interpret(graph, x)
    got = packed_program(graph, isa, "lookup").run(x)
    for key, value in want.outputs.items():
        assert relative_difference(got.outputs[key][-50:], value[-50:]) <= TOLERANCE.outputs


@EVERY_ISA
@pytest.mark.parametrize("batch", [1, 9])
@pytest.mark.parametrize("cell", CELLS.values(), ids=lambda c: c.name)
def test_a_sequence_cut_in_two_is_the_whole(cell, batch: int, isa: Isa) -> None:
    graph = recurrent_graph(cell, 7, 33, 0.4, seed=8)
    x = np.random.default_rng(1).standard_normal((63, batch, 7)).astype(np.float32)
    program = packed_program(graph, isa, "csr")
    whole = program.run(x)
    for cut in (0, 1, 32, 40, 63):
        first = program.run(x[:cut])
        second = program.run(x[cut:], first.state)
        for key, value in whole.outputs.items():
            assert np.array_equal(np.concatenate([first.outputs[key], second.outputs[key]]), value)
        for key, value in whole.state.items():
            assert np.array_equal(second.state[key], value)


@EVERY_ISA
@pytest.mark.parametrize("cell", CELLS.values(), ids=lambda c: c.name)
def test_step_by_step_is_the_whole(cell, isa: Isa) -> None:
    graph = classifier_graph(cell, 6, 20, 4, 0.5, seed=1)
    x = np.random.default_rng(2).standard_normal((20, 3, 6)).astype(np.float32)
    program = packed_program(graph, isa, "lookup")
    whole = program.run(x)
    state = None
    for t in range(len(x)):
        result = program.step(x[t], state)
        state = result.state
    assert relative_difference(result.y, whole.y) <= 1e-6
    for key, value in whole.state.items():
        assert np.array_equal(state[key], value), key


@EVERY_ISA
@pytest.mark.parametrize("cell", CELLS.values(), ids=lambda c: c.name)
def test_permuting_units_permutes_outputs(cell, isa: Isa) -> None:
    graph = recurrent_graph(cell, 6, 37, 0.4, seed=3)
    layer = graph.recurrent[0]
    order = np.random.default_rng(5).permutation(37)
    rows = np.concatenate([g * 37 + order for g in range(cell.n_gates)])
    params = {k: v[order if k in cell.vectors else rows] for k, v in layer.params.items()}
    params["hh"] = params["hh"][:, order]
    patterns = {"ih": layer.patterns["ih"].permute(rows), "hh": layer.patterns["hh"].permute(rows, order)}
    moved = graph.replace_nodes(type(layer)(**{**vars(layer), "params": params, "patterns": patterns}))
    x = np.random.default_rng(6).standard_normal((30, 2, 6)).astype(np.float32)
    for form in FORMATS:
        plain = packed_program(graph, isa, form)
        want = interpret(plain.graph, x)
        got = packed_program(moved, isa, form).run(x)
        for key, value in want.outputs.items():
            assert relative_difference(got.outputs[key], value[..., order]) <= TOLERANCE.outputs


@EVERY_ISA
def test_samples_of_a_batch_do_not_meet(isa: Isa) -> None:
    for cell in CELLS.values():
        graph = recurrent_graph(cell, 5, 21, 0.5, seed=4)
        x = np.random.default_rng(7).standard_normal((25, 11, 5)).astype(np.float32)
        program = packed_program(graph, isa, "csr")
        together = program.run(x)
        for b in (0, 7, 10):
            alone = program.run(x[:, b : b + 1])
            for key, value in together.outputs.items():
                assert relative_difference(alone.outputs[key][:, 0], value[:, b]) <= TOLERANCE.outputs


def every_kind_of_input(x: np.ndarray) -> list[np.ndarray]:
    wide = np.zeros((*x.shape[:2], 2 * x.shape[2]), np.float32)
    wide[..., ::2] = x
    frozen = x.copy()
    frozen.setflags(write=False)
    return [
        wide[..., ::2],
        np.asfortranarray(x),
        x[::-1].copy()[::-1],
        x.astype(np.float64),
        x.astype(">f4"),
        frozen,
    ]


@EVERY_ISA
@pytest.mark.parametrize("batch", [2, 9])
def test_any_array_layout_and_type(isa: Isa, batch: int) -> None:
    graph = classifier_graph(CELLS["lstm"], 6, 20, 3, 0.4)
    x = np.random.default_rng(8).integers(-3, 4, (12, batch, 6)).astype(np.float32)
    program = packed_program(graph, isa, "lookup")
    want = program.run(x).y
    for same in [*every_kind_of_input(x), x.astype(np.int8), x.astype(np.int64), x.tolist()]:
        assert np.array_equal(program.run(same).y, want)


@EVERY_ISA
@pytest.mark.parametrize("cell", CELLS.values(), ids=lambda c: c.name)
@pytest.mark.parametrize("batch", [2, 9])
def test_arrays_of_the_user_stay_his_own(cell, batch: int, isa: Isa) -> None:
    graph = recurrent_graph(cell, 6, 20, 0.4)
    program = packed_program(graph, isa, "csr")
    x = np.random.default_rng(9).standard_normal((5, batch, 6)).astype(np.float32)
    before = x.copy()
    first = program.run(x)
    kept_outputs = {k: v.copy() for k, v in first.outputs.items()}
    kept_state = {k: v.copy() for k, v in first.state.items()}
    second = program.run(x, first.state)
    assert np.array_equal(x, before)
    for key, value in kept_outputs.items():
        assert np.array_equal(first.outputs[key], value)
    for key, value in kept_state.items():
        assert np.array_equal(first.state[key], value)
    mine = [x, *first.outputs.values(), *first.state.values()]
    for array in (*second.outputs.values(), *second.state.values()):
        assert not any(np.shares_memory(array, other) for other in mine)


@EVERY_ISA
@pytest.mark.parametrize("cell", CELLS.values(), ids=lambda c: c.name)
@pytest.mark.parametrize("batch", [2, 9])
def test_non_finite_samples_do_not_leave_their_row(cell, batch: int, isa: Isa) -> None:
    graph = recurrent_graph(cell, 6, 20, 0.4)
    clean = np.random.default_rng(10).standard_normal((8, batch, 6)).astype(np.float32)
    program = packed_program(graph, isa, "lookup")
    want = program.run(clean)
    for bad in (np.nan, np.inf, -np.inf):
        x = clean.copy()
        x[3, 0] = bad
        got = program.run(x)
        for key, value in want.outputs.items():
            assert np.array_equal(got.outputs[key][:3], value[:3])
            assert np.array_equal(got.outputs[key][:, 1:], value[:, 1:])
    continuous = cell.states[-1]  # the first state of spiking cells is 0 or 1 whatever the membrane is
    x = clean.copy()
    x[3, 0] = np.nan
    assert np.any(np.isnan(program.run(x).outputs[continuous][3:, 0]))


def test_wrong_kernels_are_seen() -> None:
    """The comparison of this file fails where it must."""
    name = "gru-64-d0.1-b3-t63-ragged"
    graph, x, state, want = reference(name)
    good = packed_program(graph, Isa.SCALAR, "csr")
    for bad in (wrong_weight(good), wrong_weight(good, "rnn.hh"), late_state(good)):
        got = bad.run(x, state, lengths=PROBLEMS[name].valid())
        assert relative_difference(got.y, want.y) > TOLERANCE.outputs


@EVERY_ISA
@pytest.mark.parametrize("cell", [c for c in CELLS.values() if c.vectors], ids=lambda c: c.name)
def test_vectors_of_an_image_may_be_flat_or_broadcast(cell, isa: Isa) -> None:
    graph = recurrent_graph(
        cell, 24, 24, 1.0, input_product=False, recurrence=True, one_to_one=True, bias=False, feature_shape=(2, 3, 4)
    )
    rng = np.random.default_rng(3)
    x = rng.standard_normal((20, 2, 2, 3, 4)).astype(np.float32)
    layer = graph.recurrent[0]
    for shape in ((2, 3, 4), (2, 1, 1), (3, 1), (1,)):
        wide = {k: rng.uniform(0.5, 0.9, shape).astype(np.float32) for k in (*cell.vectors, "bias_ih", "hh_diag")}
        changed = graph.replace_nodes(layer.with_params(**wide))
        want, got = interpret(changed, x), packed_program(changed, isa, "dense").run(x)
        for key, value in want.outputs.items():
            assert relative_difference(got.outputs[key], value) <= TOLERANCE.outputs
    flat = graph.replace_nodes(layer.with_params(beta=rng.uniform(0.5, 0.9, 24).astype(np.float32)))
    want, got = interpret(flat, x.astype(np.float32)), packed_program(flat, isa, "dense").run(x)
    assert relative_difference(got.outputs["mem"], want.outputs["mem"]) <= TOLERANCE.outputs


@EVERY_ISA
@pytest.mark.parametrize(("inputs", "outputs"), [(0, 3), (3, 0), (0, 0)])
def test_layers_without_features(inputs: int, outputs: int, isa: Isa) -> None:
    nodes = (Input("x", shape=(inputs,)), Linear("y", ("x",), {"weight": np.ones((outputs, inputs), np.float32)}))
    graph = Graph(nodes, {"y": "y"})
    x = np.ones((4, 2, inputs), np.float32)
    assert np.array_equal(packed_program(graph, isa, "dense").run(x).y, interpret(graph, x).y)
    for cell in CELLS.values():
        empty = recurrent_graph(cell, inputs, outputs, 1.0)
        assert np.array_equal(packed_program(empty, isa, "csr").run(x).y.shape, interpret(empty, x).y.shape)


# What is refused -----------------------------------------------------------------------------------------------------


def arrays_of(form: str, isa: Isa = Isa.SCALAR) -> dict[str, object]:
    pattern = random_pattern(32, 64, 0.3, 2)
    p = every_format(isa)[form].pack(pattern, np.ones((32, 64), np.float32))
    names = ("values", "ptr", "index32", "index16", "index8", "base", "words", "words8", "scale", "correction")
    arrays = {name: getattr(p, name) for name in names}
    tile = {"tile_rows": p.tile[0], "tile_cols": p.tile[1], "tile_step": p.step, "tile_depth": p.depth}
    sizes = {"rows": 32, "cols": 64, **tile}
    return {"format": form, **sizes, **{k: None if v is None else v.copy() for k, v in arrays.items()}}


def changed(array: np.ndarray, at: int, to: int) -> np.ndarray:
    array[at] = to
    return array


BLOCK = " ".join(BLOCK_SHAPES)
WIDE, NARROW = f"csr {BLOCK} columns16 block_diagonal", "columns tiled_csr"
LOOKUPS = "lookup mantissa lookup_bf16 lookup16 lookup8"
INDEXED = "lookup lookup_bf16 lookup8"
PTR = f"{WIDE} {NARROW} {LOOKUPS}"
INDEX = f"{WIDE} {NARROW}"
ALL = " ".join((*FORMATS, "tiled_csr"))
DAMAGE: dict[str, tuple[str, Callable[[dict], dict]]] = {
    "fewer values": (ALL, lambda a: {"values": a["values"][:-1]}),
    "more values": (ALL, lambda a: {"values": np.append(a["values"], np.float32(1))}),
    "no values": (ALL, lambda a: {"values": a["values"][:0]}),
    "negative rows": (ALL, lambda a: {"rows": -1}),
    "more rows": (f"dense csr {BLOCK} block_diagonal tiled_csr {LOOKUPS}", lambda a: {"rows": 80}),
    "fewer rows": (f"dense columns columns16 csr {BLOCK} block_diagonal {LOOKUPS}", lambda a: {"rows": 16}),
    "fewer columns": (f"dense {INDEX}", lambda a: {"cols": 16}),
    "more columns": ("dense columns columns16", lambda a: {"cols": 128}),
    "huge": (ALL, lambda a: {"rows": 2**40, "cols": 2**40}),
    "pointers missing": (PTR, lambda a: {"ptr": None}),
    "one pointer less": (PTR, lambda a: {"ptr": a["ptr"][:-1]}),
    "first pointer": (PTR, lambda a: {"ptr": changed(a["ptr"], 0, 1)}),
    "negative pointer": (PTR, lambda a: {"ptr": changed(a["ptr"], 1, -1)}),
    "pointer past the end": (PTR, lambda a: {"ptr": changed(a["ptr"], 1, 2**31 - 1)}),
    "last pointer": (PTR, lambda a: {"ptr": changed(a["ptr"], -1, a["ptr"][-1] + 1)}),
    "indices missing": (INDEX, lambda a: {"index32": None, "index16": None}),
    "one index less": (WIDE, lambda a: {"index32": a["index32"][:-1]}),
    "negative index": (WIDE, lambda a: {"index32": changed(a["index32"], 3, -1)}),
    "index past the end": (WIDE, lambda a: {"index32": changed(a["index32"], 3, 64)}),
    "one narrow index less": (NARROW, lambda a: {"index16": a["index16"][:-1]}),
    "narrow index past the end": (NARROW, lambda a: {"index16": changed(a["index16"], 3, 64)}),
    "pointers of columns missing, indices there": ("columns", lambda a: {"ptr": None}),
    "no tile of rows": ("tiled_csr", lambda a: {"tile_rows": 0}),
    "no tile of columns": ("tiled_csr", lambda a: {"tile_cols": 0}),
    "tile of too many columns": ("tiled_csr", lambda a: {"tile_cols": 1 << 17}),
    "rows that strips do not divide": ("columns16", lambda a: {"rows": 40}),
    "block past the last column": ("block4x4 block8x4", lambda a: {"index32": changed(a["index32"], 3, 61)}),
    "columns that blocks do not divide": ("block4x4 block8x4", lambda a: {"cols": 66}),
    "byte indices missing": (INDEXED, lambda a: {"index8": None}),
    "one byte index less": (INDEXED, lambda a: {"index8": a["index8"][:-1]}),
    "byte index past the window": (INDEXED, lambda a: {"index8": changed(a["index8"], 3, 200)}),
    "indices of another width": (
        INDEXED,
        lambda a: {"index8": None, "index32": a["index8"].astype("i4")},
    ),
    "strips missing": ("block_diagonal", lambda a: {"base": None}),
    "one strip less": ("block_diagonal", lambda a: {"base": a["base"][:-1]}),
    "a strip without rows": ("block_diagonal", lambda a: {"base": changed(a["base"], 1, 0)}),
    "a strip that ends too early": ("block_diagonal", lambda a: {"base": changed(a["base"], -1, 31)}),
    "windows missing": (LOOKUPS, lambda a: {"base": None}),
    "one window less": (LOOKUPS, lambda a: {"base": a["base"][:-1]}),
    "window past the end": (LOOKUPS, lambda a: {"base": changed(a["base"], 0, 5)}),
    "window far past the end": (LOOKUPS, lambda a: {"base": changed(a["base"], -1, 65535)}),
    "no rows in a strip": (LOOKUPS, lambda a: {"tile_rows": 0}),
    "strip too high": (LOOKUPS, lambda a: {"tile_rows": 17}),
    "window of 3 columns": (LOOKUPS, lambda a: {"tile_cols": 3}),
    "window wider than the padding of x": (LOOKUPS, lambda a: {"tile_cols": 256}),
    "no step": (LOOKUPS, lambda a: {"tile_step": 0}),
    "no depth": (LOOKUPS, lambda a: {"tile_depth": 0}),
    "deeper": (LOOKUPS, lambda a: {"tile_depth": a["tile_depth"] + 1}),
    "fewer words": ("lookup_bf16 lookup16 dense16", lambda a: {"words": a["words"][:-1]}),
    "words missing": ("lookup_bf16 lookup16 dense16", lambda a: {"words": None}),
    "fewer bytes": ("lookup8 dense8", lambda a: {"words8": a["words8"][:-1]}),
    "bytes missing": ("lookup8 dense8", lambda a: {"words8": None}),
    "scales missing": ("lookup16 lookup8 dense16 dense8", lambda a: {"scale": None}),
    "fewer scales": ("lookup16 lookup8 dense16 dense8", lambda a: {"scale": a["scale"][:-1]}),
    "corrections missing": ("lookup8 dense8", lambda a: {"correction": None}),
    "another correction": ("lookup8 dense8", lambda a: {"correction": changed(a["correction"], 7, 2**31 - 1)}),
    "unknown format": ("dense", lambda a: {"format": "coo"}),
}


@pytest.mark.parametrize(("form", "damage"), [(f, d) for d, (forms, _) in DAMAGE.items() for f in forms.split()])
def test_a_matrix_that_would_be_read_outside_its_arrays_is_refused(form: str, damage: str) -> None:
    arrays = arrays_of(form)
    kernels.Matrix(**arrays)  # unharmed it is accepted
    with pytest.raises(ValueError, match=r"packed .* matrix of|unknown format 'coo'"):
        kernels.Matrix(**{**arrays, **DAMAGE[damage][1](arrays)})


def test_a_strip_of_more_than_16_rows_is_refused() -> None:
    packed = every_format(Isa.SCALAR)["block_diagonal"].pack(Pattern.full(32, 4), np.ones((32, 4), np.float32))
    arrays = {"ptr": packed.ptr, "index32": packed.index32}
    assert packed.base.tolist() == [0, 16, 32]
    kernels.Matrix("block_diagonal", 32, 4, packed.values, **arrays, base=packed.base)
    with pytest.raises(ValueError, match="a strip has no row or more than 16"):
        kernels.Matrix("block_diagonal", 32, 4, packed.values, **arrays, base=np.array([0, 17, 32], np.uint16))


def test_a_matrix_keeps_its_own_copy() -> None:
    arrays = arrays_of("csr")
    matrix = kernels.Matrix(**arrays)
    x, y, z = np.ones((1, 64), np.float32), np.zeros((1, 32), np.float32), np.zeros((1, 32), np.float32)
    kernels.product(matrix, "scalar", x, None, y)
    arrays["index32"][:] = 2**30
    arrays["values"][:] = np.nan
    kernels.product(matrix, "scalar", x, None, z)
    assert np.array_equal(y, z)


@pytest.mark.parametrize("isa", [i for i in ISAS if i is not Isa.SCALAR], ids=lambda i: i.value)
@pytest.mark.parametrize("form", ["lookup", "mantissa"])
def test_windows_of_another_instruction_set_are_refused(isa: Isa, form: str) -> None:
    chosen = {"lookup": lookup, "mantissa": mantissa}[form](Tile(16, 16, 16, 2))
    packed = chosen.pack(Pattern.full(16, 16), np.ones((16, 16), np.float32)).matrix
    assert packed.unsupported("scalar") is None
    assert f"{isa.value} reads windows of" in packed.unsupported(isa.value)
    with pytest.raises(ValueError, match="reads windows of"):
        kernels.product(packed, isa.value, np.ones((1, 16), np.float32), None, np.ones((1, 16), np.float32))


def matrix(rows: int, cols: int) -> kernels.Matrix:
    return formats_for(Isa.SCALAR)["dense"].pack(Pattern.full(rows, cols), np.ones((rows, cols), np.float32)).matrix


ONES = np.ones(4, np.float32)
BAD_LAYERS: dict[str, tuple[dict, str]] = {
    "cell": ({"cell": "gated"}, "unknown cell 'gated'"),
    "negative": ({"units": -1}, "must not be negative"),
    "ih": ({"ih": matrix(11, 3)}, "ih must be"),
    "in": ({"in_features": 4}, "ih must be"),
    "no ih": ({"ih": None}, "without ih the input must have"),
    "hh": ({"hh": matrix(12, 5)}, "hh must be"),
    "hr of a gru": ({"cell": "gru", "ih": matrix(12, 3), "hr": matrix(2, 4)}, "hr must be|hh must be"),
    "both": ({"hh_diag": np.ones(4, np.float32)}, "hh or hh_diag, not both"),
    "bias without recurrence": ({"hh": None, "bias_hh": np.ones(12, np.float32)}, "bias_hh needs hh"),
    "bias": ({"bias_ih": np.ones(5, np.float32)}, "bias_ih needs 12 entries, got 5"),
    "reset": ({"reset": "soft"}, "unknown reset 'soft'"),
    "diagonal of a gru": (
        {"hh": None, "hh_diag": np.ones(12, np.float32)},
        "hh_diag is for cells with a decay per unit",
    ),
    "no threshold": ({"cell": "lif", "ih": matrix(4, 3), "hh": None}, "needs beta and theta"),
    "no decay": ({"cell": "li", "ih": matrix(4, 3), "hh": None}, "a leaky integrator needs beta"),
    "no strength": (
        {"cell": "alif", "ih": matrix(4, 3), "hh": None, **dict.fromkeys(("beta", "theta", "alpha"), ONES)},
        "needs alpha and strength",
    ),
}


@pytest.mark.parametrize("what", BAD_LAYERS)
def test_a_layer_that_does_not_fit_is_refused(what: str) -> None:
    good = {"cell": "gru", "units": 4, "in_features": 3, "ih": matrix(12, 3), "hh": matrix(12, 4)}
    kernels.Layer(**good)
    change, reason = BAD_LAYERS[what]
    with pytest.raises(ValueError, match=reason):
        kernels.Layer(**{**good, **change})


F32 = np.float32
GOOD_RUN = {"x": np.ones((5, 2, 3), F32), "lengths": None, "state": [np.zeros((2, 4), F32)], "out": [None]}
BAD_RUNS: dict[str, tuple[dict, type[Exception], str]] = {
    "isa": ({"isa": "sse9"}, ValueError, "'sse9' is not built or this processor lacks it"),
    "rank": ({"x": np.ones((5, 3), F32)}, ValueError, "x must be"),
    "features": ({"x": np.ones((5, 2, 4), F32)}, ValueError, "x must be"),
    "no state": ({"state": []}, ValueError, "one state"),
    "state size": ({"state": [np.zeros((2, 5), F32)]}, ValueError, "a state must be"),
    "output size": ({"out": [np.zeros((4, 2, 4), F32)]}, ValueError, "an output must be"),
    "lengths size": ({"lengths": np.array([1])}, ValueError, "one length per sample"),
    "negative length": ({"lengths": np.array([1, -1])}, ValueError, "within 0 .. steps"),
    "long length": ({"lengths": np.array([1, 6])}, ValueError, "within 0 .. steps"),
    "state of another type": ({"state": [np.zeros((2, 4))]}, TypeError, "incompatible"),
    "output of another type": ({"out": [np.zeros((5, 2, 4))]}, TypeError, "incompatible"),
    "output with gaps": ({"out": [np.zeros((5, 2, 8), F32)[..., ::2]]}, TypeError, "incompatible"),
}


@pytest.mark.parametrize("what", BAD_RUNS)
def test_a_run_that_does_not_fit_is_refused(what: str) -> None:
    layer = kernels.Layer("gru", 4, 3, ih=matrix(12, 3), hh=matrix(12, 4))
    layer.run("scalar", **GOOD_RUN)
    change, error, reason = BAD_RUNS[what]
    arguments = {"isa": "scalar", **GOOD_RUN, **change}
    with pytest.raises(error, match=reason):
        layer.run(**arguments)


def test_batched_runs_that_have_no_kernel_are_refused() -> None:
    tiled = formats_for(Isa.SCALAR)["lookup"].pack(Pattern.full(12, 4), np.ones((12, 4), F32)).matrix
    layer = kernels.Layer("gru", 4, 3, ih=matrix(12, 3), hh=tiled)
    with pytest.raises(ValueError, match="no batched kernel"):
        layer.run("scalar", **GOOD_RUN, batched=True)
    one = np.ones(4, F32)
    leaky = kernels.Layer("li", 4, 3, ih=matrix(4, 3), beta=one)
    with pytest.raises(ValueError, match="sample by sample"):
        leaky.run("scalar", **GOOD_RUN, batched=True)


def test_events_are_the_columns_of_their_matrix() -> None:
    one = np.ones(4, F32)
    make = partial(kernels.Layer, "lif", 4, 3, ih=matrix(4, 3), beta=one, theta=one)
    columns = COLUMNS.pack(Pattern.from_mask(np.eye(4, 3, dtype=bool)), np.eye(4, 3, dtype=F32)).matrix
    make(ih_events=columns)
    for bad in (
        {"ih_events": matrix(4, 3)},  # not columns
        {"ih_events": COLUMNS.pack(Pattern.from_mask(np.eye(4, 4, dtype=bool)), np.eye(4, dtype=F32)).matrix},
        {"hh_events": columns},  # of no matrix
        {"ih_events": COLUMNS.pack(Pattern.full(4, 3), np.ones((4, 3), F32)).matrix},  # dense columns
    ):
        with pytest.raises(ValueError, match="_events must"):
            make(**bad)


def test_results_are_never_written_to_a_converted_copy() -> None:
    m = matrix(3, 2)
    for y in (np.zeros((1, 3)), np.zeros((1, 6), F32)[:, ::2]):
        with pytest.raises(TypeError, match="incompatible"):
            kernels.product(m, "scalar", np.ones((1, 2), F32), None, y)


def test_a_graph_of_nothing_but_glue_runs() -> None:
    graph = Graph((Input("x", shape=(3,)), Elementwise("y", ("x",), fn="tanh")), {"y": "y"})
    x = np.ones((2, 1, 3), F32)
    assert np.array_equal(packed_program(graph, Isa.SCALAR, "dense").run(x).y, np.tanh(x))
