"""Sparse layers beside torch's, in what they compute, take and refuse."""

from __future__ import annotations

import copy
import io
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pack_sequence, pad_packed_sequence

from sparsecirc._pattern import Pattern
from sparsecirc.errors import UnsupportedError, UsageError
from sparsecirc.nn import SparseGRU, SparseLinear, SparseLSTM, SparseRNN
from sparsecirc.nn._recurrent import SparseRNNBase
from sparsecirc.patterns import block, fan_in


def listed(states: Tensor | tuple[Tensor, ...]) -> list[Tensor]:
    return [states] if isinstance(states, Tensor) else list(states)


def same_gradients(sparse: SparseRNNBase, dense: nn.RNNBase) -> None:
    for name in sparse.weight_names():
        weight = sparse.get_submodule(name)
        torch.testing.assert_close(weight.values.grad, weight.live(dense.get_parameter(name).grad), msg=name)
    for name, parameter in sparse.named_parameters():
        if name.startswith("bias"):
            torch.testing.assert_close(parameter.grad, dense.get_parameter(name).grad, msg=name)


pytestmark = pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN:UserWarning")

OPTIONS = [{}, {"num_layers": 2, "bidirectional": True}, {"batch_first": True, "bias": False}]
KINDS = [
    (SparseGRU, {}),
    (SparseLSTM, {}),
    (SparseLSTM, {"proj_size": 7}),
    (SparseRNN, {"nonlinearity": "relu"}),
]


def compare(sparse: SparseRNNBase, run: Callable[[nn.Module, Tensor, object], tuple[Tensor, object]], x: Tensor):
    """Outputs and gradients of the layer beside those of the dense one; ``run`` gives a tensor and the last states."""
    dense = sparse.to_dense()
    given = [torch.randn_like(s) for s in listed(run(sparse, x, None)[1])]
    results = []
    for layer in (sparse, dense):
        value, states = x.clone().requires_grad_(), [g.clone().requires_grad_() for g in given]
        out, last = run(layer, value, states[0] if len(states) == 1 else tuple(states))
        loss = out.square().sum() + sum((s.sin().sum() for s in listed(last)), torch.zeros(()))
        loss.backward()
        results.append([out, *listed(last), value.grad, *(s.grad for s in states)])
    for mine, theirs in zip(*results, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-5)
    same_gradients(sparse, dense)


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize(("kind", "more"), KINDS)
def test_like_torch(kind: type[SparseRNNBase], more: dict[str, object], options: dict[str, object]):
    compare(kind(6, 20, density=0.4, **options, **more), lambda layer, x, hx: layer(x, hx), torch.randn(5, 3, 6))


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("lengths", [[2, 7, 7, 1], [5, 4, 3]])  # to be sorted, and sorted already
@pytest.mark.parametrize(("kind", "more"), KINDS)
def test_packed_sequences_like_torch(
    kind: type[SparseRNNBase], more: dict[str, object], lengths: list[int], options: dict[str, object]
):
    sparse = kind(6, 20, density=0.4, **options, **more)
    is_sorted = lengths == sorted(lengths, reverse=True)

    def run(layer: nn.Module, x: Tensor, hx: object) -> tuple[Tensor, object]:
        out, last = layer(pack_padded_sequence(x, lengths, enforce_sorted=is_sorted), hx)
        assert isinstance(out, PackedSequence)
        padded, sizes = pad_packed_sequence(out)
        assert sizes.tolist() == lengths
        return padded, last

    compare(sparse, run, torch.randn(max(lengths), len(lengths), 6))


@pytest.mark.parametrize("density", [1.0, {"ih": 1.0, "hh": 0.3}])
@pytest.mark.parametrize("features", [1, 16, 21])
@pytest.mark.parametrize(("kind", "more"), KINDS)
def test_dense_weights_like_torch(
    kind: type[SparseRNNBase], more: dict[str, object], features: int, density: float | dict[str, float]
):
    layer = kind(features, 20, density=density, **more)
    compare(layer, lambda layer, x, hx: layer(x, hx), torch.randn(5, 3, features))


@pytest.mark.parametrize(("kind", "more"), KINDS)
def test_one_sequence_without_a_batch(kind: type[SparseRNNBase], more: dict[str, object]):
    sparse = kind(6, 20, num_layers=2, **more)
    dense = sparse.to_dense()
    x = torch.randn(5, 6)
    states = tuple(torch.randn_like(s) for s in listed(sparse(x)[1]))
    hx = states[0] if len(states) == 1 else states
    torch.testing.assert_close(sparse(x, hx), dense(x, hx))


def test_dropout_between_layers_in_training_only():
    layer = SparseGRU(4, 30, num_layers=2, dropout=0.5)
    x = torch.randn(4, 2, 4)
    assert not torch.equal(layer(x)[0], layer(x)[0])
    layer.eval()
    assert torch.equal(layer(x)[0], layer(x)[0])


def test_linear_like_torch():
    sparse = SparseLinear(12, 7, density=0.5)
    dense = sparse.to_dense()
    x = torch.randn(2, 3, 12)
    torch.testing.assert_close(sparse(x), dense(x))
    for layer in (sparse, dense):
        layer(x).square().sum().backward()
    torch.testing.assert_close(sparse.weight.values.grad, sparse.weight.live(dense.weight.grad))
    torch.testing.assert_close(sparse.bias.grad, dense.bias.grad)
    assert SparseLinear(12, 7, bias=False).bias is None


def test_densities_and_patterns():
    layer = SparseGRU(32, 64, density={"ih": 1.0, "hh": 0.25})
    assert layer.weight_ih_l0.pattern.density == 1
    per_gate = [layer.weight_hh_l0.pattern.row_block(64 * g, 64 * g + 64).density for g in range(3)]
    assert per_gate == [0.25] * 3
    blocks = SparseGRU(32, 64, density=0.25, pattern=block(16))
    assert blocks.weight_hh_l0.pattern.block_shape() == (16, 1)
    assert set(SparseLinear(32, 8, pattern=fan_in(3)).weight.pattern.fan_in()) == {3}
    own = Pattern.full(8, 4)
    assert SparseLinear(4, 8, pattern=own).weight.pattern == own
    assert SparseRNN(4, 8, patterns={"weight_ih_l0": own}).weight_ih_l0.pattern == own
    projected = SparseLSTM(8, 32, proj_size=4, density={"hr": 0.5})
    assert (projected.weight_hr_l0.pattern.density, projected.weight_hh_l0.pattern.shape) == (0.5, (128, 4))


def test_the_seed_decides_the_pattern():
    made = []
    for _ in range(2):
        torch.manual_seed(3)
        made.append(SparseLSTM(5, 16))
    for one, other in zip(made[0].parameters(), made[1].parameters(), strict=True):
        assert torch.equal(one, other)
    assert made[0].weight_hh_l0.pattern == made[1].weight_hh_l0.pattern


def test_initial_values():
    layer = SparseGRU(8, 100)
    bound = 100**-0.5
    assert 0.8 * bound < float(layer.weight_hh_l0.values.detach().abs().max()) <= bound
    layer.reset_parameters(rescale=True)
    dense = layer.weight_hh_l0.dense().detach().abs().amax(1)
    alive = torch.from_numpy(layer.weight_hh_l0.pattern.fan_in() / 100)
    assert bool((dense * alive.sqrt() <= bound * (1 + 1e-6)).all())
    assert float((dense * alive.sqrt()).max()) > 0.9 * bound


def test_checkpoints_say_what_their_values_mean():
    saved, other = SparseGRU(6, 20, density=0.3), SparseGRU(6, 20, density=0.1)
    assert "weight_hh_l0.values" in saved.state_dict()
    file = io.BytesIO()
    torch.save(saved.state_dict(), file)
    file.seek(0)
    other.load_state_dict(torch.load(file, weights_only=True))
    x = torch.randn(3, 2, 6)
    assert torch.equal(saved(x)[0], other(x)[0])
    assert torch.equal(copy.deepcopy(other)(x)[0], saved(x)[0])
    damaged = saved.state_dict()
    damaged["weight_hh_l0.indices"] = damaged["weight_hh_l0.indices"] + 19
    with pytest.raises(UsageError, match="outside a matrix of 20 columns"):
        other.load_state_dict(damaged)


def test_gradients_and_optimizer_hold_live_values_only():
    units = 64
    layer = SparseGRU(units, units, density=0.1)
    optimizer = torch.optim.Adam(layer.parameters())
    layer(torch.randn(4, 2, units))[0].sum().backward()
    optimizer.step()
    held = [*layer.parameters(), *layer.buffers(), *(p.grad for p in layer.parameters())]
    held += [v for state in optimizer.state.values() for v in state.values()]
    dense = 3 * units * units
    assert max(t.numel() for t in held) == round(0.1 * units * units) * 3
    trained = sum(t.numel() for p in layer.parameters() for t in (p.grad, *optimizer.state[p].values()))
    assert trained <= 0.15 * 3 * (2 * dense + 6 * units)


@pytest.mark.parametrize(
    ("make", "error", "words"),
    [
        (lambda: SparseGRU(4, 8, proj_size=2), UsageError, "proj_size=2: only SparseLSTM projects"),
        (lambda: SparseLSTM(4, 8, proj_size=8), UsageError, "fewer features than its 8 units"),
        (lambda: SparseGRU(4, 8, density=0.0), UsageError, "density is 0.0"),
        (lambda: SparseGRU(4, 0), UsageError, "at least 1"),
        (lambda: SparseRNN(4, 8, nonlinearity="gelu"), UsageError, "'gelu'"),
        (lambda: SparseGRU(4, 8, patterns={"hh": Pattern.full(24, 8)}), UsageError, "'hh' has no weight"),
        (lambda: SparseGRU(4, 8, patterns={"weight_hh_l0": Pattern.full(8, 8)}), UsageError, r"\(24, 8\)"),
        (lambda: SparseGRU(4, 8)(torch.zeros(2, 3, 5)), UsageError, r"\(2, 3, 5\)"),
        (lambda: SparseGRU(4, 8)(torch.zeros(2, 3, 4), torch.zeros(1, 2, 8)), UsageError, r"\(1, 3, 8\)"),
        (lambda: SparseLinear(4, 8)(torch.zeros(2, 3)), UsageError, "expected 4 features"),
        (lambda: SparseGRU.from_dense(nn.LSTM(4, 8)), UnsupportedError, "LSTM is no dense form of SparseGRU"),
        (lambda: SparseGRU(4, 8)(pack_sequence([torch.zeros(2, 5)])), UsageError, "expected 4 features"),
        (lambda: SparseLSTM(4, 8)(torch.zeros(2, 3, 4), [torch.zeros(1, 3, 8)]), UsageError, r"\(1, 3, 8\)"),
        (lambda: SparseLinear(4, 8)(torch.zeros(2, 4, device="meta")), UnsupportedError, "on the CPU"),
    ],
)  # fmt: skip
def test_refusals(make: object, error: type[Exception], words: str):
    with pytest.raises(error, match=words):
        make()
