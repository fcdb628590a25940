"""`from_snntorch`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from torch import nn

from sparsecirc.cells import LI, LIF, SYNAPTIC, Reset
from sparsecirc.errors import SparsecircError, UnsupportedError, UsageError, missing_extra
from sparsecirc.frontends._convert import (
    Attempt,
    Converter,
    HasPatterns,
    Recorded,
    RunFailedError,
    declare_spikes,
    with_masks,
)
from sparsecirc.frontends._examples import STEPS, as_inputs, guesses, is_sequence, layouts
from sparsecirc.frontends._neurons import STATES, is_neuron
from sparsecirc.frontends._run import Call, bare_neuron, batch_major, checked_module, per_step, plain_sequential, whole
from sparsecirc.ir import Graph, Node, Recurrent

try:
    import snntorch as snn
except ImportError:  # pragma: no cover - exercised by the test that hides the package
    snn = None


def from_snntorch(
    model: nn.Module,
    *,
    example: Any = None,
    masks: HasPatterns | None = None,
    dt: float = 1e-3,
    batch_first: bool | None = None,
    outputs: Sequence[str] | None = None,
    spiking_input: bool | None = None,
) -> Graph:
    """A model with neurons of snntorch as a `Graph`, recovered from a run and compared with it spike by spike.

    Two forms are taken. A model of one time step, nn.Sequential or a ``forward`` of its own, whose neurons keep their
    state (``init_hidden=True``): the graph applies it to each step of a sequence (T, B, ...). Or a model whose
    ``forward`` is the loop over time; an input that has no time axis and drives every step is repeated in the graph as
    often as the loop runs. Loops fold into layers because each operation is recorded once for all steps; every step has
    to be alike. Around the neurons everything that `from_torch` takes can be used.

    Neurons: Leaky, Synaptic, RLeaky and RSynaptic with linear or one-to-one feedback, every reset mechanism, with and
    without delay, scalar or per-neuron decay and threshold. A Leaky or Synaptic that never resets
    (``reset_mechanism="none"``) and whose spikes nobody reads is a leaky integrator, cell ``li``.

    Args:
        model: the model.
        example: an input as ``forward`` takes it (for a model of one time step: one step, or a sequence of them).
        masks: patterns by weight name; without, zeros in the weights become patterns (see `with_zero_patterns`).
        dt: seconds per time step.
        batch_first: whether sequences are (B, T, ...), where the model leaves it open; else (T, B, ...).
        outputs: names of the outputs to keep: ``spk``, ``mem``, ... for what a neuron layer returns per step, else
            ``y``; by default all.
        spiking_input: whether the model is fed with spikes, so that its first product may go by events (it gives the
            right results on any input); by default where the ``example`` given is made of both 0 and 1.

    Raises:
        UnsupportedError: something cannot be converted; names the layer, the line of the model and the cure.
        MismatchError: the recovered graph does not give the model's spikes.
        UsageError: the example, the masks, ``dt``, ``outputs`` or the weights (NaN) are not usable.
        MissingExtraError: snntorch is not installed.
    """
    if snn is None:
        raise missing_extra("snntorch", "torch", "reading a spiking model")
    model = checked_module(model)
    if not dt > 0:
        raise UsageError(f"dt is {dt}: expected seconds per time step, e.g. 1e-3")
    converter = Converter(model, dt=dt, source="snntorch")
    converter.meta["snntorch"] = snn.__version__
    for inputs in guesses(model) if example is None else [as_inputs(example)]:
        found = _found(converter, inputs, batch_first, example is None)
        if found is not None:
            graph = declare_spikes(with_masks(found, model, masks), None if example is None else inputs, spiking_input)
            return with_readouts(_select(graph, outputs))
    raise no_graph(converter, model, example)


def _found(converter: Converter, inputs: tuple[Any, ...], batch_first: bool | None, guessed: bool) -> Recorded | None:
    model = converter.model
    hidden = [bool(m.init_hidden) for m in model.modules() if is_neuron(m)]
    if type(model).__name__ in STATES and is_neuron(model) and not all(hidden):
        return _by_step(converter, bare_neuron, inputs, batch_first)
    if plain_sequential(model) or is_neuron(model):
        return _by_step(converter, per_step, inputs, batch_first)
    found = converter.first_that_works(
        [Attempt(whole, inputs, lay) for lay in layouts(inputs, model, batch_first, guessed)]
    )
    single = found is None or (found.steps == 1 and not any(n.time for n in found.graph.inputs))
    if single and all(hidden) and len(inputs) == 1:
        return _by_step(converter, per_step, inputs, batch_first) or found
    return found


def _by_step(converter: Converter, call: Call, inputs: tuple[Any, ...], batch_first: bool | None) -> Recorded | None:
    x = inputs[0]
    if not is_sequence(x, converter.model):
        x = x.expand(STEPS, *x.shape)
        x = x.transpose(0, 1) if batch_first else x
    attempt = Attempt(batch_major(call), (x,), ("BT",)) if batch_first else Attempt(call, (x,), ("TB",))
    return converter.first_that_works([attempt])


def _select(graph: Graph, outputs: Sequence[str] | None) -> Graph:
    if outputs is None:
        return graph
    unknown = [o for o in outputs if o not in graph.outputs]
    if unknown or not outputs:
        raise UsageError(f"outputs {list(outputs)} are not all among the model's: {', '.join(graph.outputs)}")
    return without_dead_nodes(replace(graph, outputs={o: graph.outputs[o] for o in outputs}))


def with_readouts(graph: Graph) -> Graph:
    """The same graph with neurons that never reset and whose spikes nobody reads as what they are: leaky integrators.

    A Synaptic becomes two, ``"<name>.syn"`` and ``"<name>"``, so that its values keep their names.
    """
    read = {i for n in graph.nodes for i in n.inputs} | set(graph.outputs.values())
    nodes: list[Node] = []
    for node in graph.nodes:
        if not isinstance(node, Recurrent) or not _only_integrates(node, read):
            nodes.append(node)
        elif node.cell is LIF:
            nodes.append(_integrator(node, node.name, node.inputs, "beta"))
        else:
            synapse = f"{node.name}.syn"
            nodes += [
                _integrator(node, synapse, node.inputs, "alpha"),
                _integrator(node, node.name, (synapse,), "beta"),
            ]
    return replace(graph, nodes=tuple(nodes))


def _only_integrates(node: Recurrent, read: set[str]) -> bool:
    fires = {node.name, f"{node.name}.spk"} & read or {"hh", "hh_diag"} & set(node.params)
    return node.cell in (LIF, SYNAPTIC) and node.options.reset is Reset.NONE and not fires


def _integrator(node: Recurrent, name: str, inputs: tuple[str, ...], decay: str) -> Recurrent:
    params = {"beta": node.params[decay]}
    return Recurrent(name, inputs, params, cell=LI, units=node.units, feature_shape=node.feature_shape)


def without_dead_nodes(graph: Graph) -> Graph:
    """The graph without nodes that no output needs."""
    needed: set[str] = set()
    todo = list(graph.outputs.values())
    owners = {value: node for node in graph.nodes for value in (node.name, *(f"{node.name}.{p}" for p in node.ports()))}
    while todo:
        node = owners[todo.pop()]
        if node.name not in needed:
            needed.add(node.name)
            todo.extend(node.inputs)
    return replace(graph, nodes=tuple(n for n in graph.nodes if n.name in needed))


def no_graph(converter: Converter, model: nn.Module, example: Any) -> SparsecircError:
    """The error to raise where no attempt gave a graph."""
    try:
        error = converter.error()
    except ValueError:
        error = None
    if example is None and (error is None or isinstance(error, RunFailedError)):
        reason = f" ({error})" if error is not None else ""
        return UnsupportedError(
            f"the input's shape cannot be inferred from the layers of {type(model).__name__}{reason}: "
            "pass example= with a small batch, as the model takes it"
        )
    assert error is not None
    return error
