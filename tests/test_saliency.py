"""Scores that look at data, against their formulas; budgets that add up."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch", reason="torch is not installed")

import sparsecirc as sc  # noqa: E402
from sparsecirc import Graph, Masks, budgets, interpret, prune, saliency  # noqa: E402
from sparsecirc._prune import Scope, named  # noqa: E402
from sparsecirc.cells import GRU, LIF, LSTM, RNN_TANH  # noqa: E402
from sparsecirc.errors import NothingMatchedError, UsageError  # noqa: E402
from sparsecirc.frontends import from_torch  # noqa: E402
from sparsecirc.ir import Input, Linear  # noqa: E402
from sparsecirc.rules import Cubic  # noqa: E402
from sparsecirc.testing import recurrent_graph  # noqa: E402


class Net(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.rnn = torch.nn.GRU(3, 4)
        self.fc = torch.nn.Linear(4, 2)

    def forward(self, x):
        return self.fc(self.rnn(x)[0][-1])


def batches(n=3):
    rng = torch.Generator().manual_seed(1)
    return [(torch.randn(5, 2, 3, generator=rng), torch.tensor([0, 1])) for _ in range(n)]


def loss(model, batch):
    x, y = batch
    return torch.nn.functional.cross_entropy(model(x), y)


def gradients(model, data):
    """By batch, by weight name."""
    keys = {"rnn.l0.ih": "rnn.weight_ih_l0", "rnn.l0.hh": "rnn.weight_hh_l0", "fc.weight": "fc.weight"}
    found = []
    for batch in data:
        model.zero_grad()
        loss(model, batch).backward()
        found.append({n: model.get_parameter(k).grad.double().numpy().copy() for n, k in keys.items()})
    model.zero_grad()
    return found, {n: model.get_parameter(k).detach().double().numpy() for n, k in keys.items()}


def test_gradient_scores_are_their_formulas():
    model = Net()
    each, weights = gradients(model, batches())
    for name, w in weights.items():
        g = np.mean([e[name] for e in each], axis=0)
        squares = np.mean([e[name] ** 2 for e in each], axis=0)
        for score, want in [
            (saliency.snip, np.abs(w * g)),
            (saliency.taylor, w * w * squares),
            (saliency.fisher, w * w * squares / 2),
        ]:
            got = score(model, batches(), loss)(w, name)
            assert np.allclose(got, want, rtol=1e-4, atol=1e-12)


def test_grasp_is_the_change_of_the_gradients_length():
    model = Net().double()
    data = [(x.double(), y) for x, y in batches()]
    _, weights = gradients(model, data)
    score = saliency.grasp(model, data, loss)
    parameter = model.rnn.weight_hh_l0

    def length():
        parameters = [model.rnn.weight_ih_l0, parameter, model.fc.weight]
        total = sum(loss(model, b) for b in data) / len(data)
        return sum((g**2).sum() for g in torch.autograd.grad(total, parameters)).item()

    h, at = 1e-5, (2, 1)
    with torch.no_grad():
        parameter[at] += h
    up = length()
    with torch.no_grad():
        parameter[at] -= 2 * h
    down = length()
    with torch.no_grad():
        parameter[at] += h
    # d(g.g)/dw = 2 H g; the score takes g as a constant on one side: half of it.
    want = weights["rnn.l0.hh"][at] * (up - down) / (2 * h) / 2
    assert score(weights["rnn.l0.hh"], "rnn.l0.hh")[at] == pytest.approx(want, rel=1e-4)


@pytest.mark.parametrize("score", [saliency.snip, saliency.taylor, saliency.fisher, saliency.grasp])
def test_scoring_leaves_the_model_as_it_was(score):
    model = Net()
    model.fc.weight.requires_grad_(False)
    model.rnn.weight_ih_l0.grad = torch.ones_like(model.rnn.weight_ih_l0)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    made = score(model, batches(), loss)
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert not model.fc.weight.requires_grad
    assert bool((model.rnn.weight_ih_l0.grad == 1).all())
    assert model.rnn.weight_hh_l0.grad is None
    masks = Masks.prune(model, 0.5, score=made)
    assert masks["rnn.l0.hh"].nnz == 24
    assert masks.digest == Masks.prune(Net(), 0.5, score=score(Net(), batches(), loss)).digest  # the same again


@pytest.mark.parametrize(
    ("data", "how", "message"),
    [
        ([], loss, "no batch was given"),
        (batches(1), lambda m, b: m(b[0]), r"gave \(2, 2\): expected a tensor with one number"),
        (batches(1), lambda m, b: 3.0, "gave float: expected a tensor"),
        (batches(1), lambda m, b: loss(m, b) * float("nan"), "is nan: gradients of it mean nothing"),
        (batches(1), lambda m, b: loss(m, b).detach(), "does not depend on any weight"),
    ],
)
def test_losses_that_give_no_gradient_are_refused(data, how, message):
    with pytest.raises(UsageError, match=message):
        saliency.snip(Net(), data, how)


def test_a_score_of_another_network_is_refused():
    score = saliency.snip(Net(), batches(), loss)
    with pytest.raises(UsageError, match=r"snip knows nothing of weight 'other.hh'"):
        score(np.ones((3, 3)), "other.hh")
    with pytest.raises(UsageError, match=r"was computed for shape \(12, 4\), the weight has \(12, 5\)"):
        score(np.ones((12, 5)), "rnn.l0.hh")
    with pytest.raises(NothingMatchedError, match="no weights that can be pruned"):
        saliency.snip(torch.nn.Sequential(torch.nn.ReLU()), batches(), loss)


def test_movement_adds_up_and_goes_on_after_a_stop():
    model, data = Net(), batches(4)
    score = saliency.Movement(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    want = 0
    for k, batch in enumerate(data):
        optimizer.zero_grad()
        loss(model, batch).backward()
        w = model.rnn.weight_hh_l0
        want = want - (w * w.grad).detach().double().numpy()
        score.step()
        optimizer.step()
        if k == 1:
            state = score.state_dict()
            score = saliency.Movement(model)
            score.load_state_dict(state)
    assert score.steps == 4
    assert np.allclose(score(np.zeros((12, 4)), "rnn.l0.hh"), want, atol=1e-7)
    with pytest.raises(UsageError, match="no movement state of this model"):
        score.load_state_dict({"steps": 1, "sums": {}})
    with pytest.raises(UsageError, match="movement knows nothing of weight 'x'"):
        score(np.zeros((1, 1)), "x")


def test_movement_drives_a_schedule():
    model = Net()
    masks = Masks(model, {})
    score = saliency.Movement(model)
    rule = Cubic(masks, 0.5, begin=0, end=4, every=2, score=score)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    masks.attach(optimizer)
    for batch in batches(4):
        optimizer.zero_grad()
        loss(model, batch).backward()
        score.step()
        optimizer.step()
        rule.step()
    assert masks["rnn.l0.hh"].nnz == 24


@pytest.mark.parametrize("cell", [GRU, LSTM, RNN_TANH, LIF], ids=lambda c: c.name)
def test_activity_is_the_mean_of_what_comes_through(cell):
    graph = recurrent_graph(cell, 5, 6, 1.0)
    rng = np.random.default_rng(0)
    x = rng.standard_normal((7, 3, 5)) * np.arange(5)
    lengths = np.array([7, 2, 5])
    score = saliency.activity(graph, x, lengths=lengths)
    ones = np.ones((cell.n_gates * 6, 5))
    seen = np.concatenate([np.abs(x[:n, b]) for b, n in enumerate(lengths)])
    assert np.allclose(score(ones, "rnn.ih"), seen.mean(axis=0))
    state = "spk" if cell.spiking else "h"
    h = interpret(graph, x, lengths=lengths, keep_values=True).values[f"rnn.{state}"]
    fed = sum(np.abs(h[: n - 1, b]).sum(axis=0) for b, n in enumerate(lengths)) / lengths.sum()
    assert np.allclose(score(np.ones((cell.n_gates * 6, 6)), "rnn.hh"), fed)


def test_activity_keeps_what_is_used():
    weight = np.array([[1.0, 3.0, 2.0]])
    graph = Graph((Input("x", shape=(3,)), Linear("fc", ("x",), {"weight": weight})), {"y": "fc"})
    x = np.tile([5.0, 0.0, 1.0], (4, 2, 1))
    score = saliency.activity(graph, x)
    assert score(weight, "fc.weight").tolist() == [[5.0, 0.0, 2.0]]
    pruned = prune(graph, 1 / 3, score=score, select=named("*"))
    assert pruned.node("fc").patterns["weight"].mask().tolist() == [[True, False, True]]
    silent = saliency.activity(graph, 0 * x, floor=1.0)
    assert silent(weight, "fc.weight").tolist() == [[1.0, 3.0, 2.0]]
    with pytest.raises(UsageError, match="activity floor -1"):
        saliency.activity(graph, x, floor=-1)
    with pytest.raises(UsageError, match="no samples or no steps"):
        saliency.activity(graph, x[:0])


def test_activity_names_match_the_torch_model():
    model = Net()
    x = torch.randn(5, 2, 3)
    score = saliency.activity(from_torch(model, example=x), x.numpy())
    assert Masks.prune(model, 0.5, score=score)["rnn.l0.hh"].nnz == 24


# Budgets -------------------------------------------------------------------------------------------------------------


def reached(model, sparsity):
    masks = Masks.prune(model, sparsity)
    total = sum(p.shape[0] * p.shape[1] for p in masks.patterns.values())
    return 1 - sum(p.nnz for p in masks.patterns.values()) / total, masks


@settings(max_examples=30)
@given(sparsity=st.floats(0, 0.97), inputs=st.integers(1, 60), units=st.integers(2, 40))
def test_budgets_meet_the_sparsity(sparsity, inputs, units):
    model = torch.nn.Sequential(torch.nn.GRU(inputs, units))
    infos = Masks(model, {}).weights()
    for make in (budgets.uniform, budgets.erdos_renyi):
        shares = make(infos, sparsity)
        sizes = {i.name: i.pattern.shape[0] * i.pattern.shape[1] for i in infos}
        met = sum(shares[n] * size for n, size in sizes.items()) / sum(sizes.values())
        assert met == pytest.approx(sparsity, abs=1e-9)
        assert all(0 <= s < 1 for s in shares.values())


def test_larger_weights_lose_more():
    model = torch.nn.Sequential(torch.nn.GRU(8, 64))
    shares = budgets.erdos_renyi(Masks(model, {}).weights(), 0.9)
    assert shares["0.l0.hh"] > 0.9 > shares["0.l0.ih"]
    eps = [(1 - shares[n]) * r * c / (r + c) for n, r, c in (("0.l0.hh", 64, 64), ("0.l0.ih", 64, 8))]
    assert eps[0] == pytest.approx(eps[1])
    got, masks = reached(model, shares)
    assert got == pytest.approx(0.9, abs=0.01)
    assert masks["0.l0.hh"].density < 0.1


def test_a_minimum_density_holds_and_small_weights_stay_whole():
    infos = Masks(torch.nn.Sequential(torch.nn.GRU(2, 64)), {}).weights()
    shares = budgets.erdos_renyi(infos, 0.7)
    assert shares["0.l0.ih"] == 0.0  # it would be more than whole
    floor = budgets.erdos_renyi(Masks(torch.nn.Sequential(torch.nn.GRU(32, 64)), {}).weights(), 0.9, minimum=0.08)
    assert max(floor.values()) <= 0.92 + 1e-12
    with pytest.raises(UsageError, match=r"minimum density of 0.2 leaves more than sparsity 0.9"):
        budgets.uniform(infos, 0.9, minimum=0.2)
    with pytest.raises(UsageError, match="minimum density 2"):
        budgets.uniform(infos, 0.9, minimum=2)
    with pytest.raises(UsageError, match="sparsity"):
        budgets.uniform(infos, 1.5)
    with pytest.raises(NothingMatchedError, match="no weight is selected"):
        budgets.uniform(infos, 0.5, select=named("x"))


def test_kernels_of_convolutions_count():
    model = torch.nn.Sequential(torch.nn.Conv2d(4, 8, 3), torch.nn.Linear(36, 20), torch.nn.Linear(20, 2))
    infos = Masks(model, {}).weights()
    shares = budgets.erdos_renyi_kernel(infos, 0.5, {"0.weight": (3, 3)})
    conv = (1 - shares["0.weight"]) * (8 * 36) / (8 + 4 + 6)
    fc = (1 - shares["1.weight"]) * (20 * 36) / (20 + 36)
    assert conv == pytest.approx(fc)
    with pytest.raises(UsageError, match=r"does not divide the 36 columns of '0.weight'"):
        budgets.erdos_renyi_kernel(infos, 0.5, {"0.weight": (5,)})


def test_budgets_of_a_graph():
    graph = recurrent_graph(GRU, 9, 30, 1.0)
    shares = budgets.erdos_renyi(graph, 0.8)
    made = prune(graph, shares, scope=Scope.PER_GATE)
    assert made.density == pytest.approx(0.2, abs=0.01)
    assert sc.compile(made).explain().rows
