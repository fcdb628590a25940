"""`verify`: a program, or anything that computes the same outputs, against the float64 interpreter.

Continuous outputs must agree within a tolerance, at every time step. Spikes must be equal, but for ties: a membrane so
close to its threshold that float32 rounding decides. After a tie the two runs are different networks, so a sample is
compared up to its first tie only, and every tie is reported with its margin.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sparsecirc._program import Program
from sparsecirc._ties import Tie, first_difference, possible_tie
from sparsecirc.errors import MismatchError, UsageError
from sparsecirc.ir import Graph, Result, interpret, walk
from sparsecirc.ir._interpret import user_layout

Array = NDArray[Any]

RTOL = 1e-5
"""Largest difference accepted in float32, relative to the largest value of the output."""


@dataclass(frozen=True)
class OutputCheck:
    """Agreement of one output.

    Attributes:
        name: of the output.
        max_abs_diff, mean_abs_diff: over what was compared.
        scale: largest magnitude of the reference.
        first_quarter, last_quarter: largest difference in these parts of the sequence; their ratio is the drift.
        worst_step: time step of the largest difference; ``None`` for an output without time.
        ok: within tolerance.
    """

    name: str
    max_abs_diff: float
    mean_abs_diff: float
    scale: float
    first_quarter: float
    last_quarter: float
    worst_step: int | None
    ok: bool


@dataclass(frozen=True)
class VerifyReport:
    """Result of `verify`.

    Attributes:
        outputs: one check per output, and one per membrane that is no output (``"layer.mem"``) where it is known.
        spikes: spikes of the reference in all spiking layers, in what was compared.
        spike_mismatches: spikes that differ and that no tie explains.
        ties: spikes that rounding decided.
        steps, batch: size of the run.
        rounding: largest change of a weight by packing, relative to the weight; 0 for exact programs, ``None`` where
            no original was given.
        ok: whether everything agrees.
    """

    outputs: tuple[OutputCheck, ...]
    spikes: int
    spike_mismatches: int
    ties: tuple[Tie, ...]
    steps: int
    batch: int
    rounding: float | None
    ok: bool
    notes: tuple[str, ...] = field(default=())

    @property
    def max_abs_diff(self) -> float:
        """Largest difference over all outputs."""
        return max((o.max_abs_diff for o in self.outputs), default=0.0)

    def to_json(self) -> dict[str, Any]:
        """JSON-able form."""
        return {**asdict(self), "max_abs_diff": self.max_abs_diff}

    def table(self) -> str:
        """Aligned plain text, ending in PASS or FAIL."""
        lines = [f"{'output':<16} {'max diff':>10} {'mean diff':>10} {'scale':>10} {'first 1/4':>10} {'last 1/4':>10}"]
        lines += [
            f"{o.name:<16} {o.max_abs_diff:>10.2e} {o.mean_abs_diff:>10.2e} {o.scale:>10.2e} "
            f"{o.first_quarter:>10.2e} {o.last_quarter:>10.2e}"
            + ("" if o.ok else f"  differs most at step {o.worst_step}")
            for o in self.outputs
        ]
        if self.spikes or self.spike_mismatches or self.ties:
            lines.append(
                f"spikes: {self.spike_mismatches} of {self.spikes} differ, {len(self.ties)} decided by rounding"
            )
            lines += [
                f"  {t.layer} unit {t.unit}, step {t.step}, sample {t.sample}: margin {t.margin:.1e}" for t in self.ties
            ]
        if self.rounding is not None:
            lines.append(f"weights moved by packing: at most {self.rounding:.1e} relative")
        lines += self.notes
        lines.append("PASS" if self.ok else "FAIL")
        return "\n".join(lines)

    def __str__(self) -> str:
        return self.table()

    def check(self) -> VerifyReport:
        """Itself where everything agrees.

        Raises:
            MismatchError: something does not agree; names the worst output.
        """
        if not self.ok:
            worst = max(self.outputs, key=lambda o: o.max_abs_diff)
            raise MismatchError(
                f"output '{worst.name}' differs by {worst.max_abs_diff:.2e} at a scale of {worst.scale:.2e}, and "
                f"{self.spike_mismatches} of {self.spikes} spikes differ"
            )
        return self


def verify(
    program: Program,
    x: ArrayLike | Mapping[str, ArrayLike],
    *,
    reference: Graph | None = None,
    lengths: ArrayLike | None = None,
    tolerance: float | None = None,
) -> VerifyReport:
    """Compare ``program`` with the float64 interpreter on ``x``, per output and per time step.

    Args:
        program: what to check.
        x: inputs in the graph's layout.
        reference: the graph before compilation; the report then also says how far packing moved a weight.
        lengths: valid steps per sample.
        tolerance: largest difference relative to the largest value of an output; `Program.tolerance` by default.

    Raises:
        UsageError: inputs do not fit, or there is nothing to compare.
    """
    ctx_run = walk(program.graph, x, None, lengths, np.float32, program.compute_all, keep_values=True)
    truth = interpret(program.graph, x, lengths=lengths, keep_values=True)
    report = compare(program.graph, truth, ctx_run, tolerance=program.tolerance if tolerance is None else tolerance)
    if reference is None:
        return report
    moved = _rounding(program.graph, reference)
    rounds = {"f32": 2.0**-16, "bf16": 2.0**-8}
    bound = 0.0 if program.exact else rounds.get(program.target.dtype, float("inf"))
    return VerifyReport(**{**_fields(report), "rounding": moved, "ok": report.ok and moved <= bound})


def compare(graph: Graph, truth: Result, got: Result, *, tolerance: float = RTOL) -> VerifyReport:
    """Compare a run with the float64 ``interpret(graph, x, keep_values=True)``.

    ``got.values`` may hold the spikes and membranes of the layers, which are compared too: a wrong weight shows in a
    membrane long before it moves a spike. Where they are missing only outputs are compared; one that differs is then
    explained by a tie of a layer whose spikes are not shown, if there was one by that time.

    Raises:
        UsageError: an output has another shape.
    """
    layers = [n for n in graph.recurrent if n.cell.spiking and f"{n.name}.spk" in truth.values]
    shown = [n for n in layers if f"{n.name}.spk" in got.values]
    hidden = [n for n in layers if f"{n.name}.spk" not in got.values]
    steps, batch = _size(graph, truth)
    pairs = [(name, value, truth.outputs[name], got.outputs[name]) for name, value in graph.outputs.items()]
    membranes = [f"{n.name}.mem" for n in shown if f"{n.name}.mem" in got.values]
    pairs += [
        (m, m, user_layout(graph, m, truth.values[m]), user_layout(graph, m, got.values[m]))
        for m in membranes
        if m not in graph.outputs.values()
    ]
    differences = [_difference(graph, *pair) for pair in pairs]
    ended = np.full(batch, steps, np.int64)  # first step of each sample that is not compared any more
    ties: list[Tie] = []
    mismatches = spikes = 0
    for b in range(batch if layers and steps else 0):
        tie = first_difference(shown, truth, got, b)
        if hidden and (tie is None or not tie.explained):
            wrong = [d.first_wrong(b, tolerance) for d in differences] + [None if tie is None else tie.step]
            known = [step for step in wrong if step is not None]
            tie = (possible_tie(hidden, truth, min(known), b) if known else None) or tie
        if tie is None:
            continue
        ties.append(tie)
        backwards = any(n.reverse for n in layers)  # then a difference reaches the steps before it
        ended[b] = 0 if backwards else tie.step
        if not tie.explained:
            mismatches += sum(
                int(np.sum(truth.values[f"{n.name}.spk"][:, b] != got.values[f"{n.name}.spk"][:, b])) for n in shown
            )
    if steps and batch:
        valid = np.arange(steps)[:, None] < ended  # [T, B]
        spikes = sum(int(truth.values[f"{n.name}.spk"][valid].sum()) for n in shown)
    checks = tuple(d.check(ended, steps, tolerance) for d in differences)
    return VerifyReport(
        checks, spikes, mismatches, tuple(ties), steps, batch, None, not mismatches and all(c.ok for c in checks)
    )


def run_of(graph: Graph, outputs: Mapping[str, Array]) -> Result:
    """A run of which only the outputs are known, for `compare`, with the states of spiking layers among them."""
    states = {}
    for node in graph.recurrent:
        if node.cell.spiking:
            states[node.name] = f"{node.name}.{node.ports()[0]}"
            states |= {f"{node.name}.{port}": f"{node.name}.{port}" for port in node.ports()}
    values = {
        states[value]: np.swapaxes(outputs[name], 0, 1) if graph.batch_first else outputs[name]
        for name, value in graph.outputs.items()
        if value in states
    }
    return Result(dict(outputs), {}, values)


def _fields(report: VerifyReport) -> dict[str, Any]:
    return {name: getattr(report, name) for name in report.__dataclass_fields__}


def _size(graph: Graph, truth: Result) -> tuple[int, int]:
    """(T, B) of a run; T = 1 where nothing has time."""
    for name, value in graph.outputs.items():
        batch_at = 0 if graph.batch_first or not graph.specs[value].time else 1
        batch = truth.outputs[name].shape[batch_at]
    timed = [v for k, v in truth.values.items() if k in graph.specs and graph.specs[k].time]
    return (int(timed[0].shape[0]) if timed else 1), int(batch)


@dataclass(frozen=True)
class _Difference:
    """|got - want| of one output or membrane.

    Attributes:
        name: of the value.
        timed: whether it is a sequence.
        values: [T, B, features], with one step where it has no time.
        scale: largest magnitude of the reference.
    """

    name: str
    timed: bool
    values: Array
    scale: float

    def first_wrong(self, b: int, tolerance: float) -> int | None:
        """First step at which sample ``b`` is out of tolerance: after all of them where the value has no time."""
        wrong = np.flatnonzero((self.values[:, b] > self.allowed(tolerance)).any(axis=1))
        if not wrong.size:
            return None
        return int(wrong[0]) if self.timed else np.iinfo(np.int32).max

    def allowed(self, tolerance: float) -> float:
        """Largest difference that passes."""
        return tolerance * max(self.scale, 1e-3)

    def check(self, ended: Array, steps: int, tolerance: float) -> OutputCheck:
        """Over the steps of each sample before ``ended``; a value without time counts where none was cut off."""
        live = np.arange(len(self.values))[:, None] < ended if self.timed else (ended >= steps)[None]
        flat = np.where(live[..., None], self.values, 0.0)
        per_step = flat.max(axis=(1, 2), initial=0.0)
        quarter = max(1, len(per_step) // 4)
        top = float(per_step.max(initial=0.0))
        return OutputCheck(
            self.name,
            top,
            float(flat.mean()) if flat.size else 0.0,
            self.scale,
            float(per_step[:quarter].max(initial=0.0)),
            float(per_step[-quarter:].max(initial=0.0)),
            int(per_step.argmax()) if self.timed and per_step.size else None,
            top <= self.allowed(tolerance),
        )


def _difference(graph: Graph, name: str, value: str, want: Array, have: Array) -> _Difference:
    if want.shape != have.shape:
        raise UsageError(f"output '{name}' has shape {have.shape}: expected {want.shape}")
    timed = graph.specs[value].time
    if not timed:
        want, have = want[None], have[None]
    elif graph.batch_first:
        want, have = np.swapaxes(want, 0, 1), np.swapaxes(have, 0, 1)
    with np.errstate(invalid="ignore"):
        diff = np.abs(have.astype(np.float64) - want)
    same = (want == have) | (np.isnan(want) & np.isnan(have))
    diff = np.where(same, 0.0, np.where(np.isfinite(diff), diff, np.inf))
    scale = float(np.max(np.abs(want), initial=0.0, where=np.isfinite(want)))
    return _Difference(name, timed, diff.reshape(*diff.shape[:2], int(np.prod(diff.shape[2:]))), scale)


def _rounding(packed: Graph, original: Graph) -> float:
    """Largest relative change of a live weight."""
    before = {v.name: v for v in original.weights()}
    worst = 0.0
    for view in packed.weights():
        old = np.asarray(before[view.name].value, np.float64)
        moved = np.abs(view.value - old.astype(np.float32).astype(np.float64))
        live = np.abs(old) > 1e-30
        worst = max(worst, float(np.max(moved[live] / np.abs(old[live]), initial=0.0)))
        if np.any(moved[~live] > 1e-30):
            return float("inf")
    return worst
