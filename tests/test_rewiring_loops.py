"""Rewiring inside of what trains: resumed runs, compiled models, exports, snntorch loops, processes."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch", reason="torch is not installed")

import torch
from torch import nn
from torch._dynamo.testing import CompileCounter

import sparsecirc as sc
from sparsecirc.hardware import LOIHI2, fits
from sparsecirc.nn import SparseGRU, SparseLinear, SparseRLIF
from sparsecirc.rules import G2G, DeepR, OnlineHebb, Rewire, RigL, Signals, Stdp, Traces, drop, grow
from sparsecirc.rules._rewiring._sides import normalised
from sparsecirc.rules._rewiring._windows import trace

MAKERS = {
    "hebb": lambda target, optimizer: G2G(target, optimizer, every=2, fraction=0.2),
    "rigl": lambda target, optimizer: RigL(target, optimizer, steps=20, every=2),
    "deep_r": lambda target, optimizer: DeepR(target, optimizer, alpha=0.05, temperature=1e-4),
    "average": lambda target, optimizer: G2G(
        target, optimizer, every=3, fraction=0.2, signals=Signals(target, momentum=0.5, samples=8)
    ),
}


class Net(nn.Module):
    """A layer and a GRU, sparse or masked, and a read-out."""

    def __init__(self, sparse: bool = True) -> None:
        super().__init__()
        self.fc = SparseLinear(8, 16, density=0.4) if sparse else nn.Linear(8, 16)
        self.act = nn.ReLU()
        self.rnn = SparseGRU(16, 12, density=0.3) if sparse else nn.GRU(16, 12)
        self.out = nn.Linear(12, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.out(self.rnn(self.act(self.fc(x)))[0][-1])


def one_step(model, optimizer, rule, k):
    data = torch.Generator().manual_seed(k)
    x, y = torch.randn(5, 6, 8, generator=data), torch.randint(3, (6,), generator=data)
    optimizer.zero_grad()
    nn.functional.cross_entropy(model(x), y).backward()
    optimizer.step()
    rule.step()


@pytest.mark.parametrize("sparse", [True, False])
@pytest.mark.parametrize("kind", MAKERS)
def test_a_run_goes_on_as_if_it_had_not_stopped(kind, sparse):
    def start():
        torch.manual_seed(0)
        model = Net(sparse)
        optimizer = torch.optim.AdamW(model.parameters(), 0.01)
        target = model if sparse else sc.Masks.prune(model, 0.6)
        return model, optimizer, MAKERS[kind](target, optimizer)

    model, optimizer, rule = start()
    for k in range(5):
        one_step(model, optimizer, rule, k)
    file = io.BytesIO()
    torch.save([model.state_dict(), optimizer.state_dict(), rule.state_dict()], file)
    for k in range(5, 11):
        one_step(model, optimizer, rule, k)
    file.seek(0)
    torch.manual_seed(99)
    again, resumed, other = start()
    saved = torch.load(file, weights_only=True)
    for part, state in zip((again, resumed, other), saved, strict=True):
        part.load_state_dict(state)
    for k in range(5, 11):
        one_step(again, resumed, other, k)
    assert other.digest == rule.digest
    for one, two in zip(model.state_dict().values(), again.state_dict().values(), strict=True):
        assert torch.equal(one, two)


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")  # dynamo, behind a graph break
@pytest.mark.parametrize("signals", [False, True])
def test_compiled_models_are_rewired_without_compiling_again(signals):
    torch.manual_seed(0)
    model = nn.Sequential(SparseLinear(8, 16, density=0.4), nn.ReLU(), SparseLinear(16, 3, density=0.5))
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    ways = (drop.three, grow.correlation) if signals else (drop.magnitude, grow.random)
    rule = Rewire(model, optimizer, drop=ways[0], grow=ways[1], fraction=0.2, every=2)
    if signals:
        rule.signals.attach()
    counted = CompileCounter()
    torch._dynamo.reset()
    compiled = torch.compile(model, backend=counted)
    first, counts = rule.digest, []
    for k in range(8):
        x = torch.randn(7, 8, generator=torch.Generator().manual_seed(k))
        optimizer.zero_grad()
        compiled(x).square().mean().backward()
        torch.testing.assert_close(compiled(x), model(x))
        optimizer.step()
        rule.step()
        counts.append(counted.frame_count)
    assert rule.digest != first
    assert counts[-1] == counts[2], "later rewiring compiles nothing"


@pytest.mark.parametrize("wiring", ["sparse", "masked"])
def test_a_rewired_network_compiles_and_exports(wiring, tmp_path):
    model = Net(wiring == "sparse")
    optimizer = torch.optim.Adam(model.parameters(), 0.01)
    target = model if wiring == "sparse" else sc.Masks.prune(model, 0.6)
    rule = G2G(target, optimizer, every=2, fraction=0.2)
    for k in range(4):
        one_step(model, optimizer, rule, k)
    rule.remove()
    model.eval()
    graph = sc.to_graph(model, example=torch.randn(5, 1, 8), masks=rule.masks) if rule.masks else sc.to_graph(
        model, example=torch.randn(5, 1, 8)
    )  # fmt: skip
    patterns = {name: site.pattern for name, site in rule.sites.items()}
    x = np.random.default_rng(0).standard_normal((5, 2, 8)).astype(np.float32)
    program = sc.compile(graph)
    assert sc.verify(program, x).ok
    with torch.no_grad():
        np.testing.assert_allclose(sc.interpret(graph, x).y[-1] if sc.interpret(graph, x).y.ndim == 3 else
                                   sc.interpret(graph, x).y, model(torch.from_numpy(x)), atol=1e-5)  # fmt: skip
    live = graph.node("rnn.l0").patterns["hh"].mask()
    assert live.any()
    assert not (live & ~patterns["rnn.l0.hh"].mask()).any()
    sc.export_c(graph, tmp_path / "c")
    pytest.importorskip("onnx", reason="onnx is not installed")
    sc.export_onnx(graph, tmp_path / "net.onnx")


def test_a_rewired_spiking_network_goes_where_any_other_does(tmp_path):
    pytest.importorskip("nir", reason="nir is not installed")
    torch.manual_seed(0)
    neurons = SparseRLIF(0.9, 32, density=0.3, reset_mechanism="zero", reset_delay=False)
    net = torch.nn.Sequential(SparseLinear(12, 32, density=0.4), neurons)
    optimizer = torch.optim.Adam(net.parameters(), 1e-2)
    rule = G2G(net, optimizer, every=1, fraction=0.2)
    before = {name: site.pattern for name, site in rule.sites.items()}
    for _ in range(3):
        optimizer.zero_grad()
        spikes, _membranes = net((torch.rand(15, 4, 12) < 0.4).float())
        (spikes.mean() - 0.3).square().backward()
        optimizer.step()
        rule.step()
    rule.remove()
    assert all((rule.sites[name].pattern.mask() != was.mask()).any() for name, was in before.items())
    dense = net[1].to_dense()
    dense.init_hidden = dense.output = True
    graph = sc.to_graph(torch.nn.Sequential(net[0].to_dense(), dense), example=torch.rand(5, 1, 12), dt=1e-3)
    x = (np.random.default_rng(0).random((40, 1, 12)) < 0.4).astype(np.float32)
    want = sc.interpret(graph, x)
    assert want.y.sum() > 20
    made = sc.export_nir(graph, tmp_path / "net.nir")
    again = sc.interpret(sc.from_nir(made.paths[0]), x)
    assert np.array_equal(again.y, want.y)
    assert sc.verify(sc.compile(graph), x).ok
    assert fits(graph, LOIHI2).ok
    (wiring,) = (site.pattern.mask() for site in rule.sites.values() if site.pattern.shape == (32, 32))
    assert not (graph.recurrent[0].weight("hh")[~wiring]).any()


# Spikes --------------------------------------------------------------------------------------------------------------


def test_windows_are_their_sums_over_pairs_of_spikes():
    rng = torch.Generator().manual_seed(0)
    pre = (torch.rand(9, 2, 4, generator=rng) < 0.3).float()
    post = (torch.rand(9, 2, 3, generator=rng) < 0.3).float()
    window = Stdp(0.7, 0.6, potentiation=1.5, depression=0.8)
    left, right = window(pre, post)
    expected = torch.zeros(3, 4)
    for b in range(2):
        for o in range(3):
            for i in range(4):
                for t in range(9):
                    for u in range(9):
                        if post[t, b, o] and pre[u, b, i]:
                            expected[o, i] += 1.5 * 0.7 ** (t - u) if u <= t else -0.8 * 0.6 ** (u - 1 - t)
    torch.testing.assert_close(left.T @ right, expected)
    slow = torch.stack([sum(0.5 ** (t - u) * pre[u] for u in range(t + 1)) for t in range(9)])
    torch.testing.assert_close(trace(pre, 0.5), slow)
    a, b = Traces(0.5)(pre, post)
    torch.testing.assert_close(b, slow.flatten(0, 1))
    assert a.shape == (18, 3)
    assert trace(pre[:0], 0.5).shape == (0, 2, 4)
    for bad in ({"decay_pre": 1.0}, {"depression": -1.0}):
        with pytest.raises(sc.errors.UsageError, match="expected"):
            Stdp(**bad)


def test_the_cause_of_spikes_is_connected():
    """A source that always fires one step before a target gains the connection; one that fires after it does not."""
    torch.manual_seed(0)
    layer = SparseRLIF(0.0, 6, density=0.2)
    with torch.no_grad():
        layer.recurrent.values.zero_()
        layer.recurrent_bias.zero_()
    mask = layer.recurrent.pattern.mask()
    pairs = [(o, i) for o in range(6) for i in range(6) if o != i and not mask[o, i] and not mask[i, o]]
    target, source = pairs[0]
    signals = Signals(layer, window=Stdp(0.5, 0.5))
    optimizer = torch.optim.SGD(layer.parameters(), 0.0)
    rule = Rewire(layer, optimizer, drop=drop.random, grow=grow.correlation, fraction=0.15, every=1, signals=signals)
    drive = torch.zeros(40, 3, 6)
    drive[0::8, :, source] = 2.0
    drive[1::8, :, target] = 2.0
    spikes, _ = layer(drive.requires_grad_())
    assert spikes[1, 0, target] == 1
    spikes.sum().backward()
    optimizer.step()
    rule.step()
    new = layer.recurrent.pattern.mask()
    assert new[target, source]
    assert not new[source, target]


def test_scores_on_line_are_those_of_the_whole_sequence():
    rng = torch.Generator().manual_seed(0)
    window = Stdp(0.7, 0.6, potentiation=1.5, depression=0.8)
    pattern = sc.Pattern.from_mask(np.random.default_rng(0).random((5, 6)) < 0.4)
    online, parts = OnlineHebb(pattern, window), []
    for _ in range(2):
        pre = (torch.rand(9, 3, 6, generator=rng) < 0.3).float()
        post = (torch.rand(9, 3, 5, generator=rng) < 0.3).float()
        for a, b in zip(pre, post, strict=True):
            online.step(a, b)
        online.rest()
        parts.append((1.0, *window(pre, post)))
    np.testing.assert_allclose(online.scores(), normalised(parts, centered=False).of(pattern), atol=1e-6)
    online.reset()
    assert not online.scores().any()
    with pytest.raises(sc.errors.UsageError, match=r"expected \(B, cols\)"):
        online.step(post[0], pre[0])


def test_loops_of_snntorch_are_heard_step_by_step():
    snntorch = pytest.importorskip("snntorch", reason="snntorch is not installed")

    class Loop(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(6, 10)
            self.lif = snntorch.RLeaky(beta=0.8, linear_features=10, reset_mechanism="zero")
            self.out = nn.Linear(10, 2)

        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            spk, mem = self.lif.init_rleaky()
            outs, spikes = [], []
            for step in x:
                spk, mem = self.lif(self.fc(step), spk, mem)
                outs.append(self.out(spk))
                spikes.append(spk)
            return torch.stack(outs), torch.stack(spikes)

    torch.manual_seed(0)
    model = Loop()
    with torch.no_grad():
        model.fc.weight.mul_(4)
    masks = sc.Masks.prune(model, 0.6)
    optimizer = torch.optim.Adam(model.parameters(), 0.01)
    rule = G2G(masks, optimizer, every=2, fraction=0.3, signals=Signals(masks, window=Traces(0.5)))
    first = masks.digest
    for k in range(4):
        x = torch.randn(7, 3, 6)
        optimizer.zero_grad()
        out, spikes = model(x)
        out.square().mean().backward()
        if k == 3:
            spikes = spikes.detach()
            rule.signals.take()
            before = torch.cat([torch.zeros(1, 3, 10), spikes[:-1]])
            for name, pre in (("fc.weight", x), ("lif.hh", before)):
                expected = normalised([(1.0, *Traces(0.5)(pre, spikes))], centered=False)
                torch.testing.assert_close(rule.signals.sides(name).left, expected.left)
                torch.testing.assert_close(rule.signals.sides(name).right, expected.right)
        optimizer.step()
        rule.step()
    assert masks.digest != first
    masks.check()


# Processes -----------------------------------------------------------------------------------------------------------

WORKER = textwrap.dedent(
    """
    import os
    import sys
    import time

    import torch
    from torch import distributed, nn
    from torch.nn.parallel import DistributedDataParallel

    from sparsecirc.nn import SparseGRU, SparseLinear
    from sparsecirc.rules import DeepR, G2G, RigL

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc, self.act = SparseLinear(6, 16, density=0.4), nn.ReLU()
            self.rnn = SparseGRU(16, 24, density=0.2)
            self.head = nn.Linear(24, 3)

        def forward(self, x):
            return self.head(self.rnn(self.act(self.fc(x)))[0][-1])

    rank, store = int(sys.argv[1]), sys.argv[2]
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
    for make in (
        lambda m, o: G2G(m, o, every=3, fraction=0.2),
        lambda m, o: RigL(m, o, steps=30, every=3),
        lambda m, o: DeepR(m, o, alpha=0.05, temperature=1e-4),
    ):
        torch.manual_seed(100 + rank)  # the ranks begin apart: DistributedDataParallel sends rank 0's weights
        net = Net()
        ddp = DistributedDataParallel(net)
        optimizer = torch.optim.Adam(ddp.parameters(), lr=0.01)
        rule = make(ddp.module, optimizer)
        digests = [rule.digest]
        data = torch.Generator().manual_seed(rank)  # each rank sees other samples
        for _ in range(10):
            x, y = torch.randn(7, 5, 6, generator=data), torch.randint(0, 3, (5,), generator=data)
            optimizer.zero_grad()
            nn.functional.cross_entropy(ddp(x), y).backward()
            optimizer.step()
            rule.step()
            digests.append(rule.digest)
        total = sum(float(p.detach().double().abs().sum()) for p in net.parameters())
        print(len(set(digests)), ",".join(digests), total, flush=True)
        del ddp
    distributed.barrier()
    time.sleep(0.2)  # the other rank has left the barrier, too
    os._exit(0)  # gloo's threads now and then abort an interpreter that ends in the usual way
    """
)


@pytest.mark.slow
@pytest.mark.skipif(
    not torch.distributed.is_available() or not torch.distributed.is_gloo_available(),
    reason="this torch has no gloo",
)
def test_two_ranks_hold_the_same_connections(tmp_path: Path) -> None:
    script = tmp_path / "worker.py"
    script.write_text(WORKER)
    workers = [
        subprocess.Popen(
            [sys.executable, str(script), str(rank), (tmp_path / "store").as_posix()],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        for rank in range(2)
    ]  # fmt: skip
    try:
        said = [worker.communicate(timeout=120) for worker in workers]
    finally:
        for worker in workers:
            worker.kill()
    for worker, (_, errors) in zip(workers, said, strict=True):
        assert worker.returncode == 0, errors
    lines = [out.strip().splitlines()[-3:] for out, _ in said]
    assert lines[0] == lines[1]
    assert all(int(line.split()[0]) >= 4 for line in lines[0])
