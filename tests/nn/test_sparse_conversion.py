"""Dense models to sparse layers and back, optimizers with them."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from sparsecirc import to_graph
from sparsecirc._prune import named
from sparsecirc.errors import NothingMatchedError, UnsupportedError, UsageError
from sparsecirc.ir import interpret
from sparsecirc.masks import Masks, prune_model
from sparsecirc.nn import (
    SparseGRU,
    SparseLinear,
    SparseLSTM,
    SparseRLIF,
    SparseRSynaptic,
    SparseWeight,
    parameter_pairs,
    sparse_model,
    to_dense_model,
    transfer_optimizer_state,
)
from sparsecirc.patterns import unstructured


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.rnn = nn.GRU(4, 16, num_layers=2, batch_first=True)
        self.fc = nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.rnn(x)[0])


def train(model: nn.Module, optimizer: torch.optim.Optimizer, steps: int, masks: Masks | None = None) -> None:
    generator = torch.Generator().manual_seed(5)
    for _ in range(steps):
        x = torch.randn(2, 6, 4, generator=generator)
        optimizer.zero_grad()
        model(x).square().sum().backward()
        optimizer.step()
        if masks is not None:
            masks.apply()


def test_masked_layers_become_sparse_and_compute_the_same():
    model = Model()
    masks = prune_model(model, 0.8, select=lambda info: True)
    sparse = sparse_model(model, masks)
    assert isinstance(sparse.rnn, SparseGRU)
    assert isinstance(sparse.fc, SparseLinear)
    assert sparse.rnn.weight_hh_l1.pattern == masks["rnn.l1.hh"]
    x = torch.randn(2, 6, 4)
    torch.testing.assert_close(sparse(x), model(x))
    back = to_dense_model(sparse)
    assert torch.equal(back(x), model(x))
    assert list(back.state_dict()) == list(model.state_dict())


def test_a_layer_alone_and_what_has_no_mask_is_dense():
    model = Model()
    masks = Masks.prune(model, 0.5, select=named("rnn.l0.hh"))
    layer = SparseGRU.from_dense(model.rnn, masks, "rnn")
    assert layer.weight_hh_l0.pattern.density == 0.5
    assert layer.weight_ih_l1.pattern.density == 1
    torch.testing.assert_close(layer(torch.ones(2, 6, 4))[0], model.rnn(torch.ones(2, 6, 4))[0])


def test_nothing_masked_is_an_error():
    model = nn.Sequential(nn.Conv1d(2, 2, 3), nn.Linear(4, 4))
    with pytest.raises(NothingMatchedError, match=r"0\.weight"):
        sparse_model(model, Masks.prune(model, 0.5, select=named("0.*")))


def test_training_goes_on_as_with_masks():
    results = []
    for make_sparse in (False, True):
        torch.manual_seed(1)
        model: nn.Module = Model()
        # a large eps: else Adam turns rounding of tiny gradients into whole steps
        optimizer = torch.optim.Adam(model.parameters(), 1e-3, eps=1e-2)
        train(model, optimizer, 3)
        masks = prune_model(model, 0.7)
        if make_sparse:
            old, model = model, sparse_model(model, masks)
            transfer_optimizer_state(optimizer, parameter_pairs(old, model))
            assert optimizer.state[model.rnn.weight_hh_l0.values]["exp_avg"].shape == (masks["rnn.l0.hh"].nnz,)
            train(model, optimizer, 4)
            old, model = model, to_dense_model(model)
            transfer_optimizer_state(optimizer, parameter_pairs(old, model))
            train(model, optimizer, 1)
            model = sparse_model(model, masks)
        else:
            train(model, optimizer, 4, masks)
            train(model, optimizer, 1, masks)
        results.append(to_dense_model(model))
    for one, other in zip(results[0].parameters(), results[1].parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


def stepped(model: nn.Module, optimizer: torch.optim.Optimizer, run: Callable[[nn.Module], Tensor], times: int) -> None:
    for _ in range(times):
        optimizer.zero_grad()
        run(model).square().mean().backward()
        optimizer.step()


def goes_on_alike(dense: nn.Module, make: Callable[[nn.Module], nn.Module], runs: list[Callable[[nn.Module], Tensor]]):
    """Adam on a dense module whose zeros stay zero, and on its sparse form from the third step on."""
    both = [copy.deepcopy(dense), copy.deepcopy(dense)]
    optimizers = [torch.optim.Adam(m.parameters(), 1e-2, eps=1e-2) for m in both]
    masks = {n: p != 0 for n, p in both[0].named_parameters() if n.startswith(("weight", "recurrent.weight"))}
    for model, optimizer in zip(both, optimizers, strict=True):
        for n, p in model.named_parameters():
            if n in masks:
                p.register_hook(lambda grad, live=masks[n]: grad * live)
        stepped(model, optimizer, runs[0], 2)
    sparse = make(both[1])
    transfer_optimizer_state(optimizers[1], parameter_pairs(both[1], sparse))
    stepped(both[0], optimizers[0], runs[0], 3)
    stepped(sparse, optimizers[1], runs[1], 3)
    for one, other in zip(both[0].parameters(), sparse.to_dense().parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


@pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN:UserWarning")
def test_optimizers_of_projected_lstms_go_on():
    dense, x = nn.LSTM(4, 12, proj_size=5, num_layers=2), torch.randn(6, 3, 4)
    masks = Masks.prune(dense, 0.6)
    assert "lstm.l1.hr" in masks.patterns
    goes_on_alike(dense, lambda m: SparseLSTM.from_dense(m, masks, "lstm"), [lambda m: m(x)[0]] * 2)


def test_optimizers_of_synaptic_neurons_go_on():
    snntorch = pytest.importorskip("snntorch", reason="the package snntorch is not installed")
    dense = snntorch.RSynaptic(alpha=0.6, beta=0.9, linear_features=10, learn_alpha=True, learn_threshold=True)
    masks, x = Masks.prune(dense, 0.6), torch.randn(8, 3, 10)

    def looped(module: nn.Module) -> Tensor:
        spk, syn, mem = (torch.zeros(3, 10) for _ in range(3))
        membranes = []
        for step in x:
            spk, syn, mem = module(step, spk, syn, mem)
            membranes.append(mem)
        return torch.stack(membranes)

    goes_on_alike(dense, lambda m: SparseRSynaptic.from_dense(m, masks, "rsynaptic"), [looped, lambda m: m(x)[2]])


def test_from_one_pattern_to_another():
    old, new = nn.Module(), nn.Module()
    old.w = SparseWeight(unstructured(torch.rand(4, 4).numpy(), 0.5))
    new.w = SparseWeight(unstructured(torch.rand(4, 4).numpy(), 0.25))
    (pair,) = parameter_pairs(old, new)
    moved = new.w.scatter(pair.convert(torch.ones(8)))
    assert torch.equal(moved != 0, (old.w.scatter(torch.ones(8)) != 0) & (new.w.scatter(torch.ones(12)) != 0))


def test_neurons_over_sequences_have_no_graph_of_one_step():
    with pytest.raises(UnsupportedError, match=r"layer '0' runs whole sequences: put SparseRLIF\.to_dense"):
        to_graph(nn.Sequential(SparseRLIF(0.9, 4)))


def test_wrong_partners_are_refused():
    with pytest.raises(UsageError, match=r"'rnn\.weight_ih_l0' has no successor"):
        parameter_pairs(Model(), nn.Linear(2, 2))
    one, other = nn.Linear(2, 2), nn.Linear(2, 2)
    with pytest.raises(UsageError, match="none of the old parameters"):
        transfer_optimizer_state(torch.optim.SGD(other.parameters(), 0.1), parameter_pairs(one, other))


def test_a_trained_sparse_model_becomes_a_graph():
    sparse = sparse_model(Model(), prune_model(Model(), 0.8))
    graph = to_graph(sparse)
    node = next(n for n in graph.nodes if n.name == "rnn.l0")
    assert node.patterns["hh"] == sparse.rnn.weight_hh_l0.pattern
    x = torch.randn(2, 6, 4)
    expected = sparse(x).detach().numpy()
    assert abs(interpret(graph, x.numpy()).y - expected).max() < 1e-5
