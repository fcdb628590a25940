"""The rule that a recipe's schedule stands for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from sparsecirc.cli._choices import Schedule
from sparsecirc.errors import UsageError
from sparsecirc.masks import Masks
from sparsecirc.rules import Cubic, Rewind, UntilDrop

if TYPE_CHECKING:
    from torch.optim import Optimizer

    from sparsecirc._prune import Sparsity
    from sparsecirc.cli._recipe import Recipe

CUBIC_PART = 0.6
"""Part of all steps over which the cubic schedule prunes; the rest trains at the final sparsity."""
CUBIC_UPDATES = 20
"""Updates of the masks within that part."""


def make_rule(
    recipe: Recipe,
    masks: Masks,
    sparsity: Sparsity,
    how: Mapping[str, Any],
    *,
    steps_per_epoch: int,
    evaluate: Callable[[], float],
    optimizer: Optimizer,
) -> Cubic | Rewind | UntilDrop | None:
    """The rule to be stepped after every optimizer step; ``None`` where all is pruned before the first one.

    Args:
        recipe: schedule, epochs and their numbers.
        masks: of the model.
        sparsity: in the end, as for `prune`.
        how: score, pattern, scope and selection, as the library's ``prune`` takes them.
        steps_per_epoch: optimizer steps.
        evaluate: accuracy on samples that training never sees, for until-drop.
        optimizer: whose moments are cleared where weights return to earlier ones.

    Raises:
        UsageError: the numbers do not fit each other.
    """
    steps = steps_per_epoch * recipe.epochs
    if recipe.schedule is Schedule.CUBIC:
        end = max(2, round(CUBIC_PART * steps))
        return Cubic(masks, sparsity, 0, end, max(1, end // CUBIC_UPDATES), **how)
    if recipe.schedule is Schedule.ONE_SHOT:
        return None
    assert isinstance(sparsity, float)  # the recipe saw to it
    if recipe.schedule is Schedule.REWIND:
        # Rounds + 1 trainings of equal length: one before each pruning, and one after the last.
        every, back = steps // (recipe.rounds + 1), round(recipe.rewind_to * steps_per_epoch)
        if back >= every:
            raise UsageError(
                f"rewind-to {recipe.rewind_to:g} is not before the end of the first of {recipe.rounds + 1} trainings "
                f"of {every} steps: use a smaller --rewind-to, fewer --rounds or more --epochs"
            )
        share = 1.0 - (1.0 - sparsity) ** (1.0 / recipe.rounds)
        return Rewind(masks, share, recipe.rounds, every, to=back, optimizer=optimizer, **how)
    return UntilDrop(
        masks, evaluate, tolerance=recipe.tolerance, every=steps_per_epoch, share=recipe.share, limit=sparsity,
        optimizer=optimizer, **how,
    )  # fmt: skip
