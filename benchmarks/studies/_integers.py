"""What the integer options of exported C cost trained networks: answers on unseen data, from the compiled program."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.studies._integer_models import SEEDED, TRIALS, WHAT, Array, Trial
from benchmarks.studies._page import grouped, markdown, spread
from benchmarks.studies._study import Page, Setting, Study, Task
from sparsecirc.errors import SparsecircError
from sparsecirc.export.c import Activations, Arithmetic, COptions, Neurons, Weights, export_c, run_c
from sparsecirc.ir import interpret

INT8, INT16, BY_8, FAST, FIXED = Weights.INT8, Weights.INT16, Arithmetic.INT8, Activations.FAST, Neurons.FIXED
GATED = (
    COptions(),
    COptions(activations=FAST),
    COptions(INT16),
    COptions(INT8),
    COptions(INT8, activations=FAST),
    COptions(INT8, arithmetic=BY_8),
    COptions(INT8, arithmetic=BY_8, activations=FAST),
)
SPIKING = (
    COptions(),
    COptions(INT16),
    COptions(INT8),
    COptions(INT8, arithmetic=BY_8),
    COptions(INT16, neurons=FIXED),
    COptions(INT8, neurons=FIXED),
    COptions(INT8, arithmetic=BY_8, neurons=FIXED),
)
DRIFT = (10, 100, 1000)
"""Steps after which the difference of a state is told."""


@dataclass(frozen=True)
class IntegerRow:
    """One trained network with one choice of options.

    Attributes:
        model: name of the network.
        seed: of its training; of its inputs where it was published.
        form: the options.
        density: share of live connections.
        bytes: of constants.
        samples: that were asked.
        accuracy: share of right answers, or ``None`` where there are no labels.
        reference: accuracy of the network itself in float64.
        changed: share of answers that differ from the network's own in float64.
        mean_diff: mean difference of the scores from the network's own, as a share of their standard deviation.
        max_diff: largest one, likewise.
        note: what the inputs are, or why it did not run.
        drift: how far the state of a long run is off in its course.
    """

    model: str
    seed: int
    form: str
    density: float
    bytes: int | None = None
    samples: int | None = None
    accuracy: float | None = None
    reference: float | None = None
    changed: float | None = None
    mean_diff: float | None = None
    max_diff: float | None = None
    note: str = ""
    drift: str = ""

    def to_json(self) -> dict[str, Any]:
        """The fields."""
        return asdict(self)

    def summary(self) -> str:
        """Accuracy and changed answers."""
        right = "" if self.accuracy is None else f" {100 * self.accuracy:.2f} %"
        return f"{self.form}{right}, changed {_percent(self.changed)}"


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.2f}"


def tasks(setting: Setting) -> Iterator[Task]:
    """Every network of the first seed, then of the others."""
    for seed in setting.seeds:
        for name in TRIALS:
            if seed == setting.seeds[0] or name in SEEDED:
                yield Task(f"{name} seed {seed}", partial(_measure, name, seed, setting))


@lru_cache(maxsize=1)
def _trial(name: str, seed: int, setting: Setting) -> Trial:
    return TRIALS[name](setting, seed)


def _measure(name: str, seed: int, setting: Setting) -> list[IntegerRow]:
    try:
        trial = _trial(name, seed, setting)
    except SparsecircError as error:
        return [IntegerRow(name, seed, "", 0.0, note=f"not run: {error}")]
    exact = [dict(interpret(trial.graph, x).outputs) for x, _ in trial.parts]
    options = SPIKING if trial.graph.spiking else GATED
    return [_row(name, seed, trial, choice, exact) for choice in options]


def _row(name: str, seed: int, trial: Trial, options: COptions, exact: list[dict[str, Array]]) -> IntegerRow:
    with tempfile.TemporaryDirectory(prefix="sparsecirc-integers-") as folder:
        made = export_c(trial.graph, Path(folder), options=options)
        got = [run_c(made, x) for x, _ in trial.parts]
    want, have = (np.concatenate([trial.scores(o).ravel() for o in outputs]) for outputs in (exact, got))
    gap = np.abs(have - want) / np.std(want)
    row = IntegerRow(
        name, seed, made.form.removeprefix("c99 "), trial.graph.density, made.bytes,
        mean_diff=float(gap.mean()), max_diff=float(gap.max()), note=trial.note, drift=_drift(name, exact, got),
    )  # fmt: skip
    if trial.answer is None:
        return row
    said, right = (np.concatenate([trial.answer(o).ravel() for o in outputs]) for outputs in (got, exact))
    labels = [y.ravel() for _, y in trial.parts if y is not None]
    facts: dict[str, Any] = {"samples": len(said), "changed": float(np.mean(said != right))}
    if labels:
        truth = np.concatenate(labels)
        facts |= {"accuracy": float(np.mean(said == truth)), "reference": float(np.mean(right == truth))}
    return IntegerRow(**{**row.to_json(), **facts})


def _drift(name: str, exact: list[dict[str, Array]], got: list[dict[str, Array]]) -> str:
    """How far a long run's state is off in its course."""
    if name != "wavernn_768":
        return ""
    gap = np.abs(got[0]["state"] - exact[0]["state"]).reshape(len(exact[0]["state"]), -1).max(axis=1)
    told = [f"{gap[:n].max():.1e} within {n} steps" for n in DRIFT if n <= len(gap)]
    return ", ".join(told)


HEAD = ("options", "bytes", "accuracy", "answers changed", "mean diff", "max diff")


def _mean(rows: Sequence[IntegerRow], field: str) -> float | None:
    values = [v for v in (getattr(r, field) for r in rows) if v is not None]
    return float(np.mean(values)) if values else None


def _line(rows: Sequence[IntegerRow]) -> tuple[str, ...]:
    """One line for a choice of options: means over the seeds."""
    right = [r.accuracy for r in rows if r.accuracy is not None]
    return (
        rows[0].form,
        f"{_mean(rows, 'bytes') or 0:,.0f}",
        spread(right) if right else "-",
        _percent(_mean(rows, "changed")),
        _percent(_mean(rows, "mean_diff")),
        _percent(_mean(rows, "max_diff")),
    )


def table(rows: Sequence[IntegerRow]) -> str:
    """Rows as aligned text."""
    body: list[tuple[str, ...]] = [("network", *HEAD)]
    for (model, _), same in grouped([r for r in rows if r.form], lambda r: (r.model, r.form)).items():
        body.append((model, *_line(same)))
    widths = [max(len(line[k]) for line in body) for k in range(len(body[0]))]
    lines = [
        "  ".join(c.ljust(w) if k < 2 else c.rjust(w) for k, (c, w) in enumerate(zip(b, widths, strict=True)))
        for b in body
    ]
    return "\n".join([*lines, *(f"{r.model}: {r.note}" for r in rows if not r.form)])


def page(rows: Sequence[IntegerRow], setting: Setting) -> Page:
    """A table per network."""
    parts = [
        "Every row is the exported program, compiled with gcc and run on data that the network has not seen in "
        "training. Nothing is calibrated: scales of weights come from the weights, those of inputs are found at run "
        "time. *Answers changed* is the share (%) of samples whose class differs from that of the float64 interpreter "
        "of the unrounded network; *mean diff* and *max diff* compare the scores, in % of their standard deviation. "
        "Accuracies (%) are means over the seeds with the standard deviation."
    ]
    for model, here in grouped([r for r in rows if r.form], lambda r: r.model).items():
        body = [_line(same) for same in grouped(here, lambda r: r.form).values()]
        seeds = len({r.seed for r in here})
        facts = f"{WHAT[model]}; {here[0].density:.1%} of the connections are alive"
        reference = [r.reference for r in here if r.form == here[0].form and r.reference is not None]
        if reference:
            facts += f"; {seeds} {'seed' if seeds == 1 else 'seeds'}; in float64 {spread(reference)} %"
        if here[0].note:
            facts += f". {here[0].note[:1].upper()}{here[0].note[1:]}"
        parts += [f"## {model}", f"{facts}.", markdown(HEAD, body)]
        drift = [f"- {r.form}: state off by {r.drift}" for r in here if r.drift]
        parts += ["\n".join(drift)] if drift else []
    refused = [f"- {r.model}: {r.note}" for r in rows if not r.form]
    if refused:
        parts += ["## What did not run", "\n".join(refused)]
    return Page("\n\n".join(parts) + "\n", {})


INTEGERS = Study(
    "integers",
    "Integer options of exported C on trained networks",
    "no paper; MNIST, JapaneseVowels, and networks published by others",
    tasks,
    page,
    row=IntegerRow,
    table=table,
)
