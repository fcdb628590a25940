"""Run the network in net.npz in Lava's CPU simulation: python run_lava.py INPUT.npy OUTPUT.npz

INPUT holds (steps, units) of 0 and 1. OUTPUT gets the spikes of every population, (steps, units), under "NAME.spk".
Needs lava-nc, scipy and numpy only.

Where net.npz holds integers they are run by Lava's bit-accurate models of Loihi, else by its models in floating point.
In Lava every connection takes a step. The first product of an input is laid into its connection before the start, so
that the first layer has no lag; a layer of depth d fires d - 1 steps late, and its record is moved back by as many.
Until its first input comes, a bias would already act: membranes start where the bias takes them to zero by then.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
from pathlib import Path
from typing import Any

import numpy as np
from lava.magma.core.run_conditions import RunSteps
from lava.magma.core.run_configs import Loihi1SimCfg
from lava.proc.io.sink import RingBuffer as Sink
from lava.proc.io.source import RingBuffer as Source
from lava.proc.lif.process import LIF
from lava.proc.sparse.process import DelaySparse, Sparse
from lava.utils.weightutils import SignMode


def load(folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Description and arrays of the network."""
    with np.load(folder / "net.npz", allow_pickle=False) as file:
        arrays = dict(file)
    return json.loads(str(arrays.pop("meta"))), arrays


def matrix(k: int, arrays: dict[str, Any], shape: tuple[int, int]) -> Any:
    """The weights of a projection."""
    from scipy.sparse import csr_matrix

    pre, post, weight = (arrays[f"projection{k}.{what}"] for what in ("pre", "post", "weight"))
    return csr_matrix((weight, (post, pre)), shape=shape)


def uniform(values: Any, what: str) -> Any:
    """The one value of all units: Lava's neurons have one of these per process."""
    if len(values) and np.any(values != values[0]):
        raise SystemExit(f"{what} differs between units of a layer, Lava's LIF has one for all")
    return values[0] if len(values) else 0


def neurons(k: int, p: dict[str, Any], arrays: dict[str, Any], integers: bool, lag: int) -> Any:
    """The LIF process of a population, started so that its bias has taken it to zero after ``lag`` steps."""
    own = {name.partition(".")[2]: a for name, a in arrays.items() if name.startswith(f"population{k}.")}
    v = np.zeros(p["units"])
    if integers:
        bias, keep = own["bias_mant"] << own["bias_exp"], 4096 - own["dv"]
        for _ in range(lag):  # the smallest v with sign(v) floor(|v| keep / 4096) = v - bias
            goal = np.abs(v - bias)
            v = np.sign(v - bias) * -(-goal * 4096 // keep)
        return LIF(
            shape=(p["units"],), v=v.astype(int), du=int(uniform(own["du"], "du")), dv=int(uniform(own["dv"], "dv")),
            vth=int(uniform(own["vth"], "vth")), bias_mant=own["bias_mant"], bias_exp=own["bias_exp"],
        )  # fmt: skip
    beta = uniform(own["beta"], "beta")
    for _ in range(lag if beta > 0 else 0):
        v = (v - own["bias"]) / beta
    alpha = uniform(own["alpha"], "alpha") if "alpha" in p["vectors"] else 0.0
    theta = uniform(own["threshold"], "threshold") if "threshold" in p["vectors"] else np.inf
    return LIF(shape=(p["units"],), v=v, du=1 - alpha, dv=1 - beta, vth=theta, bias_mant=own["bias"])


def main() -> None:
    """Run and write."""
    parser = argparse.ArgumentParser(description="Run net.npz, which lies beside this file, in Lava.")
    parser.add_argument("input", type=Path)
    parser.add_argument("output", type=Path)
    args = parser.parse_args()
    meta, arrays = load(Path(__file__).parent)
    integers = meta["integers"]
    x = np.load(args.input, allow_pickle=False)
    if np.any((x != 0) & (x != 1)):
        raise SystemExit("the input is not made of 0 and 1: Lava's connections take spikes")
    steps = len(x)
    populations = {p["name"]: p for p in meta["populations"]}
    lag = {name: max(p["depth"] - 1, 0) for name, p in populations.items()}
    total = steps + max(lag.values())
    made = {
        p["name"]: neurons(k, p, arrays, integers, lag[p["name"]])
        for k, p in enumerate(meta["populations"])
        if p["kind"] not in ("input", "ones")
    }
    kept: list[Any] = []
    for k, c in enumerate(meta["projections"]):
        post = populations[c["post"]]
        weights = matrix(k, arrays, (post["units"], populations[c["pre"]]["units"]))
        how = {"weight_exp": int(meta["exponents"][c["name"]]), "sign_mode": SignMode.MIXED} if integers else {}
        late = c["delay"] - 1
        if c["pre"] in made and late > 0 and not c["recurrent"]:
            delays = weights.copy()
            delays.data = np.full(len(delays.data), late)
            connection = DelaySparse(weights=weights, delays=delays.astype(int), **how)
        else:
            connection = Sparse(weights=weights, **how)
        if c["pre"] in made:
            made[c["pre"]].s_out.connect(connection.s_in)
        else:
            given = x if populations[c["pre"]]["kind"] == "input" else np.ones((steps, 1))
            data = np.zeros((given.shape[1], total))
            shift = lag[c["post"]] - 1
            if shift < 0:  # the first product lies in the connection, the source gives what comes after
                connection.a_buff.init = (weights @ given[0]) * 2 ** how.get("weight_exp", 0)
                data[:, : steps - 1] = given[1:].T
            else:
                data[:, shift : shift + steps] = given.T
            source = Source(data=data)
            source.s_out.connect(connection.s_in)
            kept.append(source)
        connection.a_out.connect(made[c["post"]].a_in)
        kept.append(connection)
    sinks = {}
    for name, process in made.items():
        sinks[name] = Sink(shape=(populations[name]["units"],), buffer=total)
        process.s_out.connect(sinks[name].a_in)
    first = next(iter(made.values()))
    first.run(
        condition=RunSteps(num_steps=total), run_cfg=Loihi1SimCfg(select_tag="fixed_pt" if integers else "floating_pt")
    )
    found = {}
    for name, sink in sinks.items():
        record = sink.data.get().T
        if record[: lag[name]].any():
            raise SystemExit(f"layer '{name}' fired before its first input: its bias alone crosses its threshold")
        found[f"{name}.spk"] = record[lag[name] : lag[name] + steps] > 0
    first.stop()
    kind = "fixed point" if integers else "floating point"
    np.savez(args.output, runner=np.array(f"lava-nc {importlib.metadata.version('lava-nc')} {kind}"), **found)


if __name__ == "__main__":
    main()
