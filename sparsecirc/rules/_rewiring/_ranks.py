"""One choice for all processes that train a model together."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import distributed

Change = tuple[NDArray[np.int64], NDArray[np.int64]]


def agreed(choose: Callable[[], Change], generator: torch.Generator) -> Change:
    """What the first process chooses; the others take it over, so that all hold the same connections.

    They take over the state of its generator too: choosing has drawn from it.

    An error of the first one is raised there; the others are told and stop with it.
    """
    if not (distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1):
        return choose()
    box: list[tuple[Change, torch.Tensor] | None] = [None]
    if distributed.get_rank() == 0:
        try:
            box[0] = choose(), generator.get_state()
        finally:
            distributed.broadcast_object_list(box, src=0)
    else:
        distributed.broadcast_object_list(box, src=0)
    if box[0] is None:
        raise RuntimeError("the first process could not choose connections: see its error")
    chosen, state = box[0]
    generator.set_state(state)
    return chosen
