"""The planner: new patterns for a list of weights, the same for graphs and for torch models."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sparsecirc._pattern import Pattern
from sparsecirc._prune._report import PruneReport, rows_of
from sparsecirc._prune._select import (
    Criteria,
    Scope,
    Sparsity,
    WeightInfo,
    check_names,
    default_select,
    named,
    skip_reason,
    sparsity_by_block,
)
from sparsecirc.errors import NothingMatchedError, UsageError
from sparsecirc.patterns import Explained, Joint, Wired, rank_together


@dataclass(frozen=True)
class _Target:
    """A block of rows of one weight that is given a sparsity."""

    info: WeightInfo
    rows: slice
    sparsity: float | None


def plan_weights(
    weights: Sequence[WeightInfo], sparsity: Sparsity, how: Criteria, others: Sequence[tuple[str, str]] = ()
) -> PruneReport:
    """New patterns of the selected ``weights``; ``others`` are (name, why) of what is not a weight matrix.

    Raises:
        UsageError: a sparsity outside [0, 1), an unknown name, a pattern that does not fit, NaN weights.
        NothingMatchedError: no weight is selected; lists what there is and why it was skipped.
    """
    sizes = sparsity_by_block(weights, sparsity, how.scope)
    select = how.select or (default_select if not isinstance(sparsity, Mapping) else named())
    check_names(select, weights)
    chosen: list[WeightInfo] = []
    skipped: list[tuple[str, str]] = []
    for info in weights:
        if not any(name in sizes for name, _ in info.blocks()):
            skipped.append((info.name, "no sparsity given for it"))
        elif not select(info):
            reason = skip_reason(info) if select is default_select else "not selected"
            skipped.append((info.name, reason or "not selected"))
        else:
            chosen.append(info)
    if not chosen:
        listed = "; ".join(f"{name} ({why})" for name, why in [*skipped, *others]) or "the network has no weights"
        raise NothingMatchedError(
            f"no weight matched, so nothing is pruned. Skipped: {listed}. Choose weights with select=named('...')"
        )
    scores = {info.name: _scores(info, how) for info in chosen}
    why: tuple[Explained, ...] = ()
    if isinstance(how.pattern, Joint):
        made, why = _make_jointly(how.pattern, chosen, scores, sizes)
    else:
        made = _make([t for info in chosen for t in _targets(info, sizes, how.scope)], scores, how)
    patterns = {info.name: _assemble(info, made, how) for info in chosen}
    rows = [r for info in chosen for r in rows_of(info.name, info.gates, info.pattern, patterns[info.name])]
    return PruneReport(patterns, tuple(rows), (*skipped, *others), why)


def _make_jointly(
    maker: Joint, chosen: Sequence[WeightInfo], scores: Mapping[str, NDArray[np.float64]], sizes: Mapping[str, Any]
) -> tuple[dict[tuple[str, int], Pattern], tuple[Explained, ...]]:
    """Patterns of a maker that sees all weights together, by weight name and first row."""
    values = {sizes.get(block) for info in chosen for block, _ in info.blocks()}
    if len(values) > 1:
        raise UsageError(
            f"weights judged together ({', '.join(i.name for i in chosen)}) are given different sparsities "
            f"{sorted(map(str, values))}: expected one for all gates of all of them"
        )
    wired = [
        Wired(
            name=info.name,
            scores=scores[info.name],
            gates=info.gates,
            target=info.target or info.layer,
            sources=info.sources or ((f"{info.name} inputs", info.pattern.shape[1]),),
        )
        for info in chosen
    ]
    made, why = maker.joint(wired, values.pop())
    return {(info.name, 0): pattern for info, pattern in zip(chosen, made, strict=True)}, why


def _targets(info: WeightInfo, sizes: Mapping[str, float | None], scope: Scope) -> list[_Target]:
    named_blocks = [(rows, sizes[name]) for name, rows in info.blocks() if name in sizes]
    if scope is Scope.PER_GATE:
        return [_Target(info, rows, value) for rows, value in named_blocks]
    return [_Target(info, slice(0, info.pattern.shape[0]), named_blocks[0][1])]


def _key(target: _Target) -> tuple[str, int]:
    return target.info.name, target.rows.start


def _scores(info: WeightInfo, how: Criteria) -> NDArray[np.float64]:
    """Scores of one weight, -inf at dead connections unless they may grow again."""
    weight = info.pattern.apply(info.value).astype(np.float64, copy=False)
    if not np.isfinite(weight).all():
        raise UsageError(
            f"weight '{info.name}' of shape {info.value.shape} holds NaN or infinite entries: "
            "train again or restore an earlier checkpoint"
        )
    scores = np.asarray(how.score(weight, info.name), dtype=np.float64)
    if scores.shape != weight.shape:
        raise UsageError(f"the score of '{info.name}' has shape {scores.shape}: expected {weight.shape}")
    return scores if how.regrow else np.where(info.pattern.mask(), scores, -np.inf)


def _make(
    targets: Sequence[_Target], scores: Mapping[str, NDArray[np.float64]], how: Criteria
) -> dict[tuple[str, int], Pattern]:
    """Pattern by weight name and first row."""
    made: dict[tuple[str, int], Pattern] = {}
    if how.scope in (Scope.PER_GATE, Scope.TENSOR):
        for target in targets:
            with _naming(target):
                made[_key(target)] = how.pattern(scores[target.info.name][target.rows], target.sparsity)
        return made
    groups: dict[str, list[_Target]] = {}
    for target in targets:
        groups.setdefault(target.info.layer if how.scope is Scope.LAYER else "", []).append(target)
    for members in groups.values():
        values = {t.sparsity for t in members}
        if len(values) > 1:
            raise UsageError(
                f"weights ranked together ({', '.join(t.info.name for t in members)}) are given different sparsities "
                f"{sorted(map(str, values))}: expected one, or the scope per-gate or tensor"
            )
        with _naming(members[0]):
            together = rank_together(how.pattern, [scores[t.info.name] for t in members], members[0].sparsity)
        made.update(zip(map(_key, members), together, strict=True))
    return made


@contextmanager
def _naming(target: _Target) -> Iterator[None]:
    """Errors of a maker also name the weight."""
    try:
        yield
    except UsageError as error:
        raise UsageError(f"weight '{target.info.name}' of shape {target.info.pattern.shape}: {error}") from error


def _assemble(info: WeightInfo, made: Mapping[tuple[str, int], Pattern], how: Criteria) -> Pattern:
    """Pattern of the whole weight; blocks without a new one keep theirs."""
    whole = made.get((info.name, 0))
    if whole is not None and whole.shape == info.pattern.shape:
        new = whole
    else:
        new = Pattern.stack(
            made.get((info.name, rows.start)) or info.pattern.row_block(rows.start, rows.stop)
            for _, rows in info.blocks()
        )
    if new.shape != info.pattern.shape:
        raise UsageError(f"the pattern of '{info.name}' has shape {new.shape}: expected {info.pattern.shape}")
    if how.regrow:
        return new
    kept = new.intersect(info.pattern)
    return new if kept.nnz == new.nnz else kept.with_origin(f"{new.origin} within {info.pattern.origin}")
