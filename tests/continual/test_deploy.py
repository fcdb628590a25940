"""What a continual run learned compiles, and gives the logits of the network that was trained."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from toy import clashing, net

import sparsecirc as sc
from sparsecirc.continual import HLOP, Ranks, Setting, run, sgd


@pytest.mark.parametrize("density", [1.0, 0.5])
def test_the_result_compiles_and_answers_alike(density: float) -> None:
    pytest.importorskip("snntorch", reason="needs snntorch")
    scenario = clashing(2)
    model = net(scenario, density=density)
    run(model, scenario, HLOP(Ranks((8, 20, 20), (8, 10, 10))), Setting(optimizer=sgd(0.3), epochs=2))
    model.eval()
    x = scenario.tasks[1].test(slice(0, 50))[0]
    with torch.no_grad():
        expected = model(x).numpy()
    graph = sc.to_graph(model.to_snntorch(), example=x[:3], dt=1e-3)
    program = sc.compile(graph)
    steps = np.repeat(x.numpy()[None], model.steps, axis=0)
    assert sc.verify(program, steps).ok
    got = next(iter(program.run(steps).outputs.values())).mean(0)
    np.testing.assert_allclose(got, expected, atol=1e-4)
