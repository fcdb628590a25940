"""Layers that are copied, pickled, saved, and trained by several processes."""

from __future__ import annotations

import copy
import io
import os
import pickle
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from layer_catalogue import LAYERS, first, gradients
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from sparsecirc.nn import SparseGRU, SparseRSynaptic


@pytest.mark.parametrize("name", LAYERS)
def test_deepcopy_and_pickle(name: str):
    layer, x = LAYERS[name](), torch.randn(4, 3, 5)
    wanted = gradients(layer, layer, x)
    for other in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert all(a is not b for a, b in zip(layer.parameters(), other.parameters(), strict=True))
        for mine, theirs in zip(gradients(other, other, x), wanted, strict=True):
            assert torch.equal(mine, theirs)


@pytest.mark.parametrize("name", LAYERS)
def test_state_dict_into_a_layer_of_another_pattern(name: str):
    saved, other, x = LAYERS[name](), LAYERS[name](), torch.randn(4, 3, 5)
    with torch.no_grad():
        for p in saved.parameters():
            p.mul_(0.5)
    file = io.BytesIO()
    torch.save(saved.state_dict(), file)
    file.seek(0)
    other.load_state_dict(torch.load(file, weights_only=True))
    assert torch.equal(first(other(x)), first(saved(x)))


class Model(nn.Module):
    """A gated and a spiking layer."""

    def __init__(self) -> None:
        super().__init__()
        self.gru = SparseGRU(6, 10, density=0.4)
        self.lif = SparseRSynaptic(0.5, 0.9, 10, learn_alpha=True, density=0.4)

    def forward(self, x: Tensor) -> Tensor:
        return self.lif(self.gru(x)[0])[2]


def trained(module: nn.Module, x: Tensor) -> list[Tensor]:
    optimizer = torch.optim.SGD(module.parameters(), 0.1)
    for _ in range(3):
        optimizer.zero_grad()
        module(x).square().mean().backward()
        optimizer.step()
    return [p.detach().clone() for p in module.parameters()]


def data() -> Tensor:
    return torch.randn(5, 4, 6, generator=torch.Generator().manual_seed(2))


def worker(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    torch.manual_seed(3 + rank)  # other patterns too: those of the first process are the ones that count
    module = DistributedDataParallel(Model())
    mine = data()[:, 2 * rank : 2 * rank + 2]
    torch.save((trained(module, mine), module.module.state_dict()), Path(folder, f"{rank}.pt"))
    dist.destroy_process_group()


@pytest.mark.slow
@pytest.mark.skipif(not dist.is_available() or not dist.is_gloo_available(), reason="this torch has no gloo")
def test_two_processes_train_as_one(tmp_path: Path):
    mp.spawn(worker, (str(tmp_path),), nprocs=2)
    torch.manual_seed(3)
    alone = trained(Model(), data())
    (first_, state), (second, other_state) = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in (0, 1))
    for one, other, whole in zip(first_, second, alone, strict=True):
        assert torch.equal(one, other)
        torch.testing.assert_close(one, whole)
    assert all(torch.equal(state[k], other_state[k]) for k in state)  # buffers are broadcast: patterns too
