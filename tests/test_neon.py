"""Kernels for 64-bit Arm on this machine: cross-compiled with Debian's compiler, run in an emulator.

The C tests compare every kernel with double precision (`make test-neon`); here the packers of this package meet the
kernels that read their layouts, and the extension module is built for Arm.
"""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
import sys
import sysconfig
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest

from sparsecirc import Pattern
from sparsecirc._target import Isa
from sparsecirc.errors import UnsupportedError
from sparsecirc.formats import Packed, every_format, formats_for
from sparsecirc.testing import TOLERANCE, random_pattern

ROOT = Path(__file__).parent.parent
TOOLS = {
    "aarch64-linux-gnu-gcc": "gcc-aarch64-linux-gnu",
    "aarch64-linux-gnu-g++": "g++-aarch64-linux-gnu",
    "qemu-aarch64": "qemu-user",
}
MISSING = [package for tool, package in TOOLS.items() if shutil.which(tool) is None]
CMAKE = shutil.which("cmake", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]))

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(bool(MISSING), reason=f"needs the Debian packages {' '.join(MISSING)}"),
    pytest.mark.skipif(CMAKE is None, reason="needs the package 'cmake' of the dev extra"),
    pytest.mark.skipif(not (ROOT / "CMakeLists.txt").is_file(), reason="not a checkout: there is nothing to build"),
]

SHAPES = [(1, 1), (1, 70), (17, 5), (16, 64), (33, 65), (50, 128), (129, 36), (64, 300), (4, 0), (0, 0)]
TOP = {"lookup16": 2047, "dense16": 2047, "lookup8": 127, "dense8": 127}


def build(folder: Path, target: str, *options: str) -> Path:
    toolchain = ROOT / "cmake" / "aarch64-linux-gnu.cmake"
    assert CMAKE is not None
    for command in (
        [CMAKE, "-S", str(ROOT), "-B", str(folder), f"-DCMAKE_TOOLCHAIN_FILE={toolchain}", *options],
        [CMAKE, "--build", str(folder), "--target", target],
    ):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
        assert "warning" not in done.stdout + done.stderr
    return folder


@pytest.fixture(scope="module")
def runner(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("neon"), "run_packed", "-DSPARSECIRC_BUILD_TESTS=ON") / "run_packed"


def problem(packed: Packed, x: np.ndarray, bias: np.ndarray | None) -> bytes:
    """One product, as kernels/tests/run_packed.c reads it."""
    arrays = {f.name: v for f in fields(packed) if isinstance(v := getattr(packed, f.name), np.ndarray)}
    arrays["x"] = x
    if bias is not None:
        arrays["bias"] = bias if packed.order is None else bias[packed.order]
    head = struct.pack("=8q", *packed.shape, *packed.tile, packed.step, packed.depth, len(x), len(arrays))
    bodies = [struct.pack("=16sq", name.encode(), a.nbytes) + a.tobytes() for name, a in arrays.items()]
    return struct.pack("=16s", packed.format.encode()) + head + b"".join(bodies)


def run(runner: Path, problems: bytes, cpu: str = "max") -> subprocess.CompletedProcess[bytes]:
    command = ["qemu-aarch64", "-cpu", cpu, str(runner), "neon"]
    return subprocess.run(command, input=problems, capture_output=True, check=False)


@pytest.mark.parametrize("cpu", ["max", "cortex-a53"])
@pytest.mark.parametrize("form", every_format(Isa.NEON))
def test_the_kernels_read_what_the_packers_write(runner: Path, form: str, cpu: str) -> None:
    rng = np.random.default_rng(3)
    chosen = every_format(Isa.NEON)[form]
    problems, expected = [], []
    for rows, cols in SHAPES:
        for density in (0.0, 0.1, 0.4, 1.0):
            pattern = random_pattern(rows, cols, density, 5)
            weight = rng.standard_normal((rows, cols)).astype(np.float32)
            try:
                packed = chosen.pack(pattern, weight)
            except UnsupportedError:
                continue
            if chosen.grid is not None and density == 0.4:
                packed = chosen.pack_ordered(pattern, weight, rng.permutation(rows))
            x = np.tanh(rng.standard_normal((3, cols))).astype(np.float32)
            bias = rng.standard_normal(rows).astype(np.float32) if density < 1 else None
            problems.append(problem(packed, x, bias))
            seen = np.rint(x * np.float32(TOP[form])) / TOP[form] if form in TOP else x
            loop = chosen.unpack(packed).astype(np.float64)
            shift = np.zeros(rows) if bias is None else bias.astype(np.float64)
            expected.append((seen @ loop.T + shift, np.abs(seen) @ np.abs(loop).T + np.abs(shift)))
    assert len(problems) >= 8, "too few shapes can be packed"
    done = run(runner, b"".join(problems), cpu)
    assert done.returncode == 0, done.stderr.decode()
    got = np.frombuffer(done.stdout, np.float32)
    assert got.size == sum(want.size for want, _ in expected)
    for want, scale in expected:
        y, got = got[: want.size].reshape(want.shape), got[want.size :]
        assert np.all(np.abs(y - want) <= TOLERANCE.product * scale), want.shape


def test_a_wrong_layout_is_seen(runner: Path) -> None:
    pattern = random_pattern(32, 64, 0.3, 1)
    weight = np.random.default_rng(0).standard_normal((32, 64)).astype(np.float32)
    x = np.ones((1, 64), np.float32)
    packed = formats_for(Isa.NEON)["lookup"].pack(pattern, weight)
    want = x @ pattern.apply(weight).astype(np.float64).T
    x[0, 7] += 1  # what the kernel reads is not what the reference saw
    y = np.frombuffer(run(runner, problem(packed, x, None)).stdout, np.float32)
    assert np.abs(y - want).max() > 0.1
    other = formats_for(Isa.AVX512)["lookup"].pack(pattern, weight)
    done = run(runner, problem(other, x, None))
    assert done.returncode == 1
    assert "neon reads windows of 16 x 32, step 1, depth 1" in done.stderr.decode()


def test_the_packers_know_the_tiles_of_the_table(runner: Path) -> None:
    for form in every_format(Isa.NEON).values():
        packed = form.pack(Pattern.full(16, 64), np.ones((16, 64), np.float32))
        done = run(runner, problem(packed, np.zeros((1, 64), np.float32), None))
        assert done.returncode == 0, done.stderr.decode()


def test_the_extension_is_built_for_arm(tmp_path: Path) -> None:
    nanobind = pytest.importorskip("nanobind", reason="needs the package 'nanobind' of the dev extra")
    include = sysconfig.get_paths()["include"]
    if not (Path(include) / "Python.h").is_file():
        pytest.skip(f"{include} has no Python.h: install the package python3-dev")
    build(
        tmp_path,
        "_kernels",
        "-DSKBUILD=ON",
        f"-DPython_EXECUTABLE={sys.executable}",
        f"-DPython_INCLUDE_DIR={include}",
        f"-Dnanobind_DIR={nanobind.cmake_dir()}",
    )
    (module,) = tmp_path.glob("_kernels*.so")
    assert struct.unpack_from("=H", module.read_bytes(), 18) == (183,), "not a program for 64-bit Arm"
