"""Nodes that live in time: recurrent and spiking layers, and reductions over time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from sparsecirc.cells import Cell, Options
from sparsecirc.errors import UsageError
from sparsecirc.ir._node import Array, Context, Node, Spec, State, Values, product


@dataclass(frozen=True)
class Recurrent(Node):
    """One layer of a `Cell` over time.

    Roles: ``ih`` (gates * units, in) with ``bias_ih``; without ``ih`` the input already is the drive of shape
    (gates * units,). ``hh`` (gates * units, feedback width) with ``bias_hh``, or ``hh_diag`` (units,) for one-to-one
    feedback; neither for a layer without recurrence. ``hr`` (projected, units): LSTM projection. Plus the cell's
    per-unit vectors, of shape (units,) or, with ``feature_shape``, any shape that broadcasts to it.

    ``feature_shape`` (of ``units`` entries in all) is the shape of the units where they are not a plain vector (spiking
    neurons after a convolution); such layers have no ``hh``.
    """

    cell: Cell = None  # type: ignore[assignment]
    units: int = 0
    reverse: bool = False
    options: Options = field(default_factory=Options)
    feature_shape: tuple[int, ...] = ()
    kind: ClassVar[str] = "recurrent"
    matrix_roles: ClassVar[tuple[str, ...]] = ("ih", "hh", "hr", "hh_diag")

    def ports(self) -> tuple[str, ...]:
        return self.cell.states

    @property
    def width(self) -> int:
        """Width of the fed-back state: units, or the projection's rows."""
        return int(self.params["hr"].shape[0]) if "hr" in self.params else self.units

    def states(self) -> dict[str, tuple[int, ...]]:
        shape = self.feature_shape or (self.units,)
        return {
            s: (self.width,) if s == self.cell.feedback and "hr" in self.params else shape for s in self.cell.states
        }

    def vectors(self, dtype: Any = np.float64) -> dict[str, Array]:
        """The cell's parameters per unit by name, each in a shape that broadcasts to the units."""
        found = {k: self.params[k].astype(dtype, copy=False) for k in self.cell.vectors}
        if not self.feature_shape:
            return found
        return {k: v.reshape(self.feature_shape) if v.size == self.units else v for k, v in found.items()}

    def with_input_gain(self, gain: Array) -> Recurrent:
        """The same layer with all that enters its units multiplied by ``gain``, folded into weights and biases.

        Cells here take their input as it is. Where a source writes ``v = beta v + (1 - beta) I`` this is the layer with
        ``gain = 1 - beta``.

        Args:
            gain: of shape (units,), or one number.

        Raises:
            UsageError: the layer has gates, or no input weight that could hold the gain.
        """
        if self.cell.n_gates != 1 or "ih" not in self.params:
            raise UsageError(
                f"layer '{self.name}' has {self.cell.n_gates} gates and roles {sorted(self.params)}: a gain is folded "
                "into the input weight 'ih' of a cell of one gate; multiply the input before it instead"
            )
        rows = np.broadcast_to(np.asarray(gain), (self.units,))
        roles = [r for r in ("ih", "hh", "hh_diag", "bias_ih", "bias_hh") if r in self.params]
        scaled = {r: self.params[r] * rows.reshape(-1, *(1,) * (self.params[r].ndim - 1)) for r in roles}
        return self.with_params(**{r: v.astype(self.params[r].dtype) for r, v in scaled.items()})

    def gates(self, role: str) -> tuple[str, ...]:
        return self.cell.gates if role in ("ih", "hh") and self.cell.n_gates > 1 else ()

    def infer(self, inputs: Sequence[Spec]) -> dict[str, Spec]:
        spec = self._one(inputs)
        if not spec.time:
            raise UsageError(
                f"recurrent layer '{self.name}' needs a sequence, got a static value of shape {spec.shape}"
            )
        rows = self.cell.n_gates * self.units
        expected = (self.params["ih"].shape[1],) if "ih" in self.params else (self.feature_shape or (rows,))
        if tuple(spec.shape) != tuple(expected):
            raise UsageError(f"recurrent layer '{self.name}' takes features {tuple(expected)}, got {spec.shape}")
        for role, width in (("ih", None), ("hh", self.width)):
            if role in self.params and (
                self.params[role].shape[0] != rows or (width is not None and self.params[role].shape[1] != width)
            ):
                raise UsageError(
                    f"weight '{self.name}.{role}' has shape {self.params[role].shape}: a {self.cell.name} of "
                    f"{self.units} units stacks {self.cell.n_gates} gates, expected ({rows}, {width or 'in'})"
                )
        spikes = self.cell.feedback if self.cell.spiking else ""
        return {port: Spec(shape, True, port == spikes) for port, shape in self.states().items()}

    def compute(self, inputs: Values, state: State, ctx: Context) -> tuple[dict[str, Array], State]:
        x = inputs[0]  # [T, B, in]
        steps, batch = x.shape[:2]
        ih, bias_ih = self.cast("ih", ctx), self.cast("bias_ih", ctx)
        drive = x if ih is None else product(x, ih)
        if bias_ih is not None:
            drive = drive + bias_ih
        vectors = self.vectors(ctx.dtype)
        hr = self.cast("hr", ctx)
        current = {
            s: state.get(s, np.zeros((batch, *shape), ctx.dtype)).astype(ctx.dtype, copy=False)
            for s, shape in self.states().items()
        }
        out = {p: np.zeros((steps, batch, *shape), ctx.dtype) for p, shape in self.states().items()}
        recur = self._recurrence(ctx)
        lengths = ctx.lengths
        for k in range(steps):
            t = steps - 1 - k if self.reverse else k
            rec = recur(current[self.cell.feedback]) if recur is not None else None
            new = self.cell.step(drive[t], rec, current, vectors, self.options)
            if hr is not None:
                new["h"] = new["h"] @ hr.T
            if lengths is not None:  # past its end a sample keeps its state and emits zeros, like a packed sequence
                live = (t < lengths).reshape(-1, *(1,) * (drive.ndim - 2))
                new = {s: np.where(live, new[s], current[s]) for s in new}
                for p in out:
                    out[p][t] = np.where(live, new[p], 0)
            else:
                for p in out:
                    out[p][t] = new[p]
            current = new
        return out, current

    def _recurrence(self, ctx: Context) -> Any:
        hh, diag, bias = self.cast("hh", ctx), self.cast("hh_diag", ctx), self.cast("bias_hh", ctx)
        if hh is None and diag is None:
            if bias is not None:
                raise UsageError(f"recurrent layer '{self.name}' has 'bias_hh' without a recurrent weight")
            return None

        def recur(h: Array) -> Array:
            y = product(h, hh) if hh is not None else h * diag
            return y if bias is None else y + bias

        return recur

    def attrs(self) -> dict[str, Any]:
        return {
            "cell": self.cell.name,
            "units": self.units,
            "reverse": self.reverse,
            "reset": self.options.reset.value,
            "delay": self.options.delay,
            "feature_shape": list(self.feature_shape),
        } | ({"adapted": True} if self.options.adapted else {})


_REDUCTIONS = ("last", "first", "mean", "sum", "max")


@dataclass(frozen=True)
class TimeReduce(Node):
    """A sequence to one static value: last, first, mean, sum or max over the valid steps.

    It carries what it needs so that a sequence cut in two gives the same result as the whole.
    """

    how: str = "last"
    feature_shape: tuple[int, ...] = ()
    kind: ClassVar[str] = "time_reduce"

    def states(self) -> dict[str, tuple[int, ...]]:
        return {"count": (), "value": self.feature_shape}

    def infer(self, inputs: Sequence[Spec]) -> dict[str, Spec]:
        spec = self._one(inputs)
        if not spec.time:
            raise UsageError(f"time reduction '{self.name}' needs a sequence, got a static value")
        if self.how not in _REDUCTIONS:
            raise UsageError(f"time reduction {self.how!r} is unknown: expected one of {', '.join(_REDUCTIONS)}")
        if tuple(spec.shape) != tuple(self.feature_shape):
            raise UsageError(
                f"time reduction '{self.name}' declares features {self.feature_shape}, its input has {spec.shape}"
            )
        return {"": Spec(spec.shape, False, spec.spikes and self.how in ("last", "first", "max"))}

    def compute(self, inputs: Values, state: State, ctx: Context) -> tuple[dict[str, Array], State]:
        x = inputs[0]
        steps, batch = x.shape[:2]
        count = state.get("count", np.zeros(batch, ctx.dtype))
        value = state.get("value", np.zeros(x.shape[1:], ctx.dtype))
        if ctx.lengths is None and np.all(count == count[:1]):  # an earlier call with lengths may have set them apart
            return self._whole(x, count, value, ctx)
        n = np.full(batch, steps) if ctx.lengths is None else np.minimum(ctx.lengths, steps)
        wide = (batch, *(1,) * (x.ndim - 2))
        here = (n > 0).reshape(wide)
        if steps:
            valid = (np.arange(steps)[:, None] < n).reshape(steps, *wide)
            if self.how == "last":
                value = np.where(here, x[np.maximum(n - 1, 0), np.arange(batch)], value)
            elif self.how == "first":
                value = np.where((count.reshape(wide) == 0) & here, x[0], value)
            elif self.how == "max":
                top = np.where(valid, x, -np.inf).max(axis=0)
                value = np.where(here, np.where(count.reshape(wide) == 0, top, np.maximum(value, top)), value)
            else:
                value = value + np.where(valid, x, 0).sum(axis=0)
        count = count + n
        result = value / np.maximum(count, 1).reshape(wide) if self.how == "mean" else value
        return {"": result.astype(ctx.dtype, copy=False)}, {
            "count": count.astype(ctx.dtype),
            "value": value.astype(ctx.dtype),
        }

    def _whole(self, x: Array, count: Array, value: Array, ctx: Context) -> tuple[dict[str, Array], State]:
        """The same where all samples have seen equally many steps: no masks, so that a single step costs little."""
        steps = len(x)
        if steps and count.size:
            fresh = not count[0]
            if self.how == "last":
                value = x[-1]
            elif self.how == "first":
                value = x[0] if fresh else value
            elif self.how == "max":
                value = x.max(axis=0) if fresh else np.maximum(value, x.max(axis=0))
            else:
                value = value + x.sum(axis=0)
        count = count + np.asarray(steps, ctx.dtype)
        result = value / max(count[0], 1) if self.how == "mean" and count.size else value
        # copies: neither the result nor the state may change with the input or with each other
        return {"": np.array(result, ctx.dtype)}, {"count": count, "value": np.array(value, ctx.dtype)}

    def attrs(self) -> dict[str, Any]:
        return {"how": self.how, "feature_shape": list(self.feature_shape)}
