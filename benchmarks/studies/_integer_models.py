"""Trained networks for the study of integers in exported C, each with inputs that it has not seen."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import snntorch
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence

from benchmarks._networks import wavernn
from benchmarks.studies._export_models import neurobench
from benchmarks.studies._mnist import load, train
from benchmarks.studies._study import Setting
from sparsecirc import Graph, Masks, Pattern
from sparsecirc._files import write_atomic
from sparsecirc.data import japanese_vowels, wavernn_768
from sparsecirc.frontends import to_graph
from sparsecirc.ir import Elementwise, Linear
from sparsecirc.patterns import PatternMaker, block, unstructured

Array = NDArray[Any]
SPARSITY, UNITS, FRAME = 0.9, 128, 28
EPOCHS = 4
DRIFT_STEPS = 2000
GAIN = 4.0
"""Input weights of spiking networks start this much larger, so that they spike before they have learned to."""


@dataclass(frozen=True, eq=False)
class Trial:
    """A network and what it is asked.

    Attributes:
        graph: trained and pruned.
        parts: inputs in the user's layout, each with its labels or ``None``.
        answer: from the outputs of a part to one class a sample (or a step), or ``None`` where answers are numbers.
        scores: from the outputs to the numbers that are compared.
        note: what the inputs are, where they are no test set.
    """

    graph: Graph
    parts: tuple[tuple[Array, Array | None], ...]
    answer: Callable[[Mapping[str, Array]], Array] | None
    scores: Callable[[Mapping[str, Array]], Array]
    note: str = ""


class RowReader(nn.Module):
    """A recurrent layer over 28 rows of 28 pixels, and a read-out of its last step."""

    def __init__(self, layer: Callable[..., nn.Module], features: int = FRAME, classes: int = 10) -> None:
        super().__init__()
        self.rnn = layer(features, UNITS, batch_first=True)
        self.fc = nn.Linear(UNITS, classes)
        if isinstance(self.rnn, nn.RNN):  # a tanh network of 28 steps needs a recurrence near the identity
            nn.init.orthogonal_(self.rnn.get_parameter("weight_hh_l0"))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Class scores of sequences (B, T, features) that are valid to their end."""
        scores: torch.Tensor = self.fc(self.rnn(x)[0][:, -1])
        return scores


class SpikingReader(nn.Module):
    """Recurrent neurons of snntorch over 28 rows of 28 pixels; scores are the mean membrane of leaky integrators."""

    def __init__(self, synaptic: bool) -> None:
        super().__init__()
        options: dict[str, Any] = {
            "linear_features": UNITS, "init_hidden": True, "spike_grad": snntorch.surrogate.fast_sigmoid(slope=10),
        }  # fmt: skip
        self.fc1 = nn.Linear(FRAME, UNITS)
        self.lif = snntorch.RSynaptic(0.5, 0.8, **options) if synaptic else snntorch.RLeaky(beta=0.8, **options)
        self.fc2 = nn.Linear(UNITS, 10)
        self.readout = snntorch.Leaky(beta=0.95, reset_mechanism="none", init_hidden=True, output=True)
        with torch.no_grad():
            self.fc1.weight.mul_(GAIN)
            self.lif.recurrent.weight.mul_(0.5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Class scores (B, 10) of images (B, 28, 28)."""
        self.lif.reset_mem()
        self.readout.reset_mem()
        levels = []
        for row in x.unbind(1):
            _, level = self.readout(self.fc2(self.lif(self.fc1(row))))
            levels.append(level)
        return torch.stack(levels).mean(dim=0)


def _kept(file: Path, model: nn.Module, learn: Callable[[nn.Module], None]) -> None:
    """Weights from ``file``, or learned now and kept there."""
    if file.is_file():
        model.load_state_dict(torch.load(file, weights_only=True))
    else:
        learn(model)
        buffer = io.BytesIO()
        torch.save(model.state_dict(), buffer)
        write_atomic(file, buffer.getvalue())
    model.eval()


def _digits(name: str, make: Callable[[], nn.Module], maker: PatternMaker, setting: Setting, seed: int) -> Trial:
    """Trained on MNIST, pruned by magnitude (9 of 10 connections of each gate), trained on; asked the test images."""
    data = load(setting.quick)
    epochs = 1 if setting.quick else EPOCHS
    torch.manual_seed(seed)
    model = make()

    def learn(model: nn.Module) -> None:
        setting.say(f"training {name}, seed {seed}")
        train(model, data, epochs, 3e-3, seed)
        train(model, data, epochs, 2e-3, 1000 + seed, Masks.prune(model, SPARSITY, pattern=maker))

    _kept(setting.kept(f"{name}-{seed}.pt"), model, learn)
    dt = 1e-3 if isinstance(model, SpikingReader) else None
    graph = to_graph(model, example=torch.from_numpy(data.x_test[:1]), masks=Masks.from_zeros(model), dt=dt)
    return Trial(graph, ((data.x_test, data.y_test),), _best, _scores)


def _vowels(name: str, setting: Setting, seed: int) -> Trial:
    """Trained on JapaneseVowels with noise on its 270 utterances, pruned, trained on; asked the 370 test utterances."""
    data = japanese_vowels()
    assert data.lengths_train is not None
    assert data.lengths_test is not None
    x, y, lengths = (torch.from_numpy(a) for a in (data.x_train, data.y_train, data.lengths_train))
    epochs = 5 if setting.quick else 60
    torch.manual_seed(seed)
    model = RowReader(nn.GRU, 12, 9)

    def phase(rate: float, masks: Masks | None) -> None:
        optimizer = torch.optim.Adam(model.parameters(), lr=rate)
        attached = None if masks is None else masks.attach(optimizer)
        for _ in range(epochs):
            for index in torch.randperm(len(y)).split(32):  # type: ignore[no-untyped-call]
                noisy = x[index] + 0.1 * torch.randn(x[index].shape)
                packed = pack_padded_sequence(noisy, lengths[index], batch_first=True, enforce_sorted=False)
                optimizer.zero_grad()
                nn.functional.cross_entropy(model.fc(model.rnn(packed)[1][-1]), y[index]).backward()  # type: ignore[no-untyped-call]
                optimizer.step()
        if attached is not None:
            attached.remove()

    def learn(model: nn.Module) -> None:
        setting.say(f"training {name}, seed {seed}")
        phase(3e-3, None)
        phase(2e-3, Masks.prune(model, SPARSITY))

    _kept(setting.kept(f"{name}-{seed}.pt"), model, learn)
    graph = to_graph(model, example=torch.from_numpy(data.x_test[:1]), masks=Masks.from_zeros(model))
    parts = []
    for steps in np.unique(data.lengths_test):  # no step of padding: utterances of one length are a part
        chosen = data.lengths_test == steps
        parts.append((np.ascontiguousarray(data.x_test[chosen, :steps]), data.y_test[chosen]))
    return Trial(graph, tuple(parts), _best, _scores)


def _published(name: str, setting: Setting, seed: int) -> Trial:
    """A network of NeuroBench as it was published. Its data set is not at hand: inputs of the same size and range."""
    graph, x, _ = neurobench(name, 16 if setting.quick else 256, seed)
    note = "no test set at hand: random inputs of the task's range"
    if name == "reaching":
        return Trial(graph, ((x, None),), None, _scores, note)
    return Trial(graph, ((x, None),), lambda o: np.asarray(_spikes(o).sum(axis=1).argmax(-1)), _spikes, note)


def _vocoder(setting: Setting, seed: int) -> Trial:
    """The trained GRU of a WaveRNN and its coarse read-out; one long sequence, so that errors may add up."""
    graph, x = wavernn(200 if setting.quick else DRIFT_STEPS)
    w = wavernn_768()
    half = np.zeros((512, 512), np.float32)
    project = Linear(
        "proj", ("rnn",),
        {"weight": np.hstack([w["coarseproj_weights"] * w["coarseproj_mask"], half]), "bias": w["coarseproj_bias"]},
        {"weight": Pattern.from_mask(np.hstack([w["coarseproj_mask"], half]))},
    )  # fmt: skip
    logits = Linear(
        "logit", ("act",),
        {"weight": w["coarselogit_weights"] * w["coarselogit_mask"], "bias": w["coarselogit_bias"]},
        {"weight": Pattern.from_mask(w["coarselogit_mask"])},
    )  # fmt: skip
    nodes = (*graph.nodes, project, Elementwise("act", ("proj",), fn="relu"), logits)
    whole = Graph(nodes, {"state": "rnn", "logits": "logit"})
    note = f"one sequence of {len(x)} random samples; answers are the likeliest of 256 coarse values at each step"
    return Trial(whole, ((x, None),), lambda o: np.asarray(o["logits"].argmax(-1)), lambda o: o["state"], note)


def _scores(outputs: Mapping[str, Array]) -> Array:
    return next(iter(outputs.values()))


def _spikes(outputs: Mapping[str, Array]) -> Array:
    return np.asarray(next(v for k, v in outputs.items() if set(np.unique(v)) <= {0.0, 1.0}))


def _best(outputs: Mapping[str, Array]) -> Array:
    return np.asarray(_scores(outputs).argmax(-1))


TRIALS: Mapping[str, Callable[[Setting, int], Trial]] = {
    "mnist_gru": partial(_digits, "mnist_gru", partial(RowReader, nn.GRU), unstructured),
    "mnist_gru_4x1": partial(_digits, "mnist_gru_4x1", partial(RowReader, nn.GRU), block(4, 1)),
    "mnist_lstm": partial(_digits, "mnist_lstm", partial(RowReader, nn.LSTM), unstructured),
    "mnist_rnn": partial(_digits, "mnist_rnn", partial(RowReader, nn.RNN), unstructured),
    "vowels_gru": partial(_vowels, "vowels_gru"),
    "mnist_rleaky": partial(_digits, "mnist_rleaky", partial(SpikingReader, False), unstructured),
    "mnist_rsynaptic": partial(_digits, "mnist_rsynaptic", partial(SpikingReader, True), unstructured),
    "neurobench_eeg": partial(_published, "eeg"),
    "neurobench_activity": partial(_published, "activity"),
    "neurobench_reaching": partial(_published, "reaching"),
    "wavernn_768": _vocoder,
}
"""Networks by name: what they are is in `WHAT`."""
SEEDED = frozenset(k for k in TRIALS if k.startswith(("mnist", "vowels")))
"""Networks that are trained here, one a seed; the others are as they were published."""
WHAT: Mapping[str, str] = {
    "mnist_gru": "nn.GRU(28, 128) and a read-out; MNIST by rows",
    "mnist_gru_4x1": "the same, pruned in blocks of 4x1",
    "mnist_lstm": "nn.LSTM(28, 128) and a read-out; MNIST by rows",
    "mnist_rnn": "nn.RNN(28, 128), tanh, and a read-out; MNIST by rows",
    "vowels_gru": "nn.GRU(12, 128) and a read-out; JapaneseVowels",
    "mnist_rleaky": "snntorch.RLeaky of 128 neurons and leaky integrators; MNIST by rows",
    "mnist_rsynaptic": "snntorch.RSynaptic of 128 neurons and leaky integrators; MNIST by rows",
    "neurobench_eeg": "three layers of Leaky, trained on EEG (NeuroBench)",
    "neurobench_activity": "convolutions and Leaky, trained on WISDM (NeuroBench)",
    "neurobench_reaching": "three layers of Leaky, trained on reaching (NeuroBench)",
    "wavernn_768": "the 95 % sparse GRU of 1024 units of a WaveRNN, and its coarse read-out",
}
