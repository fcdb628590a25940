"""All methods behind the one interface: each learns, forgets less than fine-tuning, and goes on where it stopped."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from toy import clashing, net, toy

from sparsecirc.continual import (
    EWC,
    GPM,
    HLOP,
    OWM,
    SGP,
    SI,
    AdamNSCL,
    Batch,
    Combined,
    DERpp,
    Increment,
    Joint,
    Learner,
    MaskLedger,
    Method,
    Mode,
    Ranks,
    Replay,
    Result,
    Setting,
    adam,
    run,
    sgd,
    split,
)
from sparsecirc.errors import UnsupportedError

FAST = Setting(optimizer=sgd(0.3), epochs=4)
RANKS = Ranks((8, 20, 20), (8, 10, 10), fewer=0)
METHODS: dict[str, Callable[[], Method]] = {
    "joint": Joint,
    "ewc": lambda: EWC(10.0, samples=200),
    "si": lambda: SI(1.0, damping=0.03),
    "replay": Replay,
    "derpp": DERpp,
    "gpm": GPM,
    "sgp": SGP,
    "owm": lambda: OWM(0.1),
    "adam_nscl": AdamNSCL,
    "hlop": lambda: HLOP(RANKS),
    "hlop+replay": lambda: Combined(HLOP(RANKS), Replay()),
    "ledger": MaskLedger,
}


@cache
def finetuned(optimizer: str = "sgd") -> Result:
    scenario = clashing()
    return run(net(scenario), scenario, setting=FAST if optimizer == "sgd" else ADAM)


ADAM = Setting(optimizer=adam(3e-3), epochs=4)


@pytest.mark.parametrize("name", METHODS)
def test_each_method_learns_and_forgets_less_than_finetuning(name: str) -> None:
    scenario = clashing()
    by_adam = name == "adam_nscl"
    found = run(net(scenario), scenario, METHODS[name](), ADAM if by_adam else FAST)
    plain = finetuned("adam" if by_adam else "sgd")
    assert found.method == name
    assert found.learning_accuracy > 0.65
    assert found.acc > plain.acc + 0.03
    assert found.bwt > plain.bwt + 0.05


@pytest.mark.parametrize("name", METHODS)
def test_each_method_goes_on_in_the_middle_of_a_task(name: str, tmp_path: Path) -> None:
    scenario = toy(2, train=256)
    setting = Setting(optimizer=adam(1e-3) if name == "adam_nscl" else sgd(0.1, 0.9), epochs=2)

    def learner() -> Learner:
        return Learner(net(scenario, 60), scenario, METHODS[name](), setting)

    whole, first, second = learner(), learner(), learner()
    torch.manual_seed(1)
    straight = whole.run()
    torch.manual_seed(1)
    first.run(steps=11)
    first.save(tmp_path / "state.pt")
    torch.manual_seed(2)
    second.load(tmp_path / "state.pt")
    resumed = second.run()
    assert straight is not None
    assert resumed is not None
    for a, b in zip(whole.model.parameters(), second.model.parameters(), strict=True):
        assert torch.equal(a, b)
    assert straight.to_json() | {"seconds": 0} == resumed.to_json() | {"seconds": 0}


@pytest.mark.parametrize("name", METHODS)
def test_each_method_takes_a_readout_per_task(name: str) -> None:
    g = torch.Generator().manual_seed(0)
    centres = 2 * torch.randn(4, 40, generator=g)
    y = torch.randint(0, 4, (512,), generator=g)
    x = centres[y] + torch.randn(512, 40, generator=g)
    scenario = split(x, y, x, y, tasks=2, increment=Increment.TASK)
    found = run(net(scenario, 60), scenario, METHODS[name](), Setting(optimizer=sgd(0.2), epochs=4))
    assert found.acc > 0.8


def test_gpm_basis_is_the_principal_one() -> None:
    scenario = toy(1)
    model = net(scenario)
    method = GPM(0.9, 0.9, samples=64)
    learner = Learner(model, scenario, method)
    learner.run()
    seen = method._activations(0)[0]
    rows = method.bases["blocks.0.connection"]
    torch.testing.assert_close(rows @ rows.T, torch.eye(len(rows)), atol=1e-5, rtol=0)
    kept = (seen @ rows.T).square().sum() / seen.square().sum()
    less = (seen @ rows[:-1].T).square().sum() / seen.square().sum()
    assert kept >= 0.9 > less


def test_owm_projector_is_that_of_least_squares() -> None:
    scenario = toy(1, train=128)
    model = net(scenario, 20)
    method = OWM(0.5)
    method.attach(model, scenario)
    model.train()
    inverse, g = torch.eye(40, dtype=torch.float64), torch.Generator().manual_seed(0)
    scale = None
    for _ in range(3):
        x = torch.randn(16, 40, generator=g)
        if scale is None:
            scale = float(x.square().mean()) * 16
        x = x * (scale / (float(x.square().mean()) * 16)) ** 0.5
        model(x)
        method.after_step()
        inverse += x.double().T @ x.double() / (0.5 * scale)
    torch.testing.assert_close(
        method.running["blocks.0.connection"].double(), torch.linalg.inv(inverse), atol=1e-4, rtol=0
    )


def test_ewc_sums_the_penalties_of_all_tasks() -> None:
    scenario = toy(2, train=128)
    model = net(scenario, 20)
    method = EWC(2.0, samples=20)
    learner = Learner(model, scenario, method)
    learner.run(steps=2)
    first = {n: p.detach().clone() for n, p in model.named_parameters()}
    fisher = {n: f.clone() for n, f in method.fisher.items()}
    assert max(float(f.max()) for f in fisher.values()) > 0
    method.task = 1
    batch = Batch(torch.zeros(1, 40), torch.zeros(1).long())
    zero = torch.zeros(1, 4)
    at_rest = float(method.loss(zero, batch).detach())
    with torch.no_grad():
        for p in model.parameters():
            p += 0.1
    moved = float(method.loss(zero, batch).detach()) - at_rest
    assert moved == pytest.approx(sum(float(f.sum()) * 0.1**2 for f in fisher.values()), rel=1e-2)
    assert set(first) == set(fisher)


def test_ledger_forgets_nothing_and_keeps_books() -> None:
    scenario = clashing()
    model = net(scenario)
    method = MaskLedger()
    found = run(model, scenario, method, FAST)
    below = found.accuracy[np.tril_indices(3, -1)]
    np.testing.assert_array_equal(below, np.diag(found.accuracy)[[0, 0, 1]])
    owner = method.owner["blocks.1.connection"]
    assert set(owner.unique().tolist()) == {0, 1, 2}  # a third, half of the rest, and what was left
    first, last = (method.pattern("blocks.1.connection", t) for t in (0, 2))
    assert first.density == pytest.approx(1 / 3, abs=0.01)
    assert last.density == 1.0
    assert found.capacity[0]["blocks.1.connection"] == (first.nnz, 80 * 80)


def test_sparse_layers_are_refused_where_a_method_has_no_projection_for_them() -> None:
    scenario = toy(2, train=128)
    with pytest.raises(UnsupportedError, match=r"owm has no projection for the sparse layer .*use hlop or gpm"):
        run(net(scenario, 60, density=0.5), scenario, OWM())
    easy = toy(2)
    found = run(net(easy, 60, density=0.5), easy, GPM(mode=Mode.DELTA), FAST)
    assert found.acc > 0.5
