"""`compile`: choose a kernel for every weight matrix by measuring those that can run it."""

from __future__ import annotations

import fnmatch
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from sparsecirc._choice import Choice
from sparsecirc._native import resolve_isa
from sparsecirc._pattern import Pattern
from sparsecirc._program import Program
from sparsecirc._target import Isa, Target
from sparsecirc._tuning import USER_CACHE, TuningCache, measure
from sparsecirc.errors import UnsupportedError, UsageError
from sparsecirc.formats import Grid, Packed, every_format
from sparsecirc.ir import Graph, Linear, Node, Recurrent
from sparsecirc.ops import Kernel, Problem, batched_formats, kernels_for
from sparsecirc.orders import ORDERS, Ints, Order, cost

SPIKE_RATE = 0.05
"""Share of active inputs when a product of spikes is measured."""

SEQUENCE_VECTORS = 32
"""Vectors at once when the product of a whole sequence is measured."""

WORTH_AN_ORDER, NEARLY = 0.97, 1.02
"""An order is measured where it leaves at most this share of the cost, and at most this many times the least."""


def compile(
    graph: Graph,
    target: Target | None = None,
    *,
    kernel: str | Mapping[str, str] | None = None,
    exact: bool | None = None,
    cache: TuningCache | None = USER_CACHE,
    orders: Sequence[Order] = ORDERS,
) -> Program:
    """Pack every weight of ``graph`` for ``target`` and return a `Program`.

    Each kernel that supports a matrix is measured for a few milliseconds and the fastest is kept; dense is always a
    candidate. `Program.explain` lists the candidates with their times. Measurements are kept in the user's cache
    folder: the same matrix on the same machine is measured once and gets the same kernel again.

    Formats that pad rows to equal length are also tried with their rows in other orders, which pad less. An order lives
    inside the packed weight: inputs, outputs, states and `Program.graph` stay as they are.

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
        orders: orders of rows to try (`sparsecirc.orders`); none of them with a forced kernel.

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
        chosen = _choose(problem, weight, forced.get(problem.weight), cache, orders)
        packed[problem.weight] = chosen.packed
        choices[problem.weight] = chosen.choice
    choices = _with_batches(graph, choices, isa)
    program = Program(
        with_packed_weights(graph, packed, isa), target, isa, packed, choices, exact and target.dtype in ("f32", "bf16")
    )
    if target.memory_limit is not None and program.packed_bytes > target.memory_limit:
        largest = max(packed, key=lambda n: packed[n].nbytes)
        raise UnsupportedError(
            f"packed weights take {program.packed_bytes} bytes, the target allows {target.memory_limit}: prune more or "
            f"force a smaller kernel (weight '{largest}' takes {packed[largest].nbytes} as '{packed[largest].format}')"
        )
    return program


def _with_batches(graph: Graph, choices: Mapping[str, Choice], isa: Isa) -> dict[str, Choice]:
    """The choices with what serves larger batches of recurrent layers."""
    found = dict(choices)
    for node in graph.recurrent:
        mine = {role: choices[f"{node.name}.{role}"] for role in node.matrix_roles if f"{node.name}.{role}" in choices}
        forced = {role for role, choice in mine.items() if choice.forced}
        formats = batched_formats(node, {role: choice.format for role, choice in mine.items()}, isa, forced)
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
            dtype=dtype if dtype == "bf16" or _bounded(node, view.role) else "f32",
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


@dataclass(frozen=True)
class _Way:
    """A kernel with an order of rows, or with the rows as given."""

    kernel: Kernel
    order: str = ""
    rows: Ints | None = None

    @property
    def key(self) -> str:
        """Its name among measurements: a format, or one with an order and a hash of what that order is here."""
        if self.rows is None:
            return self.kernel.format.name
        return f"{self.name} {hashlib.sha256(self.rows.tobytes()).hexdigest()[:12]}"

    @property
    def name(self) -> str:
        """As `Choice.orders` has it."""
        return f"{self.kernel.format.name}, {self.order}"

    def pack(self, pattern: Pattern, weight: np.ndarray) -> Packed:
        """The weight packed this way."""
        form = self.kernel.format
        return form.pack(pattern, weight) if self.rows is None else form.pack_ordered(pattern, weight, self.rows)


def _reordered(problem: Problem, kernels: Mapping[str, Kernel], orders: Sequence[Order]) -> list[_Way]:
    """Kernels that store less, or can run at all, with their rows in another order."""
    pattern, found = problem.pattern, []
    tried: dict[Grid, list[tuple[int, str, Ints]]] = {}
    for kernel in kernels.values():
        grid, able = kernel.format.grid, kernel.supports(problem) is None
        if grid is None or pattern.shape[0] <= grid.rows or pattern.nnz in (0, pattern.shape[0] * pattern.shape[1]):
            continue
        if not able and grid.cols > 1:  # blocks may appear when rows move, nothing else changes
            continue
        if grid not in tried:
            tried[grid] = _tried(pattern, grid, orders)
        most = min([NEARLY * n for n, *_ in tried[grid]] + [WORTH_AN_ORDER * cost(pattern, grid)] * able, default=0)
        for n, name, rows in tried[grid]:
            if n <= most and kernel.supports(replace(problem, pattern=pattern.permute(rows))) is None:
                found.append(_Way(kernel, name, rows))
    return found


def _tried(pattern: Pattern, grid: Grid, orders: Sequence[Order]) -> list[tuple[int, str, Ints]]:
    """Cost, name and rows of every order, once where two of them are the same."""
    found: dict[bytes, tuple[int, str, Ints]] = {}
    for order in orders:
        rows = order.rows(pattern, grid)
        found.setdefault(rows.tobytes(), (cost(pattern, grid, rows), order.name, rows))
    return list(found.values())


def _choose(
    problem: Problem, weight: np.ndarray, forced: str | None, cache: TuningCache | None, orders: Sequence[Order]
) -> _Chosen:
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
    plain = [_Way(k) for n, k in candidates.items() if n not in refused]
    ways = {w.key: w for w in [*plain, *_reordered(problem, candidates, orders)]}
    entry = None if cache is None else cache.entry(problem, list(ways))
    times = None if cache is None or entry is None else cache.load(entry)
    cached = times is not None
    packs: dict[str, Packed] = {}
    if times is None:
        packs = {n: w.pack(problem.pattern, weight) for n, w in ways.items()}
        times = measure(packs, problem.isa, _inputs(problem), step=problem.op != "product")
        if cache is not None and entry is not None:
            cache.store(entry, times)
    best = min(ways, key=lambda n: times[n])
    reason = f"fastest of {len(times)} measured"
    if best in ("dense", "dense16") and len(times) > 1 and problem.pattern.density < 1:
        reason = "kept dense: faster than every sparse kernel"
    figures: dict[str, float | str] = {**{w.key: round(times[w.key], 4) for w in plain}, **refused}
    way = ways[best]
    packed = packs[best] if best in packs else way.pack(problem.pattern, weight)
    choice = replace(
        choice_of(problem, packed, way.kernel, reason, times[best], figures),
        cached=cached,
        order=way.order,
        orders={w.name: round(times[n], 4) for n, w in ways.items() if w.order},
    )
    if way.order and packed.format in ways:
        given = packs.get(packed.format) or way.kernel.format.pack(problem.pattern, weight)
        choice = replace(choice, padding_as_given=given.padding)
    return _Chosen(packed, choice)


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
