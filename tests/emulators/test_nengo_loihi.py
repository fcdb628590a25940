"""Networks in Loihi's integers run by nengo-loihi's emulator, and the limits of our record against its constants."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import numpy as np
import pytest
from nets import net, spikes, with_vectors

from sparsecirc.cells import LIF, SYNAPTIC, Cell, Options, Reset
from sparsecirc.hardware import LOIHI1, export_nengo_loihi, quantise, run_simulator
from sparsecirc.hardware._chips import loihi1_axon_bits

pytestmark = pytest.mark.slow
CONSTANTS = """
import json
from nengo_loihi import block
from nengo_loihi.builder import discretize
c = block.SynapseConfig(weight_bits=7, n_synapses=63)
bits = []
for units in (1, 64, 65, 128, 500, 1024):
    c.idx_bits = next(k for k, b in enumerate(c.INDEX_BITS_MAP) if k and 2**b >= units)
    bits.append([c.bits_per_axon(n) for n in (1, 3, 4, 10, 64, 65, 200, 1000)])
print(json.dumps({"neurons_per_core": block.MAX_COMPARTMENTS, "in_axons_per_core": block.MAX_IN_AXONS,
  "out_axons_per_core": block.MAX_OUT_AXONS, "synapse_bits_per_core": block.MAX_SYNAPSE_BITS,
  "threshold": discretize.VTH_MAN_MAX, "bias": discretize.BIAS_MAN_MAX, "bits": bits}))
"""


@pytest.mark.parametrize("cell", [LIF, SYNAPTIC])
def test_integers_spike_by_spike(cell: Cell, tmp_path: Path, nengo_loihi: Path) -> None:
    for seed in range(3):
        draw = lambda low, high: lambda rng, n: rng.uniform(low, high, n)  # noqa: E731
        vectors = {"alpha": draw(0.5, 0.8), "beta": draw(0.8, 0.95), "threshold": draw(0.8, 1.3)}
        graph = with_vectors(net(cell, Options(Reset.ZERO), seed), cell, seed, **vectors)
        x = spikes(80, seed)
        found = run_simulator(export_nengo_loihi(graph, tmp_path), x, python=nengo_loihi)
        assert str(found["runner"]) == "nengo-loihi 1.1.0 emulator"
        want = quantise(graph, LOIHI1).run(x)
        assert want["rnn.spk"].sum() > 60
        assert want["out.spk"].sum() > 5
        for name in ("rnn.spk", "out.spk"):
            np.testing.assert_array_equal(found[name], want[name][:, 0])


def test_our_record_of_loihi_is_theirs(nengo_loihi: Path) -> None:
    done = subprocess.run([nengo_loihi, "-c", CONSTANTS], capture_output=True, text=True, check=True)
    told = json.loads(done.stdout.splitlines()[-1])
    for name in ("neurons_per_core", "in_axons_per_core", "out_axons_per_core", "synapse_bits_per_core"):
        assert LOIHI1.limit(name) == told[name]
    assert told["threshold"] == 2 ** (LOIHI1.limit("threshold_bits") or 0) - 1
    assert told["bias"] == 2 ** ((LOIHI1.limit("bias_bits") or 0) - 1) - 1
    for units, bits in zip((1, 64, 65, 128, 500, 1024), told["bits"], strict=True):
        assert [loihi1_axon_bits(n, units) for n in (1, 3, 4, 10, 64, 65, 200, 1000)] == bits
