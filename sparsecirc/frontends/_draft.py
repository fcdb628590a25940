"""`Draft`: a graph while its model runs.

An operation on one time step of a sequence stands for the operation on the whole sequence: the node is made once, for
whatever step comes first, and found again for the others. So a loop over time folds into layers by itself, and a node
that was reached at the last step only is recognised as coming after the loop.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import replace

from sparsecirc.errors import UsageError
from sparsecirc.frontends._values import Axis, Refusal, Value, describe
from sparsecirc.ir import Input, Node, Recurrent, Repeat, Spec, TimeReduce

Make = Callable[[str, tuple[str, ...]], Node]
Key = tuple[Hashable, ...]
"""Identity of an operation: ``("module", path)`` for a layer of the model, else a word and its settings."""


class Draft:
    """Nodes found so far, in topological order.

    Attributes:
        steps: T of the sequence inputs while recording; ``None`` where every input is static.
        nodes: by name.
        specs: by value name.
        aliases: node made by a module that was used before -> the node of its first use.
        ops: operations understood so far, to tell which of several tries came furthest.
    """

    def __init__(self, reserved: Iterable[str] = ()) -> None:
        self.steps: int | None = None
        self.nodes: dict[str, Node] = {}
        self.specs: dict[str, Spec] = {}
        self.aliases: dict[str, str] = {}
        self.ops = 0
        self._reserved = set(reserved)
        self._keys: dict[tuple[Key, tuple[str, ...]], str] = {}
        self._seen: dict[str, set[int] | None] = {}  # steps at which a node in time was reached; None: all at once
        self._owner: dict[str, str] = {}
        self._stacked: dict[str, int] = {}  # sequence that was stacked -> number of steps

    # ---- making nodes -------------------------------------------------------------------------------------------
    def add_input(self, name: str, shape: tuple[int, ...], steps: int | None) -> Value:
        """Declare an input; ``steps`` is T where it is a sequence."""
        node = Input(self._unique(name), shape=shape, time=steps is not None)
        self._add(node, [])
        if steps is not None:
            self.steps = steps
        return Value(node.name, ("B", *range(len(shape))))

    def emit(
        self, hint: str, key: Key, make: Make, values: Sequence[Value], axes: Sequence[Axis] | None = None
    ) -> Value:
        """The value of a node without state; by default its axes are those of the inputs with the features last."""
        values = self.align(values)
        inputs = tuple(v.name for v in values)
        name = self._find(hint, (key, inputs), make, inputs)
        self._mark(name, values[0])
        if axes is None:
            axes = (*values[0].lead(), *range(len(self.specs[name].shape)))
        return Value(name, tuple(axes), values[0].step)

    def same_axes(self, hint: str, key: Key, make: Make, values: Sequence[Value]) -> Value:
        """The value of a pointwise node: axes stay as they are."""
        values = self.align(values)
        if any(v.axes != values[0].axes for v in values):
            raise Refusal(
                f"combines values with axes {' and '.join(describe(v.axes) for v in values)}",
                "bring both to one shape and layout first",
            )
        inputs = tuple(v.name for v in values)
        name = self._find(hint, (key, inputs), make, inputs)
        self._mark(name, values[0])
        return Value(name, values[0].axes, values[0].step)

    def layer(self, hint: str, key: Key, make: Make, source: str) -> str:
        """A recurrent layer over a whole sequence; returns its name."""
        name = self._find(hint, (key, (source,)), make, (source,))
        self._seen[name] = None
        return name

    def reduce(self, name: str, how: str) -> Value:
        """A sequence to one static value."""
        shape = self.specs[name].shape
        node = self._find(
            f"{name}_{how}",
            (("reduce", how), (name,)),
            lambda n, i: TimeReduce(n, i, how=how, feature_shape=shape),
            (name,),
        )
        return Value(node, ("B", *range(len(shape))))

    def mean_of_sum(self, value: Value) -> Value | None:
        """The mean over time where ``value`` is a sum over time."""
        node = self.nodes[self._owner[value.name]]
        if not isinstance(node, TimeReduce) or node.how != "sum":
            return None
        return replace(self.reduce(node.inputs[0], "mean"), axes=value.axes)

    def advance(self, hint: str, key: Key, make: Make, x: Value, states: Mapping[str, Value | None]) -> tuple[str, int]:
        """One step of a layer with state; returns its name and the step.

        Args:
            hint: name wanted.
            key: identity of the layer.
            make: makes the node.
            x: its input: one step of a sequence, or a static value that is presented at every step.
            states: by state name, what it got; ``None`` is zero.
        """
        if x.whole:
            raise Refusal("gets a whole sequence where it takes one time step", "call it once per step in a loop")
        if x.lead() != ("B",):
            raise Refusal(f"gets an input with axes {describe(x.axes)}", "give it (batch, features)")
        source = x.name
        if x.step is None:
            source = self._find(f"{x.name}_repeat", (("repeat",), (x.name,)), Repeat, (x.name,))
        known = [v for v in states.values() if v is not None]
        name = self._keys.get((key, (source,)))
        own = name is not None and all(
            v is not None and v.name == self.port(name, s) and v.step == known[0].step for s, v in states.items()
        )
        if known and not own:
            raise Refusal(
                "continues from a state that is not its own of the step before",
                "pass each layer the state that it returned, and start all states at zero",
            )
        step = (known[0].step or 0) + 1 if known else 0
        if name is not None and step != len(self._seen[name] or ()):
            raise Refusal(f"starts again at step {step} within the loop", "reset the states before the loop only")
        if x.step is not None and x.step != step:
            raise Refusal(
                f"takes step {x.step} of its input with the state after {step} steps",
                "loop over the steps 0, 1, 2, ... in order, one call each",
            )
        name = self._find(hint, (key, (source,)), make, (source,))
        for node in (name, source):
            seen = self._seen[self._owner[node]]
            if seen is not None:
                seen.add(step)
        return name, step

    def port(self, node: str, port: str) -> str:
        """Value name of a port: the plain node name for the default one."""
        return node if self.nodes[node].ports()[0] == port else f"{node}.{port}"

    def stacked(self, name: str, steps: int) -> None:
        """Note that ``steps`` steps of a sequence were put together as all of it."""
        self._stacked[name] = steps

    def align(self, values: Sequence[Value]) -> list[Value]:
        """Values of one kind: all whole, all of one step, or all static.

        A first or last step that meets a static value, or the other, becomes static.
        """
        if len({(v.whole, v.step) for v in values}) == 1:
            return list(values)
        if any(v.whole for v in values):
            raise Refusal(
                "combines a whole sequence with a value that has no time axis",
                "reduce the sequence first, or repeat the value in the input",
            )
        steps = {v.step for v in values if v.step is not None}
        if self.steps is None and len(steps) == 1:  # a static value that every step of a loop uses
            step = steps.pop()
            return [v if v.step is not None else self._repeated(v, step) for v in values]
        return [self.to_static(v) for v in values]

    def _repeated(self, value: Value, step: int) -> Value:
        name = self._find(f"{value.name}_repeat", (("repeat",), (value.name,)), Repeat, (value.name,))
        self._mark(name, replace(value, step=step))
        return replace(value, name=name, step=step)

    def to_static(self, value: Value) -> Value:
        """A static value out of the first or last step of a sequence."""
        if value.step is None:
            return value
        if self.steps is None or value.step not in (0, self.steps - 1):
            raise Refusal(
                f"combines step {value.step} of '{value.name}' with another step or with a value that has no step",
                "combine values of one step; what a layer keeps between steps belongs in its own state",
            )
        how = "last" if value.step == self.steps - 1 else "first"
        return replace(value, name=self.reduce(value.name, how).name, step=None)

    def _find(self, hint: str, key: tuple[Key, tuple[str, ...]], make: Make, inputs: tuple[str, ...]) -> str:
        self.ops += 1
        name = self._keys.get(key)
        if name is None:
            first = key[0][0] == "module" and hint in self._reserved and hint not in self.nodes
            name = hint if first else self._unique(hint)
            if name != hint:
                self.aliases[name] = hint
            self._keys[key] = name
            self._add(make(name, inputs), [self.specs[i] for i in inputs])
        return name

    def _add(self, node: Node, inputs: Sequence[Spec]) -> None:
        try:
            specs = node.infer(inputs)
        except UsageError as error:
            raise Refusal(str(error), "bring the values to shapes that fit without spreading") from None
        self.nodes[node.name] = node
        for port, spec in specs.items():
            self.specs[f"{node.name}.{port}" if port else node.name] = spec
            self._owner[f"{node.name}.{port}" if port else node.name] = node.name
        self.specs.setdefault(node.name, specs[node.ports()[0]])
        self._owner.setdefault(node.name, node.name)
        self._seen[node.name] = None if isinstance(node, Input) else set()

    def _unique(self, hint: str) -> str:
        name, k = hint, 1
        while name in self.nodes or name in self._reserved:
            k += 1
            name = f"{hint}_{k}"
        return name

    def _mark(self, name: str, value: Value) -> None:
        seen = self._seen[name]
        if value.whole:
            self._seen[name] = None
        elif value.step is not None and seen is not None:
            seen.add(value.step)

    # ---- the finished graph -------------------------------------------------------------------------------------
    @property
    def length(self) -> int | None:
        """T: of the inputs, or as often as the layers with state were called."""
        counts = [len(self._seen[n] or ()) for n, node in self.nodes.items() if isinstance(node, Recurrent)]
        return self.steps if self.steps is not None else max(counts, default=None)

    def finish(self, outputs: Mapping[str, Value]) -> tuple[tuple[Node, ...], dict[str, str]]:
        """Nodes that the outputs need, and the value name of each output.

        Raises:
            Refusal: a layer was left out at some steps, or lengths differ.
        """
        needed = self._needed(self._owner[v.name] for v in outputs.values())
        final: dict[str, Node] = {}
        for name, node in list(self.nodes.items()):
            if name not in needed:
                continue
            domain = self._domain(name)
            if domain in ("first", "last"):
                if isinstance(node, Repeat):
                    continue  # one step of it is the value itself
                node = replace(node, inputs=tuple(self._at(i, domain, final) for i in node.inputs))
            elif isinstance(node, Repeat):
                if self.steps is not None:
                    raise Refusal(
                        f"'{node.inputs[0]}' has no time axis but feeds a layer in time beside a sequence",
                        "give it a time axis in the input",
                    )
                node = replace(node, steps=self.length or 1)
            elif isinstance(node, TimeReduce) and self._domain(self._owner[node.inputs[0]]) != "all":
                raise Refusal(f"'{node.inputs[0]}' is reduced over time but computed at some steps only", _EVERY)
            final[name] = node
        values = {k: v.name if v.step is None else self._output_step(v, final) for k, v in outputs.items()}
        return tuple(final.values()), values

    def _needed(self, names: Iterable[str]) -> set[str]:
        todo, needed = list(names), set()
        while todo:
            name = todo.pop()
            if name not in needed:
                needed.add(name)
                todo.extend(self._owner[i] for i in self.nodes[name].inputs)
        return needed

    def _domain(self, name: str) -> str:
        """``static``, ``all`` steps, only the ``first`` or only the ``last``."""
        node = self.nodes[name]
        if not self.specs[name].time:
            return "static"
        seen, steps = self._seen[name], self.length or 1
        stacked = {n for v, n in self._stacked.items() if self._owner[v] == name}
        if stacked - {steps}:
            raise Refusal(f"'{name}' is collected at {min(stacked)} of {steps} steps", _EVERY)
        if seen is None or seen == set(range(steps)):
            return "all"
        if seen == {steps - 1} and not isinstance(node, Recurrent):
            return "last"
        if seen == {0} and not isinstance(node, Recurrent):
            return "first"
        raise Refusal(f"'{name}' is computed at {len(seen)} of {steps} steps", _EVERY)

    def _at(self, value: str, how: str, final: dict[str, Node]) -> str:
        """Name of a value at the first or last step, reducing a sequence that exists at every step."""
        node = self.nodes[self._owner[value]]
        if self._domain(node.name) != "all":
            return node.inputs[0] if isinstance(node, Repeat) else value
        reduced = self.reduce(value, how).name
        final.setdefault(reduced, self.nodes[reduced])
        return reduced

    def _output_step(self, value: Value, final: dict[str, Node]) -> str:
        steps = self.length or 1
        if value.step not in (0, steps - 1):
            raise Refusal(
                f"returns step {value.step} of {steps} of '{value.name}'", "return the last step or all steps"
            )
        return self._at(value.name, "last" if value.step == steps - 1 else "first", final)


_EVERY = "compute it at every step, or only after the loop"
