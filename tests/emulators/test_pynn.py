"""Connection lists read by PyNN's own reader."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import numpy as np
import pytest
from nets import net

from sparsecirc.cells import LIF, Options, Reset
from sparsecirc.hardware import export_pynn, network

pytestmark = pytest.mark.slow

READ = """
import json, sys
import pyNN.mock as sim
sim.setup(timestep=1.0)
told = json.load(open("populations.json"))
made = {p["name"]: sim.Population(p["size"], sim.IF_curr_exp()) for p in told["populations"]}
found = []
for c in told["projections"]:
    projection = sim.Projection(made[c["pre"]], made[c["post"]], sim.FromFileConnector(c["file"]), sim.StaticSynapse())
    found.append([list(map(float, row)) for row in projection.get(["weight", "delay"], format="list")])
json.dump(found, open("found.json", "w"))
"""


def test_pynn_makes_the_same_connections(tmp_path: Path, pynn: Path) -> None:
    graph = net(LIF, Options(Reset.ZERO), 1)
    export_pynn(graph, tmp_path)
    (tmp_path / "read.py").write_text(READ)
    done = subprocess.run([pynn, "read.py"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "found.json").read_text())
    for rows, c in zip(found, network(graph).projections, strict=True):
        pre, post, weight = c.connections
        want = np.column_stack([pre, post, weight, np.full(len(pre), 1.0)])
        got = np.array(sorted(rows))
        np.testing.assert_array_equal(got, want[np.lexsort((post, pre))])
