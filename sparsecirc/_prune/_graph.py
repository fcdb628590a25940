"""`prune` a graph, and `plan` what it would do."""

from __future__ import annotations

from sparsecirc._prune._plan import plan_weights
from sparsecirc._prune._report import PruneReport
from sparsecirc._prune._select import Criteria, Scope, Select, Sparsity, WeightInfo
from sparsecirc._prune._wiring import graph_wiring
from sparsecirc.ir import Conv, Embedding, Graph, Linear, Node
from sparsecirc.patterns import PatternMaker, unstructured
from sparsecirc.scores import Score, magnitude


def graph_weights(graph: Graph) -> list[WeightInfo]:
    """Every weight matrix of a graph."""
    views = list(graph.weights())
    linear = [v.name for v in views if isinstance(v.node, Linear)]
    wiring = graph_wiring(graph)
    kinds: dict[type[Node], str] = {Linear: "linear", Conv: "conv", Embedding: "embedding"}
    return [
        WeightInfo(
            name=v.name,
            layer=v.node.name,
            role=v.role,
            kind=kinds.get(type(v.node), "recurrent"),
            gates=v.node.gates(v.role),
            value=v.value,
            pattern=v.pattern,
            readout=v.name in linear[-1:],
            target=wiring[v.name][0] if v.name in wiring else "",
            sources=wiring[v.name][1] if v.name in wiring else (),
        )
        for v in views
    ]


def plan(
    graph: Graph,
    sparsity: Sparsity,
    *,
    score: Score = magnitude,
    pattern: PatternMaker = unstructured,
    scope: Scope = Scope.PER_GATE,
    select: Select | None = None,
    regrow: bool = False,
) -> PruneReport:
    """What :func:`prune` would do, as a table; same arguments and errors."""
    others = [
        (f"{node.name}.{role}", f"{node.kind} parameter, not a weight matrix")
        for node in graph.nodes
        if not node.matrix_roles
        for role in node.params
    ]
    return plan_weights(graph_weights(graph), sparsity, Criteria(score, pattern, scope, select, regrow), others)


def prune(
    graph: Graph,
    sparsity: Sparsity,
    *,
    score: Score = magnitude,
    pattern: PatternMaker = unstructured,
    scope: Scope = Scope.PER_GATE,
    select: Select | None = None,
    regrow: bool = False,
) -> Graph:
    """A graph whose selected weights keep the round((1 - sparsity) * size) connections with the best scores.

    Args:
        graph: the network; stays as it is.
        sparsity: share of dead connections, see `Sparsity`.
        score: what a connection is worth.
        pattern: which shapes are allowed, e.g. ``block(16, 1)``.
        scope: who competes with whom; by default each gate gets the sparsity, since gates differ in scale and a
            common ranking can silence whole gates.
        select: which weights; see :class:`Criteria`.
        regrow: let connections that are dead already compete again.

    Raises:
        UsageError: a sparsity outside [0, 1), an unknown name, a pattern that does not fit.
        NothingMatchedError: no weight is selected; lists what there is and why it was skipped.
    """
    report = plan(graph, sparsity, score=score, pattern=pattern, scope=scope, select=select, regrow=regrow)
    return graph.with_patterns(report.patterns)
