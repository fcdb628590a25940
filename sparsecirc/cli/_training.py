"""Training on while pruning, with a checkpoint after every epoch from which the same run goes on.

The order of the data depends on the seed and the epoch only, and the checkpoint holds weights, optimizer, masks,
schedule and torch's generator, so that a run that was stopped gives the same weights, bit by bit, as one that was not.
"""

from __future__ import annotations

import io
import shutil
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from sparsecirc._files import write_atomic
from sparsecirc.cli._choices import Schedule
from sparsecirc.cli._command import Interrupted
from sparsecirc.cli._console import Out
from sparsecirc.cli._facts import live_patterns
from sparsecirc.cli._fit import Fitted, fit, load_data
from sparsecirc.cli._models import Loaded, torch_model
from sparsecirc.cli._recipe import Recipe
from sparsecirc.errors import FileFormatError, UsageError
from sparsecirc.masks import Masks
from sparsecirc.rules import Cubic

if TYPE_CHECKING:
    from sparsecirc._prune import PruneReport

CUBIC_PART = 0.6
"""Part of all steps over which the cubic schedule prunes; the rest trains at the final sparsity."""
CUBIC_UPDATES = 20
"""Updates of the masks within that part."""


def partial_path(path: Path) -> Path:
    """Where an interrupted run into ``path`` keeps its checkpoint."""
    return path.with_name(f"{path.name}.partial")


def train(
    out: Out, loaded: Loaded, recipe: Recipe, path: Path, planned: PruneReport, *, resume: bool, force: bool
) -> tuple[Any, PruneReport, dict[str, Any]]:
    """Prune and train the torch module of ``loaded``; returns it, the last pruning with all patterns, the accuracies.

    Raises:
        UsageError: no torch module, data that does not fit, or a checkpoint that is absent, left over or of another.
        Interrupted: stopped by the user; says what was kept.
    """
    checkpoint = partial_path(path) / "checkpoint.pt"
    if resume and not checkpoint.is_file():
        raise UsageError(f"nothing to resume: there is no {checkpoint}; run the same command without --resume")
    if checkpoint.exists() and not resume and not force:
        raise UsageError(
            f"an interrupted run is kept in {checkpoint.parent}: go on with --resume, or start again with --force"
        )
    fitted = fit(loaded.graph, load_data(str(recipe.data), out))
    run = Run(torch_model(loaded, out), loaded, recipe, fitted, planned)
    if resume:
        run.restore(checkpoint)
        out.say(f"going on after epoch {run.epoch} of {recipe.epochs}")
    else:
        run.start(out)
    try:
        with out.progress("training", (recipe.epochs - run.epoch) * run.steps_per_epoch) as advance:
            while run.epoch < recipe.epochs:
                run.train_epoch(advance)
                write_atomic(checkpoint, run.checkpoint())
                _tell(out, run)
    except KeyboardInterrupt as stop:
        raise Interrupted(_left(run, checkpoint)) from stop
    run.masks.check()
    run.masks.detach()
    shutil.rmtree(checkpoint.parent, ignore_errors=True)
    accuracy = {"dense": run.before, "pruned": run.fitted.accuracy(run.model), "history": run.history}
    last = planned if run.rule is None else run.rule.last
    made = replace(planned, patterns=run.masks.patterns, explanations=() if last is None else last.explanations)
    return run.model, made, accuracy


def _tell(out: Out, run: Run) -> None:
    last = run.history[-1]
    out.say(
        f"epoch {last['epoch']}/{run.recipe.epochs}: loss {last['loss']:.4f}, accuracy {last['accuracy']:.2%}, "
        f"density {last['density']:.1%}"
    )


def _left(run: Run, checkpoint: Path) -> str:
    if not checkpoint.is_file():
        return "interrupted before the first epoch ended: nothing was written"
    return (
        f"interrupted after epoch {run.epoch} of {run.recipe.epochs}: kept in {checkpoint.parent}, go on with the same "
        "command and --resume"
    )


class Run:
    """A training run that can be written down after any epoch.

    Attributes:
        model: the torch module.
        masks: its patterns, applied after every optimizer step.
        epoch: epochs done.
        before: accuracy before anything was pruned.
        history: one entry per epoch.
    """

    def __init__(self, model: Any, loaded: Loaded, recipe: Recipe, fitted: Fitted, planned: PruneReport) -> None:
        self.model, self.recipe, self.fitted = model, recipe, fitted
        self._planned = planned
        self._of = loaded.spec.text
        self.masks = Masks(model, {n: p for n, p in live_patterns(loaded.graph).items() if n in planned.patterns})
        self.optimizer = torch.optim.Adam(model.parameters(), lr=recipe.learning_rate)
        self.steps_per_epoch = -(-len(fitted.y_train) // recipe.batch_size)
        self.rule = self._cubic() if recipe.schedule is Schedule.CUBIC else None
        self.epoch = 0
        self.before = 0.0
        self.history: list[dict[str, Any]] = []

    def _cubic(self) -> Cubic:
        end = max(2, round(CUBIC_PART * self.steps_per_epoch * self.recipe.epochs))
        return Cubic(
            self.masks, self.recipe.resolved_sparsity, 0, end, max(1, end // CUBIC_UPDATES), **self.recipe.criteria()
        )

    def start(self, out: Out) -> None:
        """Measure the network as it is, then prune it unless the schedule does that later."""
        torch.manual_seed(self.recipe.seed)
        self.before = self.fitted.accuracy(self.model)
        out.say(f"accuracy {self.before:.2%} before pruning ({self.recipe.data}, test part)")
        if self.rule is None:
            self.masks.update(self._planned.patterns)
        self.masks.attach(self.optimizer)

    def train_epoch(self, advance: Any) -> None:
        """One pass over the training part."""
        data, size = self.fitted, self.recipe.batch_size
        order = torch.randperm(
            len(data.y_train), generator=torch.Generator().manual_seed(self.recipe.seed * 1_000_003 + self.epoch)
        ).numpy()
        self.model.train()
        total = 0.0
        for start in range(0, len(order), size):
            part = order[start : start + size]
            lengths = None if data.lengths_train is None else data.lengths_train[part]
            self.optimizer.zero_grad()
            logits = data.logits(self.model, data.x_train[part], lengths)
            loss = torch.nn.functional.cross_entropy(logits, torch.from_numpy(data.y_train[part]))
            loss.backward()  # type: ignore[no-untyped-call]
            self.optimizer.step()
            if self.rule is not None:
                self.rule.step()
            value = float(loss.detach())
            if value != value:
                raise UsageError(f"the loss is NaN in epoch {self.epoch + 1}: use a smaller --learning-rate")
            total += value * len(part)
            advance(1, f"epoch {self.epoch + 1} loss {value:.3f}")
        self.epoch += 1
        self.history.append(
            {
                "epoch": self.epoch,
                "loss": total / len(order),
                "accuracy": data.accuracy(self.model),
                "density": self.masks.density,
            }
        )

    def checkpoint(self) -> bytes:
        """Everything that the next epoch depends on."""
        buffer = io.BytesIO()
        torch.save(
            {
                "of": self._of,
                "recipe": self.recipe.to_yaml(),
                "epoch": self.epoch,
                "before": self.before,
                "history": self.history,
                "model": self.model.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "masks": self.masks.state_dict(),
                "rule": None if self.rule is None else self.rule.state_dict(),
                "rng": torch.get_rng_state(),
            },
            buffer,
        )
        return buffer.getvalue()

    def restore(self, path: Path) -> None:
        """Go on from a checkpoint of the same model and recipe.

        Raises:
            FileFormatError: it cannot be read.
            UsageError: it belongs to another model or recipe.
        """
        from sparsecirc.cli._torch_models import load_tensors

        found = load_tensors(path)
        if not isinstance(found, dict) or "recipe" not in found:
            raise FileFormatError(f"{path} is not a checkpoint of prune: delete {path.parent} and start again")
        for name, old, new in (("model", found["of"], self._of), ("recipe", found["recipe"], self.recipe.to_yaml())):
            if old != new:
                raise UsageError(
                    f"the run kept in {path.parent} has another {name}: repeat its command with --resume, or start "
                    "again with --force"
                )
        self.model.load_state_dict(found["model"])
        self.optimizer.load_state_dict(found["optimizer"])
        self.masks.load_state_dict(found["masks"])
        if self.rule is not None:
            self.rule.load_state_dict(found["rule"])
        self.masks.attach(self.optimizer)
        self.epoch, self.before, self.history = found["epoch"], found["before"], found["history"]
        torch.set_rng_state(found["rng"])
