"""`Dale`: each presynaptic unit excites or inhibits, whatever training does."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from sparsecirc._prune import unknown_name
from sparsecirc.errors import UsageError
from sparsecirc.masks import Masks
from sparsecirc.rules._rewiring._sites import sites_of


class Dale:
    """Keeps the sign of every connection that of its source unit (Dale's law); a rule like any other.

    At the start each live weight becomes sign |w|; after each optimizer step those of the wrong sign become 0. Any
    rewiring goes with it, since what grows starts at 0.

    Args:
        target: a model with sparse layers, or the masks of a dense one.
        signs: by weight name, +1 or -1 for each source unit, (cols,): `patterns.dale_signs`.

    Raises:
        UsageError: an unknown weight, or not one sign per source.
    """

    def __init__(self, target: nn.Module | Masks, signs: Mapping[str, NDArray[np.int8]]) -> None:
        sites = sites_of(target)
        self._signs = {}
        for name, given in signs.items():
            if name not in sites:
                raise unknown_name("signs", name, list(sites))
            sign = np.asarray(given, np.float32)
            if sign.shape != (sites[name].pattern.shape[1],) or not np.all(np.abs(sign) == 1):
                raise UsageError(
                    f"signs of '{name}' of shape {sign.shape}: expected +1 or -1 for each of its "
                    f"{sites[name].pattern.shape[1]} sources"
                )
            self._signs[name] = sign
        self._sites = {name: sites[name] for name in self._signs}
        self.steps = 0
        for name, site in self._sites.items():
            site.set_values(np.abs(site.values()) * self._signs[name][site.pattern.indices])

    def step(self) -> bool:
        """Call once after each optimizer step; whether a weight had to be corrected."""
        self.steps += 1
        changed = False
        for name, site in self._sites.items():
            sign, values = self._signs[name][site.pattern.indices], site.values()
            wrong = sign * values < 0
            if wrong.any():
                changed = True
                site.set_values(np.where(wrong, np.float32(0), values))
        return changed

    def state_dict(self) -> dict[str, Any]:
        """Steps made; the signs are an argument."""
        return {"rule": "Dale", "steps": self.steps}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a state of :meth:`state_dict`.

        Raises:
            UsageError: the state of another rule.
        """
        if state.get("rule") != "Dale":
            raise UsageError(f"state of {state.get('rule', 'something else')!r}: expected the state_dict() of a Dale")
        self.steps = int(state["steps"])
