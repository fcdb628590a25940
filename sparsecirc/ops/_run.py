"""Nodes on native kernels: prepared once from packed weights, then run on whole sequences."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sparsecirc._native import kernels
from sparsecirc._pattern import Pattern
from sparsecirc._target import Isa
from sparsecirc.cells import ALIF
from sparsecirc.errors import UsageError
from sparsecirc.formats import BLOCK_SHAPES, BLOCKS, COLUMNS, CSR, DENSE, TILED_CSR, Format, Packed
from sparsecirc.ir import Context, Linear, Node, Recurrent, State, Values

Array = NDArray[Any]
Runner = Callable[[Values, State, Context], tuple[dict[str, Array], State]]

BATCHED_FROM = 8
"""Batch from which gated layers hold their state as (units, batch), but not before it fills a vector of AVX-512: 8
samples one after another take half to two thirds of the time of half a vector, at 80 to 90 % sparsity."""

SPIKES_FROM = 16
"""Batch from which spiking layers do, where the instruction set has kernels for it: a group of lanes."""

BATCHED_BLOCKS_BELOW, BATCHED_CSR_BELOW = 0.9, 0.5
"""Densities below which batched kernels read whole blocks, or compressed rows, instead of dense panels."""

TILED_CSR_ABOVE = 256
"""Columns above which the inputs of a batch no longer stay in the first cache, and rows are cut into tiles."""

POISON = False
"""Tests set it: workspace is filled with NaN, so that nothing read before it was written goes unseen."""


def batched_from(node: Recurrent, isa: Isa) -> int:
    """The smallest batch whose samples a layer may run together."""
    return SPIKES_FROM if node.cell.spiking else max(BATCHED_FROM, kernels.vector(isa.value))


def batched_formats(
    node: Recurrent, formats: Mapping[str, str], isa: Isa, forced: Collection[str] = ()
) -> dict[str, Format] | None:
    """The layouts of a layer's matrices in batches of at least `batched_from`.

    Args:
        node: the layer.
        formats: by role, the name of the layout that serves single samples.
        isa: the instruction set.
        forced: roles whose layout was asked for; it serves batches too.

    Returns:
        By role; or ``None`` where samples run one after another: leaky integrators, layers with a forced layout that
        has no kernel for batches, and spiking layers but those of scattered weights on AVX-512.
    """
    if node.cell.spiking:
        return None if forced or not kernels.has_spikes(isa.value) else _of_spikes(node, formats)
    if node.cell.vectors:
        return None
    known = {f.name: f for f in (DENSE, CSR, TILED_CSR, *BLOCKS.values())}
    if any(formats[role] not in known for role in forced if role in formats):
        return None
    return {
        role: known[name] if role in forced else _batched(node.patterns.get(role), node.weight(role).shape[1])
        for role, name in formats.items()
    }


def _batched(pattern: Pattern | None, cols: int) -> Format:
    """What serves batches best: blocks share the loads of inputs between four rows, as dense panels do."""
    if pattern is None or pattern.density >= BATCHED_BLOCKS_BELOW:
        return DENSE
    shape = pattern.block_shape(list(BLOCK_SHAPES.values()))
    for name, candidate in BLOCK_SHAPES.items():
        if candidate == shape:
            return BLOCKS[name]
    if pattern.density >= BATCHED_CSR_BELOW:
        return DENSE
    return TILED_CSR if cols > TILED_CSR_ABOVE else CSR


def _of_spikes(node: Recurrent, formats: Mapping[str, str]) -> dict[str, Format] | None:
    """Compressed rows, which masks of spikes select from, where the recurrence, or else the input, is scattered."""
    found = {role: _batched(node.patterns.get(role), node.weight(role).shape[1]) for role in formats}
    found = {role: CSR if form is TILED_CSR else form for role, form in found.items()}
    return found if found.get("hh", found.get("ih")) is CSR else None


def _vector(node: Node, role: str) -> NDArray[np.float32] | None:
    return np.ascontiguousarray(node.weight(role), np.float32).ravel() if role in node.params else None


@dataclass(frozen=True, eq=False)
class LinearRunner:
    """y = W x + b for every vector of the input at once."""

    node: Linear
    packed: Packed
    isa: Isa
    threads: int = 1

    @cached_property
    def bias(self) -> NDArray[np.float32] | None:
        """As the kernel takes it."""
        return _vector(self.node, "bias")

    def __call__(self, inputs: Values, state: State, ctx: Context) -> tuple[dict[str, Array], State]:
        """Outputs by port, and the state."""
        x = np.ascontiguousarray(inputs[0], np.float32)
        rows, cols = self.packed.shape
        y = np.empty((*x.shape[:-1], rows), np.float32)
        n = int(np.prod(x.shape[:-1]))
        flat, rows_of = x.reshape(n, cols), y.reshape(n, rows)
        kernels.product(self.packed.matrix, self.isa.value, flat, self.bias, rows_of, threads=self.threads)
        return {"": y}, state


@dataclass(frozen=True, eq=False)
class RecurrentRunner:
    """One recurrent layer over whole sequences.

    Attributes:
        node: the layer, with the weights that are packed.
        packed: by role: ``ih``, ``hh``, ``hr``.
        ports: outputs that somebody reads; the others are not written.
        forced: roles whose format was asked for: it serves every batch.
        threads: most threads of a run; they share the samples of a batch, or the rows of one.
    """

    node: Recurrent
    packed: Mapping[str, Packed]
    isa: Isa
    ports: frozenset[str] = field(default_factory=frozenset)
    forced: frozenset[str] = field(default_factory=frozenset)
    threads: int = 1

    @cached_property
    def _single(self) -> kernels.Layer:
        return self._layer(self.packed, {})

    @cached_property
    def _batched(self) -> kernels.Layer | None:
        formats = batched_formats(self.node, {role: p.format for role, p in self.packed.items()}, self.isa, self.forced)
        if formats is None:
            return None
        packed: dict[str, Packed] = {}
        events: dict[str, Packed] = {}
        for role, single in self.packed.items():
            pattern = self.node.patterns.get(role) or Pattern.full(*single.shape)
            weight = np.ascontiguousarray(self.node.weight(role), np.float32)
            same = single.format == formats[role].name and single.order is None  # batches keep rows as given
            packed[role] = single if same else formats[role].pack(pattern, weight)
            if self.node.cell.spiking and formats[role] is CSR:
                events[f"{role}_events"] = single if single.format == COLUMNS.name else COLUMNS.pack(pattern, weight)
        return self._layer(packed, events)

    def _layer(self, packed: Mapping[str, Packed], events: Mapping[str, Packed]) -> kernels.Layer:
        node = self.node
        matrices = {role: p.matrix for role, p in packed.items()}
        return kernels.Layer(
            node.cell.name,
            node.units,
            packed["ih"].shape[1] if "ih" in packed else node.cell.n_gates * node.units,
            ih=matrices.get("ih"),
            hh=matrices.get("hh"),
            hr=matrices.get("hr"),
            bias_ih=_vector(node, "bias_ih") if "ih" in packed else None,
            bias_hh=self._per_unit("bias_hh") if node.feature_shape else _vector(node, "bias_hh"),
            hh_diag=self._per_unit("hh_diag"),
            alpha=self._per_unit("rho" if node.cell is ALIF else "alpha"),
            beta=self._per_unit("beta"),
            theta=self._per_unit("threshold"),
            strength=self._per_unit("strength"),
            reset=node.options.reset.value if node.cell.spiking else "none",
            delay=node.options.delay,
            adapted=node.options.adapted,
            reverse=node.reverse,
            **{role: p.matrix for role, p in events.items()},
        )

    @cached_property
    def drive_bias(self) -> NDArray[np.float32] | None:
        """What is added to an input that is the drive itself."""
        if "ih" in self.packed:
            return None
        return self._per_unit("bias_ih") if self.node.feature_shape else _vector(self.node, "bias_ih")

    def layer_for(self, batch: int, state: Mapping[str, Array], lengths: object = None) -> tuple[kernels.Layer, bool]:
        """The native layer for a batch, and whether it holds its state as (units, batch).

        Samples of spiking layers run together only from spikes that are 0 or 1, and to the same length.
        """
        fits = batch >= batched_from(self.node, self.isa)
        if fits and self.node.cell.spiking:
            spikes = state[self.node.cell.states[0]]
            fits = lengths is None and bool(((spikes == 0) | (spikes == 1)).all())
        batched = self._batched if fits else None
        return (self._single, False) if batched is None else (batched, True)

    def _per_unit(self, role: str) -> NDArray[np.float32] | None:
        """One entry per unit; a parameter may be flat or of any shape that broadcasts to the features."""
        node = self.node
        if role not in node.params:
            return None
        value = np.asarray(node.weight(role), np.float32)
        if value.size != node.units:
            value = np.broadcast_to(value, node.feature_shape or (node.units,))
        return np.ascontiguousarray(value).ravel()

    def check_state(self, state: State) -> None:
        """Refuse a first state that integer kernels cannot hold.

        Raises:
            UsageError: it leaves [-1, 1].
        """
        packed = self.packed.get("hh")
        if packed is not None and packed.scale is not None:
            largest = float(np.max(np.abs(state["h"]), initial=0.0))
            if largest > 1:
                raise UsageError(
                    f"state '{self.node.name}.h' reaches {largest:.3g}: integer kernels hold states within -1 and 1; "
                    "compile with dtype f32"
                )

    def __call__(self, inputs: Values, state: State, ctx: Context) -> tuple[dict[str, Array], State]:
        """Outputs by port (those in ``ports``), and the new state."""
        node = self.node
        x = np.asarray(inputs[0], np.float32)
        steps, batch = x.shape[:2]
        x = np.ascontiguousarray(x.reshape(steps, batch, int(np.prod(x.shape[2:]))))
        x = x if self.drive_bias is None else x + self.drive_bias
        shapes = node.states()
        new = {
            s: np.array(state[s], np.float32, order="C") if s in state else np.zeros((batch, *shape), np.float32)
            for s, shape in shapes.items()
        }
        out = {p: np.empty((steps, batch, *shapes[p]), np.float32) for p in shapes if p in self.ports}
        self.check_state(new)
        layer, batched = self.layer_for(batch, new, ctx.lengths)
        layer.run(
            self.isa.value,
            x,
            ctx.lengths,
            [new[s] for s in node.cell.states],
            [out.get(p) for p in node.cell.states],
            batched,
            POISON,
            self.threads,
        )
        return dict(out), dict(new)


def prepare(
    node: Node,
    packed: Mapping[str, Packed],
    isa: Isa,
    ports: frozenset[str],
    forced: frozenset[str] = frozenset(),
    threads: int = 1,
) -> Runner:
    """The fastest way we have to run ``node``: native kernels for products and recurrences, numpy for glue."""
    if isinstance(node, Linear) and packed:
        return LinearRunner(node, packed["weight"], isa, threads)
    if isinstance(node, Recurrent):
        return RecurrentRunner(node, packed, isa, ports, forced, threads)
    return node.compute
