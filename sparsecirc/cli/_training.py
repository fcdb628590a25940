"""Training on while pruning, with a checkpoint after every epoch from which the same run goes on.

The order of the data depends on the seed and the epoch only, and the checkpoint holds weights, optimizer, masks,
schedule and torch's generator, so that a run that was stopped gives the same weights, bit by bit, as one that was not.
"""

from __future__ import annotations

import io
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from sparsecirc._files import write_atomic
from sparsecirc.cli._choices import Schedule
from sparsecirc.cli._command import Interrupted
from sparsecirc.cli._console import Out
from sparsecirc.cli._facts import live_patterns
from sparsecirc.cli._fit import Fitted
from sparsecirc.cli._models import Loaded
from sparsecirc.cli._recipe import Recipe
from sparsecirc.cli._scheduling import make_rule
from sparsecirc.cli._scoring import Fresh
from sparsecirc.errors import FileFormatError, UsageError
from sparsecirc.masks import Masks
from sparsecirc.rules import UntilDrop
from sparsecirc.saliency import Movement

if TYPE_CHECKING:
    from sparsecirc._prune import PruneReport, Sparsity


@dataclass(frozen=True)
class Job:
    """What is trained, and how it is pruned.

    Attributes:
        loaded: where the network comes from.
        recipe: all options.
        model: the torch module; it is changed in place.
        data: in the layout of the network.
        planned: what pruning it now gives.
        sparsity: in the end, as for ``prune``.
        how: score, pattern, scope and selection, as the library's ``prune`` takes them.
        before: accuracy before anything was done, where that is not the model's own.
    """

    loaded: Loaded
    recipe: Recipe
    model: Any
    data: Fitted
    planned: PruneReport
    sparsity: Sparsity
    how: Mapping[str, Any]
    before: float | None = None


def partial_path(path: Path) -> Path:
    """Where an interrupted run into ``path`` keeps its checkpoint."""
    return path.with_name(f"{path.name}.partial")


def train(out: Out, job: Job, path: Path, *, resume: bool, force: bool) -> tuple[PruneReport, dict[str, Any]]:
    """Prune and train a torch module in place; returns the last pruning with all patterns, and the accuracies.

    Raises:
        UsageError: a checkpoint that is absent, left over or of another run, or a schedule that does not fit.
        Interrupted: stopped by the user; says what was kept.
    """
    checkpoint = partial_path(path) / "checkpoint.pt"
    if resume and not checkpoint.is_file():
        raise UsageError(f"nothing to resume: there is no {checkpoint}; run the same command without --resume")
    if checkpoint.exists() and not resume and not force:
        raise UsageError(
            f"an interrupted run is kept in {checkpoint.parent}: go on with --resume, or start again with --force"
        )
    recipe = job.recipe
    run = Run(job)
    if resume:
        run.restore(checkpoint)
        out.say(f"going on after epoch {run.epoch} of {recipe.epochs}")
    else:
        run.start()
    out.say(f"accuracy {run.before:.2%} before pruning ({recipe.data}, test part)")
    try:
        with out.progress("training", (recipe.epochs - run.epoch) * run.steps_per_epoch) as advance:
            while run.epoch < recipe.epochs and not run.finished:
                run.train_epoch(advance)
                write_atomic(checkpoint, run.checkpoint())
                _tell(out, run)
    except KeyboardInterrupt as stop:
        raise Interrupted(_left(run, checkpoint)) from stop
    run.masks.check()
    run.masks.detach()
    shutil.rmtree(checkpoint.parent, ignore_errors=True)
    accuracy = {"dense": run.before, "pruned": job.data.accuracy(run.model), "history": run.history}
    if isinstance(run.rule, UntilDrop):
        accuracy["search"] = [dict(zip(("step", "sparsity", "held_out"), h, strict=True)) for h in run.rule.history]
        out.say(_found(run.rule))
    last = job.planned if run.rule is None else run.rule.last
    explained = () if last is None else last.explanations
    return replace(job.planned, patterns=run.masks.patterns, explanations=explained), accuracy


def _found(rule: UntilDrop) -> str:
    first, last = rule.history[0][2], rule.history[-1]
    if last[2] < first - rule.tolerance:
        return (
            f"sparsity {rule.sparsity:.1%} is the last good one: {last[1]:.1%} has {last[2]:.2%} on held-out samples, "
            f"the network had {first:.2%}"
        )
    return f"sparsity {rule.sparsity:.1%} reached without a drop: more --epochs or a higher --sparsity may go further"


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

    def __init__(self, job: Job) -> None:
        self.model, self.recipe, self.data = job.model, job.recipe, job.data
        self._job = job
        self._score = job.how["score"]
        recipe = job.recipe
        # What was pruned before stays so, also where this run prunes other weights only.
        known = {info.name for info in Masks(job.model, {}).weights()}
        self.masks = Masks(job.model, {n: p for n, p in live_patterns(job.loaded.graph).items() if n in known})
        how = {**job.how, "select": lambda info: info.name in job.planned.patterns}
        self.optimizer = torch.optim.Adam(job.model.parameters(), lr=recipe.learning_rate)
        self._test = job.data
        watched = job.data
        if recipe.schedule is Schedule.UNTIL_DROP:
            self.data, watched = job.data.held_out(recipe.seed)
        self.steps_per_epoch = -(-len(self.data.y_train) // recipe.batch_size)
        self.rule = make_rule(
            recipe, self.masks, job.sparsity, how, steps_per_epoch=self.steps_per_epoch,
            evaluate=lambda: self._accuracy(watched), optimizer=self.optimizer,
        )  # fmt: skip
        self.epoch = 0
        self.before = 0.0
        self.history: list[dict[str, Any]] = []

    def _accuracy(self, data: Fitted) -> float:
        """On the test part of ``data``, without leaving the mode of training."""
        trains = self.model.training
        found = data.accuracy(self.model)
        self.model.train(trains)
        return found

    @property
    def finished(self) -> bool:
        """Whether the search for a sparsity has ended before the last epoch."""
        return isinstance(self.rule, UntilDrop) and self.rule.done

    def start(self) -> None:
        """Measure the network as it is, then prune it unless the schedule does that later."""
        torch.manual_seed(self.recipe.seed)
        self.before = self._test.accuracy(self.model) if self._job.before is None else self._job.before
        if self.rule is None:
            self.masks.update(self._job.planned.patterns)
        self.masks.attach(self.optimizer)

    def _after_step(self, *, last: bool) -> None:
        """What follows an optimizer step, the last one of the run among them."""
        if isinstance(self._score, Fresh):
            self._score.forget()
        if last and isinstance(self.rule, UntilDrop):
            self.rule.finish()
        elif self.rule is not None:
            self.rule.step()

    def train_epoch(self, advance: Any) -> None:
        """One pass over the training part."""
        data, size = self.data, self.recipe.batch_size
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
            if isinstance(self._score, Movement):
                self._score.step()
            self.optimizer.step()
            self._after_step(last=self.epoch + 1 == self.recipe.epochs and start + size >= len(order))
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
                "accuracy": self._test.accuracy(self.model),
                "density": self.masks.density,
            }
        )

    def checkpoint(self) -> bytes:
        """Everything that the next epoch depends on."""
        buffer = io.BytesIO()
        torch.save(
            {
                "of": self._job.loaded.spec.text,
                "recipe": self.recipe.to_yaml(),
                "epoch": self.epoch,
                "before": self.before,
                "history": self.history,
                "model": self.model.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "masks": self.masks.state_dict(),
                "rule": None if self.rule is None else self.rule.state_dict(),
                "score": self._score.state_dict() if isinstance(self._score, Movement) else None,
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
        for name, old, new in (
            ("model", found["of"], self._job.loaded.spec.text),
            ("recipe", found["recipe"], self.recipe.to_yaml()),
        ):
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
        if isinstance(self._score, Movement):
            self._score.load_state_dict(found["score"])
        self.masks.attach(self.optimizer)
        self.epoch, self.before, self.history = found["epoch"], found["before"], found["history"]
        torch.set_rng_state(found["rng"])
