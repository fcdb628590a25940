"""Lattice pruning of torch models gives the masks that the graph gives, and goes on through training."""

from __future__ import annotations

import copy

import numpy as np
import pytest

import sparsecirc as sc
from sparsecirc._prune import named, plan
from sparsecirc.patterns import combined_digest, lattice

torch = pytest.importorskip("torch", reason="torch is not installed")


@pytest.mark.parametrize(
    "options", [{}, {"bidirectional": True}, {"num_layers": 3, "bidirectional": True}, {"proj_size": 3}]
)
@pytest.mark.parametrize("made", [lattice(keep="both"), lattice(adjacency="continuous", target_density=0.2, cuts=16)])
def test_a_model_and_its_graph_get_the_same_masks(options, made):
    torch.manual_seed(0)
    model = torch.nn.LSTM(5, 9, **{"num_layers": 2, **options})
    masks = sc.Masks.prune(copy.deepcopy(model), None, pattern=made)
    assert masks.digest == combined_digest(plan(sc.to_graph(model), None, pattern=made).patterns)


def test_spiking_recurrence():
    snntorch = pytest.importorskip("snntorch", reason="snntorch is not installed")
    torch.manual_seed(0)
    model = torch.nn.Sequential(
        torch.nn.Linear(4, 20), snntorch.RLeaky(beta=0.9, linear_features=20, init_hidden=True), torch.nn.Linear(20, 2)
    )
    made = lattice(keep="both", quantile=0.8)
    masks = sc.Masks.prune(model, None, pattern=made, select=named("1.hh"))
    mask = masks["1.hh"].mask()
    assert 0 < mask.sum() < mask.size
    live = mask.any(axis=1)
    assert np.array_equal(mask, live[:, None] & live)


def test_a_schedule_prunes_along_the_lattice():
    from sparsecirc.rules import Cubic

    torch.manual_seed(0)
    model = torch.nn.GRU(4, 16)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    rule = Cubic(model, 0.8, begin=1, end=6, pattern=lattice(adjacency="continuous", keep="both"), select=named("*.hh"))
    with rule.masks.attach(optimizer):
        for _ in range(6):
            optimizer.zero_grad()
            model(torch.randn(5, 2, 4))[0].square().mean().backward()
            optimizer.step()
            rule.step()
    assert rule.masks["gru.l0.hh"].nnz == 3 * round(0.2 * 256)
    assert rule.last is not None
    assert len(rule.last.explanations) == 1
