"""Run the network in net.npz in SynSense's simulator of Xylo: python run_xylo.py INPUT.npy OUTPUT.npz

INPUT holds (steps, units) of spike counts up to 15. OUTPUT gets the spike counts of every population, (steps, units),
under "NAME.spk", and its membranes as the chip stores them under "NAME.mem". Needs xylosim and numpy only.

On Xylo what neurons send arrives a step later, so that a layer of depth d fires d - 1 steps late: OUTPUT keeps that.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
from pathlib import Path
from typing import Any

import numpy as np
from xylosim.v2 import XyloLayer, XyloSynapse


def main() -> None:
    """Run and write."""
    parser = argparse.ArgumentParser(description="Run net.npz, which lies beside this file, in xylosim.")
    parser.add_argument("input", type=Path)
    parser.add_argument("output", type=Path)
    args = parser.parse_args()
    with np.load(Path(__file__).parent / "net.npz", allow_pickle=False) as file:
        arrays = dict(file)
    meta = json.loads(str(arrays.pop("meta")))
    x = np.load(args.input, allow_pickle=False).astype(int)
    populations: dict[str, dict[str, Any]] = {p["name"]: {**p, "k": k} for k, p in enumerate(meta["populations"])}
    sources = [p for p in populations.values() if p["kind"] in ("input", "ones")]
    neurons = [p for p in populations.values() if p["kind"] not in ("input", "ones")]
    hidden, last = neurons[:-1], neurons[-1]
    start: dict[str, int] = {last["name"]: 0}
    for group in (sources, hidden):
        at = 0
        for p in group:
            start[p["name"]] = at
            at += p["units"]
    count = {"in": sum(p["units"] for p in sources), "rec": sum(p["units"] for p in hidden)}
    count["out"] = count["rec"]
    tables: dict[str, list[list[Any]]] = {g: [[] for _ in range(n)] for g, n in count.items()}
    shifts = {"in": 0, "rec": 0, "out": 0}
    for k, c in enumerate(meta["projections"]):
        place = "in" if populations[c["pre"]]["kind"] in ("input", "ones") else "rec"
        place = "out" if c["post"] == last["name"] else place
        shifts[place] = int(meta["shifts"][c["name"]])
        for pre, post, w in zip(*(arrays[f"projection{k}.{what}"] for what in ("pre", "post", "weight")), strict=True):
            synapse = XyloSynapse(int(post) + start[c["post"]], 0, int(w))
            tables[place][int(pre) + start[c["pre"]]].append(synapse)

    def vector(group: list[dict[str, Any]], name: str) -> list[int]:
        return [int(v) for p in group for v in arrays[f"population{p['k']}.{name}"]]

    layer = XyloLayer(
        synapses_in=tables["in"], synapses_rec=tables["rec"], synapses_out=tables["out"],
        aliases=[[] for _ in range(count["rec"])],
        threshold=vector(hidden, "threshold"), threshold_out=vector([last], "threshold"),
        has_bias=True, bias=vector(hidden, "bias"), bias_out=vector([last], "bias"),
        weight_shift_inp=shifts["in"], weight_shift_rec=shifts["rec"], weight_shift_out=shifts["out"],
        dash_mem=vector(hidden, "dash_mem"), dash_mem_out=vector([last], "dash_mem"),
        dash_syns=[[d, d] for d in vector(hidden, "dash_syn")], dash_syns_out=[[d] for d in vector([last], "dash_syn")],
        name="net",
    )  # fmt: skip
    given = np.concatenate([x if p["kind"] == "input" else np.ones((len(x), p["units"]), int) for p in sources], axis=1)
    layer.evolve(given.tolist())
    found: dict[str, Any] = {}
    for spikes, states, group in (
        (layer.rec_recurrent_spikes, layer.rec_v_mem, hidden), (layer.rec_out_spikes, layer.rec_v_mem_out, [last]),
    ):  # fmt: skip
        for p in group:
            units = slice(start[p["name"]], start[p["name"]] + p["units"])
            found[f"{p['name']}.spk"] = np.array(spikes)[:, units]
            found[f"{p['name']}.mem"] = np.array(states).T[:, units]
    np.savez(args.output, runner=np.array(f"xylosim {importlib.metadata.version('xylosim')}"), **found)


if __name__ == "__main__":
    main()
