"""Run the network in net.npz in Brian2: python run_brian2.py INPUT.npy OUTPUT.npz [--device cpp]

INPUT holds (steps, units), or one such array per input in an .npz. OUTPUT gets the spikes of every population as 0 and
1, (steps, units), under "NAME.spk", and its membranes after each step under "NAME.mem". Needs Brian2 and numpy only.

Every step of the network is one time step here, without a lag between layers: each population has time slots of its
own, after those of the populations that feed it. What a layer computes is written in `EQUATIONS` and `AFTER`.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import brian2 as b2
import numpy as np

DT = 0.1 * b2.ms
"""Brian2's own step; a number without meaning, because every equation is in steps."""

EQUATIONS = {
    "lif": "drive = current + bias",
    "synaptic": "syn = alpha * syn + current + bias\ndrive = syn",
    "li": "drive = current + bias",
    "alif": "raised = adapt\nadapt = rho * adapt + fired\ndrive = current + bias",
}
"""What enters the membrane."""

UPDATE = {
    "none": "v = beta * v + drive",
    "subtract": "v = beta * v + drive - due * amount",
    "zero": "v = beta * (1 - due) * v + drive",
    "zero_update": "v = (1 - due) * (beta * v + drive)",
}
"""The membrane; ``due`` is 1 in the step after a spike whose reset is delayed."""


def load(folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Description and arrays of the network."""
    with np.load(folder / "net.npz", allow_pickle=False) as file:
        arrays = dict(file)
    return json.loads(str(arrays.pop("meta"))), arrays


def sequences(path: Path, meta: dict[str, Any]) -> dict[str, Any]:
    """The input of each input population, (steps, units)."""
    names = [p["name"] for p in meta["populations"] if p["kind"] == "input"]
    loaded = np.load(path, allow_pickle=False)
    given = {names[0]: loaded} if isinstance(loaded, np.ndarray) else dict(loaded)
    return {n: np.asarray(given[n], dtype=np.float64) for n in names}


def update_code(population: dict[str, Any]) -> str:
    """One step of a population, up to its spikes."""
    kind, reset, late = population["kind"], population["reset"], population["delay"]
    if kind == "li":
        return f"{EQUATIONS[kind]}\nv = beta * v + drive\ncurrent = 0"
    # Without adaptation a membrane that stays above its threshold after a reset at once has been counted (see AFTER).
    due = "due = int(v > theta)" if kind != "alif" else f"due = {'fired' if late else '0'}"
    level = "level = theta + strength * adapt" if kind == "alif" else "level = theta"
    amount = "amount = theta + strength * raised" if population["adapted"] and kind == "alif" else "amount = theta"
    if reset != "subtract":
        amount = ""
    lines = [EQUATIONS[kind], due, amount, UPDATE[reset], level, "fired = int(v > level)", "current = 0"]
    return "\n".join(line for line in lines if line)


def after_code(population: dict[str, Any]) -> str:
    """What a spike does to the membrane at once."""
    kind, reset = population["kind"], population["reset"]
    if kind == "li" or population["delay"] or reset == "none":
        return ""
    now = "fired" if kind == "alif" else "(fired - due)"
    if reset == "subtract":
        return f"v -= {now} * {'level' if population['adapted'] and kind == 'alif' else 'theta'}"
    return f"v = v - {now} * v"


def build(meta: dict[str, Any], arrays: dict[str, Any], given: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    """The Brian2 network, and its monitors by population."""
    steps = len(next(iter(given.values())))
    groups: dict[str, Any] = {}
    monitors: dict[str, Any] = {}
    schedule = ["start", "groups", "thresholds", "synapses", "resets"]  # what Brian2 itself puts somewhere
    objects: list[Any] = []
    for k, p in enumerate(meta["populations"]):
        slots = [f"p{k}_{what}" for what in ("currents", "update", "spikes", "synapses", "after", "end")]
        schedule += slots
        if p["kind"] == "input":
            if np.all((given[p["name"]] == 0) | (given[p["name"]] == 1)):
                step, unit = np.nonzero(given[p["name"]])
                group = b2.SpikeGeneratorGroup(p["units"], unit, step * DT, dt=DT, when=slots[2])
                groups[p["name"]] = group
                objects.append(group)
            continue
        vectors = [*p["vectors"], "bias"]
        states = ["v", "current", "drive", "due", "amount", "level", "fired", "syn", "adapt", "raised"]
        model = "\n".join([*(f"{s} : 1" for s in states), *(f"{_name(v)} : 1 (constant)" for v in vectors)])
        threshold = "fired > 0.5" if p["kind"] != "li" else None
        group = b2.NeuronGroup(
            p["units"], model, threshold=threshold, reset="" if threshold else None, dt=DT, name=f"p{k}"
        )
        for v in vectors:
            setattr(group, _name(v), arrays[f"population{k}.{v}"])
        group.run_regularly(update_code(p), when=slots[1], dt=DT, name=f"p{k}_update")
        if threshold:
            group.thresholder["spike"].when = slots[2]
            group.resetter["spike"].when = slots[4]
        if after_code(p):
            group.run_regularly(after_code(p), when=slots[4], dt=DT, name=f"p{k}_after")
        monitors[p["name"]] = b2.StateMonitor(group, ["v", "fired"], record=True, when=slots[5], dt=DT, name=f"p{k}_m")
        groups[p["name"]] = group
        objects += [group, monitors[p["name"]]]
    place = {p["name"]: k for k, p in enumerate(meta["populations"])}
    for k, c in enumerate(meta["projections"]):
        pre, post, weight = (arrays[f"projection{k}.{what}"] for what in ("pre", "post", "weight"))
        target = groups[c["post"]]
        if c["pre"] not in groups:  # an input that is no spikes: its product is given as a current
            drive = np.zeros((steps, target.N))
            np.add.at(drive.T, post, (given[c["pre"]][:, pre] * weight).T)
            table = b2.TimedArray(drive, dt=DT, name=f"drive{k}")
            code = f"current += drive{k}(t, i)"
            target.namespace[f"drive{k}"] = table
            target.run_regularly(code, when=f"p{place[c['post']]}_currents", dt=DT, name=f"c{k}_drive")
            continue
        if not len(pre):
            continue
        synapses = b2.Synapses(
            groups[c["pre"]], target, "w : 1 (constant)", on_pre="current_post += w", dt=DT, name=f"c{k}"
        )
        synapses.connect(i=pre, j=post)
        synapses.w = weight
        synapses.pre.when = f"p{place[c['pre']]}_synapses"
        objects.append(synapses)
    net = b2.Network(*objects)
    net.schedule = [*schedule, "end"]
    return net, monitors


def _name(vector: str) -> str:
    return "theta" if vector == "threshold" else vector


def main() -> None:
    """Run and write."""
    parser = argparse.ArgumentParser(description="Run net.npz, which lies beside this file, in Brian2.")
    parser.add_argument("input", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--device", choices=("numpy", "cpp"), default="numpy")
    args = parser.parse_args()
    if args.device == "cpp":
        b2.set_device("cpp_standalone", directory=None, build_on_run=True)
    else:
        b2.prefs.codegen.target = "numpy"
    meta, arrays = load(Path(__file__).parent)
    given = sequences(args.input, meta)
    steps = len(next(iter(given.values())))
    net, monitors = build(meta, arrays, given)
    net.run(steps * DT)
    found: dict[str, Any] = {}
    for p in meta["populations"]:
        if p["name"] in monitors:
            monitor = monitors[p["name"]]
            if p["kind"] != "li":
                found[f"{p['name']}.spk"] = np.asarray(monitor.fired).T > 0.5
            found[f"{p['name']}.mem"] = np.asarray(monitor.v).T
    np.savez(args.output, runner=np.array(f"brian2 {b2.__version__} {args.device}"), **found)


if __name__ == "__main__":
    main()
