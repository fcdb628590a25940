"""Scores that look at data: gradients of a torch model, and the activity of a network's units.

Each function returns a `Score` for `prune`, `Masks.prune` and the schedules of `sparsecirc.rules`.
"""

from sparsecirc.saliency._activity import activity
from sparsecirc.saliency._gradients import Loss, fisher, grasp, snip, taylor
from sparsecirc.saliency._movement import Movement
from sparsecirc.saliency._table import Table

__all__ = ["Loss", "Movement", "Table", "activity", "fisher", "grasp", "snip", "taylor"]
