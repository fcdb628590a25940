"""Running a private copy of a model: how its forward is called, and what it is called on."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from sparsecirc.errors import UnsupportedError, UsageError
from sparsecirc.frontends._neurons import STATES, clear_states, is_neuron
from sparsecirc.frontends._values import Refusal
from sparsecirc.nn import has_sparse_layers, to_dense_model

try:
    import snntorch as snn
except ImportError:  # pragma: no cover - exercised by the test that hides the package
    snn = None

Tensor = torch.Tensor
Call = Callable[..., Any]
"""``call(model, *inputs)``: one run over a whole sequence."""


def checked_module(model: Any) -> nn.Module:
    """The module itself, out of the wrappers of torch.compile and DataParallel; sparse layers in their dense form.

    Raises:
        UsageError: it is no torch module.
        UnsupportedError: its Python code is gone (TorchScript).
    """
    if isinstance(model, nn.Module):
        model = getattr(model, "_orig_mod", model)
        model = model.module if isinstance(model, (nn.DataParallel, nn.parallel.DistributedDataParallel)) else model
    if not isinstance(model, nn.Module):
        raise UsageError(f"model is a {type(model).__name__}: expected a torch.nn.Module with its weights loaded")
    if isinstance(model, torch.jit.ScriptModule):
        raise UnsupportedError("model is TorchScript, which hides its layers: pass the nn.Module that it was made from")
    return to_dense_model(model) if has_sparse_layers(model) else model


def private_copy(model: nn.Module) -> nn.Module:
    """A float64 copy in evaluation mode on the CPU; the user's model keeps its mode and its states.

    Raises:
        UnsupportedError: it cannot be copied.
    """
    memo: dict[int, Any] = {}
    for module in model.modules():
        for tensor in [*vars(module).values(), *module._buffers.values()]:
            if isinstance(tensor, Tensor) and not tensor.is_leaf:
                # Results of a forward pass (states of neurons, weights masked by other tools) refuse to be copied.
                memo[id(tensor)] = tensor.detach().clone()
    try:
        twin = copy.deepcopy(model, memo).cpu().double().eval()
    except (RuntimeError, TypeError) as error:
        raise UnsupportedError(
            f"{type(model).__name__} cannot be copied ({error}): keep tensors with a gradient, locks, files "
            "and the like out of its attributes"
        ) from error
    for module in twin.modules():
        if is_neuron(module):
            _widen(module)
    return twin


def _widen(neuron: Any) -> None:
    """Make a neuron of snntorch compute in float64: its spikes are float32, whatever comes in."""
    fire = neuron.spike_grad
    del neuron.spike_grad
    neuron.spike_grad = lambda shifted: fire(shifted).to(shifted.dtype)
    recurrent = getattr(neuron, "recurrent", None)
    if recurrent is not None and isinstance(getattr(recurrent, "V", None), Tensor):
        recurrent.V.data = recurrent.V.data.double()  # a plain attribute where it is not learned


@contextmanager
def as_double(model: nn.Module) -> Iterator[None]:
    """Fresh tensors are float64, and snntorch's class-wide resets reach the copy's neurons only."""
    before = torch.get_default_dtype()
    instances = snn.SpikingNeuron.instances if snn is not None else None
    torch.set_default_dtype(torch.float64)
    clear_states(model)
    try:
        if snn is not None:
            snn.SpikingNeuron.instances = [m for m in model.modules() if is_neuron(m)]
        yield
    finally:
        torch.set_default_dtype(before)
        if snn is not None:
            snn.SpikingNeuron.instances = instances


def whole(model: nn.Module, *inputs: Tensor) -> Any:
    """The model's own forward; of a recurrent layer at the root, the output without the states."""
    if plain_sequential(model):
        return _sequential(model, inputs[0])
    out = model(*inputs)
    return out[0] if isinstance(model, nn.RNNBase) else out


def plain_sequential(model: nn.Module) -> bool:
    """Whether it is an nn.Sequential that runs its layers one after the other."""
    return isinstance(model, nn.Sequential) and type(model).forward is nn.Sequential.forward


def _sequential(model: Any, x: Any) -> Any:
    """Layer by layer; of a recurrent layer, the next one gets the output without the states."""
    for layer in model:
        out = _sequential(layer, x) if plain_sequential(layer) else layer(x)
        if isinstance(layer, nn.RNNBase):
            out = out[0]
        elif isinstance(out, tuple) and layer is not model[-1]:
            raise Refusal(
                f"a {type(layer).__name__} inside nn.Sequential returns {len(out)} values, the next layer takes one",
                "make neurons inside nn.Sequential with init_hidden=True (output=True for the last one only)",
            )
        x = out
    return x


def per_step(model: nn.Module, x: Tensor) -> Any:
    """A model of one time step, called for each step of ``x`` (T, B, ...); outputs are stacked over time."""
    results = []
    for x_t in x:
        out = _sequential(model, x_t) if plain_sequential(model) else model(x_t)
        results.append(out if isinstance(out, tuple) else (out,))
    stacked = tuple(torch.stack(r) for r in zip(*results, strict=True))
    return stacked if len(stacked) > 1 else stacked[0]


def bare_cell(model: nn.Module, x: Tensor) -> Any:
    """An nn.RNNCell, GRUCell or LSTMCell over a sequence; all hidden states."""
    state: Any = None
    hidden = []
    for x_t in x:
        state = model(x_t, state)
        hidden.append(state[0] if isinstance(state, tuple) else state)
    return torch.stack(hidden)


def bare_neuron(model: nn.Module, x: Tensor) -> Any:
    """A neuron layer that returns its states, over a sequence; all spikes and membranes."""
    names = STATES[type(model).__name__]
    state = tuple(torch.zeros_like(x[0]) for _ in names)
    spikes, membranes = [], []
    for x_t in x:
        out = model(x_t, *state)
        state = out[len(out) - len(names) :]
        spikes.append(out[0])
        membranes.append(out[-1])
    return torch.stack(spikes), torch.stack(membranes)


def batch_major(call: Call) -> Call:
    """The same call on an input (B, T, ...)."""
    return lambda model, x: call(model, x.transpose(0, 1))
