"""A Lightning module of modular sparse layers that is rewired while the Trainer trains it.

    pip install lightning
    python examples/rewire_lightning.py            # a minute on one core
    python examples/rewire_lightning.py --quick    # a part of the data

The layers hold a quarter of the weights and nothing else, in 8 groups (G2GNet). Rewiring is one callback; its state is
part of Lightning's checkpoints.
"""

from __future__ import annotations

import argparse
import logging
import sys
import warnings
from collections.abc import Sequence
from typing import Any

import torch
from common import must, run, table
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from sparsecirc.data import Dataset, mnist
from sparsecirc.errors import missing_extra
from sparsecirc.nn import SparseLinear
from sparsecirc.patterns import g2g, mixer
from sparsecirc.rules import G2G

try:
    from lightning.pytorch import LightningModule, Trainer
except ModuleNotFoundError as absent:
    raise SystemExit(f"error: {missing_extra('lightning', 'lightning', 'this example')}") from absent

from sparsecirc.integrations.lightning import RewireCallback

TIERS = g2g(2, grouping=mixer)
MODULES = {"layers.0.weight": TIERS[0], "layers.2.weight": TIERS[1]}


class Classifier(LightningModule):  # type: ignore[misc, unused-ignore] # untyped where lightning is absent
    """Two modular hidden layers and a dense read-out."""

    def __init__(self, units: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            SparseLinear(784, units, density=None, pattern=TIERS[0]), nn.ReLU(),
            SparseLinear(units, units, density=None, pattern=TIERS[1]), nn.ReLU(), nn.Linear(units, 10),
        )  # fmt: skip

    def training_step(self, batch: Any, _index: int) -> torch.Tensor:
        """Cross-entropy of a batch."""
        x, y = batch
        return nn.functional.cross_entropy(self.layers(x), y)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Adam on the live values."""
        return torch.optim.Adam(self.parameters(), lr=1e-3)


@torch.no_grad()
def accuracy(model: Classifier, data: Dataset) -> float:
    """Share of the test part."""
    guess = model.layers(torch.from_numpy(data.x_test).flatten(1)).argmax(1)
    return float((guess.numpy() == data.y_test).mean())


def main(argv: Sequence[str] | None = None) -> int:
    """Train with and without rewiring."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--units", type=int, default=256)
    parser.add_argument("--epochs", type=int, default=None)
    parser.add_argument("--quick", action="store_true", help="a part of the data, one epoch")
    args = parser.parse_args(argv)
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="lightning")
    data = mnist()
    if args.quick:
        data = data.head(12000, 2000)
    loader = DataLoader(
        TensorDataset(torch.from_numpy(data.x_train).flatten(1), torch.from_numpy(data.y_train)), 100, shuffle=True
    )
    callback = RewireCallback(lambda net, optimizer: G2G(net, optimizer, every=30, fraction=0.05, modules=MODULES))
    rows = []
    for name, callbacks in (("static", []), ("rewired", [callback])):
        torch.manual_seed(0)
        model = Classifier(args.units)
        before = [model.layers[k].weight.pattern for k in (0, 2)]
        trainer = Trainer(
            max_epochs=args.epochs or (1 if args.quick else 3), accelerator="cpu", callbacks=callbacks, logger=False,
            enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
        )  # fmt: skip
        trainer.fit(model, loader)
        after = [model.layers[k].weight.pattern for k in (0, 2)]
        shared = sum(a.intersect(b).nnz for a, b in zip(before, after, strict=True))
        kept = shared / sum(p.nnz for p in after)
        must([p.nnz for p in before] == [p.nnz for p in after], "the number of connections changed")
        must((kept == 1) == (not callbacks), f"{kept:.1%} of the connections are where they were")
        rows.append((name, f"{after[0].density:.1%}", f"{kept:.1%}", f"{100 * accuracy(model, data):.2f} %"))
    print(table(("network", "alive", "connections kept", "accuracy"), rows))
    print("inside and between groups as many connections as before")
    return 0


if __name__ == "__main__":
    sys.exit(run(main))
