"""Integer weights and states beside dense float32 and dense integer engines: what is sparsity, what is quantisation.

Engines here compute different (rounded) networks. Each is first proved against the float64 interpreter of its own
weights; the difference in its row is from the unrounded network. Quantising the state is inside every timed region.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks import _networks as networks
from benchmarks._forward import Budget
from benchmarks._rows import Measured, Setting, bytes_of, rows_of_seconds
from sparsecirc import Graph, Program, Target, compile, interpret, verify
from sparsecirc._bench import ENGINES, CannotRun, Job
from sparsecirc._bench._measure import interleaved
from sparsecirc.cells import Cell
from sparsecirc.errors import MismatchError

Array = NDArray[Any]
PEERS = ("torch_dense", "onnxruntime", "scipy_csr")
DENSE = ("torch_dense", "onnxruntime", "sparsecirc_dense")
DENSE_INT8 = ("torch_int8", "sparsecirc_int8_dense")
INT8_TOLERANCE = 0.1


@dataclass(frozen=True)
class Contender:
    """One engine: its call, how far it may be from the unrounded network, and the bytes of its weights."""

    run: Callable[[], Sequence[Array]]
    tolerance: float
    nbytes: int


def integer_case(case: str, cell: Cell) -> Callable[[Budget], Iterator[Measured]]:
    """A gated layer at 90 % sparsity and batch 1 with 16-bit integer lookup."""

    def run(budget: Budget) -> Iterator[Measured]:
        for n in (512, 1024):
            graph = networks.gated(cell, n, 0.1)
            yield _measure(Setting(case, n, 0.1, 1, 100), graph, networks.gated_input(100, 1), budget)

    return run


def _measure(setting: Setting, graph: Graph, x: Array, budget: Budget) -> Measured:
    budget.say(f"{setting.case} N={setting.n}: compile and prove")
    int16, int8 = (Target.cpu(budget.target.isa, dtype=dtype) for dtype in ("int16", "int8"))
    programs = {
        "sparsecirc": compile(graph, budget.target),
        "sparsecirc_dense": compile(graph, budget.target, kernel={"*.hh": "dense"}),
        "sparsecirc_int16": compile(graph, int16, kernel={"*.hh": "lookup16"}),
        "sparsecirc_int16_dense": compile(graph, int16, kernel={"*.hh": "dense16"}),
        "sparsecirc_int8_dense": compile(graph, int8, kernel={"*.hh": "dense8"}),
    }
    contenders, notes = {}, []
    for name, program in programs.items():
        verify(program, x).check()  # against its own weights
        contenders[name] = Contender(_call(program, x), max(1e-4, program.tolerance), program.packed_bytes)
    job = Job(graph, programs["sparsecirc"], {"x": x}, {"x": x}, None, 1, setting.batch, setting.seq_len)
    for name in PEERS:
        try:
            contenders[name] = Contender(ENGINES[name].prepare(job), 1e-4, bytes_of(graph, name))
        except (CannotRun, ImportError) as error:
            notes.append(f"{name} skipped: {error}")
    try:
        contenders["torch_int8"] = Contender(_torch_int8(graph, x), INT8_TOLERANCE, bytes_of(graph, "torch_int8"))
    except (ImportError, AttributeError) as error:
        notes.append(f"torch_int8 skipped: torch has no dynamic quantisation here ({error})")
    truth = interpret(graph, x).y
    diffs = {name: float(np.abs(np.asarray(c.run()[0]) - truth).max()) for name, c in contenders.items()}
    for name, diff in diffs.items():
        if not diff <= contenders[name].tolerance:
            raise MismatchError(f"{name} differs from the interpreter by {diff:.3g} in {setting.case}: not timed")
    budget.say(f"{setting.case} N={setting.n}: {', '.join(contenders)}")
    runs = {name: c.run for name, c in contenders.items()}
    seconds = interleaved(runs, min_seconds=budget.seconds, rounds=budget.rounds)
    dense = [name for name in DENSE if name in seconds]
    rows = rows_of_seconds(setting, seconds, dense, diffs, {name: c.nbytes for name, c in contenders.items()})
    return Measured(rows, (*notes, *_shares(seconds, dense), "onnxruntime has no quantised GRU to measure"))


def _call(program: Program, x: Array) -> Callable[[], Sequence[Array]]:
    return lambda: list(program.run(x).outputs.values())


def _shares(seconds: dict[str, NDArray[np.float64]], dense: Sequence[str]) -> list[str]:
    """The gain of the 16-bit lookup, taken apart on both ways from dense float32."""
    ours = seconds["sparsecirc_int16"]

    def best(names: Sequence[str]) -> str:
        return min((n for n in names if n in seconds), key=lambda n: float(np.median(seconds[n])))

    def over(name: str, other: NDArray[np.float64] = ours) -> float:
        return float(np.median(seconds[name] / other))

    wide, narrow = best(dense), best(DENSE_INT8)
    return [
        f"sparsecirc_int16 is {over(wide):.1f}x the best dense f32 ({wide}), {over(narrow):.1f}x the best dense int8 "
        f"({narrow}) and {over('sparsecirc_int16_dense'):.1f}x dense int16",
        f"of that, sparsity in f32 gives {over(wide, seconds['sparsecirc']):.1f}x and 16 bits another "
        f"{over('sparsecirc'):.1f}x; or int8 in dense form gives {over(wide, seconds[narrow]):.1f}x and sparsity "
        f"another {over(narrow):.1f}x",
    ]


def _torch_int8(graph: Graph, x: Array) -> Callable[[], Sequence[Array]]:
    """torch's dynamically quantised GRU: int8 weights, the state quantised at every step."""
    import torch

    (layer,) = graph.recurrent
    module = torch.nn.GRU(layer.params["ih"].shape[1], layer.units)
    with torch.no_grad():
        for role in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"):
            value = layer.params[role] if role.startswith("bias") else layer.weight(role.removeprefix("weight_"))
            getattr(module, f"{role}_l0").copy_(torch.from_numpy(np.ascontiguousarray(value)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch announces that torchao will replace this; it has no GRU yet
        model: Any = torch.ao.quantization.quantize_dynamic(  # type: ignore[no-untyped-call]
            torch.nn.Sequential(module).eval(), {torch.nn.GRU}, dtype=torch.qint8
        )
    tensor = torch.from_numpy(x)

    def run() -> Sequence[Array]:
        with torch.inference_mode():
            return [model(tensor)[0].numpy()]

    return run
