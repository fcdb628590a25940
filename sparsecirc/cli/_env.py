"""``sparsecirc env``: what a bug report has to say about the machine. Imports nothing heavy."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
import shutil
import subprocess
import sys
from typing import Any

from sparsecirc import __version__
from sparsecirc._machine import processor, usable_cores
from sparsecirc.cli._command import Command
from sparsecirc.cli._console import Out, table

PACKAGES = ("numpy", "safetensors", "networkx", "pydantic", "pyyaml", "typer", "rich", "torch", "snntorch", "onnx",
            "onnxruntime", "onnxscript", "nir", "nirtorch", "scipy", "scikit-learn", "matplotlib")  # fmt: skip
SETTINGS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "SPARSECIRC_DATA", "SPARSECIRC_CACHE", "NO_COLOR")
FLAGS = ("sse4_2", "avx", "avx2", "fma", "f16c", "avx512f", "avx512bw", "avx512vl", "avx512_vnni", "avx512_bf16",
         "amx_tile", "neon", "asimd", "sve")  # fmt: skip


def installed(package: str) -> str | None:
    """Version of ``package`` without importing it, or ``None``."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def compiler() -> str | None:
    """First line of the C compiler's version, or ``None`` where there is none."""
    for name in (os.environ.get("CC", ""), "cc", "gcc", "clang"):
        found = shutil.which(name) if name else None
        if found:
            said = subprocess.run([found, "--version"], capture_output=True, text=True, check=False)
            return said.stdout.splitlines()[0] if said.stdout else found
    return None


def kernels() -> dict[str, Any]:
    """Whether the native module loads, and the instruction sets it will use here."""
    if importlib.util.find_spec("sparsecirc._kernels") is None:
        return {"built": False, "isa": [], "why": "sparsecirc._kernels is not built: pip install . builds it"}
    try:
        module = importlib.import_module("sparsecirc._kernels")
    except (ImportError, subprocess.CalledProcessError) as error:  # an editable install builds on import
        return {"built": False, "isa": [], "why": str(error)}
    return {"built": True, "isa": list(module.isas()), "why": None}


def facts() -> dict[str, Any]:
    """Everything ``env`` prints."""
    cpu = processor()
    return {
        "sparsecirc": __version__,
        "python": platform.python_version(),
        "executable": sys.executable,
        "platform": platform.platform(),
        "cpu": cpu.name,
        "cores": usable_cores(),
        "flags": [f for f in FLAGS if f in cpu.flags],
        "kernels": kernels(),
        "compiler": compiler(),
        "packages": {p: installed(p) for p in PACKAGES},
        "settings": {k: os.environ[k] for k in SETTINGS if k in os.environ},
    }


def env(out: Out) -> None:
    """Versions, processor, instruction sets and packages: paste this into a bug report."""
    found = facts()
    native = found["kernels"]
    rows = [
        ("sparsecirc", found["sparsecirc"]),
        ("python", f"{found['python']} ({found['executable']})"),
        ("platform", found["platform"]),
        ("cpu", f"{found['cpu']}, {found['cores']} cores usable"),
        ("flags", " ".join(found["flags"]) or "not known"),
        ("kernels", " ".join(native["isa"]) if native["built"] else f"none: {native['why']}"),
        ("compiler", found["compiler"] or "none"),
        *((name, version or "not installed") for name, version in found["packages"].items()),
        *found["settings"].items(),
    ]
    out.data(found, table(("what:", "found:"), rows))


COMMAND = Command(env, ("sparsecirc env", "sparsecirc env --json"), model=False)
