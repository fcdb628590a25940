"""Schedules: the curve, nested masks, resuming, and mistakes shown at once."""

from __future__ import annotations

import io
import re

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from sparsecirc._pattern import Pattern
from sparsecirc._prune import Scope, named
from sparsecirc.errors import NothingMatchedError, UsageError
from sparsecirc.masks import Masks
from sparsecirc.patterns import block, n_m
from sparsecirc.rules import Cubic, OneShot, Rule
from sparsecirc.scores import random


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.rnn = nn.GRU(5, 20)
        self.head = nn.Linear(20, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.rnn(x)[0][-1])


def model() -> Model:
    torch.manual_seed(0)
    return Model()


def train_step(net: nn.Module, optimizer: torch.optim.Optimizer, k: int) -> None:
    x = torch.randn(4, 6, 5, generator=torch.Generator().manual_seed(k))
    optimizer.zero_grad()
    nn.functional.cross_entropy(net(x), torch.tensor([0, 1, 2, 0, 1, 2])).backward()
    optimizer.step()


def closed_form(t: int, begin: int, end: int, start: float, final: float) -> float:
    return final + (start - final) * (1 - (t - begin) / (end - begin)) ** 3


def test_cubic_is_the_closed_form_at_every_update():
    net = model()
    rule = Cubic(net, 0.9, begin=4, end=20, every=4, initial=0.1)
    optimizer = torch.optim.Adam(net.parameters(), lr=0.01)
    rule.masks.attach(optimizer)
    changed = []
    for k in range(1, 26):
        train_step(net, optimizer, k)
        before = rule.masks.digest
        assert rule.step() == (k in (4, 8, 12, 16, 20))
        if rule.masks.digest != before:
            changed.append(k)
        rule.masks.check()
        held = 0.0 if k < 4 else closed_form(min(k // 4 * 4, 20), 4, 20, 0.1, 0.9)
        assert rule.sparsity_at(k) == pytest.approx(held, abs=1e-12)
        for gate in "rzn":
            assert rule.masks[f"rnn.l0.hh.{gate}"].nnz == round((1 - rule.sparsity_at(k)) * 400)
            assert rule.masks[f"rnn.l0.ih.{gate}"].nnz == round((1 - rule.sparsity_at(k)) * 100)
        assert rule.done == (k >= 20)
    assert changed == [4, 8, 12, 16, 20]
    assert rule.masks.density == pytest.approx(0.1)
    assert rule.last is not None
    assert rule.last.density == rule.masks.density
    assert isinstance(rule, Rule)


def test_the_end_is_reached_where_every_does_not_divide():
    net = model()
    rule = Cubic(net, 0.8, begin=0, end=10, every=4)
    assert [k for k in range(1, 15) if rule.step()] == [4, 8, 10]
    assert rule.masks["rnn.l0.hh"].density == pytest.approx(0.2)


@settings(max_examples=20, deadline=None)
@given(
    st.floats(0, 0.95),
    st.integers(0, 3),
    st.integers(4, 12),
    st.integers(1, 5),
    st.sampled_from(list(Scope)),
    st.integers(0, 99),
)
def test_cubic_masks_are_nested(sparsity, begin, end, every, scope, seed):
    net = model()
    rule = Cubic(net, sparsity, begin, end, every, scope=scope)
    generator = torch.Generator().manual_seed(seed)
    previous = dict(rule.masks.patterns)
    for _ in range(end):
        with torch.no_grad():  # weights drift, as in training
            for parameter in net.parameters():
                parameter.add_(torch.randn(parameter.shape, generator=generator))
        rule.masks.apply()
        rule.step()
        for name, pattern in rule.masks.patterns.items():
            assert pattern.intersect(previous[name]) == pattern
        previous = dict(rule.masks.patterns)
    size = sum(p.shape[0] * p.shape[1] for p in previous.values())
    assert abs(rule.masks.density - (1 - sparsity)) <= 6 * 0.5 / size + 1e-9


def test_regrow_lets_the_dead_compete():
    def run(regrow: bool) -> bool:
        net = model()
        seeds = iter(range(100))

        def drifting(weight, name):
            return random(next(seeds))(weight, name)

        rule = Cubic(net, 0.9, 0, 4, score=drifting, select=named("*.hh"), regrow=regrow)
        rule.step()
        early = rule.masks["rnn.l0.hh"]
        while not rule.done:
            rule.step()
        return early.intersect(rule.masks["rnn.l0.hh"]) == rule.masks["rnn.l0.hh"]

    assert run(regrow=False)
    assert not run(regrow=True)


def test_one_shot():
    net = model()
    rule = OneShot(net, 0.8, at=3, pattern=block(4, 1))
    assert [rule.step() for _ in range(5)] == [False, False, True, False, False]
    assert rule.done
    assert rule.masks["rnn.l0.hh.z"].density == pytest.approx(0.2)
    rule.masks.check()
    fixed = OneShot(model(), None, pattern=n_m(2, 4), select=named("*.hh"))
    assert fixed.masks.density == 1
    fixed.step()
    assert fixed.masks["rnn.l0.hh"].origin == "2:4"


@pytest.mark.parametrize("stop", [1, 7, 12])
def test_resumed_run_is_identical(stop):
    def start() -> tuple[Model, torch.optim.Optimizer, Cubic]:
        net = model()
        optimizer = torch.optim.Adam(net.parameters(), lr=0.01)
        rule = Cubic(net, 0.9, begin=2, end=12, every=3)
        rule.masks.attach(optimizer)
        return net, optimizer, rule

    def go(net: Model, optimizer: torch.optim.Optimizer, rule: Cubic, first: int, last: int) -> None:
        for k in range(first, last):
            train_step(net, optimizer, k)
            rule.step()

    whole = start()
    go(*whole, 0, 15)
    half = start()
    go(*half, 0, stop)
    file = io.BytesIO()
    torch.save([part.state_dict() for part in half], file)
    file.seek(0)
    resumed = start()
    for part, state in zip(resumed, torch.load(file, weights_only=True), strict=True):
        part.load_state_dict(state)
    assert resumed[2].steps == stop
    assert resumed[2].masks.digest == half[2].masks.digest
    go(*resumed, stop, 15)
    assert resumed[2].masks.digest == whole[2].masks.digest
    for a, b in zip(whole[0].parameters(), resumed[0].parameters(), strict=True):
        assert torch.equal(a, b)


def test_masks_as_target_choose_the_weights():
    net = model()
    masks = Masks(net, {"head.weight": Pattern.full(3, 20)})
    rule = Cubic(masks, 0.9, 0, 4)
    assert rule.masks is masks
    while not rule.done:
        rule.step()
    assert set(masks.patterns) == {"head.weight"}
    assert masks.density == pytest.approx(0.1)


def test_sparsity_by_name():
    net = model()
    rule = Cubic(net, {"rnn.l0.hh": 0.9, re.compile(r"head\..*"): 0.5}, begin=0, end=8, every=4)
    rule.step()
    assert rule.masks.density == 1
    for _ in range(3):
        rule.step()
    assert rule.masks["rnn.l0.hh.r"].nnz == round((1 - closed_form(4, 0, 8, 0, 0.9)) * 400)
    assert rule.masks["head.weight"].nnz == round((1 - closed_form(4, 0, 8, 0, 0.5)) * 60)
    assert set(rule.masks.patterns) == {"rnn.l0.hh", "head.weight"}


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda m: Cubic(m, 1.5, 0, 10), "sparsity is 1.5"),
        (lambda m: Cubic(m, -0.1, 0, 10), "sparsity is -0.1"),
        (lambda m: Cubic(m, float("nan"), 0, 10), "sparsity is nan"),
        (lambda m: Cubic(m, None, 0, 10), "needs a final sparsity"),
        (lambda m: Cubic(m, 0.9, 10, 10), "from step 10 to 10 every 1"),
        (lambda m: Cubic(m, 0.9, -1, 10), "from step -1"),
        (lambda m: Cubic(m, 0.9, 0, 10, 0), "every 0"),
        (lambda m: Cubic(m, 0.5, 0, 10, initial=0.6), "initial sparsity 0.6 exceeds the final 0.5"),
        (lambda m: Cubic(m, 0.5, 0, 10, pattern=n_m(2, 4), select=named("*.hh")), "2:4 has sparsity 0.5, got"),
        (lambda m: Cubic(m, 0.5, 0, 10, pattern=block(16, 1)), "block 16x1 does not fit 20 rows"),
        (lambda m: Cubic(m, {"rnn.l0.hhh": 0.5}, 0, 10), r"did you mean 'rnn\.l0\.hh'"),
        (lambda m: OneShot(m, 0.5, at=0), "before training use Masks.prune"),
        (lambda m: OneShot(m, 1.0), "sparsity is 1.0"),
    ],
)
def test_mistakes_show_at_once_and_change_nothing(make, words):
    net = model()
    before = {k: v.clone() for k, v in net.state_dict().items()}
    with pytest.raises(UsageError, match=words):
        make(net)
    assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items())


def test_nothing_to_prune():
    with pytest.raises(NothingMatchedError, match=r"0\.weight \(vector\)"):
        Cubic(nn.Sequential(nn.LayerNorm(3)), 0.5, 0, 10)


def test_states_of_other_rules_are_refused():
    rule = Cubic(model(), 0.9, 0, 10)
    with pytest.raises(UsageError, match="'OneShot': expected the state_dict\\(\\) of a Cubic"):
        rule.load_state_dict(OneShot(model(), 0.9).state_dict())
    with pytest.raises(UsageError, match="something else"):
        rule.load_state_dict({})
