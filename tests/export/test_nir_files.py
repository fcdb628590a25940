"""NIR files: sizes, atomic writing, damaged files, the missing package, and the packed metadata."""

from __future__ import annotations

import io
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparsecirc._pattern import Pattern
from sparsecirc.cells import LIF, Options, Reset
from sparsecirc.errors import FileFormatError, MissingExtraError, UnsupportedError
from sparsecirc.export.nir import euler, export_nir
from sparsecirc.export.nir._metadata import decode_ints, encode_ints, pattern_info, read_pattern
from sparsecirc.frontends._nir import from_nir
from sparsecirc.ir import Graph, Input, Recurrent, interpret


def net(units: int, density: float = 0.1, options: Options | None = None) -> Graph:
    rng = np.random.default_rng(0)
    params = {"beta": np.full(units, 0.9, np.float32), "threshold": np.ones(units, np.float32)}
    params["hh"] = (rng.standard_normal((units, units)) / np.sqrt(units)).astype(np.float32)
    pattern = Pattern.from_mask(rng.random((units, units)) < density)
    layer = Recurrent(
        "lif", ("x",), params, {"hh": pattern}, cell=LIF, units=units, options=options or Options(Reset.ZERO)
    )
    return Graph((Input("x", shape=(units,)), layer), {"y": "lif"})


def test_without_the_package_the_error_names_it(monkeypatch: Any, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "nir", None)
    for act in (lambda: export_nir(net(3), tmp_path / "a.nir"), lambda: from_nir(tmp_path / "a.nir")):
        with pytest.raises(MissingExtraError, match=r"'nir'.*pip install 'sparsecirc\[nir\]'") as caught:
            act()
        assert caught.value.exit_code == 7
    assert list(tmp_path.iterdir()) == []


nir = pytest.importorskip("nir", reason="the package 'nir' is not installed")


def test_gzip_hides_the_zeros_of_large_weights(tmp_path: Path) -> None:
    sizes = []
    for density in (1.0, 0.1, 0.01):
        made = export_nir(net(256, density), tmp_path / "a.nir")
        assert made.bytes == (tmp_path / "a.nir").stat().st_size == made.paths[0].stat().st_size
        assert made.bytes_dense > 256 * 256 * 4
        assert made.bytes_gzip <= made.bytes
        sizes.append(made.bytes)
    assert made.bytes_dense > sizes[0] > 2.5 * sizes[1] > 2.5 * 1.5 * sizes[2]
    small = export_nir(net(4), tmp_path / "b.nir")
    assert small.bytes == small.bytes_dense, "HDF5's gzip costs more than it saves on small arrays"


def test_the_export_says_what_it_did(tmp_path: Path) -> None:
    made = export_nir(net(17), tmp_path / "some net")
    assert made.paths == (tmp_path / "some net.nir",)
    assert (made.format, made.form) == ("nir", "dialect")
    text = made.table()
    assert "0 of 4,896 spike decisions differ" in text
    assert "connections are alive" in text
    assert made.to_json()["bytes"] == made.bytes
    assert export_nir(net(17), tmp_path / "b.nir").bytes == made.bytes
    assert (tmp_path / "b.nir").read_bytes() == made.paths[0].read_bytes(), "the same graph gives the same file"


def test_a_failed_export_leaves_what_was_there(monkeypatch: Any, tmp_path: Path) -> None:
    path = tmp_path / "a.nir"
    export_nir(net(5), path)
    before = path.read_bytes()

    def fail(file: Any, *_: Any, **__: Any) -> None:
        assert isinstance(file, io.BytesIO), "HDF5 is made in memory, the file written at once"
        raise OSError("disk full")

    with pytest.raises(UnsupportedError):
        export_nir(replace(net(5), outputs={"y": "lif.mem"}), path)
    monkeypatch.setattr(nir, "write", fail)
    with pytest.raises(OSError, match="disk full"):
        export_nir(net(5), path)
    monkeypatch.undo()
    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(AssertionError):
        export_nir(net(5), path)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["a.nir"]


def test_no_handle_stays_open(tmp_path: Path) -> None:
    """A file that is still open cannot be renamed or deleted on Windows."""
    path = tmp_path / "a.nir"
    export_nir(net(5), path)
    from_nir(path)
    proc = Path("/proc/self/fd")
    if proc.is_dir():
        held = [link for link in proc.iterdir() if link.is_symlink() and "a.nir" in str(link.resolve())]
        assert held == []
    path.rename(tmp_path / "b.nir")
    (tmp_path / "b.nir").unlink()


def test_damaged_files_are_named(tmp_path: Path) -> None:
    path, bad = tmp_path / "a.nir", tmp_path / "bad.nir"
    export_nir(net(64), path)
    data = path.read_bytes()
    for size in (0, 1, 100, 2000, len(data) // 4, len(data) // 2, len(data) - 1000, len(data) - 1):
        bad.write_bytes(data[:size])
        with pytest.raises(FileFormatError, match=r"bad\.nir cannot be read as NIR") as caught:
            from_nir(bad)
        assert caught.value.exit_code == 2
        assert "\n" not in str(caught.value)
    bad.write_text("hello")
    with pytest.raises(FileFormatError, match="cannot be read"):
        from_nir(bad)
    with pytest.raises(FileFormatError, match="is not a file"):
        from_nir(tmp_path / "none.nir")
    with pytest.raises(FileFormatError, match="is not a file"):
        from_nir(tmp_path)


def test_other_hdf5_files_are_named(tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py", reason="the package 'h5py' is not installed")
    with h5py.File(tmp_path / "a.nir", "w") as file:
        file["weights"] = np.zeros(3)
    with pytest.raises(FileFormatError, match="cannot be read as NIR"):
        from_nir(tmp_path / "a.nir")
    with h5py.File(tmp_path / "b.nir", "w") as file:
        file["node/type"] = "Unheard"
    with pytest.raises(FileFormatError, match="cannot be read as NIR"):
        from_nir(tmp_path / "b.nir")
    nir.write(tmp_path / "c.nir", nir.Linear(np.eye(3)))
    with pytest.raises(FileFormatError, match="cannot be read as NIR"):
        from_nir(tmp_path / "c.nir")


def test_files_survive_a_second_trip(tmp_path: Path) -> None:
    for options in (Options(Reset.ZERO), Options(Reset.SUBTRACT)):
        graph = net(17, 0.3, options)
        export_nir(graph, tmp_path / "a.nir")
        export_nir(from_nir(tmp_path / "a.nir"), tmp_path / "b.nir")
        x = np.random.default_rng(0).standard_normal((40, 2, 17))
        want = interpret(graph, x).y
        assert want.sum() > 100
        np.testing.assert_array_equal(interpret(from_nir(tmp_path / "b.nir"), x).y, want)
        np.testing.assert_array_equal(next(iter(euler(nir.read(tmp_path / "b.nir"), x).outputs.values())), want)


@given(st.lists(st.integers(0, 2**31 - 1)))
def test_integers_survive_packing(values: list[int]) -> None:
    np.testing.assert_array_equal(decode_ints(encode_ints(np.array(values, dtype=np.int64))), values)


@given(st.integers(1, 6), st.integers(1, 6), st.integers(0, 2**16))
def test_patterns_survive_unless_the_weight_contradicts(rows: int, cols: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    pattern = Pattern.from_mask(rng.random((rows, cols)) < 0.5, "made up")
    weight = pattern.apply(rng.integers(0, 2, (rows, cols)).astype(float))  # zeros inside the pattern too
    assert read_pattern(pattern_info(pattern), weight) == pattern
    dense = np.ones((rows, cols))
    if pattern.nnz < rows * cols:
        assert read_pattern(pattern_info(pattern), dense) is None
