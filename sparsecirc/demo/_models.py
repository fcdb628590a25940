"""The built-in networks: small, seeded, of the layers people use."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import snntorch
import torch
from numpy.typing import NDArray
from torch import nn

FEATURES = 8
MNIST_SIDE = 28
CLASSES = 10
HOLD = 3
"""Steps for which the spiking network is shown each row of a digit."""


class GatedClassifier(nn.Module):
    """A recurrent layer over the rows of a digit, and a read-out of its last step."""

    def __init__(self, layer: Callable[..., nn.Module], units: int, features: int = FEATURES) -> None:
        super().__init__()
        self.rnn = layer(features, units, batch_first=True)
        self.fc = nn.Linear(units, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Class scores (B, 10) of x (B, T, features)."""
        out, _ = self.rnn(x)
        scores: torch.Tensor = self.fc(out[:, -1])
        return scores


class SpikingClassifier(nn.Module):
    """Recurrent leaky integrate-and-fire neurons driven by currents, and leaky integrators that read them out."""

    def __init__(self, units: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(FEATURES, units)
        self.lif = snntorch.RLeaky(
            beta=0.8, linear_features=units, spike_grad=snntorch.surrogate.fast_sigmoid(slope=10)
        )
        self.fc2 = nn.Linear(units, CLASSES)
        self.readout = snntorch.Leaky(beta=0.95, reset_mechanism="none")
        with torch.no_grad():
            self.fc1.weight.mul_(3)
            self.lif.recurrent.weight.mul_(0.5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Class scores (B, 10), the mean membrane of the read-out, of currents x (T, B, 8)."""
        spk, mem = self.lif.reset_mem()
        level = self.readout.reset_mem()
        levels = []
        for step in range(x.shape[0]):
            spk, mem = self.lif(self.fc1(x[step]), spk, mem)
            _, level = self.readout(self.fc2(spk), level)
            levels.append(level)
        return torch.stack(levels).mean(dim=0)


@dataclass(frozen=True)
class Built:
    """A network with an input that fits it.

    Attributes:
        model: in evaluation mode, seeded.
        example: float32, (1, T, features) batch first for the gated networks, (T, 1, 8) for the spiking one.
    """

    model: nn.Module
    example: NDArray[np.float32]


NAMES: Mapping[str, str] = {
    "gru": "nn.GRU(8, 256) and a read-out",
    "lstm": "nn.LSTM(8, 256) and a read-out",
    "rnn": "nn.RNN(8, 256) and a read-out",
    "snn": "snntorch.RLeaky of 256 neurons and a leaky read-out",
    "mnist-lstm": "nn.LSTM(28, 128) and a read-out for MNIST rows",
}
"""Names after ``demo:``, with what they are."""

_LAYERS: Mapping[str, Callable[..., nn.Module]] = {"gru": nn.GRU, "lstm": nn.LSTM, "rnn": nn.RNN}


def network(name: str, units: int, seed: int = 0) -> nn.Module:
    """A fresh network; the global random state of torch is left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if name == "mnist-lstm":
            return GatedClassifier(nn.LSTM, units, MNIST_SIDE)
        return SpikingClassifier(units) if name == "snn" else GatedClassifier(_LAYERS[name], units)


def build(name: str, *, units: int | None = None, seed: int = 0) -> Built:
    """The network called ``name`` (one of `NAMES`), untrained, with an example input; ``units`` as `NAMES` says.

    Raises:
        KeyError: there is none of that name.
    """
    if name not in NAMES:
        raise KeyError(name)
    rng = np.random.default_rng(seed)
    side = MNIST_SIDE if name == "mnist-lstm" else FEATURES
    x = rng.random((side, side), dtype=np.float32)
    example = currents(x[None]) if name == "snn" else x[None]
    usual = 128 if name == "mnist-lstm" else 256
    return Built(network(name, usual if units is None else units, seed).eval(), example)


def currents(images: NDArray[Any]) -> NDArray[np.float32]:
    """Rows of digits (N, 8, 8) as currents (T, N, 8): each row is shown for `HOLD` steps."""
    return np.ascontiguousarray(np.repeat(images.astype(np.float32), HOLD, axis=1).swapaxes(0, 1))
