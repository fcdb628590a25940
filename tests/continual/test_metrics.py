"""Metrics against numbers worked out by hand; scenarios hold what they say."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn
from toy import net, toy

from sparsecirc.continual import (
    Block,
    Increment,
    Learner,
    Mean,
    Result,
    SpikingNet,
    activity,
    from_tasks,
    overlap,
    permuted,
    rotated,
    run,
    split,
    summary,
)  # fmt: skip
from sparsecirc.errors import UsageError
from sparsecirc.nn import SparseLIF

NAN = math.nan
R = np.array([[0.9, 0.2, NAN], [0.95, 0.8, 0.3], [0.6, 0.7, 0.85]])


def result(r: np.ndarray = R, seed: int = 0) -> Result:
    return Result("s", "m", seed, r, np.array([0.1, 0.15, 0.1]))


def test_figures_of_a_matrix() -> None:
    found = result()
    assert found.acc == pytest.approx((0.6 + 0.7 + 0.85) / 3)
    assert found.bwt == pytest.approx(((0.6 - 0.9) + (0.7 - 0.8)) / 2)
    assert found.fwt == pytest.approx(((0.2 - 0.15) + (0.3 - 0.1)) / 2)
    assert found.forgetting == pytest.approx(((0.95 - 0.6) + (0.8 - 0.7)) / 2)
    assert found.learning_accuracy == pytest.approx((0.9 + 0.8 + 0.85) / 3)
    assert "BWT -20.00" in found.table()
    again = Result.from_json(found.to_json())
    np.testing.assert_array_equal(again.accuracy, R)
    assert again.to_json() == found.to_json()
    one = Result("s", "m", 0, np.array([[0.5]]), np.array([0.1]))
    assert (one.bwt, one.fwt, one.forgetting) == (0.0, 0.0, 0.0)


def test_interval_of_seeds() -> None:
    found = Mean.of([0.9, 0.92, 0.94])
    assert found.mean == pytest.approx(0.92)
    assert found.half == pytest.approx(4.303 * 0.02 / math.sqrt(3))
    assert math.isnan(Mean.of([0.5]).half)
    assert summary([result(), result(R + 0.01, 1)])["acc"].count == 2


def test_activity_counts_spikes_and_what_they_cause() -> None:
    model = SpikingNet(
        [Block(nn.Linear(3, 4, False), SparseLIF(0.5)), Block(nn.Linear(4, 2, False), SparseLIF(0.5))],
        [nn.Linear(2, 5, False)],
        steps=4,
    )
    with torch.no_grad():
        model.blocks[0].connection.weight.fill_(10.0)  # type: ignore[union-attr]
        model.blocks[1].connection.weight.fill_(-1.0)  # type: ignore[union-attr]
        model.blocks[1].connection.weight[0, 0] = 0.0  # type: ignore[union-attr]
    found = activity(model.eval(), torch.full((6, 3), 2.0))
    assert found.spikes == 16  # 4 neurons in each of 4 steps; the others are held down
    assert found.synaptic_ops == 16 * 2 - 4  # one connection is missing
    assert found.macs == 4 * 3 * 4


def test_overlap_is_one_for_the_same_inputs_and_zero_for_orthogonal_ones() -> None:
    scenario = toy(1)
    model = net(scenario).eval()
    x = torch.zeros(8, 40)
    x[:, :20] = torch.randn(8, 20)
    y = torch.zeros(8, 40)
    y[:, 20:] = torch.randn(8, 20)
    found = overlap(model, [lambda: model(x), lambda: model(2 * x), lambda: model(y)])["blocks.0.connection"]
    assert found[0, 1] == pytest.approx(1.0)
    assert found[0, 2] == pytest.approx(0.0, abs=1e-9)


def data(classes: int = 4) -> tuple[torch.Tensor, ...]:
    y = torch.arange(40) % classes
    return torch.randn(40, 16), y, torch.randn(20, 16), torch.arange(20) % classes


def test_permuted_tasks_are_orders_of_the_same_features() -> None:
    arrays = data()
    scenario = permuted(*arrays, tasks=3, seed=1)
    x, y = scenario.tasks[1].train(torch.arange(5))
    assert torch.equal(x.sort(1).values, arrays[0][:5].sort(1).values)
    assert not torch.equal(x, arrays[0][:5])
    assert torch.equal(y, arrays[1][:5])
    again = permuted(*arrays, tasks=3, seed=1).tasks[1].train(torch.arange(5))[0]
    assert torch.equal(x, again)


def test_rotated_by_a_right_angle() -> None:
    arrays = data()
    scenario = rotated(*arrays, tasks=3)
    image = scenario.tasks[1].test()[0].view(-1, 4, 4)
    torch.testing.assert_close(image, torch.rot90(arrays[2].view(-1, 4, 4), 1, (1, 2)), atol=1e-5, rtol=0)
    with pytest.raises(UsageError, match="only square images"):
        rotated(torch.randn(4, 15), torch.zeros(4), torch.randn(4, 15), torch.zeros(4))


def test_split_by_each_increment() -> None:
    arrays = data()
    task = split(*arrays, tasks=2, increment=Increment.TASK)
    assert (task.heads, task.outputs, task.tasks[1].head) == (2, 2, 1)
    assert set(task.tasks[1].y_train.tolist()) == {0, 1}
    domain = split(*arrays, tasks=2, increment=Increment.DOMAIN)
    assert (domain.heads, domain.outputs) == (1, 2)
    by_class = split(*arrays, tasks=2, increment=Increment.CLASS)
    assert (by_class.outputs, by_class.seen(1), by_class.seen(2)) == (4, (0, 1), (0, 1, 2, 3))
    with pytest.raises(UsageError, match="4 classes do not divide into 3"):
        split(*arrays, tasks=3)


def test_sequences_from_tasks_and_mistakes() -> None:
    x, y = torch.randn(6, 5, 3), torch.tensor([0, 1, 0, 1, 0, 1])
    made = from_tasks([(x, y, x, y), (x, y + 2, x, y + 2)], increment=Increment.CLASS)
    assert made.seen(1) == (0, 1)
    assert made.features == (5, 3)
    with pytest.raises(UsageError, match="6 and 6 samples with 5 and 6 labels"):
        from_tasks([(x, y[:5], x, y)])
    with pytest.raises(UsageError, match="no task"):
        from_tasks([])
    with pytest.raises(UsageError, match="pass heads=2"):
        Learner(net(toy(1)), split(*data(), tasks=2))


def test_class_increments_predict_among_classes_seen() -> None:
    g = torch.Generator().manual_seed(0)
    centres = 3 * torch.randn(4, 16, generator=g)
    y = torch.randint(0, 4, (640,), generator=g)
    x = centres[y] + torch.randn(640, 16, generator=g)
    scenario = split(x, y, x, y, tasks=2, increment=Increment.CLASS)
    found = run(net(scenario, 40), scenario)
    assert found.accuracy[0, 0] > 0.9  # of two classes, although the read-out has four
    assert found.accuracy[1, 1] > 0.5
