"""`GraphRNN` computes what its equations say, trains, compiles, and refuses what it cannot be."""

from __future__ import annotations

import copy
import io

import networkx as nx
import numpy as np
import pytest
import torch
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

import sparsecirc as sc
from sparsecirc.errors import UsageError
from sparsecirc.frontends import from_torch
from sparsecirc.nn import GraphRNN, to_dense_model
from sparsecirc.structures import erdos_renyi, layered, watts_strogatz

CELLS = ("rnn_tanh", "rnn_relu", "gru", "lstm")


def network(cell: str, **options: bool) -> GraphRNN:
    torch.manual_seed(0)
    return GraphRNN(cell, 5, layered(watts_strogatz(12, 4, seed=2)), **options)


@pytest.mark.parametrize("cell", CELLS)
def test_layers_and_skips_add_up(cell: str) -> None:
    net = network(cell)
    assert net.graph.skips
    x = torch.randn(7, 3, 5)
    dense = to_dense_model(net)
    made = [dense.layers[0](x)[0]]
    for k in range(1, len(net.graph.sizes)):
        y = dense.layers[k](made[-1])[0]
        for a, b in net.graph.skips:
            if b == k:
                y = y + dense.skips[f"from{a}to{b}"](made[a])[0]
        made.append(y)
    got = net(x)
    assert got.shape == (7, 3, net.output_size)
    assert torch.allclose(got, made[-1], atol=1e-5)


@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("cell", CELLS)
def test_layers_that_run_together_equal_layers_one_by_one(cell: str, batch_first: bool) -> None:
    net = network(cell, batch_first=batch_first)
    alone = copy.deepcopy(net)
    for steps, batch in ((7, 3), (1, 1), (5, 64)):
        x = torch.randn((batch, steps, 5) if batch_first else (steps, batch, 5))
        weights = torch.randn(net.output_size)
        for model, run in ((net, net.forward), (alone, alone._one_by_one)):
            model.zero_grad()
            (run(x) * weights).sum().backward()
        torch.testing.assert_close(net(x), alone._one_by_one(x), rtol=0, atol=1e-5)
        for (name, a), (_, b) in zip(net.named_parameters(), alone.named_parameters(), strict=True):
            torch.testing.assert_close(a.grad, b.grad, rtol=1e-4, atol=1e-4, msg=name)


def test_layers_that_run_together_follow_new_connections() -> None:
    net, x = network("gru"), torch.randn(4, 2, 5)
    before = net(x)
    weight = net.layers[1].weight_ih_l0
    dead = np.flatnonzero(~weight.pattern.mask().ravel())
    weight.rewire([0], dead[:1])  # in place
    changed = net(x)
    assert not torch.equal(changed, before)
    torch.testing.assert_close(changed, net._one_by_one(x), rtol=0, atol=1e-5)
    other = network("gru")
    other.load_state_dict(net.state_dict())
    torch.testing.assert_close(other(x), changed, rtol=0, atol=1e-5)
    net.layers[0] = copy.deepcopy(net.layers[0])  # another module in its place
    with torch.no_grad():
        net.layers[0].weight_hh_l0.values.zero_()
    torch.testing.assert_close(net(x), net._one_by_one(x), rtol=0, atol=1e-5)


@pytest.mark.parametrize("cell", CELLS)
def test_every_gate_has_the_links_of_the_graph(cell: str) -> None:
    net = network(cell)
    dense = to_dense_model(net)
    for (a, b), links in net.graph.wiring.items():
        layer = dense.layers[b] if b - a == 1 else dense.skips[f"from{a}to{b}"]
        for gate in layer.weight_ih_l0.detach().chunk(len(layer.weight_ih_l0) // len(net.graph.layers[b])):
            assert np.array_equal(gate.numpy() != 0, links.mask())
        assert layer.weight_hh_l0.detach().ne(0).all()


def test_gradients_reach_all_parameters_and_only_links() -> None:
    net = network("gru")
    net(torch.randn(6, 4, 5)).square().sum().backward()
    for name, parameter in net.named_parameters():
        assert parameter.grad is not None, name
    links = sum(p.nnz for p in net.graph.wiring.values())
    first = net.graph.sizes[0] * 5
    assert sum(p.numel() for n, p in net.named_parameters() if "weight_ih" in n) == 3 * (links + first)


def test_packed_and_batch_first_inputs() -> None:
    net, first = network("lstm"), network("lstm", batch_first=True)
    first.load_state_dict(net.state_dict())
    x, lengths = torch.randn(6, 3, 5), torch.tensor([2, 6, 4])
    want = net(x)
    assert torch.equal(first(x.transpose(0, 1)).transpose(0, 1), want)
    out, n = pad_packed_sequence(net(pack_padded_sequence(x, lengths, enforce_sorted=False)))
    assert torch.equal(n, lengths)
    for b, length in enumerate(lengths.tolist()):
        assert torch.allclose(out[:length, b], want[:length, b], atol=1e-6)


def test_copies_and_checkpoints() -> None:
    net = network("gru")
    x = torch.randn(4, 2, 5)
    buffer = io.BytesIO()
    torch.save(net.state_dict(), buffer)
    buffer.seek(0)
    other = network("gru")
    with torch.no_grad():
        for p in other.parameters():
            p.zero_()
    other.load_state_dict(torch.load(buffer, weights_only=True))
    for same in (copy.deepcopy(net), other):
        assert torch.equal(same(x), net(x))


@pytest.mark.parametrize("cell", ["rnn_tanh", "gru"])
def test_it_compiles_like_any_network(cell: str) -> None:
    net = network(cell)
    x = torch.randn(5, 2, 5)
    graph = from_torch(net, example=x)
    program = sc.compile(graph)
    want = net(x).detach().numpy()
    assert np.allclose(program.run(x.numpy()).y, want, atol=1e-5)
    live = {v.name: v.pattern.nnz for v in graph.weights() if v.role == "ih"}
    assert sum(live.values()) == sum(p.numel() for n, p in net.named_parameters() if "weight_ih" in n)


def test_a_single_layer_and_one_without_links() -> None:
    alone = nx.Graph()
    alone.add_nodes_from(range(4))
    net = GraphRNN("gru", 3, layered(alone))
    assert (net.output_size, len(net.skips)) == (4, 0)
    assert net(torch.randn(2, 1, 3)).shape == (2, 1, 4)
    assert GraphRNN("gru", 3, layered(erdos_renyi(1, 0.0)))(torch.randn(2, 1, 3)).shape == (2, 1, 1)


def test_unknown_cells_are_refused() -> None:
    with pytest.raises(UsageError, match="cell 'lif' is unknown: expected one of rnn_tanh, rnn_relu, gru, lstm"):
        GraphRNN("lif", 5, layered(watts_strogatz(12, 4)))
