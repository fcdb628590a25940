"""What a wheel and a source archive hold. They are built, so these tests take a minute."""

from __future__ import annotations

import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

import sparsecirc

ROOT = Path(__file__).parent.parent
TRACKED = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False).stdout.split("\n")
RECIPES = [n for n in TRACKED if n.startswith("sparsecirc/cli/recipes/") and n.endswith(".yaml")]

pytestmark = [
    pytest.mark.skipif(not (ROOT / "pyproject.toml").is_file(), reason="not a checkout: there is nothing to build"),
    pytest.mark.skipif(not any(TRACKED), reason="git is missing or this is no checkout"),
]


def test_only_the_package_is_declared() -> None:
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert 'wheel.packages = ["sparsecirc"]' in text
    # `benchmarks` is run from a checkout as `python -m benchmarks`; the wheel test below sees that it is not shipped.
    inside = ("sparsecirc/", "benchmarks/")
    outside = [n for n in TRACKED if n.endswith("__init__.py") and not n.startswith(inside)]
    assert outside == [], "a second importable package"


def build(kind: str, folder: Path) -> Path:
    pytest.importorskip("build", reason="needs the package 'build' of the dev extra")
    pytest.importorskip("scikit_build_core", reason="needs the package 'scikit-build-core' of the dev extra")
    pytest.importorskip("nanobind", reason="needs the package 'nanobind' of the dev extra")
    done = subprocess.run(
        [sys.executable, "-m", "build", f"--{kind}", "--no-isolation", "--outdir", str(folder), str(ROOT)]
        + ([f"-Cbuild-dir={folder / 'cmake'}"] if kind == "wheel" else []),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    (made,) = folder.glob("*.whl" if kind == "wheel" else "*.tar.gz")
    return made


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build("wheel", tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build("sdist", tmp_path_factory.mktemp("sdist"))


@pytest.mark.slow
def test_the_wheel_holds_the_package_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    info = f"sparsecirc-{sparsecirc.__version__}.dist-info/"
    strangers = [n for n in names if not n.startswith(("sparsecirc/", info))]
    assert strangers == []
    in_git = {n for n in TRACKED if n.startswith("sparsecirc/") and (ROOT / n).is_file()}
    assert in_git <= set(names), "files of the package are missing, C sources of the exporter among them"
    assert "sparsecirc/py.typed" in names
    assert any(n.startswith("sparsecirc/export/c/runtime/") for n in in_git)
    assert RECIPES
    assert set(RECIPES) <= set(names)
    kernels = {n.removeprefix("sparsecirc/") for n in names if n.startswith("sparsecirc/kernels/")}
    assert kernels == {
        n for n in TRACKED if n.startswith(("kernels/src/", "kernels/include/")) or n == "kernels/kernels.def"
    }
    native = [n for n in names if n.startswith("sparsecirc/_kernels.") and n.endswith((".so", ".pyd", ".dylib"))]
    assert len(native) == 1
    assert f"{info}licenses/LICENSE" in names
    assert f"{info}entry_points.txt" in names


@pytest.mark.slow
def test_the_wheel_runs_where_it_is_unpacked(wheel: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path)
    code = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n"
        "sys.meta_path[:] = [f for f in sys.meta_path if 'editable' not in type(f).__module__.lower()\n"
        "                    and 'ScikitBuild' not in type(f).__name__]\n"
        "import numpy as np, sparsecirc\n"
        "from sparsecirc.testing import PROBLEMS\n"
        "problem = PROBLEMS['gru-64-d0.1-b3-t63-ragged']\n"
        "report = sparsecirc.verify(sparsecirc.compile(problem.graph()), problem.x(), lengths=problem.valid())\n"
        "print(sparsecirc.__file__, sparsecirc._native.kernels.__file__, report.ok)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    package, native, ok = done.stdout.split()
    assert Path(package).is_relative_to(tmp_path)
    assert Path(native).is_relative_to(tmp_path)
    assert ok == "True"


@pytest.mark.slow
def test_the_recipes_of_the_wheel_are_found_and_valid(wheel: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path)
    code = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n"
        "sys.meta_path[:] = [f for f in sys.meta_path if 'editable' not in type(f).__module__.lower()\n"
        "                    and 'ScikitBuild' not in type(f).__name__]\n"
        "from sparsecirc.cli import main, _recipe_file\n"
        "names = sorted(p.stem for p in _recipe_file.SHIPPED.rglob('*.yaml'))\n"
        "code = main(['recipes', 'validate', *names])\n"
        "print(_recipe_file.SHIPPED, len(names), code, file=sys.stderr)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    where, count, exit_code = done.stderr.split()[-3:]
    assert Path(where).is_relative_to(tmp_path)
    assert int(count) == len(RECIPES)
    assert exit_code == "0"


@pytest.mark.slow
def test_the_source_archive_can_be_built_from(sdist: Path) -> None:
    with tarfile.open(sdist) as archive:
        names = {n.split("/", 1)[1] for n in archive.getnames() if "/" in n}
    needed = [n for n in TRACKED if n.startswith(("kernels/", "sparsecirc/")) and (ROOT / n).is_file()]
    needed += ["pyproject.toml", "CMakeLists.txt", "LICENSE", "README.md"]
    assert [n for n in needed if n not in names] == []
    assert set(RECIPES) <= names
    assert not [n for n in names if n.startswith((".venv/", "runs/", "build/", "dist/"))]
