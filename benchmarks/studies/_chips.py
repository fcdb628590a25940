"""What the numbers of neuromorphic chips cost trained networks: answers on data that they have not seen."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache, partial
from typing import Any

import numpy as np
import snntorch.utils
import torch
from numpy.typing import NDArray
from torch import nn

from benchmarks.studies._page import grouped, markdown, spread
from benchmarks.studies._study import Page, Setting, Study, Task
from sparsecirc import Graph, Masks
from sparsecirc.data import nmnist, spoken_digits
from sparsecirc.errors import SparsecircError
from sparsecirc.frontends import to_graph
from sparsecirc.hardware import BRAINSCALES2, LOIHI1, LOIHI2, SPECK2, XYLO_AUDIO3, Chip, fits, quantise, weight_cost

Array = NDArray[Any]
CHIPS = (LOIHI1, LOIHI2, XYLO_AUDIO3, SPECK2, BRAINSCALES2)
SPARSITY, UNITS, EPOCHS = 0.9, 128, 30


@dataclass(frozen=True)
class ChipRow:
    """One trained network in the numbers of one chip.

    Attributes:
        model: network and data.
        seed: of its training.
        density: share of live connections.
        chip: its name.
        numbers: "all" where the chip's arithmetic is known, "weights" where only its weights are.
        samples: that were asked.
        accuracy: share of right answers of the network itself, in float64.
        chip_accuracy: in the numbers of the chip.
        changed: share of answers that are others.
        differ: share of the decisions to spike that are others, over all layers.
        weight_error: largest relative error (rms) of the weights into a layer.
        fits: whether the network fits on the chip.
        note: why it does not, or why it did not run.
    """

    model: str
    seed: int
    density: float
    chip: str
    numbers: str = ""
    samples: int | None = None
    accuracy: float | None = None
    chip_accuracy: float | None = None
    changed: float | None = None
    differ: float | None = None
    weight_error: float | None = None
    fits: bool | None = None
    note: str = ""

    def to_json(self) -> dict[str, Any]:
        """The fields."""
        return asdict(self)

    def summary(self) -> str:
        """Accuracy before and after."""
        if self.accuracy is None:
            return f"{self.chip} refused"
        return f"{self.chip} {_percent(self.accuracy)} -> {_percent(self.chip_accuracy)}"


@dataclass(frozen=True)
class Spikes:
    """Samples as spikes (T, N, features), and their classes."""

    x: Array
    y: Array
    x_test: Array
    y_test: Array

    def head(self, train: int, test: int) -> Spikes:
        """Fewer of both."""
        return Spikes(self.x[:, :train], self.y[:train], self.x_test[:, :test], self.y_test[:test])


def spiking(level: Array) -> Array:
    """Spikes (T, N, bands) from levels (N, T, bands) in [0, 1]: a unit adds up its level and spikes at each whole."""
    total = np.cumsum(level.transpose(1, 0, 2), axis=0)
    return np.asarray(np.diff(np.floor(total), axis=0, prepend=0.0), np.float32)


@lru_cache(maxsize=2)
def events() -> Spikes:
    """N-MNIST: 20 steps of a camera of 17 x 17 x 2."""
    d = nmnist(steps=20)
    x, x_test = (np.ascontiguousarray(a.transpose(1, 0, 2), np.float32) for a in (d.x_train, d.x_test))
    return Spikes(x, d.y_train, x_test, d.y_test)


@lru_cache(maxsize=2)
def speech() -> Spikes:
    """Spoken digits: 50 steps of 16 bands, the inputs of a Xylo."""
    d = spoken_digits(steps=50, bands=16)
    low, high = float(d.x_train.min()), float(d.x_train.max())
    x, x_test = (spiking(((a - low) / (high - low)).clip(0, 1)) for a in (d.x_train, d.x_test))
    return Spikes(x, d.y_train, x_test, d.y_test)


def leaky() -> nn.Module:
    """LIF that is set to zero when it fires, as on Loihi."""
    made: nn.Module = snntorch.Leaky(beta=0.9, reset_mechanism="zero", init_hidden=True, spike_grad=_surrogate())
    return made


def synaptic() -> nn.Module:
    """Current-based LIF that subtracts its threshold at once; decays of Xylo are 1 - 2^-k."""
    made: nn.Module = snntorch.Synaptic(
        alpha=0.75, beta=0.875, threshold=2.0, init_hidden=True, reset_delay=False, spike_grad=_surrogate()
    )
    return made


def _surrogate() -> Any:
    return snntorch.surrogate.fast_sigmoid(slope=10)


class Classifier(nn.Module):
    """Two layers of neurons; the class is that of the output neuron which spikes most."""

    def __init__(self, inputs: int, neurons: Callable[[], nn.Module], gain: float) -> None:
        super().__init__()
        self.first, self.hidden = nn.Linear(inputs, UNITS, bias=False), neurons()
        self.second, self.last = nn.Linear(UNITS, 10, bias=False), neurons()
        with torch.no_grad():
            self.first.weight.mul_(gain)
            self.second.weight.mul_(4.0)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Spikes (T, B, 10) of spikes (T, B, features)."""
        snntorch.utils.reset(self)
        return torch.stack([self.last(self.second(self.hidden(self.first(step)))) for step in x])


MODELS: Mapping[str, tuple[Callable[[], Spikes], Callable[[], nn.Module], float]] = {
    "nmnist_lif": (events, leaky, 2.0),
    "speech_lif": (speech, leaky, 4.0),
    "speech_synaptic": (speech, synaptic, 0.5),  # more, and neurons of Xylo send several spikes a step
}
WHAT: Mapping[str, str] = {
    "nmnist_lif": "578-128-10, LIF, reset to zero; N-MNIST (1,000 training and 100 test recordings), 20 steps",
    "speech_lif": "16-128-10, LIF, reset to zero; spoken digits (2,700 and 300), 50 steps of 16 bands",
    "speech_synaptic": "16-128-10, current-based LIF, reset by subtraction at once; the same recordings",
}


def train(model: nn.Module, data: Spikes, epochs: int, rate: float, seed: int, masks: Masks | None = None) -> None:
    """Adam on the cross entropy of the spike counts; rates fall to a tenth."""
    x, y = torch.from_numpy(data.x), torch.from_numpy(np.asarray(data.y, np.int64))
    optimizer = torch.optim.Adam(model.parameters(), lr=rate)
    schedule = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.1 ** (1 / max(epochs, 1)))
    attached = None if masks is None else masks.attach(optimizer)
    generator = torch.Generator().manual_seed(seed)
    for _ in range(epochs):
        for index in torch.randperm(len(y), generator=generator).split(64):  # type: ignore[no-untyped-call]
            optimizer.zero_grad()
            counts = model(x[:, index]).sum(0)
            nn.functional.cross_entropy(0.5 * counts, y[index]).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        schedule.step()
    if attached is not None:
        attached.remove()


@lru_cache(maxsize=1)
def trained(name: str, sparse: bool, seed: int, setting: Setting) -> tuple[Graph, Spikes]:
    """A network, pruned or not, and its data."""
    make, neurons, gain = MODELS[name]
    data = make().head(200, 50) if setting.quick else make()
    epochs = 3 if setting.quick else EPOCHS
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        torch.manual_seed(seed)
        model = Classifier(data.x.shape[2], neurons, gain)
        setting.say(f"training {name}, {'90 % sparse' if sparse else 'dense'}, seed {seed}")
        train(model, data, epochs, 2e-3, seed)
        if sparse:
            train(model, data, epochs, 2e-3, 100 + seed, Masks.prune(model, SPARSITY))
    finally:
        torch.set_num_threads(threads)
    masks = Masks.from_zeros(model) if sparse else None
    return to_graph(model, example=torch.from_numpy(data.x_test[:, :1]), masks=masks, dt=1e-3), data


def tasks(setting: Setting) -> Iterator[Task]:
    """Every network with every seed, dense and pruned."""
    for name in MODELS:
        for seed in setting.seeds:
            for sparse in (False, True):
                key = f"{name} {'sparse' if sparse else 'dense'} seed {seed}"
                yield Task(key, partial(_measure, name, sparse, seed, setting))


def _measure(name: str, sparse: bool, seed: int, setting: Setting) -> list[ChipRow]:
    graph, data = trained(name, sparse, seed, setting)
    return [_row(name, seed, graph, data, chip) for chip in CHIPS]


def _row(name: str, seed: int, graph: Graph, data: Spikes, chip: Chip) -> ChipRow:
    weights = [(n.params[r].size, n.patterns.get(r)) for n in graph.nodes for r in n.matrix_roles if r in n.params]
    density = sum(size if p is None else p.nnz for size, p in weights) / sum(size for size, _ in weights)
    fit = fits(graph, chip)
    why = "; ".join(dict.fromkeys(c.limit for c in fit.checks if not c.ok))
    try:
        if chip.store is None:
            cost = weight_cost(graph, chip, data.x_test, labels=data.y_test)
        else:
            cost = quantise(graph, chip).cost(data.x_test, labels=data.y_test)
    except SparsecircError as error:
        return ChipRow(name, seed, density, chip.name, fits=fit.ok, note=str(error))
    decided = sum(c.decisions for c in cost.layers)
    return ChipRow(
        name, seed, density, chip.name, "weights" if chip.store is None else "all", len(data.y_test), cost.accuracy,
        cost.chip_accuracy, cost.changed, sum(c.differ for c in cost.layers) / decided,
        max(c.weight_error for c in cost.layers), fit.ok, why,
    )  # fmt: skip


HEAD = ("chip", "numbers", "accuracy there", "answers changed", "spikes differ", "weights off by", "fits")


def _line(rows: Sequence[ChipRow]) -> tuple[str, ...]:
    there = [r.chip_accuracy for r in rows if r.chip_accuracy is not None]
    misfits = sorted({r.note for r in rows if r.note and r.accuracy is not None})
    told = "yes" if all(r.fits for r in rows) else f"no: {', '.join(misfits)}"
    means = (_percent(_mean(rows, k)) for k in ("changed", "differ", "weight_error"))
    return rows[0].chip, rows[0].numbers, spread(there), *means, told


def _mean(rows: Sequence[ChipRow], what: str) -> float | None:
    values = [v for r in rows if (v := getattr(r, what)) is not None]
    return float(np.mean(values)) if values else None


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.2f}"


def table(rows: Sequence[ChipRow]) -> str:
    """Rows as aligned text."""
    lines = [
        f"{'network':<18}{'seed':>5}{'alive':>8}  {'chip':<13}{'numbers':<9}{'float':>7}{'there':>7}{'changed':>9}"
    ]
    for r in rows:
        if r.accuracy is None:
            lines.append(f"{r.model:<18}{r.seed:>5}{r.density:>8.1%}  {r.chip:<13}{r.note}")
            continue
        figures = f"{_percent(r.accuracy):>7}{_percent(r.chip_accuracy):>7}{_percent(r.changed):>9}"
        lines.append(f"{r.model:<18}{r.seed:>5}{r.density:>8.1%}  {r.chip:<13}{r.numbers:<9}{figures}")
    return "\n".join(lines)


def page(rows: Sequence[ChipRow], setting: Setting) -> Page:
    """A table per network, dense and pruned."""
    parts = [
        "Networks trained with snntorch, in the numbers of each chip: *all* is its whole arithmetic (weights, decays, "
        "thresholds, states; Loihi after Lava's bit-accurate model, Xylo after xylosim, both compared with these "
        "simulators spike by spike in the tests), *weights* rounds the weights alone to the bits that the chip has, "
        "for more of it is not known here. Nothing is trained again after rounding. The answer is the output neuron "
        "that spikes most; the pruned networks keep the weights into it. Accuracies (%) are means over the seeds with "
        "the standard deviation; the other shares are in %. A neuron of Xylo sends up to 31 spikes in a step where the "
        "network sends one; a network that drives its neurons that hard is another one there. For a network of your "
        "own: `sparsecirc fits MODEL --data test.npz`."
    ]
    refused: dict[str, None] = {}
    for (model, sparse), here in grouped(rows, lambda r: (r.model, r.density < 0.5)).items():
        ran = [r for r in here if r.accuracy is not None]
        refused |= dict.fromkeys(f"- {model} on {r.chip}: {r.note}" for r in here if r.accuracy is None)
        if not ran:
            continue
        same = list(grouped(ran, lambda r: r.chip).values())
        exact = [r.accuracy for r in same[0] if r.accuracy is not None]
        density = float(np.mean([r.density for r in ran]))
        seeds = f"{len(exact)} seed{'' if len(exact) == 1 else 's'}"
        facts = f"{WHAT[model]}; {density:.1%} of the connections are alive; {seeds}; in float64 {spread(exact)} %."
        parts += [f"## {model}, {'pruned' if sparse else 'dense'}", facts, markdown(HEAD, [_line(s) for s in same])]
    if refused:
        parts += ["## What a chip does not have", "\n".join(refused)]
    return Page("\n\n".join(parts) + "\n", {})


CHIP_STUDY = Study(
    "chips",
    "Trained networks in the numbers of chips",
    "no paper; N-MNIST and the Free Spoken Digit Dataset",
    tasks,
    page,
    row=ChipRow,
    table=table,
)
