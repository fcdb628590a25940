"""`compile`: choose a kernel for every weight matrix by measuring those that can run it."""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from sparsecirc._choice import Choice
from sparsecirc._native import resolve_isa
from sparsecirc._program import Program
from sparsecirc._target import Isa, Target
from sparsecirc._tuning import USER_CACHE, TuningCache, measure
from sparsecirc.errors import UnsupportedError, UsageError
from sparsecirc.formats import Packed, every_format
from sparsecirc.ir import Graph, Linear, Node, Recurrent
from sparsecirc.ops import Kernel, Problem, batched_formats, kernels_for

SPIKE_RATE = 0.05
"""Share of active inputs when a product of spikes is measured."""

SEQUENCE_VECTORS = 32
"""Vectors at once when the product of a whole sequence is measured."""


def compile(
    graph: Graph,
    target: Target | None = None,
    *,
    kernel: str | Mapping[str, str] | None = None,
    exact: bool | None = None,
    cache: TuningCache | None = USER_CACHE,
) -> Program:
    """Pack every weight of ``graph`` for ``target`` and return a `Program`.

    Each kernel that supports a matrix is measured for a few milliseconds and the fastest is kept; dense is always a
    candidate. `Program.explain` lists the candidates with their times. Measurements are kept in the user's cache
    folder: the same matrix on the same machine is measured once and gets the same kernel again.

    Args:
        graph: the network, pruned or not.
        target: instruction set and limits; the best of this machine by default.
        kernel: a format to force: one name for every pruned matrix, or a mapping from weight-name patterns
            (``"rnn.*.hh"``) to names. It is used or refused, never replaced: a forced kernel without a version for
            batches runs their samples one after another.
        exact: keep every weight as it is. ``False`` also admits kernels that round weights by up to 2^-17; the default
            is ``True`` where anything spikes, else ``False``. The packed weights are the model from then on
            (`Program.graph`).
        cache: where measurements are kept and looked for; ``None`` measures now and keeps nothing.

    Raises:
        UnsupportedError: the target or a forced kernel cannot run here (lists every kernel with its reason), or the
            packed weights exceed the target's memory limit.
        UsageError: an unknown kernel name, or a name pattern that matches no weight.
    """
    target = target or Target.cpu()
    isa = resolve_isa(target)
    exact = graph.spiking if exact is None else exact
    forced = _forced(graph, kernel, isa, target.dtype)
    packed: dict[str, Packed] = {}
    choices: dict[str, Choice] = {}
    for problem, weight in problems(graph, isa, exact, target.dtype):
        chosen = _choose(problem, weight, forced.get(problem.weight), cache)
        packed[problem.weight] = chosen.packed
        choices[problem.weight] = chosen.choice
    choices = _with_batches(graph, choices)
    program = Program(
        with_packed_weights(graph, packed, isa), target, isa, packed, choices, exact and target.dtype == "f32"
    )
    if target.memory_limit is not None and program.packed_bytes > target.memory_limit:
        largest = max(packed, key=lambda n: packed[n].nbytes)
        raise UnsupportedError(
            f"packed weights take {program.packed_bytes} bytes, the target allows {target.memory_limit}: prune more or "
            f"force a smaller kernel (weight '{largest}' takes {packed[largest].nbytes} as '{packed[largest].format}')"
        )
    return program


def _with_batches(graph: Graph, choices: Mapping[str, Choice]) -> dict[str, Choice]:
    """The choices with what serves larger batches of recurrent layers."""
    found = dict(choices)
    for node in graph.recurrent:
        mine = {role: choices[f"{node.name}.{role}"] for role in node.matrix_roles if f"{node.name}.{role}" in choices}
        forced = {role for role, choice in mine.items() if choice.forced}
        formats = batched_formats(node, {role: choice.format for role, choice in mine.items()}, forced)
        for role, form in (formats or {}).items():
            found[f"{node.name}.{role}"] = replace(mine[role], batched=form.name)
    return found


def problems(graph: Graph, isa: Isa, exact: bool, dtype: str = "f32") -> list[tuple[Problem, np.ndarray]]:
    """Every matrix that native kernels multiply by, with its dense float32 weight."""
    found = []
    for view in graph.weights():
        node = view.node
        if not _native(node, view.role):
            continue
        recurrence = isinstance(node, Recurrent) and view.role != "ih"
        source = graph.specs[node.name if recurrence and view.role == "hh" else node.inputs[0]]
        many = not recurrence and graph.specs[node.inputs[0]].time
        problem = Problem(
            weight=view.name,
            op=node.cell.name if isinstance(node, Recurrent) and view.role == "hh" else "product",
            isa=isa,
            pattern=view.pattern,
            vectors=SEQUENCE_VECTORS if many else 1,
            spikes=source.spikes and view.role != "hr",
            exact=exact,
            dtype=dtype if _bounded(node, view.role) else "f32",
        )
        found.append((problem, np.ascontiguousarray(view.value, np.float32)))
    return found


def _native(node: Node, role: str) -> bool:
    return isinstance(node, Linear) or (isinstance(node, Recurrent) and role in ("ih", "hh", "hr"))


def _bounded(node: Node, role: str) -> bool:
    """Whether the state that a recurrent weight multiplies lies in [-1, 1], so that integers can hold it."""
    if not isinstance(node, Recurrent) or role != "hh":
        return False
    return node.cell.name in ("rnn_tanh", "gru") or (node.cell.name == "lstm" and "hr" not in node.params)


def with_packed_weights(graph: Graph, packed: Mapping[str, Packed], isa: Isa) -> Graph:
    """``graph`` with the weights that the packed loops really multiply by."""
    formats = every_format(isa)
    nodes = {n.name: n for n in graph.nodes}
    for name, pack in packed.items():
        form = formats[pack.format]
        if not form.exact:
            node, role = name.rsplit(".", 1)
            nodes[node] = nodes[node].with_params(**{role: form.unpack(pack)})
    return graph.replace_nodes(*nodes.values())


def _forced(graph: Graph, kernel: str | Mapping[str, str] | None, isa: Isa, dtype: str) -> dict[str, str]:
    if kernel is None:
        return {}
    known = {**kernels_for(isa), **kernels_for(isa, dtype)}
    names = [v.name for v in graph.weights() if _native(v.node, v.role)]
    pruned = {v.name for v in graph.weights() if v.pattern.nnz < v.value.size}
    asked = {"*": kernel} if isinstance(kernel, str) else kernel
    forced: dict[str, str] = {}
    for glob, name in asked.items():
        if name not in known:
            raise UsageError(f"kernel '{name}' is unknown: expected one of {', '.join(known)}")
        hits = [n for n in fnmatch.filter(names, glob) if not isinstance(kernel, str) or n in pruned]
        if not hits:
            what = "no pruned weight" if isinstance(kernel, str) else f"no weight matches '{glob}'"
            raise UsageError(f"kernel '{name}' was asked for, but {what}: the graph has {', '.join(names) or 'none'}")
        forced.update(dict.fromkeys(hits, name))
    return forced


@dataclass(frozen=True)
class _Chosen:
    packed: Packed
    choice: Choice


def _choose(problem: Problem, weight: np.ndarray, forced: str | None, cache: TuningCache | None) -> _Chosen:
    candidates = kernels_for(problem.isa, problem.dtype)
    refused = {name: why for name, k in candidates.items() if (why := k.supports(problem)) is not None}
    if forced is not None:
        if forced not in candidates:
            raise UnsupportedError(
                f"kernel '{forced}' cannot run weight '{problem.weight}': it has no {problem.dtype} version; "
                f"expected one of {', '.join(candidates)}"
            )
        if forced in refused:
            reasons = "; ".join(f"{n}: {refused.get(n, 'can run it')}" for n in candidates)
            raise UnsupportedError(
                f"kernel '{forced}' cannot run weight '{problem.weight}' of shape {problem.pattern.shape}: {reasons}"
            )
        packed = candidates[forced].format.pack(problem.pattern, weight)
        choice = choice_of(problem, packed, candidates[forced], "asked for", None, refused)
        return _Chosen(packed, replace(choice, forced=True))
    able = {n: k for n, k in candidates.items() if n not in refused}
    entry = None if cache is None else cache.entry(problem, list(able))
    times = None if cache is None or entry is None else cache.load(entry)
    cached = times is not None
    packs: dict[str, Packed] = {}
    if times is None:
        packs = {n: k.format.pack(problem.pattern, weight) for n, k in able.items()}
        times = measure(packs, problem.isa, _inputs(problem), step=problem.op != "product")
        if cache is not None and entry is not None:
            cache.store(entry, times)
    best = min(able, key=lambda n: times[n])
    reason = f"fastest of {len(times)} measured"
    if best in ("dense", "dense16") and len(times) > 1 and problem.pattern.density < 1:
        reason = "kept dense: faster than every sparse kernel"
    figures: dict[str, float | str] = {**{n: round(times[n], 4) for n in able}, **refused}
    packed = packs[best] if best in packs else able[best].format.pack(problem.pattern, weight)
    choice = choice_of(problem, packed, able[best], reason, times[best], figures)
    return _Chosen(packed, replace(choice, cached=cached))


def _inputs(problem: Problem) -> np.ndarray:
    """Vectors to measure ``problem`` with, float32 of shape (vectors, cols); always the same."""
    rng = np.random.default_rng(0)
    shape = (problem.vectors, problem.pattern.shape[1])
    if problem.spikes:
        return (rng.random(shape) < SPIKE_RATE).astype(np.float32)
    return rng.standard_normal(shape, dtype=np.float32)


def choice_of(
    problem: Problem,
    packed: Packed,
    kernel: Kernel,
    reason: str,
    us: float | None,
    figures: Mapping[str, float | str],
) -> Choice:
    """The record of one decision."""
    rows, cols = problem.pattern.shape
    return Choice(
        weight=problem.weight,
        format=packed.format,
        kernel=kernel.name(problem),
        reason=reason,
        us=None if us is None else round(us, 4),
        candidates=dict(figures),
        nnz=problem.pattern.nnz,
        density=problem.pattern.density,
        nbytes=packed.nbytes,
        nbytes_dense=4 * rows * cols,
        padding=packed.padding,
    )
