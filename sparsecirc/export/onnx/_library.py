"""The library of ONNX Runtime operators, built from C sources that ship with this package, once per machine."""

from __future__ import annotations

import hashlib
import os
import platform
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

from sparsecirc._machine import cache_dir
from sparsecirc.errors import MissingExtraError, SparsecircError, UnsupportedError
from sparsecirc.export.c._host import compiler

_HERE = Path(__file__).parent / "library"
_GLUE = ("driven.c", "glue.c", "layers.c", "pack.c", "products.c")
_ISA = ("ops_avx2.c", "ops_avx512.c", "ops_neon.c")
_UNUSED = ("order.c", "read.c")  # and training
_FLAGS = ("-std=c11", "-O3", "-fPIC", "-fvisibility=hidden", "-ffp-contract=off", "-fno-math-errno",
          "-fno-trapping-math")  # fmt: skip
_NOT_WINDOWS = "the library of operators is built on Linux and macOS only: the file runs without it"
_AVX2 = ("-mavx2", "-mfma")
_AVX512 = ("-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl", *_AVX2, "-mprefer-vector-width=512")


def kernel_sources() -> Path:
    """The folder of the kernels' C sources: in a checkout beside the package, else inside of it."""
    package = Path(__file__).parents[2]
    for folder in (package / "kernels", package.parent / "kernels"):
        if (folder / "kernels.def").is_file():
            return folder
    raise UnsupportedError(f"the C sources of the kernels are missing beside {package}: install the package again")


def parts(kernels: Path) -> tuple[list[tuple[Path, Sequence[str]]], tuple[str, ...]]:
    """Sources with their own flags, and the flags of all."""
    sources: list[tuple[Path, Sequence[str]]] = [(_HERE / name, ()) for name in _GLUE]
    for file in sorted((kernels / "src").glob("*.c")):
        if file.name not in (*_ISA, *_UNUSED) and not file.name.startswith("training"):
            sources.append((file, ()))
    machine = platform.machine().lower()
    define: tuple[str, ...] = ()
    if machine in ("x86_64", "amd64"):
        define = ("-DSC_X86",)
        sources += [(kernels / "src" / "ops_avx2.c", _AVX2), (kernels / "src" / "ops_avx512.c", _AVX512)]
    elif machine in ("aarch64", "arm64"):
        define = ("-DSC_AARCH64",)
        sources.append((kernels / "src" / "ops_neon.c", ()))
    return sources, (*define, f"-I{kernels / 'include'}", f"-I{_HERE}")


def _digest(kernels: Path, command: Sequence[str], extra: Sequence[str]) -> str:
    """Of everything that the library is made from."""
    told = subprocess.run([*command, "--version"], capture_output=True, text=True, check=False).stdout
    hashed = hashlib.sha256("\0".join([told, platform.machine(), *command, *_FLAGS, *extra]).encode())
    files = [*_HERE.glob("*.[ch]"), *(kernels / "src").glob("*.[ch]"), *(kernels / "include").glob("*.h")]
    for file in [*sorted(files), kernels / "kernels.def", Path(__file__)]:
        hashed.update(file.name.encode())
        hashed.update(file.read_bytes())
    return hashed.hexdigest()[:20]


def why_not_here() -> str | None:
    """Why :func:`custom_ops` will not work on this machine, or ``None`` where it should."""
    if os.name == "nt":
        return _NOT_WINDOWS
    try:
        compiler()
        kernel_sources()
    except SparsecircError as error:
        return str(error)
    return None


def custom_ops(*, folder: str | os.PathLike[str] | None = None, flags: Sequence[str] = ()) -> Path:
    """The library for ``SessionOptions.register_custom_ops_library``, built where it is not there yet.

    It takes the C compiler of this machine (``$CC``, cc, gcc or clang) and some seconds, once for every version of the
    sources, of the compiler and of the flags. Processes may build at the same time: each builds in a folder of its
    own and renames the result.

    Args:
        folder: where it is kept; by default the cache of this package (``$SPARSECIRC_CACHE``).
        flags: for the compiler, after the usual ones.

    Raises:
        MissingExtraError: there is no C compiler.
        SparsecircError: the compiler refuses the sources; carries its first error.
        UnsupportedError: Windows, or an installation without the sources.
    """
    if os.name == "nt":
        raise UnsupportedError(_NOT_WINDOWS)
    home = (cache_dir() if folder is None else Path(folder)) / "onnx"
    return _built(home, tuple(flags), tuple(compiler()))


@lru_cache(maxsize=8)
def _built(home: Path, flags: tuple[str, ...], command: tuple[str, ...]) -> Path:
    kernels = kernel_sources()
    target = home / f"sparsecirc_ops-{_digest(kernels, command, flags)}.so"
    if target.is_file():
        return target
    home.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".build-", dir=home) as work:
        sources, common = parts(kernels)
        objects = []
        for source, own in sources:
            objects.append(str(Path(work) / f"{source.stem}.o"))
            _call([*command, *_FLAGS, *common, *own, *flags, "-c", str(source), "-o", objects[-1]])
        made = Path(work) / target.name
        whole = () if sys.platform == "darwin" else ("-Wl,-z,defs",)  # nothing may be missing
        _call([*command, "-shared", *whole, *flags, "-o", str(made), *objects, "-lm"])
        made.replace(target)
    return target


def _call(command: list[str]) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError as error:
        raise MissingExtraError(f"'{command[0]}' cannot be run ({error}): set CC to a C compiler") from error
    if done.returncode:
        errors = [line for line in done.stderr.splitlines() if "error" in line] or done.stderr.splitlines()
        raise SparsecircError(f"'{shlex.join(command)}' failed with {done.returncode}: {errors[0] if errors else ''}")
