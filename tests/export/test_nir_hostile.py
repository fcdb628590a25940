"""NIR files made to harm: one clear line for each, nothing elsewhere is read, nothing hangs or takes memory."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sparsecirc.errors import FileFormatError, SparsecircError

nir = pytest.importorskip("nir", reason="the package 'nir' is not installed")
h5py = pytest.importorskip("h5py", reason="the package 'h5py' is not installed")

from sparsecirc.frontends._nir import from_nir  # noqa: E402

Edit = Callable[[Any, Any, Path], None]


def graph() -> Any:
    lif = nir.LIF(tau=np.full(4, 1e-3), r=np.ones(4), v_leak=np.zeros(4), v_threshold=np.ones(4), v_reset=np.zeros(4))
    nodes = {
        "a": nir.Input(np.array([4])), "b": nir.Linear(np.eye(4)), "c": lif, "z": nir.Output(np.array([4]))
    }  # fmt: skip
    return nir.NIRGraph(nodes, [("a", "b"), ("b", "c"), ("c", "z")])


def weight(**what: Any) -> Edit:
    """Another array in place of the weights."""

    def edit(file: Any, nodes: Any, folder: Path) -> None:
        del nodes["b/weight"]
        nodes["b"].create_dataset("weight", **what)

    return edit


def external_link(file: Any, nodes: Any, folder: Path) -> None:
    with h5py.File(folder / "secret.h5", "w") as other:
        other["w"] = np.eye(4)
    del nodes["b/weight"]
    nodes["b"]["weight"] = h5py.ExternalLink(str(folder / "secret.h5"), "w")


def external_storage(file: Any, nodes: Any, folder: Path) -> None:
    (folder / "secret.bin").write_bytes(np.eye(4).tobytes())
    weight(shape=(4, 4), dtype="f8", external=[(str(folder / "secret.bin"), 0, 128)])(file, nodes, folder)


def virtual(file: Any, nodes: Any, folder: Path) -> None:
    with h5py.File(folder / "secret.h5", "w") as other:
        other["w"] = np.eye(4)
    layout = h5py.VirtualLayout((4, 4), "f8")
    layout[:] = h5py.VirtualSource(str(folder / "secret.h5"), "w", (4, 4))
    del nodes["b/weight"]
    nodes["b"].create_virtual_dataset("weight", layout)


def soft_link(file: Any, nodes: Any, folder: Path) -> None:
    nodes["b"]["loop"] = h5py.SoftLink("/node")


def two_names(file: Any, nodes: Any, folder: Path) -> None:
    nodes["b"]["loop"] = file["node"]


def reference(file: Any, nodes: Any, folder: Path) -> None:
    weight(data=file["node"].ref, dtype=h5py.ref_dtype)(file, nodes, folder)


def deep(file: Any, nodes: Any, folder: Path) -> None:
    for _ in range(2000):
        nodes = nodes.create_group("nodes")


def replaced(path: str, value: Any) -> Edit:
    def edit(file: Any, nodes: Any, folder: Path) -> None:
        del file[path]
        file[path] = value

    return edit


def conv(**changed: Any) -> Edit:
    def edit(file: Any, nodes: Any, folder: Path) -> None:
        del nodes["b"], nodes["a/shape"]
        nodes["a/shape"] = np.array([1, 4, 4])
        one = np.array([1, 1])
        values = {"type": b"Conv2d", "weight": np.ones((1, 1, 3, 3)), "stride": one, "padding": 0 * one}
        values |= {"dilation": one, "groups": 1, "bias": np.zeros(1), "input_shape": np.array([4, 4])}
        for key, value in (values | changed).items():
            nodes[f"b/{key}"] = value

    return edit


CASES: dict[str, tuple[Edit, str]] = {
    "external link": (external_link, r"is a link at '.*secret.h5'"),
    "external storage": (external_storage, "are in another file"),
    "virtual": (virtual, "are in another file"),
    "soft link": (soft_link, "is a link: "),
    "two names": (two_names, "has two names"),
    "reference": (reference, "values of type object"),
    "deep": (deep, "nests more than 64 groups"),
    "bomb": (
        weight(shape=(10**6, 10**6), dtype="f8", chunks=(1000, 1000), compression="gzip"),
        "more than a file of",
    ),
    "complex": (weight(data=np.eye(4) * 1j), "values of type complex128"),
    "compound": (weight(data=np.zeros((4, 4), [("a", "f4"), ("b", "i4")])), "expected numbers or text"),
    "empty": (weight(dtype=h5py.Empty("f8").dtype, data=h5py.Empty("f8")), "has no values"),
    "text": (weight(data=np.array([[b"a", b"b"]] * 4)), "weight of type"),
    "nan": (replaced("node/nodes/b/weight", np.full((4, 4), np.nan)), "'b' .Linear. has a weight that is NaN"),
    "infinite": (replaced("node/nodes/c/v_threshold", np.full(4, np.inf)), "'c' .LIF. has a v_threshold that is NaN"),
    "no time": (replaced("node/nodes/c/tau", np.zeros(4)), "'c' .LIF. has a tau of 0"),
    "huge input": (replaced("node/nodes/a/shape", np.array([10**12])), "'a' has the shape"),
    "negative input": (replaced("node/nodes/a/shape", np.array([-4])), "'a' has the shape"),
    "no node": (replaced("node/edges", [["a", "q"], ["q", "z"]]), "no node 'q'"),
    "edges": (replaced("node/edges", np.arange(6.0).reshape(2, 3)), "cannot be read as NIR"),
    "not text": (replaced("node/edges", np.array([[b"\xff", b"b"]])), "cannot be read as NIR"),
    "unknown node": (replaced("node/nodes/b/type", b"Evil"), "cannot be read as NIR"),
    "no nodes": (replaced("node/nodes", 3), "cannot be read as NIR"),
    "other shape": (replaced("node/nodes/b/weight", np.ones((4, 7))), r"weight \(4, 7\)"),
    "stateless cycle": (
        replaced("node/edges", [["a", "b"], ["b", "b"], ["b", "c"], ["c", "z"]]), "a cycle through 'b'"
    ),
    "padding": (conv(padding=np.array([10**9, 10**9])), "more values than any network"),
    "groups": (conv(groups=0), "groups of 0"),
    "stride": (conv(stride=np.array([0, 0])), "cannot be read as NIR|stride of 0"),
}  # fmt: skip


def damaged(folder: Path, edit: Edit) -> Path:
    path = folder / "net.nir"
    nir.write(path, graph())
    with h5py.File(path, "r+") as file:
        edit(file, file["node/nodes"], folder)
    return path


def test_what_is_not_damaged_is_read(tmp_path: Path) -> None:
    assert [n.kind for n in from_nir(damaged(tmp_path, lambda *_: None)).nodes] == ["input", "linear", "recurrent"]


@pytest.mark.filterwarnings("ignore:divide by zero:RuntimeWarning")  # of the package nir, at a stride of 0
@pytest.mark.parametrize("name", list(CASES))
def test_one_line_says_what_is_wrong(name: str, tmp_path: Path) -> None:
    edit, words = CASES[name]
    with pytest.raises(SparsecircError, match=words) as caught:
        from_nir(damaged(tmp_path, edit))
    assert "\n" not in str(caught.value)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_a_pipe_behind_an_array_is_not_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")  # opening it would wait for ever
    edit = weight(shape=(4, 4), dtype="f8", external=[(str(tmp_path / "pipe"), 0, 128)])
    with pytest.raises(FileFormatError, match="are in another file"):
        from_nir(damaged(tmp_path, edit))


@pytest.mark.parametrize("text", ["[" * 100_000, '{"pattern": [1, 2', '{"pattern": {"indptr": "AAAA"}}', "null"])
def test_metadata_that_lies_is_left_alone(text: str, tmp_path: Path) -> None:
    def edit(file: Any, nodes: Any, folder: Path) -> None:
        nodes.create_group("b/metadata")["sparsecirc"] = text

    assert len(from_nir(damaged(tmp_path, edit)).nodes) == 3


@pytest.mark.parametrize("size", [0, 7, 96, 3000, -1])
def test_truncated(size: int, tmp_path: Path) -> None:
    path = damaged(tmp_path, lambda *_: None)
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(FileFormatError, match=r"cannot be read as NIR|do not add up"):
        from_nir(path)


FUZZ = """
import sys, warnings
from pathlib import Path
import numpy as np
from sparsecirc.errors import SparsecircError
from sparsecirc.frontends._nir import from_nir
warnings.simplefilter("ignore")
good, seed, last = np.frombuffer(Path(sys.argv[1]).read_bytes(), np.uint8), int(sys.argv[2]), Path(sys.argv[3])
rng, used = np.random.default_rng(seed), np.flatnonzero(good)
refused = 0
for k in range(150):
    bytes_ = good.copy()
    places = rng.choice(used, rng.integers(1, 4)) if k % 2 else rng.integers(0, len(good), rng.integers(1, 30))
    bytes_[places] = rng.integers(0, 256, len(places))
    last.write_bytes(bytes_.tobytes())
    try:
        from_nir(last)
    except SparsecircError as error:
        assert "\\n" not in str(error), str(error)
        refused += 1
print(refused)
"""


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(6))
def test_changed_bytes_are_refused_or_read(seed: int, tmp_path: Path) -> None:
    """In a process of its own: one that crashes, hangs or takes 4 GB would end the tests."""
    path, last = damaged(tmp_path, lambda *_: None), tmp_path / "last.nir"
    limit = (
        "import resource; resource.setrlimit(resource.RLIMIT_AS, (4 << 30, 4 << 30))\n" if os.name == "posix" else ""
    )
    done = subprocess.run(
        [sys.executable, "-c", limit + FUZZ, str(path), str(seed), str(last)],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-600:]
    assert int(done.stdout) > 20
