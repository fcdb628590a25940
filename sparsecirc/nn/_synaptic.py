"""`SparseSynaptic` and `SparseRSynaptic`: snntorch's Synaptic and RSynaptic over whole sequences."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from sparsecirc._pattern import Pattern
from sparsecirc.nn._common import Live
from sparsecirc.nn._neurons import SparseNeurons
from sparsecirc.patterns import PatternMaker


class SparseSynaptic(SparseNeurons):
    """Neurons with a synaptic current: i = alpha i + x, v = beta v + i - reset, z = v > threshold (snntorch Synaptic).

    Also called current-based (CUBA) LIF. The reset signal is detached, as in snntorch. ``reset_mechanism="zero"``
    drops the membrane's whole update of the step and leaves the current alone, as Synaptic does.

    Args:
        alpha: decay of the current per step, clamped to [0, 1]; a number or one per neuron.
        beta: decay of the membrane, likewise.
        threshold: a number or one per neuron.
        spike_grad: a `Surrogate`, or a function made by snntorch.surrogate that has a kernel; atan by default.
        learn_alpha: whether ``alpha`` is a Parameter.
        learn_beta: whether ``beta`` is a Parameter.
        learn_threshold: whether ``threshold`` is a Parameter.
        reset_mechanism: ``"subtract"``, ``"zero"`` or ``"none"``.
        reset_delay: whether a reset acts one step after its spike.

    Raises:
        UnsupportedError: the surrogate has no kernel.
        UsageError: the reset is unknown.
    """

    dense_form = "Synaptic"
    states = ("syn", "mem")

    def __init__(
        self,
        alpha: float | Tensor,
        beta: float | Tensor,
        threshold: float | Tensor = 1.0,
        spike_grad: Any = None,
        *,
        learn_alpha: bool = False,
        learn_beta: bool = False,
        learn_threshold: bool = False,
        reset_mechanism: str = "subtract",
        reset_delay: bool = True,
    ) -> None:
        vectors = {
            "alpha": (alpha, learn_alpha),
            "beta": (beta, learn_beta),
            "threshold": (threshold, learn_threshold),
        }
        super().__init__(vectors, spike_grad, reset_mechanism, reset_delay)

    def forward(self, x: Tensor, syn: Tensor | None = None, mem: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """(spikes, currents, membranes) of all steps for x (T, B, N); of one for x (B, N). States are zero if None."""
        spk, currents, membranes = self._run(x, [syn, mem])
        return spk, currents, membranes

    @classmethod
    def from_dense(cls, module: Any) -> SparseSynaptic:
        """The same neurons as a snntorch Synaptic.

        Raises:
            UnsupportedError: the module has something that the kernels lack.
        """
        made: SparseSynaptic = cls._of_dense(module)
        return made


class SparseRSynaptic(SparseNeurons):
    """Recurrent neurons with a synaptic current, i = alpha i + x + V z + b (snntorch RSynaptic, all-to-all).

    V holds live connections only: ``recurrent`` is a `SparseWeight` of shape (N, N), ``recurrent_bias`` is dense.
    ``reset_delay=False`` resets at once; snntorch's RSynaptic ignores it, and so does `from_dense`.

    Args:
        alpha: decay of the current per step, clamped to [0, 1]; a number or one per neuron.
        beta: decay of the membrane, likewise.
        linear_features: neurons N.
        threshold: a number or one per neuron.
        spike_grad: as `SparseSynaptic`.
        learn_alpha: whether ``alpha`` is a Parameter.
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

    dense_form = "RSynaptic"
    states = ("spk", "syn", "mem")

    def __init__(
        self,
        alpha: float | Tensor,
        beta: float | Tensor,
        linear_features: int,
        threshold: float | Tensor = 1.0,
        spike_grad: Any = None,
        *,
        learn_alpha: bool = False,
        learn_beta: bool = False,
        learn_threshold: bool = False,
        learn_recurrent: bool = True,
        reset_mechanism: str = "subtract",
        reset_delay: bool = True,
        density: float | None = 0.1,
        pattern: Pattern | PatternMaker | None = None,
    ) -> None:
        vectors = {
            "alpha": (alpha, learn_alpha),
            "beta": (beta, learn_beta),
            "threshold": (threshold, learn_threshold),
        }
        super().__init__(vectors, spike_grad, reset_mechanism, reset_delay)
        self._feed_back(linear_features, density, pattern, learn_recurrent)

    def forward(
        self, x: Tensor, spk: Tensor | None = None, syn: Tensor | None = None, mem: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """(spikes, currents, membranes) of all steps for x (T, B, N); of one for x (B, N). States are zero if None."""
        spikes, currents, membranes = self._run(x, [spk, syn, mem])
        return spikes, currents, membranes

    @classmethod
    def from_dense(cls, module: Any, masks: Live = None, prefix: str = "lif") -> SparseRSynaptic:
        """The same neurons as a snntorch RSynaptic, on the connections that ``masks`` calls ``<prefix>.hh``."""
        made: SparseRSynaptic = cls._of_dense(module, masks, prefix)
        return made
