"""`SparseLIF` and `SparseRLIF`: snntorch's Leaky and RLeaky over whole sequences."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from sparsecirc._pattern import Pattern
from sparsecirc.cells import Reset
from sparsecirc.errors import UnsupportedError, UsageError
from sparsecirc.nn._common import Live, check_shape, computed, copy_into, pattern_of
from sparsecirc.nn._surrogate import surrogate_of
from sparsecirc.nn._weight import SparseWeight, random_pattern
from sparsecirc.ops import _autograd as ops
from sparsecirc.patterns import PatternMaker


class SparseLIF(nn.Module):
    """Leaky integrate-and-fire neurons: v = beta v + x - reset, z = v > threshold (snntorch Leaky).

    The reset signal is detached, as in snntorch. ``reset_mechanism="zero"`` clears the membrane before it decays.

    Args:
        beta: decay per step, clamped to [0, 1]; a number or one per neuron.
        threshold: a number or one per neuron.
        spike_grad: a `Surrogate`, or a function made by snntorch.surrogate that has a kernel; atan by default.
        learn_beta: whether ``beta`` is a Parameter.
        learn_threshold: whether ``threshold`` is a Parameter.
        reset_mechanism: ``"subtract"``, ``"zero"`` or ``"none"``.
        reset_delay: whether a reset acts one step after its spike.

    Raises:
        UnsupportedError: the surrogate has no kernel.
        UsageError: the reset is unknown.
    """

    beta: Tensor
    threshold: Tensor
    zero_reset = Reset.ZERO

    def __init__(
        self,
        beta: float | Tensor,
        threshold: float | Tensor = 1.0,
        spike_grad: Any = None,
        *,
        learn_beta: bool = False,
        learn_threshold: bool = False,
        reset_mechanism: str = "subtract",
        reset_delay: bool = True,
    ) -> None:
        super().__init__()
        self.surrogate = surrogate_of(spike_grad)
        if reset_mechanism not in ("subtract", "zero", "none"):
            raise UsageError(f"reset_mechanism {reset_mechanism!r} is unknown: expected 'subtract', 'zero' or 'none'")
        self.reset = self.zero_reset if reset_mechanism == "zero" else Reset(reset_mechanism)
        self.reset_delay = reset_delay
        for name, value, learn in (("beta", beta, learn_beta), ("threshold", threshold, learn_threshold)):
            tensor = torch.as_tensor(value).detach().clone()
            if learn:
                self.register_parameter(name, nn.Parameter(tensor))
            else:
                self.register_buffer(name, tensor)

    def forward(self, x: Tensor, mem: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """(spikes, membranes) of all steps for x (T, B, N); of one for x (B, N). ``mem`` (B, N) is zero if None."""
        return self._run(x, None, mem)

    def _run(
        self, x: Tensor, spk: Tensor | None, mem: Tensor | None, weight: SparseWeight | None = None,
        bias: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        if x.ndim not in (2, 3):
            raise UsageError(f"input of shape {tuple(x.shape)}: expected (T, B, N), or (B, N) for one step")
        seq = computed(x, self.beta).unsqueeze(0) if x.ndim == 2 else computed(x, self.beta)
        shape = tuple(seq.shape[1:])
        states = [seq.new_zeros(shape) if s is None else computed(s, seq) for s in (spk, mem)]
        if any(tuple(s.shape) != shape for s in states):
            raise UsageError(f"states of shapes {[tuple(s.shape) for s in states]}: expected {shape}")
        scale, delay = self.surrogate.scale, self.reset_delay or self.reset is Reset.NONE
        job = ops.Recurrence("lif", False, self.reset.value, delay, self.surrogate.kind, scale)
        z, v, _, _ = ops.recurrent(
            job, seq, states, hh=weight.sparse() if weight is not None else None, bias_hh=bias,
            beta=self.beta.clamp(0, 1).expand(shape[1]), theta=self.threshold.expand(shape[1]),
        )  # fmt: skip
        return (z[0].to(x.dtype), v[0]) if x.ndim == 2 else (z.to(x.dtype), v)

    @classmethod
    def from_dense(cls, module: Any) -> SparseLIF:
        """The same neurons as a snntorch Leaky.

        Raises:
            UnsupportedError: the module has something that the kernels lack.
        """
        _refuse(module, cls)
        return cls(**_settings(module))

    def to_dense(self) -> Any:
        """The same neurons as snntorch's Leaky, one step per call."""
        return self._dense("Leaky")

    def _dense(self, name: str, **more: Any) -> Any:
        import snntorch
        from snntorch import surrogate

        kind, scale = self.surrogate.kind, self.surrogate.scale
        grad = surrogate.straight_through_estimator() if kind == "straight_through" else getattr(surrogate, kind)(scale)
        return getattr(snntorch, name)(
            beta=self.beta.detach().clone(), threshold=self.threshold.detach().clone(), spike_grad=grad,
            learn_beta=isinstance(self.beta, nn.Parameter), reset_delay=self.reset_delay,
            learn_threshold=isinstance(self.threshold, nn.Parameter), reset_mechanism=self._reset_name(), **more,
        )  # fmt: skip

    def _reset_name(self) -> str:
        return "zero" if self.reset is self.zero_reset else self.reset.value

    def extra_repr(self) -> str:
        """Reset and surrogate."""
        return f"reset={self.reset.value}, reset_delay={self.reset_delay}, surrogate={self.surrogate.kind}"


class SparseRLIF(SparseLIF):
    """Recurrent leaky integrate-and-fire neurons, v = beta v + x + V z + b - reset (snntorch RLeaky, all-to-all).

    V holds live connections only: ``recurrent`` is a `SparseWeight` of shape (N, N), ``recurrent_bias`` is dense.
    ``reset_mechanism="zero"`` drops the whole update of the step, as RLeaky does.

    Args:
        beta: decay per step, clamped to [0, 1]; a number or one per neuron.
        linear_features: neurons N.
        threshold: a number or one per neuron.
        spike_grad: as `SparseLIF`.
        learn_beta: whether ``beta`` is a Parameter.
        learn_threshold: whether ``threshold`` is a Parameter.
        learn_recurrent: whether V and b are trained.
        reset_mechanism: ``"subtract"``, ``"zero"`` or ``"none"``.
        reset_delay: whether a reset acts one step after its spike.
        density: share of live connections of a random pattern.
        pattern: makes that pattern from random scores, or is the pattern itself.

    Raises:
        UnsupportedError: the surrogate has no kernel.
        UsageError: the reset is unknown, the density is outside (0, 1], or the pattern has another shape.
    """

    zero_reset = Reset.ZERO_UPDATE

    def __init__(
        self,
        beta: float | Tensor,
        linear_features: int,
        threshold: float | Tensor = 1.0,
        spike_grad: Any = None,
        *,
        learn_beta: bool = False,
        learn_threshold: bool = False,
        learn_recurrent: bool = True,
        reset_mechanism: str = "subtract",
        reset_delay: bool = True,
        density: float = 0.1,
        pattern: Pattern | PatternMaker | None = None,
    ) -> None:
        super().__init__(
            beta, threshold, spike_grad, learn_beta=learn_beta, learn_threshold=learn_threshold,
            reset_mechanism=reset_mechanism, reset_delay=reset_delay,
        )  # fmt: skip
        self.linear_features = linear_features
        if not isinstance(pattern, Pattern):
            pattern = random_pattern(linear_features, linear_features, density, pattern)
        check_shape("recurrent", pattern, (linear_features, linear_features))
        self.recurrent = SparseWeight(pattern)
        self.recurrent_bias = nn.Parameter(torch.zeros(linear_features))
        self.recurrent.values.requires_grad_(learn_recurrent)
        self.recurrent_bias.requires_grad_(learn_recurrent)
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Uniform within +-1 / sqrt(N), the bound of RLeaky's recurrent nn.Linear."""
        bound = 1.0 / math.sqrt(self.linear_features)
        self.recurrent.values.uniform_(-bound, bound)
        self.recurrent_bias.uniform_(-bound, bound)

    def forward(  # type: ignore[override]
        self, x: Tensor, spk: Tensor | None = None, mem: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """(spikes, membranes) of all steps for x (T, B, N); of one for x (B, N). States (B, N) are zero if None."""
        return self._run(x, spk, mem, self.recurrent, self.recurrent_bias)

    @classmethod
    def from_dense(cls, module: Any, masks: Live = None, prefix: str = "lif") -> SparseRLIF:
        """The same neurons as a snntorch RLeaky, on the connections that ``masks`` calls ``<prefix>.hh``."""
        _refuse(module, cls)
        dense = module.recurrent
        if not isinstance(dense, nn.Linear):
            raise UnsupportedError(
                "RLeaky without an all-to-all linear feedback has no sparse form: set linear_features"
            )
        made = cls(
            linear_features=dense.in_features, learn_recurrent=dense.weight.requires_grad,
            pattern=pattern_of(masks, f"{prefix}.hh", dense.weight), **_settings(module),
        )  # fmt: skip
        made.recurrent.set_dense(dense.weight)
        copy_into(made.recurrent_bias, dense.bias)
        return made

    def to_dense(self) -> Any:
        """The same neurons as snntorch's RLeaky, with exact zeros, one step per call."""
        learn = self.recurrent.values.requires_grad
        made = self._dense("RLeaky", linear_features=self.linear_features, learn_recurrent=learn)
        copy_into(made.recurrent.weight, self.recurrent.dense())
        copy_into(made.recurrent.bias, self.recurrent_bias)
        return made


def _settings(module: Any) -> dict[str, Any]:
    return {
        "beta": module.beta.detach().clone(),
        "threshold": module.threshold.detach().clone(),
        "spike_grad": module.spike_grad,
        "learn_beta": isinstance(module.beta, nn.Parameter),
        "learn_threshold": isinstance(module.threshold, nn.Parameter),
        "reset_mechanism": module.reset_mechanism,
        "reset_delay": module.reset_delay,
    }


def _refuse(module: Any, cls: type[SparseLIF]) -> None:
    expected = "RLeaky" if cls is SparseRLIF else "Leaky"
    if type(module).__name__ != expected:
        raise UnsupportedError(
            f"{type(module).__name__} is no dense form of {cls.__name__}: expected snntorch's {expected}"
        )
    extras = {
        "inhibition": module.inhibition,
        "state_quant": module.state_quant,
        "graded_spikes_factor": bool((module.graded_spikes_factor != 1).any()),
        "surrogate_disable": module.surrogate_disable,
    }
    for name, used in extras.items():
        if used:
            raise UnsupportedError(f"{expected} with {name} has no sparse form in this version: switch it off")
