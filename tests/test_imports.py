"""Imports point down, torch stays below its line, and the public names are what they say."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import sparsecirc

ROOT = Path(sparsecirc.__file__).parent
OPTIONAL = ("torch", "snntorch", "triton", "onnx", "onnxruntime", "nir", "nirtorch", "sklearn", "scipy")

LAYERS: tuple[tuple[str, ...], ...] = (
    ("errors", "_target", "_kernels", "_machine", "_mean"),
    ("_pattern", "_lattice"),
    ("_files", "_native"),
    ("patterns", "formats", "cells", "structures"),
    ("ir", "orders"),
    ("ops",),
    ("scores", "_prune", "_shrink", "_choice"),
    ("_stepper", "budgets", "_sensitivity"),
    ("_program", "_tuning", "_ties"),
    ("_compile", "_verify"),
    # To here without torch.
    ("_torch_layers", "ops._autograd"),
    ("ops.triton",),
    ("masks", "nn"),
    ("rules", "frontends", "export", "data", "_bench", "_report", "interchange", "saliency"),
    ("testing", "demo", "integrations", "_shrink_model", "continual"),
    ("_cost", "hardware"),
    ("_doctor",),
    ("cli",),
    ("__init__", "__main__"),
)
"""From the bottom up; a module belongs to the longest name that it starts with."""
TORCH_LINE = next(k for k, names in enumerate(LAYERS) if "_torch_layers" in names)
LEVEL = {name: k for k, names in enumerate(LAYERS) for name in names}
LAZY = (
    "hardware",
    "export",
    "data",
    "interchange",
    "_bench",
    "_report",
    "testing",
    "_cost",
    "_doctor",
    "__init__",
    "__main__",
)
"""Above the line, but importable without any optional package."""


def modules() -> Iterator[tuple[str, ast.Module]]:
    """Every module by its name inside the package."""
    for file in sorted(ROOT.rglob("*.py")):
        parts = file.relative_to(ROOT).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)
        yield name, ast.parse(file.read_text(encoding="utf-8"), str(file))


MODULES = dict(modules())


def place(module: str) -> str:
    """The entry of `LAYERS` that ``module`` belongs to."""
    found = [n for n in LEVEL if module == n or module.startswith(f"{n}.")]
    assert found, f"sparsecirc.{module} has no layer: add it to LAYERS where docs/design.md draws it"
    return max(found, key=len)


def imports(tree: ast.Module, *, top_level: bool = False) -> Iterator[tuple[str, str]]:
    """(module, name or '') of every import, or of those that run when the module is imported."""
    for node in nodes(tree, top_level):
        if isinstance(node, ast.Import):
            yield from ((alias.name, "") for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            yield from ((str(node.module), alias.name) for alias in node.names)


def nodes(tree: ast.AST, top_level: bool) -> Iterator[ast.AST]:
    for child in ast.iter_child_nodes(tree):
        if top_level and isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            continue
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.dump(child.test):
            continue
        yield child
        yield from nodes(child, top_level)


def targets(tree: ast.Module) -> Iterator[str]:
    """Modules of this package that ``tree`` imports anywhere."""
    for module, name in imports(tree):
        if module == "sparsecirc" and name != "__version__":
            home = sparsecirc._HOME.get(name, name)
            assert home in LEVEL or home.split(".")[0] in LEVEL, f"sparsecirc has no '{name}'"
            yield home
        elif module.startswith("sparsecirc."):
            inner = module.removeprefix("sparsecirc.")
            yield f"{inner}.{name}" if f"{inner}.{name}" in MODULES else inner


@pytest.mark.parametrize("module", MODULES)
def test_imports_point_down(module: str) -> None:
    here = place(module)
    for target in targets(MODULES[module]):
        assert LEVEL[place(target)] <= LEVEL[here], (
            f"sparsecirc.{module} imports sparsecirc.{target}, which lies above it"
        )


def test_neighbours_do_not_import_each_other() -> None:
    edges = {(place(module), place(target)) for module, tree in MODULES.items() for target in targets(tree)}
    both = [(a, b) for a, b in edges if a < b and (b, a) in edges]
    assert both == []


@pytest.mark.parametrize("module", [m for m in MODULES if LEVEL[place(m)] < TORCH_LINE])
def test_nothing_below_the_line_knows_torch(module: str) -> None:
    found = {m for m, _ in imports(MODULES[module]) if m.split(".")[0] in OPTIONAL}
    assert not found, f"sparsecirc.{module} imports {sorted(found)}"


@pytest.mark.parametrize("module", [m for m in MODULES if place(m) in LAZY])
def test_optional_packages_are_imported_when_they_are_used(module: str) -> None:
    found = {m for m, _ in imports(MODULES[module], top_level=True) if m.split(".")[0] in OPTIONAL}
    assert not found, f"sparsecirc.{module} imports {sorted(found)} at module level"


def test_the_checks_above_see_what_they_must() -> None:
    tree = ast.parse("import torch\ndef f():\n    import onnx\n    from sparsecirc.cli import main\n")
    assert [m for m, _ in imports(tree)] == ["torch", "onnx", "sparsecirc.cli"]
    assert [m for m, _ in imports(tree, top_level=True)] == ["torch"]
    assert list(targets(tree)) == ["cli"]
    assert LEVEL[place("ir._graph")] < LEVEL[place("cli")]
    assert place("ops._autograd") == "ops._autograd"
    with pytest.raises(AssertionError, match="has no layer"):
        place("_newcomer")


def test_layers_name_what_exists() -> None:
    native = "_kernels"  # compiled
    gone = [n for n in LEVEL if n != native and not any(m == n or m.startswith(f"{n}.") for m in MODULES)]
    assert gone == []


# Public names --------------------------------------------------------------------------------------------------------


def test_every_public_name_resolves() -> None:
    for name, home in sparsecirc._HOME.items():
        value = getattr(sparsecirc, name)
        assert value is getattr(importlib.import_module(f"sparsecirc.{home}"), name)
        assert inspect.getdoc(value), f"sparsecirc.{name} has no docstring"
    assert set(sparsecirc.__all__) == {"__version__", *sparsecirc._HOME}
    assert dir(sparsecirc) == sorted(sparsecirc.__all__)
    with pytest.raises(AttributeError, match="module 'sparsecirc' has no attribute 'nothing'"):
        sparsecirc.nothing  # noqa: B018


def test_type_checkers_see_the_same_names() -> None:
    block = next(n for n in MODULES["__init__"].body if isinstance(n, ast.If) and "TYPE_CHECKING" in ast.dump(n.test))
    seen = {
        alias.name: str(node.module).removeprefix("sparsecirc.")
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
        if alias.asname == alias.name
    }
    assert seen == sparsecirc._HOME


def signature_in(doc: str) -> list[str]:
    """Argument names from the first line that the native module writes into a docstring."""
    inside = doc.splitlines()[0].split("(", 1)[1].rsplit(")", 1)[0]
    flat = re.sub(r"\[[^\[\]]*\]", "", re.sub(r"\[[^\[\]]*\]", "", re.sub(r"\[[^\[\]]*\]", "", inside)))
    return [part.split(":")[0].strip() for part in flat.split(",") if ":" in part]


def test_the_stub_describes_the_native_module() -> None:
    from sparsecirc import _kernels

    stub = ast.parse((ROOT / "_kernels.pyi").read_text(encoding="utf-8"))
    functions = {n.name: n for n in stub.body if isinstance(n, ast.FunctionDef)}
    classes = {n.name: n for n in stub.body if isinstance(n, ast.ClassDef)}
    native = {n for n in dir(_kernels) if not n.startswith("_")}
    assert native == set(functions) | set(classes)
    for name, node in functions.items():
        names = [a.arg for a in node.args.args]
        assert signature_in(str(getattr(_kernels, name).__doc__)) == names, name
    for name, cls in classes.items():
        members = {n.name: n for n in cls.body if isinstance(n, ast.FunctionDef)}
        kind = getattr(_kernels, name)
        assert {m for m in vars(kind) if not m.startswith("_")} == set(members) - {"__init__"}
        for member, node in members.items():
            if node.decorator_list:
                assert isinstance(inspect.getattr_static(kind, member), property) or not callable(
                    inspect.getattr_static(kind, member)
                )
                continue
            names = [a.arg for a in node.args.args if a.arg != "self"]
            assert signature_in(str(getattr(kind, member).__doc__)) == names, f"{name}.{member}"


# Without torch -------------------------------------------------------------------------------------------------------

HIDDEN = """
import sys

class Hide:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {names!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Hide())
"""
WITHOUT_TORCH = """
import numpy as np
import sparsecirc
from sparsecirc.cells import GRU
from sparsecirc.testing import classifier_graph

graph = classifier_graph(GRU, 8, 32, 3, 0.2)
sparsecirc.save_graph(graph, folder + "/net.scg")
program = sparsecirc.compile(sparsecirc.prune(sparsecirc.load_graph(folder + "/net.scg"), 0.9))
x = np.random.default_rng(0).standard_normal((9, 2, 8)).astype(np.float32)
assert sparsecirc.verify(program, x).ok
program.save(folder + "/net.scp")
again = sparsecirc.Program.load(folder + "/net.scp")
assert np.array_equal(again.run(x).y, program.run(x).y)
again.step(x[0])
print(str(again.explain()).splitlines()[0])
sparsecirc.export_c(graph, folder + "/c")
for name, package in (("from_torch", "torch"), ("Masks", "torch")):
    try:
        getattr(sparsecirc, name)
    except ImportError as error:
        assert package in str(error), error
    else:
        raise AssertionError(f"{name} was importable")
for name, call in (("onnx", lambda: sparsecirc.export_onnx(graph, folder + "/net.onnx")),
                   ("nir", lambda: sparsecirc.export_nir(graph, folder + "/net.nir"))):
    try:
        call()
    except sparsecirc.errors.SparsecircError as error:
        assert name in str(error).lower(), error
    else:
        raise AssertionError(f"{name} was there")
assert not {m.split(".")[0] for m in sys.modules} & set(names)
"""


def test_programs_load_compile_and_run_without_torch(tmp_path: Path) -> None:
    head = HIDDEN.format(names=OPTIONAL)
    body = f"folder = {str(tmp_path)!r}\nnames = {OPTIONAL!r}\nimport sparsecirc.errors\n{WITHOUT_TORCH}"
    done = subprocess.run([sys.executable, "-c", head + body], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1].split()[0] == "weight"


def test_a_missing_native_module_says_what_to_do() -> None:
    code = HIDDEN.format(names=()) + (
        "class NoKernels:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name == 'sparsecirc._kernels':\n"
        "            raise ImportError('no native module', name=name)\n"
        "sys.meta_path.insert(0, NoKernels())\n"
        "import sparsecirc\n"
        "sparsecirc.compile\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "ImportError: no native module" in done.stderr
    if sys.version_info >= (3, 11):
        assert "install the package with 'pip install .'" in done.stderr
