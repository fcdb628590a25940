"""`Masks`: exact zeros that stay, in a model that stays ordinary."""

from __future__ import annotations

import copy
import io
import pickle

import numpy as np
import pytest
import torch
from torch import nn

from sparsecirc._pattern import Pattern
from sparsecirc._prune import Criteria, Scope, named
from sparsecirc.errors import FileFormatError, MismatchError, NothingMatchedError, UnsupportedError, UsageError
from sparsecirc.masks import Masks, prune_model
from sparsecirc.patterns import block, load_patterns, n_m
from sparsecirc.scores import random

snntorch = pytest.importorskip("snntorch", reason="spiking layers need the package snntorch")


class Net(nn.Module):
    """An LSTM with a projection, both directions and two layers, then a read-out."""

    def __init__(self) -> None:
        super().__init__()
        self.emb = nn.Embedding(11, 6)
        self.rnn = nn.LSTM(6, 8, num_layers=2, bidirectional=True, proj_size=4)
        self.mid = nn.Linear(8, 8)
        self.head = nn.Linear(8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y, _ = self.rnn(self.emb(x))
        return self.head(torch.tanh(self.mid(y[-1])))


class Small(nn.Module):
    def __init__(self, layer: nn.Module | None = None) -> None:
        super().__init__()
        self.rnn = layer or nn.GRU(5, 12)
        self.head = nn.Linear(12, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.rnn(x)[0][-1])


def net() -> Net:
    torch.manual_seed(0)
    return Net()


def small() -> Small:
    torch.manual_seed(0)
    return Small()


def train(model: nn.Module, optimizer: torch.optim.Optimizer, steps: int, features: int = 5) -> None:
    x = torch.randn(4, 6, features, generator=torch.Generator().manual_seed(1))
    target = torch.tensor([0, 1, 2, 0, 1, 2])
    for _ in range(steps):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), target).backward()
        optimizer.step()


def gates_are_exact(masks: Masks, sparsity: float) -> None:
    for name, ref in masks._refs.items():
        if name not in masks.patterns:
            continue
        for label in [f"{name}.{g}" for g in ref.gates] or [name]:
            pattern = masks[label]
            assert pattern.nnz == round((1 - sparsity) * pattern.shape[0] * pattern.shape[1]), label


def dead_entries(masks: Masks, name: str) -> torch.Tensor:
    parameter = masks._refs[name].parameter(masks.model).detach()
    return parameter[torch.from_numpy(~masks.patterns[name].mask()).reshape(parameter.shape)]


def test_every_gate_of_every_layer_and_direction_gets_its_share():
    model = net()
    masks = Masks.prune(model, 0.75)
    layers = [f"rnn.{s}" for s in ("l0", "l0_reverse", "l1", "l1_reverse")]
    assert set(masks.patterns) == {f"{n}.{r}" for n in layers for r in ("ih", "hh", "hr")} | {"mid.weight"}
    gates_are_exact(masks, 0.75)
    masks.check()
    for name in masks.patterns:
        zeros = dead_entries(masks, name)
        assert len(zeros) > 0
        assert torch.all(zeros == 0)
        assert not torch.any(torch.signbit(zeros))
    assert not torch.any(model.head.weight == 0)


@pytest.mark.parametrize(
    ("layer", "names"),
    [
        (nn.RNN(4, 8), {"layer.l0.ih": 1, "layer.l0.hh": 1}),
        (nn.RNN(4, 8, nonlinearity="relu"), {"layer.l0.ih": 1, "layer.l0.hh": 1}),
        (nn.GRU(4, 8), {"layer.l0.ih": 3, "layer.l0.hh": 3}),
        (nn.LSTM(4, 8, proj_size=4), {"layer.l0.ih": 4, "layer.l0.hh": 4, "layer.l0.hr": 1}),
        (nn.RNNCell(4, 8), {"layer.ih": 1, "layer.hh": 1}),
        (nn.GRUCell(4, 8), {"layer.ih": 3, "layer.hh": 3}),
        (nn.LSTMCell(4, 8), {"layer.ih": 4, "layer.hh": 4}),
        (nn.Linear(4, 8), {"layer.weight": 1}),
        (nn.Conv1d(4, 8, 3), {"layer.weight": 1}),
        (nn.Conv2d(4, 8, (3, 2), groups=2), {"layer.weight": 1}),
        (nn.Embedding(10, 8), {"layer.weight": 1}),
        (snntorch.RLeaky(beta=0.9, linear_features=8), {"layer.hh": 1}),
        (snntorch.RLeaky(beta=0.9, all_to_all=False, V=torch.rand(8)), {"layer.hh_diag": 1}),
        (snntorch.RSynaptic(alpha=0.8, beta=0.9, linear_features=8), {"layer.hh": 1}),
    ],
    ids=lambda value: str(type(value).__name__),
)
def test_every_layer_type(layer, names):
    model = nn.ModuleDict({"layer": layer, "head": nn.Linear(8, 2)})
    masks = Masks.prune(model, 0.5, select=named("layer.*"))
    assert {n: max(1, len(masks._refs[n].gates)) for n in masks.patterns} == names
    gates_are_exact(masks, 0.5)
    masks.check()
    name = next(iter(names))
    with torch.no_grad():
        masks._refs[name].parameter(model).fill_(1)
    with pytest.raises(MismatchError, match=name):
        masks.check()
    masks.apply()
    masks.check()


@pytest.mark.parametrize("layer", [snntorch.Leaky(beta=0.9), snntorch.Synaptic(alpha=0.8, beta=0.9)])
def test_neurons_without_recurrence_have_their_linear_pruned(layer):
    model = nn.ModuleDict({"fc": nn.Linear(6, 8), "lif": layer, "head": nn.Linear(8, 2)})
    assert set(Masks.prune(model, 0.5).patterns) == {"fc.weight"}


def test_the_model_stays_ordinary():
    model = small()
    keys = list(model.state_dict())
    order = [n for n, _ in model.named_parameters()]
    parameters = dict(model.named_parameters())
    pointers = {n: p.data_ptr() for n, p in parameters.items()}
    flat = [p.data_ptr() for p in model.rnn._flat_weights]
    masks = Masks.prune(model, 0.8)
    optimizer = torch.optim.Adam(model.parameters())
    masks.attach(optimizer)
    masks.mask_gradients()
    train(model, optimizer, 3)
    masks.update({"rnn.l0.hh": Pattern.empty(36, 12)})
    model.rnn.flatten_parameters()
    assert list(model.state_dict()) == keys
    assert [n for n, _ in model.named_parameters()] == order
    assert all(p is parameters[n] for n, p in model.named_parameters())
    assert {n: p.data_ptr() for n, p in model.named_parameters()} == pointers
    assert [p.data_ptr() for p in model.rnn._flat_weights] == flat
    assert all(a is b for a, b in zip(model.rnn._flat_weights, model.rnn.parameters(), strict=True))
    for module in model.modules():
        assert not module._forward_pre_hooks
        assert not module._forward_hooks

    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        masks.check(twin)
        x = torch.randn(3, 2, 5)
        assert torch.equal(twin(x), model(x))
    file = io.BytesIO()
    torch.save(model.state_dict(), file)
    file.seek(0)
    fresh = Small()
    fresh.load_state_dict(torch.load(file, weights_only=True))
    masks.check(fresh)
    copy.deepcopy(optimizer)


OPTIMIZERS = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, weight_decay=0.1),
    "nesterov": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, nesterov=True, weight_decay=0.1),
    "adam": lambda p: torch.optim.Adam(p, lr=0.01, weight_decay=0.1),
    "amsgrad": lambda p: torch.optim.Adam(p, lr=0.01, amsgrad=True, foreach=False),
    "adamw": lambda p: torch.optim.AdamW(p, lr=0.01, weight_decay=0.1),
    "rmsprop": lambda p: torch.optim.RMSprop(p, lr=0.01, momentum=0.9, centered=True),
}


@pytest.mark.parametrize("make", OPTIMIZERS.values(), ids=OPTIMIZERS.keys())
@pytest.mark.parametrize("attach", [True, False])
def test_optimizers_keep_weights_and_state_at_zero(make, attach):
    model = small()
    optimizer = make(model.parameters())
    train(model, optimizer, 3)  # momentum from before pruning would bring zeros back
    masks = Masks.prune(model, 0.8)
    before = model.rnn.weight_hh_l0.detach().clone()
    if not attach:
        train(model, optimizer, 1)
        with pytest.raises(MismatchError, match=r"'rnn\.l0\.hh' has \d+ of \d+"):
            masks.check()
        return
    masks.attach(optimizer)
    for _ in range(20):
        train(model, optimizer, 1)
        masks.check()
        for name in masks.patterns:
            parameter = masks._refs[name].parameter(model)
            dead = torch.from_numpy(~masks.patterns[name].mask())
            moments = [v for v in optimizer.state[parameter].values() if v.shape == parameter.shape]
            assert moments
            for value in moments:
                assert torch.all(value[dead] == 0)
                assert torch.any(value[~dead] != 0)
    assert not torch.equal(before, model.rnn.weight_hh_l0)


def test_lbfgs_with_a_closure():
    model = small()
    masks = Masks.prune(model, 0.8)
    optimizer = torch.optim.LBFGS(model.parameters(), max_iter=4, line_search_fn="strong_wolfe")
    x = torch.randn(4, 6, 5)
    seen = []

    def closure() -> torch.Tensor:
        masks.check()  # with masked gradients the line search never leaves the mask
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(x), torch.tensor([0, 1, 2, 0, 1, 2]))
        loss.backward()
        seen.append(loss.item())
        return loss

    with masks.attach(optimizer), masks.mask_gradients():
        for _ in range(3):
            optimizer.step(closure)
    masks.check()
    assert seen[-1] < seen[0]


def test_masked_gradients():
    model = small()
    masks = Masks.prune(model, 0.8)
    x = torch.randn(4, 6, 5)

    def gradient() -> torch.Tensor:
        model.zero_grad()
        model(x).square().sum().backward()
        return model.rnn.weight_hh_l0.grad.clone()

    dead = torch.from_numpy(~masks["rnn.l0.hh"].mask())
    free = gradient()
    assert torch.any(free[dead] != 0)
    with masks.mask_gradients() as attachment:
        held = gradient()
        assert torch.all(held[dead] == 0)
        assert torch.equal(held[~dead], free[~dead])
        masks.update({"rnn.l0.hh": Pattern.empty(36, 12)})
        assert torch.all(gradient() == 0)
    assert not attachment.active
    assert torch.any(gradient()[dead] != 0)


def test_nan_and_minus_zero_are_removed():
    model = small()
    masks = Masks.prune(model, 0.8)
    with torch.no_grad():
        dead = torch.from_numpy(~masks["rnn.l0.hh"].mask())
        model.rnn.weight_hh_l0[dead] = float("nan")
        model.rnn.weight_ih_l0.mul_(-1)
    with pytest.raises(MismatchError, match="nan"):
        masks.check()
    masks.apply()
    masks.check()
    for name in masks.patterns:
        zeros = dead_entries(masks, name)
        assert torch.all(zeros == 0)
        assert not torch.any(torch.signbit(zeros))


def test_a_scaler_that_skips_steps():
    model = small()
    masks = Masks.prune(model, 0.8)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=0.1)
    masks.attach(optimizer)
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    scales = []
    for k in range(6):
        optimizer.zero_grad()
        loss = model(torch.randn(4, 6, 5)).square().sum() * (float("inf") if k in (0, 3) else 1.0)
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        scales.append(scaler.get_scale())
        masks.check()
    assert scales == [2, 2, 2, 1, 1, 1]


@pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN:UserWarning")
def test_several_optimizers_each_look_after_their_own():
    model = net()
    masks = Masks.prune(model, 0.75)
    recurrent = torch.optim.Adam(model.rnn.parameters())
    rest = torch.optim.SGD([*model.mid.parameters(), *model.head.parameters()], lr=0.1, momentum=0.9)
    masks.attach(recurrent)
    handle = masks.attach(rest)
    x = torch.randint(0, 11, (4, 3))
    for _ in range(3):
        model(x).square().sum().backward()
        recurrent.step()
        rest.step()
        masks.check()
    handle.remove()
    handle.remove()
    model(x).square().sum().backward()
    rest.step()
    with pytest.raises(MismatchError, match=r"live entries outside the mask: 'mid\.weight' has \d+ of 48"):
        masks.check()
    masks.attach(rest)
    masks.check()
    masks.detach()
    recurrent.step()
    with pytest.raises(MismatchError, match=r"rnn\.l0\.ih.*rnn\.l1_reverse\.hr"):
        masks.check()


def test_attaching_wrongly_is_refused():
    model = small()
    masks = Masks.prune(model, 0.8)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    masks.attach(optimizer)
    with pytest.raises(UsageError, match="attached to this optimizer already"):
        masks.attach(optimizer)
    with pytest.raises(UsageError, match="owns none of the masked weights"):
        masks.attach(torch.optim.SGD(small().parameters(), lr=0.1))
    masks.detach()
    with masks.attach(optimizer) as attachment:
        assert attachment.active
    assert not attachment.active


def test_replaced_parameters_are_still_found():
    model = small()
    masks = Masks.prune(model, 0.8)
    model.load_state_dict(small().state_dict(), assign=True)
    with pytest.raises(MismatchError):
        masks.check()
    masks.apply()
    masks.check()


def test_an_averaged_copy():
    model = small()
    masks = Masks.prune(model, 0.8)
    other = small()
    with pytest.raises(MismatchError):
        masks.check(other)
    masks.apply(other)
    masks.check(other)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_number_types(dtype):
    model = small().to(dtype)
    masks = Masks.prune(model, 0.8)
    gates_are_exact(masks, 0.8)
    masks.check()
    assert model.rnn.weight_hh_l0.dtype is dtype


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU that torch can use (CUDA)")
def test_moving_to_a_gpu_and_back():
    model = small()
    masks = Masks.prune(model, 0.8)
    model.cuda()
    pointers = [p.data_ptr() for p in model.parameters()]
    optimizer = torch.optim.Adam(model.parameters())
    masks.attach(optimizer)
    for _ in range(3):
        model(torch.randn(4, 6, 5, device="cuda")).square().sum().backward()
        optimizer.step()
    masks.check()
    assert [p.data_ptr() for p in model.parameters()] == pointers
    model.cpu()
    masks.apply()
    masks.check()


def test_tied_weights_are_masked_once():
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.head = nn.Linear(6, 6), nn.Linear(6, 6), nn.Linear(6, 2)
            self.b.weight = self.a.weight

    model = Tied()
    masks = Masks.prune(model, 0.5)
    assert list(masks.patterns) == ["a.weight"]
    assert torch.count_nonzero(model.b.weight) == 18
    with pytest.raises(UsageError, match=r"'b.weight' matches no weight: did you mean 'a.weight'"):
        Masks(model, {"b.weight": masks["a.weight"]})


def test_patterns_of_single_gates():
    model = nn.LSTM(4, 6)
    masks = Masks(model, {"lstm.l0.hh.f": Pattern.empty(6, 6), "lstm.l0.hh.o": Pattern.empty(6, 6)})
    masks.apply()
    assert [int(torch.count_nonzero(g)) for g in model.weight_hh_l0.chunk(4)] == [36, 0, 36, 0]
    assert masks["lstm.l0.hh.f"].nnz == 0
    masks.update({"lstm.l0.hh.i": Pattern.empty(6, 6)})
    assert [masks[f"lstm.l0.hh.{g}"].nnz for g in "ifgo"] == [0, 0, 36, 0]


def test_update_cleans_optimizer_state_and_is_all_or_nothing():
    model = small()
    masks = Masks(model, {})
    optimizer = torch.optim.Adam(model.parameters())
    masks.attach(optimizer)
    train(model, optimizer, 2)
    masks.update({"head.weight": Pattern.empty(3, 12)})
    state = optimizer.state[model.head.weight]
    assert torch.all(state["exp_avg"] == 0)
    assert torch.all(model.head.weight == 0)
    digest = masks.digest
    with pytest.raises(UsageError, match=r"weight 'rnn\.l0\.hh' has shape \(36, 12\), the pattern \(12, 12\)"):
        masks.update({"rnn.l0.ih": Pattern.empty(36, 5), "rnn.l0.hh": Pattern.full(12, 12)})
    assert masks.digest == digest
    assert torch.all(model.rnn.weight_ih_l0 != 0)


def test_digest_density_and_table():
    model = small()
    masks = prune_model(model, 0.8)
    again = prune_model(small(), 0.8)
    assert masks.digest == again.digest
    assert masks.digest != prune_model(small(), 0.7).digest
    assert masks.density == sum(p.nnz for p in masks.patterns.values()) / (36 * 17)
    assert Masks(model, {}).density == 1
    assert len(masks.table().splitlines()) == 1 + 2 * 4 + 1
    assert "rnn.l0.hh.z" in masks.table()
    assert "rnn.l0.hh.z" not in masks.table(per_gate=False)
    with pytest.raises(TypeError):
        masks.patterns["x"] = Pattern.full(1, 1)


def test_options_reach_the_planner():
    model = small()
    masks = Masks.prune(model, 0.75, pattern=block(4, 1), score=random(3), scope=Scope.LAYER)
    assert masks["rnn.l0.hh"].origin == "block 4x1"
    tiles = masks["rnn.l0.hh"].nnz // 4 + masks["rnn.l0.ih"].nnz // 4
    assert tiles == round(0.25 * (9 * 12 + 9 * 5))
    assert Masks.prune(small(), None, pattern=n_m(2, 4), select=named("*.hh"))["rnn.l0.hh"].origin == "2:4"
    report = Masks(small(), {}).plan(0.75, Criteria(pattern=block(4, 1), score=random(3), scope=Scope.LAYER))
    assert report.patterns == dict(masks.patterns)
    assert ("head.weight", "last linear layer, taken for the read-out") in report.skipped


def test_save_and_load(tmp_path):
    model = small()
    masks = Masks.prune(model, 0.8)
    path = tmp_path / "masks.safetensors"
    masks.save(path)
    fresh = small()
    again = Masks.load(path, fresh)
    assert torch.all(fresh.rnn.weight_hh_l0 != 0)
    assert again.patterns == masks.patterns
    assert again.digest == masks.digest
    assert load_patterns(path) == dict(masks.patterns)
    with pytest.raises(UsageError, match=r"'rnn\.l0\.ih' matches no weight"):
        Masks.load(path, nn.Linear(3, 3))
    with pytest.raises(UsageError, match=r"has shape \(48, 5\), the pattern \(36, 5\)"):
        Masks.load(path, Small(nn.LSTM(5, 12)))
    with pytest.raises(FileFormatError):
        Masks.load(tmp_path / "absent", model)
    with torch.no_grad():
        model.rnn.weight_hh_l0.fill_(1)
    with pytest.raises(MismatchError):
        masks.save(tmp_path / "wrong")
    assert not (tmp_path / "wrong").exists()


def test_state_dict_round_trip():
    masks = Masks.prune(small(), 0.8)
    file = io.BytesIO()
    torch.save(masks.state_dict(), file)
    file.seek(0)
    other = Masks(small(), {"head.weight": Pattern.empty(3, 12)})
    other.load_state_dict(torch.load(file, weights_only=True))
    assert other.patterns == masks.patterns
    other.check()
    with pytest.raises(UsageError, match="not a state of masks"):
        other.load_state_dict({"rnn.l0.hh": {"shape": [1]}})


class Conv3(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv3d(1, 2, 3)


@pytest.mark.parametrize(
    ("model", "words"),
    [
        (nn.Sequential(nn.LayerNorm(4)), r"0\.weight \(vector\)"),
        (nn.Sequential(nn.Linear(4, 4)), r"0\.weight \(last linear layer"),
        (nn.Sequential(nn.Embedding(4, 4)), r"0\.weight \(embedding\)"),
        (Conv3(), r"conv\.weight \(Conv3d is not a layer that can be pruned\)"),
        (nn.Sequential(nn.ReLU()), r"the network has no weights"),
    ],
)
def test_nothing_to_prune(model, words):
    with pytest.raises(NothingMatchedError, match=words) as caught:
        Masks.prune(model, 0.5)
    assert caught.value.exit_code == 3


def test_errors_leave_the_model_alone():
    model = small()
    before = copy.deepcopy(model.state_dict())
    for sparsity in (1.5, -0.1, float("nan")):
        with pytest.raises(UsageError, match="sparsity is"):
            Masks.prune(model, sparsity)
    with pytest.raises(UsageError, match=r"weight 'rnn.l0.ih' of shape \(36, 5\): block 16x1 does not fit 12 rows"):
        Masks.prune(model, 0.5, pattern=block(16, 1))
    with pytest.raises(UsageError, match=r"did you mean 'rnn\.l0\.hh\.z'"):
        Masks.prune(model, {"rnn.l0.hh.zz": 0.5})
    with pytest.raises(UsageError, match=r"did you mean 'rnn\.l0\.hh'"):
        Masks(model, {"rnn.hh": Pattern.full(36, 12)})
    with pytest.raises(UsageError, match="matches no weight"):
        Masks(model, {})["rnn.l0.hh"]
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    with torch.no_grad():
        model.rnn.weight_hh_l0[0, 0] = float("nan")
    with pytest.raises(UsageError, match=r"weight 'rnn\.l0\.hh' of shape \(36, 12\) holds NaN"):
        Masks.prune(model, 0.5)


def test_spiking_network_trains_within_its_masks():
    class Spiking(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc1 = nn.Linear(6, 10)
            self.lif1 = snntorch.RLeaky(beta=0.9, linear_features=10)
            self.fc2 = nn.Linear(10, 3)
            self.lif2 = snntorch.Leaky(beta=0.9)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            spk, mem = self.lif1.init_rleaky()
            out = self.lif2.init_leaky()
            total = torch.zeros(x.shape[1], 3)
            for step in x:
                spk, mem = self.lif1(self.fc1(step), spk, mem)
                _fired, out = self.lif2(self.fc2(spk), out)
                total = total + out
            return total

    torch.manual_seed(0)
    model = Spiking()
    masks = Masks.prune(model, 0.8)
    assert set(masks.patterns) == {"fc1.weight", "lif1.hh"}
    gates_are_exact(masks, 0.8)
    optimizer = torch.optim.Adam(model.parameters())
    masks.attach(optimizer)
    before = model.lif1.recurrent.weight.detach().clone()
    train(model, optimizer, 3, features=6)
    masks.check()
    assert not torch.equal(before, model.lif1.recurrent.weight)


def test_masks_and_graphs_agree_on_what_magnitude_keeps():
    model = small()
    weight = model.rnn.weight_hh_l0.detach().double().numpy()
    masks = Masks.prune(model, 0.8)
    for gate, part in zip("rzn", np.split(weight, 3), strict=True):
        mask = masks[f"rnn.l0.hh.{gate}"].mask()
        assert np.abs(part[mask]).min() >= np.abs(part[~mask]).max()


@pytest.mark.parametrize("scope", list(Scope))
def test_pruning_the_model_or_its_graph_gives_the_same_masks(scope):
    from sparsecirc._prune import plan
    from sparsecirc.frontends import from_torch

    report = plan(from_torch(small(), example=torch.zeros(4, 2, 5)), 0.8, scope=scope)
    masks = Masks.prune(small(), 0.8, scope=scope)
    assert dict(report.patterns) == dict(masks.patterns)


@pytest.mark.parametrize("key", ["rnn.weight_hh_l0", "fc.weight"])
def test_a_computed_weight_is_refused_in_one_line(key: str):
    model = nn.Module()
    model.rnn, model.fc = nn.GRU(4, 6), nn.Linear(6, 3)
    path, name = key.split(".")
    torch.nn.utils.parametrizations.weight_norm(model.get_submodule(path), name)
    with pytest.raises(UnsupportedError, match=rf"weight '{key}' is computed from other parameters"):
        Masks.prune(model, 0.5)
    torch.nn.utils.parametrize.remove_parametrizations(model.get_submodule(path), name)
    assert Masks.prune(model, 0.5).density < 0.6
