"""Header and source file as text."""

from __future__ import annotations

import json
from math import prod
from typing import Any

from sparsecirc.export.c._about import about
from sparsecirc.export.c._build import WIDTH, Member, Section
from sparsecirc.export.c._plan import Output, Plan
from sparsecirc.export.c._text import array_text, comment
from sparsecirc.ir import Graph

_DOES = {
    Section.BEFORE: "What depends on the input alone, once before the steps.",
    Section.STEP: "One step, layer by layer.",
    Section.FINISH: "What is not per step: the result for the steps so far.",
}
_NAMES = {Section.BEFORE: "before", Section.STEP: "each", Section.FINISH: "finish"}
_MATH = ("tanhf(", "expf(", "logf(")


def manifest(plan: Plan, batch_first: bool) -> dict[str, Any]:
    """What a program needs to call the network, JSON-able; also a line of the header."""
    return {
        "input": {
            "name": plan.input.name,
            "shape": list(plan.input.shape),
            "time": plan.input.time,
            "type": plan.input_type,
        },
        "outputs": [
            {"name": o.name, "member": o.member, "shape": list(o.shape), "time": o.time, "spikes": o.spikes}
            for o in plan.outputs
        ],
        "steps": plan.repeat,
        "batch_first": batch_first,
    }


def _members(plan: Plan) -> list[Member]:
    """Fields of the state struct, wide types first so that no padding comes between."""
    b = plan.builder
    members = [*b.members]
    if plan.work:
        members.append(Member("work", "float", plan.work, "intermediate values of one step"))
    if b.sums:
        members.append(Member("sums", "int32_t", b.sums, "sums over spikes of one layer"))
    if b.rounded:
        members.append(Member("rounded", "int8_t", b.rounded, "inputs of one product in 8 bits"))
    return sorted(members, key=lambda m: -WIDTH[m.ctype]) or [Member("unused", "uint8_t", None, "nothing to keep")]


def state_bytes(plan: Plan) -> int:
    """Size of the state struct, rounded up to its alignment."""
    members = _members(plan)
    size = sum((m.size or 1) * WIDTH[m.ctype] for m in members)
    align = max(WIDTH[m.ctype] for m in members)
    return -(-size // align) * align


def _declare(member: Member) -> str:
    size = "" if member.size is None else f"[{member.size}]"
    return f"    {member.ctype} {member.name}{size}; /* {comment(member.note)} */"


def _calls(plan: Plan, name: str) -> str:
    """Prototypes with what they do."""
    x = "the indices" if plan.input_type == "int32_t" else "the values"
    each = "of one step" if plan.input.time else ("presented at every step" if plan.has_steps else "of the input")
    sequence = any(o.time for o in plan.outputs)
    static = any(not o.time for o in plan.outputs)
    y = (
        "y: one struct per step" + (", at least one; arrays that are not per step are set in the last one" * static)
        if sequence
        else "y: one struct"
    )
    so_far = "\n   Arrays that are not per step hold the result for the steps so far." if static else ""
    return f"""\
/* Forgets everything: call it before a new sequence. */
void {name}_init({name}_state *s);

/* Takes one step. x: {x} {each}. y: one struct.{so_far} */
void {name}_step({name}_state *s, const {plan.input_type} *x, {name}_output *y);

/* Takes `steps` steps, going on from where the last call ended; 0 is allowed.
   x: {x} {each}{", step by step" * plan.input.time}. {y}. */
void {name}_run({name}_state *s, const {plan.input_type} *x, uint32_t steps, {name}_output *y);
"""


def header_text(graph: Graph, plan: Plan, name: str, version: str) -> str:
    """The ``.h`` file."""
    b, upper = plan.builder, name.upper()
    data = json.dumps(manifest(plan, graph.batch_first)).replace("/", "\\/")
    said = "\n".join(f"   {line}".rstrip() for line in about(graph, plan, name))
    inputs = max(1, prod(plan.input.shape))
    rows = [f"   {comment(str(m))}" for m in b.matrices]
    weights = "\n".join(["   Weights, each in the smallest layout:", *rows] if rows else ["   No weight matrix."])
    form = b.options.form.removeprefix("c99 ")
    steps = (
        f"#define {upper}_STEPS {plan.repeat}u /* steps for which the input is presented */\n" if plan.repeat else ""
    )
    outputs = "\n".join(
        f"    float {o.member}[{max(1, o.size)}]; /* output '{comment(o.name)}'{_what(o)} */" for o in plan.outputs
    )
    return f"""\
/* {name}: a network in C99, which is C++17 too; written by sparsecirc {version}, {form}.

{said}

{weights}
   manifest: {data} */
#ifndef {upper}_H
#define {upper}_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {{
#endif

#define {upper}_SPARSECIRC_VERSION "{version}"
#define {upper}_INPUTS {inputs}u /* entries of x per {"step" if plan.input.time else "call"} */
#define {upper}_INPUT_TYPE {plan.input_type}
#define {upper}_INPUT_PER_STEP {int(plan.input.time)} /* 0: one x for all steps */
#define {upper}_OUTPUTS {sum(max(1, o.size) for o in plan.outputs)}u /* floats of the output struct */
{steps}#define {upper}_FLASH_BYTES {b.constant_bytes}u /* constants; the machine code comes on top, about 1 to 4 kB */
#define {upper}_STATE_BYTES {state_bytes(plan)}u /* the state struct */
#define {upper}_CARRIED_BYTES {b.carried_bytes}u /* what of it lives from step to step */

/* Fields are for the functions below, not for the caller. */
typedef struct {{
{chr(10).join(_declare(m) for m in _members(plan))}
}} {name}_state;

typedef struct {{
{outputs}
}} {name}_output;

{_calls(plan, name)}
#ifdef __cplusplus
}}
#endif

#endif
"""


def _what(output: Output) -> str:
    shape = " x ".join(str(n) for n in output.shape) or "1"
    return f", {shape}, {'per step' if output.time else 'for the steps so far'}{', 0 or 1' if output.spikes else ''}"


def _function(plan: Plan, name: str, section: Section) -> str:
    """One section as a static function, or nothing where it has no statements."""
    b = plan.builder
    lines = b.lines[section]
    pointers = [f"float *const {u.name} = s->work + {u.offset}u;" for u in b.buffers if section in u.sections and lines]
    body = [*pointers, *lines]
    text = "\n".join(line for line in body if not line.startswith("/*"))
    unused = [f"(void){p};" for p, mark in (("s", "s->"), ("x", None), ("y", "y->")) if not _mentions(text, p, mark)]
    inner = "\n".join(f"    {line}" for line in [*body, *unused])
    head = f"static void {name}_{_NAMES[section]}({name}_state *s, const {plan.input_type} *x, {name}_output *y)"
    return f"/* {_DOES[section]} */\n{head}\n{{\n{inner}\n}}\n"


def _mentions(text: str, parameter: str, mark: str | None) -> bool:
    if mark is not None:
        return mark in text
    words = "".join(c if c.isalnum() or c in "_>" else " " for c in text).split()
    return parameter in words


def source_text(plan: Plan, name: str, version: str) -> str:
    """The ``.c`` file."""
    b, upper = plan.builder, name.upper()
    live = {s: bool(b.lines[s]) for s in Section}
    call = {s: f"    {name}_{_NAMES[s]}(s, x, y);\n" * live[s] for s in Section}
    functions = [_function(plan, name, s) for s in Section if live[s]]
    sequence = any(o.time for o in plan.outputs)
    moves = [f"x += {upper}_INPUTS;"] * plan.input.time + ["y += 1;"] * sequence
    loop = ""
    if live[Section.STEP]:
        inner = "".join(f"        {m}\n" for m in moves)
        loop = f"    for (uint32_t t = 0u; t < steps; ++t) {{\n    {call[Section.STEP]}{inner}    }}\n"
    back = ""
    if sequence and live[Section.FINISH]:
        back = "    if (steps > 0u) {\n        y -= 1; /* the last step's */\n    }\n"
    unused = "" if loop else "    (void)steps;\n"
    touched = any(live.values())
    ignore = "" if touched else "    (void)s;\n    (void)x;\n    (void)y;\n"
    math = "#include <math.h>\n" if any(f in "".join([*functions, *b.helpers.values()]) for f in _MATH) else ""
    return f"""\
/* Written by sparsecirc {version}; see {name}.h. */
#include "{name}.h"

{math}#include <string.h>

/* {upper}_STATE_BYTES says what the struct takes. */
typedef char {name}_state_size[(sizeof({name}_state) == {upper}_STATE_BYTES) ? 1 : -1];

{"".join(array_text(c.name, c.ctype, c.data) for c in b.constants)}
{chr(10).join(b.helpers.values())}
{chr(10).join(functions)}
void {name}_init({name}_state *s)
{{
    memset(s, 0, sizeof *s);
}}

void {name}_step({name}_state *s, const {plan.input_type} *x, {name}_output *y)
{{
{call[Section.BEFORE]}{call[Section.STEP]}{call[Section.FINISH]}{ignore}}}

void {name}_run({name}_state *s, const {plan.input_type} *x, uint32_t steps, {name}_output *y)
{{
{call[Section.BEFORE]}{loop}{back}{call[Section.FINISH]}{unused}{ignore}}}
"""
