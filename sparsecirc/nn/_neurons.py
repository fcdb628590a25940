"""`SparseNeurons`: what the spiking layers share."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from sparsecirc._pattern import Pattern
from sparsecirc.cells import Reset
from sparsecirc.errors import UnsupportedError, UsageError
from sparsecirc.nn._common import Live, check_shape, computed, copy_into, ops_for, pattern_of
from sparsecirc.nn._surrogate import surrogate_of
from sparsecirc.nn._weight import SparseWeight, fan_in_uniform_, random_pattern
from sparsecirc.ops import _autograd as ops
from sparsecirc.patterns import PatternMaker


class SparseNeurons(nn.Module):
    """Neurons of snntorch over whole sequences; use its subclasses.

    Args:
        vectors: decays and thresholds by snntorch's names, a number or one per neuron, and whether each is learned.
        spike_grad: a `Surrogate`, or a function made by snntorch.surrogate that has a kernel; atan by default.
        reset_mechanism: ``"subtract"``, ``"zero"`` or ``"none"``.
        reset_delay: whether a reset acts one step after its spike.

    Raises:
        UnsupportedError: the surrogate has no kernel.
        UsageError: the reset is unknown.
    """

    dense_form: ClassVar[str]
    """snntorch's class of the same neurons."""
    states: ClassVar[tuple[str, ...]]
    """States of that class in its order."""
    zero_reset: ClassVar[Reset] = Reset.ZERO_UPDATE
    """What ``reset_mechanism="zero"`` means there."""

    alpha: Tensor
    beta: Tensor
    threshold: Tensor
    recurrent: SparseWeight
    recurrent_bias: nn.Parameter

    def __init__(
        self,
        vectors: Mapping[str, tuple[float | Tensor, bool]],
        spike_grad: Any,
        reset_mechanism: str,
        reset_delay: bool,
    ) -> None:
        super().__init__()
        self.surrogate = surrogate_of(spike_grad)
        if reset_mechanism not in ("subtract", "zero", "none"):
            raise UsageError(f"reset_mechanism {reset_mechanism!r} is unknown: expected 'subtract', 'zero' or 'none'")
        self.reset = self.zero_reset if reset_mechanism == "zero" else Reset(reset_mechanism)
        self.reset_delay = reset_delay
        for name, (value, learn) in vectors.items():
            tensor = torch.as_tensor(value).detach().clone()
            if learn:
                self.register_parameter(name, nn.Parameter(tensor))
            else:
                self.register_buffer(name, tensor)

    def _feed_back(
        self, features: int, density: float | None, pattern: Pattern | PatternMaker | None, learn: bool
    ) -> None:
        """Add the recurrent weight (features, features) and its bias."""
        self.linear_features = features
        if not isinstance(pattern, Pattern):
            pattern = random_pattern(features, features, density, pattern)
        check_shape("recurrent", pattern, (features, features))
        self.recurrent = SparseWeight(pattern)
        self.recurrent_bias = nn.Parameter(torch.zeros(features))
        self.recurrent.values.requires_grad_(learn)
        self.recurrent_bias.requires_grad_(learn)
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self, *, rescale: bool = False) -> None:
        """Feedback within +-1 / sqrt(N), as snntorch's; ``rescale``: by rows, times sqrt(N / live fan-in)."""
        if self._is_recurrent():
            bound = 1.0 / math.sqrt(self.linear_features)
            if rescale:
                fan_in_uniform_(self.recurrent, bound)
            else:
                self.recurrent.values.uniform_(-bound, bound)
            self.recurrent_bias.uniform_(-bound, bound)

    def _is_recurrent(self) -> bool:
        return "spk" in self.states

    def _run(self, x: Tensor, given: Sequence[Tensor | None]) -> tuple[Tensor, ...]:
        """(spikes, then the other states) of all steps for x (T, B, N), of one for x (B, N).

        ``given`` are initial states (B, N) in the order of `states`, zero where None.
        """
        if x.ndim not in (2, 3):
            raise UsageError(f"input of shape {tuple(x.shape)}: expected (T, B, N), or (B, N) for one step")
        single, kind = x.ndim == 2, x.dtype
        seq = computed(x.unsqueeze(0) if single else x, self.beta)
        shape = tuple(seq.shape[1:])
        zeros = seq.new_zeros(shape)
        initial = {n: zeros if s is None else computed(s, seq) for n, s in zip(self.states, given, strict=True)}
        if any(tuple(s.shape) != shape for s in initial.values()):
            raise UsageError(f"states of shapes {[tuple(s.shape) for s in initial.values()]}: expected {shape}")
        job = ops.Spiking(
            self.reset.value, self.reset_delay or self.reset is Reset.NONE, self.surrogate.kind, self.surrogate.scale
        )
        alpha = self.alpha.clamp(0, 1).expand(shape[1]) if "syn" in self.states else None
        spk, syn, mem = ops_for(self.beta).spiking(
            job, seq, initial.get("spk"), initial.get("syn"), initial["mem"], alpha=alpha,
            beta=self.beta.clamp(0, 1).expand(shape[1]), theta=self.threshold.expand(shape[1]),
            hh=self.recurrent.sparse() if self._is_recurrent() else None,
            bias=self.recurrent_bias if self._is_recurrent() else None,
        )  # fmt: skip
        outs = [spk.to(kind), mem] if alpha is None else [spk.to(kind), syn, mem]
        return tuple(o[0] for o in outs) if single else tuple(outs)

    @classmethod
    def _of_dense(cls, module: Any, masks: Live = None, prefix: str = "") -> Any:
        """The same neurons as ``module`` of snntorch."""
        _refuse(module, cls)
        names = [n for n in ("alpha", "beta", "threshold") if hasattr(module, n)]
        settings = {n: getattr(module, n).detach().clone() for n in names}
        settings |= {f"learn_{n}": isinstance(getattr(module, n), nn.Parameter) for n in names}
        settings |= {"spike_grad": module.spike_grad, "reset_mechanism": module.reset_mechanism}
        # RSynaptic throws away the membrane that it resets at once.
        settings["reset_delay"] = module.reset_delay or cls.dense_form == "RSynaptic"
        make: Any = cls
        if "spk" not in cls.states:
            return make(**settings)
        dense = module.recurrent
        if not isinstance(dense, nn.Linear):
            raise UnsupportedError(
                f"{cls.dense_form} without an all-to-all linear feedback has no sparse form: set linear_features"
            )
        made = make(
            linear_features=dense.in_features, learn_recurrent=dense.weight.requires_grad,
            pattern=pattern_of(masks, f"{prefix}.hh", dense.weight), **settings,
        )  # fmt: skip
        made.recurrent.set_dense(dense.weight)
        copy_into(made.recurrent_bias, dense.bias)
        return made

    def to_dense(self) -> Any:
        """The same neurons of snntorch, one step per call; feedback with exact zeros.

        Raises:
            UnsupportedError: recurrent synaptic neurons reset at once, which snntorch's do not do.
        """
        import snntorch
        from snntorch import surrogate

        if self.dense_form == "RSynaptic" and not self.reset_delay:
            raise UnsupportedError("snntorch's RSynaptic does nothing for reset_delay=False: use reset_delay=True")
        kind, scale = self.surrogate.kind, self.surrogate.scale
        grad = surrogate.straight_through_estimator() if kind == "straight_through" else getattr(surrogate, kind)(scale)
        names = [n for n in ("alpha", "beta", "threshold") if hasattr(self, n)]
        settings: dict[str, Any] = {n: getattr(self, n).detach().clone() for n in names}
        settings |= {f"learn_{n}": isinstance(getattr(self, n), nn.Parameter) for n in names}
        reset = "zero" if self.reset is self.zero_reset else self.reset.value
        settings |= {"spike_grad": grad, "reset_mechanism": reset, "reset_delay": self.reset_delay}
        if not self._is_recurrent():
            return getattr(snntorch, self.dense_form)(**settings)
        learn = self.recurrent.values.requires_grad
        made = getattr(snntorch, self.dense_form)(
            linear_features=self.linear_features, learn_recurrent=learn, **settings
        )
        copy_into(made.recurrent.weight, self.recurrent.dense())
        copy_into(made.recurrent.bias, self.recurrent_bias)
        return made

    def extra_repr(self) -> str:
        """Reset and surrogate."""
        return f"reset={self.reset.value}, reset_delay={self.reset_delay}, surrogate={self.surrogate.kind}"


def _refuse(module: Any, cls: type[SparseNeurons]) -> None:
    expected = cls.dense_form
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
