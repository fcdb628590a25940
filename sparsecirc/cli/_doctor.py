"""``sparsecirc doctor``: whether the kernels are right here, what the machine can do, and what it costs."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sparsecirc.cli._choices import IsaName
from sparsecirc.cli._command import Command
from sparsecirc.cli._console import Out, human_bytes, table
from sparsecirc.errors import MismatchError, UnsupportedError, UsageError

if TYPE_CHECKING:
    from sparsecirc._cost import CostModel
    from sparsecirc._doctor import Check


def doctor(
    out: Out,
    calibrate: Annotated[
        bool, typer.Option("--calibrate", help="Measure what products and layers cost here; less than a minute.")
    ] = False,
    isa: Annotated[
        IsaName | None, typer.Option("--isa", help="Instruction set to measure with; default: the best here.")
    ] = None,
    clear_cache: Annotated[
        bool, typer.Option("--clear-cache", help="Delete kept measurements and calibrations, and stop.")
    ] = False,
) -> None:
    """Check every kernel against float64, the clock, the caches and the memory; exit 4 if a kernel is wrong."""
    from sparsecirc.cli._env import kernels

    if calibrate and clear_cache:
        raise UsageError("--calibrate and --clear-cache exclude each other: clear first, then calibrate")
    if clear_cache:
        _clear(out)
        return
    native = kernels()
    if not native["built"]:
        raise UnsupportedError(f"the native kernels cannot be loaded: {native['why']}")
    if calibrate:
        _calibrate(out, isa)
        return
    _check(out, isa)


def _clear(out: Out) -> None:
    from sparsecirc._cost import clear_models
    from sparsecirc._machine import cache_dir
    from sparsecirc._tuning import USER_CACHE

    measurements, models = USER_CACHE.clear(), clear_models()
    document = {"folder": cache_dir(), "measurements": measurements, "calibrations": models}
    out.data(document, f"deleted {measurements} measurements and {models} calibrations in {cache_dir()}")


def _check(out: Out, isa: IsaName | None) -> None:
    from sparsecirc._cost import read_bandwidth
    from sparsecirc._doctor import layer_checks, product_checks, timer_noise
    from sparsecirc._machine import cache_sizes, processor, usable_cores
    from sparsecirc._native import available_isas, resolve_isa
    from sparsecirc._target import Target

    chosen = resolve_isa(Target.cpu(None if isa is None else isa.value))
    timer = timer_noise()
    with out.progress("doctor", 4) as advance:
        bandwidth = read_bandwidth(lambda level: advance(1, f"reading {level}"))
    checks = [*product_checks(), *layer_checks()]
    cache = _cache_facts(chosen.value)
    wrong = [c for c in checks if not c.ok]
    document = {
        "ok": not wrong,
        "processor": processor().name,
        "cores": usable_cores(),
        "isas": [i.value for i in available_isas()],
        "isa": chosen.value,
        "caches": list(cache_sizes()),
        "checks": [{**asdict(c), "ok": c.ok} for c in checks],
        "timer": {**asdict(timer), "noisy": timer.noisy},
        "bandwidth": [asdict(b) for b in bandwidth],
        "cache": cache,
    }
    counts = [("kernels", f"{len(checks)} checks against float64, {len(wrong)} wrong")]
    facts = [
        ("processor", f"{processor().name}, {usable_cores()} cores usable"),
        ("instruction sets", " ".join(i.value for i in available_isas())),
        *counts,
        ("clock", f"resolution {timer.resolution_ns:.0f} ns; the same {timer.sample_us:.0f} us of work takes "
                  f"{timer.spread:.1%} longer in one of ten runs, {1 + timer.worst:.1f} times as long at worst"),
        *((f"reading {b.level}", f"{b.gb_per_s:.0f} GB/s ({human_bytes(b.bytes)}, one core)")
          for b in bandwidth),
        ("cache folder", f"{cache['folder']}: {cache['measurements']} measurements, "
                         f"{human_bytes(cache['bytes'])}{'' if cache['writable'] else ', cannot be written'}"),
        ("costs", cache["calibration"]),
    ]  # fmt: skip
    out.data(document, table(("what:", "found:"), facts), *([_wrong(wrong)] if wrong else []))
    if timer.noisy:
        out.warn("other work keeps this machine busy, or its clock changes: measured times will vary")
    if not cache["writable"]:
        out.warn("the cache folder cannot be written: every compile measures again; set SPARSECIRC_CACHE")
    if wrong:
        worst = wrong[0]
        raise MismatchError(
            f"{len(wrong)} of {len(checks)} kernel checks failed, first {worst.name} on {worst.isa}: error "
            f"{worst.error:.3g}, allowed {worst.limit:.3g}{'; ' + worst.note if worst.note else ''}; force another "
            "instruction set with --isa and please report this"
        )
    if cache["calibrated"]:
        out.suggest("sparsecirc inspect demo:gru --what-if .5,.9,.95")
    else:
        out.suggest("sparsecirc doctor --calibrate")


def _wrong(checks: list[Check]) -> Any:
    rows = [(c.name, c.isa, c.what, f"{c.error:.2e}", f"{c.limit:.1e}", c.note) for c in checks]
    return table(("wrong:", "isa:", "as:", "error", "allowed", "note:"), rows)


def _cache_facts(isa: str) -> dict[str, Any]:
    import tempfile

    from sparsecirc._cost import load_model
    from sparsecirc._machine import cache_dir
    from sparsecirc._target import Isa
    from sparsecirc._tuning import USER_CACHE

    folder = cache_dir()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            writable = True
    except OSError:
        writable = False
    count, size = USER_CACHE.size()
    try:
        model = load_model(Isa(isa))
        calibrated, note = not model.shipped, model.note
    except UnsupportedError as error:
        calibrated, note = False, str(error)
    return {
        "folder": folder, "writable": writable, "measurements": count, "bytes": size, "calibrated": calibrated,
        "calibration": note,
    }  # fmt: skip


def _calibrate(out: Out, isa: IsaName | None) -> None:
    from sparsecirc._cost import calibrate, save_model, steps_of
    from sparsecirc._native import resolve_isa
    from sparsecirc._target import Target

    chosen = resolve_isa(Target.cpu(None if isa is None else isa.value))
    with out.progress("calibrate", steps_of()) as advance:
        model = calibrate(chosen, advance)
    path = save_model(model)
    document = {"file": path, **model.to_json()}
    rows = [
        ("products", model.products_held_out.count, f"{model.products_held_out.median:.1%}",
         f"{model.products_held_out.worst:.1%}"),
        ("layers", model.layers_held_out.count, f"{model.layers_held_out.median:.1%}",
         f"{model.layers_held_out.worst:.1%}"),
    ]  # fmt: skip
    shown = table(("predicted, but not fitted:", "count", "median error", "largest"), rows)
    out.data(document, shown, _memory_line(model))
    out.say(f"calibration written to {path}")
    if model.layers_held_out.median > 0.25 or model.products_held_out.median > 0.25:
        out.warn("predictions miss by more than 25 %: the machine was busy; calibrate again when it is not")
    out.suggest("sparsecirc inspect demo:gru --what-if .5,.9,.95")


def _memory_line(model: CostModel) -> str:
    reads = ", ".join(f"{b.level} {b.gb_per_s:.0f}" for b in model.bandwidth)
    return f"one core of {model.processor} reads, in GB/s: {reads}"


COMMAND = Command(
    doctor,
    (
        "sparsecirc doctor",
        "sparsecirc doctor --calibrate",
        "sparsecirc doctor --clear-cache",
        "sparsecirc doctor --json",
    ),
    model=False,
)
