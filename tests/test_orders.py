"""Orders of rows: permutations that pad less, packed and multiplied as if nothing had moved."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from native_support import ISAS, reference
from safetensors import safe_open
from safetensors.numpy import save_file

import sparsecirc
from sparsecirc import Graph, Pattern, Program, Target, TuningCache, _compile, interpret
from sparsecirc._choice import Choice
from sparsecirc._compile import problems, with_packed_weights
from sparsecirc._native import kernels
from sparsecirc._target import Isa
from sparsecirc.cells import GRU, LIF, LSTM
from sparsecirc.errors import FileFormatError, UnsupportedError, UsageError
from sparsecirc.formats import Format, Grid, Packed, Tile, every_format
from sparsecirc.orders import ALIKE, BALANCED, DEGREE, ORDERS, Order, cost
from sparsecirc.patterns import block
from sparsecirc.testing import (
    PROBLEMS,
    TOLERANCE,
    classifier_graph,
    random_pattern,
    recurrent_graph,
    relative_difference,
)

STRATEGIES = (DEGREE, ALIKE, BALANCED)
GRIDS = [
    Grid((Tile(16, 64, 16, 2), Tile(16, 64, 16, 4))),
    Grid((Tile(8, 16, 8),)),
    Grid((Tile(16, 32, 1),), 2),
    Grid((Tile(16, 1, 1),)),
    Grid((Tile(3, 5, 2),), 4),
]
SHAPES = [(1, 1), (16, 64), (33, 70), (99, 33), (130, 128), (0, 5), (5, 0)]


def movable(isa: Isa) -> list[Format]:
    return [f for f in every_format(isa).values() if f.grid is not None]


def in_blocks(pattern: Pattern, grid: Grid) -> Pattern:
    """The connections of ``pattern``, each extended to the rows of its block, as block formats need them."""
    mask = pattern.mask()
    if grid.cols == 1:
        for first in range(0, len(mask), grid.rows):
            mask[first : first + grid.rows] = mask[first : first + grid.rows].any(axis=0)
    return Pattern.from_mask(mask)


@settings(max_examples=60, deadline=None)
@given(
    rows=st.integers(0, 70),
    cols=st.integers(0, 140),
    density=st.floats(0, 1),
    grid=st.sampled_from(GRIDS),
    strategy=st.sampled_from(STRATEGIES),
)
def test_every_strategy_gives_a_permutation_and_always_the_same(
    rows: int, cols: int, density: float, grid: Grid, strategy: Order
) -> None:
    pattern = random_pattern(rows, cols, density, 1)
    order = strategy.rows(pattern, grid)
    assert order.dtype == np.int32
    assert np.array_equal(np.sort(order), np.arange(rows))
    assert np.array_equal(order, strategy.rows(pattern, grid))


@pytest.mark.parametrize("shape", [*SHAPES, (64, 300)], ids=str)
@pytest.mark.parametrize("isa", ISAS, ids=lambda i: i.value)
def test_the_cost_counts_what_packers_store(isa: Isa, shape: tuple[int, int]) -> None:
    for form in movable(isa):
        for density in (0.0, 0.15, 1.0):
            assert form.grid is not None
            pattern = in_blocks(random_pattern(*shape, density, 3), form.grid)
            order = np.random.default_rng(0).permutation(shape[0]).astype(np.int32)
            moved = pattern.permute(np.argsort(order))
            packed = form.pack_ordered(moved, np.ones(shape, np.float32), order)
            assert packed.ptr is not None
            assert cost(moved, form.grid, order) == packed.ptr[-1] * (2 * max(packed.depth, 1) + 1), form.name
            assert cost(pattern, form.grid) == cost(moved, form.grid, order)


def test_counting_refuses_what_would_leave_the_arrays() -> None:
    pattern = random_pattern(20, 70, 0.2, 0)
    good: dict[str, Any] = {"cols": 70, "ptr": pattern.indptr, "index": pattern.indices, "order": None}
    good |= {"height": 16, "width": 32, "step": 16, "depth": 1}
    assert kernels.count_windows(**good) > 0
    order = np.arange(20, dtype=np.int32)
    bad: list[dict[str, Any]] = [{"height": 0}, {"height": 17}, {"width": 0}, {"step": 0}, {"step": 33}, {"depth": 0}]
    bad += [{"cols": 60}, {"cols": -1}, {"ptr": pattern.indptr[:-1]}, {"ptr": pattern.indptr[::-1].copy()}]
    bad += [{"ptr": np.zeros(0, np.int32)}, {"index": pattern.indices - 1}, {"order": order[1:]}, {"order": order + 1}]
    for change in bad:
        with pytest.raises(ValueError, match=r"count_windows|an order leaves the rows"):
            kernels.count_windows(**{**good, **change})


def test_the_native_search_counts_right_and_never_gets_worse() -> None:
    rng = np.random.default_rng(0)
    for rows, parts, height in [(99, 9, 16), (64, 70, 8), (40, 1, 16), (17, 16, 3)]:
        count = rng.binomial(20, 0.3, (rows, parts)).astype(np.uint8)
        order = rng.permutation(rows).astype(np.int32)
        before = None
        for turns in (0, 1, 50, 2000):
            improved = order.copy()
            after = kernels.order_rows(count, height, turns, improved)
            padded = np.zeros((-(-rows // height) * height, parts), np.uint8)
            padded[:rows] = count[improved]
            assert after == padded.reshape(-1, height, parts).max(axis=1).sum(dtype=np.int64)
            assert np.array_equal(np.sort(improved), np.arange(rows))
            assert before is None or after <= before
            before = after
        with pytest.raises(ValueError, match="an order leaves the rows"):
            kernels.order_rows(count, height, 1, order + 1)


@pytest.mark.parametrize("isa", [Isa.AVX512, Isa.AVX2, Isa.NEON], ids=lambda i: i.value)
def test_balanced_rows_pad_much_less_than_given_ones(isa: Isa) -> None:
    pattern = random_pattern(768, 256, 0.1, 0)
    for name, form in every_format(isa).items():
        if form.grid is None or form.grid.cols == 1:
            continue
        given_, found = cost(pattern, form.grid), cost(pattern, form.grid, BALANCED.rows(pattern, form.grid))
        assert found < 0.92 * given_, name
        assert cost(pattern, form.grid, DEGREE.rows(pattern, form.grid)) < given_


def test_hidden_blocks_are_found() -> None:
    rng = np.random.default_rng(0)
    for height in (8, 16):
        shuffled = block(height, 1)(rng.random((192, 64)), 0.8).permute(rng.permutation(192))
        assert shuffled.block_shape() == (1, 1)
        grid = Grid((Tile(height, 1, 1),))
        found = shuffled.permute(ALIKE.rows(shuffled, grid))
        assert found.block_shape([(height, 1)]) == (height, 1)
        assert cost(shuffled, grid, BALANCED.rows(shuffled, grid)) == 3 * shuffled.nnz / height


@pytest.mark.parametrize("isa", ISAS, ids=lambda i: i.value)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_a_packed_order_changes_neither_weights_nor_products(isa: Isa, shape: tuple[int, int]) -> None:
    rng = np.random.default_rng(7)
    x = rng.uniform(-1, 1, (3, shape[1])).astype(np.float32)
    bias = rng.standard_normal(shape[0]).astype(np.float32)
    for form in movable(isa):
        assert form.grid is not None
        pattern = in_blocks(random_pattern(*shape, 0.3, 2), form.grid)
        weight = rng.standard_normal(shape).astype(np.float32)
        order = rng.permutation(shape[0])
        moved = pattern.permute(np.argsort(order))  # packed in this order it is made of blocks
        packed = form.pack_ordered(moved, weight, order)
        assert np.array_equal(packed.order, order)
        used = form.unpack(packed)
        moved_by = np.abs(used - moved.apply(weight)).max(initial=0)
        assert moved_by <= (0 if form.exact else 1e-2 * np.abs(weight).max(initial=0)), form.name
        top = {"lookup16": 2047, "lookup8": 127}.get(form.name)
        seen = x if top is None else np.rint(x * np.float32(top)) / top  # integer kernels round their inputs
        for b in (None, bias):
            y = np.full((3, shape[0]), np.nan, np.float32)
            kernels.product(packed.matrix, isa.value, x, b, y)
            wanted = seen.astype(np.float64) @ used.astype(np.float64).T + (0 if b is None else b)
            assert np.abs(y - wanted).max(initial=0) <= 1e-5 * max(1, np.abs(wanted).max(initial=0)), form.name


def test_integer_weights_are_packed_again_with_their_scales() -> None:
    form = every_format(ISAS[-1])["lookup16"]
    pattern = random_pattern(40, 70, 0.3, 0)
    weight = np.random.default_rng(1).standard_normal((40, 70)).astype(np.float32)
    order = np.random.default_rng(2).permutation(40)
    packed = form.pack_ordered(pattern, weight, order)
    again = form.pack_ordered(pattern, form.unpack(packed), order, packed.scale)
    assert again.words is not None
    assert np.array_equal(again.words, packed.words)


BAD: list[tuple[str, Callable[[int], object]]] = [
    ("too short", lambda n: np.arange(n - 1)),
    ("twice the same row", lambda n: np.zeros(n, int)),
    ("beyond the last row", lambda n: np.arange(1, n + 1)),
    ("before the first row", lambda n: np.arange(n) - 1),
    ("not whole numbers", lambda n: np.arange(n) + 0.5),
    ("not a vector", lambda n: np.arange(n)[None]),
]


@pytest.mark.parametrize("make", [make for _, make in BAD], ids=[name for name, _ in BAD])
def test_what_is_no_permutation_is_refused_everywhere(make: Callable[[int], np.ndarray]) -> None:
    pattern = random_pattern(40, 64, 0.2, 0)
    weight = np.ones((40, 64), np.float32)
    form = every_format(Isa.SCALAR)["lookup"]
    with pytest.raises(UsageError, match="no permutation of 40 rows"):
        form.pack_ordered(pattern, weight, make(40))
    with pytest.raises(UsageError, match="no permutation of 40 rows, as 'mine' arranged them"):
        Order("mine", lambda pattern, grid: make(40)).rows(pattern, GRIDS[0])


@pytest.mark.parametrize("make", [make for _, make in BAD[:4]], ids=[name for name, _ in BAD[:4]])
def test_the_native_boundary_refuses_it_too(make: Callable[[int], np.ndarray]) -> None:
    packed = every_format(Isa.SCALAR)["lookup"].pack(random_pattern(40, 64, 0.2, 0), np.ones((40, 64), np.float32))
    with pytest.raises(ValueError, match=r"packed lookup matrix of 40 x 64: .*order"):
        _ = replace(packed, order=make(40).astype(np.int32)).matrix


def test_formats_whose_rows_stay_refuse_an_order() -> None:
    pattern, order = random_pattern(32, 32, 0.2, 0), np.arange(32)
    for name in ("dense", "csr", "columns", "block4x4"):
        with pytest.raises(UnsupportedError, match=f"rows of format '{name}' cannot be moved"):
            every_format(Isa.SCALAR)[name].pack_ordered(pattern, np.ones((32, 32), np.float32), order)
    csr = every_format(Isa.SCALAR)["csr"].pack(pattern, np.ones((32, 32), np.float32))
    with pytest.raises(ValueError, match="rows of this format have no order of their own"):
        kernels.Matrix("csr", 32, 32, csr.values, ptr=csr.ptr, index32=csr.index32, order=np.arange(32, dtype=np.int32))


# Programs ------------------------------------------------------------------------------------------------------------


def ordered_program(graph: Graph, isa: Isa, form: str, dtype: str = "f32") -> Program:
    """Every matrix that ``form`` can hold, with its rows in a random order; the others in ``csr``."""
    packed: dict[str, Packed] = {}
    choices: dict[str, Choice] = {}
    rng = np.random.default_rng(11)
    for problem, weight in problems(graph, isa, exact=False, dtype=dtype):
        kernel = _compile.kernels_for(isa, problem.dtype).get(form)
        if kernel is None:
            kernel = _compile.kernels_for(isa)["csr"]
            pack = kernel.format.pack(problem.pattern, weight)
        else:
            pack = kernel.format.pack_ordered(problem.pattern, weight, rng.permutation(weight.shape[0]))
        packed[problem.weight] = pack
        choice = _compile.choice_of(problem, pack, kernel, "a test", None, {})
        choices[problem.weight] = replace(choice, order="" if pack.order is None else "random")
    target = Target.cpu(isa, dtype=dtype)
    return Program(with_packed_weights(graph, packed, isa), target, isa, packed, choices, form == "lookup")


@pytest.mark.parametrize("name", PROBLEMS)
def test_layers_of_every_cell_run_as_if_nothing_had_moved(name: str) -> None:
    graph, x, state, want = reference(name)
    problem = PROBLEMS[name]
    program = ordered_program(graph, ISAS[-1], "lookup")
    got = program.run(x, state, lengths=problem.valid())
    wanted = want if not graph.spiking else interpret(graph, x, state, lengths=problem.valid(), dtype=np.float32)
    for key, value in wanted.outputs.items():
        assert relative_difference(got.outputs[key], value) < TOLERANCE.outputs, key
    for key, value in wanted.state.items():
        assert relative_difference(got.state[key], value) < TOLERANCE.outputs, key


@pytest.mark.parametrize("isa", ISAS, ids=lambda i: i.value)
@pytest.mark.parametrize("form", ["lookup", "mantissa", "lookup_bf16", "lookup16", "lookup8"])
def test_ordered_programs_agree_with_the_interpreter_and_survive_files(isa: Isa, form: str, tmp_path: Path) -> None:
    graph = classifier_graph(GRU, 20, 67, 5, 0.2)
    dtype = every_format(isa)[form].dtype
    program = ordered_program(graph, isa, form, dtype)
    x = np.random.default_rng(0).standard_normal((30, 3, 20)).astype(np.float32)
    assert sparsecirc.verify(program, x, reference=graph).ok
    program.save(tmp_path / "net.scp")
    again = Program.load(tmp_path / "net.scp")
    assert again.choices == program.choices
    for name, pack in program.packed.items():
        assert (pack.order is None) == (again.packed[name].order is None)
        for field in ("values", "words", "words8", "order", "index8", "ptr", "base"):
            mine, theirs = getattr(pack, field), getattr(again.packed[name], field)
            assert (mine is None and theirs is None) or np.array_equal(mine, theirs), field
    assert np.array_equal(again.run(x).y, program.run(x).y)
    stepper = again.stepper(3)
    for x_t in x:
        last = stepper(x_t)["y"]
    assert np.array_equal(last, program.run(x).y)


def spoil(path: Path, change: Callable[[dict[str, np.ndarray]], Mapping[str, np.ndarray]]) -> None:
    with safe_open(path, "numpy") as file:
        header, arrays = file.metadata(), {k: file.get_tensor(k) for k in file.keys()}  # noqa: SIM118
    save_file({**change(arrays)}, path, header)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda a: {**a, "rnn.hh|order": np.zeros(60, np.int32)}, "no permutation of 60 rows"),
        (lambda a: {**a, "rnn.hh|order": np.arange(1, 61, dtype=np.int32)}, "no permutation of 60 rows"),
        (lambda a: {**a, "rnn.hh|order": np.arange(60, dtype=np.int32) - 1}, "no permutation of 60 rows"),
        (lambda a: {**a, "rnn.hh|order": np.arange(61, dtype=np.int32)}, "no permutation of 60 rows"),
        (lambda a: {**a, "rnn.hh|order": np.arange(60, dtype=np.float32)}, "no permutation of 60 rows"),
        (lambda a: {**a, "rnn.hh|order": np.full(60, 2**62, np.int64)}, "no permutation of 60 rows"),
        (lambda a: {k: v for k, v in a.items() if k != "rnn.hh|order"}, "lacks the order of weight 'rnn.hh'"),
        (lambda a: {**a, "fc.weight|order": np.arange(5, dtype=np.int32)}, "holds one that it does not name"),
    ],
)
def test_files_with_a_bad_order_are_refused(
    change: Callable[[dict[str, np.ndarray]], Mapping[str, np.ndarray]], message: str, tmp_path: Path
) -> None:
    graph = classifier_graph(GRU, 8, 20, 5, 0.3)
    program = ordered_program(graph, Isa.SCALAR, "lookup")
    fc = problems(graph, Isa.SCALAR, exact=False)[-1]
    dense = every_format(Isa.SCALAR)["dense"].pack(fc[0].pattern, fc[1])
    choice = replace(program.choices["fc.weight"], format="dense", order="")
    program = replace(
        program,
        packed={**program.packed, "fc.weight": dense},
        choices={**program.choices, "fc.weight": choice},
    )
    path = tmp_path / "net.scp"
    program.save(path)
    Program.load(path)
    spoil(path, change)
    with pytest.raises(FileFormatError, match=message):
        Program.load(path)


# Compile -------------------------------------------------------------------------------------------------------------


def measured(prefer: str) -> Callable[..., dict[str, float]]:
    """Measurements in which the first way that begins with ``prefer`` wins, and less is faster otherwise."""

    def times(packs: Mapping[str, Packed], *rest: object, step: bool = False) -> dict[str, float]:
        return {n: p.nbytes * (1e-9 if n.startswith(prefer) else 1.0) for n, p in packs.items()}

    return times


def test_compile_keeps_the_order_that_measures_best_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_compile, "measure", measured("mantissa, balanced"))
    graph = classifier_graph(GRU, 32, 96, 5, 0.1)
    program = sparsecirc.compile(graph, Target.cpu(Isa.SCALAR), cache=TuningCache(tmp_path))
    choice = program.choices["rnn.hh"]
    assert (choice.format, choice.order) == ("mantissa", "balanced")
    assert program.packed["rnn.hh"].order is not None
    assert {"lookup, balanced", "mantissa, balanced"} <= set(choice.orders)
    assert choice.padding_as_given is not None
    assert choice.padding < 0.9 * choice.padding_as_given
    line = next(text for text in str(program.explain()).splitlines() if text.startswith("rnn.hh"))
    assert f"rows balanced, padding {choice.padding_as_given:.2f} to {choice.padding:.2f}, " in line
    assert program.choices["fc.weight"].order == ""
    x = np.random.default_rng(0).standard_normal((9, 2, 32)).astype(np.float32)
    assert sparsecirc.verify(program, x, reference=graph).ok
    again = sparsecirc.compile(graph, Target.cpu(Isa.SCALAR), cache=TuningCache(tmp_path))
    assert again.choices["rnn.hh"] == replace(choice, cached=True)
    assert str(again.explain()).count("from cache") == 3


def test_an_order_that_measures_worse_is_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_compile, "measure", measured("csr"))
    program = sparsecirc.compile(recurrent_graph(GRU, 8, 96, 0.1), cache=None)
    assert {c.format for c in program.choices.values()} == {"csr"}
    assert all(c.order == "" and c.padding_as_given is None for c in program.choices.values())
    assert any(program.choices["rnn.hh"].orders)
    assert "rows" not in str(program.explain())


def test_orders_of_ones_own_and_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_compile, "measure", measured("lookup, mine"))
    backwards = Order("mine", lambda pattern, grid: DEGREE.arrange(pattern, grid)[::-1])
    graph = recurrent_graph(LSTM, 8, 96, 0.1)
    program = sparsecirc.compile(graph, cache=None, orders=[backwards])
    choice = program.choices["rnn.hh"]
    assert (choice.format, choice.order) == ("lookup", "mine")
    assert np.array_equal(program.packed["rnn.hh"].order, DEGREE.rows(graph.node("rnn").patterns["hh"], GRIDS[0])[::-1])
    for options in ({"orders": ()}, {"kernel": "lookup"}):
        plain = sparsecirc.compile(graph, cache=None, **options)  # type: ignore[arg-type]
        assert all(p.order is None for p in plain.packed.values())
        assert not any(c.orders for c in plain.choices.values())
    with pytest.raises(UsageError, match="as 'wrong' arranged them"):
        sparsecirc.compile(graph, cache=None, orders=[Order("wrong", lambda pattern, grid: np.zeros(3, int))])


def test_blocks_that_appear_when_rows_move_are_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_compile, "measure", measured("block16x1"))
    graph = recurrent_graph(GRU, 16, 64, 0.25, pattern=block(16, 1))
    rows = np.concatenate([g * 64 + np.random.default_rng(g).permutation(64) for g in range(3)])
    node = graph.node("rnn")
    moved = node.with_patterns(**{r: p.permute(rows) for r, p in node.patterns.items()})
    moved = moved.with_params(**{r: node.params[r][rows] for r in ("ih", "hh")})
    shuffled = graph.replace_nodes(moved)
    program = sparsecirc.compile(shuffled, cache=None)
    assert {c.format for c in program.choices.values()} == {"block16x1"}
    assert {c.order for c in program.choices.values()} == {"alike"}
    assert {c.padding for c in program.choices.values()} == {1.0}
    x = np.random.default_rng(0).standard_normal((9, 2, 16)).astype(np.float32)
    assert sparsecirc.verify(program, x, reference=shuffled).ok
    assert sparsecirc.compile(graph, cache=None).choices["rnn.hh"].order == ""


def test_spikes_stay_exact(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_compile, "measure", measured("lookup, balanced"))
    graph = recurrent_graph(LIF, 16, 128, 0.2)
    program = sparsecirc.compile(graph, cache=None, orders=ORDERS)
    assert program.choices["rnn.hh"].order == "balanced"
    assert program.exact
    x = np.random.default_rng(0).standard_normal((50, 3, 16)).astype(np.float32)
    report = sparsecirc.verify(program, x, reference=graph)
    assert report.ok
    assert report.spikes > 0
