"""The cost model: its fit, its predictions, and what it says of networks that are not pruned yet."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from native_support import ISAS

import sparsecirc
from sparsecirc import Target, what_if
from sparsecirc._cost import Bandwidth, CostModel, HeldOut, calibrate, load_model, model_file, save_model, steps_of
from sparsecirc._cost import _calibrate as calibration
from sparsecirc._cost import _model as models
from sparsecirc._cost import _what_if as predictions
from sparsecirc._cost._bandwidth import levels, read_bandwidth, read_speed
from sparsecirc._cost._features import NAMES, Size, features
from sparsecirc._cost._nnls import fit_relative, nonnegative_least_squares
from sparsecirc._cost._problems import DTYPES, kernels_of
from sparsecirc._target import Isa
from sparsecirc._tuning import kernels_version
from sparsecirc.cells import CELLS, GRU, LIF
from sparsecirc.errors import CacheWarning, UnsupportedError, UsageError
from sparsecirc.formats import CSR, every_format
from sparsecirc.ops import kernels_for
from sparsecirc.patterns import block, unstructured
from sparsecirc.testing import classifier_graph, random_pattern, recurrent_graph

CACHES = (32 * 1024, 1024 * 1024, 32 * 1024 * 1024)
AT = {name: k for k, name in enumerate(NAMES)}


def coefficients(**per: float) -> tuple[float, ...]:
    found = np.zeros(len(NAMES))
    for name, value in per.items():
        found[AT[name]] = value
    return tuple(found)


def made_up(isa: Isa = ISAS[-1], **changed: object) -> CostModel:
    """Dense values take 1 ns, values of sparse formats 4 ns, gates 1 ns a unit: break-even is where padding says."""
    products = {}
    for dtype in DTYPES:
        for name in kernels_for(isa, dtype):
            for kind in ("one", "many"):
                products[f"{name}/{kind}"] = coefficients(values=1e-3 if name.startswith("dense") else 4e-3)
    model = CostModel(
        isa, "a processor", kernels_version(), CACHES, (Bandwidth("L1", 16384, 100.0),), products,
        dict.fromkeys(CELLS, (0.0, 0.001)), 10.0, HeldOut(9, 0.03, 0.2), HeldOut(4, 0.05, 0.1),
    )  # fmt: skip
    return replace(model, **changed)


# The fit -------------------------------------------------------------------------------------------------------------


def test_nonnegative_least_squares_agrees_with_scipy() -> None:
    optimize = pytest.importorskip("scipy.optimize", reason="needs scipy")
    rng = np.random.default_rng(0)
    for _ in range(60):
        rows, cols = int(rng.integers(1, 30)), int(rng.integers(1, 10))
        a = rng.standard_normal((rows, cols)) * 10.0 ** rng.integers(-3, 4, cols)
        a[:, rng.random(cols) < 0.1] = 0
        b = rng.standard_normal(rows)
        x = nonnegative_least_squares(a, b)
        assert np.all(x >= 0)
        want = np.linalg.norm(a @ optimize.nnls(a, b)[0] - b)
        assert np.linalg.norm(a @ x - b) <= want + 1e-7


def test_a_fit_finds_what_made_the_times_and_ignores_outliers() -> None:
    rng = np.random.default_rng(1)
    a = rng.uniform(0, 1, (80, 4)) * [1, 1e3, 1e6, 1e4]
    truth = np.array([2.0, 3e-3, 1e-6, 0.0])
    times = a @ truth * rng.uniform(0.97, 1.03, 80)
    times[::10] *= 5  # another process ran
    found = fit_relative(a, times)
    assert found == pytest.approx(truth, rel=0.1, abs=1e-5)


def test_quantities_of_a_product() -> None:
    weight = np.random.default_rng(0).standard_normal((40, 70), dtype=np.float32)
    pattern = random_pattern(40, 70, 0.2, 0)
    packed = CSR.pack(pattern, weight)
    f = features(Size.of(packed), 1.0, CACHES)
    assert f[AT["rows"]] == 40
    assert f[AT["columns"]] == 70
    assert f[AT["values"]] == pattern.nnz
    assert f[AT["starts"]] == 40
    assert f[AT["copied inputs"]] == 0
    assert f[AT["bytes beyond L1"]] == 0  # 5 KiB stay in the first cache
    twice = features(Size.of(packed, 2.0), 1.0, CACHES)
    assert twice[AT["rows"]] == 80
    assert twice[AT["values"]] == 2 * pattern.nnz
    formats = every_format(ISAS[-1])
    lookup = features(Size.of(formats["lookup"].pack(pattern, weight)), 1.0, CACHES)
    assert lookup[AT["values"]] > pattern.nnz  # padding
    assert lookup[AT["copied inputs"]] == 70
    columns = Size.of(formats["columns"].pack(pattern, weight))
    assert features(columns, 0.1, CACHES)[AT["values"]] == pytest.approx(0.1 * pattern.nnz)
    assert Size.of(formats["columns"].pack(sparsecirc.Pattern.full(40, 70), weight)).format != columns.format
    far = features(replace(Size.of(packed), nbytes=4.0 * CACHES[1]), 1.0, CACHES)
    assert far[AT["bytes beyond L1"]] == far[AT["bytes beyond L2"]] == 4 * CACHES[1]
    assert far[AT["bytes beyond L3"]] == 0


def test_levels_that_no_sample_reached_get_the_speed_of_memory() -> None:
    size = Size.of(CSR.pack(random_pattern(40, 70, 0.2, 0), np.ones((40, 70), np.float32)))
    samples = [
        calibration.Sample(replace(size, values=v, rows=r), False, 1.0, 1e-3 * v) for v in (9, 99) for r in (1, 50)
    ]
    speeds = tuple(Bandwidth(level, 1, gb) for level, gb in (("L1", 400), ("L2", 200), ("L3", 100), ("RAM", 25)))
    found = calibration.fit_products(samples, CACHES, speeds)["csr/one"]
    assert found[AT["values"]] == pytest.approx(1e-3, rel=1e-3)
    assert found[AT["bytes beyond L2"]] == pytest.approx(1e-3 / 100 - 1e-3 / 200)
    assert found[AT["bytes beyond L3"]] == pytest.approx(1e-3 / 25 - 1e-3 / 100)


# Memory --------------------------------------------------------------------------------------------------------------


def test_memory_is_read_at_plausible_speeds() -> None:
    assert next(iter(levels())) == "L1"
    assert list(levels())[-1] == "RAM"
    assert sorted(levels().values()) == list(levels().values())
    seen: list[str] = []
    found = read_bandwidth(seen.append)
    assert [b.level for b in found] == list(levels()) == seen
    assert all(0.2 < b.gb_per_s < 20_000 for b in found)
    assert found[0].gb_per_s > found[-1].gb_per_s
    assert read_speed(4) > 0


# Files ---------------------------------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SPARSECIRC_CACHE", str(tmp_path))
    return tmp_path


def test_a_calibration_is_kept_and_read_again(folder: Path) -> None:
    model = made_up()
    path = save_model(model)
    assert path == model_file(model.isa)
    assert folder in path.parents
    assert load_model(model.isa) == model
    assert model.note.startswith("calibrated on this machine")
    assert "the kernels have changed since" in replace(model, kernels="older").note
    assert models.clear_models() == 1
    assert not path.exists()


@pytest.mark.parametrize("damage", ["", "[]", "{}", '{"format": 99, "quantities": []}'])
def test_a_damaged_calibration_is_a_warning(folder: Path, damage: str) -> None:
    path = save_model(made_up(Isa.SCALAR))
    path.write_text(damage)
    with pytest.warns(CacheWarning, match="doctor --calibrate' again"):
        assert load_model(Isa.SCALAR).shipped


def test_without_a_calibration_the_shipped_one_says_so(folder: Path) -> None:
    for isa in (Isa.SCALAR, Isa.AVX2, Isa.AVX512):
        model = load_model(isa)
        assert model.shipped
        assert model.isa is isa
        assert "not calibrated here" in model.note
        assert model.layers_held_out.median < 0.25
        assert {"dense/one", "csr/one", "lookup/one"} <= set(model.products)
        assert {"gru", "lstm", "lif"} <= set(model.gates)
    with pytest.raises(UnsupportedError, match="run 'sparsecirc doctor --calibrate --isa neon'"):
        load_model(Isa.NEON)


@pytest.mark.slow
@pytest.mark.parametrize("isa", [Isa.SCALAR, Isa.AVX2, Isa.AVX512], ids=lambda i: i.value)
def test_the_shipped_calibrations_know_every_format_and_cell(folder: Path, isa: Isa) -> None:
    model = load_model(isa)
    assert set(CELLS) <= set(model.gates), "calibrate again and ship the file: see CONTRIBUTING.md"
    for dtype in DTYPES:
        for name in kernels_for(isa, dtype):
            assert f"{name}/one" in model.products, "calibrate again and ship the file: see CONTRIBUTING.md"


# What if -------------------------------------------------------------------------------------------------------------


def test_predictions_of_a_model_whose_answer_is_known() -> None:
    graph = classifier_graph(GRU, 32, 64, 10, 1.0)
    found = what_if(graph, (0.0, 0.5, 0.9), pattern=block(16, 1), model=made_up())
    (rnn,) = found.layers  # 10 rows are no whole blocks
    assert "does not fit 10 rows" in found.skipped["fc"]
    dense = 1e-3 * (192 * 32 + 192 * 64) + 1e-3 * 64
    assert rnn.dense_us == pytest.approx(dense)
    assert rnn.now == replace(rnn.at[0], sparsity=0.0)
    assert rnn.at[1].formats == {"ih": "dense", "hh": "dense"}  # 4 ns for half the values is no gain
    assert rnn.at[2].us == pytest.approx(4e-3 * 0.1 * (192 * 32 + 192 * 64) + 1e-3 * 64, rel=0.03)
    assert rnn.at[2].speedup == pytest.approx(dense / rnn.at[2].us)
    assert rnn.break_even == pytest.approx(0.75, abs=0.03)  # 4 (1 - s) = 1; blocks need no padding
    assert found.total() == pytest.approx(10 / 100 + rnn.dense_us)
    assert found.total(2) == pytest.approx(10 / 100 + rnn.at[2].us)


def test_what_is_pruned_already_is_shown_beside() -> None:
    found = what_if(recurrent_graph(GRU, 32, 64, 0.1), (0.5,), model=made_up())
    assert found.layers[0].now.sparsity == pytest.approx(0.9, abs=1e-3)
    assert found.layers[0].now.speedup > 1
    assert " at 90%" in found.table()


def test_a_layer_that_never_gains_says_so() -> None:
    products = {
        k: tuple(c * (1000 if not k.startswith("dense") else 1) for c in v) for k, v in made_up().products.items()
    }
    found = what_if(recurrent_graph(GRU, 32, 64, 1.0), (0.9,), model=made_up(products=products))
    assert found.layers[0].break_even is None
    assert "never" in found.table()


def test_large_matrices_are_looked_at_in_part(monkeypatch: pytest.MonkeyPatch) -> None:
    graph = recurrent_graph(GRU, 16, 400, 1.0)
    part = what_if(graph, (0.8, 0.95), model=made_up())
    monkeypatch.setattr(predictions, "SAMPLE_ROWS", 10_000)
    whole = what_if(graph, (0.8, 0.95), model=made_up())
    assert part.layers[0].dense_us == pytest.approx(whole.layers[0].dense_us)
    for a, b in zip(part.layers[0].at, whole.layers[0].at, strict=True):
        assert a.us == pytest.approx(b.us, rel=0.03)
        assert a.formats == b.formats


def test_spikes_take_the_rate_that_is_given() -> None:
    products = {**made_up().products, "columns of every row/one": coefficients(values=1e-3)}
    products = {k: v if k.startswith("columns") else tuple(100 * c for c in v) for k, v in products.items()}
    model = made_up(products=products)
    graph = recurrent_graph(LIF, 16, 64, 0.2)
    quiet, busy = (what_if(graph, (0.8,), model=model, rates={"rnn": r}).layers[0] for r in (0.05, 0.5))
    assert quiet.at[0].formats["hh"] == "columns"
    gap = 0.45 * 4e-3 * round(0.2 * 64 * 64)
    assert busy.at[0].us - quiet.at[0].us == pytest.approx(gap, rel=0.01)


def test_integers_are_predicted_for_integer_targets() -> None:
    graph = recurrent_graph(GRU, 16, 64, 1.0)
    found = what_if(graph, (0.95,), Target.cpu(dtype="int16"), model=made_up())
    assert found.layers[0].at[0].formats["hh"] == "lookup16"
    assert found.dtype == "int16"


def test_reports_are_text_and_json() -> None:
    found = what_if(classifier_graph(GRU, 32, 64, 10, 1.0), (0.5, 0.9), model=made_up(), steps=50)
    data = json.loads(found.to_json_text())
    assert [layer["layer"] for layer in data["layers"]] == ["rnn", "fc"]
    assert data["totals"]["at"][1]["us"] == pytest.approx(found.total(1))
    assert data["calibrated"] is True
    lines = found.table().splitlines()
    assert lines[0].split()[:4] == ["layer", "matrices", "dense", "now"]
    assert lines[2].startswith("fc *")
    assert "shares it over 50 steps" in str(found)


def test_layers_without_units_or_inputs() -> None:
    nothing = what_if(recurrent_graph(GRU, 4, 0, 1.0), (0.5,), model=made_up()).layers[0]
    assert nothing.dense_us == nothing.at[0].us == 0
    assert nothing.at[0].speedup == 1
    blind = what_if(recurrent_graph(GRU, 0, 8, 1.0), (0.5,), model=made_up()).layers[0]
    assert blind.dense_us == pytest.approx(1e-3 * (32 * 8 + 8))  # 24 rows are padded to 32; and the gates


def test_wrong_questions_are_refused() -> None:
    graph = recurrent_graph(GRU, 16, 64, 1.0)
    with pytest.raises(UsageError, match="sparsity"):
        what_if(graph, (1.0,), model=made_up())
    with pytest.raises(UsageError, match="steps is 0"):
        what_if(graph, (0.5,), model=made_up(), steps=0)
    with pytest.raises(UnsupportedError, match="nothing can be predicted: rnn: cell 'gru' is not in the calibration"):
        what_if(graph, (0.5,), model=made_up(gates={}))
    with pytest.raises(UnsupportedError, match="no format that can run it is in the calibration"):
        what_if(graph, (0.5,), model=made_up(products={}))


def test_prediction_of_a_program() -> None:
    graph = classifier_graph(GRU, 32, 64, 10, 1.0)
    program = sparsecirc.compile(graph, kernel={"*": "dense"})
    us = made_up().program_us(program, 100)
    assert us == pytest.approx(10 / 100 + 1e-3 * (192 * 32 + 192 * 64 + 64) + 1e-3 * 16 * 64 / 100)
    assert made_up(gates={}).program_us(program, 100) is None
    assert made_up(products={}).program_us(program, 100) is None


# Calibration ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "FITTED": ((64, 64), (96, 160), (160, 96)), "DENSE_ONLY": ((64, 96),), "HELD_OUT": ((96, 96),),
        "DENSITIES": (0.3, 0.1), "LAYERS": ((GRU, 48, 16, 0.2),), "GATE_UNITS": (32, 64), "LAYER_SECONDS": 0.001,
    }.items():  # fmt: skip
        monkeypatch.setattr(calibration, name, value)


def test_a_small_calibration_covers_every_kernel_and_cell(few: None) -> None:
    told: list[int] = []
    model = calibrate(ISAS[-1], lambda steps, note: told.append(steps))
    assert sum(told) == steps_of()
    for dtype in DTYPES:
        for name in kernels_of(ISAS[-1], dtype):
            assert f"{name}/one" in model.products
            assert (f"{name}/many" in model.products) == (dtype in ("f32", "bf16"))
    assert set(model.gates) == set(CELLS)
    assert all(len(c) == len(NAMES) and min(c) >= 0 for c in model.products.values())
    assert model.products_held_out.count > 5
    assert model.layers_held_out.count == 1
    assert not model.shipped
    assert CostModel.from_json(json.loads(json.dumps(model.to_json()))) == model


@pytest.mark.slow
def test_predictions_hold_on_shapes_that_were_not_fitted() -> None:
    """The bounds are twice what a quiet machine shows: this one may be shared."""
    for attempt in range(3):
        model = calibrate(ISAS[-1])
        if model.products_held_out.median < 0.15 and model.layers_held_out.median < 0.2:
            break
        assert attempt < 2, f"{model.products_held_out}, {model.layers_held_out}"
    ratios = []
    for units, density in ((224, 0.1), (352, 0.05), (480, 0.2)):
        graph = recurrent_graph(GRU, 48, units, 1.0)
        (guess,) = what_if(graph, (1 - density,), model=model).layers[0].at
        pruned = sparsecirc.prune(graph, 1 - density, pattern=unstructured)
        program = sparsecirc.compile(pruned, cache=None)
        seconds, _ = calibration._seconds(program, 100, graph)
        ratios.append(guess.us / (seconds * 1e4 - model.call_us / 100))
    assert 0.6 < np.median(ratios) < 1.67, ratios
