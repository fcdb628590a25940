"""Oja's rule against the equations in float64, against a decomposition, and what a frozen subspace guarantees."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from sparsecirc.continual import ORTHONORMAL, PUBLISHED, Oja, SpikingLateral, Subspace, linear_lateral
from sparsecirc.errors import UsageError


def transcribed(q: np.ndarray, m: np.ndarray, k: int, x: np.ndarray, how: Oja, rate: float) -> tuple[np.ndarray, ...]:
    """The published update, word for word."""
    for _ in range(how.iterations):
        y = x @ q.T
        d = np.clip(y.T @ (x - y @ q) / len(x), -how.clip, how.clip)
        d[:k] = 0.0
        m = how.momentum * m + (1 - how.momentum) * d
        q = q + rate * m
    return q, m


@pytest.mark.parametrize(
    "rule",
    [PUBLISHED, Oja(rate=0.05, normalised=False), Oja(rate=0.05, iterations=3, normalised=False)],
    ids=["published", "orthonormal", "orthonormal-3"],
)
@pytest.mark.parametrize("rows", [1, 7, 64])
def test_update_is_the_transcribed_one(rule: Oja, rows: int) -> None:
    g = torch.Generator().manual_seed(0)
    space = Subspace(23, rule, generator=g, dtype=torch.float64)
    q, m, k = np.zeros((0, 23)), np.zeros((0, 23)), 0
    for grown in (5, 4, 3):
        space.grow(grown)
        q, m = space.q.numpy().copy(), np.zeros((k + grown, 23))
        for _ in range(6):
            x = torch.randn(rows, 23, generator=g, dtype=torch.float64) * 3
            space.learn(x)
            q, m = transcribed(q, m, k, x.numpy(), rule, space.rate)
        np.testing.assert_allclose(space.q.numpy(), q, rtol=0, atol=1e-10)
        space.merge()
        k = space.frozen


def test_published_rule_is_frozen_as_it_is_and_drifts() -> None:
    g = torch.Generator().manual_seed(1)
    space = Subspace(30, PUBLISHED, rate=0.02, generator=g)
    for _ in range(3):
        space.grow(6)
        for _ in range(5):
            space.learn(2 * torch.randn(32, 30, generator=g))
        before = space.q.clone()
        space.merge()
        assert torch.equal(space.q, before)
    assert torch.linalg.svdvals(space.q)[0].square() > 1.1  # what our rule cures


def test_merged_rows_of_our_rule_are_orthonormal() -> None:
    g = torch.Generator().manual_seed(1)
    space = Subspace(30, generator=g)
    for _ in range(3):
        space.grow(6)
        for _ in range(20):
            space.learn(torch.randn(32, 30, generator=g))
        space.merge()
    torch.testing.assert_close(space.q @ space.q.T, torch.eye(18), atol=1e-6, rtol=0)


@pytest.mark.parametrize("scale", [0.01, 1.0, 100.0])
def test_learned_subspace_is_the_principal_one_at_any_scale(scale: float) -> None:
    g = torch.Generator().manual_seed(2)
    basis = torch.linalg.qr(torch.randn(40, 6, generator=g)).Q
    data = scale * (torch.randn(64 * 80, 6, generator=g) * 2 @ basis.T + 0.02 * torch.randn(64 * 80, 40, generator=g))
    space = Subspace(40, ORTHONORMAL, generator=g)
    space.grow(6)
    for x in data.split(64):
        space.learn(x)
    space.merge()
    principal = torch.linalg.svd(data, full_matrices=False).Vh[:6]
    cosines = torch.linalg.svdvals(space.q @ principal.T)  # of the principal angles
    assert cosines.min() > 0.999
    assert space.explained(data) > 0.99


def test_energy_keeps_only_directions_that_carry_activity() -> None:
    g = torch.Generator().manual_seed(3)
    basis = torch.linalg.qr(torch.randn(40, 4, generator=g)).Q
    space = Subspace(40, generator=g)
    space.grow(20)
    for _ in range(60):
        space.learn(torch.randn(64, 4, generator=g) @ basis.T + 1e-3 * torch.randn(64, 40, generator=g))
    assert space.merge(0.999) == 4
    assert space.grow(100) == 36  # no more than there is room for
    assert space.merge() == 36
    assert space.grow(1) == 0


@pytest.mark.parametrize("frozen", [3, 17])  # less and more than half: directly, and through the complement
def test_outside_is_orthogonal_to_what_was_frozen(frozen: int) -> None:
    g = torch.Generator().manual_seed(4)
    space = Subspace(20, generator=g)
    space.grow(frozen)
    space.learn(torch.randn(32, 20, generator=g))
    space.merge()
    x = torch.randn(50, 20, generator=g)
    left = space.outside(x)
    assert (left @ space.q.T).abs().max() < 1e-5
    torch.testing.assert_close(left, x - x @ space.q.T @ space.q, atol=1e-5, rtol=0)


def test_spiking_lateral_neurons_round_and_saturate() -> None:
    lateral = SpikingLateral(levels=40, scale=20.0)
    y = torch.tensor([-30.0, -20.0, 0.2, 0.26, 7.3, 25.0])
    torch.testing.assert_close(lateral(y), torch.tensor([-20.0, -20.0, 0.0, 0.5, 7.5, 20.0]))
    fine, coarse = Subspace(10, lateral=SpikingLateral(100000)), Subspace(10, lateral=linear_lateral)
    coarse.grow(3)
    coarse.merge()
    fine.load_state_dict(coarse.state_dict())
    x = torch.randn(5, 10)
    torch.testing.assert_close(fine.outside(x), coarse.outside(x), atol=1e-3, rtol=0)


def test_state_survives_with_grown_rows() -> None:
    g = torch.Generator().manual_seed(5)
    a = Subspace(12, generator=g)
    a.grow(3)
    a.learn(torch.randn(8, 12, generator=g))
    a.merge()
    a.grow(4)
    a.learn(torch.randn(8, 12, generator=g))
    b = Subspace(12)
    b.load_state_dict(a.state_dict())
    x = torch.randn(8, 12, generator=g)
    a.learn(x)
    b.learn(x)
    a.merge()
    b.merge()
    assert torch.equal(a.q, b.q)
    with pytest.raises(UsageError, match="width 12: expected 5"):
        Subspace(5).load_state_dict(a.state_dict())


def test_no_rows_change_nothing() -> None:
    space = Subspace(6)
    space.learn(torch.randn(3, 6))
    space.grow(2)
    before = space.q.clone()
    space.learn(torch.zeros(0, 6))
    assert torch.equal(space.q, before)
