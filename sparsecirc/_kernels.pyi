"""The native boundary on one page; the implementation is kernels/binding/module.cpp.

Arrays are C-contiguous. ``isa`` is one of ``isas()``. Errors are ValueError with the reason.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

_F32 = NDArray[np.float32]

def isas() -> list[str]: ...
def formats() -> list[str]: ...
def vector(isa: str) -> int: ...
def has_batched(isa: str, format: str) -> bool: ...
def has_spikes(isa: str) -> bool: ...

class Matrix:
    def __init__(
        self,
        format: str,
        rows: int,
        cols: int,
        values: _F32,
        ptr: NDArray[np.int32] | None = None,
        index32: NDArray[np.int32] | None = None,
        index8: NDArray[np.uint8] | None = None,
        tile_rows: int = 0,
        tile_cols: int = 0,
        words: NDArray[np.int16] | None = None,
        words8: NDArray[np.int8] | None = None,
        scale: _F32 | None = None,
        correction: NDArray[np.int32] | None = None,
        base: NDArray[np.uint16] | None = None,
        tile_step: int = 0,
        index16: NDArray[np.uint16] | None = None,
        order: NDArray[np.int32] | None = None,
        tile_depth: int = 0,
    ) -> None: ...
    @property
    def format(self) -> str: ...
    @property
    def rows(self) -> int: ...
    @property
    def cols(self) -> int: ...
    def unsupported(self, isa: str) -> str | None: ...

class Layer:
    def __init__(
        self,
        cell: str,
        units: int,
        in_features: int,
        ih: Matrix | None = None,
        hh: Matrix | None = None,
        hr: Matrix | None = None,
        bias_ih: _F32 | None = None,
        bias_hh: _F32 | None = None,
        hh_diag: _F32 | None = None,
        alpha: _F32 | None = None,
        beta: _F32 | None = None,
        theta: _F32 | None = None,
        strength: _F32 | None = None,
        reset: str = "none",
        delay: bool = True,
        adapted: bool = False,
        reverse: bool = False,
        ih_events: Matrix | None = None,
        hh_events: Matrix | None = None,
    ) -> None: ...
    def run(
        self,
        isa: str,
        x: _F32,
        lengths: NDArray[np.int64] | None,
        state: Sequence[_F32],
        out: Sequence[_F32 | None],
        batched: bool = False,
        poison: bool = False,
        threads: int = 1,
    ) -> None: ...

def product(
    matrix: Matrix,
    isa: str,
    x: _F32,
    bias: _F32 | None,
    y: _F32,
    repeats: int = 1,
    threads: int = 1,
    step: bool = False,
) -> None: ...
def product_batched(matrix: Matrix, isa: str, x: _F32, bias: _F32 | None, y: _F32) -> None: ...
def order_rows(count: NDArray[np.uint8], height: int, turns: int, order: NDArray[np.int32]) -> int: ...
def count_windows(
    cols: int,
    ptr: NDArray[np.int32],
    index: NDArray[np.int32],
    order: NDArray[np.int32] | None,
    height: int,
    width: int,
    step: int,
    depth: int,
) -> int: ...
def exchange(
    cols: int,
    ptr: NDArray[np.int32],
    index: NDArray[np.int32],
    leaves: NDArray[np.uint8],
    grow: NDArray[np.int64],
    new_ptr: NDArray[np.int32],
    new_index: NDArray[np.int32],
    source: NDArray[np.int32],
) -> int: ...
def read_words(x: NDArray[np.uint32], repeats: int) -> int: ...
def pointwise(name: str, isa: str, x: NDArray[Any], y: NDArray[Any]) -> None: ...

_Csr = tuple[NDArray[np.int32], NDArray[np.int32], _F32]

def expect_much(array: _F32) -> None: ...
def train_forward(
    isa: str,
    cell: str,
    units_and_batch: Sequence[int],
    reverse: bool,
    x: _F32,
    offsets: NDArray[np.int64] | None,
    weights: Sequence[_Csr | None],
    biases: Sequence[_F32 | None],
    state: Sequence[_F32 | None],
    out: _F32 | None,
    last: Sequence[_F32 | None],
    saved: Sequence[_F32 | None],
    poison: bool = False,
) -> None: ...
def train_backward(
    isa: str,
    cell: str,
    units_and_batch: Sequence[int],
    reverse: bool,
    x: _F32,
    offsets: NDArray[np.int64] | None,
    weights: Sequence[_Csr | None],
    saved: Sequence[_F32 | None],
    g_out: _F32 | None,
    g_last: Sequence[_F32 | None],
    grads: Sequence[_F32 | None],
    poison: bool = False,
) -> None: ...
def spiking_forward(
    isa: str,
    reset: str,
    delay: bool,
    batch: int,
    x: _F32,
    hh: _Csr | None,
    vectors: Sequence[_F32 | None],
    initial: Sequence[_F32 | None],
    out: Sequence[_F32 | None],
    poison: bool = False,
) -> None: ...
def spiking_backward(
    isa: str,
    reset: str,
    delay: bool,
    surrogate: str,
    scale: float,
    batch: int,
    x: _F32,
    hh: _Csr | None,
    vectors: Sequence[_F32 | None],
    initial: Sequence[_F32 | None],
    out: Sequence[_F32 | None],
    g_out: Sequence[_F32 | None],
    grads: Sequence[_F32 | None],
    poison: bool = False,
) -> None: ...
def train_linear(isa: str, weight: _Csr, x: _F32, bias: _F32 | None, y: _F32, poison: bool = False) -> None: ...
def train_linear_backward(
    isa: str,
    weight: _Csr,
    x: _F32,
    g: _F32,
    dx: _F32 | None,
    d_values: _F32 | None,
    d_bias: _F32 | None,
    poison: bool = False,
) -> None: ...
