"""``sparsecirc fits``: does a spiking network go onto a neuromorphic chip?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from zipfile import BadZipFile

import numpy as np
import typer
from numpy.typing import NDArray

from sparsecirc.cli._command import Command, ModelSpec
from sparsecirc.cli._console import Out, table
from sparsecirc.errors import FileFormatError, UnsupportedError, UsageError

if TYPE_CHECKING:
    from sparsecirc.hardware import Check, Chip, Cost
    from sparsecirc.ir import Graph


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
    data: Annotated[
        Path | None,
        typer.Option(
            "--data",
            help="Measure what the numbers of each chip cost on a .npz file: x, spikes in the layout of the input, and "
            "y, the class of each sample, if you have it.",
        ),
    ] = None,
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
    asked = None if data is None else samples(data, loaded.graph)
    found = [compare(loaded.graph, c) for c in chips]
    costs = {} if asked is None else {c.name: _cost(loaded.graph, c, *asked) for c in chips}
    counted = terms(loaded.graph, loaded.input(batch=2, steps=16))
    in_words = f"in NeuroBench's terms, on {loaded.input_note} of 16 steps: {counted}"
    document = {"model": spec.text, "fits": [f.to_json() for f in found], "neurobench": counted.to_json()}
    if costs:
        document["costs"] = {n: {"refused": c} if isinstance(c, str) else asdict(c) for n, c in costs.items()}
    if len(found) > 1:
        rows = [(f.chip.name, "yes" if f.ok else "no", _first(f.checks), ", ".join(f.unknown) or "-") for f in found]
        said = [f"\n{_said(c, costs[c.name])}" for c in chips if costs]
        out.data(document, table(("chip:", "fits:", "what is tightest:", "unknown:"), rows), in_words, *said)
        out.suggest(f"sparsecirc fits {spec.text} --chip {found[0].chip.name}")
        return
    fit = found[0]
    spread = [str(fit.partition)] if cores and fit.partition is not None else []
    said = [_said(c, costs[c.name]) for c in chips if costs]
    out.data(document, str(fit), *spread, in_words, *said)
    if output is not None:
        save_graph(fit.pruned(loaded.graph), output)
        out.say(f"written to {output}")
    if not fit.ok:
        bad = next(c for c in fit.checks if not c.ok)
        numbers = "" if bad.needed is None else f" needs {bad.needed:,} of {bad.allowed:,}"
        raise UnsupportedError(f"'{bad.layer}' does not fit on {fit.chip.title}: {bad.limit}{numbers}; {bad.cure}")
    runner = RUNNERS.get(fit.chip.name, "pynn")
    out.suggest(f"sparsecirc export {spec.text} --format {runner} -o {loaded.name}_{runner.replace('-', '_')}")


RUNNERS = {"loihi1": "nengo-loihi", "loihi2": "lava"} | dict.fromkeys(
    ("xylo-audio2", "xylo-audio3", "xylo-imu"), "xylo"
)
"""The export that a simulator of the chip runs; connection lists for the others."""


def samples(file: Path, graph: Graph) -> tuple[NDArray[Any], NDArray[Any] | None]:
    """Spikes, time first, and labels of a .npz file.

    Raises:
        FileFormatError: it is no such file, or its arrays do not fit the network.
    """
    if not file.is_file():
        raise FileFormatError(f"{file} is not a file: expected a .npz with x and y, as numpy.savez writes it")
    try:
        with np.load(file, allow_pickle=False) as held:
            arrays = {name: held[name] for name in held.files}
    except (ValueError, OSError, EOFError, AttributeError, TypeError, BadZipFile) as error:
        raise FileFormatError(f"{file} holds no arrays by name: expected a .npz with x and y") from error
    if "x" not in arrays:
        raise FileFormatError(
            f"{file} holds {', '.join(arrays) or 'nothing'}: expected x, and y where there are labels"
        )
    shape = graph.inputs[0].shape
    x, labels = arrays["x"], arrays.get("y")
    if x.shape[2:] != shape or x.dtype.kind not in "biuf":
        axes = ", ".join([*(("batch", "time") if graph.batch_first else ("time", "batch")), *map(str, shape)])
        raise FileFormatError(f"x in {file} has shape {x.shape} of {x.dtype}: expected numbers ({axes})")
    x = np.swapaxes(x, 0, 1) if graph.batch_first else x
    if labels is not None and (labels.shape != x.shape[1:2] or labels.dtype.kind not in "iu"):
        raise FileFormatError(
            f"y in {file} has shape {labels.shape} of {labels.dtype}: expected {x.shape[1]} whole numbers"
        )
    return x.astype(np.float32), labels


def _said(chip: Chip, cost: Cost | str) -> str:
    if isinstance(cost, str):
        return f"in the numbers of {chip.name}: {cost}"
    what = "numbers" if chip.store is not None else f"{chip.limit('weight_bits')}-bit weights (all else exact)"
    return f"in the {what} of {chip.name}:\n{cost}"


def _cost(graph: Graph, chip: Chip, x: NDArray[Any], labels: NDArray[Any] | None) -> Cost | str:
    """What the numbers of a chip cost, or why that cannot be told."""
    from sparsecirc.hardware import quantise, weight_cost

    try:
        if chip.store is None:
            return weight_cost(graph, chip, x, labels=labels)
        return quantise(graph, chip).cost(x, labels=labels)
    except (UnsupportedError, UsageError) as error:
        return str(error)


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
        "sparsecirc fits runs/snn --chip loihi2 --data test.npz",
    ),
)
