"""Movement: connections whose weights grow while they are trained."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from sparsecirc._torch_layers import weight_refs
from sparsecirc.errors import NothingMatchedError, UsageError
from sparsecirc.masks import matrix_shape


class Movement:
    """The score ``- sum_t w_t dL_t/dw``: positive where training moves a weight away from zero.

    Source: Sanh, Wolf & Rush 2020. Call `step` after each backward pass, before the optimizer steps; the object itself
    is the score, e.g. for `rules.Cubic`, which ranks anew at each update::

        score = Movement(model)
        rule = Cubic(masks, 0.9, begin=0, end=1000, every=100, score=score)
        ...
        loss.backward(); score.step(); optimizer.step(); rule.step()

    Attributes:
        steps: how many gradients were seen.
    """

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._refs = list(weight_refs(model))
        if not self._refs:
            raise NothingMatchedError("the model has no weights that can be pruned, so there is nothing to follow")
        self._sums = {ref.name: torch.zeros_like(ref.parameter(model).detach()) for ref in self._refs}
        self.steps = 0

    @torch.no_grad()
    def step(self) -> None:
        """Take in the gradients of one backward pass; weights without one are passed over."""
        for ref in self._refs:
            parameter = ref.parameter(self._model)
            if parameter.grad is not None:
                self._sums[ref.name].addcmul_(parameter, parameter.grad, value=-1.0)
        self.steps += 1

    def __call__(self, weight: NDArray[Any], name: str) -> NDArray[Any]:
        """The sums so far, of the shape of ``weight``.

        Raises:
            UsageError: another model's weight.
        """
        if name not in self._sums:
            raise UsageError(f"movement knows nothing of weight '{name}': it follows {', '.join(self._sums)}")
        array = self._sums[name].to("cpu", torch.float64).numpy()
        return np.asarray(array.reshape(matrix_shape(array.shape)))

    def state_dict(self) -> dict[str, Any]:
        """Steps and sums; loads with ``torch.load(weights_only=True)``."""
        return {"steps": self.steps, "sums": {n: s.clone() for n, s in self._sums.items()}}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a state of :meth:`state_dict`.

        Raises:
            UsageError: the state of another model.
        """
        sums: Mapping[str, Tensor] = state.get("sums", {})
        same = set(sums) == set(self._sums) and all(sums[n].shape == s.shape for n, s in self._sums.items())
        if not same or not isinstance(state.get("steps"), int):
            raise UsageError("this is no movement state of this model: its weights have other names or shapes")
        for name, total in self._sums.items():
            total.copy_(sums[name])
        self.steps = state["steps"]
