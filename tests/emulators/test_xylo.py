"""Networks in Xylo's integers run by SynSense's own simulator, bit by bit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from nets import net, spikes, with_vectors

from sparsecirc.cells import SYNAPTIC, Options, Reset
from sparsecirc.hardware import XYLO_AUDIO2, export_xylo, quantise, run_simulator

pytestmark = pytest.mark.slow
VECTORS = {
    "alpha": lambda rng, n: 1 - 2.0 ** -rng.integers(1, 4, n),
    "beta": lambda rng, n: 1 - 2.0 ** -rng.integers(1, 6, n),
}


@pytest.mark.parametrize("theta", [0.7, 4.0], ids=["saturated", "sparse"])
def test_every_spike_and_every_state(theta: float, tmp_path: Path, xylosim: Path) -> None:
    for seed in range(3):
        vectors = VECTORS | {"threshold": lambda rng, n: rng.uniform(theta, 2 * theta, n)}
        graph = with_vectors(net(SYNAPTIC, Options(Reset.SUBTRACT, False), seed), SYNAPTIC, seed, **vectors)
        x = spikes(150, seed, 0.3) * np.random.default_rng(seed).integers(1, 20, (150, 1, 8))
        made = export_xylo(graph, tmp_path)
        found = run_simulator(made, x, python=xylosim)
        stored = quantise(graph, XYLO_AUDIO2).integers
        want = stored.on_chip(x)  # type: ignore[attr-defined]
        for name in ("rnn", "out"):
            assert want[f"{name}.spk"].sum() > 20
            np.testing.assert_array_equal(found[f"{name}.spk"], want[f"{name}.spk"][:, 0])
            mem = np.rint(want[f"{name}.mem"][:, 0] * stored.scales[name])
            np.testing.assert_array_equal(found[f"{name}.mem"], mem)
        assert want["rnn.spk"].max() > 1, "several spikes in a step"
