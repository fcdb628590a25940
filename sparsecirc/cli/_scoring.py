"""The score of a recipe: of the weights alone, or of what data does to them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sparsecirc.cli._choices import Method
from sparsecirc.cli._console import Out
from sparsecirc.scores import Score

if TYPE_CHECKING:
    from sparsecirc.cli._fit import Fitted
    from sparsecirc.cli._models import Loaded
    from sparsecirc.cli._recipe import Recipe

STEPS = 100
"""Time steps of the input on which activity is measured where there is no data set."""


class Fresh:
    """A score made from the present weights when it is first asked, and again after `forget`.

    Schedules rank several times while the weights change; what was computed for earlier weights says little by then.
    """

    def __init__(self, make: Callable[[], Score]) -> None:
        self._make = make
        self._made: Score | None = None

    def forget(self) -> None:
        """The weights have changed."""
        self._made = None

    def __call__(self, weight: NDArray[Any], name: str) -> NDArray[Any]:
        """Scores of the shape of ``weight``."""
        if self._made is None:
            self._made = self._make()
        return self._made(weight, name)


def score_of(out: Out, recipe: Recipe, loaded: Loaded, model: Any, fitted: Fitted | None) -> Score:
    """What a connection is worth by the method of ``recipe``.

    Args:
        out: told what activity was measured on.
        recipe: the method, and how many samples it may look at.
        loaded: the network.
        model: its torch module where it has one; gradients and movement need it.
        fitted: the data of the recipe, if any.

    Raises:
        UsageError: the method does not fit the network or the data.
    """
    if recipe.method is Method.ACTIVITY:
        return _activity(out, recipe, loaded, fitted)
    if recipe.method is Method.MOVEMENT:
        from sparsecirc.saliency import Movement

        return Movement(model)
    if recipe.method.looks_at_gradients:
        assert fitted is not None  # the recipe saw to it
        return _gradients(recipe, model, fitted)
    return recipe.plain_score()


def _gradients(recipe: Recipe, model: Any, fitted: Fitted) -> Fresh:
    import torch

    from sparsecirc import saliency

    makers = {
        Method.SNIP: saliency.snip,
        Method.TAYLOR: saliency.taylor,
        Method.FISHER: saliency.fisher,
        Method.GRASP: saliency.grasp,
    }
    chosen = _some(recipe, fitted)
    batches = [chosen[k : k + recipe.batch_size] for k in range(0, len(chosen), recipe.batch_size)]

    def loss(net: Any, part: NDArray[np.int64]) -> Any:
        lengths = None if fitted.lengths_train is None else fitted.lengths_train[part]
        logits = fitted.logits(net, fitted.x_train[part], lengths)
        return torch.nn.functional.cross_entropy(logits, torch.from_numpy(fitted.y_train[part]))

    def make() -> Score:
        trains = model.training
        model.eval()  # dropout would make the score a matter of chance
        try:
            return makers[recipe.method](model, batches, loss)
        finally:
            model.train(trains)

    return Fresh(make)


def _activity(out: Out, recipe: Recipe, loaded: Loaded, fitted: Fitted | None) -> Score:
    from sparsecirc.saliency import activity

    if fitted is None:
        x: Any = loaded.input(batch=min(recipe.score_samples, 16), steps=STEPS, seed=recipe.seed)
        out.say(f"activity is measured on {loaded.input_note}: add --data for that of real samples")
        return activity(loaded.graph, x)
    part = _some(recipe, fitted)
    x = fitted.x_train[part]
    if fitted.timed and not fitted.batch_first:
        x = x.swapaxes(0, 1)
    return activity(loaded.graph, x, lengths=None if fitted.lengths_train is None else fitted.lengths_train[part])


def _some(recipe: Recipe, fitted: Fitted) -> NDArray[np.int64]:
    """Indices of the samples of the training part that the score may look at."""
    return np.random.default_rng(recipe.seed).permutation(len(fitted.y_train))[: recipe.score_samples]
