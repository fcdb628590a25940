"""Every node class by the name that files use."""

from __future__ import annotations

from sparsecirc.ir._layers import (
    Add,
    Affine,
    Concat,
    Conv,
    Elementwise,
    Embedding,
    Flatten,
    Input,
    Linear,
    Multiply,
    Pool,
    Repeat,
)
from sparsecirc.ir._node import Node
from sparsecirc.ir._recurrent import Recurrent, TimeReduce
from sparsecirc.ir._reset_first import ResetFirstGru

KINDS: dict[str, type[Node]] = {
    cls.kind: cls
    for cls in (
        Add,
        Affine,
        Concat,
        Conv,
        Elementwise,
        Embedding,
        Flatten,
        Input,
        Linear,
        Multiply,
        Pool,
        Recurrent,
        Repeat,
        ResetFirstGru,
        TimeReduce,
    )
}
