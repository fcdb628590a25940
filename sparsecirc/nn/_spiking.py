"""`SparseLIF` and `SparseRLIF`: snntorch's Leaky and RLeaky over whole sequences."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from sparsecirc._pattern import Pattern
from sparsecirc.cells import Reset
from sparsecirc.nn._common import Live
from sparsecirc.nn._neurons import SparseNeurons
from sparsecirc.patterns import PatternMaker


class SparseLIF(SparseNeurons):
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

    dense_form = "Leaky"
    states = ("mem",)
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
        vectors = {"beta": (beta, learn_beta), "threshold": (threshold, learn_threshold)}
        super().__init__(vectors, spike_grad, reset_mechanism, reset_delay)

    def forward(self, x: Tensor, mem: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """(spikes, membranes) of all steps for x (T, B, N); of one for x (B, N). ``mem`` (B, N) is zero if None."""
        spk, membranes = self._run(x, [mem])
        return spk, membranes

    @classmethod
    def from_dense(cls, module: Any) -> SparseLIF:
        """The same neurons as a snntorch Leaky.

        Raises:
            UnsupportedError: the module has something that the kernels lack.
        """
        made: SparseLIF = cls._of_dense(module)
        return made


class SparseRLIF(SparseNeurons):
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
        density: share of live connections of a random pattern; None for what the maker brings.
        pattern: makes that pattern from random scores, or is the pattern itself.

    Raises:
        UnsupportedError: the surrogate has no kernel.
        UsageError: the reset is unknown, the density is outside (0, 1], or the pattern has another shape.
    """

    dense_form = "RLeaky"
    states = ("spk", "mem")

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
        density: float | None = 0.1,
        pattern: Pattern | PatternMaker | None = None,
    ) -> None:
        vectors = {"beta": (beta, learn_beta), "threshold": (threshold, learn_threshold)}
        super().__init__(vectors, spike_grad, reset_mechanism, reset_delay)
        self._feed_back(linear_features, density, pattern, learn_recurrent)

    def forward(self, x: Tensor, spk: Tensor | None = None, mem: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """(spikes, membranes) of all steps for x (T, B, N); of one for x (B, N). States (B, N) are zero if None."""
        spikes, membranes = self._run(x, [spk, mem])
        return spikes, membranes

    @classmethod
    def from_dense(cls, module: Any, masks: Live = None, prefix: str = "lif") -> SparseRLIF:
        """The same neurons as a snntorch RLeaky, on the connections that ``masks`` calls ``<prefix>.hh``."""
        made: SparseRLIF = cls._of_dense(module, masks, prefix)
        return made
