"""Two processes that train one model agree on every mask."""

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
    import sys

    import torch
    from torch import distributed, nn
    from torch.nn.parallel import DistributedDataParallel

    from sparsecirc.masks import Masks
    from sparsecirc.rules import Cubic

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
    torch.manual_seed(100 + rank)  # the ranks begin apart: DistributedDataParallel sends rank 0's weights
    net = Net()
    ddp = DistributedDataParallel(net)
    masks = Masks.prune(ddp.module, 0.5)
    digests = [masks.digest]
    optimizer = torch.optim.Adam(ddp.parameters(), lr=0.01)
    masks.attach(optimizer)
    rule = Cubic(masks, 0.9, 0, 12, 3, initial=0.5)
    data = torch.Generator().manual_seed(rank)  # each rank sees other samples
    for _ in range(15):
        x, y = torch.randn(7, 5, 6, generator=data), torch.randint(0, 3, (5,), generator=data)
        optimizer.zero_grad()
        nn.functional.cross_entropy(ddp(x), y).backward()
        optimizer.step()
        if rule.step():
            digests.append(masks.digest)
    masks.check()
    print(",".join(digests), masks.density, float(sum(p.double().sum() for p in net.parameters())), flush=True)
    distributed.destroy_process_group()
    """
)


@pytest.mark.slow
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
        said = [worker.communicate(timeout=120) for worker in workers]
    finally:
        for worker in workers:
            worker.kill()
    for worker, (_, errors) in zip(workers, said, strict=True):
        assert worker.returncode == 0, errors
    first, second = (out.strip().splitlines()[-1] for out, _ in said)
    assert first == second
    digests, density, _ = first.split()
    assert len(set(digests.split(","))) == 5  # before training, then at steps 3, 6, 9, 12
    assert float(density) == pytest.approx(0.1, abs=0.005)
