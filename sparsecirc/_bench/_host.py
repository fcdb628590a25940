"""What a measurement was made on: without it a number means nothing."""

from __future__ import annotations

import platform
import subprocess
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from sparsecirc._machine import processor, usable_cores

_PACKAGES = (
    "numpy", "torch", "snntorch", "scipy", "onnxruntime", "onnx", "nir",
    "openvino", "norse", "spikingjelly", "torch_sparse",
)  # fmt: skip
_ISAS = (("avx512f", "avx512"), ("avx2", "avx2"), ("asimd", "neon"))


@dataclass(frozen=True)
class Host:
    """The machine and the software of a run.

    Attributes:
        cpu: model name.
        isa: most capable instruction set that this project's kernels know and the CPU has.
        cores: CPUs that this process may use.
        threads: most threads each engine was given.
        os: operating system and machine type.
        python: version.
        versions: of sparsecirc and of the installed packages that were, or could be, measured.
        commit: of the checkout that sparsecirc runs from, else "".
    """

    cpu: str
    isa: str
    cores: int
    threads: int
    os: str
    python: str
    versions: dict[str, str]
    commit: str

    @staticmethod
    def here(threads: int = 1) -> Host:
        """The machine that runs it."""
        cpu = processor()
        return Host(
            cpu.name,
            next((name for flag, name in _ISAS if flag in cpu.flags), "scalar"),
            usable_cores(),
            threads,
            f"{platform.system()} {platform.release()} {platform.machine()}",
            platform.python_version(),
            _versions(),
            _commit(),
        )

    @property
    def threads_text(self) -> str:
        """``threads`` in words."""
        return "1 thread" if self.threads == 1 else f"{self.threads} threads"

    def line(self) -> str:
        """All of it on one line."""
        versions = " ".join(f"{k} {v}" for k, v in self.versions.items())
        commit = f", commit {self.commit}" if self.commit else ""
        return (
            f"{self.cpu} ({self.isa}), {self.cores} cores, {self.threads_text}, {self.os}, "
            f"Python {self.python}, {versions}{commit}"
        )

    def to_json(self) -> dict[str, Any]:
        """All fields as JSON-able values."""
        return asdict(self)


def _versions() -> dict[str, str]:
    from sparsecirc import __version__

    versions = {"sparsecirc": __version__}
    for package in _PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return versions


def _commit() -> str:
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():
        return ""
    command = ["git", "-C", str(root), "rev-parse", "--short=12", "HEAD"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=5, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return answer.stdout.strip()
