"""The goals of the kernels, each with what was measured: reached or missed."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from benchmarks._rows import Measured, Row

PEERS = ("torch_dense", "onnxruntime", "openvino")
"""Dense engines of others that run gated layers."""
LOOPS = ("scipy_csr", "torch_csr", "torch_sparse")
OURS_TOO = (*PEERS, "sparsecirc_dense")
INT8 = ("torch_int8", "onnxruntime_int8", "sparsecirc_int8_dense")
GATED = {"GRU": "gru_unstructured", "LSTM": "lstm_unstructured", "RNN": "rnn_unstructured"}
SIZES = (512, 1024)


class Missing(Exception):
    """A goal cannot be judged: that was not measured."""


@dataclass(frozen=True)
class Verdict:
    """One goal: its text, what was measured, and whether it is reached; ``None`` where it was not measured."""

    goal: str
    measured: str
    reached: bool | None

    @property
    def word(self) -> str:
        """As printed."""
        return {True: "reached", False: "missed", None: "not measured"}[self.reached]


class Table:
    """Rows of one run that can be asked for quotients."""

    def __init__(self, groups: Sequence[Measured]) -> None:
        self.groups = groups

    def group(self, case: str, n: int | None = None, batch: int | None = None) -> Measured:
        """The rows of one configuration.

        Raises:
            Missing: it was not measured.
        """
        for group in self.groups:
            row = group.rows[0] if group.rows else None
            if row and row.case == case and n in (None, row.n) and batch in (None, row.batch):
                return group
        size = "".join(f" {name} = {value}" for name, value in (("N", n), ("B", batch)) if value is not None)
        raise Missing(f"{case}{size} was not measured")

    def over(
        self,
        case: str,
        peers: Sequence[str],
        n: int | None = None,
        batch: int | None = None,
        ours: str | Sequence[str] = "sparsecirc",
    ) -> float:
        """Time of the fastest of ``peers`` over ours, formed over the same rounds; of several of ours, the fastest.

        Raises:
            Missing: one side was not measured.
        """
        rows = {row.engine: row for row in self.group(case, n, batch).rows}
        own = [rows[name] for name in ([ours] if isinstance(ours, str) else ours) if name in rows]
        other = [rows[name] for name in peers if name in rows]
        if not own or not other:
            raise Missing(f"{case} lacks {ours if other else ', '.join(peers)}")
        return max(r.speedup_vs_best_dense for r in own) / max(r.speedup_vs_best_dense for r in other)


def _times(values: Sequence[float]) -> str:
    return ", ".join(f"{v:.1f}x" if v < 20 else f"{v:.0f}x" for v in values)


def _judge(goal: str, measure: Callable[[], tuple[str, bool]]) -> Verdict:
    try:
        return Verdict(goal, *measure())
    except Missing as missing:
        return Verdict(goal, str(missing), None)


def verdicts(groups: Sequence[Measured], avx2: Sequence[Measured]) -> list[Verdict]:
    """Every goal, judged by a run and by a run that was forced to AVX2."""
    t, narrow = Table(groups), Table(avx2)

    def each(limit: float, peers: Sequence[str]) -> Callable[[], tuple[str, bool]]:
        def measure() -> tuple[str, bool]:
            found = {name: [t.over(case, peers, n, 1) for n in SIZES] for name, case in GATED.items()}
            text = "; ".join(f"{name} {_times(values)}" for name, values in found.items())
            return text, min(min(v) for v in found.values()) >= limit

        return measure

    def one(
        limit: float, case: str, peers: Sequence[str], sizes: Sequence[int], batch: int = 1, table: Table = t,
        ours: str | Sequence[str] = "sparsecirc", beside: Sequence[str] = (),
    ) -> Callable[[], tuple[str, bool]]:  # fmt: skip
        def measure() -> tuple[str, bool]:
            values = [table.over(case, peers, n, batch, ours) for n in sizes]
            text = _times(values)
            if beside:
                text += f"; {_times([table.over(case, beside, n, batch, ours) for n in sizes])} with ours"
            return text, min(values) >= limit

        return measure

    integers = ("sparsecirc_int16", "sparsecirc_int8")
    case16 = "gru_unstructured_int16"
    asked: list[tuple[str, Callable[[], tuple[str, bool]]]] = [
        ("unstructured 90 %, batch 1, N = 512 and 1024: 5x the best dense engine of others", each(5, PEERS)),
        ("the same: 5x the loops over sparse products of scipy, torch and torch-sparse", each(5, LOOPS)),
        ("the same, our own dense kernel counted as well: 5x", each(5, OURS_TOO)),
        (
            "integer weights and states, GRU: 10x the best dense f32 engine",
            one(10, case16, PEERS, SIZES, ours=integers, beside=OURS_TOO),
        ),
        ("the same: 3x the best dense int8 engine, ours included", one(3, case16, INT8, SIZES, ours=integers)),
        (
            "16x1 blocks 90 %, batch 1: 10x the best dense engine of others",
            one(10, "gru_block16", PEERS, SIZES, beside=OURS_TOO),
        ),
        ("unstructured 90 %, batch 64: 5x the best dense engine", one(5, "gru_unstructured", OURS_TOO, SIZES, 64)),
        ("the same: ahead of DeepSparse 1.7", one(1, "gru_unstructured", ("deepsparse",), SIZES, 64)),
        (
            "recurrent LIF 90 %, 5 % rate, N = 1024, batch 1: 100x the snntorch loop",
            one(100, "rlif_event", ("snntorch",), (1024,)),
        ),
        ("the same, batch 64: 20x", one(20, "rlif_event", ("snntorch",), (1024,), 64)),
        (
            "training step, 90 %, N = 512, T = 100, batch 64, GRU: 3x torch dense",
            one(3, "train_gru", ("torch_dense",), (512,), 64),
        ),
        ("training step, LIF: 10x the snntorch loop", one(10, "train_rlif", ("snntorch",), (512,), 64)),
        ("gradient and optimizer memory: at most 15 % of dense, where all weights are pruned", lambda: _memory(t)),
        ("bandwidth of the chosen kernel: 60 % of what the core can read", lambda: _bandwidth(t)),
        (
            "trained 95 % sparse WaveRNN, batch 1: 20x onnxruntime's dense GRU",
            one(20, "wavernn", ("onnxruntime",), (1024,)),
        ),
        (
            "AVX2 forced, unstructured 90 %: 2x the best dense f32 engine",
            one(2, "gru_unstructured", PEERS, SIZES, table=narrow),
        ),
        (
            "AVX2 forced, integers: 1.5x the best dense int8 engine",
            one(1.5, case16, INT8, SIZES, table=narrow, ours=integers),
        ),
        ("AVX2 forced, 8x1 blocks: 6x the best dense f32 engine", one(6, "gru_block8", PEERS, SIZES, table=narrow)),
    ]
    return [_judge(goal, measure) for goal, measure in asked]


def _memory(table: Table) -> tuple[str, bool]:
    shares = []
    for case in ("train_gru_input", "train_rlif_input"):
        rows: dict[str, Row] = {row.engine: row for row in table.group(case).rows}
        ours = rows.pop("sparsecirc")
        shares.append(ours.bytes / max(row.bytes for row in rows.values()))
    return "GRU {:.1%}, LIF {:.1%}, indices included".format(*shares), max(shares) <= 0.15


SHARE = re.compile(r"(\d+)% of the \d+ GB/s")


def _bandwidth(table: Table) -> tuple[str, bool]:
    found = [int(m[1]) for group in table.groups for note in group.notes if (m := SHARE.search(note))]
    if not found:
        raise Missing("no bandwidth was measured")
    return f"{min(found)} % to {max(found)} % over {len(found)} layers", min(found) >= 60
