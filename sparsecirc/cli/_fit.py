"""A data set brought into the shape that a network takes, and how well the network does on it."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass, replace
from difflib import get_close_matches
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sparsecirc.cli._console import Out, human_bytes
from sparsecirc.data import Dataset
from sparsecirc.errors import UsageError
from sparsecirc.ir import Graph

EVAL_BATCH = 256


def load_data(name: str, out: Out) -> Dataset:
    """The data set called ``name``; says so where a file has to be downloaded.

    Raises:
        UsageError: there is none, or its files cannot be had.
    """
    from sparsecirc import data

    said: set[str] = set()

    def progress(file: str, _done: int, total: int) -> None:
        if file not in said:
            said.add(file)
            out.say(f"downloading {file}{f', {human_bytes(total)}' if total else ''}")

    known: dict[str, Callable[[], Dataset]] = {
        "digits": data.digits,
        "mnist": lambda: data.mnist(progress=progress),
        "fashion_mnist": lambda: data.fashion_mnist(progress=progress),
        "japanese_vowels": lambda: data.japanese_vowels(progress=progress),
    }
    if name not in known:
        near = get_close_matches(name, known, n=1)
        hint = f"did you mean '{near[0]}'? " if near else ""
        raise UsageError(f"data set '{name}' is unknown: {hint}There are {', '.join(known)}")
    return known[name]()


@dataclass(frozen=True)
class Fitted:
    """A data set in the layout of one network.

    Attributes:
        x_train: (N, T, features), or (N, features) for a network without time.
        y_train: int64 (N,).
        x_test: like ``x_train``.
        y_test: like ``y_train``.
        lengths_train: valid steps, or ``None``.
        lengths_test: valid steps, or ``None``.
        batch_first: whether the network takes (B, T, ...).
        timed: whether it takes sequences at all.
    """

    x_train: NDArray[np.float32]
    y_train: NDArray[np.int64]
    x_test: NDArray[np.float32]
    y_test: NDArray[np.int64]
    lengths_train: NDArray[np.int64] | None
    lengths_test: NDArray[np.int64] | None
    batch_first: bool
    timed: bool

    def held_out(self, seed: int) -> tuple[Fitted, Fitted]:
        """The data without a tenth of its training part, and with that tenth in place of the test part.

        Raises:
            UsageError: fewer than ten training samples.
        """
        count = len(self.y_train)
        if count < 10:
            raise UsageError(f"{count} training samples: expected at least 10, so that a tenth can be held out")
        order = np.random.default_rng(seed).permutation(count)
        some, rest = order[: count // 10], np.sort(order[count // 10 :])
        lengths = self.lengths_train
        return (
            replace(
                self, x_train=self.x_train[rest], y_train=self.y_train[rest],
                lengths_train=None if lengths is None else lengths[rest],
            ),
            replace(
                self, x_test=self.x_train[some], y_test=self.y_train[some],
                lengths_test=None if lengths is None else lengths[some],
            ),
        )  # fmt: skip

    def logits(self, model: Any, x: NDArray[np.float32], lengths: NDArray[np.int64] | None) -> Any:
        """Class scores (B, classes) of a torch module: its first output, summed over time where it has time."""
        import torch

        from sparsecirc.cli._runners import tensors

        batch = torch.from_numpy(np.ascontiguousarray(x))
        if self.timed and not self.batch_first:
            batch = batch.transpose(0, 1)
        takes_lengths = lengths is not None and "lengths" in inspect.signature(model.forward).parameters
        result = model(batch, lengths=torch.from_numpy(lengths)) if takes_lengths else model(batch)
        first = tensors(result)[0]
        return first.sum(dim=1 if self.batch_first else 0) if first.ndim == 3 else first

    def accuracy(self, model: Any) -> float:
        """Share of the test part that the module gets right."""
        import torch

        right = 0
        model.eval()
        with torch.no_grad():
            for start in range(0, len(self.y_test), EVAL_BATCH):
                part = slice(start, start + EVAL_BATCH)
                lengths = None if self.lengths_test is None else self.lengths_test[part]
                guess = self.logits(model, self.x_test[part], lengths).argmax(dim=-1).numpy()
                right += int((guess == self.y_test[part]).sum())
        return right / len(self.y_test)


def fit(graph: Graph, dataset: Dataset) -> Fitted:
    """``dataset`` for a network, by the shape of its input and output.

    Raises:
        UsageError: they do not fit; names both shapes.
    """
    steps, features = dataset.x_train.shape[1:]
    if len(graph.inputs) != 1:
        raise UsageError(f"the network has {len(graph.inputs)} inputs: expected one to train on {dataset.name}")
    node = graph.inputs[0]
    x_train, x_test = dataset.x_train, dataset.x_test
    if not node.time and int(np.prod(node.shape)) == steps * features:
        x_train, x_test = (x.reshape(len(x), *node.shape) for x in (x_train, x_test))
    elif not node.time or tuple(node.shape) != (features,):
        raise UsageError(
            f"data set {dataset.name} has {steps} steps of {features} features, the network takes "
            f"{'steps of ' if node.time else ''}{tuple(node.shape)}: expected a network of {features} inputs"
        )
    value = next(iter(graph.outputs.values()))
    width = graph.specs[value].shape[-1]
    if width < dataset.classes:
        raise UsageError(f"data set {dataset.name} has {dataset.classes} classes, the network's first output {width}")
    return Fitted(
        x_train, dataset.y_train, x_test, dataset.y_test, dataset.lengths_train, dataset.lengths_test,
        graph.batch_first, node.time,
    )  # fmt: skip
