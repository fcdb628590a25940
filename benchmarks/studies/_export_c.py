"""Consumers of C: compilers of this machine, user-mode emulators, and emulated Cortex-M boards."""

from __future__ import annotations

import ctypes
import re
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial

import numpy as np

from benchmarks.studies._boards import BOARDS, HOSTS, Host, count_instructions, missing_tools, run_board
from benchmarks.studies._export_job import Absent, Array, Consumer, Job, Ran, Refused
from sparsecirc.errors import SparsecircError
from sparsecirc.export import Export
from sparsecirc.export.c import Activations, Arithmetic, COptions, Index, Neurons, Weights, as_exported, export_c, run_c
from sparsecirc.export.c._host import as_samples, build, read_manifest

DENSE = COptions(index=Index.NONE)
EXACT = COptions()
INT8 = COptions(Weights.INT8)
SMALL = COptions(Weights.INT8, arithmetic=Arithmetic.INT8, activations=Activations.FAST)
FIXED = COptions(Weights.INT8, arithmetic=Arithmetic.INT8, activations=Activations.FAST, neurons=Neurons.FIXED)
"""Integers, fast activations, membranes in fixed point; compared with the network that they stand for."""
QUICK_BYTES = 150_000
"""Larger networks have no instructions counted on hosts in a quick run; each takes a line in the emulator's log."""
QUICK_LIVE = 300_000
"""Connections beyond which a quick run leaves a network out."""
FLAGS = ("-std=c99", "-O2", "-ffp-contract=off")


def _forms(job: Job, options: tuple[COptions, ...]) -> Iterator[tuple[str, Job, Export]]:
    """The network with each of the options, and the job to compare it with."""
    for k, given in enumerate(options):
        choice = FIXED if given is SMALL and job.graph.spiking else given
        exact = replace(job, model=replace(job.model, graph=as_exported(job.graph, choice)))
        made = export_c(job.graph, job.folder / str(k), options=choice)
        yield made.form.removeprefix("c99 ").replace("index none", "dense"), exact, made


def _check_size(job: Job) -> None:
    """Raises `Refused` for a network that a quick run leaves out: compilers take long over megabytes of constants."""
    live = sum(view.pattern.nnz for view in job.graph.weights())
    if job.quick and live > QUICK_LIVE:
        raise Refused(f"{live:,} connections are left to the full study")


def _on_host(host: Host, options: tuple[COptions, ...], job: Job) -> Iterator[Ran]:
    _check_size(job)
    for form, exact, made in _forms(job, options):
        got = run_c(made, job.model.x, flags=FLAGS, compile_with=host.compile_with, run_with=host.run_with)
        diff, spikes = exact.compare(got)
        time = None if host.run_with else job.us_per_step(_library_call(made, job.model.single, host))
        counted = not job.quick or (made.bytes < QUICK_BYTES and form == "float32")
        count = count_instructions(host, made, _first_sample(job), job.folder, FLAGS) if counted else None
        yield Ran(form, made.bytes, made.bytes_dense, diff, spikes, time, count)


def _first_sample(job: Job) -> Array:
    batch_major = job.graph.batch_first or not job.graph.inputs[0].time
    return job.model.x[:1] if batch_major else job.model.x[:, :1]


def _library_call(made: Export, x: Array, host: Host) -> Callable[[], object]:
    """A call of the run function on one sample, compiled into a shared library."""
    header = next(p for p in made.paths if p.suffix == ".h")
    data = read_manifest(header)
    samples, steps = as_samples(data, x)
    library = header.with_name("net.so")
    build([header.with_suffix(".c")], library, [*FLAGS, "-shared", "-fPIC"], host.compile_with)
    text = header.read_text(encoding="utf-8")
    state, outputs = (int(m[1]) for n in ("STATE_BYTES", "OUTPUTS") if (m := re.search(rf"NET_{n} (\d+)", text)))
    loaded = ctypes.CDLL(str(library))
    y = np.zeros((max(steps, 1), outputs), np.float32)
    memory = np.zeros(state // 4 + 1, np.float32)
    first = np.ascontiguousarray(samples[0])

    def call() -> None:
        loaded.net_init(memory.ctypes.data_as(ctypes.c_void_p))
        loaded.net_run(*(ctypes.c_void_p(a.ctypes.data) for a in (memory, first)), ctypes.c_uint32(steps),
                       ctypes.c_void_p(y.ctypes.data))  # fmt: skip

    return call


def _on_board(core: str, options: tuple[COptions, ...], job: Job) -> Iterator[Ran]:
    _check_size(job)
    x = _first_sample(job)
    for k, (form, exact, made) in enumerate(_forms(job, options)):
        try:
            ran = run_board(made, x, core, job.folder / f"board{k}")
        except SparsecircError as error:
            short = "does not fit" if "will not fit in region" in str(error) else str(error)
            yield Ran(form, made.bytes, made.bytes_dense, note=f"not run: {short}")
            continue
        diff, spikes = exact.compare(ran.outputs, x)
        note = "constants in external memory" if ran.external else ""
        yield Ran(form, ran.flash, made.bytes_dense, diff, spikes, None, ran.instructions, note)


def _version(command: str, missing: list[str]) -> str:
    if missing:
        raise Absent(f"{' '.join(missing)} is not on the path")
    line = subprocess.run([command, "--version"], capture_output=True, text=True, check=True).stdout.splitlines()[0]
    found = re.search(r"\d+(\.\d+)+", line)
    return found[0] if found else line


def _host_version(host: Host) -> str:
    return _version((host.run_with or host.compile_with)[0], host.missing)


def _board_version() -> str:
    return _version("qemu-system-arm", missing_tools())


HOST_FORMS = {"gcc x86": (EXACT, INT8, SMALL)}
BOARD_FORMS = {"Cortex-M4F": (DENSE, EXACT, INT8, SMALL)}
C_CONSUMERS = (
    *(
        Consumer(name, "c", partial(_host_version, host), partial(_on_host, host, HOST_FORMS.get(name, (EXACT, SMALL))))
        for name, host in HOSTS.items()
    ),
    *(
        Consumer(core, "c", _board_version, partial(_on_board, core, BOARD_FORMS.get(core, (EXACT, SMALL))))
        for core in BOARDS
    ),
)
"""Compilers and emulators. Instructions of hosts include reading the input of a step; on the boards ``bytes`` is flash
of code and constants, without the C library."""
