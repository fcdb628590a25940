"""`Stepper`: a program prepared for one time step after the other."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sparsecirc.errors import UnsupportedError, UsageError
from sparsecirc.ir import Context, Conv, Embedding, Graph, Input, Node, Recurrent, Repeat, State
from sparsecirc.ir._interpret import split_state
from sparsecirc.ops import Fixed, RecurrentRunner, Runner, fixed_step

Array = NDArray[Any]


def unsteppable(graph: Graph) -> str | None:
    """The layer that needs the whole sequence, or ``None``."""
    for node in graph.nodes:
        backwards = isinstance(node, Recurrent) and node.reverse
        if backwards or (isinstance(node, Conv) and node.over_time):
            return node.name
    return None


def check_steppable(graph: Graph) -> None:
    """Refuse a network that cannot take one step at a time.

    Raises:
        UnsupportedError: a layer runs backwards or convolves over time; named.
    """
    name = unsteppable(graph)
    if name is not None:
        raise UnsupportedError(f"layer '{name}' needs the whole sequence, so the network cannot be stepped: use run()")


class Stepper:
    """One time step per call, for streams: what `Program.step` gives, in a fraction of its time.

    It keeps the state, and arrays for everything else; made by `Program.stepper`. One thread at a time may use it; any
    number of steppers share a program. What it returns is the caller's own and does not change later::

        step = program.stepper()
        for x in stream:            # x: (1, features), and (batch, features) after stepper(batch)
            y = step(x)["y"]
    """

    def __init__(self, graph: Graph, runners: Mapping[str, Runner], batch: int) -> None:
        check_steppable(graph)
        if batch < 0:
            raise UsageError(f"batch is {batch}: expected 0 or more samples")
        self._graph, self._batch = graph, batch
        self._values: dict[str, Array] = {}
        self._fixed: dict[str, Fixed] = {}
        self._loose: dict[str, State] = {}  # states of nodes that run in numpy
        self._runners = runners
        self._inputs: dict[str, Array] = {}
        self._plan = [run for node in graph.nodes for run in self._prepare(node)]
        self._outputs = [(name, value, graph.specs[value].time) for name, value in graph.outputs.items()]
        self._only = next(iter(self._inputs.values())) if len(self._inputs) == 1 else None

    @property
    def batch(self) -> int:
        """Samples per step."""
        return self._batch

    @property
    def state(self) -> dict[str, Array]:
        """A copy of the state by ``"node.state"``, as `Program.run` and `Program.step` take it."""
        found = {f"{n}.{s}": a.copy() for n, f in self._fixed.items() for s, a in f.state.items()}
        return found | {f"{n}.{s}": a.copy() for n, states in self._loose.items() for s, a in states.items()}

    def reset(self, state: Mapping[str, ArrayLike] | None = None) -> None:
        """Start again: from zeros, or from a state that a run or another stepper left.

        Raises:
            UsageError: an unknown state, or a shape that does not fit.
        """
        given = split_state(self._graph, state, self._batch, np.float32)
        for name, fixed in self._fixed.items():
            runner = self._runners[name]
            if given[name] and isinstance(runner, RecurrentRunner):
                runner.check_state({**fixed.state, **given[name]})
            for s, array in fixed.state.items():
                array[...] = given[name].get(s, 0)
        for name in self._loose:
            shapes = self._graph.node(name).states()
            self._loose[name] = {
                s: np.array(given[name].get(s, np.zeros((self._batch, *shape))), np.float32)
                for s, shape in shapes.items()
            }

    def __call__(self, x: ArrayLike | Mapping[str, ArrayLike]) -> dict[str, Array]:
        """Take one step.

        Args:
            x: the input (batch, ...), or one array per input name.

        Returns:
            Outputs by name, (batch, ...); reductions over time cover the steps since the last reset.

        Raises:
            UsageError: an input is missing, unknown or of another shape.
        """
        if self._only is not None and not isinstance(x, Mapping):
            self._take(self._graph.inputs[0].name, self._only, x)
        else:
            self._take_all(x)
        for run in self._plan:
            run()
        values = self._values
        return {name: (values[v][0] if timed else values[v]).copy() for name, v, timed in self._outputs}

    # ---- inputs -------------------------------------------------------------------------------------------------
    def _take(self, name: str, place: Array, x: ArrayLike) -> None:
        array = x if isinstance(x, np.ndarray) else np.asarray(x)
        if array.shape != place.shape:
            raise UsageError(f"input '{name}' of one step has shape {array.shape}: expected {place.shape}")
        place[...] = array

    def _take_all(self, x: ArrayLike | Mapping[str, ArrayLike]) -> None:
        names = list(self._inputs)
        if not isinstance(x, Mapping):
            raise UsageError(f"the graph has {len(names)} inputs: pass a dict with {names}")
        if set(x) != set(names):
            raise UsageError(f"inputs {sorted(x)} are not those of the graph: {names}")
        for name, place in self._inputs.items():
            self._take(name, place, x[name])

    # ---- preparing ----------------------------------------------------------------------------------------------
    def _prepare(self, node: Node) -> list[Callable[[], None]]:
        """What to call at every step for ``node``; its values are put where later nodes look for them."""
        if isinstance(node, Input):
            readers = [n for n in self._graph.nodes if node.name in n.inputs]
            index = bool(readers) and all(isinstance(n, Embedding) for n in readers)
            shape = (self._batch, *node.shape)
            whole = np.zeros((1, *shape) if node.time else shape, np.int64 if index else np.float32)
            self._values[node.name] = whole
            self._inputs[node.name] = whole[0] if node.time else whole
            return []
        if isinstance(node, Repeat):  # one of its steps
            return [lambda: self._keep(node, {"": self._values[node.inputs[0]][None]})]
        fixed = self._fix(node)
        if fixed is None:
            return [self._in_numpy(node)]
        self._fixed[node.name] = fixed
        self._keep(node, dict(fixed.out))
        source = self._values.get(node.inputs[0])
        if source is fixed.x:
            return [fixed.run]
        return [lambda: np.copyto(fixed.x, self._values[node.inputs[0]]), fixed.run]

    def _fix(self, node: Node) -> Fixed | None:
        spec = self._graph.specs[node.inputs[0]]
        shape = (1, self._batch, *spec.shape) if spec.time else (self._batch, *spec.shape)
        found = self._values.get(node.inputs[0])  # an array that stays; of nodes in numpy there is none yet
        if found is None or found.dtype != np.float32 or found.shape != shape:
            found = np.zeros(shape, np.float32)
        return fixed_step(self._runners[node.name], found)

    def _in_numpy(self, node: Node) -> Callable[[], None]:
        """A node that computes new arrays at every step."""
        ctx, runner, name = Context(np.float32, None), self._runners[node.name], node.name
        self._loose[name] = {s: np.zeros((self._batch, *shape), np.float32) for s, shape in node.states().items()}
        inputs = node.inputs

        def run() -> None:
            out, self._loose[name] = runner([self._values[i] for i in inputs], self._loose[name], ctx)
            self._keep(node, out)

        return run

    def _keep(self, node: Node, out: Mapping[str, Array]) -> None:
        for port, array in out.items():
            self._values[f"{node.name}.{port}" if port else node.name] = array
        default = node.ports()[0]
        if default in out:
            self._values[node.name] = out[default]
