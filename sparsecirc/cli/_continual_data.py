"""From a recipe of ``continual`` to its tasks, and to a network for one seed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from sparsecirc import continual as cl
from sparsecirc import data
from sparsecirc.cli._console import Out
from sparsecirc.cli._fit import load_data
from sparsecirc.cli._stream import CodingName, FeedbackName, LearningName, Neurons, OptimizerName, Stream, Tasks
from sparsecirc.cli._stream import Source as Name
from sparsecirc.errors import UsageError

if TYPE_CHECKING:
    from torch import Tensor

    Arrays = tuple[Tensor, Tensor, Tensor, Tensor]

STEPS = 5
"""Of samples that are no sequences, where a recipe does not say."""


class Source:
    """The arrays of a recipe, read once, and what is made of them for each seed.

    Args:
        stream: the recipe.
        name: of the scenario, for tables.
        out: told of downloads.

    Raises:
        UsageError: the data are not there and cannot be had.
    """

    def __init__(self, stream: Stream, name: str, out: Out) -> None:
        self.stream, self.name = stream, name
        self.groups: list[Arrays] = []
        if stream.scenario is Tasks.SPEAKERS:
            chosen = data.SPEAKERS[: stream.tasks]
            if len(chosen) < stream.tasks:
                raise UsageError(f"{stream.tasks} tasks: there are {len(chosen)} speakers, one for each")
            self.groups = [_shuffled(cl.sequences(_speech(stream, (name,)))) for name in chosen]
        self.arrays: Arrays = self.groups[0] if self.groups else _shuffled(_arrays(stream, out))
        self._scenarios: dict[int, cl.Scenario] = {}

    def scenario(self, seed: int) -> cl.Scenario:
        """The tasks; orders of features are drawn with the seed."""
        if seed not in self._scenarios:
            self._scenarios = {seed: self._make(seed)}
        return self._scenarios[seed]

    def _make(self, seed: int) -> cl.Scenario:
        stream = self.stream
        increment = cl.Increment(stream.increment.value)
        if self.groups:
            made = cl.from_tasks(self.groups, name=self.name)
        elif stream.scenario is Tasks.SPLIT:
            made = cl.split(*self.arrays, stream.tasks, increment=increment, name=self.name)
        elif stream.scenario is Tasks.ROTATED:
            made = cl.rotated(*self.arrays, stream.tasks, name=self.name)
        else:
            made = cl.permuted(*self.arrays, stream.tasks, seed=seed, name=self.name)
        most = max(len(self.arrays[1]), len(self.arrays[3]))
        return made.head(stream.train or most, stream.test or most)

    def network(self, scenario: cl.Scenario, seed: int) -> cl.SpikingNet:
        """A new network, with weights and a pattern of the seed."""
        stream = self.stream
        sequence = stream.data.is_sequence
        torch.manual_seed(seed)
        codings: dict[CodingName, cl.Coding] = {
            CodingName.DIRECT: cl.sequence if sequence else cl.direct,
            CodingName.RATE: cl.RateCoding(),
            CodingName.LATENCY: cl.LatencyCoding(),
        }
        learning: dict[LearningName, Any] = {
            LearningName.BPTT: cl.BPTT(), LearningName.OTTT: cl.OTTT(), LearningName.DSR: cl.DSR(),
        }  # fmt: skip
        feedback: Any = {
            FeedbackName.EXACT: cl.exact,
            FeedbackName.ALIGNMENT: cl.FeedbackAlignment(seed=seed),
            FeedbackName.SIGN_SYMMETRIC: cl.sign_symmetric,
        }[stream.feedback]
        recurrent = stream.neurons is Neurons.RECURRENT
        return cl.mlp(
            scenario.features[-1], stream.hidden, scenario.outputs, heads=scenario.heads,
            neurons=cl.rlif(density=stream.density) if recurrent else None, density=stream.density,
            steps=scenario.features[0] if sequence else stream.steps or STEPS, coding=codings[stream.coding],
            learning=learning[stream.learning], feedback=feedback, seed=seed,
        )  # fmt: skip

    def setting(self, seed: int) -> cl.Setting:
        """How it is trained."""
        rate = self.stream.learning_rate
        make = cl.sgd(rate) if self.stream.optimizer is OptimizerName.SGD else cl.adam(rate)
        return cl.Setting(make, self.stream.epochs, self.stream.batch_size, seed)


def _speech(stream: Stream, speakers: tuple[str, ...] = data.SPEAKERS) -> data.Dataset:
    return data.spoken_digits(speakers=speakers, **({} if stream.steps is None else {"steps": stream.steps}))


def _arrays(stream: Stream, out: Out) -> Arrays:
    """The data set of a recipe as tensors."""
    if not stream.data.is_sequence:
        return cl.flat(load_data(stream.data.value, out), standardise=stream.coding is CodingName.DIRECT)
    if stream.data is Name.SPOKEN_DIGITS:
        return cl.sequences(_speech(stream))
    if stream.data is Name.NMNIST:
        return cl.sequences(data.nmnist() if stream.steps is None else data.nmnist(steps=stream.steps))
    return cl.sequences(load_data(stream.data.value, out))


def _shuffled(arrays: Arrays) -> Arrays:
    """Both parts in a random order that never changes: publishers sort samples, by writer or by difficulty."""
    rng = np.random.default_rng(0)
    x, y, x_test, y_test = arrays
    order, order_test = torch.from_numpy(rng.permutation(len(y))), torch.from_numpy(rng.permutation(len(y_test)))
    return x[order], y[order], x_test[order_test], y_test[order_test]
