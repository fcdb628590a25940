"""HLOP on modules of spikingjelly and snntorch, watched through forward hooks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from toy import clashing

from sparsecirc.continual import GPM, HLOP, Method, Mode, Ranks, Scenario, Setting, Tap, firing_rate, run, sgd, sites

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

STEPS = 4
FAST = Setting(optimizer=sgd(0.3), epochs=4)
RANKS = Ranks((8, 12, 12), (8,), least=1)
Factory = Callable[[], nn.Module]


def spikingjelly() -> Any:
    """The package, or a skip."""
    pytest.importorskip("spikingjelly", reason="the package 'spikingjelly' is not installed: make test-emulators")
    from spikingjelly import activation_based

    return activation_based


def jelly(mode: str, parametric: bool = False) -> Factory:
    """A network of spikingjelly that runs all steps in one call (``m``), or one after another (``s``)."""
    package = spikingjelly()
    from spikingjelly.activation_based import functional, layer, neuron

    assert package is not None

    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            make = neuron.ParametricLIFNode if parametric else neuron.LIFNode
            settings = {"init_tau": 2.0} if parametric else {"tau": 2.0}
            self.inputs, self.out = layer.Linear(60, 40, bias=False), layer.Linear(40, 4, bias=True)
            self.lif = make(**settings, v_threshold=1.0, decay_input=False, v_reset=None)
            functional.set_step_mode(self, mode)

        def forward(self, x: Tensor) -> Tensor:
            functional.reset_net(self)
            if mode == "m":
                return self.out(self.lif(self.inputs(x.expand(STEPS, *x.shape)))).mean(0)
            return torch.stack([self.out(self.lif(self.inputs(x))) for _ in range(STEPS)]).mean(0)

    def build() -> nn.Module:
        torch.manual_seed(0)
        return Network()

    return build


def recurrent() -> nn.Module:
    """snntorch's RLeaky, whose recurrent nn.Linear is one more layer to protect."""
    snntorch = pytest.importorskip("snntorch", reason="the package 'snntorch' is not installed")

    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inputs, self.out = nn.Linear(60, 40, False), nn.Linear(40, 4, False)
            self.lif = snntorch.RLeaky(beta=0.5, linear_features=40)

        def forward(self, x: Tensor) -> Tensor:
            spikes, membrane = self.lif.init_rleaky()
            total = []
            for _ in range(STEPS):
                spikes, membrane = self.lif(self.inputs(x), spikes, membrane)
                total.append(self.out(spikes))
            return torch.stack(total).mean(0)

    torch.manual_seed(0)
    return Network()


FACTORIES: dict[str, Callable[[], Factory]] = {
    "spikingjelly, steps in one call": lambda: jelly("m"),
    "spikingjelly, step by step": lambda: jelly("s"),
    "spikingjelly, learned decay": lambda: jelly("m", parametric=True),
    "snntorch, recurrent": lambda: recurrent,
}


@pytest.fixture(params=FACTORIES)
def build(request: pytest.FixtureRequest) -> Factory:
    return FACTORIES[request.param]()


@pytest.fixture
def scenario() -> Scenario:
    return clashing(2)


@pytest.mark.parametrize(
    "make", [lambda: HLOP(RANKS), lambda: HLOP(RANKS, mode=Mode.GRAD), GPM], ids=["delta", "grad", "gpm"]
)
def test_less_is_forgotten(build: Factory, scenario: Scenario, make: Callable[[], Method]) -> None:
    plain, kept = run(build(), scenario, setting=FAST), run(build(), scenario, make(), FAST)
    assert kept.learning_accuracy > 0.75
    assert kept.bwt > plain.bwt + 0.03, (kept.bwt, plain.bwt)


def test_rows_are_what_fed_each_layer(build: Factory, scenario: Scenario) -> None:
    model = build()
    x = scenario.tasks[0].test(slice(0, 10))[0]
    fed: dict[str, list[Tensor]] = {}
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear):
            module.register_forward_pre_hook(
                lambda m, args, name=name: fed.setdefault(name, []).append(args[0].detach())
            )
    watched = sites(model)
    tap = Tap(model, watched)
    model(x)
    assert {s.name for s in watched} == set(fed)
    for site in watched:
        calls = fed[site.name]
        whole = calls[0] if calls[0].ndim == 3 else torch.stack(calls)
        assert whole.shape == (STEPS, 10, site.width - (site.bias is not None))
        rows = tap.rows(site, STEPS)
        assert rows is not None
        assert torch.equal(firing_rate(rows)[:, : whole.shape[2]], whole.mean(0))
        if site.bias is not None:
            assert bool((rows[..., -1] == 1).all())
    tap.remove()
    model(x)
    assert not any(tap._calls.values())


def test_constants_are_frozen_and_no_hook_stays(scenario: Scenario) -> None:
    model = jelly("m", parametric=True)()
    start = model.lif.w.detach().clone()
    found = run(model, scenario, HLOP(RANKS), FAST)
    assert found.rank_used == {"inputs": 16, "out": 20}
    assert not torch.equal(model.lif.w, start)  # learned in the first task
    assert not model.lif.w.requires_grad  # and kept from then on
    assert not any(m._forward_pre_hooks for m in model.modules())


@pytest.mark.parametrize("mode", ["m", "s"])
def test_convolutions(mode: str) -> None:
    spikingjelly()
    from spikingjelly.activation_based import functional, layer, neuron

    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.out = layer.Conv2d(2, 4, 3, padding=1, bias=True), layer.Linear(4 * 36, 3, bias=False)
            self.lif = neuron.LIFNode(tau=2.0, v_reset=None)
            functional.set_step_mode(self, mode)

        def forward(self, x: Tensor) -> Tensor:
            functional.reset_net(self)
            if mode == "m":
                return self.out(self.lif(self.conv(x.expand(STEPS, *x.shape))).flatten(2)).mean(0)
            return torch.stack([self.out(self.lif(self.conv(x)).flatten(1)) for _ in range(STEPS)]).mean(0)

    torch.manual_seed(0)
    model = Network()
    watched = sites(model)
    tap = Tap(model, watched)
    x = torch.randn(5, 2, 6, 6)
    model(x)
    conv = next(s for s in watched if s.name == "conv")
    rows = tap.rows(conv, STEPS)
    assert rows is not None
    assert rows.shape == (STEPS, 5 * 36, 19)
    patches = nn.functional.unfold(x, 3, padding=1).transpose(1, 2).reshape(-1, 18)
    torch.testing.assert_close(rows[0, :, :18], patches)
    torch.testing.assert_close(rows[3, :, :18], patches)
    tap.remove()
