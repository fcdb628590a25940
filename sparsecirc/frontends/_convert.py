"""From a run of a model to a checked `Graph`."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from sparsecirc._pattern import Pattern
from sparsecirc._torch_layers import node_name, weight_refs
from sparsecirc.errors import MismatchError, SparsecircError, UnsupportedError, UsageError
from sparsecirc.frontends._draft import Draft
from sparsecirc.frontends._examples import Layout, enlarged, varied
from sparsecirc.frontends._functions import FUNCTIONS
from sparsecirc.frontends._layers import LAYERS, unknown
from sparsecirc.frontends._neurons import neurons
from sparsecirc.frontends._recorder import Recorder, layer_handler
from sparsecirc.frontends._run import Call, as_double, private_copy
from sparsecirc.frontends._values import Axis, Refusal, Stack, Value
from sparsecirc.ir import Graph, Recurrent, interpret

Tensor = torch.Tensor
E = TypeVar("E", bound=SparsecircError)
TOLERANCE = 1e-9
"""Largest difference allowed between a graph and its model in float64, relative to the largest output or to 1."""

_RUN_ERRORS = (
    RuntimeError, TypeError, ValueError, IndexError, AttributeError, KeyError, AssertionError, ZeroDivisionError,
)  # fmt: skip


class HasPatterns(Protocol):
    """Anything that holds patterns by weight name, e.g. the masks of a torch model."""

    @property
    def patterns(self) -> Mapping[str, Pattern]:
        """Live connections by weight name, e.g. ``"rnn.l0.hh"``."""


class RunFailedError(UsageError):
    """The model itself did not run on an example."""


@dataclass(frozen=True)
class Attempt:
    """One way to run a model: the call, its inputs, and the layout of each."""

    call: Call
    inputs: tuple[Tensor, ...]
    layout: tuple[Layout, ...]


@dataclass(frozen=True)
class Recorded:
    """A graph, and what the model gave on the inputs of the attempt, by output name in the graph's layout."""

    graph: Graph
    reference: dict[str, NDArray[Any]]
    steps: int | None
    aliases: dict[str, str]


class Converter:
    """Turns one model into a graph: tries, compares, reports the best reason where nothing works."""

    def __init__(self, model: nn.Module, *, dt: float | None, source: str) -> None:
        self.model = model
        self.twin = private_copy(model)
        self.dt = dt
        self.meta = {"source": source, "torch": torch.__version__, "model": type(model).__name__}
        wide = any(t.dtype == torch.float64 for t in (*model.parameters(), *model.buffers()))
        self._dtype: Any = np.float64 if wide else np.float32
        self._handlers = {**LAYERS, **neurons()}
        self._failures: list[tuple[float, SparsecircError]] = []

    def first_that_works(self, attempts: Sequence[Attempt]) -> Recorded | None:
        """The first attempt whose graph agrees with the model; ``None`` where none does."""
        for attempt in attempts:
            larger = replace(attempt, inputs=enlarged(attempt.inputs, attempt.layout))
            for tried in (larger, attempt):
                try:
                    return self._checked(tried)
                except RunFailedError as error:  # perhaps a fixed batch size: once more exactly as given
                    self._failures.append((getattr(error, "progress", 0), error))
                except (UnsupportedError, MismatchError) as error:
                    self._failures.append((getattr(error, "progress", 0), error))
                    break
        return None

    def error(self) -> SparsecircError:
        """The reason of the attempt that came furthest."""
        return max(self._failures, key=lambda f: f[0])[1]

    # ---- one attempt --------------------------------------------------------------------------------------------
    def _checked(self, attempt: Attempt) -> Recorded:
        found = self.record(attempt)
        worst = compare(found.graph, attempt, found.reference)
        lengths = [] if found.steps is None else [found.steps]
        timed = any(attempt.layout)
        fixed = timed
        for more_steps, more_batch in ((int(timed), 1), (int(timed), 0), (0, 0)):
            other = replace(attempt, inputs=varied(attempt.inputs, attempt.layout, more_steps, more_batch))
            try:
                again = self.record(other)
            except (RunFailedError, UnsupportedError):
                continue  # the model takes this length or batch only
            worst = max(worst, compare(found.graph, other, again.reference))
            if more_steps and again.steps is not None:
                lengths.append(again.steps)
                fixed = False
            break
        verified = {"max_abs_diff": worst, "steps": lengths}
        meta = {**found.graph.meta, "verified": verified} | ({"fixed_steps": found.steps} if fixed else {})
        return replace(found, graph=replace(found.graph, meta=meta))

    def record(self, attempt: Attempt) -> Recorded:
        """Run the model once.

        Raises:
            UnsupportedError: it does something that cannot be converted.
            RunFailedError: it does not run on these inputs.
        """
        modules = [(p, m) for p, m in self.twin.named_modules() if layer_handler(m, self._handlers, unknown)]
        draft = Draft(node_name(p, m) for p, m in modules)
        recorder = Recorder(self.twin, draft, FUNCTIONS, self._dtype)
        try:
            with as_double(self.twin), recorder.recording(self._handlers, unknown):
                for name, x, layout in zip(self._input_names(attempt), attempt.inputs, attempt.layout, strict=True):
                    _declare(recorder, name, x, layout)
                out = attempt.call(self.twin, *attempt.inputs)
                collected = list(_collect(recorder, out))
            return self._finish(recorder, attempt, collected)
        except Refusal as refusal:
            raise _progress(recorder.error(refusal), draft) from None
        except UnsupportedError as error:
            raise _progress(error, draft) from error.__cause__
        except SparsecircError:
            raise
        except _RUN_ERRORS as error:
            shapes = ", ".join(str(tuple(x.shape)) for x in attempt.inputs)
            text = f"{type(self.model).__name__} does not run on an input of shape {shapes}: {error}".splitlines()[0]
            raise _progress(RunFailedError(f"{text}; pass example= with a batch that it takes"), draft) from error

    def _finish(self, rec: Recorder, attempt: Attempt, collected: list[tuple[str, Value, Tensor]]) -> Recorded:
        if not collected:
            raise Refusal("the model returns nothing that depends on its input", "return the output of a layer")
        nodes, outputs = rec.draft.finish({name: value for name, value, _ in collected})
        major = next((lay == "BT" for lay in attempt.layout if lay), None)
        if major is None:
            major = next((v.axes.index("B") < v.axes.index("T") for _, v, _ in collected if v.whole), False)
        graph = Graph(nodes, outputs, batch_first=major, dt=self.dt, meta=self.meta)
        reference = {name: in_layout(t, value.axes, major) for name, value, t in collected}
        return Recorded(graph, reference, rec.draft.length, rec.draft.aliases)

    def _input_names(self, attempt: Attempt) -> list[str]:
        if len(attempt.inputs) == 1:
            return ["x"]
        names = list(inspect.signature(self.model.forward).parameters)
        return [*names, *(f"x{k}" for k in range(len(attempt.inputs)))][: len(attempt.inputs)]


def _progress(error: E, draft: Draft) -> E:
    error.progress = draft.ops  # type: ignore[attr-defined]
    return error


def _declare(rec: Recorder, name: str, x: Tensor, layout: Layout) -> None:
    shape = tuple(x.shape[len(layout or "B") :])
    value = rec.draft.add_input(name, shape, x.shape[layout.index("T")] if layout else None)
    rec.track(x, replace(value, axes=(*(layout or "B"), *range(len(shape)))))


def _collect(rec: Recorder, out: Any) -> Iterator[tuple[str, Value, Tensor]]:
    """(name, value, tensor) of each output of the model, in order."""
    taken: set[str] = set()
    for name, tensor in _flat(out, ""):
        what = rec.find(tensor)
        parts: list[tuple[str, Value, Tensor]]
        if isinstance(what, Stack):
            parts = [(f"{name or 'y'}.{k}", v, tensor.select(what.axis, k)) for k, v in enumerate(what.parts)]
            parts = parts if len(parts) > 1 else [(name, *parts[0][1:])]
        elif what is None:
            raise Refusal("returns a tensor that does not depend on the input", "return only what layers compute")
        else:
            parts = [(name, rec.value(tensor), tensor)]
        for key, value, t in parts:
            wanted = key or _port(rec, value) or "y"
            free = wanted
            k = 1
            while free in taken:
                free, k = f"{wanted}{k}", k + 1
            taken.add(free)
            yield free, value, t


def _flat(out: Any, name: str) -> Iterator[tuple[str, Tensor]]:
    if isinstance(out, Tensor):
        yield name, out
    elif isinstance(out, Mapping):
        for key, item in out.items():
            yield from _flat(item, f"{name}.{key}" if name else str(key))
    elif isinstance(out, (tuple, list)):
        for item in out:
            yield from _flat(item, name)
    elif out is not None:
        raise Refusal(f"returns a {type(out).__name__}", "return tensors, in tuples or dicts if there are several")


def _port(rec: Recorder, value: Value) -> str:
    """``spk``, ``syn`` or ``mem`` for a state of a neuron layer."""
    for node in rec.draft.nodes.values():
        if isinstance(node, Recurrent) and node.cell.spiking:
            for port in node.ports():
                if rec.draft.port(node.name, port) == value.name:
                    return port
    return ""


def in_layout(tensor: Tensor, axes: Sequence[Axis], batch_first: bool) -> NDArray[Any]:
    """A tensor with the given axes in the layout of a graph: time and batch, then features in order."""
    lead = [a for a in ("BT" if batch_first else "TB") if a in axes]
    order = [axes.index(a) for a in (*lead, *sorted(a for a in axes if isinstance(a, int)))]
    ones = [k for k in range(len(axes)) if k not in order]
    sizes = [tensor.shape[k] for k in order]
    return np.asarray(tensor.permute(order + ones).reshape(sizes).numpy())


def compare(graph: Graph, attempt: Attempt, reference: Mapping[str, NDArray[Any]]) -> float:
    """The largest difference between the graph and the model.

    Raises:
        MismatchError: it is larger than rounding explains.
    """
    inputs = {n.name: x.numpy() for n, x in zip(_kept(graph, attempt), attempt.inputs, strict=False)}
    outputs = interpret(graph, inputs).outputs
    worst = 0.0
    for name, wanted in reference.items():
        got = outputs[name]
        if got.size != wanted.size:
            raise MismatchError(f"output '{name}' of the graph has shape {got.shape}, the model gives {wanted.shape}")
        if not wanted.size:
            continue
        diff = np.abs(got.reshape(wanted.shape) - wanted)
        worst = max(worst, float(diff.max()))
        if not diff.max() <= TOLERANCE * max(1.0, float(np.abs(wanted).max())):
            where = tuple(int(i) for i in np.argwhere(~(diff <= TOLERANCE * max(1.0, np.abs(wanted).max())))[0])
            raise MismatchError(
                f"the graph recovered from {graph.meta.get('model')} does not compute what the model does: output "
                f"'{name}' differs by {diff.max():.3g}, first at {where} of {wanted.shape}; "
                "please report the model, and write its loop in the plain form meanwhile"
            )
    return worst


def _kept(graph: Graph, attempt: Attempt) -> Sequence[Any]:
    if len(graph.inputs) != len(attempt.inputs):
        raise UnsupportedError(
            f"the model takes {len(attempt.inputs)} inputs but uses {len(graph.inputs)}: drop what it does not use"
        )
    return graph.inputs


def declare_spikes(graph: Graph, example: Sequence[Tensor] | None, asked: bool | None) -> Graph:
    """The graph with its inputs declared to be spikes: as ``asked``, or where the example is made of both 0 and 1.

    An example of one number only (torch.zeros, torch.ones) says nothing.
    """
    if asked is not None:
        return graph.with_spiking_input(spiking=asked)
    shown = zip(graph.inputs, example or (), strict=False)
    names = [n.name for n, x in shown if set(torch.unique(x).tolist()) == {0, 1}]
    return graph.with_spiking_input(*names) if names else graph


# ---- patterns -------------------------------------------------------------------------------------------------------
def with_zero_patterns(graph: Graph) -> Graph:
    """The same graph where every matrix that holds zeros gets the pattern of its non-zeros.

    Weights that have a pattern keep it.
    """
    return graph.with_patterns({
        view.name: Pattern.from_mask(view.value, "zeros")
        for view in graph.weights()
        if view.role not in view.node.patterns and np.count_nonzero(view.value) < view.value.size
    })  # fmt: skip


def with_masks(found: Recorded, model: nn.Module, masks: HasPatterns | None) -> Graph:
    """The graph with the patterns of ``masks``, or of its zeros where there are no masks.

    Raises:
        UsageError: a mask names no weight of the model, does not fit it, or was not applied to it.
    """
    graph = found.graph
    if masks is None:
        return with_zero_patterns(graph)
    views = {v.name: v for v in graph.weights()}
    unused = {ref.name for ref in weight_refs(model)} - set(views)
    chosen: dict[str, Pattern] = {}
    for name, pattern in masks.patterns.items():
        if name in unused:
            continue  # a layer that the forward never reaches
        chosen[name] = pattern
        node, _, role = name.rpartition(".")
        chosen |= {
            f"{alias}.{role}": pattern
            for alias, of in found.aliases.items()
            if of == node and f"{alias}.{role}" in views
        }
    masked = graph.with_patterns(chosen)
    for view in masked.weights():
        if view.name in chosen:
            dead = np.count_nonzero(view.node.params[view.role]) - np.count_nonzero(view.value)
            if dead:
                raise UsageError(
                    f"weight '{view.name}' has {dead} non-zero entries where its mask is dead: apply the masks first"
                )
    return masked
