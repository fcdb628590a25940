"""The GRU whose reset acts before the recurrent product, as the first paper and Keras' ``reset_after=False`` do it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from sparsecirc.cells._gated import sigmoid
from sparsecirc.errors import UsageError
from sparsecirc.ir._node import Array, Context, Node, Spec, State, Values, product


@dataclass(frozen=True)
class ResetFirstGru(Node):
    """r, z = s(W x + b + R h + c); n = tanh(W_n x + b_n + R_n (r h) + c_n); h' = (1 - z) n + z h.

    Where ``b = bias_ih``, ``c = bias_hh``, ``W = ih`` (3 units, in) and ``R = hh`` (3 units, units) stack the gates r,
    z, n (Cho et al. 2014, arXiv:1406.1078). torch's GRU, which is a `Recurrent`, multiplies ``R_n h + c_n`` by r
    instead, which lets one product serve all gates; this one needs two a step, and runs in numpy.
    """

    units: int = 0
    reverse: bool = False
    kind: ClassVar[str] = "gru_reset_first"
    matrix_roles: ClassVar[tuple[str, ...]] = ("ih", "hh")

    def ports(self) -> tuple[str, ...]:
        return ("h",)

    def states(self) -> dict[str, tuple[int, ...]]:
        return {"h": (self.units,)}

    def gates(self, role: str) -> tuple[str, ...]:
        return ("r", "z", "n") if role in ("ih", "hh") else ()

    def infer(self, inputs: Sequence[Spec]) -> dict[str, Spec]:
        spec = self._one(inputs)
        if not spec.time:
            raise UsageError(f"layer '{self.name}' needs a sequence, got a static value of shape {spec.shape}")
        for role, shape in (("ih", (3 * self.units, *spec.shape)), ("hh", (3 * self.units, self.units))):
            if len(spec.shape) != 1 or self.params[role].shape != shape:
                raise UsageError(f"weight '{self.name}.{role}' has shape {self.params[role].shape}: expected {shape}")
        return {"h": Spec((self.units,), True)}

    def compute(self, inputs: Values, state: State, ctx: Context) -> tuple[dict[str, Array], State]:
        x, n = inputs[0], self.units
        steps, batch = x.shape[:2]
        ih, hh = self.cast("ih", ctx), self.cast("hh", ctx)
        assert ih is not None
        assert hh is not None
        bias = sum((b for b in (self.cast("bias_ih", ctx), self.cast("bias_hh", ctx)) if b is not None), start=0)
        drive = product(x, ih) + bias
        h = state.get("h", np.zeros((batch, n), ctx.dtype)).astype(ctx.dtype, copy=False)
        out = np.zeros((steps, batch, n), ctx.dtype)
        for k in range(steps):
            t = steps - 1 - k if self.reverse else k
            gates = sigmoid(drive[t][:, : 2 * n] + product(h, hh[: 2 * n]))
            r, z = gates[:, :n], gates[:, n:]
            new = (1 - z) * np.tanh(drive[t][:, 2 * n :] + product(r * h, hh[2 * n :])) + z * h
            live = np.True_ if ctx.lengths is None else (t < ctx.lengths)[:, None]
            h = np.where(live, new, h)
            out[t] = np.where(live, new, 0)
        return {"h": out}, {"h": h}

    def attrs(self) -> dict[str, Any]:
        return {"units": self.units, "reverse": self.reverse}
