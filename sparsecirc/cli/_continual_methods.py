"""Methods of continual learning by name, with the settings that a recipe may give them."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from difflib import get_close_matches
from functools import partial
from typing import TYPE_CHECKING, Any

from sparsecirc.errors import UsageError

if TYPE_CHECKING:
    from sparsecirc.cli._recipe_file import RecipeFile
    from sparsecirc.cli._stream import Stream
    from sparsecirc.continual import Method


def known() -> dict[str, Callable[..., Method]]:
    """What makes each method; the parameters with a default are what ``settings`` of a recipe may hold."""
    from sparsecirc import continual as cl

    def hlop(
        rule: cl.Oja, *, mode: str = "delta", first: Any = None, more: Any = None, share: float = 0.25,
        energy: float = 0.999, protect: float = 1.0, rows: str = "rate",
    ) -> Method:  # fmt: skip
        ranks = cl.Ranks(energy=energy, share=share) if first is None else cl.Ranks(tuple(first), tuple(more or ()))
        chosen = cl.firing_rate if rows == "rate" else cl.each_step
        return cl.HLOP(ranks, rule=rule, mode=cl.Mode(mode), rows=chosen, energy=protect)

    return {
        "hlop": partial(hlop, cl.ORTHONORMAL),
        "hlop_published": partial(hlop, cl.PUBLISHED),
        "finetune": lambda: cl.Finetune(),
        "joint": lambda: cl.Joint(),
        "ewc": lambda strength=100.0, samples=500: cl.EWC(strength, samples=samples),
        "si": lambda strength=0.1, damping=0.1: cl.SI(strength, damping=damping),
        "replay": lambda per_task=100: cl.Replay(per_task),
        "derpp": lambda alpha=0.5, beta=0.5, per_task=100: cl.DERpp(alpha, beta, per_task=per_task),
        "gpm": lambda first=0.95, other=0.99, samples=300: cl.GPM(first, other, samples=samples),
        "sgp": lambda scale=10.0, first=0.95, other=0.99: cl.SGP(scale, first=first, other=other),
        "owm": lambda alpha=1.0: cl.OWM(alpha),
        "adam_nscl": lambda share=0.01: cl.AdamNSCL(share),
        "ledger": lambda share=None: cl.MaskLedger(share),
    }


WORDS = {"mode": ("trace", "grad", "delta"), "rows": ("rate", "step")}
"""Settings that are words."""
MAY_FOLLOW = ("replay",)
"""Methods that may stand behind a ``+``: they add samples and leave the loss of the first alone."""


def _makers(name: str, where: str) -> list[tuple[str, Callable[..., Method]]]:
    """The parts of a name such as ``hlop+replay`` and what makes each.

    Raises:
        UsageError: there is no such method, or it cannot be added to another.
    """
    makers = known()
    parts = name.split("+")
    for k, part in enumerate(parts):
        if part not in makers:
            near = get_close_matches(part, makers, n=1)
            hint = f"did you mean '{near[0]}'? " if near else ""
            raise UsageError(f"{where}method '{part}' is unknown: {hint}There are {', '.join(makers)}, and hlop+replay")
        if k and part not in MAY_FOLLOW:
            raise UsageError(f"{where}method '{name}': behind a + expected {', '.join(MAY_FOLLOW)}")
    return [(part, makers[part]) for part in parts]


def make_method(name: str, settings: Mapping[str, Mapping[str, Any]]) -> Method:
    """A new method with the settings of a recipe."""
    from sparsecirc.continual import Combined

    made = [make(**settings.get(part, {})) for part, make in _makers(name, "")]
    return made[0] if len(made) == 1 else Combined(*made)


def check_methods(stream: Stream, file: RecipeFile) -> None:
    """Refuse methods that do not exist and settings that they do not have.

    Raises:
        UsageError: names where it stands.
    """
    for name in stream.methods:
        _makers(name, "" if name not in (file.fields.get("methods") or ()) else file.where("methods"))
    for name, given in stream.settings.items():
        where = file.where("settings", name)
        ((_, make),) = _makers(name, where)[:1]
        has = inspect.signature(make).parameters
        for key, value in given.items():
            if key not in has:
                there = ", ".join(has) or "none"
                raise UsageError(f"{file.where('settings', name, key)}method '{name}' has no setting '{key}': {there}")
            if not _fits(value, has[key].default, key):
                expected = ", ".join(WORDS[key]) if key in WORDS else "a number, or for ranks a list of them"
                raise UsageError(
                    f"{file.where('settings', name, key)}setting '{key}' of '{name}' is {value!r}: expected {expected}"
                )


def _fits(value: object, default: object, key: str) -> bool:
    if key in WORDS:
        return value in WORDS[key]
    if isinstance(value, bool):
        return False
    if isinstance(default, int):
        return isinstance(value, int) and value > 0
    if isinstance(default, float) or key == "share":  # of the ledger: none by default
        return isinstance(value, (int, float)) and value >= 0
    return isinstance(value, list) and bool(value) and all(isinstance(v, int) and v > 0 for v in value)
