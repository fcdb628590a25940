"""Networks of sparse hidden layers on images, dense and spiking, and their training: what `g2g` and `dst` share."""

from __future__ import annotations

import io
import itertools
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from benchmarks.studies._study import Setting
from sparsecirc.data import Dataset, fashion_mnist, mnist
from sparsecirc.errors import UsageError
from sparsecirc.nn import SparseLIF, SparseLinear, fast_sigmoid
from sparsecirc.patterns import Layering, at_random, by_index, g2g, mixer
from sparsecirc.rules import Rule

BATCH, RATE, DECAY = 256, 1e-3, 1e-4
GROUPS, P_INTRA, P_INTER = 8, 1.0, 0.15
CIFAR = "cifar10-jpeg"
SPARSE = 0.05
"""Density of ``mlp_sparse``."""
GROUPINGS: dict[str, Callable[[int], Layering]] = {
    "g2g_index": lambda _seed: by_index,
    "g2g_random": at_random,
    "g2g_mixer": lambda _seed: mixer,
}
WIRINGS = ("dense", "dense_same_params", "er", *GROUPINGS)
MakeRule = Callable[[nn.Module, torch.optim.Optimizer, int], Rule]
"""(network, optimizer, steps of an epoch) -> rule."""


@dataclass(frozen=True)
class Row:
    """One trained network.

    Attributes:
        study: name of the study.
        dataset: images it was trained on.
        network: ``mlp``, ``mlp_wide`` of twice the width, ``mlp_sparse`` with 5 % of the connections, ``patch_mlp``
            behind a patch encoder, or ``snn``.
        wiring: one of `WIRINGS`.
        rule: what rewired it, or ``static``.
        density: live connections over all of the hidden weights.
        params: trained numbers in all.
        seed: of weights, wiring and order of the data.
        accuracy: share of the test part.
        train_us_per_step: processor time of an optimizer step, rewiring included.
        train_us_per_step_dense: of the dense torch network of the same width, measured in turns with it.
    """

    study: str
    dataset: str
    network: str
    wiring: str
    rule: str
    density: float
    params: int
    seed: int
    accuracy: float
    train_us_per_step: float
    train_us_per_step_dense: float

    def to_json(self) -> dict[str, Any]:
        """The fields."""
        return asdict(self)

    def summary(self) -> str:
        """Accuracy and speed."""
        times = self.train_us_per_step_dense / self.train_us_per_step
        return f"{100 * self.accuracy:.2f} %, {times:.1f}x dense"


def table(rows: Sequence[Row]) -> str:
    """Rows as aligned text."""
    lines = [f"{'dataset':<15}{'network':<11}{'wiring':<19}{'rule':<30}{'density':>8}{'params':>10}{'seed':>5}"
             f"{'accuracy':>10}{'us/step':>10}{'dense':>10}"]  # fmt: skip
    lines += [
        f"{r.dataset:<15}{r.network:<11}{r.wiring:<19}{r.rule:<30}{r.density:>8.4f}{r.params:>10}{r.seed:>5}"
        f"{r.accuracy:>10.4f}{r.train_us_per_step:>10.0f}{r.train_us_per_step_dense:>10.0f}"
        for r in rows
    ]
    return "\n".join(lines)


@dataclass(frozen=True)
class Size:
    """What one kind of network costs in a setting.

    Attributes:
        width: units of each hidden layer.
        epochs: of training.
        train: images; None for all.
        steps: time steps of a spiking network.
        seeds: the first so many only; None for all.
    """

    width: int
    epochs: int
    train: int | None = None
    steps: int = 8
    seeds: int | None = None


# Data ----------------------------------------------------------------------------------------------------------------


@lru_cache(maxsize=1)
def images(name: str, train: int | None, folder: Path) -> tuple[torch.Tensor, ...]:
    """Training images (N, channels, side, side) and labels, then those of the test part.

    Raises:
        UsageError: the files are nowhere.
    """
    if name == CIFAR:
        x, y, x_test, y_test = cifar10_jpeg(folder)
    else:
        data: Dataset = {"mnist": mnist, "fashion_mnist": fashion_mnist}[name]()
        x, y, x_test, y_test = data.x_train[:, None], data.y_train, data.x_test[:, None], data.y_test
    if train is not None:  # the JPEG copies come class by class
        some = np.random.default_rng(0).permutation(len(x))[:train]
        few = np.random.default_rng(1).permutation(len(x_test))[: max(1000, train // 6)]
        x, y, x_test, y_test = x[some], y[some], x_test[few], y_test[few]
    return tuple(torch.from_numpy(np.ascontiguousarray(a)) for a in (x, y, x_test, y_test))


def cifar10_jpeg(folder: Path) -> tuple[np.ndarray, ...]:
    """CIFAR-10 from lossy JPEG copies, not the original bits: 50000 + 10000 images (3, 32, 32), centred.

    Raises:
        UsageError: SPARSECIRC_DATA does not hold cifar10-jpeg/cifar10_jpeg.npz.
    """
    kept = folder / "cifar10_jpeg_decoded.npy"
    file = Path(os.environ.get("SPARSECIRC_DATA", "")) / CIFAR / "cifar10_jpeg.npz"
    if not file.is_file():
        raise UsageError(f"{file} is not a file: set SPARSECIRC_DATA to the folder that holds {CIFAR}")
    with np.load(file) as found:
        label, is_train = found["label"].astype(np.int64), found["is_train"]
        if kept.is_file():
            pixels = np.load(kept)
        else:
            from PIL import Image

            data, offsets = found["jpeg"], found["offsets"]
            pixels = np.stack(
                [np.asarray(Image.open(io.BytesIO(data[a:b].tobytes()))) for a, b in itertools.pairwise(offsets)]
            )
            kept.parent.mkdir(parents=True, exist_ok=True)
            np.save(kept, pixels)
    x = pixels.transpose(0, 3, 1, 2).astype(np.float32) / 255
    mean, std = (s[:, None, None] for s in (x[is_train].mean((0, 2, 3)), x[is_train].std((0, 2, 3))))
    x = (x - mean) / std
    return x[is_train], label[is_train], x[~is_train], label[~is_train]


# Networks ------------------------------------------------------------------------------------------------------------


class Spiking(nn.Module):
    """Hidden layers of leaky integrate-and-fire neurons; the image drives the first one in every step."""

    def __init__(self, weights: Sequence[nn.Module], width: int, classes: int, steps: int) -> None:
        super().__init__()
        self.weights, self.steps = nn.ModuleList(weights), steps
        self.neurons = nn.ModuleList(SparseLIF(0.9, spike_grad=fast_sigmoid(5)) for _ in weights)
        self.out = nn.Linear(width, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Class scores of flat images (B, pixels): the read-out of the mean number of spikes."""
        z = self.neurons[0](self.weights[0](x).expand(self.steps, -1, -1))[0]
        for weight, neurons in zip(self.weights[1:], self.neurons[1:], strict=True):
            z = neurons(weight(z))[0]
        scores: torch.Tensor = self.out(z.mean(0))
        return scores


def patches(channels: int, side: int) -> nn.Module:
    """A convolution over patches that do not overlap, 32 channels of 4 x 4 of them: 512 features (G2GNet)."""
    return nn.Sequential(nn.Conv2d(channels, 32, side // 4, side // 4), nn.Flatten(), nn.ReLU())


def build(
    network: str, wiring: str, seed: int, shape: Sequence[int], size: Size, width: int | None = None
) -> nn.Module:
    """Three hidden layers and a dense read-out of ten classes; of another width where one is given."""
    wide = size.width if width is None else width
    channels, side = shape[0], shape[-1]
    torch.manual_seed(seed)
    encoder = [patches(channels, side)] if network == "patch_mlp" else [nn.Flatten()]
    inputs = 512 if network == "patch_mlp" else channels * side * side
    sides = [(inputs, wide), (wide, wide), (wide, wide)]
    if wiring.startswith("dense"):
        weights: list[nn.Module] = [nn.Linear(a, b) for a, b in sides]
    elif wiring == "er":
        shares = [m.density(b, a) for m, (a, b) in zip(g2g(3, GROUPS, P_INTRA, P_INTER), sides, strict=True)]
        if network == "mlp_sparse":
            shares = [SPARSE] * len(sides)
        weights = [SparseLinear(a, b, density=d) for (a, b), d in zip(sides, shares, strict=True)]
    else:
        makers = g2g(3, GROUPS, P_INTRA, P_INTER, grouping=GROUPINGS[wiring](seed))
        drawn = [m.draw(b, a, seed=10 * seed + k) for k, (m, (a, b)) in enumerate(zip(makers, sides, strict=True))]
        weights = [SparseLinear(a, b, pattern=p) for (a, b), p in zip(sides, drawn, strict=True)]
    if network == "snn":
        return nn.Sequential(*encoder, Spiking(weights, wide, 10, size.steps))
    layers = [layer for weight in weights for layer in (weight, nn.ReLU())]
    return nn.Sequential(*encoder, *layers, nn.Linear(wide, 10))


def hidden(model: nn.Module) -> list[nn.Linear | SparseLinear]:
    """The three hidden weights."""
    return [m for m in model.modules() if isinstance(m, (nn.Linear, SparseLinear))][:-1]


def density(model: nn.Module) -> float:
    """Live connections over all, of the hidden weights."""
    layers = hidden(model)
    live = sum(m.weight.nnz if isinstance(m, SparseLinear) else m.weight.numel() for m in layers)
    return live / sum(m.in_features * m.out_features for m in layers)


def params(model: nn.Module) -> int:
    """Trained numbers."""
    return sum(p.numel() for p in model.parameters())


def same_params_width(network: str, seed: int, shape: Sequence[int], size: Size) -> int:
    """Width of the dense network with as many parameters as a modular one of the usual width."""
    wanted = params(build(network, "g2g_index", seed, shape, size))
    low, high = 8, size.width
    while high - low > 1:
        middle = (low + high) // 2
        if params(build(network, "dense", seed, shape, size, middle)) > wanted:
            high = middle
        else:
            low = middle
    return low


# Training ------------------------------------------------------------------------------------------------------------


def optimizer_of(model: nn.Module) -> torch.optim.Optimizer:
    """Adam as in the paper."""
    return torch.optim.Adam(model.parameters(), RATE, weight_decay=DECAY)


def one_step(model: nn.Module, optimizer: torch.optim.Optimizer, x: torch.Tensor, y: torch.Tensor) -> None:
    """Forward, backward, update."""
    optimizer.zero_grad()
    nn.functional.cross_entropy(model(x), y).backward()  # type: ignore[no-untyped-call]
    optimizer.step()


def compared(model: nn.Module, dense: nn.Module, x: torch.Tensor, y: torch.Tensor, rounds: int = 8) -> list[float]:
    """Seconds of the processor per optimizer step of copies of both, in turns: the median of each."""
    both = [(m, optimizer_of(m)) for m in (model, dense)]
    took: list[list[float]] = [[], []]
    for _ in range(rounds):
        for k, (m, optimizer) in enumerate(both):
            begun = time.thread_time()
            one_step(m, optimizer, x, y)
            took[k].append(time.thread_time() - begun)
    return [float(np.median(t)) for t in took]


def train(
    model: nn.Module, data: Sequence[torch.Tensor], epochs: int, seed: int, make_rule: MakeRule | None
) -> tuple[float, float]:
    """Accuracy on the test part, and seconds of the processor that rewiring took in all."""
    x, y, x_test, y_test = data
    torch.manual_seed(1000 + seed)
    optimizer = optimizer_of(model)
    steps = len(y) // BATCH
    rule = None if make_rule is None else make_rule(model, optimizer, steps)
    rewiring = 0.0
    model.train()
    for _ in range(epochs):
        order = torch.randperm(len(y))
        for k in range(steps):
            index = order[k * BATCH : (k + 1) * BATCH]
            one_step(model, optimizer, x[index], y[index])
            if rule is not None:
                begun = time.thread_time()
                rule.step()
                rewiring += time.thread_time() - begun
    model.eval()
    with torch.no_grad():
        right = sum(
            int((model(x_test[k : k + 1000]).argmax(1) == y_test[k : k + 1000]).sum())
            for k in range(0, len(y_test), 1000)
        )
    return right / len(y_test), rewiring


def trained_row(
    study: str, setting: Setting, dataset: str, network: str, wiring: str, rule: str, make_rule: MakeRule | None,
    size: Size, seed: int,
) -> list[Row]:  # fmt: skip
    """Train one network from nothing."""
    torch.set_num_threads(1)
    data = images(dataset, size.train, setting.folder)
    shape = data[0].shape[1:]
    width = same_params_width(network, seed, shape, size) if wiring == "dense_same_params" else None
    x, y = data[0][:BATCH], data[1][:BATCH]
    mine, dense = compared(
        build(network, wiring, seed, shape, size, width), build(network, "dense", seed, shape, size), x, y
    )
    model = build(network, wiring, seed, shape, size, width)
    accuracy, rewiring = train(model, data, size.epochs, seed, make_rule)
    per_step = mine + rewiring / max(1, size.epochs * (len(data[1]) // BATCH))
    return [
        Row(study, dataset, network, wiring, rule, round(density(model), 6), params(model), seed, accuracy,
            round(1e6 * per_step, 1), round(1e6 * dense, 1))
    ]  # fmt: skip
