"""`verify`: a program, or anything that computes the same outputs, against the float64 interpreter.

Continuous outputs must agree within a tolerance, at every time step. Spikes must be equal, but for ties: a membrane so
close to its threshold that float32 rounding decides. After a tie the two runs are different networks, so a sample is
compared up to its first tie only, and every tie is reported with its margin.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sparsecirc._program import Program
from sparsecirc.cells import Options, Reset
from sparsecirc.errors import MismatchError, UsageError
from sparsecirc.ir import Context, Graph, Recurrent, Result, interpret, walk
from sparsecirc.ir._interpret import user_layout

Array = NDArray[Any]

RTOL = 1e-5
"""Largest difference accepted in float32, relative to the largest value of the output."""

TIE = 1e-5
"""Largest |v - theta| / max(|v|, |theta|, largest input to the membrane) that rounding may explain."""


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
class Tie:
    """A spike that rounding decided.

    Attributes:
        layer, step, sample, unit: where.
        margin: |v - theta| in units of the threshold, the larger of the two runs.
        explained: whether rounding can explain it.
    """

    layer: str
    step: int
    sample: int
    unit: int
    margin: float
    explained: bool


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
    bound = 0.0 if program.exact else 2.0**-16 if program.target.dtype == "f32" else float("inf")
    return VerifyReport(**{**_fields(report), "rounding": moved, "ok": report.ok and moved <= bound})


def compare(graph: Graph, truth: Result, got: Result, *, tolerance: float = RTOL) -> VerifyReport:
    """Compare a run with the float64 ``interpret(graph, x, keep_values=True)``.

    ``got.values`` may hold the spikes and membranes of the layers, which are compared too: a wrong weight shows in a
    membrane long before it moves a spike. Where it is empty only outputs are compared.
    """
    layers = [n for n in graph.recurrent if n.cell.spiking and f"{n.name}.spk" in truth.values]
    compared = [n for n in layers if f"{n.name}.spk" in got.values]
    steps, batch = _size(graph, truth)
    ended = np.full(batch, steps, np.int64)  # first step of each sample that is not compared any more
    ties: list[Tie] = []
    mismatches = spikes = 0
    if compared and steps and batch:
        for b in range(batch):
            tie = _first_difference(graph, compared, truth, got, b)
            if tie is not None:
                ties.append(tie)
                backwards = any(n.reverse for n in compared)  # then a difference reaches the steps before it
                ended[b] = 0 if backwards else tie.step
                if not tie.explained:
                    mismatches += sum(
                        int(np.sum(truth.values[f"{n.name}.spk"][:, b] != got.values[f"{n.name}.spk"][:, b]))
                        for n in compared
                    )
        valid = np.arange(steps)[:, None] < ended  # [T, B]
        spikes = sum(int(truth.values[f"{n.name}.spk"][valid].sum()) for n in compared)
    pairs = [(name, value, truth.outputs[name], got.outputs[name]) for name, value in graph.outputs.items()]
    membranes = [f"{n.name}.mem" for n in compared if f"{n.name}.mem" in got.values]
    pairs += [
        (m, m, user_layout(graph, m, truth.values[m]), user_layout(graph, m, got.values[m]))
        for m in membranes
        if m not in graph.outputs.values()
    ]
    checks = tuple(_check_output(graph, *pair, ended, steps, tolerance) for pair in pairs)
    return VerifyReport(
        checks, spikes, mismatches, tuple(ties), steps, batch, None, not mismatches and all(c.ok for c in checks)
    )


def _fields(report: VerifyReport) -> dict[str, Any]:
    return {name: getattr(report, name) for name in report.__dataclass_fields__}


def _size(graph: Graph, truth: Result) -> tuple[int, int]:
    """(T, B) of a run; T = 1 where nothing has time."""
    for name, value in graph.outputs.items():
        batch_at = 0 if graph.batch_first or not graph.specs[value].time else 1
        batch = truth.outputs[name].shape[batch_at]
    timed = [v for k, v in truth.values.items() if k in graph.specs and graph.specs[k].time]
    return (int(timed[0].shape[0]) if timed else 1), int(batch)


def _first_difference(graph: Graph, layers: list[Recurrent], truth: Result, got: Result, b: int) -> Tie | None:
    """The earliest spike of sample ``b`` that differs, in the first layer where it does."""
    first: tuple[int, int, Recurrent] | None = None  # steps computed before it, step, layer
    for node in layers:
        differs = truth.values[f"{node.name}.spk"][:, b] != got.values[f"{node.name}.spk"][:, b]
        at = np.flatnonzero(differs.reshape(len(differs), -1).any(axis=1))
        if at.size:
            step = int(at[-1] if node.reverse else at[0])
            order = len(differs) - 1 - step if node.reverse else step
            if first is None or order < first[0]:
                first = (order, step, node)
    if first is None:
        return None
    _, step, node = first
    want = truth.values[f"{node.name}.spk"][step, b].ravel()
    units = np.flatnonzero(want != got.values[f"{node.name}.spk"][step, b].ravel())
    margin, scale = _margin(node, truth, step, b)
    margin = np.maximum(margin, _margin_of_run(node, got, step, b))
    worst = int(units[np.argmax((margin / scale)[units])])
    explained = bool(np.all(margin[units] <= TIE * scale[units]))
    theta = float(abs(_threshold(node)[worst]))
    return Tie(node.name, step, b, worst, float(margin[worst] / max(theta, 1e-30)), explained)


def _threshold(node: Recurrent) -> Array:
    """One threshold per unit, float64."""
    theta = node.params["threshold"].astype(np.float64)
    if theta.size != node.units:
        theta = np.broadcast_to(theta, node.feature_shape or (node.units,))
    return theta.ravel()


def _state_before(node: Recurrent, values: Mapping[str, Array], step: int, b: int) -> dict[str, Array]:
    """State of sample ``b`` before ``step``, each (1, features); zeros at the first step."""
    at = step + 1 if node.reverse else step - 1
    inside = 0 <= at < len(values[f"{node.name}.spk"])
    return {
        s: values[f"{node.name}.{s}"][at, b][None] if inside else np.zeros((1, *shape))
        for s, shape in node.states().items()
        if f"{node.name}.{s}" in values
    }


def _margin(node: Recurrent, truth: Result, step: int, b: int) -> tuple[Array, Array]:
    """|v - theta| of every unit before its reset at (step, b) in float64, and the scale that rounding works on.

    The scale is the sum of the magnitudes that enter the membrane in this step, or the largest membrane so far.
    """
    before = _state_before(node, truth.values, step, b)
    delayed = replace(node, options=Options(node.options.reset, True))
    x = truth.values[node.inputs[0]][step : step + 1, b : b + 1]
    out, _ = delayed.compute([x], before, Context(np.float64, None))
    v, theta = out["mem"].ravel(), _threshold(node)
    size = np.abs(x[0, 0])
    drive = np.abs(node.weight("ih")) @ size if "ih" in node.params else np.full(node.units, size.max(initial=0.0))
    if "hh" in node.params:
        drive = drive + np.abs(node.weight("hh")) @ before["spk"][0].ravel()
    for role in ("bias_ih", "bias_hh", "hh_diag"):
        if role in node.params:
            drive = drive + np.abs(node.params[role]).max(initial=0.0)
    held = np.abs(truth.values[f"{node.name}.mem"][:, b]).max(axis=0, initial=0.0).ravel()
    return np.abs(v - theta), np.maximum.reduce([np.abs(v), np.abs(theta), held, drive, np.full(node.units, 1e-30)])


def _margin_of_run(node: Recurrent, got: Result, step: int, b: int) -> Array:
    """|v - theta| before the reset of the run itself, as far as its membranes tell; else 0."""
    if f"{node.name}.mem" not in got.values:
        return np.zeros(node.units)
    v = got.values[f"{node.name}.mem"][step, b].ravel().astype(np.float64)
    theta, reset = _threshold(node), node.options.reset
    if not node.options.delay and reset is not Reset.NONE:  # undo what this step's spike did (see cells/_spiking.py)
        due = _state_before(node, got.values, step, b)["mem"].ravel() > theta
        now = got.values[f"{node.name}.spk"][step, b].ravel() - due
        v = v + now * theta if reset is Reset.SUBTRACT else np.where(now > 0, theta, np.where(now < 0, v / 2, v))
    return np.asarray(np.abs(v - theta))


def _check_output(
    graph: Graph, name: str, value: str, want: Array, have: Array, ended: Array, steps: int, tolerance: float
) -> OutputCheck:
    if want.shape != have.shape:
        raise UsageError(f"output '{name}' has shape {have.shape}: expected {want.shape}")
    timed = graph.specs[value].time
    if timed and graph.batch_first:
        want, have = np.swapaxes(want, 0, 1), np.swapaxes(have, 0, 1)
    with np.errstate(invalid="ignore"):
        diff = np.abs(have.astype(np.float64) - want)
    same = (want == have) | (np.isnan(want) & np.isnan(have))
    diff = np.where(same, 0.0, np.where(np.isfinite(diff), diff, np.inf))
    scale = float(np.max(np.abs(want), initial=0.0, where=np.isfinite(want)))
    if timed:
        flat = diff.reshape(*diff.shape[:2], int(np.prod(diff.shape[2:])))
        live = (np.arange(len(diff))[:, None] < ended)[..., None]
        flat = np.where(live, flat, 0.0)
        per_step = flat.max(axis=(1, 2), initial=0.0)
        quarter = max(1, len(per_step) // 4)
        first, last = per_step[:quarter].max(initial=0.0), per_step[-quarter:].max(initial=0.0)
        worst = int(per_step.argmax()) if per_step.size else None
    else:
        flat = np.where((ended >= steps).reshape(-1, *(1,) * (diff.ndim - 1)), diff, 0.0)
        first = last = flat.max(initial=0.0)
        worst = None
    top = float(flat.max(initial=0.0))
    mean = float(flat.mean()) if flat.size else 0.0
    return OutputCheck(name, top, mean, scale, float(first), float(last), worst, top <= tolerance * max(scale, 1e-3))


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
