"""Neurons of snntorch, with its reset conventions as its source has them (version 1.0).

======================  ==========================  ===============================================================
class                   ``reset_mechanism="zero"``  ``reset_delay=False``
======================  ==========================  ===============================================================
Leaky                   `Reset.ZERO`                acts
RLeaky, Synaptic        `Reset.ZERO_UPDATE`         acts
RSynaptic               `Reset.ZERO_UPDATE`         has no effect: the membrane reset at once is thrown away
======================  ==========================  ===============================================================
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from sparsecirc._torch_layers import node_name
from sparsecirc.cells import CELLS, Cell, Options, Reset
from sparsecirc.frontends._layers import params_of, state_value
from sparsecirc.frontends._recorder import Handler, Recorder
from sparsecirc.frontends._values import Refusal, Value
from sparsecirc.ir import Node, Recurrent

try:
    import snntorch as snn
except ImportError:  # pragma: no cover - exercised by the test that hides the package
    snn = None

Tensor = torch.Tensor
STATES = {"Leaky": ("mem",), "Synaptic": ("syn", "mem"), "RLeaky": ("spk", "mem"), "RSynaptic": ("spk", "syn", "mem")}
"""States by class, in the order in which ``forward`` takes them after its input."""


def neuron(rec: Recorder, path: str, module: Any, forward: Callable[..., Any], x: Tensor, *args: Any, **kw: Any) -> Any:
    """One time step of a Leaky, Synaptic, RLeaky or RSynaptic."""
    names = STATES[type(module).__name__]
    given = dict(zip(names, args, strict=False)) | kw
    options = _options(module)
    states: dict[str, Value | None] = {}
    for s in names:
        tensor = given.get(s)
        tensor = getattr(module, s) if tensor is None else tensor
        # snntorch starts from zeros wherever the shape is not that of the input
        states[s] = state_value(rec, tensor) if tensor.shape == x.shape else None
    value = rec.value(x)
    shape = _feature_shape(rec, value)
    params = _params(rec, module, shape)
    cell: Cell = CELLS["synaptic" if "syn" in names else "lif"]
    units = int(np.prod(shape))

    def make(name: str, inputs: tuple[str, ...]) -> Node:
        features = shape if len(shape) != 1 else ()
        return Recurrent(name, inputs, params, cell=cell, units=units, options=options, feature_shape=features)

    name, step = rec.draft.advance(node_name(path, module), ("module", path), make, value, states)
    out = forward(x, *args, **kw)
    axes = ("B", *range(len(shape)))
    for s in names:
        rec.track(getattr(module, s), Value(rec.draft.port(name, s), axes, step))
    spikes = out[0] if isinstance(out, tuple) else out
    rec.track(spikes, Value(rec.draft.port(name, "spk"), axes, step))
    return out


def _feature_shape(rec: Recorder, value: Value) -> tuple[int, ...]:
    return tuple(rec.draft.specs[value.name].shape)


def _options(module: Any) -> Options:
    if module.inhibition:
        raise Refusal("lets only the strongest neuron fire (inhibition=True)", "use inhibition=False")
    if module.state_quant:
        raise Refusal("quantises its state (state_quant)", "use state_quant=False")
    if bool(torch.any(module.graded_spikes_factor != 1)):
        raise Refusal(
            "scales its spikes (graded_spikes_factor is not 1)", "put the factor into the next layer's weights"
        )
    kind = type(module).__name__
    if kind == "RSynaptic" and module.init_hidden and not module.reset_delay:
        raise Refusal("fails in snntorch with init_hidden=True and reset_delay=False", "use reset_delay=True")
    # The branch taken is the one bound when the layer was made; the buffer decides what a reset at once does.
    delay = bool(module.reset_delay) or kind == "RSynaptic"
    branch = {"_base_sub": 0, "_base_zero": 1, "_base_int": 2}[module.state_function.__name__]
    if branch != int(module.reset_mechanism_val):
        raise Refusal(
            "was made with one reset_mechanism and given another since (a loaded state dict does this too)",
            "make the layer with the reset_mechanism of the checkpoint",
        )
    zero = Reset.ZERO if kind == "Leaky" else Reset.ZERO_UPDATE
    return Options((Reset.SUBTRACT, zero, Reset.NONE)[branch], delay)


def _params(rec: Recorder, module: Any, shape: tuple[int, ...]) -> dict[str, NDArray[Any]]:
    params = {"beta": _per_unit(rec, "beta", module.beta.clamp(0, 1), shape)}
    if hasattr(module, "alpha"):
        params["alpha"] = _per_unit(rec, "alpha", module.alpha.clamp(0, 1), shape)
    params["threshold"] = _per_unit(rec, "threshold", module.threshold, shape)
    recurrent = getattr(module, "recurrent", None)
    if recurrent is None:
        return params
    if len(shape) != 1:
        raise Refusal(f"feeds spikes of shape {shape} back", "flatten its input first, or use snn.Leaky or Synaptic")
    if not module.all_to_all:
        return params | {"hh_diag": _per_unit(rec, "V", recurrent.V, shape)}
    if not isinstance(recurrent, nn.Linear):
        raise Refusal(f"has a recurrent {type(recurrent).__name__}", "use linear_features, or all_to_all=False")
    return params | params_of(rec, recurrent, hh="weight", bias_hh="bias")


def _per_unit(rec: Recorder, name: str, tensor: Tensor, shape: tuple[int, ...]) -> NDArray[Any]:
    """A parameter of a neuron, one entry per unit."""
    array = rec.array(tensor)
    while array.ndim > len(shape) and array.shape[0] == 1:
        array = array[0]
    try:
        return np.ascontiguousarray(np.broadcast_to(array, shape))
    except ValueError:
        raise Refusal(
            f"has a '{name}' of shape {tuple(tensor.shape)} for features {shape}", "give one entry per unit"
        ) from None


def neurons() -> dict[type[nn.Module], Handler]:
    """Handlers by class; empty where snntorch is absent."""
    if snn is None:
        return {}
    return dict.fromkeys((snn.Leaky, snn.Synaptic, snn.RLeaky, snn.RSynaptic), neuron)


def is_neuron(module: nn.Module) -> bool:
    """Whether a module is a neuron of snntorch, of whichever kind."""
    return snn is not None and isinstance(module, snn.SpikingNeuron)


def clear_states(model: nn.Module) -> None:
    """Make every neuron of a private copy start from zero."""
    for module in model.modules():
        if is_neuron(module):
            for name in ("spk", "syn", "mem"):
                if isinstance(getattr(module, name, None), Tensor):
                    setattr(module, name, torch.zeros(0))
