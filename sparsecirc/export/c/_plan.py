"""From a graph to a filled `Builder`: which node runs when, and what the outputs read."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

from sparsecirc.errors import UnsupportedError
from sparsecirc.export.c._build import Builder, Section, Value
from sparsecirc.export.c._nodes import EMIT, finish_time_reduce
from sparsecirc.export.c._options import COptions
from sparsecirc.export.c._text import comment, identifier
from sparsecirc.ir import Embedding, Graph, Input, Node, Recurrent, Repeat, TimeReduce


@dataclass(frozen=True)
class Output:
    """One array of the output struct.

    Attributes:
        name: the graph's name for it.
        member: its C name.
        shape: feature axes.
        time: whether each step has its own.
        spikes: whether its entries are 0 or 1.
    """

    name: str
    member: str
    shape: tuple[int, ...]
    time: bool
    spikes: bool

    @property
    def size(self) -> int:
        """Number of floats."""
        return prod(self.shape)


@dataclass(frozen=True)
class Plan:
    """All statements of a network, with its interface.

    Attributes:
        builder: statements, constants and memory.
        input: the one input node.
        input_type: C type of its entries.
        outputs: in the graph's order.
        repeat: steps for which a static input is presented, or ``None``.
        work: floats of working memory.
        has_steps: whether anything runs per step.
    """

    builder: Builder
    input: Input
    input_type: str
    outputs: tuple[Output, ...]
    repeat: int | None
    work: int
    has_steps: bool


def _only_input(graph: Graph) -> Input:
    if len(graph.inputs) != 1:
        raise UnsupportedError(
            f"the graph has {len(graph.inputs)} inputs {[n.name for n in graph.inputs]}, C code takes one: join them "
            "into one input and take it apart in the network"
        )
    return graph.inputs[0]


def _sections(graph: Graph) -> dict[str, Section]:
    """When each node runs. What depends on a repeated static input alone is computed once, before the steps.

    Raises:
        UnsupportedError: a value reduced over time is presented again at every step.
    """
    section: dict[str, Section] = {}
    owner = {v: n.name for n in graph.nodes for v in (n.name, *(f"{n.name}.{p}" for p in n.ports() if p))}
    for node in graph.nodes:
        above = [graph.node(owner[i]) for i in node.inputs]
        late = any(section[n.name] is Section.FINISH or isinstance(n, TimeReduce) for n in above)
        if late and isinstance(node, Repeat):
            raise UnsupportedError(
                f"repeat '{node.name}' starts a second pass over time from a value that needs the whole first pass: "
                "export the two passes as two networks"
            )
        moving = isinstance(node, Input | Recurrent) or any(section[n.name] is Section.STEP for n in above)
        if isinstance(node, TimeReduce) or (graph.specs[node.name].time and moving):
            section[node.name] = Section.STEP
        else:
            section[node.name] = Section.FINISH if late else Section.BEFORE
    return section


def _repeat_steps(graph: Graph) -> int | None:
    steps = {n.steps for n in graph.nodes if isinstance(n, Repeat)}
    if len(steps) > 1:
        raise UnsupportedError(f"the graph presents its input for {sorted(steps)} steps: expected one number of steps")
    return next(iter(steps), None)


def _unique_members(graph: Graph) -> dict[str, str]:
    members: dict[str, str] = {}
    for name in graph.outputs:
        base = word = identifier(name)
        number = 2
        while word in members.values():
            word, number = f"{base}_{number}", number + 1
        members[name] = word
    return members


def _store(b: Builder, value: Value, member: str, size: int) -> None:
    if value.ctype == "float":
        b.emit(f"memcpy(y->{member}, {b.use(value)}, sizeof(float) * {size}u);")
    else:
        b.each(size, f"y->{member}[i] = {b.read(value)};")


def layer_text(node: Node) -> str:
    """A node in a few words."""
    if not isinstance(node, Recurrent):
        shapes = [" x ".join(map(str, v.shape)) for k, v in node.params.items() if k == "weight"]
        how = getattr(node, "fn", "") or getattr(node, "how", "")
        return f"{node.name}: {' '.join([node.kind.replace('_', ' '), *filter(None, [how]), *shapes])}"
    parts = [f"{' x '.join(map(str, node.feature_shape or (node.units,)))} units of {node.cell.name}"]
    parts += [
        f"{role} {' x '.join(map(str, node.params[role].shape))}" for role in node.matrix_roles if role in node.params
    ]
    return f"{node.name}: {', '.join(parts)}"


def _emit_node(b: Builder, node: Node, values: dict[str, Value]) -> None:
    if type(node) not in EMIT:
        raise UnsupportedError(f"node '{node.name}' ({node.kind}) has no C code: export the network to ONNX")
    before = len(b.lines[b.section])
    ports = EMIT[type(node)](b, node, [values[i] for i in node.inputs])
    if len(b.lines[b.section]) > before:
        b.lines[b.section].insert(before, f"/* {comment(layer_text(node))} */")
    for port, value in ports.items():
        values[f"{node.name}.{port}" if port else node.name] = value
    values.setdefault(node.name, next(iter(ports.values())))


def make_plan(graph: Graph, prefix: str, options: COptions | None = None) -> Plan:
    """Write every node of ``graph``.

    Raises:
        UnsupportedError: the graph cannot run step by step in C; names the node and the cure.
    """
    source = _only_input(graph)
    is_index = any(isinstance(n, Embedding) and n.inputs[0] == source.name for n in graph.nodes)
    input_type = "int32_t" if is_index else "float"
    sections = _sections(graph)
    repeat = _repeat_steps(graph)
    b = Builder(prefix, options or COptions())
    values = {source.name: Value("x", tuple(source.shape), input_type)}
    outputs = []
    step_end = 0
    for section in Section:
        b.section = section
        for node in graph.nodes:
            b.position += 1
            if isinstance(node, TimeReduce) and section is Section.FINISH:
                ports = {"": values[node.name], "count": values.get(f"{node.name}.count", values[node.name])}
                values[node.name] = finish_time_reduce(b, node, ports)
            elif not isinstance(node, Input) and sections[node.name] is section:
                _emit_node(b, node, values)
        b.position += 1
        members = _unique_members(graph)
        for name, at in graph.outputs.items():
            spec = graph.specs[at]
            if section is (Section.STEP if spec.time else Section.FINISH):
                _store(b, values[at], members[name], prod(spec.shape))
        if section is Section.STEP:
            step_end = b.position
    for name, at in graph.outputs.items():
        spec = graph.specs[at]
        outputs.append(Output(name, members[name], tuple(spec.shape), spec.time, _spikes(graph, at)))
    has_steps = source.time or repeat is not None
    return Plan(b, source, input_type, tuple(outputs), repeat, b.place_buffers(step_end), has_steps)


def _spikes(graph: Graph, value: str) -> bool:
    """Whether an output is a spiking layer's own spikes."""
    return any(
        isinstance(n, Recurrent) and n.cell.spiking and value in (n.name, f"{n.name}.{n.cell.feedback}")
        for n in graph.nodes
    )
