"""How much of each weight to prune so that the whole network meets one sparsity."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from sparsecirc._prune import Select, WeightInfo, default_select, graph_weights
from sparsecirc.errors import NothingMatchedError, UsageError
from sparsecirc.ir import Graph
from sparsecirc.patterns import check_sparsity

Share = Callable[[tuple[int, ...]], float]


def uniform(
    weights: Graph | Sequence[WeightInfo], sparsity: float, *, minimum: float = 0.0, select: Select | None = None
) -> dict[str, float]:
    """The same sparsity everywhere; arguments and errors as `erdos_renyi`."""
    return _budget(weights, sparsity, lambda _shape: 1.0, minimum, select)


def erdos_renyi(
    weights: Graph | Sequence[WeightInfo], sparsity: float, *, minimum: float = 0.0, select: Select | None = None
) -> dict[str, float]:
    r"""Sparsity by weight name, for ``prune(..., sparsity=...)``: larger weights lose more (Mocanu et al. 2018).

    density_l = min(1, eps (rows_l + cols_l) / (rows_l cols_l))

    with one eps, such that the live connections of all selected weights together are (1 - sparsity) of them. Gate
    blocks count as matrices of their own (rows of one gate). Weights that reach density 1 stay whole and the others
    make up for it (Evci et al. 2020).

    Args:
        weights: a graph, or ``Masks(model, {}).weights()``.
        sparsity: of all selected weights together, in [0, 1).
        minimum: least density of any weight, in [0, 1].
        select: which weights take part; by default those that `prune` takes.

    Raises:
        UsageError: a number out of range, or a minimum that is more than the sparsity leaves.
        NothingMatchedError: no weight is selected.
    """
    return _budget(weights, sparsity, lambda s: (s[0] + s[1]) / (s[0] * s[1]), minimum, select)


def erdos_renyi_kernel(
    weights: Graph | Sequence[WeightInfo],
    sparsity: float,
    kernels: Mapping[str, Sequence[int]],
    *,
    minimum: float = 0.0,
    select: Select | None = None,
) -> dict[str, float]:
    """`erdos_renyi` that knows the kernels of convolutions (ERK, Evci et al. 2020).

    density_l = min(1, eps (out + in + sum k) / (out in prod k)); for matrices it is `erdos_renyi`.

    Args:
        weights: as there.
        sparsity: as there.
        kernels: sizes of the kernel by weight name, e.g. ``{"conv.weight": (3, 3)}``; others are matrices.
        minimum: as there.
        select: as there.

    Raises:
        UsageError: also a kernel that does not divide the columns of its weight.
    """
    infos = _infos(weights)
    by_shape: dict[str, float] = {}
    for info in infos:
        rows, cols = info.pattern.shape
        size = 1
        for k in kernels.get(info.name, ()):
            size *= k
        if size < 1 or cols % size:
            raise UsageError(f"kernel {tuple(kernels[info.name])} does not divide the {cols} columns of '{info.name}'")
        height = rows // max(len(info.gates), 1)
        by_shape[info.name] = (height + cols // size + sum(kernels.get(info.name, ()))) / max(height * cols, 1)
    return _shared(infos, sparsity, by_shape, minimum, select)


def _budget(
    weights: Graph | Sequence[WeightInfo], sparsity: float, share: Share, minimum: float, select: Select | None
) -> dict[str, float]:
    infos = _infos(weights)
    raw = {}
    for info in infos:
        rows, cols = info.pattern.shape
        height = rows // max(len(info.gates), 1)
        raw[info.name] = share((height, cols)) if height * cols else 1.0
    return _shared(infos, sparsity, raw, minimum, select)


def _infos(weights: Graph | Sequence[WeightInfo]) -> list[WeightInfo]:
    return graph_weights(weights) if isinstance(weights, Graph) else list(weights)


def _shared(
    infos: Sequence[WeightInfo], sparsity: float, raw: Mapping[str, float], minimum: float, select: Select | None
) -> dict[str, float]:
    """Densities in proportion to ``raw`` between ``minimum`` and 1 that together leave 1 - sparsity."""
    check_sparsity(sparsity)
    if not 0 <= minimum <= 1:
        raise UsageError(f"minimum density {minimum}: expected a number in [0, 1]")
    chosen = [i for i in infos if (select or default_select)(i) and i.pattern.shape[0] * i.pattern.shape[1]]
    if not chosen:
        raise NothingMatchedError("no weight is selected, so there is nothing to share a sparsity among")
    sizes = {i.name: i.pattern.shape[0] * i.pattern.shape[1] for i in chosen}
    wanted = (1 - sparsity) * sum(sizes.values())
    if minimum > 1 - sparsity:
        raise UsageError(f"a minimum density of {minimum:g} leaves more than sparsity {sparsity:g}: lower one of them")

    def density(eps: float) -> dict[str, float]:
        return {name: min(1.0, max(minimum, eps * raw[name])) for name in sizes}

    low, high = 0.0, 1.0 / min(raw[name] for name in sizes)
    for _ in range(200):  # the count grows with eps: halve the interval until it is as narrow as a float
        middle = (low + high) / 2
        if sum(d * sizes[name] for name, d in density(middle).items()) < wanted:
            low = middle
        else:
            high = middle
    return {name: max(0.0, 1.0 - d) for name, d in density(high).items()}
