"""Run the network in net.npz in nengo-loihi's emulator of the chip: python run_nengo_loihi.py INPUT.npy OUTPUT.npz

INPUT holds (steps, units) of 0 and 1. OUTPUT gets the spikes of every population, (steps, units), under "NAME.spk".
Needs nengo-loihi, scipy and numpy only.

The integers of net.npz go into the emulator as they are. There every connection, that of an input too, takes a step: a
layer of depth d fires d steps late, and its record is moved back by as many. Until its first input comes, a bias would
already act: membranes start where the bias takes them to zero by then.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import nengo_loihi
import numpy as np
from nengo_loihi.block import Axon, LoihiBlock, Synapse
from nengo_loihi.builder import Model
from nengo_loihi.emulator import EmulatorInterface
from nengo_loihi.inputs import SpikeInput
from nengo_loihi.probe import LoihiProbe

STATE = 2**23 - 1
ALIGN = 64


def block(p: dict[str, Any], own: dict[str, Any]) -> Any:
    """The compartments of a population, in integers."""
    made = LoihiBlock(p["units"], label=p["name"])
    c = made.compartment
    whole = np.int32
    c.vth, c.bias = (own["vth"] * ALIGN).astype(whole), (own["bias_mant"] << own["bias_exp"]).astype(whole)
    c.decay_u, c.decay_v = own["du"].astype(whole), own["dv"].astype(whole)
    c.scale_u = c.scale_v = False
    c.refract_delay = np.ones(p["units"], whole)
    c.vmin, c.vmax = -STATE, STATE
    c.noise_exp, c.noise_offset = 0, 0
    return made


def synapse(k: int, arrays: dict[str, Any], sources: int, units: int, exponent: int) -> Any:
    """The connections of a projection, one list per source."""
    from scipy.sparse import csr_matrix

    pre, post, weight = (arrays[f"projection{k}.{what}"] for what in ("pre", "post", "weight"))
    made = Synapse(sources)
    made.set_weights(csr_matrix((weight.astype(np.float32), (pre, post)), shape=(sources, units)))
    made.weights = [np.rint(w).astype(np.int32) * (2**exponent * ALIGN) for w in made.weights]
    made.format(weight_exp=exponent)
    return made


def main() -> None:
    """Run and write."""
    parser = argparse.ArgumentParser(description="Run net.npz, which lies beside this file, in nengo-loihi's emulator.")
    parser.add_argument("input", type=Path)
    parser.add_argument("output", type=Path)
    args = parser.parse_args()
    with np.load(Path(__file__).parent / "net.npz", allow_pickle=False) as file:
        arrays = dict(file)
    meta = json.loads(str(arrays.pop("meta")))
    x = np.load(args.input, allow_pickle=False)
    if np.any((x != 0) & (x != 1)):
        raise SystemExit("the input is not made of 0 and 1: Loihi takes spikes")
    steps = len(x)
    populations = {p["name"]: p for p in meta["populations"]}
    depth = {name: p["depth"] for name, p in populations.items()}
    total = steps + max(depth.values())
    model = Model()
    blocks: dict[str, Any] = {}
    start: dict[str, Any] = {}
    for k, p in enumerate(meta["populations"]):
        if p["kind"] in ("input", "ones"):
            continue
        own = {name.partition(".")[2]: a for name, a in arrays.items() if name.startswith(f"population{k}.")}
        blocks[p["name"]] = block(p, own)
        model.add_block(blocks[p["name"]])
        bias, keep, v = own["bias_mant"] << own["bias_exp"], 4096 - own["dv"], np.zeros(p["units"], np.int64)
        for _ in range(depth[p["name"]]):
            v = np.sign(v - bias) * -(-np.abs(v - bias) * 4096 // keep)
        start[p["name"]] = v
    for k, c in enumerate(meta["projections"]):
        units = populations[c["pre"]]["units"]
        target = synapse(k, arrays, units, populations[c["post"]]["units"], int(meta["exponents"][c["name"]]))
        blocks[c["post"]].add_synapse(target)
        axon = Axon(units)
        axon.target = target
        if c["pre"] in blocks:
            blocks[c["pre"]].add_axon(axon)
            continue
        given = x if populations[c["pre"]]["kind"] == "input" else np.ones((steps, 1))
        source = SpikeInput(units)
        for t in range(steps):  # a spike of step t reaches the layer at step t + 1, which it computes depth steps late
            source.add_spikes(t + depth[c["post"]], np.flatnonzero(given[t]), permanent=True)
        source.add_axon(axon)
        model.add_input(source)
    probes = {name: LoihiProbe(target=made, key="spiked") for name, made in blocks.items()}
    for probe in probes.values():
        model.add_probe(probe)
    found: dict[str, Any] = {}
    EmulatorInterface.strict = True  # an overflow is an error
    with EmulatorInterface(model) as emulator:
        for name, made in blocks.items():
            emulator.compartment.voltage[emulator.compartment.slices[made.compartment]] = start[name]
        emulator.run_steps(total)
        for name, probe in probes.items():
            record = emulator.collect_probe_output(probe)
            if record[: depth[name]].any():
                raise SystemExit(f"layer '{name}' fired before its first input: its bias alone crosses its threshold")
            found[f"{name}.spk"] = record[depth[name] : depth[name] + steps] > 0
    np.savez(args.output, runner=np.array(f"nengo-loihi {nengo_loihi.__version__} emulator"), **found)


if __name__ == "__main__":
    main()
