"""Rewiring: what leaves, what grows, and what stays the same."""

from __future__ import annotations

import copy
import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch", reason="torch is not installed")

from torch import nn  # noqa: E402

from sparsecirc import Masks, Pattern  # noqa: E402
from sparsecirc._native import kernels  # noqa: E402
from sparsecirc.errors import NothingMatchedError, UnsupportedError, UsageError  # noqa: E402
from sparsecirc.nn import SparseGRU, SparseLinear, SparseLSTM, SparseRLIF, SparseRNN, SparseWeight  # noqa: E402
from sparsecirc.nn._weight import distinct  # noqa: E402
from sparsecirc.patterns import contiguous, dale_signs, exchange, interleaved, modular  # noqa: E402
from sparsecirc.rules import G2G, SET, Dale, DeepR, Rewire, RigL, Rule, Signals, cosine, drop, grow  # noqa: E402
from sparsecirc.rules._rewiring._choice import Candidates, highest  # noqa: E402
from sparsecirc.rules._rewiring._sides import Sides, normalised  # noqa: E402

WAYS = {
    "set": (drop.magnitude, grow.random),
    "hebb": (drop.three, grow.correlation),
    "gradient": (drop.magnitude, grow.gradient),
    "uncorrelated": (drop.correlation, grow.random),
}


def step(model: nn.Module, optimizer: torch.optim.Optimizer, x: torch.Tensor) -> None:
    optimizer.zero_grad()
    out = model(x)
    while isinstance(out, tuple):
        out = out[0]
    (out - 0.3).square().mean().backward()
    optimizer.step()


def random_pattern(rows: int, cols: int, density: float, seed: int) -> Pattern:
    return Pattern.from_mask(np.random.default_rng(seed).random((rows, cols)) < density)


# The exchange --------------------------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 9), st.integers(1, 9), st.floats(0, 1), st.integers(0, 99), st.floats(0, 1))
def test_exchange_keeps_the_count_and_says_where_all_was(rows, cols, density, seed, share):
    rng = np.random.default_rng(seed)
    mask = rng.random((rows, cols)) < density
    pattern = Pattern.from_mask(mask)
    dead = np.flatnonzero(~mask.ravel())
    n = int(share * min(pattern.nnz, len(dead)))
    out, new = rng.permutation(pattern.nnz)[:n], rng.permutation(dead)[:n]
    made, source = exchange(pattern, out, new)
    expected = mask.copy()
    expected[pattern.rows[out], pattern.indices[out]] = False
    expected.ravel()[new] = True
    assert np.array_equal(made.mask(), expected)
    values = rng.random(pattern.nnz)
    matrix = np.zeros((rows, cols))
    matrix[pattern.rows, pattern.indices] = values
    matrix[~expected] = 0
    matrix.ravel()[new] = 0
    moved = np.where(source < 0, 0, values[np.maximum(source, 0)]) if n or pattern.nnz else values
    assert np.array_equal(matrix[made.rows, made.indices], moved)


def test_exchange_refuses_what_is_no_exchange():
    pattern = Pattern.from_mask(np.eye(3))
    for out, new, why in (
        ([0], [], "expected as many"),
        ([0, 0], [1, 2], "dropped twice"),
        ([5], [1], "outside a pattern of 3"),
        ([0], [4], "that was dead before"),
        ([0, 1], [1, 1], "each once"),
        ([0], [9], "each once"),
    ):
        with pytest.raises(UsageError, match=why):
            exchange(pattern, out, new)


def test_the_native_exchange_refuses_what_would_leave_its_arrays():
    pattern = Pattern.from_mask(np.eye(3))
    ints = {name: np.zeros(n, np.int32) for name, n in (("new_ptr", 4), ("new_index", 3), ("source", 3))}
    good = {"cols": 3, "ptr": pattern.indptr, "index": pattern.indices, "leaves": np.array([1, 0, 1], np.uint8)}
    good |= {"grow": np.array([1, 3]), **ints}
    assert kernels.exchange(**good) == -1
    for change in (
        {"ptr": pattern.indptr[:-1]},
        {"index": pattern.indices + 1},
        {"leaves": np.ones(2, np.uint8)},
        {"leaves": np.ones(3, np.uint8)},
        {"grow": np.array([3, 1])},
        {"new_ptr": np.zeros(3, np.int32)},
        {"new_index": np.zeros(2, np.int32)},
        {"source": np.zeros(4, np.int32)},
    ):
        with pytest.raises(ValueError, match="exchange: "):
            kernels.exchange(**{**good, **change})


def test_a_weight_is_rewired_in_place_with_its_optimizer():
    torch.manual_seed(0)
    layer = SparseLinear(30, 20, density=0.3)
    weight: SparseWeight = layer.weight
    optimizer = torch.optim.Adam(layer.parameters(), 0.01)
    for _ in range(3):
        step(layer, optimizer, torch.randn(8, 30))
    before, old = weight.dense().detach(), weight.pattern
    moment = weight.scatter(optimizer.state[weight.values]["exp_avg"])
    places = [t.data_ptr() for t in (weight.values, weight.indices, weight.indptr)]
    grown = Candidates(old).some(25, torch.Generator().manual_seed(1))
    source = weight.rewire(np.arange(0, 50, 2), grown, optimizer)
    assert [t.data_ptr() for t in (weight.values, weight.indices, weight.indptr)] == places
    assert (source < 0).sum() == 25
    keep = torch.from_numpy(weight.pattern.mask() & old.mask())
    assert torch.equal(weight.dense().detach(), before * keep)
    assert torch.equal(weight.scatter(optimizer.state[weight.values]["exp_avg"]), moment * keep)
    fresh = weight.pattern.mask() & ~old.mask()
    assert fresh.ravel()[grown].all()
    assert not weight.values.detach()[torch.from_numpy(source < 0)].any()
    assert not weight.values.grad[torch.from_numpy(source < 0)].any()
    assert optimizer.state[weight.values]["step"] == 3
    with pytest.raises(UsageError, match="expected as many"):
        weight.rewire([0], [])


# The choice ----------------------------------------------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 12), st.integers(1, 12), st.floats(0, 1), st.integers(0, 99), st.integers(0, 60))
def test_the_best_are_those_of_the_whole_matrix(rows, cols, density, seed, n):
    rng = np.random.default_rng(seed)
    pattern = random_pattern(rows, cols, density, seed)
    scores = rng.integers(-3, 3, (rows, cols)).astype(np.float32)  # with many ties
    scores[rng.random((rows, cols)) < 0.1] = np.nan
    found = Candidates(pattern).best(n, lambda a, b: scores[a:b].copy())
    free = np.where(pattern.mask() | np.isnan(scores), -np.inf, scores).ravel()
    order = np.argsort(-free, kind="stable")[: min(n, int(np.isfinite(free).sum()))]
    assert np.array_equal(found, np.sort(order))


@pytest.mark.parametrize("peak", [0, 77, 896])
def test_a_guessed_bound_loses_none_of_the_best(peak):
    rng = np.random.default_rng(0)
    scores, pattern = rng.random((900, 8)).astype(np.float32), random_pattern(900, 8, 0.2, 1)
    scores[peak : peak + 4] += 1  # rows that a guess may take for all of them
    for n in (1, 50, 400, 4000, 6000):
        found = Candidates(pattern).best(n, lambda a, b: scores[a:b].copy())
        free = np.where(pattern.mask(), -np.inf, scores).ravel()
        order = np.argsort(-free, kind="stable")[: min(n, int(np.isfinite(free).sum()))]
        assert np.array_equal(found, np.sort(order))


def test_the_best_do_not_depend_on_the_blocks(monkeypatch):
    import sparsecirc.rules._rewiring._choice as choice

    rng = np.random.default_rng(0)
    scores, pattern = rng.random((40, 30)).astype(np.float32), random_pattern(40, 30, 0.2, 1)
    found = []
    for block in (1, 100, 1 << 18):
        monkeypatch.setattr(choice, "BLOCK", block)
        found.append(Candidates(pattern).best(17, lambda a, b: scores[a:b].copy()))
    assert np.array_equal(found[0], found[1])
    assert np.array_equal(found[0], found[2])


@pytest.mark.parametrize("density", [0.0, 0.1, 0.9, 0.99])
@pytest.mark.parametrize("tiers", [None, modular(4, 0.5, 0.5, targets=interleaved)])
def test_any_dead_connection_may_grow(density, tiers):
    pattern, seen = random_pattern(12, 16, density, 3), set()
    generator = torch.Generator().manual_seed(0)
    for tier in (0,) if tiers is None else (0, 1):
        candidates = Candidates(pattern, tiers, tier)
        n = min(3, candidates.count())
        for _ in range(400):
            keys = candidates.some(n, generator)
            assert len(set(keys.tolist())) == n
            if tiers is not None:
                assert (tiers.regions((12, 16), keys // 16, keys % 16) == tier).all()
            seen |= set(keys.tolist())
        assert len(candidates.some(10**6, generator)) == candidates.count()
    assert seen == set(np.flatnonzero(~pattern.mask().ravel()).tolist())


def test_few_of_many_are_different_and_fair():
    generator = torch.Generator().manual_seed(0)
    counts = np.zeros(40)
    for _ in range(2000):
        found = distinct(40, 5, generator)
        assert len(set(found.tolist())) == 5
        counts[found] += 1
    assert np.abs(counts / 2000 - 5 / 40).max() < 0.04
    assert highest(np.array([1, 3, 3, 2, 3], np.float32), 2).tolist() == [1, 2]


# Correlations --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("centered", [False, True])
def test_scores_are_those_of_the_dense_computation(centered):
    rng = np.random.default_rng(0)
    batches = [(0.5, rng.random((7, 9)), rng.random((7, 12))), (1.0, rng.random((5, 9)), rng.random((5, 12)))]
    sides = normalised([(w, torch.from_numpy(a), torch.from_numpy(b)) for w, a, b in batches], centered=centered)
    weights = np.concatenate([np.full(len(a), w) for w, a, _ in batches])
    post, pre = (np.concatenate([b[k] for b in batches]) for k in (1, 2))
    if centered:
        post, pre = (s - (weights[:, None] * s).sum(0) / weights.sum() for s in (post, pre))
    dot = (weights[:, None] * post).T @ pre
    norms = np.sqrt((weights[:, None] * post**2).sum(0)[:, None] * (weights[:, None] * pre**2).sum(0))
    np.testing.assert_allclose(sides.block(0, 9), dot / norms, atol=1e-5)
    np.testing.assert_allclose(sides.block(3, 5), (dot / norms)[3:5], atol=1e-5)
    pattern = random_pattern(9, 12, 0.4, 0)
    np.testing.assert_allclose(sides.of(pattern), (dot / norms)[pattern.mask()], atol=1e-5)
    best = Candidates(pattern).best(6, sides.block)
    free = np.where(pattern.mask(), -np.inf, dot / norms).ravel()
    assert set(best.tolist()) == set(np.argsort(-free)[:6].tolist())


def test_no_matrix_of_scores_is_made_for_a_large_layer():
    import tracemalloc

    n, m = 8192, 16
    sides = Sides(torch.randn(m, n), torch.randn(m, n))
    pattern = Pattern((n, n), np.arange(n + 1, dtype=np.int32), np.arange(n, dtype=np.int32))
    tracemalloc.start()
    keys = Candidates(pattern).best(1000, sides.block)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(keys) == 1000
    assert peak < n * n / 4, "numpy held a sixteenth of N x N floats"
    rows = np.unique(keys // n)[:3]
    for row in rows:
        exact = (sides.left[:, row] @ sides.right).numpy()
        exact[row] = -np.inf
        mine = keys[keys // n == row] % n
        assert set(mine.tolist()) == set(np.argsort(-exact)[: len(mine)].tolist())


# Rules ---------------------------------------------------------------------------------------------------------------


class Net(nn.Module):
    """Feed-forward layers behind a function that is no module, then a recurrent layer."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = SparseLinear(10, 16, density=0.4)
        self.act = nn.ReLU()
        self.rnn = SparseGRU(16, 12, density=0.3)
        self.out = nn.Linear(12, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.out(self.rnn(self.act(self.fc(x)))[0])


def build(kind: str) -> tuple[nn.Module, tuple[int, ...]]:
    torch.manual_seed(1)
    if kind == "stack":
        return nn.Sequential(SparseLinear(10, 16, density=0.4), nn.Tanh(), SparseLinear(16, 8, density=0.4)), (6, 10)
    if kind == "net":
        return Net(), (5, 4, 10)
    if kind == "rnn":
        return SparseRNN(10, 12, 2, density=0.3, bidirectional=True), (5, 4, 10)
    if kind == "lstm":
        return SparseLSTM(10, 12, density=0.3, batch_first=True), (4, 5, 10)
    return nn.Sequential(SparseLinear(10, 14, density=0.4), SparseRLIF(0.8, 14, density=0.3)), (5, 4, 10)


def sparse_weights(model: nn.Module) -> dict[str, SparseWeight]:
    return {n: m for n, m in model.named_modules() if isinstance(m, SparseWeight)}


@pytest.mark.parametrize("kind", ["stack", "net", "rnn", "lstm", "spiking"])
@pytest.mark.parametrize("way", WAYS)
def test_the_number_of_connections_never_changes(kind, way):
    model, shape = build(kind)
    optimizer = torch.optim.Adam(model.parameters(), 0.01)
    rule = Rewire(model, optimizer, drop=WAYS[way][0], grow=WAYS[way][1], fraction=0.2, every=3, seed=1)
    assert isinstance(rule, Rule)
    fan = {n: (w.nnz, w.pattern) for n, w in sparse_weights(model).items()}
    changed = []
    for _ in range(9):
        before = {n: (w.dense().detach(), w.pattern) for n, w in sparse_weights(model).items()}
        step(model, optimizer, torch.randn(shape))
        after = {n: w.dense().detach() for n, w in sparse_weights(model).items()}
        changed.append(rule.step())
        for name, weight in sparse_weights(model).items():
            assert weight.nnz == fan[name][0]
            old, new = before[name][1].mask(), weight.pattern.mask()  # a Pattern refuses an edge that is there twice
            grown = torch.from_numpy(new & ~old)
            assert not weight.dense().detach()[grown].any()
            assert torch.equal(weight.dense().detach(), after[name] * torch.from_numpy(new & old))
            if changed[-1]:
                gates = 3 if "rnn." in name else 1
                parts = [m.reshape(gates, -1).sum(1).tolist() for m in (old, new)]
                assert parts[0] == parts[1], "each gate keeps its number"
    assert changed == [False, False, True] * 3
    assert all(weight.pattern != fan[name][1] for name, weight in sparse_weights(model).items())
    assert sum(e.count for e in rule.last) > 0
    rule.remove()
    assert not any(m._forward_hooks for m in model.modules())


def test_copies_of_a_model_do_not_carry_the_rule():
    model, shape = build("net")
    optimizer = torch.optim.Adam(model.parameters(), 0.01)
    Rewire(model, optimizer, drop=drop.three, grow=grow.correlation, every=5)
    assert not any(m._forward_hooks for m in model.modules())
    torch.save(model, io.BytesIO())
    assert copy.deepcopy(model)(torch.randn(shape)).shape == (5, 4, 2)


@pytest.mark.parametrize("centered", [False, True])
def test_the_edge_that_a_planted_correlation_demands_grows(centered):
    torch.manual_seed(0)
    layer = SparseLinear(20, 10, density=0.2)
    model = nn.Sequential(layer, nn.Sigmoid())
    optimizer = torch.optim.SGD(model.parameters(), 0.0)
    with torch.no_grad():
        layer.weight.values.mul_(6)
    signals = Signals(model, centered=centered)
    rule = Rewire(model, optimizer, drop=drop.random, grow=grow.correlation, fraction=0.03, every=1, signals=signals)
    dead = np.argwhere(~layer.weight.pattern.mask())
    target, source = dead[17]
    x = torch.rand(200, 20)
    with torch.no_grad():
        x[:, source] = model(x)[:, target] if not (layer.weight.pattern.mask()[target] @ np.ones(20)) else x[:, source]
        for _ in range(5):  # the input that the target follows already, whatever it computes
            x[:, source] = model(x)[:, target]
    step(model, optimizer, x)
    assert rule.step()
    assert layer.weight.pattern.mask()[target, source]


def test_gradients_of_dead_connections_are_those_of_a_dense_layer():
    shapes = {"stack": (6, 10), "net": (5, 4, 10), "rnn": (5, 4, 10), "lstm": (4, 5, 10), "spiking": (5, 4, 10)}
    for kind, shape in shapes.items():
        model, _ = build(kind)
        signals = Signals(model)
        signals.listen(True, gradients=True)
        x = torch.randn(shape)
        optimizer = torch.optim.SGD(model.parameters(), 0.0)
        step(model, optimizer, x)
        found = {n: signals.gradient_sides(n) for n in signals.sites}
        for name, site in signals.sites.items():
            dense, _ = build(kind)
            weight = next(w for n, w in sparse_weights(dense).items() if n == path_of(name, dense))
            everything = SparseWeight(Pattern.full(*weight.shape))
            everything.set_dense(weight.dense())
            replace(dense, path_of(name, dense), everything)
            step(dense, torch.optim.SGD(dense.parameters(), 0.0), x)
            truth = everything.scatter(everything.values.grad).numpy()
            scale = np.abs(truth).max()
            np.testing.assert_allclose(found[name].block(0, site.pattern.shape[0]), truth, atol=2e-5 * scale + 1e-9)
            live = found[name].of(site.pattern)
            np.testing.assert_allclose(live, truth[site.pattern.mask()], atol=2e-5 * scale + 1e-9)


def path_of(name: str, model: nn.Module) -> str:
    """Module path of the weight that rules call ``name``."""
    node, _, role = name.rpartition(".")
    for path, module in model.named_modules():
        if isinstance(module, SparseWeight):
            owner, _, own = path.rpartition(".")
            if own == "weight" and role == "weight" and owner == node:
                return path
            if own == "recurrent" and role == "hh" and owner == node:
                return path
            if own.startswith("weight_"):
                _, kind, suffix = own.split("_", 2)
                root = owner or type(model).__name__.lower()
                if (f"{root}.{suffix}", kind) == (node, role):
                    return path
    raise AssertionError(name)


def replace(model: nn.Module, path: str, new: nn.Module) -> None:
    parent, _, name = path.rpartition(".")
    setattr(model.get_submodule(parent), name, new)


def test_activity_is_what_the_next_module_makes_of_it():
    model, shape = build("net")
    signals = Signals(model)
    signals.listen(True)
    x = torch.randn(shape)
    with torch.no_grad():
        hidden = model.act(model.fc(x))
        states = model.rnn(hidden)[0]
    signals.forget_step()
    model(x)
    signals.take()
    before = torch.cat([torch.zeros(1, 4, 12), states[:-1]])
    for name, pre, post in (("fc.weight", x, hidden), ("rnn.l0.ih", hidden, states), ("rnn.l0.hh", before, states)):
        expected = normalised([(1.0, post.flatten(0, 1), pre.flatten(0, 1))], centered=False)
        torch.testing.assert_close(signals.sides(name).left, expected.left)
        torch.testing.assert_close(signals.sides(name).right, expected.right)
    model.eval()
    signals.forget_step()
    model(x)
    with pytest.raises(UsageError, match=r"nothing was heard of 'fc.weight'"):
        signals.take()
    functional = Signals(model, post={"fc.weight": torch.tanh})
    functional.listen(True)
    model.train()(x)
    functional.take()
    expected = normalised([(1.0, torch.tanh(model.fc(x)).detach().flatten(0, 1), x.flatten(0, 1))], centered=False)
    torch.testing.assert_close(functional.sides("fc.weight").left, expected.left)


def test_a_moving_average_weighs_batches_and_forgets():
    layer = SparseLinear(6, 5, density=0.5)
    signals = Signals(layer, momentum=0.5, samples=4)
    signals.listen(True)
    seen = []
    for k in range(12):
        x = torch.randn(4, 6, generator=torch.Generator().manual_seed(k))
        y = layer(x)
        signals.take()
        signals.forget_step()
        seen.append((y.detach(), x))
    kept = [(0.5**k, *seen[-1 - k]) for k in range(7)][::-1]
    expected = normalised(kept, centered=False)
    torch.testing.assert_close(
        signals.sides("sparselinear.weight").block(0, 5), expected.block(0, 5), check_dtype=False
    )
    layer(torch.randn(100, 6))
    signals.take()
    assert len(signals._kept["sparselinear.weight"][-1][0]) == 4
    other = Signals(layer, momentum=0.5)
    other.load_state_dict(signals.state_dict())
    assert np.array_equal(
        other.sides("sparselinear.weight").block(0, 5), signals.sides("sparselinear.weight").block(0, 5)
    )


@pytest.mark.parametrize("way", WAYS)
def test_empty_batches_and_nan_do_no_harm(way):
    torch.manual_seed(0)
    model = nn.Sequential(SparseLinear(10, 16, density=0.4), nn.ReLU(), SparseRLIF(0.8, 16, density=0.3))
    optimizer = torch.optim.SGD(model.parameters(), 0.0)
    rule = Rewire(model, optimizer, drop=WAYS[way][0], grow=WAYS[way][1], fraction=0.2, every=1)
    counts = {name: site.nnz for name, site in rule.sites.items()}
    broken = torch.randn(3, 4, 10)
    broken[1, 2, 5] = float("nan")
    for x in (torch.zeros(3, 0, 10), torch.zeros(0, 4, 10), broken, torch.full((3, 4, 10), float("nan"))):
        spikes, membranes = model(x)
        (membranes.sum() + spikes.sum()).backward()
        optimizer.step()
        assert rule.step()
        assert {name: site.nnz for name, site in rule.sites.items()} == counts


# Modules stay --------------------------------------------------------------------------------------------------------


@settings(max_examples=12, deadline=None)
@given(st.floats(0.2, 1.0), st.floats(0.05, 0.5), st.sampled_from(sorted(WAYS)), st.integers(0, 5))
def test_modules_are_respected(intra, inter, way, seed):
    torch.manual_seed(seed)
    tiers = modular(4, intra, inter, targets=interleaved)
    model = nn.Sequential(SparseLinear(16, 24, density=None, pattern=tiers), nn.ReLU())
    optimizer = torch.optim.Adam(model.parameters(), 0.01)
    ways = WAYS[way]
    rule = Rewire(model, optimizer, drop=ways[0], grow=ways[1], fraction=0.3, every=1, modules=tiers, seed=seed)
    inside = interleaved(24, 4)[:, None] == contiguous(16, 4)[None, :]
    counts = [model[0].weight.pattern.mask()[inside].sum(), model[0].weight.pattern.mask()[~inside].sum()]
    first = model[0].weight.pattern
    for _ in range(4):
        step(model, optimizer, torch.randn(9, 16))
        rule.step()
        mask = model[0].weight.pattern.mask()
        assert [mask[inside].sum(), mask[~inside].sum()] == counts
    assert model[0].weight.pattern != first
    with pytest.raises(UsageError, match="does not fit"):
        Rewire(model, optimizer, modules=modular(5))


# Known rules ---------------------------------------------------------------------------------------------------------


def test_set_drops_the_smallest():
    torch.manual_seed(0)
    layer = SparseLinear(30, 20, density=0.3)
    optimizer = torch.optim.SGD(layer.parameters(), 0.0)
    rule = SET(layer, optimizer, every=1)
    values = layer.weight.values.detach().abs().clone()
    old = layer.weight.pattern
    n = round(0.3 * len(values))
    assert rule.step()
    gone = (old.mask() & ~layer.weight.pattern.mask())[old.rows, old.indices]
    assert gone.sum() == n
    assert values[torch.from_numpy(gone)].max() <= values[torch.from_numpy(~gone)].min()


def test_rigl_fades_out_and_grows_the_steepest():
    assert cosine(0.3, 100)(0) == pytest.approx(0.3)
    assert cosine(0.3, 100)(50) == pytest.approx(0.15)
    assert cosine(0.3, 100)(100) == cosine(0.3, 100)(500) == pytest.approx(0, abs=1e-12)
    torch.manual_seed(0)
    layer = SparseLinear(30, 20, density=0.3)
    optimizer = torch.optim.SGD(layer.parameters(), 0.0)
    rule = RigL(layer, optimizer, steps=8, every=2, alpha=0.4)
    due = []
    for _ in range(10):
        x = torch.randn(9, 30)
        old = layer.weight.pattern
        step(layer, optimizer, x)
        y = layer(x).detach()
        gradient = (2 * (y - 0.3) / y.numel()).T @ x
        due.append(rule.step())
        grown = layer.weight.pattern.mask() & ~old.mask()
        dead = ~old.mask() & ~grown
        if grown.any():
            assert gradient.abs()[torch.from_numpy(grown)].min() >= gradient.abs()[torch.from_numpy(dead)].max() - 1e-6
    assert due == [False, True] * 3 + [False] * 4


def test_deep_r_keeps_signs_and_replaces_what_crosses_zero():
    torch.manual_seed(0)
    model = nn.Sequential(SparseLinear(12, 16, density=0.4), nn.ReLU(), SparseLinear(16, 4, density=0.4))
    optimizer = torch.optim.SGD(model.parameters(), 0.3)
    signs = dale_signs(12, 0.5)
    rule = DeepR(model, optimizer, alpha=1e-2, temperature=1e-4, signs={"0.weight": signs}, seed=3)
    exchanged = 0
    for _ in range(30):
        before = [w.dense().detach().sign() for w in (model[0].weight, model[2].weight)]
        step(model, optimizer, torch.randn(20, 12))
        rule.step()
        exchanged += sum(e.count for e in rule.last)
        assert [e.nnz for e in rule.last] == [w.nnz for w in sparse_weights(model).values()]
        for old, weight in zip(before, (model[0].weight, model[2].weight), strict=True):
            assert not bool((old * weight.dense().detach().sign() < 0).any()), "a sign flipped without dying"
        assert bool((model[0].weight.dense().detach() * torch.from_numpy(signs) >= 0).all())
    assert exchanged > 0
    with pytest.raises(UsageError, match="one per source"):
        DeepR(model, optimizer, signs={"0.weight": signs[:3]})


def test_dale_keeps_the_sign_of_each_source():
    torch.manual_seed(0)
    layer = SparseLinear(12, 16, density=0.4)
    optimizer = torch.optim.SGD(layer.parameters(), 1.0)
    signs = dale_signs(12, 0.7)
    dale = Dale(layer, {"sparselinear.weight": signs})
    corrected = 0
    for _ in range(5):
        assert bool((layer.weight.dense().detach() * torch.from_numpy(signs) >= 0).all())
        step(layer, optimizer, torch.randn(20, 12))
        corrected += dale.step()
    assert corrected
    dale.load_state_dict(dale.state_dict())
    with pytest.raises(UsageError, match="expected \\+1 or -1"):
        Dale(layer, {"sparselinear.weight": signs * 2})


# Masks of dense modules ----------------------------------------------------------------------------------------------


class Loop(nn.Module):
    """A dense GRU of two layers and a read-out."""

    def __init__(self) -> None:
        super().__init__()
        self.rnn = nn.GRU(6, 10, 2, bidirectional=True)
        self.out = nn.Linear(20, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.out(self.rnn(x)[0])


@pytest.mark.parametrize("way", WAYS)
def test_masked_modules_are_rewired_too(way):
    torch.manual_seed(0)
    model = Loop()
    optimizer = torch.optim.Adam(model.parameters(), 0.01)
    masks = Masks.prune(model, 0.7)
    rule = Rewire(masks, optimizer, drop=WAYS[way][0], grow=WAYS[way][1], fraction=0.2, every=2)
    counts, first = {n: p.nnz for n, p in masks.patterns.items()}, dict(masks.patterns)
    for _ in range(4):
        old = dict(masks.patterns)
        step(model, optimizer, torch.randn(5, 4, 6))
        rule.step()
        masks.check()
        for name, pattern in masks.patterns.items():
            assert pattern.nnz == counts[name]
            grown = torch.from_numpy(pattern.mask() & ~old[name].mask())
            parameter = masks.ref(name).parameter(model)
            assert not parameter.detach()[grown].any()
            assert not optimizer.state[parameter]["exp_avg"][grown].any()
    assert all(masks.patterns[n] != first[n] for n in first)


def test_a_masked_layer_hears_what_its_sparse_form_hears():
    torch.manual_seed(0)
    dense = nn.GRU(6, 10, 2, bidirectional=True)
    masks = Masks.prune(dense, 0.6)
    sparse = SparseGRU.from_dense(dense, masks, "gru")
    x = torch.randn(5, 4, 6)
    heard = []
    for target, model in ((masks, dense), (sparse, sparse)):
        signals = Signals(target)
        signals.listen(True)
        model(x)
        signals.take()
        heard.append([signals.sides(name) for name in signals.sites])
    for one, other in zip(*heard, strict=True):
        torch.testing.assert_close(one.left, other.left, atol=1e-5, rtol=0)
        torch.testing.assert_close(one.right, other.right, atol=1e-5, rtol=0)


def test_packed_sequences_are_heard_like_padded_ones():
    from torch.nn.utils.rnn import pack_padded_sequence

    torch.manual_seed(0)
    x, lengths = torch.randn(5, 3, 6), torch.tensor([3, 5, 2])
    for model in (nn.GRU(6, 10, bidirectional=True), SparseGRU(6, 10, density=0.5, bidirectional=True)):
        target = Masks.prune(model, 0.5) if isinstance(model, nn.GRU) else model
        signals = Signals(target)
        signals.listen(True)
        model(pack_padded_sequence(x, lengths, enforce_sorted=False))
        signals.take()
        packed = {name: signals.sides(name).block(0, 10) for name in signals.sites}
        alone = Signals(target)
        pieces = {name: [] for name in alone.sites}
        for k, n in enumerate(lengths.tolist()):
            alone.listen(True)
            model(x[:n, k : k + 1])
            alone.take()
            alone.forget_step()
            for name in alone.sites:
                pieces[name].append((1.0, *alone._kept[name][-1]))
        for name, block in packed.items():
            np.testing.assert_allclose(block, normalised(pieces[name], centered=False).block(0, 10), atol=1e-5)


def test_mistakes_are_said_at_once():
    model, _ = build("stack")
    optimizer = torch.optim.Adam(model.parameters())
    with pytest.raises(NothingMatchedError, match="no sparse layer"):
        SET(nn.Linear(3, 3), optimizer, every=1)
    with pytest.raises(UsageError, match="does not hold"):
        SET(model, torch.optim.SGD(nn.Linear(2, 2).parameters(), 0.1), every=1)
    with pytest.raises(UsageError, match="expected 1 or more"):
        SET(model, optimizer, every=0)
    with pytest.raises(UsageError, match="expected the share"):
        SET(model, optimizer, every=1, fraction=2.0)
    with pytest.raises(UsageError, match="weight"):
        SET(model, optimizer, every=1, names=["nothing"])
    projected = SparseLSTM(6, 12, proj_size=4, density=0.4)
    rule = G2G(projected, torch.optim.SGD(projected.parameters(), 0.1), every=1)
    step(projected, torch.optim.SGD(projected.parameters(), 0.1), torch.randn(3, 2, 6))
    with pytest.raises(UnsupportedError, match="projection"):
        rule.step()
    dense = Masks.prune(nn.Sequential(nn.Linear(10, 8), nn.ReLU(), nn.Linear(8, 4)), 0.5)
    optimizer = torch.optim.SGD(dense.model.parameters(), 0.1)
    rule = RigL(dense, optimizer, steps=10, every=1)
    with pytest.raises(UsageError, match="before zero_grad"):
        rule.step()
