"""Two processes that train one model agree on every mask, whatever rule, score or pattern makes it."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")

WORKER = textwrap.dedent(
    """
    import os
    import sys
    import time

    import torch
    from torch import distributed, nn
    from torch.nn.parallel import DistributedDataParallel

    from sparsecirc import patterns, saliency, scores
    from sparsecirc.masks import Masks
    from sparsecirc.rules import Cubic, OneShot, Rewind, UntilDrop

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.rnn = nn.GRU(6, 24)
            self.head = nn.Linear(24, 3)

        def forward(self, x):
            return self.head(self.rnn(x)[0][-1])

    rank, store = int(sys.argv[1]), sys.argv[2]
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)

    def batch(generator):
        return torch.randn(7, 5, 6, generator=generator), torch.randint(0, 3, (5,), generator=generator)

    def loss(model, pair):
        return nn.functional.cross_entropy(model(pair[0]), pair[1])

    shared = [batch(torch.Generator().manual_seed(k)) for k in range(3)]  # the same on both ranks

    def agreed(net, worst):
        # Each rank measures on samples of its own; their mean is what both must see.
        value = torch.tensor(float(rank) * 0.02 - worst.pop(0))
        distributed.all_reduce(value)
        return float(value) / 2

    def until_drop(net, masks, optimizer):
        worst = [0.0, 0.0, 0.0, 1.0]
        return UntilDrop(masks, lambda: agreed(net, worst), tolerance=0.1, every=4, share=0.4, optimizer=optimizer)

    def movement(net, masks, optimizer):
        score = saliency.Movement(net)
        rule = Cubic(masks, 0.9, 0, 12, 3, score=score)
        rule.before = score.step
        return rule

    CASES = {
        "cubic": lambda net, masks, _: Cubic(masks, 0.9, 0, 12, 3),
        "random": lambda net, masks, _: Cubic(masks, 0.9, 0, 12, 3, score=scores.random(3)),
        "taylor": lambda net, masks, _: OneShot(masks, 0.9, 5, score=saliency.taylor(net, shared, loss)),
        "movement": movement,
        "rewind": lambda net, masks, optimizer: Rewind(masks, 0.5, 3, 4, to=1, optimizer=optimizer),
        "until-drop": until_drop,
        "blocks": lambda net, masks, _: Cubic(masks, 0.75, 0, 12, 6, pattern=patterns.block(4, 1)),
        "lattice": lambda net, masks, _: OneShot(masks, 0.8, 5, pattern=patterns.lattice(ranked=True)),
    }
    for name, make in CASES.items():
        torch.manual_seed(100 + rank)  # the ranks begin apart: DistributedDataParallel sends rank 0's weights
        net = Net()
        ddp = DistributedDataParallel(net)
        masks = Masks(net, {})
        optimizer = torch.optim.Adam(ddp.parameters(), lr=0.01)
        rule = make(net, masks, optimizer)
        masks.attach(optimizer)
        before = getattr(rule, "before", lambda: None)
        data, digests = torch.Generator().manual_seed(rank), []  # each rank sees other samples
        for _ in range(14):
            optimizer.zero_grad()
            loss(ddp, batch(data)).backward()
            before()
            optimizer.step()
            if rule.step():
                digests.append(masks.digest)
        masks.check()
        total = float(sum(p.double().sum() for p in net.parameters()))
        print(name, ",".join(digests), f"{masks.density:.6f}", repr(total), flush=True)
    distributed.barrier()
    time.sleep(0.2)  # the other rank has left the barrier, too
    os._exit(0)  # gloo's threads now and then abort an interpreter that ends in the usual way
    """
)

UPDATES = {
    "cubic": 4, "random": 4, "taylor": 1, "movement": 4, "rewind": 3, "until-drop": 3, "blocks": 2, "lattice": 1
}  # fmt: skip
"""How often each case changes its masks."""


@pytest.mark.skipif(
    not torch.distributed.is_available() or not torch.distributed.is_gloo_available(),
    reason="this torch has no gloo",
)
def test_two_ranks_hold_the_same_masks(tmp_path: Path) -> None:
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
        said = [worker.communicate(timeout=180) for worker in workers]
    finally:
        for worker in workers:
            worker.kill()
    for worker, (_, errors) in zip(workers, said, strict=True):
        assert worker.returncode == 0, errors
    first, second = (out.strip().splitlines() for out, _ in said)
    assert [line.split()[0] for line in first] == list(UPDATES)
    for mine, other in zip(first, second, strict=True):
        assert mine == other
        name, digests, density, _ = mine.split()
        assert len(digests.split(",")) == UPDATES[name], mine
        assert float(density) < 0.61
