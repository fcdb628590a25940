"""Rewinding and pruning until accuracy drops: what comes back, when it ends, and going on after a stop."""

from __future__ import annotations

import copy
import io

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")

from sparsecirc import Masks  # noqa: E402
from sparsecirc.errors import UsageError  # noqa: E402
from sparsecirc.rules import Rewind, Rule, UntilDrop  # noqa: E402


def network():
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(6, 10), torch.nn.BatchNorm1d(10), torch.nn.Linear(10, 2))


class Loop:
    """A training loop on random data that can be saved and resumed."""

    def __init__(self, make):
        self.model = network()
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=0.01)
        self.rule = make(self.model, self.optimizer)
        self.rule.masks.attach(self.optimizer)
        self.t = 0

    def run(self, steps):
        changed = []
        for _ in range(steps):
            g = torch.Generator().manual_seed(self.t)
            x = torch.randn(8, 6, generator=g)
            self.optimizer.zero_grad()
            self.model(x).square().mean().backward()
            self.optimizer.step()
            self.t += 1
            if self.rule.step():
                changed.append(self.t)
        return changed

    def saved(self):
        buffer = io.BytesIO()
        parts = {"model": self.model, "optimizer": self.optimizer, "rule": self.rule}
        torch.save({**{k: v.state_dict() for k, v in parts.items()}, "t": self.t}, buffer)
        buffer.seek(0)
        return torch.load(buffer, weights_only=True)

    def load(self, state):
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.rule.load_state_dict(state["rule"])
        self.t = state["t"]


def rewind(model, optimizer):
    return Rewind(model, 0.5, rounds=3, every=4, to=1, optimizer=optimizer)


def same(a, b):
    return all(torch.equal(v, b.state_dict()[k]) for k, v in a.state_dict().items())


def test_survivors_return_to_their_early_weights():
    loop = Loop(rewind)
    assert isinstance(loop.rule, Rule)
    loop.run(1)
    early = copy.deepcopy(loop.model.state_dict())
    assert loop.run(3) == [4]
    masks = loop.rule.masks
    assert masks["0.weight"].density == 0.5
    now = loop.model.state_dict()
    mask = torch.from_numpy(masks["0.weight"].mask())
    assert torch.equal(now["0.weight"], early["0.weight"] * mask)
    assert all(torch.equal(now[k], early[k]) for k in now if k != "0.weight")  # biases, buffers and the read-out too
    assert not loop.optimizer.state
    assert loop.run(8) == [8, 12]
    assert masks["0.weight"].nnz == round(0.125 * 60)
    assert loop.rule.done
    assert loop.run(8) == []
    masks.check()


def test_rewinding_to_the_first_weights():
    model = network()
    first = copy.deepcopy(model.state_dict())
    rule = Rewind(model, 0.5, rounds=1, every=1)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(1.0)
    assert rule.step()
    mask = torch.from_numpy(rule.masks["0.weight"].mask())
    assert torch.equal(model[0].weight, first["0.weight"] * mask)


@pytest.mark.parametrize("stop", [0, 1, 3, 4, 6, 11])
def test_rewinding_goes_on_after_a_stop(stop):
    whole, first, second = Loop(rewind), Loop(rewind), Loop(rewind)
    whole.run(14)
    first.run(stop)
    second.load(first.saved())
    second.run(14 - stop)
    assert same(whole.model, second.model)
    assert whole.rule.masks.digest == second.rule.masks.digest


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"rounds": 0}, "expected rounds >= 1"),
        ({"to": 4}, "expected rounds >= 1 and 0 <= to < every"),
        ({"share": 0.0}, "share of a round is 0.0: expected a number above 0"),
        ({"share": 1.0}, "share of a round is 1.0"),
    ],
)
def test_impossible_rounds_are_refused(arguments, message):
    given = {"share": 0.5, "rounds": 2, "every": 4} | arguments
    with pytest.raises(UsageError, match=message):
        Rewind(network(), **given)


def values(*numbers):
    left = list(numbers)
    return lambda: left.pop(0)


def test_it_returns_to_the_last_good_network():
    model = network()
    rule = UntilDrop(model, values(0.9, 0.91, 0.895, 0.88), tolerance=0.01, every=2, share=0.5)
    assert isinstance(rule, Rule)
    seen = []
    for k in range(8):
        with torch.no_grad():
            model[0].weight.add_(0.01)
        rule.masks.apply()
        if k == 3:  # what is evaluated in this step, and found good
            good = copy.deepcopy(model.state_dict())
            digest = rule.masks.digest
        seen.append(rule.step())
        if k == 5:
            assert all(torch.equal(v, good[name]) for name, v in model.state_dict().items())
    # Pruned at 2 and 4; at 6 it has dropped below .89: back to what was good at 4, and nothing more.
    assert seen == [False, True, False, True, False, True, False, False]
    assert [h[0] for h in rule.history] == [0, 2, 4, 6]
    assert rule.history[-1][1] == 0.75
    assert rule.done
    assert rule.sparsity == 0.5
    assert rule.masks.digest == digest


def test_a_network_that_never_drops_ends_at_the_limit():
    rule = UntilDrop(network(), lambda: 1.0, tolerance=0.0, every=1, share=0.5, limit=0.7)
    changed = [rule.step() for _ in range(5)]
    assert changed == [True, True, False, False, False]
    assert rule.sparsity == 0.7
    assert rule.done


def test_a_bad_start_ends_with_the_dense_network():
    model = network()
    before = copy.deepcopy(model.state_dict())
    rule = UntilDrop(model, values(0.9, 0.9, 0.1), tolerance=0.0, every=1)
    assert [rule.step() for _ in range(3)] == [True, True, False]
    assert rule.sparsity == 0.0
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


@pytest.mark.parametrize(("last", "sparsity"), [(0.9, 0.5), (0.7, 0.0)])
def test_training_that_ends_early_judges_the_last_share(last, sparsity):
    model = network()
    before = copy.deepcopy(model.state_dict())
    rule = UntilDrop(model, values(0.9, 0.9, last), tolerance=0.1, every=1, share=0.5)
    assert rule.step()
    assert rule.last is not None
    assert rule.finish() == (sparsity == 0)
    assert rule.done
    assert rule.sparsity == sparsity
    assert (rule.last is None) == (sparsity == 0)
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items()) == (sparsity == 0)
    assert not rule.finish()
    assert len(rule.history) == 3


@pytest.mark.parametrize("stop", [0, 1, 3, 5])
def test_the_search_goes_on_after_a_stop(stop):
    def make(model, optimizer):
        return UntilDrop(
            model, lambda: float((model[0].weight != 0).float().mean() > 0.3), tolerance=0.5, every=2, share=0.4
        )

    whole, first, second = Loop(make), Loop(make), Loop(make)
    whole.run(10)
    assert whole.rule.done
    first.run(stop)
    second.load(first.saved())
    second.run(10 - stop)
    assert same(whole.model, second.model)
    assert whole.rule.history == second.rule.history
    assert whole.rule.masks.digest == second.rule.masks.digest


def test_states_of_others_are_refused():
    rule = UntilDrop(network(), lambda: 1.0, tolerance=0.0, every=1)
    with pytest.raises(UsageError, match="expected the state_dict"):
        rule.load_state_dict({"rule": "Cubic"})
    other = UntilDrop(
        torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.Linear(3, 2)), lambda: 1.0, tolerance=0, every=1
    )
    with pytest.raises(UsageError, match="weights of another model"):
        rule.load_state_dict(other.state_dict())
    with pytest.raises(UsageError, match="expected the state_dict"):
        Rewind(network(), 0.5, 1, 1).load_state_dict({"rule": "Cubic"})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"tolerance": -1}, "expected tolerance >= 0"),
        ({"every": 0}, "every >= 1"),
        ({"share": 1}, "share of a round is 1"),
        ({"limit": 2}, "limit is 2"),
        ({"evaluate": lambda: float("nan")}, r"evaluate\(\) gave nan: expected a finite number"),
    ],
)
def test_impossible_searches_are_refused(arguments, message):
    given = {"evaluate": lambda: 1.0, "tolerance": 0.0, "every": 1} | arguments
    with pytest.raises(UsageError, match=message):
        UntilDrop(network(), **given)


def test_masks_given_beforehand_are_the_ones_that_shrink():
    model = network()
    masks = Masks.prune(model, 0.5)
    rule = UntilDrop(masks, lambda: 1.0, tolerance=0.0, every=1, share=0.8)
    rule.step()
    assert masks["0.weight"].density == pytest.approx(0.2)
