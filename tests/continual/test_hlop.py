"""HLOP in networks: modes agree, old inputs are left alone, nothing is lost by stopping."""

from __future__ import annotations

import copy
import warnings
from pathlib import Path

import pytest
import torch
from torch import nn
from toy import clashing, net, toy

from sparsecirc import Pattern
from sparsecirc.continual import (
    BPTT,
    DSR,
    HLOP,
    OTTT,
    Block,
    CapacityWarning,
    FeedbackAlignment,
    Finetune,
    LatencyCoding,
    Learner,
    Mode,
    Ranks,
    RateCoding,
    RestrictedProjection,
    Setting,
    SpikingLateral,
    SpikingNet,
    adam,
    from_tasks,
    lif,
    mlp,
    run,
    sgd,
    sign_symmetric,
)  # fmt: skip
from sparsecirc.errors import NothingMatchedError, UsageError
from sparsecirc.nn import SparseLIF, SparseLinear, SparseRLIF, sigmoid

FAST = Setting(optimizer=sgd(0.3), epochs=4)
RANKS = Ranks((8, 20, 20), (8, 10, 10), fewer=0)


def weights(model: nn.Module) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def test_hlop_forgets_less_than_finetuning() -> None:
    scenario = clashing()
    plain = run(net(scenario), scenario, Finetune(), FAST)
    ours = run(net(scenario), scenario, HLOP(RANKS), FAST)
    assert plain.bwt < -0.15
    assert ours.bwt > plain.bwt / 2
    assert ours.acc > plain.acc + 0.05


@pytest.mark.parametrize("bias", [False, True])
def test_modes_agree_for_plain_sgd(bias: bool) -> None:
    scenario = toy(2)
    made = []
    for mode in Mode:
        model = net(scenario, 30, bias=bias)
        run(model, scenario, HLOP(RANKS, mode=mode))
        made.append(weights(model))
    torch.testing.assert_close(made[1], made[0], atol=1e-4, rtol=0)
    torch.testing.assert_close(made[2], made[0], atol=1e-4, rtol=0)


@pytest.mark.parametrize("learning", [BPTT(), OTTT(), DSR()], ids=["bptt", "ottt", "dsr"])
def test_one_trace_step_equals_one_weight_step(learning: object) -> None:
    scenario = toy(2, train=128)
    made = []
    for mode in (Mode.TRACE, Mode.GRAD):
        model = net(scenario, 30, learning=learning)
        learner = Learner(model, scenario, HLOP(RANKS, mode=mode))
        learner.run(steps=3)
        made.append(weights(model))
    torch.testing.assert_close(made[1], made[0], atol=1e-5, rtol=0)


@pytest.mark.parametrize("optimizer", [sgd(0.1), sgd(0.05, 0.9, 1e-3), adam(1e-3)], ids=["sgd", "momentum", "adam"])
def test_changes_do_not_answer_to_old_inputs(optimizer: object) -> None:
    scenario = toy(2)
    model = net(scenario, 30, bias=True)
    method = HLOP(RANKS)
    learner = Learner(model, scenario, method, Setting(optimizer=optimizer))  # type: ignore[arg-type]
    learner.run(steps=10)
    assert learner.task == 1
    start = {s.name: s.matrix([t.clone() for t in s.tensors()]) for s in method.sites}
    frozen = {n: s.old.clone() for n, s in method.subspaces.items()}
    learner.run()
    for site in method.sites:
        change = site.matrix(site.tensors()) - start[site.name]
        assert change.norm() > 1e-3
        old = frozen[site.name]
        x = torch.randn(100, site.width)
        leak = (change @ old.T).norm() / len(old) ** 0.5 / ((change @ x.T).norm() / 10)
        assert leak < 1e-5, site.name


@pytest.mark.parametrize("optimizer", [sgd(0.1), sgd(0.05, 0.9, 1e-3), adam(1e-3)], ids=["sgd", "momentum", "adam"])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("ranks", [RANKS, Ranks((30, 28, 20), (8,))], ids=["few", "most"])
def test_a_step_is_that_of_the_optimizer_without_its_part_in_the_old_rows(
    optimizer: object, bias: bool, ranks: Ranks
) -> None:
    scenario = toy(2)
    method = HLOP(ranks)
    setting = Setting(optimizer=optimizer)  # type: ignore[arg-type]
    learner = Learner(net(scenario, 30, bias=bias), scenario, method, setting)
    learner.run(steps=12)  # the second step of the second task: momenta are there
    plain = Learner(net(scenario, 30, bias=bias), scenario, HLOP(ranks), setting)
    plain.load_state_dict(copy.deepcopy(learner.state_dict()))
    start = {s.name: s.matrix([t.clone() for t in s.tensors()]) for s in method.sites}
    learner.run(steps=1)
    plain.method._anchor = {}  # type: ignore[attr-defined]  # projects nothing
    plain.run(steps=1)
    for site, other in zip(method.sites, plain.method.sites, strict=True):  # type: ignore[attr-defined]
        old, before = method.subspaces[site.name].old.double(), start[site.name].double()
        change = other.matrix(other.tensors()).double() - before
        expected = before + change - change @ old.T @ old
        torch.testing.assert_close(site.matrix(site.tensors()).double(), expected, atol=2e-6, rtol=0)


@pytest.mark.parametrize("live", ["unstructured", "blocks"])
@pytest.mark.parametrize("bias", [False, True])
def test_masked_layers_do_not_leak(live: str, bias: bool) -> None:
    torch.manual_seed(0)
    out, width = 24, 60
    if live == "blocks":
        mask = torch.zeros(out, width, dtype=torch.bool)
        mask[:12, :30], mask[12:, 30:] = True, True
    else:
        mask = torch.rand(out, width) < 0.4
        mask[3] = False  # a row without connections
    pattern = Pattern.from_mask(mask.numpy())
    q = torch.linalg.qr(torch.randn(width + bias, 9)).Q.T
    project = RestrictedProjection(q, pattern, bias=bias)
    assert len(project.projectors) == (2 if live == "blocks" else out)
    rows = torch.repeat_interleave(torch.arange(out), torch.from_numpy(pattern.indptr).diff().long())
    values = torch.randn(pattern.nnz)
    moved, shift = project(values, torch.randn(out) if bias else None)
    change = torch.zeros(out, width + bias)
    change[rows, torch.from_numpy(pattern.indices).long()] = moved
    if shift is not None:
        change[:, -1] = shift
    x = torch.randn(200, width + bias)
    assert change.norm() > 1
    assert (change @ q.T).norm() / 3 / ((change @ x.T).norm() / 200**0.5) < 1e-5
    again, _ = project(moved, shift)
    torch.testing.assert_close(again, moved, atol=1e-5, rtol=0)  # a projection


def test_sparse_network_forgets_as_little_as_its_projection_says() -> None:
    scenario = clashing(features=60)
    plain = run(net(scenario, density=0.5), scenario, Finetune(), FAST)
    model = net(scenario, density=0.5)
    method = HLOP(RANKS)
    ours = run(model, scenario, method, FAST)
    assert isinstance(model.blocks[0].connection, SparseLinear)  # type: ignore[union-attr]
    assert ours.bwt > plain.bwt / 2


def test_spiking_lateral_neurons_work_on_traces_only() -> None:
    scenario = clashing(2)
    found = run(net(scenario), scenario, HLOP(RANKS, mode=Mode.TRACE, lateral=SpikingLateral()), FAST)
    assert found.bwt > run(net(scenario), scenario, setting=FAST).bwt
    with pytest.raises(UsageError, match=r"use mode=Mode\.TRACE"):
        HLOP(lateral=SpikingLateral())


def test_full_layers_stop_with_a_warning_that_names_them() -> None:
    scenario = toy(3, train=128)
    model = net(scenario, 20)
    method = HLOP(Ranks((10, 20, 10), (2,), fewer=0, least=1))
    with pytest.warns(CapacityWarning, match=r"'blocks\.1\.connection' has no direction left.*all 20"):
        found = run(model, scenario, method)
    assert found.capacity[-1]["blocks.1.connection"] == (20, 20)
    assert not torch.isnan(weights(model)).any()


@pytest.mark.parametrize("steps", [3, 10, 14])  # in the first task, at its end, in the second
def test_a_run_that_stopped_goes_on_as_if_it_had_not(tmp_path: Path, steps: int) -> None:
    scenario = toy(3)
    setting = Setting(optimizer=adam(1e-3))

    def learner() -> Learner:
        return Learner(net(scenario, 80, coding=RateCoding(-2, 2)), scenario, HLOP(RANKS), setting)

    whole = learner()
    straight = whole.run()
    first = learner()
    assert first.run(steps=steps) is None
    first.save(tmp_path / "run.pt")
    torch.manual_seed(99)
    second = learner()
    second.load(tmp_path / "run.pt")
    resumed = second.run()
    assert straight is not None
    assert resumed is not None
    assert torch.equal(weights(whole.model), weights(second.model))
    assert straight.to_json() | {"seconds": 0} == resumed.to_json() | {"seconds": 0}


def test_recurrent_weights_are_protected_by_their_previous_spikes() -> None:
    torch.manual_seed(0)
    scenario = clashing(2)

    def model() -> SpikingNet:
        torch.manual_seed(0)
        neurons = SparseRLIF(0.5, 40, spike_grad=sigmoid(4), density=1.0)
        return SpikingNet([Block(nn.Linear(60, 40, False), neurons)], [nn.Linear(40, 4, False)])

    method = HLOP(Ranks((8, 12, 12), (8,)))
    made = model()
    learner = Learner(made, scenario, method, FAST)
    learner.run(steps=60)
    assert learner.task == 1
    space = method.subspaces["blocks.0.neurons.recurrent"]
    before = made.blocks[0].neurons.recurrent.dense().detach()  # type: ignore[union-attr]
    old = space.old[:, :-1].clone(), space.old[:, -1:].clone()
    bias = made.blocks[0].neurons.recurrent_bias.detach().clone()  # type: ignore[union-attr]
    learner.run()
    change = made.blocks[0].neurons.recurrent.dense().detach() - before  # type: ignore[union-attr]
    shift = made.blocks[0].neurons.recurrent_bias.detach() - bias  # type: ignore[union-attr]
    assert change.norm() > 1e-3
    assert (old[0] @ change.T + old[1] * shift).norm() < 1e-4 * change.norm()


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("mode", list(Mode))
def test_convolutions_are_projected_patch_by_patch(groups: int, mode: Mode) -> None:
    torch.manual_seed(0)
    x, y = torch.randn(192, 2, 8, 8), torch.randint(0, 3, (192,))
    scenario = from_tasks([(x, y, x[:20], y[:20]), (x.flip(3) + 1, y, x[:20], y[:20])])

    def model() -> SpikingNet:
        torch.manual_seed(0)
        conv = nn.Conv2d(2, 4, 3, padding=1, groups=groups)
        block = Block(conv, lif()(4 * 64), nn.Sequential(nn.AvgPool2d(4), nn.Flatten()))
        return SpikingNet([block], [nn.Linear(16, 3)], steps=3)

    made = model()
    method = HLOP(Ranks((4, 4, 6), (2,), fewer=0, least=1), mode=mode)
    learner = Learner(made, scenario, method, Setting(look=False))
    learner.run(steps=3)
    before = [m.clone() for m in (s.matrix(s.tensors()) for s in method.sites)]
    frozen = [method.subspaces[s.name].old.clone() for s in method.sites]
    learner.run()
    assert len(method.sites) == groups + 1
    for site, start, old in zip(method.sites, before, frozen, strict=True):
        change = site.matrix(site.tensors()) - start
        assert change.norm() > 1e-4
        assert (change @ old.T).norm() < 1e-4 * change.norm()


def test_models_of_other_packages_are_tapped_by_hooks() -> None:
    snntorch = pytest.importorskip("snntorch", reason="needs snntorch")
    scenario = clashing(2)

    class Stepped(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inputs, self.out = nn.Linear(60, 40, False), nn.Linear(40, 4, False)
            self.lif = snntorch.Leaky(0.5)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            mem = self.lif.init_leaky()
            total = torch.zeros(())
            for _ in range(4):
                spikes, mem = self.lif(self.inputs(x), mem)
                total = total + self.out(spikes)
            return total / 4

    torch.manual_seed(0)
    model = Stepped()
    method = HLOP(Ranks((8, 12), (8,), least=1))
    found = run(model, scenario, method, FAST)
    assert found.rank_used == {"inputs": 16, "out": 20}
    torch.manual_seed(0)
    plain = run(Stepped(), scenario, setting=FAST)
    assert found.bwt > plain.bwt
    assert not model.inputs._forward_pre_hooks  # left as it was
    with pytest.raises(UsageError, match="SpikingNet, got Stepped"):
        run(model, scenario, HLOP(mode=Mode.TRACE))


def test_a_model_without_layers_is_an_error() -> None:
    scenario = toy(1, train=16)
    with pytest.raises(NothingMatchedError, match="to protect"):
        run(net(scenario, 8), scenario, HLOP(keep=lambda name: False))


@pytest.mark.parametrize("coding", [RateCoding(-3, 3), LatencyCoding(-3, 3)], ids=["rate", "latency"])
@pytest.mark.parametrize("learning", [BPTT(), OTTT(), DSR()], ids=["bptt", "ottt", "dsr"])
def test_each_way_of_training_learns_each_coding(learning: object, coding: object) -> None:
    scenario = toy(1)
    model = net(scenario, learning=learning, coding=coding, steps=6, neurons=lambda _: SparseLIF(0.5, 0.3, sigmoid(4)))
    found = run(model, scenario, setting=FAST)
    assert found.acc > 0.8


@pytest.mark.parametrize("feedback", [FeedbackAlignment(1), sign_symmetric], ids=["fa", "signs"])
def test_other_error_paths_learn(feedback: object) -> None:
    scenario = toy(1)
    found = run(net(scenario, feedback=feedback), scenario, setting=FAST)
    assert found.acc > 0.8


def test_learned_constants_train_and_are_frozen_after_the_first_task() -> None:
    scenario = toy(2)
    torch.manual_seed(0)
    model = mlp(40, [30], 4, neurons=lif(learn=True))
    start = model.blocks[0].neurons.beta.detach().clone()  # type: ignore[union-attr]
    learner = Learner(model, scenario, HLOP())
    learner.run(steps=10)
    middle = model.blocks[0].neurons.beta.detach().clone()  # type: ignore[union-attr]
    assert not torch.equal(start, middle)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CapacityWarning)
        learner.run()
    assert torch.equal(model.blocks[0].neurons.beta.detach(), middle)  # type: ignore[union-attr]
