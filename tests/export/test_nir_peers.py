"""Files of the dialect read and run by other packages: every spike is the same."""

from __future__ import annotations

import contextlib
import importlib
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sparsecirc._pattern import Pattern
from sparsecirc.cells import LIF, SYNAPTIC, Cell, Options, Reset
from sparsecirc.ir import Graph, Input, Linear, Recurrent, interpret

nir = pytest.importorskip("nir", reason="the package 'nir' is not installed")
torch = pytest.importorskip("torch", reason="the package 'torch' is not installed")

from sparsecirc.export.nir import Profile, export_nir  # noqa: E402
from sparsecirc.frontends._nir import from_nir  # noqa: E402

STEPS = 300
KINDS = ((LIF, ""), (LIF, "hh_diag"), (LIF, "hh"), (SYNAPTIC, ""), (SYNAPTIC, "hh_diag"), (SYNAPTIC, "hh"))

pytestmark = [
    pytest.mark.slow,
    # torch.fx and the readers themselves warn; what counts here are the spikes.
    pytest.mark.filterwarnings("ignore"),
]


def network(cell: Cell, role: str, seed: int, **vectors: Any) -> Graph:
    """8 inputs, 16 spiking units (recurrent, 70 % zeros), 4 spiking units."""
    rng = np.random.default_rng(seed)
    f = lambda *s: rng.standard_normal(s).astype(np.float32)  # noqa: E731
    values: dict[str, Any] = {"alpha": 0.8, "beta": 0.9, "threshold": 1.0}
    first = {v: np.broadcast_to(np.asarray((values | vectors)[v], np.float32), (16,)).copy() for v in cell.vectors}
    patterns = {}
    if role == "hh":
        first |= {"hh": f(16, 16) * np.float32(0.5), "bias_hh": f(16) * np.float32(0.1)}
        patterns["hh"] = Pattern.from_mask(rng.random((16, 16)) < 0.3)
    elif role:
        first["hh_diag"] = f(16) * np.float32(0.5)
    last = {v: np.full(4, values[v], np.float32) for v in LIF.vectors}
    options = Options(Reset.ZERO, delay=False)
    return Graph(
        (
            Input("x", shape=(8,)),
            Linear("fc1", ("x",), {"weight": f(16, 8) * np.float32(0.6), "bias": f(16) * np.float32(0.1)}),
            Recurrent("lif1", ("fc1",), first, patterns, cell=cell, units=16, options=options),
            Linear("fc2", ("lif1",), {"weight": f(4, 16) * np.float32(0.5), "bias": np.full(4, 0.15, np.float32)}),
            Recurrent("lif2", ("fc2",), last, cell=LIF, units=4, options=options),
        ),
        {"y": "lif2"},
    )


def run(module: Any, x: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    outputs, state = [], None
    with torch.no_grad():
        for step in torch.from_numpy(x):
            result = module(step, state)
            value, state = result if isinstance(result, tuple) else (result, state)
            outputs.append(value.numpy())
    return np.asarray(outputs)


def compare(load: Callable[[Any], Any], cell: Cell, role: str, path: Path, **vectors: Any) -> None:
    for seed in range(4):
        graph = network(cell, role, seed, **vectors)
        export_nir(graph, path, profile=Profile.DIALECT)
        x = (np.random.default_rng(seed + 100).random((STEPS, 1, 8)) < 0.5).astype(np.float32)
        want = interpret(graph, x).y
        assert want.sum() > 30, "the test needs spikes"
        with contextlib.redirect_stdout(io.StringIO()):
            module = load(nir.read(path))
        np.testing.assert_array_equal(run(module, x), want, err_msg=f"seed {seed}")


THETAS = np.linspace(0.6, 1.1, 16)


def snntorch_reader() -> Callable[[Any], Any]:
    reader = pytest.importorskip("snntorch.import_nir", reason="the packages 'snntorch', 'nirtorch' are not installed")
    load: Callable[[Any], Any] = reader.import_from_nir
    return load


def norse_reader() -> Callable[[Any], Any]:
    norse = pytest.importorskip("norse.torch", reason="the package 'norse' is not installed")
    return lambda graph: norse.from_nir(graph, dt=1e-4)


def spikingjelly_reader() -> Callable[[Any], Any]:
    name = "spikingjelly.activation_based.nir_exchange"
    reader = pytest.importorskip(name, reason="the package 'spikingjelly' is not installed")
    return lambda graph: reader.import_from_nir(graph, dt=1e-4)


@pytest.mark.parametrize("theta", [1.0, THETAS], ids=["one threshold", "threshold per unit"])
@pytest.mark.parametrize(("cell", "role"), KINDS)
def test_snntorch_gives_the_same_spikes(cell: Cell, role: str, theta: Any, tmp_path: Path) -> None:
    compare(snntorch_reader(), cell, role, tmp_path / "a.nir", threshold=theta)


@pytest.mark.parametrize("theta", [1.0, THETAS], ids=["one threshold", "threshold per unit"])
@pytest.mark.parametrize(("cell", "role"), KINDS)
def test_norse_gives_the_same_spikes(cell: Cell, role: str, theta: Any, tmp_path: Path) -> None:
    compare(norse_reader(), cell, role, tmp_path / "a.nir", threshold=theta)


@pytest.mark.parametrize("theta", [1.0, THETAS], ids=["one threshold", "threshold per unit"])
@pytest.mark.parametrize("role", ["", "hh_diag", "hh"])
def test_spikingjelly_gives_the_same_spikes(role: str, theta: Any, tmp_path: Path) -> None:
    compare(spikingjelly_reader(), LIF, role, tmp_path / "a.nir", threshold=theta)


@pytest.mark.parametrize("reader", [norse_reader, spikingjelly_reader])
@pytest.mark.parametrize("role", ["", "hh"])
def test_integrators_give_the_same_spikes(reader: Callable[[], Any], role: str, tmp_path: Path) -> None:
    compare(reader(), LIF, role, tmp_path / "a.nir", beta=1.0, threshold=3.0)


@pytest.mark.parametrize(
    ("options", "form"),
    [
        ({}, "subtract"),
        ({"reset_delay": False}, "subtract"),
        ({"reset_mechanism": "none"}, "subtract"),
        ({"reset_mechanism": "zero", "reset_delay": False}, "dialect"),
        ({"reset_mechanism": "zero"}, "subtract"),
    ],
    ids=str,
)
def test_an_snntorch_network_survives_the_whole_way(options: dict[str, Any], form: str, tmp_path: Path) -> None:
    snn = pytest.importorskip("snntorch", reason="the package 'snntorch' is not installed")
    frontend = importlib.import_module("sparsecirc.frontends._snntorch")
    torch.manual_seed(0)

    class Net(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc1, self.fc2 = torch.nn.Linear(8, 32), torch.nn.Linear(32, 4)
            self.lif1 = snn.RLeaky(beta=0.9, linear_features=32, **options)
            self.lif2 = snn.Leaky(beta=0.8, threshold=0.5, **options)

        def forward(self, x: Any) -> Any:
            spk, mem1 = self.lif1.init_rleaky()
            mem2, out = self.lif2.init_leaky(), []
            for t in range(x.shape[0]):
                spk, mem1 = self.lif1(self.fc1(x[t]), spk, mem1)
                y, mem2 = self.lif2(self.fc2(spk), mem2)
                out.append(y)
            return torch.stack(out)

    model, x = Net().eval(), 2 * torch.randn(60, 3, 8)
    with torch.no_grad():
        want = model(x).numpy()
    assert want.sum() > 20
    assert export_nir(frontend.from_snntorch(model, example=x), tmp_path / "a.nir").form == form
    np.testing.assert_array_equal(interpret(from_nir(tmp_path / "a.nir"), x.numpy()).y, want)


def test_what_snntorch_writes_is_read(tmp_path: Path) -> None:
    snn = pytest.importorskip("snntorch", reason="the package 'snntorch' is not installed")
    writer = pytest.importorskip(
        "snntorch.export_nir", reason="the packages 'snntorch' and 'nirtorch' are not installed"
    )
    torch.manual_seed(0)
    options = {"beta": torch.full((5,), 0.9), "threshold": torch.full((5,), 0.7), "reset_mechanism": "zero"}
    model = torch.nn.Sequential(
        torch.nn.Linear(8, 5), snn.Leaky(**options, init_hidden=True, output=True, reset_delay=False)
    )
    with contextlib.redirect_stdout(io.StringIO()):
        graph = from_nir(writer.export_to_nir(model, torch.randn(8)))
    x = torch.randn(50, 8) * 3
    with torch.no_grad():
        drive = model[0](x)
        neuron = snn.Leaky(**options, reset_delay=False)
        mem, want = torch.zeros(5), []
        for step in drive:
            spk, mem = neuron(step, mem)
            want.append(spk.numpy())
    assert np.sum(want) > 10
    np.testing.assert_array_equal(interpret(graph, x.numpy()[:, None]).y[:, 0], want)
