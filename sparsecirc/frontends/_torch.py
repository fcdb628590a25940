"""`from_torch`, and `to_graph` that picks the frontend."""

from __future__ import annotations

from typing import Any

from torch import nn

from sparsecirc.errors import UnsupportedError
from sparsecirc.frontends._convert import Attempt, Converter, HasPatterns, declare_spikes, with_masks
from sparsecirc.frontends._examples import STEPS, as_inputs, guesses, layouts
from sparsecirc.frontends._neurons import is_neuron
from sparsecirc.frontends._run import bare_cell, batch_major, checked_module, whole
from sparsecirc.frontends._snntorch import from_snntorch, no_graph
from sparsecirc.ir import Graph


def from_torch(
    model: nn.Module,
    *,
    example: Any = None,
    masks: HasPatterns | None = None,
    dt: float | None = None,
    batch_first: bool | None = None,
    spiking_input: bool = False,
) -> Graph:
    """A torch model as a `Graph`, recovered from a run and compared with the model in float64.

    What can be converted: nn.RNN, GRU, LSTM (layers, directions, projections), their single-step cells in a loop over
    time or bare, nn.Linear, Conv1d, Conv2d, max and average pooling, Embedding, batch normalisation and dropout as in
    evaluation, ReLU, Tanh, Sigmoid, Softmax, LogSoftmax, Flatten, nn.Sequential (a recurrent layer hands on its output
    without its states), and modules with a ``forward`` of their own made of these, their functional forms, and the
    usual glue: one step (``out[:, -1]``, ``h_n[-1]``), mean, sum or max over time, sums, products, ``cat``,
    ``stack`` of steps, transposition of time and batch, flattening of features.

    The model runs on a private copy; its mode, weights and states stay as they are. Outputs come in the layout of the
    input (``Graph.batch_first``), whatever the order of axes in which the model returns them. A recurrent layer as the
    whole model has one output, ``y``; its final states are ``Result.state``.

    Args:
        model: the model.
        example: an input, or a tuple of them, as the model takes it; needed where the first layer does not say the
            shape (convolutions, several inputs).
        masks: patterns by weight name; without, zeros in the weights become patterns (see `with_zero_patterns`).
        dt: seconds per step, carried along.
        batch_first: whether sequences are (B, T, ...), where the model leaves it open.
        spiking_input: whether the inputs are spikes (0 or 1, mostly 0), so that the first product may go by events.

    Raises:
        UnsupportedError: something cannot be converted; names the layer, the line of the model and the cure.
        MismatchError: the recovered graph does not compute what the model does.
        UsageError: the example, the masks or the weights (NaN) are not usable.
    """
    model = checked_module(model)
    spiking = next((p for p, m in model.named_modules() if is_neuron(m)), None)
    if spiking is not None:
        raise UnsupportedError(f"layer '{spiking}' is a neuron of snntorch: use from_snntorch, or to_graph")
    converter = Converter(model, dt=dt, source="torch")
    for inputs in guesses(model) if example is None else [as_inputs(example)]:
        if isinstance(model, nn.RNNCellBase):
            x = inputs[0] if inputs[0].ndim > 2 else inputs[0].expand(STEPS, *inputs[0].shape)
            attempts = [
                Attempt(batch_major(bare_cell), (x,), ("BT",)) if batch_first else Attempt(bare_cell, (x,), ("TB",))
            ]
        else:
            attempts = [
                Attempt(whole, inputs, layout) for layout in layouts(inputs, model, batch_first, example is None)
            ]
        found = converter.first_that_works(attempts)
        if found is not None:
            return declare_spikes(with_masks(found, model, masks), None, spiking_input)
    raise no_graph(converter, model, example)


def to_graph(
    model: nn.Module,
    *,
    example: Any = None,
    masks: HasPatterns | None = None,
    dt: float | None = None,
    spiking_input: bool | None = None,
) -> Graph:
    """`from_snntorch` for a model with neurons of snntorch (``dt`` 1 ms unless given), else `from_torch`."""
    model = checked_module(model)
    if any(is_neuron(m) for m in model.modules()):
        dt = 1e-3 if dt is None else dt
        return from_snntorch(model, example=example, masks=masks, dt=dt, spiking_input=spiking_input)
    return from_torch(model, example=example, masks=masks, dt=dt, spiking_input=bool(spiking_input))
