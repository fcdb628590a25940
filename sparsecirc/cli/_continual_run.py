"""Running a recipe of ``continual``: every method on every seed, stopped anywhere and gone on with.

What is finished lies in ``DIR.partial`` until all is; the run in progress keeps a checkpoint there, at least at the end
of each task and whenever the user stops it. Going on gives the same numbers, bit by bit.
"""

from __future__ import annotations

import json
import math
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

import torch

from sparsecirc import continual as cl
from sparsecirc._files import write_atomic
from sparsecirc.cli._command import Interrupted
from sparsecirc.cli._console import Out
from sparsecirc.cli._continual_data import Source
from sparsecirc.cli._continual_methods import make_method
from sparsecirc.cli._outputs import write_json, write_manifest
from sparsecirc.cli._stream import Stream
from sparsecirc.cli._training import partial_path
from sparsecirc.errors import UsageError
from sparsecirc.ir import save_graph

EVERY = 30.0
"""Seconds between checkpoints inside a task."""
CHUNK = 10
"""Steps between looks at whether the user wants to stop."""


@dataclass
class Stop:
    """Whether the user pressed Ctrl-C."""

    asked: bool = False


@contextmanager
def stoppable() -> Iterator[Stop]:
    """Ctrl-C is noted instead of raised, so that no step is left half done; the second one is raised."""
    stop = Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return

    def note(number: int, frame: FrameType | None) -> None:
        if stop.asked:
            raise KeyboardInterrupt
        stop.asked = True

    before = signal.signal(signal.SIGINT, note)
    try:
        yield stop
    finally:
        signal.signal(signal.SIGINT, before)


@dataclass
class Clock:
    """Steps done of all, for the time left.

    Attributes:
        total: steps of all runs.
        done: so far, those of earlier sittings too.
        started: when this sitting began.
        before: steps that were done by then.
    """

    total: int
    done: int = 0
    started: float = field(default_factory=time.monotonic)
    before: int = 0

    def left(self) -> str:
        """Time left in words; nothing before the first step."""
        here = self.done - self.before
        if here <= 0 or self.done >= self.total:
            return ""
        seconds = (time.monotonic() - self.started) / here * (self.total - self.done)
        return f", about {seconds / 60:.0f} min left" if seconds > 90 else f", about {seconds:.0f} s left"


class Session:
    """One recipe on its way to ``path``.

    Args:
        out: where words go.
        stream: the recipe.
        name: of the scenario.
        path: where the results will be.
        save: keep the trained networks of the first seed.

    Raises:
        UsageError: the data are not there, or do not divide into the tasks.
    """

    def __init__(self, out: Out, stream: Stream, name: str, path: Path, *, save: bool) -> None:
        self.out, self.stream, self.save = out, stream, save
        self.folder = partial_path(path)
        self.source = Source(stream, name, out)
        self.jobs = [(method, seed) for seed in stream.seeds for method in stream.methods]
        self.recipe = {"name": name, "save": save, **stream.model_dump(mode="json")}
        self.steps = sum(sum(steps_of(self.source, *job)) for job in self.jobs)
        self._told: set[tuple[str, int]] = set()

    def open(self, *, resume: bool, force: bool) -> None:
        """Find or make the folder of what is finished.

        Raises:
            UsageError: it is absent, left over, or of another recipe.
        """
        kept = self.folder / "recipe.json"
        if resume and not kept.is_file():
            raise UsageError(f"nothing to resume: there is no {kept}; run the same command without --resume")
        if kept.exists() and not resume and not force:
            raise UsageError(
                f"an interrupted run is kept in {self.folder}: go on with --resume, or start again with --force"
            )
        if not resume:
            shutil.rmtree(self.folder, ignore_errors=True)
            write_json(kept, self.recipe)
        elif json.loads(kept.read_text("utf-8")) != self.recipe:
            raise UsageError(
                f"the run kept in {self.folder} has another recipe: repeat its command with --resume, or start again "
                "with --force"
            )

    def run(self) -> list[dict[str, Any]]:
        """All results, as JSON, in the order of the jobs.

        Raises:
            Interrupted: stopped by the user; says what was kept.
        """
        threads = torch.get_num_threads()
        torch.set_num_threads(1)  # these networks are small: a second thread costs more than it gives
        try:
            with stoppable() as stop, self.out.progress("training", self.steps) as advance:
                clock = Clock(self.steps)
                return [self._one(method, seed, stop, clock, advance) for method, seed in self.jobs]
        except KeyboardInterrupt as error:
            raise Interrupted(f"interrupted: the last checkpoint is kept in {self.folder}, {_GO_ON}") from error
        finally:
            torch.set_num_threads(threads)

    def _one(self, method: str, seed: int, stop: Stop, clock: Clock, advance: Callable[[int, str], None]) -> Any:
        result = self.folder / "results" / f"{method}-{seed}.json"
        steps = steps_of(self.source, method, seed)
        if result.is_file():
            clock.done += sum(steps)
            clock.before = clock.done
            clock.started = time.monotonic()
            advance(sum(steps), "")
            return json.loads(result.read_text("utf-8"))
        scenario = self.source.scenario(seed)
        model = self.source.network(scenario, seed)
        chosen = make_method(method, self.stream.settings)
        learner = cl.Learner(model, scenario, chosen, self.source.setting(seed))
        checkpoint = self.folder / f"{method}-{seed}.pt"
        if checkpoint.is_file():
            learner.load(checkpoint)
            done = sum(steps[: learner.task]) + learner.position
            clock.done += done
            clock.before, clock.started = clock.done, time.monotonic()
            advance(done, "")
            self.out.say(f"going on with {method}, seed {seed}, {_where(learner, steps)}")

        def tell(step: cl.Step) -> None:
            clock.done += 1
            note = f"{method} seed {seed}, task {step.task + 1}/{len(scenario.tasks)}, loss {step.loss:.3f}"
            advance(1, note)
            if not math.isfinite(step.loss) and (method, seed) not in self._told:
                self._told.add((method, seed))
                self.out.warn(
                    f"{method}, seed {seed}: the loss is {step.loss} in task {step.task + 1}; its figures mean "
                    "nothing, use a smaller --learning-rate or weaker settings"
                )
            if step.accuracy is not None:
                self.out.say(_line(method, seed, scenario, step) + clock.left())

        saved, task = time.monotonic(), learner.task
        made: cl.Result | None = None
        while not learner.done:
            made = learner.run(CHUNK, tell)
            if stop.asked or learner.task != task or time.monotonic() - saved > EVERY:
                learner.save(checkpoint)
                saved, task = time.monotonic(), learner.task
            if stop.asked:
                raise Interrupted(
                    f"interrupted in {method}, seed {seed}, {_where(learner, steps)}: kept in {self.folder}, {_GO_ON}"
                )
        found = (made or learner.result()).to_json() | {"method": method}
        if self.save and seed == self.stream.seeds[0]:
            self._keep(method, learner)
        learner.method.detach()
        write_atomic(result, json.dumps(found).encode())
        checkpoint.unlink(missing_ok=True)
        return found

    def _keep(self, method: str, learner: cl.Learner) -> None:
        """Graphs of the trained network: one, or one per task where each task has a read-out or a mask of its own."""
        model, scenario = learner.model, learner.scenario
        assert isinstance(model, cl.SpikingNet)
        if not all(bool(p.isfinite().all()) for p in model.parameters()):
            self.out.warn(f"{method}: its weights are no longer finite; the network is not kept")
            return
        each = scenario.heads > 1 or isinstance(learner.method, cl.MaskLedger)
        for k, task in enumerate(scenario.tasks):
            if k and not each:
                break
            folder = self.folder / "networks" / (f"{method}-task{k}" if each else method)
            with learner.method.testing(k):
                write_network(folder, model, task.head, task.test(slice(0, 8))[0])


def write_network(folder: Path, model: cl.SpikingNet, head: int, samples: torch.Tensor) -> None:
    """The graph of a trained network, with coded test samples as its example, for ``compile`` and ``export``.

    Raises:
        UnsupportedError: a layer that has no graph.
    """
    import numpy as np

    from sparsecirc.frontends import to_graph

    model.eval()
    with torch.no_grad():
        coded = model.coding(samples, model.steps, torch.Generator().manual_seed(0))
        steps = coded.expand(model.steps, *coded.shape[1:]).contiguous()
    spiking = bool(((steps == 0) | (steps == 1)).all())
    graph = to_graph(model.to_snntorch(head), example=steps, dt=1e-3, spiking_input=spiking)
    folder.mkdir(parents=True, exist_ok=True)
    save_graph(graph, folder / "graph.safetensors")
    np.save(folder / "example.npy", steps.numpy())
    write_manifest(folder, "continual network", origin={})


_GO_ON = "go on with the same command and --resume"


def steps_of(source: Source, method: str, seed: int) -> list[int]:
    """Training steps of each task."""
    scenario, setting = source.scenario(seed), source.setting(seed)
    made = make_method(method, source.stream.settings)
    counts = [sum(len(scenario.tasks[j].y_train) for j in made.tasks(k)) for k in range(len(scenario.tasks))]
    return [setting.batches(count) * setting.epochs for count in counts]


def _where(learner: cl.Learner, steps: list[int]) -> str:
    task = min(learner.task, len(steps) - 1)
    return f"task {task + 1} of {len(steps)}, step {learner.position} of {steps[task]}"


def _line(method: str, seed: int, scenario: cl.Scenario, step: cl.Step) -> str:
    assert step.accuracy is not None
    seen = step.accuracy[: step.task + 1]
    return (
        f"{method}, seed {seed}, task {step.task + 1}/{len(scenario.tasks)} ({scenario.tasks[step.task].name}): "
        f"{seen[-1]:.1%} on it, {sum(seen) / len(seen):.1%} over those so far, first one {seen[0]:.1%}"
    )
