"""Every neuron of snntorch that can be converted, spike by spike in float64."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from torch import nn

snn = pytest.importorskip("snntorch", reason="snntorch is not installed")

from sparsecirc.cells import Reset  # noqa: E402
from sparsecirc.errors import UnsupportedError  # noqa: E402
from sparsecirc.frontends import from_snntorch  # noqa: E402
from sparsecirc.ir import interpret  # noqa: E402

UNITS = 6


def make(
    kind, *, reset="subtract", delay=True, learn=False, vector=False, feedback="linear", hidden=False, output=False
):
    """A neuron layer with random constants."""

    def constant(low, high):
        return torch.empty(UNITS).uniform_(low, high) if vector else float(torch.empty(()).uniform_(low, high))

    options = {
        "threshold": constant(0.5, 1.2), "learn_beta": learn, "learn_threshold": learn, "reset_mechanism": reset,
        "reset_delay": delay, "init_hidden": hidden, "output": output,
    }  # fmt: skip
    leads = [constant(0.3, 0.9)] if kind.endswith("ynaptic") else []
    if leads:
        options["learn_alpha"] = learn
    if kind.startswith("R"):
        if feedback == "linear":
            options["linear_features"] = UNITS
        else:
            options |= {"all_to_all": False, "V": constant(-1, 1), "learn_recurrent": feedback != "fixed diagonal"}
    return getattr(snn, kind)(*leads, constant(0.5, 0.99), **options)


def run(layer, x):
    """Spikes and membranes of a layer by hand, at the precision of its weights; spikes widened as float64 needs."""
    layer = layer.double()
    fire = layer.spike_grad
    layer.spike_grad = lambda v: fire(v).to(v.dtype)
    recurrent = getattr(layer, "recurrent", None)
    if recurrent is not None and not isinstance(recurrent, nn.Linear):
        recurrent.V.data = recurrent.V.data.double()
    names = {"Leaky": 1, "Synaptic": 2, "RLeaky": 2, "RSynaptic": 3}[type(layer).__name__]
    state = tuple(torch.zeros_like(x[0]) for _ in range(names))
    spikes, membranes = [], []
    with torch.no_grad():
        for x_t in x:
            out = layer(x_t, *state)
            state = out[len(out) - names :]
            spikes.append(out[0])
            membranes.append(out[-1])
    return torch.stack(spikes).numpy(), torch.stack(membranes).numpy()


CASES = [
    pytest.param(kind, reset, delay, learn, vector, feedback, id=f"{kind}-{reset}-{delay}-{learn}-{feedback}")
    for kind, reset, delay, (learn, vector) in itertools.product(
        ("Leaky", "Synaptic", "RLeaky", "RSynaptic"),
        ("subtract", "zero", "none"),
        (True, False),
        ((False, False), (True, True)),
    )
    for feedback in (("linear", "diagonal", "fixed diagonal") if kind.startswith("R") else ("",))
]


@pytest.mark.parametrize(("kind", "reset", "delay", "learn", "vector", "feedback"), CASES)
def test_spikes_are_the_same(kind, reset, delay, learn, vector, feedback):
    torch.manual_seed(3)
    layer = make(kind, reset=reset, delay=delay, learn=learn, vector=vector, feedback=feedback)
    x = 1.5 * torch.randn(25, 4, UNITS, dtype=torch.float64) + 0.3
    graph = from_snntorch(layer, example=x[:5])
    node = graph.recurrent[0]
    assert node.options.delay == (delay or kind == "RSynaptic")
    got = interpret(graph, x.numpy()).outputs
    spikes, membranes = run(layer, x)
    assert 0 < spikes.sum() < spikes.size
    assert np.array_equal(got["spk"], spikes)
    assert np.abs(got["mem"] - membranes).max() <= 1e-12 * max(1, np.abs(membranes).max())


@pytest.mark.parametrize("kind", ["Leaky", "Synaptic", "RLeaky", "RSynaptic"])
def test_resets_are_mapped_by_name(kind):
    zero = Reset.ZERO if kind == "Leaky" else Reset.ZERO_UPDATE
    for reset, wanted in (("subtract", Reset.SUBTRACT), ("zero", zero), ("none", Reset.NONE)):
        graph = from_snntorch(make(kind, reset=reset), example=torch.rand(2, UNITS))
        assert graph.recurrent[0].options.reset is wanted


def test_decay_is_clamped_as_snntorch_does():
    for beta, wanted in ((1.3, 1), (-0.2, 0)):
        graph = from_snntorch(snn.Leaky(beta), example=torch.rand(2, 3))
        assert np.array_equal(graph.recurrent[0].params["beta"], np.full(3, wanted, np.float32))


@pytest.mark.parametrize("units", [1, 17])
@pytest.mark.parametrize("steps", [1, 2, 40])
def test_odd_sizes(units, steps):
    model = nn.Sequential(nn.Linear(3, units), snn.RLeaky(0.9, linear_features=units, init_hidden=True, output=True))
    graph = from_snntorch(model)
    x = 3 * torch.randn(steps, 2, 3, dtype=torch.float64)
    drive = model[0].double()(x).detach()
    model[1].init_hidden = False
    spikes, membranes = run(model[1], drive)
    got = interpret(graph, x.numpy()).outputs
    assert np.array_equal(got["spk"], spikes)
    assert np.allclose(got["mem"], membranes, rtol=0, atol=1e-12)


REFUSED = {
    "inhibition": ({"inhibition": True}, "inhibition=False"),
    "graded": ({"graded_spikes_factor": 2.0}, "next layer's weights"),
    "quantised": ({"state_quant": lambda v: v}, "state_quant=False"),
}


@pytest.mark.parametrize("name", REFUSED)
@pytest.mark.filterwarnings("ignore:Inhibition is an unstable feature:UserWarning")
def test_options_without_a_counterpart_are_refused_with_the_cure(name):
    options, cure = REFUSED[name]
    model = nn.Sequential(nn.Linear(3, 4), snn.Leaky(0.9, init_hidden=True, **options))
    with pytest.raises(UnsupportedError, match=rf"layer '1' \(Leaky\).*{cure}"):
        from_snntorch(model)


@pytest.mark.parametrize(
    ("make_layer", "cure"),
    [
        (lambda: snn.Alpha(0.9, 0.8, init_hidden=True), "snn.Synaptic"),
        (lambda: snn.Lapicque(0.9, init_hidden=True), "snn.Leaky"),
        (lambda: snn.SLSTM(3, 4, init_hidden=True), "snn.Leaky, Synaptic"),
    ],
)
def test_neurons_without_a_counterpart_are_refused_with_the_cure(make_layer, cure):
    layer = make_layer()
    model = nn.Sequential(nn.Linear(3, 3), layer)
    with pytest.raises(UnsupportedError, match=rf"layer '1' \({type(layer).__name__}\).*{cure}"):
        from_snntorch(model)


def test_recurrence_through_a_convolution_is_refused():
    model = nn.Sequential(nn.Conv2d(1, 2, 3), snn.RLeaky(0.9, conv2d_channels=2, kernel_size=3, init_hidden=True))
    with pytest.raises(UnsupportedError, match=r"'1' \(RLeaky\).*feeds spikes of shape"):
        from_snntorch(model, example=torch.rand(2, 1, 6, 6))


def test_a_reset_changed_after_construction_is_refused():
    layer = snn.Leaky(0.9)
    layer.reset_mechanism = "zero"
    with pytest.raises(UnsupportedError, match="reset_mechanism of the checkpoint"):
        from_snntorch(layer, example=torch.rand(2, 3))
