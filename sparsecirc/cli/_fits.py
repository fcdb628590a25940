"""``sparsecirc fits``: does a spiking network go onto a neuromorphic chip?"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sparsecirc.cli._command import Command, ModelSpec
from sparsecirc.cli._console import Out, table
from sparsecirc.errors import UnsupportedError, UsageError

if TYPE_CHECKING:
    from sparsecirc.hardware import Check


def fits(
    out: Out,
    spec: ModelSpec,
    chip: Annotated[str, typer.Option("--chip", help="Which chip, or 'all'.")] = "all",
    limit: Annotated[
        list[str] | None,
        typer.Option("--limit", metavar="NAME=VALUE", help="Set a limit of the chip, e.g. one that is not public."),
    ] = None,
    cores: Annotated[bool, typer.Option("--cores", help="Show what each core would hold.")] = False,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Write the network pruned until it fits, a .safetensors file.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace the output if it exists.")] = False,
) -> None:
    """Compare what a network needs with what a chip has; exit 3 where it does not fit, with the pruning that helps."""
    from sparsecirc.cli._models import load
    from sparsecirc.cli._outputs import check_free
    from sparsecirc.hardware import CHIPS, chip_named, terms
    from sparsecirc.hardware import fits as compare
    from sparsecirc.ir import save_graph

    own = limits(limit)
    chips = [c.with_limits(**own) for c in (CHIPS.values() if chip == "all" else [chip_named(chip)])]
    if output is not None and len(chips) > 1:
        raise UsageError("--output writes the network for one chip: add --chip, e.g. --chip loihi1")
    if output is not None:
        check_free(output, force)
    loaded = load(spec, out)
    found = [compare(loaded.graph, c) for c in chips]
    counted = terms(loaded.graph, loaded.input(batch=2, steps=16))
    in_words = f"in NeuroBench's terms, on {loaded.input_note} of 16 steps: {counted}"
    document = {"model": spec.text, "fits": [f.to_json() for f in found], "neurobench": counted.to_json()}
    if len(found) > 1:
        rows = [(f.chip.name, "yes" if f.ok else "no", _first(f.checks), ", ".join(f.unknown) or "-") for f in found]
        out.data(document, table(("chip:", "fits:", "what is tightest:", "unknown:"), rows), in_words)
        out.suggest(f"sparsecirc fits {spec.text} --chip {found[0].chip.name}")
        return
    fit = found[0]
    spread = [str(fit.partition)] if cores and fit.partition is not None else []
    out.data(document, str(fit), *spread, in_words)
    if output is not None:
        save_graph(fit.pruned(loaded.graph), output)
        out.say(f"written to {output}")
    if not fit.ok:
        bad = next(c for c in fit.checks if not c.ok)
        numbers = "" if bad.needed is None else f" needs {bad.needed:,} of {bad.allowed:,}"
        raise UnsupportedError(f"'{bad.layer}' does not fit on {fit.chip.title}: {bad.limit}{numbers}; {bad.cure}")
    out.suggest(f"sparsecirc export {spec.text} --format nir -o {loaded.name}.nir")


def limits(given: list[str] | None) -> dict[str, int]:
    """The limits that the user set.

    Raises:
        UsageError: one is not NAME=VALUE with a whole number.
    """
    found: dict[str, int] = {}
    for text in given or ():
        name, _, value = text.partition("=")
        if not value.isdigit():
            raise UsageError(f"--limit {text}: expected NAME=VALUE with a whole number, e.g. neurons_per_core=1024")
        found[name.strip()] = int(value)
    return found


def _first(checks: Sequence[Check]) -> str:
    worst = max(checks, key=lambda c: (not c.ok, 0 if c.needed is None else c.needed / (c.allowed or 1)), default=None)
    if worst is None:
        return "-"
    return worst.limit if worst.needed is None else f"{worst.limit}: {worst.needed:,} of {worst.allowed:,}"


COMMAND = Command(
    fits,
    (
        "sparsecirc fits demo:snn",
        "sparsecirc fits runs/snn --chip loihi1 --cores",
        "sparsecirc fits runs/snn --chip loihi2 --limit neurons_per_core=1024",
        "sparsecirc fits runs/snn --chip xylo-audio2 -o small.safetensors",
    ),
)
