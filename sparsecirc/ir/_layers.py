"""Layers without a recurrence: input, linear, convolution, pooling, pointwise and shape glue."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np

from sparsecirc.errors import UnsupportedError, UsageError
from sparsecirc.ir._node import Array, Context, Node, Spec, State, Values, product


@dataclass(frozen=True)
class Input(Node):
    """A graph input: sequence (T, B, *shape) or static (B, *shape).

    ``spiking`` says that its entries are 0 or 1 and mostly 0, so that kernels that go by events are tried on it. Other
    numbers still give right results, and mostly slower ones.
    """

    shape: tuple[int, ...] = ()
    time: bool = True
    spiking: bool = False
    kind: ClassVar[str] = "input"

    def infer(self, inputs: Sequence[Spec]) -> dict[str, Spec]:
        return {"": Spec(tuple(self.shape), self.time, self.spiking)}

    def attrs(self) -> dict[str, Any]:
        # only where it is set: earlier versions read the files of networks without it
        return {"shape": list(self.shape), "time": self.time} | ({"spiking": True} if self.spiking else {})


@dataclass(frozen=True)
class Linear(Node):
    """y = W x + b along the last axis; roles ``weight`` (out, in), ``bias`` (out,)."""

    kind: ClassVar[str] = "linear"
    matrix_roles: ClassVar[tuple[str, ...]] = ("weight",)

    def infer(self, inputs: Sequence[Spec]) -> dict[str, Spec]:
        spec = self._one(inputs)
        out, width = self.params["weight"].shape
        if not spec.shape or spec.shape[-1] != width:
            raise UsageError(f"linear '{self.name}' has weight {(out, width)}, its input has features {spec.shape}")
        return {"": Spec((*spec.shape[:-1], out), spec.time)}

    def compute(self, inputs: Values, state: State, ctx: Context) -> tuple[dict[str, Array], State]:
        weight = self.cast("weight", ctx)
        bias = self.cast("bias", ctx)
        assert weight is not None
        y = product(inputs[0], weight)
        return {"": y if bias is None else y + bias}, state


@dataclass(frozen=True)
class Affine(Node):
    """y = scale * x + shift (batch norm in eval, learned gains); roles ``scale`` and ``shift`` broadcast."""

    kind: ClassVar[str] = "affine"

    def infer(self, inputs: Sequence[Spec]) -> dict[str, Spec]:
        return {"": replace(self._one(inputs), spikes=False)}

    def compute(self, inputs: Values, state: State, ctx: Context) -> tuple[dict[str, Array], State]:
        scale, shift = self.cast("scale", ctx), self.cast("shift", ctx)
        y = inputs[0] if scale is None else inputs[0] * scale
        return {"": y if shift is None else y + shift}, state


@dataclass(frozen=True)
class Embedding(Node):
    """Row ``x`` of ``weight`` (entries, features) for an integer input."""

    kind: ClassVar[str] = "embedding"
    matrix_roles: ClassVar[tuple[str, ...]] = ("weight",)

    def infer(self, inputs: Sequence[Spec]) -> dict[str, Spec]:
        spec = self._one(inputs)
        return {"": Spec((*spec.shape, self.params["weight"].shape[1]), spec.time)}

    def compute(self, inputs: Values, state: State, ctx: Context) -> tuple[dict[str, Array], State]:
        table = self.cast("weight", ctx)
        assert table is not None
        index = np.asarray(inputs[0])
        if index.size and (index.min() < 0 or index.max() >= len(table)):
            raise UsageError(
                f"embedding '{self.name}' has {len(table)} entries, got index {int(index.min())}..{int(index.max())}"
            )
        return {"": table[index.astype(np.int64)]}, state


@dataclass(frozen=True)
class Conv(Node):
    """Convolution (cross-correlation, as torch) over the trailing axes of each step, or over time.

    Roles ``weight`` (out, in / groups, *kernel), ``bias`` (out,). With ``over_time`` the input is a sequence of
    (in,) features and the single kernel axis runs over T; such a graph cannot be stepped.
    """

    stride: tuple[int, ...] = (1,)
    padding: tuple[int, ...] = (0,)
    dilation: tuple[int, ...] = (1,)
    groups: int = 1
    over_time: bool = False
    kind: ClassVar[str] = "conv"
    matrix_roles: ClassVar[tuple[str, ...]] = ("weight",)

    def infer(self, inputs: Sequence[Spec]) -> dict[str, Spec]:
        spec = self._one(inputs)
        out, per_group, *kernel = self.params["weight"].shape
        rank = 1 if self.over_time else len(kernel) + 1
        if len(spec.shape) != rank or spec.shape[0] != per_group * self.groups:
            raise UsageError(
                f"conv '{self.name}' has weight {self.params['weight'].shape}, its input has features {spec.shape}"
            )
        if self.over_time:
            return {"": Spec((out,), True)}
        sizes = [
            (n + 2 * p - d * (k - 1) - 1) // s + 1
            for n, k, s, p, d in zip(spec.shape[1:], kernel, self.stride, self.padding, self.dilation, strict=True)
        ]
        if min(sizes) < 1:
            raise UsageError(f"conv '{self.name}' has kernel {tuple(kernel)}, too large for an input of {spec.shape}")
        return {"": Spec((out, *sizes), spec.time)}

    def compute(self, inputs: Values, state: State, ctx: Context) -> tuple[dict[str, Array], State]:
        weight, bias = self.cast("weight", ctx), self.cast("bias", ctx)
        assert weight is not None
        x = inputs[0]
        if self.over_time:
            x = np.moveaxis(x, 0, -1)  # [B, in, T]
        kernel = weight.shape[2:]
        n = len(kernel)
        lead = x.shape[: x.ndim - n - 1]
        x = x.reshape(int(np.prod(lead)), *x.shape[len(lead) :])
        x = np.pad(x, [(0, 0), (0, 0), *((p, p) for p in self.padding)])
        extent = tuple(d * (k - 1) + 1 for k, d in zip(kernel, self.dilation, strict=True))
        axes = tuple(range(2, 2 + n))
        windows = np.lib.stride_tricks.sliding_window_view(x, extent, axis=axes)
        pick = (slice(None), slice(None), *(slice(None, None, s) for s in self.stride))
        windows = windows[pick + tuple(slice(None, None, d) for d in self.dilation)]
        m, _, *out_size = windows.shape[: 2 + n]
        # [m, groups, in/groups, *out, *kernel] x [groups, out/groups, in/groups, *kernel]
        windows = windows.reshape(m, self.groups, weight.shape[1], *out_size, *kernel)
        grouped = weight.reshape(self.groups, weight.shape[0] // self.groups, *weight.shape[1:])
        parts = [
            np.tensordot(windows[:, g], grouped[g], axes=([1, *range(2 + n, 2 + 2 * n)], [1, *range(2, 2 + n)]))
            for g in range(self.groups)
        ]
        y = np.moveaxis(np.concatenate(parts, axis=-1), -1, 1)  # [m, out, *out_size]
        if bias is not None:
            y = y + bias.reshape(-1, *(1,) * n)
        y = y.reshape(*lead, *y.shape[1:])
        return {"": np.moveaxis(y, -1, 0) if self.over_time else y}, state

    def attrs(self) -> dict[str, Any]:
        return {
            "stride": list(self.stride),
            "padding": list(self.padding),
            "dilation": list(self.dilation),
            "groups": self.groups,
            "over_time": self.over_time,
        }


@dataclass(frozen=True)
class Pool(Node):
    """Max or average pooling over the trailing spatial axes, without padding."""

    how: str = "max"
    kernel: tuple[int, ...] = (2, 2)
    stride: tuple[int, ...] = (2, 2)
    kind: ClassVar[str] = "pool"

    def infer(self, inputs: Sequence[Spec]) -> dict[str, Spec]:
        spec = self._one(inputs)
        if len(spec.shape) != len(self.kernel) + 1:
            raise UsageError(f"pool '{self.name}' has kernel {self.kernel}, its input has features {spec.shape}")
        sizes = [(n - k) // s + 1 for n, k, s in zip(spec.shape[1:], self.kernel, self.stride, strict=True)]
        return {"": Spec((spec.shape[0], *sizes), spec.time, spec.spikes and self.how == "max")}

    def compute(self, inputs: Values, state: State, ctx: Context) -> tuple[dict[str, Array], State]:
        n = len(self.kernel)
        axes = tuple(range(inputs[0].ndim - n, inputs[0].ndim))
        windows = np.lib.stride_tricks.sliding_window_view(inputs[0], self.kernel, axis=axes)
        pick: tuple[Any, ...] = (..., *(slice(None, None, s) for s in self.stride), *(slice(None),) * n)
        windows = windows[pick]
        last = tuple(range(windows.ndim - n, windows.ndim))
        return {"": windows.max(axis=last) if self.how == "max" else windows.mean(axis=last)}, state

    def attrs(self) -> dict[str, Any]:
        return {"how": self.how, "kernel": list(self.kernel), "stride": list(self.stride)}


_FUNCTIONS = ("relu", "tanh", "sigmoid", "softmax", "log_softmax", "identity")


@dataclass(frozen=True)
class Elementwise(Node):
    """relu, tanh, sigmoid, softmax or log_softmax (the last two along the last axis)."""

    fn: str = "identity"
    kind: ClassVar[str] = "elementwise"

    def infer(self, inputs: Sequence[Spec]) -> dict[str, Spec]:
        if self.fn not in _FUNCTIONS:
            raise UnsupportedError(f"node '{self.name}' applies {self.fn!r}: expected one of {', '.join(_FUNCTIONS)}")
        spec = self._one(inputs)
        return {"": replace(spec, spikes=spec.spikes and self.fn in ("identity", "relu"))}

    def compute(self, inputs: Values, state: State, ctx: Context) -> tuple[dict[str, Array], State]:
        x = inputs[0]
        if self.fn == "relu":
            y = np.maximum(x, 0)
        elif self.fn == "tanh":
            y = np.tanh(x)
        elif self.fn == "sigmoid":
            y = 0.5 * (np.tanh(0.5 * x) + 1)
        elif self.fn in ("softmax", "log_softmax"):
            shifted = x - x.max(axis=-1, keepdims=True)
            log = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
            y = np.exp(log) if self.fn == "softmax" else log
        else:
            y = x
        return {"": y}, state

    def attrs(self) -> dict[str, Any]:
        return {"fn": self.fn}


@dataclass(frozen=True)
class Add(Node):
    """Sum of its inputs, all of one shape."""

    kind: ClassVar[str] = "add"

    def infer(self, inputs: Sequence[Spec]) -> dict[str, Spec]:
        if len(inputs) < 2 or any(s != inputs[0] for s in inputs):
            raise UsageError(f"{self.kind} '{self.name}' needs two or more values of one shape, got {list(inputs)}")
        return {"": replace(inputs[0], spikes=False)}

    def compute(self, inputs: Values, state: State, ctx: Context) -> tuple[dict[str, Array], State]:
        total = inputs[0]
        for x in inputs[1:]:
            total = total + x
        return {"": total}, state


@dataclass(frozen=True)
class Multiply(Add):
    """Elementwise product of its inputs, all of one shape."""

    kind: ClassVar[str] = "multiply"

    def infer(self, inputs: Sequence[Spec]) -> dict[str, Spec]:
        return {"": replace(super().infer(inputs)[""], spikes=all(s.spikes for s in inputs))}

    def compute(self, inputs: Values, state: State, ctx: Context) -> tuple[dict[str, Array], State]:
        total = inputs[0]
        for x in inputs[1:]:
            total = total * x
        return {"": total}, state


@dataclass(frozen=True)
class Concat(Node):
    """Inputs side by side along the last axis."""

    kind: ClassVar[str] = "concat"

    def infer(self, inputs: Sequence[Spec]) -> dict[str, Spec]:
        heads = {(s.shape[:-1], s.time) for s in inputs}
        if len(heads) != 1 or any(not s.shape for s in inputs):
            raise UsageError(f"concat '{self.name}' needs values equal but for the last axis, got {list(inputs)}")
        head, time = heads.pop()
        return {"": Spec((*head, sum(s.shape[-1] for s in inputs)), time, all(s.spikes for s in inputs))}

    def compute(self, inputs: Values, state: State, ctx: Context) -> tuple[dict[str, Array], State]:
        return {"": np.concatenate(list(inputs), axis=-1)}, state


@dataclass(frozen=True)
class Flatten(Node):
    """The last ``axes`` feature axes into one."""

    axes: int = 1
    kind: ClassVar[str] = "flatten"

    def infer(self, inputs: Sequence[Spec]) -> dict[str, Spec]:
        spec = self._one(inputs)
        if len(spec.shape) != self.axes:
            raise UsageError(f"flatten '{self.name}' joins {self.axes} feature axes, its input has {spec.shape}")
        return {"": Spec((int(np.prod(spec.shape)),), spec.time, spec.spikes)}

    def compute(self, inputs: Values, state: State, ctx: Context) -> tuple[dict[str, Array], State]:
        x = inputs[0]
        lead = x.shape[: x.ndim - self.axes]
        return {"": x.reshape(*lead, int(np.prod(x.shape[x.ndim - self.axes :])))}, state

    def attrs(self) -> dict[str, Any]:
        return {"axes": self.axes}


@dataclass(frozen=True)
class Repeat(Node):
    """A static value presented at each of ``steps`` time steps (direct coding of a spiking network)."""

    steps: int = 1
    kind: ClassVar[str] = "repeat"

    def infer(self, inputs: Sequence[Spec]) -> dict[str, Spec]:
        spec = self._one(inputs)
        if spec.time:
            raise UsageError(f"repeat '{self.name}' needs a static value, got a sequence")
        return {"": Spec(spec.shape, True, spec.spikes)}

    def compute(self, inputs: Values, state: State, ctx: Context) -> tuple[dict[str, Array], State]:
        x = inputs[0]
        return {"": np.broadcast_to(x, (self.steps, *x.shape))}, state

    def attrs(self) -> dict[str, Any]:
        return {"steps": self.steps}
