"""Modular connectivity and rewiring on images, beside dense networks and random wiring (Konstantaropoulos et al. 2025).

Two studies share their networks: three hidden layers at a density of 0.256 (8 groups, 1.0 inside, 0.15 between), Adam
at 1e-3 with weight decay 1e-4, batches of 256. `g2g` compares wirings, `dst` what leaves and what grows. The paper
claims up to 4.3 points over dense at 75 % sparsity; a public spiking port reached 86.9 to 87.6 % on Fashion-MNIST, with
everything within one point.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import nn

from benchmarks.studies._page import grouped, markdown, spread
from benchmarks.studies._study import Page, Setting, Study, Task
from benchmarks.studies._wired import (
    CIFAR,
    GROUPINGS,
    GROUPS,
    P_INTER,
    P_INTRA,
    WIRINGS,
    MakeRule,
    Row,
    Size,
    trained_row,
)
from benchmarks.studies._wired import table as table_of
from benchmarks.studies._wired_page import bars
from sparsecirc.patterns import Tiered, g2g
from sparsecirc.rules import G2G, SET, DeepR, Rewire, RigL, Signals, Stdp, cosine, drop, grow

Case = tuple[str, str]
"""Data set and network."""
Sizes = Mapping[Case, Size]
FULL: Sizes = {
    ("fashion_mnist", "mlp"): Size(256, 6),
    ("fashion_mnist", "snn"): Size(256, 2, None, 5),
    (CIFAR, "patch_mlp"): Size(256, 4),
    ("mnist", "mlp"): Size(256, 3),
    ("fashion_mnist", "mlp_wide"): Size(512, 8, seeds=1),
    ("fashion_mnist", "mlp_sparse"): Size(256, 6),
}
QUICK: Sizes = {("fashion_mnist", "mlp"): Size(128, 6, 12000), ("fashion_mnist", "snn"): Size(128, 4, 6000, 4)}
FAST, SHARE = 100, 0.05
"""Steps between rewirings, and share that is exchanged, beside the 1000 steps and 2.5 % of the paper."""


def sizes(setting: Setting) -> Sizes:
    """Of the full or the quick study."""
    return QUICK if setting.quick else FULL


def tiers_of(model: nn.Module, wiring: str, seed: int) -> dict[str, Tiered]:
    """The modules of each hidden weight, by the name that rules give it."""
    makers = g2g(3, GROUPS, P_INTRA, P_INTER, grouping=GROUPINGS[wiring](seed))
    return dict(zip(Signals(model).sites, makers, strict=True))


def paper(model: nn.Module, optimizer: torch.optim.Optimizer, _steps: int) -> Rewire:
    """Every 1000 steps, 2.5 %."""
    return G2G(model, optimizer)


def fast(model: nn.Module, optimizer: torch.optim.Optimizer, _steps: int, **how: Any) -> Rewire:
    """Every 100 steps, 5 %."""
    return G2G(model, optimizer, every=FAST, fraction=SHARE, **how)


def kept_modules(wiring: str, seed: int, model: nn.Module, optimizer: torch.optim.Optimizer, _steps: int) -> Rewire:
    """As `fast`, inside and between groups as many as before."""
    return G2G(model, optimizer, every=FAST, fraction=SHARE, modules=tiers_of(model, wiring, seed))


def fading(epochs: int, model: nn.Module, optimizer: torch.optim.Optimizer, steps: int, **how: Any) -> Rewire:
    """Every 100 steps, 10 % at first and ever less until three quarters of training: what grows has time to learn."""
    return G2G(model, optimizer, every=FAST, fraction=cosine(2 * SHARE, max(1, 3 * epochs * steps // 4)), **how)


def by_timing(model: nn.Module, optimizer: torch.optim.Optimizer, _steps: int) -> Rewire:
    """As `fast`, with spikes that come before counted for a connection, and after it against."""
    return G2G(model, optimizer, every=FAST, fraction=SHARE, signals=Signals(model, window=Stdp()))


def rigl(epochs: int, model: nn.Module, optimizer: torch.optim.Optimizer, steps: int) -> Rewire:
    """RigL over the whole training."""
    return RigL(model, optimizer, steps=epochs * steps)


def sets(model: nn.Module, optimizer: torch.optim.Optimizer, steps: int) -> Rewire:
    """SET, once per epoch."""
    return SET(model, optimizer, every=steps)


def deep_r(model: nn.Module, optimizer: torch.optim.Optimizer, _steps: int) -> Rewire:
    """Deep R without noise: the L1 term alone."""
    return DeepR(model, optimizer, alpha=1e-3)


PRUNE: dict[str, Any] = {
    "three": drop.three,
    "magnitude": drop.magnitude,
    "random": drop.random,
    "correlation": drop.correlation,
}
GROW: dict[str, Any] = {"hebb": grow.correlation, "random": grow.random, "gradient": grow.gradient}


def dst_rules(epochs: int, seed: int) -> list[tuple[str, str, MakeRule | None]]:
    """(wiring, name, rule) of every network of the study `dst`."""
    made: list[tuple[str, str, MakeRule | None]] = [
        ("er", "static", None),
        ("er", "set", sets),
        ("er", "rigl", partial(rigl, epochs)),
        ("er", "deep_r", deep_r),
        ("er", "g2g three+hebb", fast),
        ("g2g_mixer", "static", None),
        ("g2g_mixer", "set", sets),
        ("g2g_mixer", "rigl", partial(rigl, epochs)),
        ("g2g_mixer", "g2g three+hebb, 1000", paper),
        ("g2g_mixer", "g2g three+hebb, modules kept", partial(kept_modules, "g2g_mixer", seed)),
    ]
    pairs = [("three", "hebb"), ("three", "random"), ("three", "gradient"), ("magnitude", "hebb"), ("random", "hebb"),
             ("correlation", "hebb")]  # fmt: skip
    made += [("g2g_mixer", f"g2g {a}+{b}", partial(fast, drop=PRUNE[a], grow=GROW[b])) for a, b in pairs]
    made += [
        ("er", "g2g three+hebb, fading", partial(fading, epochs)),
        ("g2g_mixer", "g2g three+hebb, fading", partial(fading, epochs)),
        ("g2g_mixer", "g2g magnitude+hebb, fading", partial(fading, epochs, drop=drop.magnitude)),
        ("g2g_mixer", "g2g magnitude+random, fading", partial(fading, epochs, drop=drop.magnitude, grow=grow.random)),
    ]
    return made


def g2g_tasks(setting: Setting) -> Iterator[Task]:
    """Seed by seed, every wiring without rewiring and the modular ones with it."""
    for seed in setting.seeds:
        for (dataset, network), size in sizes(setting).items():
            if network == "mlp_sparse" or (size.seeds is not None and seed not in setting.seeds[: size.seeds]):
                continue
            rows: list[tuple[str, str, MakeRule | None]] = [(wiring, "static", None) for wiring in WIRINGS]
            rows += [
                ("g2g_index", "g2g three+hebb", fast),
                ("g2g_mixer", "g2g three+hebb", fast),
                ("g2g_index", "g2g magnitude+hebb", partial(fast, drop=drop.magnitude)),
            ]
            for wiring, name, rule in rows:
                yield _task("g2g", setting, dataset, network, wiring, name, rule, size, seed)


def dst_tasks(setting: Setting) -> Iterator[Task]:
    """Seed by seed, every rule; spike timing on spiking networks."""
    for seed in setting.seeds:
        for (dataset, network), size in sizes(setting).items():
            if dataset != "fashion_mnist" or network == "mlp_wide":
                continue
            rules = dst_rules(size.epochs, seed)
            if network == "mlp_sparse":
                fading_er: list[tuple[str, str, MakeRule | None]] = [
                    ("er", f"g2g {a}+{b}, fading", partial(fading, size.epochs, drop=PRUNE[a], grow=GROW[b]))
                    for a, b in (("magnitude", "random"), ("magnitude", "hebb"), ("three", "hebb"))
                ]
                rules = [r for r in rules if r[0] == "er" and r[1] in ("static", "rigl", "deep_r")] + fading_er
            if network == "snn":
                few = ("static", "set", "rigl", "g2g three+hebb")
                rules = [r for r in rules if r[1] in few] + [("g2g_mixer", "g2g three+stdp", by_timing)]
            for wiring, name, rule in rules:
                yield _task("dst", setting, dataset, network, wiring, name, rule, size, seed)


def _task(
    study: str, setting: Setting, dataset: str, network: str, wiring: str, name: str, rule: MakeRule | None, size: Size,
    seed: int,
) -> Task:  # fmt: skip
    key = f"{dataset} {network} {wiring} {name} seed {seed}"
    work: Callable[[], Sequence[Row]] = partial(
        trained_row, study, setting, dataset, network, wiring, name, rule, size, seed
    )
    return Task(key, work)


def page(rows: Sequence[Row], setting: Setting) -> Page:
    """A table and a drawing for each data set and network."""
    parts = [(__doc__ or "").split("\n\n")[1].replace("\n", " ")]
    figures = {}
    parts += ["## What came out", "\n".join(f"- {line}" for line in findings(rows))]
    for (dataset, network), found in grouped(rows, lambda r: (r.dataset, r.network)).items():
        size = sizes(setting).get((dataset, network))
        parts.append(f"## {dataset}, {network}")
        if size is not None:
            parts.append(_setting(dataset, network, size, found))
        name = f"{found[0].study}-{dataset}-{network}.svg".replace("_", "-")
        kinds = grouped(found, lambda r: (r.wiring, r.rule))
        figures[name] = bars(
            {f"{w}, {r}" if r != "static" else w: [x.accuracy for x in of] for (w, r), of in kinds.items()}
        )
        parts += [f"![accuracy by wiring and rule]({name})", _table(kinds)]
    return Page("\n\n".join(parts) + "\n", figures)


def findings(rows: Sequence[Row]) -> list[str]:
    """One sentence per data set and network: the best sparse network beside its peers, or beside its own start."""
    said = []
    for (dataset, network), found in grouped(rows, lambda r: (r.dataset, r.network)).items():
        kinds = grouped(found, lambda r: (r.wiring, r.rule))
        sparse = {kind: of for kind, of in kinds.items() if not kind[0].startswith("dense")}
        wiring, rule = max(sparse, key=lambda kind: _mean(sparse[kind]))
        best = sparse[wiring, rule]
        line = f"{dataset}, {network}: the best sparse network is {wiring}, {rule}: {100 * _mean(best):.2f} %"
        peers = [
            (("dense", "static"), "dense of the same width (the paper claims up to +4.3)"),
            (("dense_same_params", "static"), "dense of as many parameters"),
            (("er", "static"), "random wiring of the same density, not rewired"),
            ((wiring, "static"), "the same wiring, not rewired"),
        ]
        for kind, name in peers:
            if kind in kinds and kind != (wiring, rule):
                line += f"; {100 * _difference(best, kinds[kind]):+.2f} points from {name}"
        said.append(line + ".")
    return said


def _mean(rows: Sequence[Row]) -> float:
    return sum(r.accuracy for r in rows) / len(rows)


def _difference(rows: Sequence[Row], others: Sequence[Row]) -> float:
    """Mean over the seeds that both have."""
    theirs = {r.seed: r.accuracy for r in others}
    pairs = [r.accuracy - theirs[r.seed] for r in rows if r.seed in theirs]
    return sum(pairs) / len(pairs) if pairs else float("nan")


def _setting(dataset: str, network: str, size: Size, rows: Sequence[Row]) -> str:
    note = " Images are lossy JPEG copies of CIFAR-10, not the original bits." if dataset == CIFAR else ""
    steps = f", {size.steps} time steps" if network == "snn" else ""
    images = "all training images" if size.train is None else f"{size.train} training images"
    seeds = sorted({r.seed for r in rows})
    return f"Three hidden layers of {size.width} units, {size.epochs} epochs, {images}{steps}; seeds {seeds}.{note}"


def _table(kinds: Mapping[Any, Sequence[Row]]) -> str:
    dense = {r.seed: r.accuracy for r in kinds.get(("dense", "static"), ())}
    base = next(iter(kinds.values())) if not dense else ()
    reference = dense or {r.seed: r.accuracy for r in base}
    body = []
    for (wiring, rule), found in kinds.items():
        gains = [100 * (r.accuracy - reference[r.seed]) for r in found if r.seed in reference]
        speed = sorted(r.train_us_per_step_dense / r.train_us_per_step for r in found)
        body.append((
            f"{wiring}, {rule}", f"{found[0].density:.3f}", f"{found[0].params}", spread([r.accuracy for r in found]),
            f"{sum(gains) / len(gains):+.2f}" if gains else "-", f"{speed[len(speed) // 2]:.1f}", f"{len(found)}",
        ))  # fmt: skip
    against = "minus dense, points" if dense else "minus the first row, points"
    return markdown(
        ("wiring, rule", "density", "parameters", "accuracy %", against, "training speed over dense", "seeds"), body
    )


SOURCE = "Konstantaropoulos, Smirnakis & Papadopouli 2025, arXiv:2508.14140"
G2G_STUDY = Study(
    "g2g", "Modular connectivity beside dense and random wiring", SOURCE, g2g_tasks, page, row=Row, table=table_of
)
DST_STUDY = Study(
    "dst",
    "What leaves and what grows: rules of dynamic sparse training",
    SOURCE,
    dst_tasks,
    page,
    row=Row,
    table=table_of,
)
