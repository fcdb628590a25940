"""Sparse matrices as the kernels read them, and what is launched with them.

What follows from a pattern alone (the transpose, whole blocks) is computed once and kept as long as its tensors live.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

from sparsecirc.errors import UsageError
from sparsecirc.ops.triton import _kernels as kernels

BLOCK = 16
"""Height and width of a block: the smallest that the matrix units of a GPU take."""


@dataclass(frozen=True, eq=False)
class Layout:
    """Where the live entries of a (rows, cols) matrix are, or its live blocks: CSR, int32."""

    pointers: Tensor
    columns: Tensor
    shape: tuple[int, int]

    @cached_property
    def rows(self) -> Tensor:
        """Row of each live entry, int32 (nnz,)."""
        counts = self.pointers.diff().long()
        numbers = torch.arange(self.shape[0], device=counts.device, dtype=torch.int32)
        return torch.repeat_interleave(numbers, counts, output_size=len(self.columns))

    @cached_property
    def transposed(self) -> tuple[Layout, Tensor]:
        """The transpose, and which entry of this one each of its entries is."""
        rows, cols = self.shape
        order = torch.argsort(self.columns, stable=True)
        made = Layout(_pointers(self.columns.long(), cols), self.rows[order].contiguous(), (cols, rows))
        return made, order

    @cached_property
    def blocks(self) -> tuple[Layout, Tensor] | None:
        """The same in blocks, and where the entries of each block are; None unless all are whole."""
        rows, cols = self.shape
        size = BLOCK * BLOCK
        if not len(self.columns) or rows % BLOCK or cols % BLOCK or len(self.columns) % size:
            return None
        row, column = self.rows.long(), self.columns.long()
        block = row // BLOCK * (cols // BLOCK) + column // BLOCK
        order = torch.argsort((block * BLOCK + row % BLOCK) * BLOCK + column % BLOCK)
        ids = block[order].reshape(-1, size)
        if not bool((ids == ids[:, :1]).all()) or len(torch.unique(ids[:, 0])) != len(ids):
            return None
        first = ids[:, 0]
        across, down = cols // BLOCK, rows // BLOCK
        return Layout(_pointers(first // across, down), (first % across).to(torch.int32), (down, across)), order


def _pointers(rows: Tensor, count: int) -> Tensor:
    """Row pointers of entries whose ``rows`` ascend, or that are only counted."""
    pointers = torch.zeros(count + 1, dtype=torch.int32, device=rows.device)
    pointers[1:] = torch.bincount(rows, minlength=count).cumsum(0)
    return pointers


_known: WeakTensorKeyDictionary = WeakTensorKeyDictionary()


def layout_of(pointers: Tensor, columns: Tensor, shape: tuple[int, int]) -> Layout:
    """The layout of these tensors; the one from the last call where they have not changed since."""
    version = (pointers._version, columns._version, shape)
    found: tuple[object, Layout] | None = _known.get(columns)  # type: ignore[no-untyped-call]
    if found is None or found[0] != version or found[1].pointers is not pointers:
        found = (version, Layout(pointers, columns.detach(), shape))  # a view: the key itself would live for ever
        _known[columns] = found
    return found[1]


@dataclass(frozen=True, eq=False)
class Matrix:
    """Values in the order of a layout: (nnz,), or (blocks, `BLOCK`, `BLOCK`) where it is one of blocks."""

    layout: Layout
    values: Tensor

    @property
    def transposed(self) -> Matrix:
        """The transpose."""
        layout, order = self.layout.transposed
        values = self.values[order]
        return Matrix(layout, values if values.ndim == 1 else values.transpose(1, 2).contiguous())

    @property
    def arrays(self) -> tuple[Tensor, Tensor, Tensor]:
        """Pointers, columns, values."""
        return self.layout.pointers, self.layout.columns, self.values

    def times(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        """Bias + W x for x (cols, batch)."""
        rows, batch = self.layout.shape[0], x.shape[1]
        blocks = {"HEIGHT": BLOCK, "WIDTH": BLOCK} if self.values.ndim == 3 else {}
        kernel = kernels.block_product if blocks else kernels.product
        y = x.new_empty((rows * blocks.get("HEIGHT", 1), batch))
        if y.numel():
            kernel[grid(rows, batch)](
                *self.arrays, y if bias is None else bias, x, y, batch, HAS_BIAS=bias is not None, LANES=kernels.LANES,
                **blocks,
            )  # fmt: skip
        return y

    def sampled(self, a: Tensor, h: Tensor) -> Tensor:
        """Gradient of the values: sums over steps and samples, of a (steps, rows, batch) by h (steps, cols, batch)."""
        steps, _, batch = a.shape
        gradient = torch.zeros_like(self.values)
        if not gradient.numel() or not batch:
            return gradient
        rows, columns = self.layout.rows, self.layout.columns
        if self.values.ndim == 1:
            kernels.sampled[(len(gradient),)](
                rows, columns, a, h, gradient, steps, batch, a.stride(0), h.stride(0), LANES=kernels.LANES
            )
        else:
            kernels.block_sampled[(len(gradient),)](
                rows, columns, a, h, gradient, steps, batch, a.stride(0), h.stride(0), HEIGHT=BLOCK, WIDTH=BLOCK,
                LANES=kernels.LANES,
            )  # fmt: skip
        return gradient


def grid(rows: int, batch: int) -> tuple[int, int]:
    """One program per row and `kernels.LANES` samples."""
    return rows, -(-batch // kernels.LANES)


@contextlib.contextmanager
def on_device(tensor: Tensor) -> Iterator[None]:
    """Launches go to the device of ``tensor``; tensors on the CPU are for Triton's interpreter."""
    with torch.cuda.device(tensor.device) if tensor.is_cuda else contextlib.nullcontext():
        yield


def check(*tensors: Tensor | None) -> None:
    """Refuse what the kernels cannot take.

    Raises:
        UsageError: a tensor is not float32, or they are on several devices.
    """
    here = [t for t in tensors if t is not None]
    kinds = {t.dtype for t in here} - {torch.float32}
    if kinds:
        raise UsageError(f"tensors of {', '.join(sorted(map(str, kinds)))} on a GPU: expected float32")
    devices = {str(t.device) for t in here}
    if len(devices) > 1:
        raise UsageError(f"tensors on {', '.join(sorted(devices))} in one sparse layer: expected one device")


def features_first(x: Tensor) -> Tensor:
    """(..., features) -> (features, all the rest)."""
    return x.detach().reshape(-1, x.shape[-1]).t().contiguous()


def features_last(x: Tensor, *shape: int) -> Tensor:
    """(features, rest) -> (*shape, features)."""
    return x.t().reshape(*shape, x.shape[0])
