"""Continual learning of spiking networks on MNIST: orthogonal projection beside its relatives.

Repeats what Xiao et al. (ICLR 2024) do with permuted MNIST on smaller streams, adds Split-MNIST with one shared head,
sparse networks and Adam, and their 10 x 60k setting once.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.studies._continual_page import page
from benchmarks.studies._study import Setting, Study, Task
from sparsecirc import continual as cl
from sparsecirc._files import write_atomic
from sparsecirc.data import mnist
from sparsecirc.nn import SparseLinear
from sparsecirc.patterns import Modular, modular, shuffled
from sparsecirc.rules import SET

NAME = "continual"


@dataclass(frozen=True)
class ContinualRow:
    """One run of a method over a scenario; accuracies as shares of the test part.

    Attributes:
        scenario: data, number of tasks and samples of each.
        method: what was done against forgetting.
        seed: of weights, task order and sample order.
        acc: mean accuracy over tasks at the end.
        bwt: backward transfer.
        fwt: forward transfer.
        forgetting: mean loss from the best accuracy of each task.
        seconds: processor time of training and tests.
        rank_used: per layer, directions (connections for the ledger) taken at the end.
    """

    scenario: str
    method: str
    seed: int
    acc: float
    bwt: float
    fwt: float
    forgetting: float
    seconds: float
    rank_used: dict[str, int] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """The fields."""
        return asdict(self)

    def summary(self) -> str:
        """Accuracy and backward transfer."""
        return f"ACC {100 * self.acc:.2f}, BWT {100 * self.bwt:+.2f}"


@dataclass(frozen=True)
class Stream:
    """A scenario and the network that learns it.

    Attributes:
        name: of the scenario.
        tasks: how many.
        train: training samples of each task.
        test: test samples of each task.
        hidden: units of both hidden layers.
        steps: T.
        split: classes in pairs with one shared parity read-out, instead of permutations.
        density: live connections of the hidden layers, in the same random pattern for each method.
        rate: of SGD, for each method.
        groups: modules of the live connections; 0 for a random pattern.
    """

    name: str
    tasks: int
    train: int
    test: int
    hidden: int
    steps: int
    split: bool = False
    density: float = 1.0
    rate: float = 0.1
    groups: int = 0

    def scenario(self, seed: int) -> cl.Scenario:
        """The tasks."""
        x, y, x_test, y_test = data()
        if self.split:
            whole = cl.split(x, y, x_test, y_test, self.tasks, increment=cl.Increment.DOMAIN, name=self.name)
            return whole.head(self.train, self.test)
        few = (x[: self.train], y[: self.train], x_test[: self.test], y_test[: self.test])
        return cl.permuted(*few, self.tasks, seed=seed, name=self.name)

    def network(self, seed: int, outputs: int, **more: Any) -> cl.SpikingNet:
        """A new network; its weights and its pattern depend on the seed alone."""
        torch.manual_seed(seed)
        modules = modules_of(self.density, self.groups) if self.groups else None
        hidden = [self.hidden] * 2
        return cl.mlp(784, hidden, outputs, steps=self.steps, density=self.density, pattern=modules, **more)


def modules_of(density: float, groups: int) -> Modular:
    """Four fifths of the connections inside groups of random units."""
    inside, grouping = 0.8 * density * groups, shuffled(0)
    return modular(groups, inside, 0.25 * inside / (groups - 1), targets=grouping, sources=grouping)


class Rewired(cl.HLOP):
    """`HLOP` whose sparse layers are rewired in the first task, when nothing has to be kept yet.

    Args:
        modules: tiers of the connections; each keeps its number.
        more: as `HLOP`.
    """

    def __init__(self, modules: Modular, **more: Any) -> None:
        super().__init__(cl.PERMUTED_MNIST, **more)
        self.modules = modules
        self.rewiring: SET | None = None

    def before_task(self, task: int, steps: int = 0) -> None:
        """Rewire in the first task only."""
        super().before_task(task, steps)
        if self.rewiring is not None:
            self.rewiring.remove()
        layers = [name for name, m in self.model.named_modules() if isinstance(m, SparseLinear)]
        plain = torch.optim.SGD(self.model.parameters(), 1.0)  # it has no state that would have to be moved along
        self.rewiring = None
        if task == 0:
            tiers = {f"{name}.weight": self.modules for name in layers}
            self.rewiring = SET(self.model, plain, every=100, fraction=0.1, modules=tiers)

    def after_step(self) -> None:
        """Exchange connections after the subspaces have learned."""
        super().after_step()
        if self.rewiring is not None:
            self.rewiring.step()


FIVE = Stream("permuted-mnist-5x20k", 5, 20000, 5000, 400, 5, rate=0.2)
SPLIT = Stream("split-mnist", 5, 10000, 10000, 400, 5, split=True)
SPARSE = Stream("permuted-mnist-5x20k-sparse90", 5, 20000, 5000, 1200, 5, density=0.1, rate=0.3)
WIDE = replace(SPARSE, name="permuted-mnist-5x20k-dense1200", density=1.0)
MODULAR = replace(SPARSE, name="permuted-mnist-5x20k-g2g90", groups=8)
TRAINING = replace(FIVE, name="permuted-mnist-5x20k-training")
TEN = Stream("permuted-mnist-10x20k", 10, 20000, 5000, 800, 6, rate=0.15)
PAPER = Stream("permuted-mnist-10x60k", 10, 60000, 10000, 800, 6)


@dataclass(frozen=True)
class Entry:
    """A method, its optimizer where that is not SGD at the rate of the stream, and settings of its network."""

    make: Callable[[], cl.Method]
    optimizer: Callable[[], cl.MakeOptimizer] | None = None
    network: Mapping[str, Any] = field(default_factory=dict)


def hlop(rule: cl.Oja = cl.ORTHONORMAL, mode: cl.Mode = cl.Mode.TRACE) -> cl.HLOP:
    """With the authors' ranks; rows are firing rates for both rules, so that only the rule differs."""
    return cl.HLOP(cl.PERMUTED_MNIST, rule=rule, mode=mode)


METHODS: dict[str, Entry] = {
    "hlop": Entry(hlop),
    "finetune": Entry(cl.Finetune),
    "hlop_published": Entry(partial(hlop, cl.PUBLISHED)),
    "gpm": Entry(cl.GPM),
    "ewc": Entry(cl.EWC, cl.sgd),
    "replay": Entry(cl.Replay),
    "joint": Entry(cl.Joint),
    "hlop+replay": Entry(lambda: cl.Combined(hlop(), cl.Replay())),
    "hlop_delta": Entry(partial(hlop, mode=cl.Mode.DELTA)),
    "hlop_adam": Entry(partial(hlop, mode=cl.Mode.DELTA), cl.adam),
    "finetune_adam": Entry(cl.Finetune, cl.adam),
    "sgp": Entry(cl.SGP),
    "owm": Entry(cl.OWM),
    "adam_nscl": Entry(cl.AdamNSCL, cl.adam),
    "derpp": Entry(cl.DERpp),
    "si": Entry(cl.SI, cl.sgd),
    "hlop_automatic": Entry(lambda: cl.HLOP(mode=cl.Mode.TRACE)),
    "ledger": Entry(cl.MaskLedger),
}
LOW, HIGH = -0.4242, 2.8215
"""Black and white, standardised."""
TRAINING_METHODS: dict[str, Entry] = {
    "bptt": Entry(hlop),
    "ottt": Entry(hlop, network={"learning": cl.OTTT()}),
    "dsr": Entry(
        lambda: cl.HLOP(cl.PERMUTED_MNIST, mode=cl.Mode.TRACE, rows=cl.WeightedRate()), network={"learning": cl.DSR()}
    ),
    "rate_coding": Entry(hlop, network={"coding": cl.RateCoding(LOW, HIGH)}),
    "latency_coding": Entry(hlop, network={"coding": cl.LatencyCoding(LOW, HIGH)}),
    "feedback_alignment": Entry(hlop, network={"feedback": cl.FeedbackAlignment(0)}),
    "sign_symmetric": Entry(hlop, network={"feedback": cl.sign_symmetric}),
}
SPARSE_METHODS: dict[str, Entry] = {
    "hlop_energy_99": Entry(lambda: cl.HLOP(cl.PERMUTED_MNIST, energy=0.99)),
    "finetune": Entry(cl.Finetune),
    "hlop_energy_95": Entry(lambda: cl.HLOP(cl.PERMUTED_MNIST, energy=0.95)),
    "hlop": Entry(partial(hlop, mode=cl.Mode.DELTA)),
    "hlop_energy_995": Entry(lambda: cl.HLOP(cl.PERMUTED_MNIST, energy=0.995)),
    "hlop_energy_995_rewired": Entry(lambda: Rewired(modules_of(0.1, 8), energy=0.995)),
}
CORE = ("hlop", "finetune", "hlop_published", "gpm", "ewc", "replay", "joint")
RELATIVES = ("hlop+replay", "sgp", "owm", "derpp", "si", "adam_nscl", "hlop_automatic", "ledger")
QUICK = ((FIVE, CORE[:6], None), (SPLIT, CORE[:3], None))
FULL = (
    (FIVE, CORE, None),
    (SPLIT, CORE, None),
    (FIVE, ("hlop_adam", "finetune_adam"), None),
    (SPARSE, tuple(SPARSE_METHODS)[:4], None),
    (WIDE, ("hlop_delta",), None),
    (MODULAR, ("hlop_energy_995", "hlop_energy_995_rewired", "finetune"), None),
    (TEN, CORE[:4], None),
    (FIVE, RELATIVES, 1),
    (TRAINING, tuple(TRAINING_METHODS), 1),
    (PAPER, (*CORE, *RELATIVES), 1),
    (SPLIT, RELATIVES, 1),
)
"""Streams, methods, and how many of the seeds (all of them where ``None``); what matters most comes first."""


@lru_cache(maxsize=1)
def data() -> tuple[torch.Tensor, ...]:
    """MNIST as standardised vectors; both parts in a random order, as the first half of the test part is easier."""
    x, y, x_test, y_test = cl.flat(mnist())
    rng = np.random.default_rng(0)
    order, order_test = torch.from_numpy(rng.permutation(len(y))), torch.from_numpy(rng.permutation(len(y_test)))
    return x[order], y[order], x_test[order_test], y_test[order_test]


def tasks(setting: Setting) -> Iterator[Task]:
    """Stream by stream, seed by seed, method by method, each once."""
    done = set()
    for stream, methods, count in QUICK if setting.quick else FULL:
        for seed in setting.seeds[:count]:
            for method in methods:
                key = f"{stream.name} {method} seed {seed}"
                if key not in done:
                    done.add(key)
                    yield Task(key, partial(one, setting, stream, method, seed))


def one(setting: Setting, stream: Stream, method: str, seed: int) -> list[ContinualRow]:
    """One run; its matrix and what else it measured are kept beside the rows."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        scenario = stream.scenario(seed)
        entry = entries(stream)[method]
        optimizer = cl.sgd(stream.rate) if entry.optimizer is None else entry.optimizer()
        how = cl.Setting(optimizer, seed=seed)
        found = cl.run(stream.network(seed, scenario.outputs, **entry.network), scenario, entry.make(), how)
    finally:
        torch.set_num_threads(threads)
    kept = details(setting.folder, stream.name, method, seed)
    write_atomic(kept, json.dumps(found.to_json() | {"method": method}).encode())
    return [ContinualRow(**(found.row() | {"method": method}))]


def entries(stream: Stream) -> Mapping[str, Entry]:
    """The methods that a stream is learned with."""
    if stream.name == TRAINING.name:
        return TRAINING_METHODS
    return SPARSE_METHODS if stream.density < 1 else METHODS


def details(folder: Path, scenario: str, method: str, seed: int) -> Path:
    """Where the whole result of a run lies."""
    return folder / "results" / f"{scenario}-{method}-{seed}.json"


def table(rows: Sequence[ContinualRow]) -> str:
    """Rows as aligned text, in percent."""
    lines = [f"{'scenario':<32}{'method':<18}{'seed':>5}{'ACC':>8}{'BWT':>8}{'FWT':>8}{'forgot':>8}{'s':>8}  rank used"]
    for r in rows:
        figures = "".join(f"{100 * v:>8.2f}" for v in (r.acc, r.bwt, r.fwt, r.forgetting))
        used = " ".join(str(v) for v in r.rank_used.values())
        lines.append(f"{r.scenario:<32}{r.method:<18}{r.seed:>5}{figures}{r.seconds:>8.1f}  {used}")
    return "\n".join(lines)


CONTINUAL = Study(
    NAME,
    "Continual learning of spiking networks",
    "Xiao et al., Hebbian Learning based Orthogonal Projection for Continual Learning of Spiking Neural Networks, "
    "ICLR 2024 (numbers of the paper are recalled, not checked)",
    tasks,
    page,
    version=2,
    row=ContinualRow,
    table=table,
)
