"""Consumers of spiking networks: readers of NIR, simulators, and the emulators of chips.

Each lives in an environment of its own (``make test-emulators`` makes them; ``SPARSECIRC_EMULATORS`` names their
folder), so its version is asked there and it is run there. Networks that reset by subtraction after a step, snntorch's
default, are tried as they are, and once more with every reset set to zero at once (``reset zero``), which is what most
readers and Loihi know; ``with synapses`` gives every layer the neurons of Xylo. Both are compared with the network so
changed. ``approximate`` is the file that
``--allow-approximate`` writes, compared with the network that was asked for.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.studies._export_job import Absent, Array, Consumer, Job, Ran, Refused, package
from sparsecirc.cells import LIF, SYNAPTIC, Options, Reset
from sparsecirc.errors import SparsecircError
from sparsecirc.export import Export
from sparsecirc.export.nir import Profile, export_nir
from sparsecirc.export.nir._prepare import cut
from sparsecirc.hardware import (
    LOIHI1,
    LOIHI2,
    XYLO_AUDIO2,
    Chip,
    export_brian2,
    export_lava,
    export_nengo_loihi,
    export_xylo,
    quantise,
    run_simulator,
)
from sparsecirc.hardware._xylo import XyloNetwork
from sparsecirc.ir import Graph, Recurrent, interpret

EMULATORS = Path(os.environ.get("SPARSECIRC_EMULATORS", Path(__file__).parents[2] / ".emulators"))
NETWORKS = ("demo_snn", "rleaky", "rsynaptic", "neurobench_eeg", "neurobench_activity", "neurobench_reaching")
AT_ONCE = Options(Reset.ZERO, delay=False)
SILENT = "nothing fires on this input, which says little"


# ---- environments -------------------------------------------------------------------------------------------------
def _python(environment: str) -> Path:
    path = EMULATORS / environment / "bin" / "python"
    if not path.exists():
        raise Absent(f"the environment '{environment}' is missing in {EMULATORS.name}: make test-emulators")
    return path


@lru_cache
def _reader_python(name: str) -> Path:
    """The interpreter that has a reader of NIR: this one, or that of the environment of peers."""
    try:
        package(name)
    except Absent:
        return _python("peers")
    return Path(sys.executable)


def _version_in(python: Callable[[], Path], name: str) -> str:
    code = f"import importlib.metadata as m; print(m.version({name!r}))"
    done = subprocess.run([python(), "-c", code], capture_output=True, text=True, check=False)
    if done.returncode:
        raise Absent(f"the package '{name}' is not installed in its environment: make test-emulators")
    return done.stdout.strip()


# ---- forms of a network -------------------------------------------------------------------------------------------
def _reset_at_once(graph: Graph) -> Graph:
    """The same network with every membrane set to zero by its spike."""
    nodes = [
        replace(n, options=AT_ONCE) if isinstance(n, Recurrent) and n.cell.spiking else n for n in graph.nodes
    ]  # fmt: skip
    return replace(graph, nodes=tuple(nodes))


def _as_xylo(graph: Graph) -> Graph:
    """The same wiring with Xylo's neurons: a synapse with a decay, and a threshold subtracted at once."""
    nodes = []
    for n in graph.nodes:
        if isinstance(n, Recurrent) and n.cell is LIF:
            params = {**n.params, "alpha": np.full(n.units, 0.5, np.float32)}
            n = replace(n, cell=SYNAPTIC, params=params)
        if isinstance(n, Recurrent) and n.cell is SYNAPTIC:
            n = replace(n, options=Options(Reset.SUBTRACT, delay=False))
        nodes.append(n)
    return replace(graph, nodes=tuple(nodes))


def _with(job: Job, graph: Graph) -> Job:
    return replace(job, model=replace(job.model, graph=graph))


# ---- readers of NIR -----------------------------------------------------------------------------------------------
_READ = """
import contextlib, io, sys, time, warnings
import numpy as np
warnings.simplefilter("ignore")
import nir, torch
torch.set_num_threads(1)
reader, path, source, target, repeats = sys.argv[1:]
file = np.load(source)
graph = nir.read(path)
with contextlib.redirect_stdout(io.StringIO()):
    if reader == "norse":
        import norse.torch
        module = norse.torch.from_nir(graph, dt=1e-4)
    elif reader == "spikingjelly":
        from spikingjelly.activation_based.nir_exchange import import_from_nir
        module = import_from_nir(graph, dt=1e-4)
    else:
        from snntorch.import_nir import import_from_nir
        module = import_from_nir(graph)

def run(x):
    with contextlib.suppress(ImportError):
        from spikingjelly.activation_based.functional import reset_net
        if reader == "spikingjelly":
            reset_net(module)
    outputs, state = [], None
    with torch.no_grad():
        for step in torch.from_numpy(x):
            result = module(step, state)
            value, state = result if isinstance(result, tuple) else (result, state)
            outputs.append(value.numpy())
    return np.asarray(outputs)

y = run(file["x"])
taken = []
for k in range(int(repeats)):
    begun = time.process_time()
    run(file["single"])
    taken.append(time.process_time() - begun)
np.savez(target, y=y, seconds=np.median(taken))
"""


def _time_first(graph: Graph, x: Array) -> Array:
    if not graph.inputs[0].time:
        raise Refused("the input is static: NIR's readers are given a sequence")
    return np.ascontiguousarray(np.swapaxes(x, 0, 1) if graph.batch_first else x, dtype=np.float32)


def _read(name: str, job: Job, path: Path, graph: Graph) -> tuple[Mapping[str, Array], float]:
    """What a reader gives for ``job.model.x``, and seconds for ``job.model.single``."""
    given, got = job.folder / "given.npz", job.folder / "got.npz"
    got.unlink(missing_ok=True)
    np.savez(given, x=_time_first(graph, job.model.x), single=_time_first(graph, job.model.single))
    command = [
        *map(str, (_reader_python(name), "-c", _READ, name, path, given, got)), "5" if job.quick else "15",
    ]  # fmt: skip
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=240)
    except subprocess.TimeoutExpired:
        raise Refused("gave nothing within 240 s") from None
    if done.returncode or not got.exists():
        said = [line for line in done.stderr.splitlines() if line.strip()] or [f"ended with {done.returncode}"]
        raise Refused(f"{name} stops: {said[-1].strip()[:160]}")
    with np.load(got) as found:
        y = found["y"]
        return {next(iter(graph.outputs)): np.swapaxes(y, 0, 1) if graph.batch_first else y}, float(found["seconds"])


def _nir_forms(job: Job) -> Iterator[tuple[str, Graph, Profile, bool]]:
    step = cut(job.graph).graph
    graph = replace(step, outputs=dict([next(iter(step.outputs.items()))]))  # readers give one output
    yield "exact", graph, Profile.AUTO, False
    yield "approximate", graph, Profile.DIALECT, True
    yield "reset zero", _reset_at_once(graph), Profile.AUTO, False


def _nir(name: str, job: Job) -> Iterator[Ran]:
    for form, graph, profile, approximate in _nir_forms(job):
        made: Export | None = None
        try:
            path = job.folder / f"{form.replace(' ', '_')}.nir"
            made = export_nir(graph, path, profile=profile, allow_approximate=approximate)
            step = cut(graph).graph
            outputs, seconds = _read(name, job, made.paths[0], step)
            diff, spikes = _with(job, step).compare(outputs)
        except SparsecircError as error:
            yield _not_run(form, made, str(error))
            continue
        steps = max(job.model.steps, 1)
        fired = any(np.any(v) for v in interpret(step, job.model.x).outputs.values())
        yield Ran(
            _named(form, made), made.bytes, made.bytes_dense, diff, spikes, 1e6 * seconds / steps,
            note="" if fired else SILENT,
        )  # fmt: skip


def _not_run(form: str, made: Export | None, why: str) -> Ran:
    note = f"not run: {why}"
    return Ran(form, note=note) if made is None else Ran(form, made.bytes, made.bytes_dense, note=note)


def _named(form: str, made: Export) -> str:
    return form if form == "approximate" else f"{form}, {made.form}"


# ---- simulators and emulators -------------------------------------------------------------------------------------
def _one_sample(job: Job, spikes: bool) -> Array:
    """One sample, time first; where a simulator takes spikes only, one wherever the number is above zero."""
    x = _time_first(job.graph, job.model.x)[:, :1]
    return (x > 0).astype(np.float64) if spikes else x.astype(np.float64)


def _layers(graph: Graph) -> list[Recurrent]:
    return [n for n in graph.recurrent if n.cell.spiking]


def _truth(graph: Graph, x: Array) -> Mapping[str, Array]:
    """Spikes of every layer, as `interpret` gives them."""
    return interpret(replace(graph, batch_first=False), x, keep_values=True).values


def _differing(graph: Graph, want: Mapping[str, Array], found: Mapping[str, Array]) -> int:
    """Spikes that differ, over all spiking layers."""
    wrong = 0
    for layer in _layers(graph):
        a, b = np.asarray(want[f"{layer.name}.spk"]), np.asarray(found[f"{layer.name}.spk"])
        if a.size != b.size:
            raise Refused(f"layer '{layer.name}' has {b.size} spikes and not: expected {a.size}")
        wrong += int(np.count_nonzero(a.reshape(b.shape) != b))
    return wrong


Write = Callable[[Graph, Path], Export]
Want = Callable[[Graph, Array], Mapping[str, Array]]


def _simulated(
    form: str, environment: str, graph: Graph, job: Job, write: Write, want: Want, *options: str, spikes: bool = True
) -> Ran:
    """One artefact, run by a simulator on one sample; every spike of every layer is compared."""
    made: Export | None = None
    try:
        made = write(graph, job.folder / form.replace(" ", "_").replace(",", ""))
        x = _one_sample(job, spikes)
        found: Mapping[str, Any] = run_simulator(made, x, python=_python(environment), options=options)
        truth = want(graph, x)
        fired = any(np.any(truth[f"{n.name}.spk"]) for n in _layers(graph))
        wrong = _differing(graph, truth, found)
        return Ran(form, made.bytes, made.bytes_dense, None, wrong, note="" if fired else SILENT)
    except SparsecircError as error:
        why = str(error).partition("; it was run by")[0]
        return _not_run(form, made, why)


def _brian2(device: str, job: Job) -> Iterator[Ran]:
    options = ("--device", "cpp") if device == "cpp" else ()
    yield _simulated("exact", "brian2", job.graph, job, export_brian2, _truth, *options, spikes=False)


def _stored(chip: Chip) -> Want:
    """Spikes in the numbers of a chip."""

    def run(graph: Graph, x: Array) -> Mapping[str, Array]:
        integers = quantise(replace(graph, batch_first=False), chip).integers
        return integers.on_chip(x) if isinstance(integers, XyloNetwork) else integers.run(x)

    return run


def _lava(job: Job) -> Iterator[Ran]:
    zero = _reset_at_once(job.graph)
    yield _simulated("reset zero, floating point", "lava", zero, job, export_lava, _truth)
    integers = partial(export_lava, chip=LOIHI2)
    yield _simulated("reset zero, integers of Loihi 2", "lava", zero, job, integers, _stored(LOIHI2))


def _nengo_loihi(job: Job) -> Iterator[Ran]:
    zero = _reset_at_once(job.graph)
    yield _simulated(
        "reset zero, integers of Loihi", "nengo_loihi", zero, job, export_nengo_loihi, _stored(LOIHI1)
    )  # fmt: skip


def _xylosim(job: Job) -> Iterator[Ran]:
    form = "with synapses, integers of Xylo"
    yield _simulated(form, "xylosim", _as_xylo(job.graph), job, export_xylo, _stored(XYLO_AUDIO2))


def _environment(name: str, environment: str, distribution: str, form: str, run: Callable[[Job], Iterator[Ran]],
                 models: tuple[str, ...] = NETWORKS) -> Consumer:  # fmt: skip
    return Consumer(name, form, partial(_version_in, partial(_python, environment), distribution), run, models)


NEURO_CONSUMERS = (
    *(
        Consumer(name, "nir", partial(_version_in, partial(_reader_python, name), name), partial(_nir, name), NETWORKS)
        for name in ("norse", "spikingjelly", "snntorch")
    ),
    _environment("Brian2 numpy", "brian2", "brian2", "brian2", partial(_brian2, "numpy")),
    _environment("Brian2 C++", "brian2", "brian2", "brian2", partial(_brian2, "cpp"), NETWORKS[:3]),
    _environment("Lava", "lava", "lava-nc", "lava", _lava),
    _environment("nengo-loihi", "nengo_loihi", "nengo-loihi", "nengo-loihi", _nengo_loihi),
    _environment("xylosim", "xylosim", "xylosim", "xylosim", _xylosim),
)
"""Readers of NIR, simulators and emulators. Where a simulator takes spikes only, inputs above zero are spikes; integers
are compared with `quantise`, everything else with `interpret`, over all spiking layers."""
