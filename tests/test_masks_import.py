"""Taking over masks made elsewhere: plain zeros, torch.nn.utils.prune, parametrizations."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, parametrize
from torch.nn.utils import prune as torch_prune

from sparsecirc._prune import named
from sparsecirc.errors import NothingMatchedError
from sparsecirc.masks import Masks


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.rnn = nn.LSTM(4, 6, num_layers=2)
        self.fc = nn.Linear(6, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(self.rnn(x)[0][-1])


class Mask(nn.Module):
    def __init__(self, mask: torch.Tensor) -> None:
        super().__init__()
        self.register_buffer("mask", mask)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.mask


def model() -> Model:
    torch.manual_seed(0)
    return Model()


def shape_of(m: nn.Module) -> list[tuple[str, tuple[int, ...]]]:
    return [(n, tuple(p.shape)) for n, p in m.named_parameters()]


def is_ordinary(pruned: Model) -> None:
    assert shape_of(pruned) == shape_of(Model())
    assert list(pruned.state_dict()) == list(Model().state_dict())
    assert type(pruned.rnn) is nn.LSTM
    assert type(pruned.fc) is nn.Linear
    for module in pruned.modules():
        assert not module._forward_pre_hooks
    assert all(a is b for a, b in zip(pruned.rnn._flat_weights, pruned.rnn.parameters(), strict=True))
    copy.deepcopy(pruned)
    pickle.dumps(pruned)
    model().load_state_dict(pruned.state_dict())


def still_trains_within(masks: Masks, pruned: Model, optimizer: torch.optim.Optimizer) -> None:
    before = pruned.rnn.weight_hh_l0.detach().clone()
    with masks.attach(optimizer):
        pruned(torch.randn(3, 2, 4)).square().sum().backward()
        optimizer.step()
        masks.check()
    assert not torch.equal(before, pruned.rnn.weight_hh_l0)


def test_hooks_of_torch_prune():
    pruned = model()
    optimizer = torch.optim.Adam(pruned.parameters())
    for name in ("weight_hh_l0", "weight_hh_l1"):
        torch_prune.l1_unstructured(pruned.rnn, name, amount=0.5)
    torch_prune.l1_unstructured(pruned.rnn, "weight_hh_l0", amount=0.5)  # on top: a container of two
    torch_prune.random_unstructured(pruned.fc, "weight", amount=0.25)
    torch_prune.random_unstructured(pruned.fc, "bias", amount=1)
    expected = {n: getattr(pruned.rnn, n + "_mask").clone() for n in ("weight_hh_l0", "weight_hh_l1")}
    x = torch.randn(3, 2, 4)
    y = pruned(x)
    masks = Masks.from_torch_prune(pruned)
    assert set(masks.patterns) == {"rnn.l0.hh", "rnn.l1.hh", "fc.weight"}
    for name, mask in expected.items():
        found = masks[f"rnn.{name[-2:]}.hh"].mask()
        assert np.array_equal(found, mask.bool().numpy())
    assert masks["rnn.l0.hh"].nnz == 36
    assert int(torch.count_nonzero(pruned.fc.bias)) == 2
    is_ordinary(pruned)
    masks.check()
    assert torch.allclose(pruned(x), y)
    still_trains_within(masks, pruned, optimizer)


def test_parametrizations_with_a_mask():
    pruned = model()
    optimizer = torch.optim.Adam(pruned.parameters())
    first = torch.arange(36 * 4).reshape(24, 6) % 3 != 0
    second = torch.arange(36 * 4).reshape(24, 6) % 2 != 0
    parametrize.register_parametrization(pruned.rnn, "weight_hh_l0", Mask(first))
    parametrize.register_parametrization(pruned.rnn, "weight_hh_l0", Mask(second))
    parametrize.register_parametrization(pruned.fc, "weight", Mask(torch.eye(3, 6)))
    masks = Masks.from_torch_prune(pruned)
    assert np.array_equal(masks["rnn.l0.hh"].mask(), (first & second).numpy())
    assert masks["fc.weight"].nnz == 3
    is_ordinary(pruned)
    masks.check()
    still_trains_within(masks, pruned, optimizer)


def test_parametrizations_of_another_kind_are_left_alone():
    pruned = nn.ModuleDict({"fc": nn.Linear(4, 4), "norm": nn.Sequential(nn.Conv3d(1, 2, 3))})
    parametrizations.weight_norm(pruned["norm"][0])
    torch_prune.l1_unstructured(pruned["fc"], "weight", amount=0.5)
    assert Masks.from_torch_prune(pruned)["fc.weight"].nnz == 8
    assert parametrize.is_parametrized(pruned["norm"][0])


def test_nothing_to_take_over():
    with pytest.raises(NothingMatchedError, match=r"Masks\.from_zeros"):
        Masks.from_torch_prune(model())
    with pytest.raises(NothingMatchedError, match=r"the model has rnn\.l0\.ih, .*fc\.weight"):
        Masks.from_zeros(model())
    with pytest.raises(NothingMatchedError, match="no weights"):
        Masks.from_zeros(nn.ReLU())


def test_plain_zeros():
    pruned = model()
    with torch.no_grad():
        pruned.rnn.weight_hh_l1[::2] = 0
        pruned.fc.weight[0, 1] = -0.0
    masks = Masks.from_zeros(pruned)
    assert set(masks.patterns) == {"rnn.l1.hh", "fc.weight"}
    assert masks["rnn.l1.hh"].density == 0.5
    assert masks["rnn.l1.hh"].origin == "zeros"
    assert masks["fc.weight"].nnz == 17
    assert set(Masks.from_zeros(pruned, named("rnn.*")).patterns) == {"rnn.l1.hh"}
    masks.check()


def test_padding_rows_of_embeddings_are_not_pruning():
    with_padding = nn.Sequential(nn.Embedding(5, 3, padding_idx=0), nn.Linear(3, 3))
    with pytest.raises(NothingMatchedError):
        Masks.from_zeros(with_padding)
    assert set(Masks.from_zeros(with_padding, lambda info: info.kind == "embedding").patterns) == {"0.weight"}
