"""Simulators of spiking networks as peers: snntorch, norse and SpikingJelly, each in a loop over time.

The drives of all steps are computed at once, the recurrent product at every step. norse and SpikingJelly reset at the
spike itself; they run networks whose spikes are the same then, and say so of others.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

from sparsecirc._bench._job import Array, CannotRun, Job, Run, fold_bias, used_ports
from sparsecirc._bench._torch import Layer, Tensor, call_model, dense_layer, dense_product, run_graph, to_tensor
from sparsecirc.cells import Reset
from sparsecirc.ir import Graph, Recurrent

_SNN_RESETS = {Reset.SUBTRACT: "subtract", Reset.ZERO: "zero", Reset.ZERO_UPDATE: "zero", Reset.NONE: "none"}


def prepare_snntorch(job: Job) -> Run:
    """The user's snntorch model if it is given, else the graph with snntorch's neurons in a loop over time."""
    _must_spike(job)
    if job.model is not None:
        return call_model(job)
    return run_graph(job, _snntorch_layer, dense_product)


def prepare_norse(job: Job) -> Run:
    """The graph with norse's box neurons (its LIF without a synapse) in a loop over time."""
    _must_spike(job)
    return run_graph(job, _norse_layer, dense_product)


def prepare_spikingjelly(job: Job) -> Run:
    """The graph with SpikingJelly's single-step LIF neurons in a loop over time."""
    _must_spike(job)
    return run_graph(job, _spikingjelly_layer, dense_product)


def _must_spike(job: Job) -> None:
    if not job.graph.spiking:
        raise CannotRun("the network has no spiking layer")


def _snntorch_layer(graph: Graph, node: Recurrent, batch: int) -> Layer:
    """A neuron of snntorch stepped over time, as its tutorials do; drives of all steps are computed at once."""
    import snntorch as snn
    import torch

    if not node.cell.spiking:
        return dense_layer(graph, node, batch)
    if node.cell.name not in ("lif", "synaptic"):
        raise CannotRun(f"layer '{node.name}' is a '{node.cell.name}', which snntorch does not have")
    if "hh_diag" in node.params:
        raise CannotRun(f"layer '{node.name}' has one-to-one feedback: give the snntorch model itself")
    bias, _ = fold_bias(node)
    drive_bias = None if bias is None else to_tensor(bias)
    project = dense_product(node, "ih") if "ih" in node.params else None

    kwargs: dict[str, Any] = {
        "beta": _per_unit(node, "beta"),
        "threshold": _per_unit(node, "threshold"),
        "reset_mechanism": _SNN_RESETS[node.options.reset],
        "reset_delay": node.options.delay,
    }
    if node.cell.name == "synaptic":
        kwargs["alpha"] = _per_unit(node, "alpha")
    recurrent = "hh" in node.params
    if recurrent:
        kwargs.update(linear_features=node.units, all_to_all=True)
    kinds = {("lif", False): "Leaky", ("lif", True): "RLeaky"}
    kinds |= {("synaptic", False): "Synaptic", ("synaptic", True): "RSynaptic"}
    neuron: Any = getattr(snn, kinds[node.cell.name, recurrent])(**kwargs)
    if recurrent:
        neuron.recurrent.weight.copy_(to_tensor(node.weight("hh")))
        neuron.recurrent.bias.zero_()  # folded into the drive
    names = (["spk"] if recurrent else []) + (["syn"] if node.cell.name == "synaptic" else []) + ["mem"]
    shape = (batch, *(node.feature_shape or (node.units,)))
    ports = used_ports(graph, node) or ("spk",)

    def run(x: Tensor) -> dict[str, Tensor]:
        drive = x if project is None else project(x)
        if drive_bias is not None:
            drive = drive + drive_bias
        state = [torch.zeros(shape) for _ in names]
        kept: dict[str, list[Tensor]] = {p: [] for p in ports}
        for current in drive.unbind(0):
            out = neuron(current, *state)
            spk, state = out[0], list(out[0 if recurrent else 1 :])
            now = {"spk": spk, **dict(zip(names, state, strict=True))}
            for port, values in kept.items():
                values.append(now[port])
        return {p: torch.stack(v) for p, v in kept.items()}

    return run


def _norse_layer(graph: Graph, node: Recurrent, batch: int) -> Layer:
    if not node.cell.spiking:
        return dense_layer(graph, node, batch)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the import
        from norse.torch.functional import lif_box
        from norse.torch.functional.reset import reset_subtract, reset_value

    _must_reset_at_once("norse", graph, node)
    shape = node.feature_shape or (node.units,)
    # v moves by dt / tau of (input - v): the input is scaled so that it arrives whole.
    pace = 1 - np.broadcast_to(np.asarray(node.params["beta"], np.float64).reshape(node.feature_shape or -1), shape)
    if not (pace > 0).all():
        raise CannotRun("norse's neurons must leak: beta below 1")
    neuron = lif_box.LIFBoxParameters(
        tau_mem_inv=to_tensor(pace),
        v_leak=to_tensor(0.0),
        v_th=_per_unit(node, "threshold"),
        v_reset=to_tensor(0.0),
        method="heaviside",
        reset_method=reset_subtract if node.options.reset is Reset.SUBTRACT else reset_value,
    )
    start = lif_box.LIFBoxFeedForwardState(v=to_tensor(np.zeros((batch, *shape))))

    def stepper() -> Callable[[Tensor], Tensor]:
        state = start

        def step(current: Tensor) -> Tensor:
            nonlocal state
            spikes, state = lif_box.lif_box_feed_forward_step(current, state, neuron, 1.0)
            return spikes

        return step

    return _looped(node, batch, stepper, 1 / pace)


def _spikingjelly_layer(graph: Graph, node: Recurrent, batch: int) -> Layer:
    if not node.cell.spiking:
        return dense_layer(graph, node, batch)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the import
        from spikingjelly.activation_based import functional
        from spikingjelly.activation_based.neuron import LIFNode

    _must_reset_at_once("SpikingJelly", graph, node)
    beta, theta = (np.unique(node.params[role]) for role in ("beta", "threshold"))
    if beta.size != 1 or theta.size != 1:
        raise CannotRun("SpikingJelly's neurons of a layer share one time constant and one threshold")
    if not beta[0] < 1:
        raise CannotRun("SpikingJelly's neurons must leak: beta below 1")
    reset = None if node.options.reset is Reset.SUBTRACT else 0.0
    neuron: Any = LIFNode(1 / (1 - float(beta[0])), decay_input=False, v_threshold=float(theta[0]), v_reset=reset)
    neuron.eval()

    def stepper() -> Callable[[Tensor], Tensor]:
        functional.reset_net(neuron)
        step: Callable[[Tensor], Tensor] = neuron
        return step

    return _looped(node, batch, stepper)


def _must_reset_at_once(what: str, graph: Graph, node: Recurrent) -> None:
    if node.cell.name != "lif":
        raise CannotRun(f"{what} has no neuron like '{node.cell.name}' of layer '{node.name}'")
    if used_ports(graph, node) not in ((), ("spk",)):
        raise CannotRun(f"{what} resets a membrane before it can be read: only spikes are compared")
    reset, delay = node.options.reset, node.options.delay
    if reset is not Reset.ZERO and (reset is not Reset.SUBTRACT or delay):
        raise CannotRun(
            f"{what} resets at the spike itself; reset '{reset.value}'{' delayed' * delay} is another network"
        )


def _per_unit(node: Recurrent, role: str) -> Tensor:
    return to_tensor(node.params[role]).reshape(node.feature_shape or (-1,))


def _looped(
    node: Recurrent, batch: int, stepper: Callable[[], Callable[[Tensor], Tensor]], gain: Array | None = None
) -> Layer:
    """``stepper`` starts a sequence and gives what turns a step's input current into spikes, (B, units) both.

    ``gain`` per unit multiplies currents; it is folded into the weights where there are any.
    """
    import torch
    from torch.nn import functional

    bias, _ = fold_bias(node)
    scale = None if gain is None else to_tensor(gain)

    def weight(role: str) -> Tensor | None:
        if role not in node.params:
            return None
        return to_tensor(node.weight(role) if gain is None else node.weight(role) * np.reshape(gain, (-1, 1)))

    ih, hh = weight("ih"), weight("hh")
    diagonal = _per_unit(node, "hh_diag") if "hh_diag" in node.params else None
    if diagonal is not None and scale is not None:
        diagonal = diagonal * scale
    offset = None if bias is None else to_tensor(bias if gain is None else bias * np.reshape(gain, np.shape(bias)))

    def run(x: Tensor) -> dict[str, Tensor]:
        drive = x * scale if ih is None and scale is not None else x
        if ih is not None:
            drive = functional.linear(x, ih)
        if offset is not None:
            drive = drive + offset
        step = stepper()
        spikes: list[Tensor] = []
        for current in drive.unbind(0):
            if spikes and hh is not None:
                current = current + functional.linear(spikes[-1], hh)
            elif spikes and diagonal is not None:
                current = current + spikes[-1] * diagonal
            spikes.append(step(current))
        return {"spk": torch.stack(spikes)}

    return run
