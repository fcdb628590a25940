"""`export_onnx`: the file for whole sequences and the one for single steps."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from typing import Any

from sparsecirc._shrink import shrink
from sparsecirc.errors import UnsupportedError, UsageError
from sparsecirc.export._export import Export, as_path, density_note, gzip_bytes, write_files
from sparsecirc.export.onnx._builder import Builder, Dim, import_onnx
from sparsecirc.export.onnx._form import Consumer, Form, packs, parse_consumer, parse_form
from sparsecirc.export.onnx._functions import DOMAIN
from sparsecirc.export.onnx._library import why_not_here
from sparsecirc.export.onnx._lowering import LAYERS, Lowering
from sparsecirc.export.onnx._recurrent import recurrent
from sparsecirc.export.onnx._reset_first import reset_first
from sparsecirc.ir import Conv, Embedding, Graph, Input, Node, Recurrent, Repeat, ResetFirstGru, TimeReduce

OPSETS = {17: 8, 18: 9, 19: 9, 20: 9}
"""Opsets that are written, with the IR version of the file; 17 is read by the most runtimes."""

_LIMIT = 2**31 - 1  # bytes of a protobuf message
LENGTHS = "lengths"
"""Name of the input that holds the valid steps per sample, in files that have one."""
METADATA = "sparsecirc."
"""Prefix of our keys in ``metadata_props``."""


def export_onnx(
    graph: Graph,
    path: str | os.PathLike[str],
    *,
    form: Form | str = Form.AUTO,
    consumer: Consumer | str = Consumer.ANY,
    opset: int = 17,
    step: bool = True,
    lengths: bool = False,
    structure: bool = True,
) -> Export:
    """Write ``graph`` as ONNX, with time and batch free and the user's layout (``graph.batch_first``).

    The main file takes the graph's inputs, float32 (indices of an embedding: int64), with symbolic axes ``T`` and
    ``B``, and starts from zero state. Beside it, ``<stem>_step.onnx`` takes one time step (B, ...) and every state,
    named ``"node.state"``, and gives the outputs of the step and the new states, named ``"node.state.next"``. Both
    carry ``metadata_props`` (see :func:`metadata`).

    Args:
        graph: the network.
        path: of the main file; ``.onnx`` is added where there is no suffix.
        form: how recurrent layers are written; see :class:`Form`.
        consumer: who will read the file, which form ``auto`` chooses for; see :class:`Consumer`. The notes say what was
            chosen and why, and what this reader will do with the zeros.
        opset: 17 to 20; 17 is read by ONNX Runtime, the reference evaluator, OpenVINO and tract.
        step: also write the step file, where the network can be stepped.
        lengths: the main file also takes ``lengths``, int32 (B,): valid steps per sample. As in ``interpret``, past its
            end a sample keeps its state and recurrent layers emit zeros; reductions over time cover the valid steps.
            ONNX's own operators take it as their ``sequence_lens``.
        structure: use what pruning left: units that do nothing are not written (see `shrink`; states of the step file
            are then as narrow), and layers whose units fall into groups that do not read each other, as block-diagonal
            and modular ones do, become several small operators where that is faster.

    Raises:
        UsageError: an unknown form, consumer or opset, a form that the consumer refuses, an output that is
            called like an input, an input or output called ``lengths``, or lengths for a graph without a sequence
            input.
        UnsupportedError: a layer with no ONNX counterpart, or a file beyond 2 GiB.
        MissingExtraError: the package ``onnx`` is absent.
    """
    import_onnx()
    form = parse_form(form)
    consumer = parse_consumer(consumer, form)
    if opset not in OPSETS:
        raise UsageError(f"opset {opset!r} is not written: expected one of {', '.join(map(str, OPSETS))}")
    target = as_path(path, ".onnx")
    _check_kinds(graph)
    if lengths:
        _check_lengths(graph)
    notes = [density_note(graph)]
    left_out = 0
    if structure:
        smaller = shrink(graph)
        left_out, graph = _entries(graph) - _entries(smaller.graph), smaller.graph
        notes += [f"{n} units of '{name}' do nothing and are not written" for name, n in smaller.removed.items()]
    lengths_name = LENGTHS if lengths else ""
    whole, low = _model(graph, form, consumer, opset, step=False, lengths=lengths_name, structure=structure)
    notes += [
        f"layer '{n}' is written in {len(p)} parts of {', '.join(map(str, p))} units" for n, p in low.split.items()
    ]
    files = {target: whole}
    reason = why_not_step(graph) if step else None
    if step and reason is None:
        one, _ = _model(graph, form, consumer, opset, step=True)
        files[target.with_name(f"{target.stem}_step{target.suffix}")] = one
    if reason is not None:
        notes.append(f"no step file: {reason}")
    small = gzip_bytes(whole)
    notes += _truths(graph, low, len(whole), small)
    if graph.spiking:
        notes.append(
            "spikes are exact in float32 only: OpenVINO computes in bfloat16 on CPUs that have it, "
            "unless INFERENCE_PRECISION_HINT is f32"
        )
    for name, parts in low.split.items():
        left_out += (
            graph.node(name).params["hh"].size * (sum(parts) ** 2 - sum(p * p for p in parts)) // sum(parts) ** 2
        )
    dense = len(whole) + sum(low.b.saved) + 4 * left_out
    return Export("onnx", write_files(files), len(whole), dense, small, _form_name(low), tuple(notes))


def _entries(graph: Graph) -> int:
    """Numbers that the network holds."""
    return sum(value.size for node in graph.nodes for value in node.params.values())


def _truths(graph: Graph, low: Lowering, size: int, small: int) -> Iterator[str]:
    """What was chosen, and what those who read the file will do with the zeros."""
    consumer, custom = low.consumer, bool(low.functions)
    if low.form is Form.AUTO:
        yield from _chosen(low)
    packed = bool(low.b.saved)
    if packed and not (custom and consumer is Consumer.LIBRARY):
        name = "who reads the file" if consumer is Consumer.ANY else consumer.value.partition("+")[0]
        yield f"{name} unpacks the weights on loading ({size:,} bytes), then multiplies zeros: smaller file, same speed"
        if consumer is Consumer.ANY:
            yield (
                "openvino reads packed weights in a Scan and in layers without recurrence, and refuses them in an RNN, "
                "GRU or LSTM"
            )
    elif not packed and low.split:
        yield "standard ONNX operators multiply the zeros that are left inside of the parts"
    elif not packed and graph.density < 1:
        better = {
            Consumer.OPENVINO: "it has no form that is smaller or faster",
            Consumer.LIBRARY: "form 'custom' runs sparse kernels",
        }.get(consumer, "form 'packed' stores live entries, form 'custom' runs sparse kernels")
        yield (
            "standard ONNX operators multiply the zeros: as fast as the dense network, smaller only when gzipped "
            f"({size:,} to {small:,} bytes); {better}"
        )
    if low.b.events and graph.spiking:
        yield (
            "recurrent products of neurons gather the weights of those that fired, in steps where fewer than an eighth "
            "did: onnxruntime gains from 512 neurons on, at batch 1"
        )
    if custom:
        yield (
            "onnxruntime runs our sparse kernels where the library of sparsecirc.export.onnx.custom_ops() is "
            "registered; without it, it runs the functions in the file, which are dense; openvino and tract know no "
            "functions and refuse the file"
        )
        why = why_not_here()
        if why is not None:
            yield f"the library cannot be built on this machine: {why}"
    elif low.form is Form.CUSTOM:
        yield "no layer has an operator of ours: the file is that of form 'packed'"


def _chosen(low: Lowering) -> Iterator[str]:
    """What ``auto`` made of the recurrent layers, those with one reason together."""
    layers: dict[tuple[str, str], list[str]] = {}
    for name, choice in low.choices.items():
        form = choice.form.value + (", packed where that is smaller," if choice.packed else "")
        layers.setdefault((form, choice.why), []).append(f"'{name}'")
    for (form, why), names in layers.items():
        yield f"form auto for consumer {low.consumer.value}: {form} for {', '.join(names)}: {why}"


def _check_lengths(graph: Graph) -> None:
    if LENGTHS in graph.outputs or any(n.name == LENGTHS for n in graph.inputs):
        raise UsageError(f"the graph has an input or output called '{LENGTHS}' already: rename it")
    if not any(n.time for n in graph.inputs):
        raise UsageError("the graph has no sequence input whose valid steps could be given: export it without lengths")


def why_not_step(graph: Graph) -> str | None:
    """Why the network cannot take one time step at a time, or ``None`` where it can."""
    if not any(spec.time for spec in graph.specs.values()):
        return "the graph has no sequence"
    reduced: set[str] = set()  # values that are known only after the last step
    for node in graph.nodes:
        if isinstance(node, Recurrent | ResetFirstGru) and node.reverse:
            return f"layer '{node.name}' runs backwards, so it needs the whole sequence"
        if isinstance(node, Conv) and node.over_time:
            return f"convolution '{node.name}' runs over time, so it needs the neighbouring steps"
        late = any(v in reduced for v in node.inputs)
        if isinstance(node, Repeat) and late:
            return f"'{node.name}' repeats a value that is known only after the last step"
        if late or isinstance(node, TimeReduce):
            reduced |= {node.name, *(f"{node.name}.{p}" for p in node.ports())}
    return None


def _form_name(low: Lowering) -> str:
    """``"op"``, ``"scan"``, ``"op+scan"``, ``"custom+packed"``, or ``"plain"`` without recurrent layers."""
    parts = {c.form.value for c in low.choices.values()} | ({Form.CUSTOM.value} if low.functions else set())
    gathers = low.b.events and any(n.cell.spiking and "hh" in n.params for n in low.graph.recurrent)
    more = [*(["events"] if gathers else []), *(["packed"] if low.b.saved else [])]
    return "+".join([*(sorted(parts) or ["plain"]), *more])


def _model(
    graph: Graph,
    form: Form,
    consumer: Consumer,
    opset: int,
    *,
    step: bool,
    lengths: str = "",
    structure: bool = True,
) -> tuple[bytes, Lowering]:
    onnx = import_onnx()
    clash = sorted({n.name for n in graph.inputs} & set(graph.outputs))
    if clash:
        raise UsageError(f"output '{clash[0]}' is called like an input, which ONNX cannot tell apart: rename one")
    size = 4 * _entries(graph)
    if size > _LIMIT:
        raise UnsupportedError(f"the weights take {size:,} bytes, an ONNX file holds {_LIMIT:,}: export it in parts")
    names = {*graph.outputs, *(n.name for n in graph.inputs), lengths}
    builder = Builder(names, events=form is Form.EVENTS)
    low = Lowering(
        graph, builder, step, form, opset, consumer=consumer, lengths=lengths, structure=structure
    )  # fmt: skip
    inputs = [_input(low, node) for node in graph.inputs]
    if lengths:
        inputs.append(onnx.helper.make_tensor_value_info(lengths, onnx.TensorProto.INT32, ["B"]))
    for node in graph.nodes:
        low.times[node.name] = _time(low, node)
        low.b.packed = form not in (Form.OP, Form.SCAN) and (step or packs(node, graph, form, consumer))
        if isinstance(node, Recurrent):
            recurrent(low, node)
        elif isinstance(node, ResetFirstGru):
            reset_first(low, node)
        elif not isinstance(node, Input):
            low.values[node.name] = LAYERS[type(node)](low, node)
    outputs = [_output(low, name, value) for name, value in graph.outputs.items()]
    info = low.b.value_info
    inputs += [info(given, ["B", *shape]) for given, _, shape in low.states.values()]
    outputs += [info(new, ["B", *shape]) for _, new, shape in low.states.values()]
    from sparsecirc import __version__

    model = onnx.helper.make_model(
        low.b.graph("sparsecirc_step" if step else "sparsecirc", inputs, outputs),
        opset_imports=[
            onnx.helper.make_opsetid("", opset),
            *([onnx.helper.make_opsetid(DOMAIN, 1)] if low.functions else []),
        ],
        functions=list(low.functions.values()),
        ir_version=OPSETS[opset],
        producer_name="sparsecirc",
        producer_version=__version__,
    )
    onnx.helper.set_model_props(model, {METADATA + k: json.dumps(v) for k, v in _facts(low).items()})
    onnx.checker.check_model(model, full_check=True)
    return model.SerializeToString(deterministic=True), low


def _facts(low: Lowering) -> dict[str, Any]:
    """What ``metadata_props`` says about the file."""
    from sparsecirc import __version__

    graph, views = low.graph, list(low.graph.weights())
    return {
        "version": __version__,
        "form": "step" if low.step else _form_name(low),
        "cells": sorted({n.cell.name for n in graph.recurrent}),
        "density": graph.density,
        "nnz": sum(v.pattern.nnz for v in views),
        "weights": sum(v.value.size for v in views),
        "dt": graph.dt,
        "batch_first": graph.batch_first,
        "lengths": low.lengths or None,
        "states": {k: {"input": i, "output": o, "shape": list(s)} for k, (i, o, s) in low.states.items()},
    }


def _input(low: Lowering, node: Input) -> Any:
    """An input in the user's layout, brought to (T, B, ...)."""
    b, spec = low.b, low.specs[node.name]
    if any(isinstance(n, Embedding) and node.name in n.inputs for n in low.graph.nodes):
        b.integers.add(node.name)
    low.values[node.name] = node.name
    if spec.time and low.graph.batch_first and not low.step:
        turned = b.op("Transpose", [node.name], f"{node.name}.time_first", perm=_swap(low.rank(node.name)))
        if node.name in b.integers:
            b.integers.add(turned)
        low.values[node.name] = turned
    return b.value_info(node.name, low.dims(spec, "T", batch_first=low.graph.batch_first))


def _output(low: Lowering, name: str, value: str) -> Any:
    """An output in the user's layout."""
    b, spec, source = low.b, low.specs[value], low.values[value]
    if source in b.integers:
        b.integers.add(name)
    if spec.time and low.graph.batch_first and not low.step:
        node = b.onnx.helper.make_node("Transpose", [source], [name], perm=_swap(low.rank(value)))
    else:
        node = b.onnx.helper.make_node("Identity", [source], [name])
    b.nodes.append(node)
    owner = value if value in low.times else value.rpartition(".")[0]
    return b.value_info(name, low.dims(spec, low.times[owner], batch_first=low.graph.batch_first))


def _swap(rank: int) -> list[int]:
    return [1, 0, *range(2, rank)]


def _time(low: Lowering, node: Node) -> Dim:
    """Length of the time axis of what ``node`` gives."""
    if isinstance(node, Input):
        return "T"
    if isinstance(node, Repeat):
        return node.steps
    if isinstance(node, Conv) and node.over_time:
        return f"T_{node.name}"
    owners = [v if v in low.times else v.rpartition(".")[0] for v in node.inputs]
    return low.times[owners[0]]


def _check_kinds(graph: Graph) -> None:
    """Refuse nodes with no ONNX counterpart before anything is computed with them."""
    for node in graph.nodes:
        if type(node) not in LAYERS and not isinstance(node, Input | Recurrent | ResetFirstGru):
            known = ", ".join(sorted(cls.kind for cls in LAYERS))
            raise UnsupportedError(
                f"node '{node.name}' of kind '{node.kind}' has no ONNX counterpart here: build the graph from {known}, "
                "recurrent and input nodes"
            )
