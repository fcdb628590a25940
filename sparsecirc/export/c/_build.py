"""`Builder`: collects constants, state, scratch memory and statements while the nodes of a graph are written."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sparsecirc._pattern import Pattern
from sparsecirc.errors import UnsupportedError, UsageError
from sparsecirc.export.c._loops import loop_of, value_type
from sparsecirc.export.c._matrix import Packed, Table, pack, pack_rows, pack_table
from sparsecirc.export.c._options import FAST_TANH_ERROR, Activations, Arithmetic, COptions, Weights
from sparsecirc.export.c._quantise import Words, quantise
from sparsecirc.export.c._text import float_literal, identifier, snippet, to_float32

_FAST_TANH = {
    "p0": "0x1.ffff7p-1f",
    "p1": "0x1.f7e5cp-4f",
    "p2": "0x1.2a7314p-9f",
    "p3": "0x1.07bd14p-18f",
    "q1": "0x1.d34aep-2f",
    "q2": "0x1.593f24p-6f",
    "q3": "0x1.2a8808p-13f",
}
_PER_127 = float_literal(float(np.float32(1 / 127)))


WIDTH = {"float": 4, "uint32_t": 4, "int32_t": 4, "uint8_t": 1, "int8_t": 1}
"""Bytes of the types in the state struct."""


class Section(IntEnum):
    """When a statement runs: once before the steps, in every step, or on the way to a static output."""

    BEFORE = 0
    STEP = 1
    FINISH = 2


@dataclass(eq=False)
class Buffer:
    """Floats of the shared working memory that are needed from statement group ``first`` to ``last``."""

    name: str
    size: int
    section: Section
    first: int
    last: int
    sections: set[Section]
    offset: int = 0


@dataclass(frozen=True)
class Value:
    """Where the C program keeps a value of the graph.

    Attributes:
        expr: C expression of a pointer to its first entry.
        shape: feature axes.
        ctype: type of an entry; ``uint8_t`` holds spikes, ``int32_t`` the indices of an embedding.
        buffer: the working memory behind it, where it lives there.
        grain: name of the table of what an integer is worth, for fixed point.
    """

    expr: str
    shape: tuple[int, ...]
    ctype: str = "float"
    buffer: Buffer | None = None
    grain: str = ""

    @property
    def size(self) -> int:
        """Number of entries."""
        return prod(self.shape)

    @property
    def spikes(self) -> bool:
        """Whether entries are 0 or 1, held in a byte."""
        return self.ctype == "uint8_t"


@dataclass(frozen=True, eq=False)
class Constant:
    """One ``static const`` array."""

    name: str
    ctype: str
    data: NDArray[Any]


@dataclass(frozen=True)
class Member:
    """One field of the state struct; ``size`` is ``None`` for a scalar."""

    name: str
    ctype: str
    size: int | None
    note: str


@dataclass(frozen=True)
class MatrixNote:
    """What became of one weight matrix."""

    name: str
    shape: tuple[int, int]
    density: float
    layout: str
    bytes: int
    bytes_dense: int

    def __str__(self) -> str:
        return (
            f"{self.name} {self.shape[0]}x{self.shape[1]}, density {self.density:.3g}: {self.layout}; "
            f"{self.bytes:,} of {self.bytes_dense:,} bytes"
        )


def _finish(y: str, rows: int, scale: str, bias: str) -> list[str]:
    """Scale and bias after sums over spikes."""
    if not scale and not bias:
        return []
    entry = f"{y}[i]"
    statement = f"{entry} = {entry}{scale}{bias};" if scale else f"{entry} +={bias.removeprefix(' +')};"
    return [f"for (uint32_t i = 0u; i < {rows}u; ++i) {{", f"    {statement}", "}"]


@dataclass
class Builder:
    """Grows while node after node is written; ``prefix`` starts every name at file scope."""

    prefix: str
    options: COptions = field(default_factory=COptions)
    section: Section = Section.BEFORE
    position: int = 0
    lines: dict[Section, list[str]] = field(default_factory=lambda: {s: [] for s in Section})
    constants: list[Constant] = field(default_factory=list)
    members: list[Member] = field(default_factory=list)
    buffers: list[Buffer] = field(default_factory=list)
    helpers: dict[str, str] = field(default_factory=dict)
    matrices: list[MatrixNote] = field(default_factory=list)
    rounded: int = 0  # 8-bit inputs of the widest product in integers
    sums: int = 0  # 32-bit sums of the widest layer in fixed point
    grains: dict[str, NDArray[np.float32]] = field(default_factory=dict)
    _taken: set[str] = field(default_factory=lambda: {"work", "rounded", "sums"})

    # ---- names and memory -----------------------------------------------------------------------------------------
    def unique(self, text: str) -> str:
        """A C identifier like ``text`` that nothing else has."""
        word = base = identifier(text)
        number = 2
        while word in self._taken:
            word, number = f"{base}_{number}", number + 1
        self._taken.add(word)
        return word

    def scratch(self, shape: tuple[int, ...], name: str) -> Value:
        """Working memory for this node; it stays valid until the last node that uses it.

        ``name`` has two parts, so that it never hides a loop variable of the statements, which have one.
        """
        buffer = Buffer(self.unique(name), prod(shape), self.section, self.position, self.position, {self.section})
        self.buffers.append(buffer)
        return Value(buffer.name, shape, "float", buffer)

    def member(self, name: str, ctype: str, shape: tuple[int, ...] | None, note: str) -> Value:
        """A field of the state struct, cleared by the init function."""
        word = self.unique(name)
        self.members.append(Member(word, ctype, None if shape is None else prod(shape), note))
        return Value(f"s->{word}", () if shape is None else shape, ctype)

    def constant(self, name: str, data: NDArray[Any], ctype: str = "float") -> str:
        """A ``static const`` array; returns its C name."""
        word = self.unique(f"{self.prefix}_{identifier(name)}")
        self.constants.append(Constant(word, ctype, data))
        return word

    def helper(self, file: str, name: str, **values: object) -> str:
        """A function of ``runtime/``, written once; returns its C name."""
        full = f"{self.prefix}_{name}"
        self._taken.add(full)
        self.helpers.setdefault(full, snippet(file, name=full, **values))
        return full

    def use(self, value: Value) -> str:
        """The pointer expression of ``value``, which keeps its memory alive up to here."""
        if value.buffer is not None:
            value.buffer.last = max(value.buffer.last, self.position)
            value.buffer.sections.add(self.section)
        return value.expr

    def read(self, value: Value, index: str = "i") -> str:
        """Entry ``index`` of ``value`` as a float expression.

        Raises:
            UnsupportedError: the value holds indices of an embedding.
        """
        if value.grain:
            return f"(float){self.use(value)}[{index}] * {self._grain(value.grain)}[{index}]"
        if value.ctype == "int32_t":
            raise UnsupportedError(
                "the graph input is read as indices by an embedding and as numbers by another node, which C code "
                "cannot do: give the embedding an input of its own"
            )
        expr = f"{self.use(value)}[{index}]"
        return f"(float){expr}" if value.spikes else expr

    def _grain(self, name: str) -> str:
        """The table of what the integers of a layer are worth, which only those that read them as numbers need."""
        done = [c.name for c in self.constants if c.data is self.grains[name]]
        return done[0] if done else self.constant(name, self.grains[name])

    def as_floats(self, value: Value) -> Value:
        """``value`` where it is an array of float, else a copy that is."""
        if value.ctype == "float":
            return value
        copy = self.scratch(value.shape, f"{value.expr.removeprefix('s->')}.float")
        self.each(value.size, f"{copy.expr}[i] = {self.read(value)};")
        return copy

    def integers(self, name: str, values: NDArray[Any]) -> str:
        """Entry ``i`` of whole numbers: a literal where all are one, else a table of the narrowest type."""
        if values.size and np.all(values == values.flat[0]):
            return str(int(values.flat[0]))
        wide = np.abs(values).max(initial=0) > np.iinfo(np.int16).max
        ctype, dtype = ("int32_t", np.int32) if wide else ("int16_t", np.int16)
        return f"{self.constant(name, values.astype(dtype), ctype)}[i]"

    # ---- statements -----------------------------------------------------------------------------------------------
    def emit(self, *lines: str) -> None:
        """Statements of the present section."""
        self.lines[self.section].extend(lines)

    def each(self, count: int, *body: str, var: str = "i") -> None:
        """A loop over ``count`` entries."""
        self.emit(f"for (uint32_t {var} = 0u; {var} < {count}u; ++{var}) {{", *(f"    {b}" for b in body), "}")

    def clear(self, target: Value) -> None:
        """Zeros."""
        self.emit(f"memset({self.use(target)}, 0, sizeof(float) * {target.size}u);")

    def vector(self, name: str, array: NDArray[Any], shape: tuple[int, ...]) -> str:
        """Entry ``i`` of ``array`` broadcast to ``shape``: a literal where all entries are one, else the least table.

        Raises:
            UsageError: it does not broadcast to ``shape``.
        """
        single = to_float32(array, f"'{name}'")
        try:
            full = np.broadcast_to(single, shape)
        except ValueError:
            raise UsageError(f"'{name}' has shape {single.shape}, which does not broadcast to {shape}") from None
        if single.size and np.all(single == single.flat[0]):
            return float_literal(float(single.flat[0]))
        dims = (1,) * (len(shape) - single.ndim) + single.shape
        wide = [k for k, n in enumerate(dims) if n > 1]
        lo, hi = wide[0], wide[-1] + 1
        if dims[lo:hi] != tuple(shape[lo:hi]):  # broadcast axes between real ones
            return f"{self.constant(name, full)}[i]"
        inner = prod(shape[hi:])
        index = f"i / {inner}u" if inner > 1 else "i"
        index = f"{'(' + index + ')' if inner > 1 else index} % {single.size}u" if prod(shape[:lo]) > 1 else index
        return f"{self.constant(name, single)}[{index}]"

    # ---- functions ------------------------------------------------------------------------------------------------
    def tanh(self) -> str:
        """Name of the function that computes tanh."""
        if self.options.activations is Activations.EXACT:
            return "tanhf"
        return self.helper("fast_tanh.c", "fast_tanh", error=f"{FAST_TANH_ERROR:g}", **_FAST_TANH)

    def sigmoid(self) -> str:
        """Name of the function that computes 1 / (1 + exp(-x))."""
        return self.helper("sigmoid.c", "sigmoid", tanh=self.tanh())

    # ---- products -------------------------------------------------------------------------------------------------
    def linear(
        self,
        target: Value,
        x: Value,
        name: str,
        weight: NDArray[Any],
        pattern: Pattern | None,
        bias: NDArray[Any] | None = None,
        *,
        add: bool = False,
        bounded: bool = False,
        integers: bool = True,
    ) -> None:
        """``target = weight x + bias`` along the last axis, or ``target += weight x`` with ``add``.

        The bias meets the finished sum: by rows the target starts with it, which is the same addition.

        Args:
            target: where the result goes.
            x: the input; spikes are multiplied column by column.
            name: of the weight.
            weight: (rows, cols), zero where dead.
            pattern: its live connections, or ``None`` to go by its zeros.
            bias: (rows,).
            add: keep what ``target`` holds; not for spikes.
            bounded: the entries of ``x`` lie in [-1, 1].
            integers: whether the arithmetic of the options applies.
        """
        x = self.as_floats(x) if x.grain else x
        single = to_float32(weight, f"weight '{name}'")
        rows, cols = single.shape
        live = pattern if pattern is not None else Pattern.from_mask(single)
        words = quantise(single, self.options.weights)
        packed = self._pack(name, words, live, by_column=x.spikes)
        nothing = live.nnz == 0
        to, of = self.use(target), self.use(x)
        has_bias = bias is not None and bool(np.any(bias))
        table = self.constant(f"{name}.bias", to_float32(np.asarray(bias), f"bias of '{name}'")) if has_bias else ""
        lead = prod(x.shape[:-1])
        if lead > 1:
            to, of = f"{to} + p * {rows}u", f"{of} + p * {cols}u"
        body: list[str] = []
        if not add:
            start = f"memcpy({to}, {table}, sizeof(float) * {rows}u);"
            zero = f"memset({to}, 0, sizeof(float) * {rows}u);"
            body.append(start if has_bias and (nothing or not packed.by_column) else zero)
        if not nothing:
            by_8 = integers and self.options.arithmetic is Arithmetic.INT8 and not packed.by_column
            body += self._product(packed, words, name, of, to, by_8=by_8, bounded=bounded)
            if packed.by_column:
                scale = "" if words.scale is None else f" * {self.scale(name, words)}[i]"
                body += _finish(f"({to})" if lead > 1 else to, rows, scale, f" + {table}[i]" if has_bias else "")
        if lead > 1:
            self.each(lead, *body, var="p")
        else:
            self.emit(*body)

    def words(
        self,
        target: str,
        x: Value,
        name: str,
        values: NDArray[Any],
        pattern: Pattern | None,
    ) -> None:
        """Add a product in words to ``target``: int32 for spikes, else float."""
        words = Words(values.astype(self.options.weights.dtype), None)
        live = pattern if pattern is not None else Pattern.from_mask(values)
        packed = self._pack(name, words, live, by_column=x.spikes)
        if live.nnz:
            by_8 = self.options.arithmetic is Arithmetic.INT8 and not x.spikes
            self.emit(*self._product(packed, words, name, self.use(x), target, by_8=by_8, bounded=False))

    def _pack(self, name: str, words: Words, live: Pattern, *, by_column: bool) -> Packed:
        packed = pack(words.values, live, by_column=by_column, index=self.options.index)
        rows, cols = words.values.shape
        size = 0 if live.nnz == 0 else packed.bytes + (0 if words.scale is None else words.scale.nbytes)
        layout = f"{self.number_note}{packed.layout}" if live.nnz else "nothing stored"
        self.matrices.append(MatrixNote(name, (rows, cols), live.density, layout, size, 4 * rows * cols))
        return packed

    @property
    def number_note(self) -> str:
        """How a note about a matrix starts."""
        weights = self.options.weights
        return "" if weights is Weights.F32 else f"{weights.value}, "

    def scale(self, name: str, words: Words) -> str:
        """Name of the table of what a word of each row is worth."""
        assert words.scale is not None
        return self.constant(f"{name}.scale", words.scale)

    def rows(self, name: str, weight: NDArray[Any], pattern: Pattern | None) -> tuple[Packed, Words]:
        """A matrix whose live entries stand row by row, for a loop of the caller's; goes into the notes."""
        single = to_float32(weight, f"weight '{name}'")
        words = quantise(single.reshape(len(single), -1), self.options.weights)
        live = pattern if pattern is not None else Pattern.from_mask(words.values)
        packed = pack_rows(words.values, live, self.options.index)
        size = packed.bytes + (0 if words.scale is None else words.scale.nbytes)
        layout = f"{self.number_note}{packed.layout}"
        self.matrices.append(MatrixNote(name, packed.shape, live.density, layout, size, 4 * single.size))
        return packed, words

    def table(self, name: str, weight: NDArray[Any], pattern: Pattern | None) -> tuple[Table | None, Words]:
        """A table to look rows up in: its live entries, or ``None`` where all of it is smaller; goes into the notes."""
        words = quantise(to_float32(weight, f"weight '{name}'"), self.options.weights)
        live = pattern if pattern is not None else Pattern.from_mask(words.values)
        packed = pack_table(words.values, live, self.options.index)
        size = words.values.nbytes if packed is None else packed.bytes
        if live.nnz:
            size += 0 if words.scale is None else words.scale.nbytes
            kind = "dense" if packed is None else f"sparse rows, u{8 * packed.index.itemsize} columns"
            layout = f"{self.number_note}{kind}"
        else:
            layout, size = "nothing stored", 0
        rows, cols = words.values.shape
        self.matrices.append(MatrixNote(name, (rows, cols), live.density, layout, size, 4 * rows * cols))
        return packed, words

    def _product(
        self, packed: Packed, words: Words, name: str, x: str, y: str, *, by_8: bool, bounded: bool
    ) -> list[str]:
        """Statements that add a product; by 8 bits the input is rounded first."""
        rows, cols = packed.shape
        scaled = words.scale is not None
        function = self._loop(packed, by_8, scaled)
        arguments = [self.constant(name, packed.values, value_type(self.options.weights))]
        if words.scale is not None and not packed.by_column:
            arguments.append(self.scale(name, words))
        first: list[str] = []
        if by_8:
            self.rounded = max(self.rounded, cols)
            if bounded:
                first = [f"{self.helper('round_state.c', 'round_state')}({x}, {cols}u, s->rounded);"]
                arguments.append(_PER_127)
            else:
                helper = self.helper("round_to_8_bits.c", "round_to_8_bits", tiny="0x1p-100f", per_127=_PER_127)
                first = [f"const float unit = {helper}({x}, {cols}u, s->rounded);"]
                arguments.append("unit")
            x = "s->rounded"
        if packed.index is not None:
            arguments.append(self.constant(f"{name}.index", packed.index, f"{packed.index.dtype.name}_t"))
        if packed.count is not None:
            arguments += [self.constant(f"{name}.count", packed.count, f"{packed.count.dtype.name}_t")]
            arguments.append(f"{len(packed.count)}u")
        elif packed.index is not None:
            arguments.append(f"{packed.groups}u")
        else:
            arguments += [f"{cols}u", f"{rows}u"] if packed.by_column else [f"{rows}u", f"{cols}u"]
        call = f"{function}({', '.join(arguments)}, {x}, {y});"
        return ["{", *(f"    {line}" for line in (*first, call)), "}"] if first else [call]

    def _loop(self, packed: Packed, by_8: bool, scaled: bool) -> str:
        """Name of the function that multiplies ``packed``; words without a scale are counted for spikes."""
        weights = self.options.weights
        counting = packed.by_column and not scaled and weights is not Weights.F32
        loop = loop_of(packed, weights, integers=by_8, scaled=scaled, counting=counting)
        values = loop.values
        if loop.needs_dot8:
            upper = self.prefix.upper()
            self.helper("simd.c", "simd", NAME=upper)
            values = {**values, "dot8": self.helper("dot8.c", "dot8", NAME=upper)}
        return self.helper(loop.file, loop.suffix, **values)

    # ---- totals ---------------------------------------------------------------------------------------------------
    @property
    def constant_bytes(self) -> int:
        """Bytes of all constants."""
        return sum(c.data.nbytes for c in self.constants)

    @property
    def dense_bytes(self) -> int:
        """The same with every matrix stored dense."""
        return self.constant_bytes + sum(m.bytes_dense - m.bytes for m in self.matrices)

    @property
    def carried_bytes(self) -> int:
        """Bytes that live from step to step."""
        return sum((m.size or 1) * WIDTH[m.ctype] for m in self.members)

    def place_buffers(self, step_end: int) -> int:
        """Give every buffer an offset such that no two that live at once overlap; returns the floats needed.

        A value computed before the steps and read in them has to outlive every step.
        """
        done: list[tuple[Buffer, int]] = []
        for buffer in sorted(self.buffers, key=lambda b: b.first):
            through = buffer.section is Section.BEFORE and len(buffer.sections) > 1
            last = max(buffer.last, step_end) if through else buffer.last
            # Sorted by first use: whatever is placed already overlaps in time unless it ended before.
            others = sorted((b for b, end in done if end >= buffer.first), key=lambda b: b.offset)
            for other in others:
                if buffer.offset + buffer.size <= other.offset:
                    break
                buffer.offset = max(buffer.offset, other.offset + other.size)
            done.append((buffer, last))
        return max((b.offset + b.size for b in self.buffers), default=0)
