"""DeepSparse 1.7 as a peer: it ran sparse ONNX files faster than anybody until its end in 2025.

It cannot be installed beside us (it wants pydantic 1 and an old onnx), so it runs in a process of another interpreter,
which ``SPARSECIRC_DEEPSPARSE`` names. This file is also what that process runs. It has no recurrent layers, so the
layer is written out step by step.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

VARIABLE = "SPARSECIRC_DEEPSPARSE"
HINT = (
    f"no interpreter with deepsparse: python3.11 -m venv ds; ds/bin/pip install deepsparse==1.7.1 sparsezoo==1.7.0 "
    f"'numpy<2' 'setuptools<81'; export {VARIABLE}=ds/bin/python"
)


class Process:
    """The other process: it runs the file once for every call."""

    def __init__(self, python: str, content: bytes, job: Any) -> None:
        """Start it and wait until it has read the file.

        Raises:
            CannotRun: it does not.
        """
        import numpy as np

        self.folder = place = Path(tempfile.mkdtemp(prefix="sparsecirc-deepsparse-"))
        (place / "net.onnx").write_bytes(content)
        np.save(place / "x.npy", job.inputs["x"])
        self.process = subprocess.Popen(
            [python, __file__, str(place), str(job.steps), str(job.threads)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, bufsize=1,
            env={**os.environ, "NM_DISABLE_ANALYTICS": "1"}, start_new_session=True,  # Ctrl-C is for us
        )  # fmt: skip
        self._expect("ready", "did not start, or cannot read the file")
        self._once()
        self.outputs = [np.load(place / "y.npy")]

    def __call__(self) -> Sequence[Any]:
        """The outputs of the first call: only the time of the others is wanted."""
        self._once()
        return self.outputs

    def clock(self) -> float:
        """Processor time of the other process, as of its last answer."""
        return self._seconds

    def __del__(self) -> None:
        """It ends with its input."""
        shutil.rmtree(self.folder, ignore_errors=True)
        if hasattr(self, "process"):
            self.process.kill()
            with suppress(BrokenPipeError):
                self.process.communicate()

    def _once(self) -> None:
        assert self.process.stdin is not None
        with suppress(BrokenPipeError):
            self.process.stdin.write("run\n")
        self._expect("done", "has gone")

    def _expect(self, word: str, otherwise: str) -> None:
        from sparsecirc._bench import CannotRun

        assert self.process.stdout is not None
        for line in iter(self.process.stdout.readline, ""):
            said, _, seconds = line.strip().partition(" ")
            if said == word and seconds:  # what comes before is a greeting
                self._seconds = float(seconds)
                return
        raise CannotRun(f"the process of DeepSparse {otherwise}")


def prepare(job: Any) -> Process:
    """The layer written out in float32, in a process of its own.

    Raises:
        CannotRun: no such interpreter, it cannot read the file, or the layer is no GRU.
    """
    from benchmarks._gru_onnx import write_gru
    from sparsecirc._bench import CannotRun

    python = os.environ.get(VARIABLE)
    if not python or not Path(python).is_file():
        raise CannotRun(HINT)
    if [node.cell.name for node in job.graph.recurrent] != ["gru"]:
        raise CannotRun("only a GRU is written out for it")
    return Process(python, write_gru(job.graph.recurrent[0], job.steps, job.batch, int8=False, unrolled=True), job)


def serve(folder: Path, steps: int, threads: int) -> None:
    """Run the file once for every line that comes in; the first output is written to ``y.npy``."""
    import numpy as np
    from deepsparse import Engine  # type: ignore[import-not-found]

    engine = Engine(model=str(folder / "net.onnx"), batch_size=steps, num_cores=threads)
    x = np.load(folder / "x.npy")
    print("ready", time.process_time(), flush=True)
    for number, _ in enumerate(sys.stdin):
        found = engine.run([x], val_inp=False)
        if number == 0:
            np.save(folder / "y.npy", found[0])
        print("done", time.process_time(), flush=True)


if __name__ == "__main__":
    serve(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
