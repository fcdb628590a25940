"""`Program`: a graph with a packed weight and a kernel per matrix, ready to run."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sparsecirc._choice import Choice, Explanation
from sparsecirc._files import read_container, write_container
from sparsecirc._native import resolve_isa
from sparsecirc._pattern import Pattern
from sparsecirc._stepper import Stepper, check_steppable
from sparsecirc._target import Isa, Target
from sparsecirc.errors import FileFormatError, SparsecircError, UnsupportedError
from sparsecirc.formats import Format, Packed, every_format
from sparsecirc.ir import Context, Conv, Graph, Node, Repeat, Result, State, Values, walk
from sparsecirc.ir._io import graph_from_parts, graph_to_parts
from sparsecirc.ops import Runner, prepare


@dataclass(frozen=True, eq=False)
class Program:
    """A compiled network; made by `compile`, read by `Program.load`. Immutable and safe to share between threads.

    Attributes:
        graph: the network with the weights that the kernels really multiply by; `interpret(program.graph, x)` is what
            `run` must give.
        target: what it was compiled for.
        isa: the instruction set that it uses.
        packed: packed weights by name.
        choices: kernel choices by weight name.
        exact: whether the packed weights equal the graph that was compiled.
    """

    graph: Graph
    target: Target
    isa: Isa
    packed: Mapping[str, Packed]
    choices: Mapping[str, Choice]
    exact: bool

    def run(
        self,
        x: ArrayLike | Mapping[str, ArrayLike],
        state: Mapping[str, ArrayLike] | None = None,
        *,
        lengths: ArrayLike | None = None,
    ) -> Result:
        """Run whole sequences in float32; arguments, layout, result and errors as `interpret`."""
        return walk(self.graph, x, state, lengths, np.float32, self._compute)

    def step(self, x: ArrayLike | Mapping[str, ArrayLike], state: Mapping[str, ArrayLike] | None = None) -> Result:
        """Run one time step. For streams, `stepper` does the same in a fraction of the time.

        Args:
            x: inputs without their time axis, (B, ...).
            state: what the step before returned; ``None`` starts from zeros.

        Returns:
            Outputs without a time axis; reductions over time cover the steps so far.

        Raises:
            UnsupportedError: a layer runs backwards or convolves over time.
        """
        check_steppable(self.graph)
        axis = 1 if self.graph.batch_first else 0
        given = x if isinstance(x, Mapping) else {self.graph.inputs[0].name: x}
        timed = {n.name for n in self.graph.inputs if n.time}
        lifted = {k: np.expand_dims(np.asarray(v), axis) if k in timed and np.ndim(v) else v for k, v in given.items()}
        result = walk(self.graph, lifted, state, None, np.float32, self._compute_one)
        specs = self.graph.specs
        outputs = {
            name: np.squeeze(array, axis) if specs[self.graph.outputs[name]].time else array
            for name, array in result.outputs.items()
        }
        return Result(outputs, result.state, {})

    def stepper(self, batch: int = 1) -> Stepper:
        """A `Stepper` for ``batch`` samples, at zero state: one step per call, with the state kept inside.

        Raises:
            UnsupportedError: a layer runs backwards or convolves over time.
            UsageError: a negative batch.
        """
        return Stepper(self.graph, self._runners, batch)

    def explain(self) -> Explanation:
        """Kernel, reason, measured candidates, bytes and padding of every weight."""
        glue = tuple(n.name for n in self.graph.nodes if isinstance(n, Conv))
        return Explanation(tuple(self.choices.values()), self.isa.value, glue)

    @property
    def packed_bytes(self) -> int:
        """Bytes of all packed weights."""
        return sum(p.nbytes for p in self.packed.values())

    @property
    def dense_bytes(self) -> int:
        """Bytes of the same matrices as dense float32."""
        return sum(c.nbytes_dense for c in self.choices.values())

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write one file, atomically: live weights, patterns and choices; it is packed again when loaded."""
        header, arrays = graph_to_parts(self.graph)
        isa = None if self.target.isa is None else self.target.isa.value
        record = {
            "graph": header,
            "target": {**asdict(self.target), "isa": isa},
            "isa": self.isa.value,
            "exact": self.exact,
            "choices": [asdict(c) for c in self.choices.values()],
        }
        scales = {f"{name}|scale": p.scale for name, p in self.packed.items() if p.scale is not None}
        orders = {
            f"{name}|order": p.order
            for name, p in self.packed.items()
            if p.order is not None and name in self.choices and self.choices[name].order
        }
        write_container(Path(path), "program", record, {**arrays, **scales, **orders})

    @staticmethod
    def load(path: str | os.PathLike[str]) -> Program:
        """Read a program and pack it for this machine.

        Raises:
            FileFormatError: missing, truncated, not a program, or written by a newer version.
            UnsupportedError: it was compiled for an instruction set that this machine lacks.
        """
        header, arrays = read_container(Path(path), "program")
        try:
            graph = graph_from_parts(header["graph"], arrays, str(path))
            asked = header["target"].get("isa")
            target = Target(**{**header["target"], "isa": None if asked is None else Isa(asked)})
            isa = Isa(header["isa"])
            choices = {c["weight"]: Choice.from_json(c) for c in header["choices"]}
            exact = bool(header["exact"])
        except FileFormatError:
            raise
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise FileFormatError(f"{path} is not a valid program: {error!r}") from error
        try:
            resolve_isa(Target.cpu(isa, dtype=target.dtype, threads=target.threads))
        except UnsupportedError as error:
            raise UnsupportedError(f"{path}: {error}; compile the network again on this machine") from error
        formats = every_format(isa)
        packed = {}
        views = {v.name: v for v in graph.weights()}
        for name, choice in choices.items():
            if name not in views or choice.format not in formats:
                raise FileFormatError(f"{path} names weight '{name}' in format '{choice.format}', which does not exist")
            value = np.ascontiguousarray(views[name].value, np.float32)
            form, pattern = formats[choice.format], views[name].pattern
            scale, order = arrays.get(f"{name}|scale"), arrays.get(f"{name}|order")
            if form.repack is not None and (scale is None or scale.shape != pattern.shape[:1]):
                raise FileFormatError(f"{path} holds no scales for weight '{name}' in format '{choice.format}'")
            if bool(choice.order) != (order is not None):
                raise FileFormatError(f"{path} lacks the order of weight '{name}', or holds one that it does not name")
            try:
                packed[name] = _pack_again(form, pattern, value, order, scale)
            except SparsecircError as error:
                raise FileFormatError(f"{path} is not a valid program: weight '{name}': {error}") from error
        return Program(graph, target, isa, packed, choices, exact)

    @property
    def tolerance(self) -> float:
        """Largest difference from `interpret(program.graph, x)` to expect, relative to the largest output.

        1e-5 where states are float32. Integer programs also round the state at every step, to 12 bits (int16) or 8
        bits (int8).
        """
        return {"f32": 1e-5, "bf16": 1e-5, "int16": 1e-2, "int8": 1e-1}[self.target.dtype]

    @cached_property
    def _runners(self) -> dict[str, Runner]:
        read = {value for n in self.graph.nodes for value in n.inputs} | set(self.graph.outputs.values())
        runners = {}
        for node in self.graph.nodes:
            first = node.ports()[0]
            ports = frozenset(
                p for p in node.ports() if f"{node.name}.{p}" in read or (p == first and node.name in read)
            )
            runners[node.name] = self._prepare(node, ports)
        return runners

    @cached_property
    def _full_runners(self) -> dict[str, Runner]:
        return {n.name: self._prepare(n, frozenset(n.ports())) for n in self.graph.nodes}

    def _prepare(self, node: Node, ports: frozenset[str]) -> Runner:
        packed = self._packed_of(node)
        forced = frozenset(r for r in packed if (c := self.choices.get(f"{node.name}.{r}")) is not None and c.forced)
        return prepare(node, packed, self.isa, ports, forced, self.target.threads)

    def _packed_of(self, node: Node) -> dict[str, Packed]:
        return {r: self.packed[f"{node.name}.{r}"] for r in node.matrix_roles if f"{node.name}.{r}" in self.packed}

    def _compute(self, node: Node, inputs: Values, state: State, ctx: Context) -> tuple[dict[str, Any], State]:
        return self._runners[node.name](inputs, state, ctx)

    def _compute_one(self, node: Node, inputs: Values, state: State, ctx: Context) -> tuple[dict[str, Any], State]:
        if isinstance(node, Repeat):
            return {"": np.expand_dims(inputs[0], 0)}, state
        return self._compute(node, inputs, state, ctx)

    def compute_all(self, node: Node, inputs: Values, state: State, ctx: Context) -> tuple[dict[str, Any], State]:
        """Compute one node with every port, for `verify`; `run` writes only the ports that somebody reads."""
        return self._full_runners[node.name](inputs, state, ctx)


def _pack_again(
    form: Format, pattern: Pattern, weight: NDArray[np.float32], order: NDArray[Any] | None, scale: NDArray[Any] | None
) -> Packed:
    if order is not None:
        return form.pack_ordered(pattern, weight, order, scale)
    return form.pack(pattern, weight) if form.repack is None else form.repack(pattern, weight, scale)
