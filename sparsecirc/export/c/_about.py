"""What stands at the top of a header: the network, its input and output with shapes and units, and how to call it."""

from __future__ import annotations

from math import prod
from textwrap import wrap

from sparsecirc.export.c._options import Arithmetic, COptions, Weights
from sparsecirc.export.c._plan import Output, Plan, layer_text
from sparsecirc.export.c._text import comment
from sparsecirc.ir import Embedding, Graph, Input

_WIDTH = 116


def about(graph: Graph, plan: Plan, name: str) -> list[str]:
    """Lines of the comment, without its frame; an empty one between paragraphs."""
    lines = [f"Input   {_input(plan, graph)}"]
    lines += [f"{'Output' if k == 0 else '':<8}{_output(plan, o)}" for k, o in enumerate(plan.outputs)]
    step = f"{graph.dt:g} s, for which the neurons were made" if graph.dt is not None else "as in the training data"
    if plan.has_steps:
        lines.append(f"Step    {step}")
    for k, text in enumerate(layer_text(n) for n in graph.nodes if not isinstance(n, Input)):
        lines.append(f"{'Layers' if k == 0 else '':<8}{text}")
    lines += ["", *_call(plan, name), ""]
    for paragraph in _notes(plan, name):
        lines += wrap(paragraph, _WIDTH)
    return [comment(line) for line in lines]


def _shape(shape: tuple[int, ...]) -> str:
    return f"{' x '.join(map(str, shape))}, the last axis fastest" if len(shape) > 1 else ""


def _input(plan: Plan, graph: Graph) -> str:
    count = max(1, prod(plan.input.shape))
    what = "indices" if plan.input_type == "int32_t" else "numbers"
    when = "per step" if plan.input.time else ("for all steps" if plan.has_steps else "per call")
    text = (
        f"x: {count} {what} {when}"
        if count > 1
        else f"x: one {what.removesuffix('s').replace('indice', 'index')} {when}"
    )
    if plan.input_type == "int32_t":
        tables = [n for n in graph.nodes if isinstance(n, Embedding) and n.inputs[0] == plan.input.name]
        return f"{text}, 0 to {min(len(n.params['weight']) for n in tables) - 1}"
    return ", ".join(filter(None, (text, _shape(tuple(plan.input.shape)), "scaled as in training")))


def _output(plan: Plan, output: Output) -> str:
    count = max(1, output.size)
    when = "per step" if output.time else ("for the steps so far" if plan.has_steps else "per call")
    kind = "spikes, 0 or 1" if output.spikes else ""
    text = f"y.{output.member}: {count} {'number' if count == 1 else 'numbers'} {when}"
    return ", ".join(filter(None, (text, _shape(output.shape), kind)))


def _call(plan: Plan, name: str) -> list[str]:
    """How to call it: all steps of a static input at once, else step by step."""
    upper, first = name.upper(), plan.outputs[0].member if plan.outputs else "y"
    at_once = plan.repeat is not None and any(o.time for o in plan.outputs)
    lines = [
        f"    static {name}_state state;",
        f"    {plan.input_type} x[{upper}_INPUTS];",
        f"    {name}_output y{f'[{upper}_STEPS]' if at_once else ''};",
        f"    {name}_init(&state);",
    ]
    if plan.repeat is not None:
        y, read = ("y", f"y[{upper}_STEPS - 1u]") if at_once else ("&y", "y")
        return [*lines, f"    {name}_run(&state, x, {upper}_STEPS, {y}); then read {read}.{first}"]
    each = "for every step: fill x, " if plan.has_steps else "fill x, "
    return [*lines, f"    {each}{name}_step(&state, x, &y); then read y.{first}"]


def _notes(plan: Plan, name: str) -> list[str]:
    options, upper = plan.builder.options, name.upper()
    notes = [
        f"All memory is the caller's: a {name}_state per sequence, of {upper}_STATE_BYTES. Nothing is allocated, "
        "nothing recurses, no variable is shared. The struct holds no pointer, so it may be copied, kept, and given to "
        "a thread or an interrupt of its own. No argument may be null.",
        "Compile with -ffp-contract=off: a fused multiply-add rounds once instead of twice, and spikes may then differ "
        "from machine to machine.",
    ]
    numbers = _numbers(options, upper)
    return [*notes, numbers] if numbers else notes


def _numbers(options: COptions, upper: str) -> str:
    """What of the numbers is rounded."""
    parts = []
    if options.weights is not Weights.F32:
        parts.append(f"Weights are {options.weights.value} words times a scale per row.")
    if options.arithmetic is Arithmetic.INT8:
        parts.append(
            "Inputs of products are rounded to 8 bits; cores with 32-bit SIMD instructions use them unless "
            f"{upper}_PLAIN is defined, with the same result."
        )
    if options.fixed:
        parts.append("Membranes are integers; NaN in the input reads as the lowest one.")
    return " ".join(parts)
