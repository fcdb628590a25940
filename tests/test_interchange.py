"""Sparse matrices to and from other libraries: the same numbers, and the same memory where layouts agree."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import load_file

from sparsecirc import Pattern
from sparsecirc import interchange as ic
from sparsecirc.cells import GRU
from sparsecirc.errors import FileFormatError, UsageError
from sparsecirc.interchange import SparseMatrix
from sparsecirc.patterns import block, n_m
from sparsecirc.testing import classifier_graph, random_pattern

SHAPES = [(1, 1), (5, 7), (16, 24), (3, 0), (0, 4), (40, 33)]


def sample(rows: int, cols: int, density: float = 0.3, seed: int = 0, dtype: type = np.float32) -> SparseMatrix:
    pattern = random_pattern(rows, cols, density, seed)
    values = np.random.default_rng(seed).standard_normal(pattern.nnz).astype(dtype)
    if pattern.nnz > 2:
        values[1] = 0  # a live connection whose weight is zero
    return SparseMatrix(pattern, values)


def same(a: SparseMatrix, b: SparseMatrix) -> bool:
    return a.pattern == b.pattern and np.array_equal(a.values, b.values) and a.values.dtype == b.values.dtype


def shares(a: np.ndarray, b: np.ndarray) -> bool:
    return bool(np.shares_memory(a, b))


# Our own -------------------------------------------------------------------------------------------------------------


def test_dense_and_back() -> None:
    matrix = sample(5, 7)
    assert same(SparseMatrix.from_dense(matrix.to_dense(), matrix.pattern), matrix)
    dense = np.array([[0.0, 2.0], [3.0, 0.0]])
    assert SparseMatrix.from_dense(dense).pattern.nnz == 2
    with pytest.raises(UsageError, match=r"values have shape \(3,\), the pattern 2 connections"):
        SparseMatrix(SparseMatrix.from_dense(dense).pattern, np.ones(3))
    with pytest.raises(UsageError, match="a matrix has 2 axes"):
        SparseMatrix.from_dense(np.ones(3))


def test_matrices_of_a_graph() -> None:
    graph = classifier_graph(GRU, 8, 16, 3, 0.2)
    found = ic.graph_matrices(graph)
    assert list(found) == ["rnn.ih", "rnn.hh", "fc.weight"]
    for view in graph.weights():
        assert np.array_equal(found[view.name].to_dense(), view.value)
        assert found[view.name].pattern == view.pattern


# scipy ---------------------------------------------------------------------------------------------------------------


@pytest.fixture
def sparse():
    return pytest.importorskip("scipy.sparse", reason="scipy is not installed")


@pytest.mark.parametrize("shape", SHAPES)
def test_scipy_csr_is_the_same_memory_both_ways(sparse, shape: tuple[int, int]) -> None:
    matrix = sample(*shape)
    array = ic.to_scipy_csr(matrix)
    assert sparse.issparse(array)
    assert array.nnz == matrix.pattern.nnz
    assert np.array_equal(array.toarray(), matrix.to_dense())
    back = ic.from_scipy(array)
    assert same(back, matrix)
    if matrix.pattern.nnz:
        assert shares(array.data, matrix.values)
        assert shares(array.indices, matrix.pattern.indices)
        assert shares(array.indptr, matrix.pattern.indptr)
        assert shares(back.values, matrix.values)
        assert shares(back.pattern.indices, matrix.pattern.indices)
        array.data[0] = 42
        assert matrix.values[0] == back.values[0] == 42


def test_a_scipy_array_stays_writable_and_is_shared(sparse) -> None:
    array = sparse.random_array((20, 30), density=0.2, format="csr", rng=np.random.default_rng(0))
    array.sort_indices()
    matrix = ic.from_scipy(array)
    assert array.indices.flags.writeable
    assert array.indptr.flags.writeable
    assert shares(matrix.values, array.data)
    assert shares(matrix.pattern.indices, array.indices)
    assert not matrix.pattern.indices.flags.writeable


@pytest.mark.parametrize("form", ["csr", "csc", "coo", "lil", "dok", "dia"])
@pytest.mark.parametrize("shape", SHAPES[:3])
def test_every_scipy_format(sparse, form: str, shape: tuple[int, int]) -> None:
    matrix = sample(*shape)
    matrix.values[matrix.values == 0] = 1.5  # some formats drop stored zeros
    array = ic.to_scipy_csr(matrix).asformat(form)
    assert same(ic.from_scipy(array), matrix)
    assert same(ic.from_scipy(sparse.csr_matrix(array)), matrix)


def test_scipy_csc(sparse) -> None:
    matrix = sample(16, 24)
    array = ic.to_scipy_csc(matrix)
    assert array.format == "csc"
    assert same(ic.from_scipy(array), matrix)


def test_unsorted_and_duplicate_entries(sparse) -> None:
    array = sparse.csr_array((np.array([1.0, 2.0, 3.0]), np.array([2, 0, 2]), np.array([0, 3])), shape=(1, 4))
    before = array.data.copy()
    matrix = ic.from_scipy(array)
    assert np.array_equal(matrix.to_dense(), [[2, 0, 4, 0]])
    assert np.array_equal(array.data, before)  # the caller's is left as it was


@pytest.mark.parametrize("shape", [(4, 2), (16, 1), (1, 4), (2, 6)])
def test_scipy_bsr(sparse, shape: tuple[int, int]) -> None:
    height, width = shape
    rng = np.random.default_rng(0)
    dense = rng.standard_normal((32, 24))
    pattern = block(height, width)(np.abs(dense), 0.7)
    matrix = SparseMatrix.from_dense(dense, pattern)
    array = ic.to_scipy_bsr(matrix, shape)
    assert array.format == "bsr"
    assert array.blocksize == shape
    assert array.data.size == pattern.nnz  # no block more than there are
    assert np.array_equal(array.toarray(), matrix.to_dense())
    back = ic.from_scipy(array)
    assert same(back, matrix)
    assert back.pattern.origin == f"block {height}x{width}"
    assert shares(array.data, matrix.values) == (height == 1)
    assert shares(back.values, array.data) == (height == 1)
    holed = sample(32, 24, 0.1)
    assert np.array_equal(ic.to_scipy_bsr(holed, shape).toarray(), holed.to_dense())
    with pytest.raises(UsageError, match="not a whole number of 5 x 2 blocks"):
        ic.to_scipy_bsr(matrix, (5, 2))


def test_what_scipy_cannot_give_is_refused(sparse) -> None:
    with pytest.raises(UsageError, match=r"got ndarray, expected a scipy\.sparse array"):
        ic.from_scipy(np.ones((2, 2)))


# torch ---------------------------------------------------------------------------------------------------------------


@pytest.fixture
def torch():
    return pytest.importorskip("torch", reason="torch is not installed")


@pytest.mark.parametrize("shape", SHAPES)
def test_torch_csr_is_the_same_memory_both_ways(torch, shape: tuple[int, int]) -> None:
    matrix = sample(*shape)
    tensor = ic.to_torch_csr(matrix)
    assert tensor.layout == torch.sparse_csr
    assert np.array_equal(tensor.to_dense().numpy(), matrix.to_dense())
    back = ic.from_torch(tensor)
    assert same(back, matrix)
    if matrix.pattern.nnz:
        assert tensor.values().data_ptr() == matrix.values.ctypes.data
        assert tensor.col_indices().data_ptr() == matrix.pattern.indices.ctypes.data
        assert tensor.crow_indices().data_ptr() == matrix.pattern.indptr.ctypes.data
        assert shares(back.values, matrix.values)
        assert shares(back.pattern.indices, matrix.pattern.indices)
        x = torch.ones(shape[1], 1)
        assert np.allclose((tensor @ x).numpy()[:, 0], matrix.to_dense().sum(axis=1), atol=1e-5)


@pytest.mark.parametrize("layout", ["sparse_coo", "sparse_csr", "sparse_csc", "sparse_bsr", "sparse_bsc", "strided"])
def test_every_torch_layout(torch, layout: str) -> None:
    kind = getattr(torch, layout)
    dense = np.random.default_rng(0).standard_normal((12, 20)).astype(np.float32)
    size = (2, 5)
    if layout in ("sparse_bsr", "sparse_bsc"):
        pattern = block(*size)(np.abs(dense), 0.6)
        blocks = {"blocksize": size}
    else:
        pattern, blocks = random_pattern(12, 20, 0.3, 1), {}
    matrix = SparseMatrix.from_dense(dense, pattern)
    tensor = torch.from_numpy(matrix.to_dense())
    if kind != torch.strided:
        tensor = ic.to_torch_csr(matrix).to_dense().to_sparse(layout=kind, **blocks)
    assert tensor.layout == kind
    assert same(ic.from_torch(tensor.requires_grad_() if layout == "strided" else tensor), matrix)


def test_torch_coo(torch) -> None:
    matrix = sample(16, 24)
    tensor = ic.to_torch_coo(matrix)
    assert tensor.is_coalesced()
    assert tensor.values().data_ptr() == matrix.values.ctypes.data
    assert same(ic.from_torch(tensor), matrix)
    twice = torch.sparse_coo_tensor(
        torch.tensor([[0, 0], [1, 1]]), torch.tensor([1.0, 2.0]), (1, 3), check_invariants=True
    )
    assert np.array_equal(ic.from_torch(twice).to_dense(), [[0, 3, 0]])


@pytest.mark.parametrize("shape", [(4, 2), (16, 1), (1, 4)])
def test_torch_bsr(torch, shape: tuple[int, int]) -> None:
    dense = np.random.default_rng(0).standard_normal((32, 24)).astype(np.float32)
    matrix = SparseMatrix.from_dense(dense, block(*shape)(np.abs(dense), 0.7))
    tensor = ic.to_torch_bsr(matrix, shape)
    assert tensor.layout == torch.sparse_bsr
    assert tensor.values().shape == (matrix.pattern.nnz // (shape[0] * shape[1]), *shape)
    assert np.array_equal(tensor.to_dense().numpy(), matrix.to_dense())
    assert same(ic.from_torch(tensor), matrix)
    assert (tensor.values().data_ptr() == matrix.values.ctypes.data) == (shape[0] == 1)


def test_torch_types(torch) -> None:
    matrix = sample(8, 8, dtype=np.float64)
    assert ic.to_torch_csr(matrix).dtype == torch.float64
    half = ic.to_torch_coo(matrix).to(torch.bfloat16)
    assert ic.from_torch(half).values.dtype == np.float32
    wide = torch.sparse_csr_tensor(
        torch.from_numpy(matrix.pattern.indptr.astype(np.int64)),
        torch.from_numpy(matrix.pattern.indices.astype(np.int64)),
        torch.from_numpy(matrix.values),
        matrix.shape,
        check_invariants=True,
    )
    assert same(ic.from_torch(wide), matrix)
    assert shares(ic.from_torch(wide).values, matrix.values)  # the values at least
    with pytest.raises(UsageError, match=r"tensor has shape \(2, 2, 2\)"):
        ic.from_torch(torch.ones(2, 2, 2))


def test_sparse_layers_and_models_meet(torch) -> None:
    from sparsecirc.nn import SparseLinear

    layer = SparseLinear(16, 8, density=0.25)
    matrix = SparseMatrix(layer.weight.pattern, layer.weight.values.detach().numpy())
    tensor = ic.to_torch_csr(matrix)
    assert tensor.values().data_ptr() == layer.weight.values.data_ptr()
    x = torch.randn(16, 3)
    assert torch.allclose(tensor @ x, layer(x.T).T - layer.bias[:, None], atol=1e-5)


def test_torch_sparse(torch) -> None:
    package = pytest.importorskip("torch_sparse", reason="torch-sparse is not installed (it takes 15 minutes to build)")
    matrix = sample(16, 24)
    tensor = ic.to_torch_sparse(matrix)
    assert isinstance(tensor, package.SparseTensor)
    assert tensor.storage.value().data_ptr() == matrix.values.ctypes.data
    assert np.array_equal(tensor.to_dense().numpy(), matrix.to_dense())
    assert same(ic.from_torch_sparse(tensor), matrix)
    with pytest.raises(UsageError, match=r"expected a torch_sparse\.SparseTensor"):
        ic.from_torch_sparse(torch.ones(2, 2))


# N:M -----------------------------------------------------------------------------------------------------------------


def structured(rows: int, cols: int, n: int, m: int, dtype: type = np.float16) -> SparseMatrix:
    dense = np.random.default_rng(0).integers(1, 100, (rows, cols)).astype(dtype)
    return SparseMatrix.from_dense(dense, n_m(n, m)(np.random.default_rng(1).random((rows, cols)), None))


@pytest.mark.parametrize(("n", "m"), [(2, 4), (1, 2), (1, 4), (4, 8), (3, 5), (4, 4)])
def test_n_m_and_back(n: int, m: int) -> None:
    matrix = structured(6, 8 * m, n, m)
    stored = ic.to_n_m(matrix, n, m)
    assert stored.values.shape == stored.positions.shape == (6, 8 * n)
    back = ic.from_n_m(stored)
    assert same(back, matrix)
    assert shares(back.values, stored.values)
    assert back.pattern.origin == f"{n}:{m}"


@given(st.integers(0, 2**30), st.integers(0, 2))
def test_groups_with_fewer_are_filled_with_zeros(seed: int, most: int) -> None:
    rng = np.random.default_rng(seed)
    mask = np.zeros((3, 4, 4), bool)
    for group in mask.reshape(-1, 4):
        group[rng.permutation(4)[: rng.integers(0, most + 1)]] = True
    matrix = SparseMatrix.from_dense(rng.uniform(1, 2, (3, 16)), Pattern.from_mask(mask.reshape(3, 16)))
    stored = ic.to_n_m(matrix, 2, 4)
    back = ic.from_n_m(stored)
    assert np.array_equal(back.to_dense(), matrix.to_dense())
    assert back.pattern.nnz == 3 * 4 * 2


def test_metadata_is_laid_out_as_documented() -> None:
    positions = np.array([[0, 3, 1, 2, 0, 1, 2, 3]], np.uint8)
    stored = ic.NMMatrix((1, 16), 2, 4, np.arange(8.0)[None], positions)
    want = [0 | 3 << 2, 1 | 2 << 2, 0 | 1 << 2, 2 | 3 << 2]
    assert stored.metadata(8).tolist() == [[want[0] | want[1] << 4, want[2] | want[3] << 4]]
    word = want[0] | want[1] << 4 | want[2] << 8 | want[3] << 12
    assert stored.metadata().dtype == np.int16
    assert stored.metadata().view(np.uint16).tolist() == [[word]]
    with pytest.raises(UsageError, match="do not fill words of 32 bits"):
        stored.metadata(32)
    with pytest.raises(UsageError, match="words of 7 bits"):
        stored.metadata(7)


@pytest.mark.parametrize(("rows", "cols"), [(32, 32), (64, 64), (128, 192), (96, 256)])
@pytest.mark.parametrize("dtype", [np.float16, np.int8])
def test_cutlass_metadata_is_torchs(torch, rows: int, cols: int, dtype: type) -> None:
    conversions = pytest.importorskip("torch.sparse._semi_structured_conversions", reason="torch has moved it")
    matrix = structured(rows, cols * 2, 2, 4, dtype)
    stored = ic.to_n_m(matrix, 2, 4)
    values, meta = conversions.sparse_semi_structured_from_dense_cutlass(torch.from_numpy(matrix.to_dense()))
    assert np.array_equal(values.numpy(), stored.values)
    ours = stored.cutlass_metadata()
    assert ours.dtype == meta.numpy().dtype
    assert np.array_equal(ours, meta.numpy())
    again = conversions.sparse_semi_structured_to_dense_cutlass(torch.from_numpy(stored.values), torch.from_numpy(ours))
    assert np.array_equal(again.numpy(), matrix.to_dense())


def test_n_m_refuses_what_it_cannot_hold() -> None:
    full = SparseMatrix.from_dense(np.ones((2, 8)))
    with pytest.raises(UsageError, match="row 0 keeps 4 of columns 0 to 3: 2:4 allows 2"):
        ic.to_n_m(full, 2, 4)
    with pytest.raises(UsageError, match="2:3 does not fit 8 columns"):
        ic.to_n_m(full, 2, 3)
    values = np.ones((1, 4))
    for positions in ([[0, 0, 0, 1]], [[1, 0, 0, 1]], [[0, 4, 0, 1]]):
        with pytest.raises(UsageError, match="positions must ascend strictly below 4"):
            ic.NMMatrix((1, 8), 2, 4, values, np.array(positions, np.uint8))
    with pytest.raises(UsageError, match=r"expected \(1, 4\)"):
        ic.NMMatrix((1, 8), 2, 4, values[:, :2], np.array([[0, 1]], np.uint8))
    with pytest.raises(UsageError, match="CUTLASS reads 2:4 with values of 1 or 2 bytes, got 2:4 with float64"):
        ic.NMMatrix((1, 8), 2, 4, values, np.array([[0, 1, 0, 1]], np.uint8)).cutlass_metadata()
    with pytest.raises(UsageError, match="no whole number of tiles"):
        ic.to_n_m(structured(31, 64, 2, 4), 2, 4).cutlass_metadata()


# Files ---------------------------------------------------------------------------------------------------------------


def test_files_hold_plain_tensors(tmp_path: Path) -> None:
    matrices = {f"m{k}": sample(*shape) for k, shape in enumerate(SHAPES)}
    matrices["half"] = sample(6, 6, dtype=np.float16)
    path = tmp_path / "matrices.safetensors"
    ic.save_sparse(path, matrices)
    back = ic.load_sparse(path)
    assert list(back) == list(matrices)
    assert all(same(back[name], matrices[name]) for name in matrices)
    raw = load_file(path)
    assert np.array_equal(raw["m2.indices"], matrices["m2"].pattern.indices)
    assert set(raw) == {f"{name}.{part}" for name in matrices for part in ("values", "indices", "indptr")}


def test_damaged_files_are_refused(tmp_path: Path) -> None:
    from sparsecirc._files import write_container

    path = tmp_path / "m.safetensors"
    matrix = sample(5, 7)
    good = {
        "m.values": matrix.values, "m.indices": matrix.pattern.indices.copy(), "m.indptr": matrix.pattern.indptr.copy()
    }  # fmt: skip
    header = {"matrices": {"m": {"shape": [5, 7], "origin": "unstructured"}}}
    write_container(path, "sparse", header, good)
    assert same(ic.load_sparse(path)["m"], matrix)
    bad = {
        "column": {**good, "m.indices": good["m.indices"] + 7},
        "negative": {**good, "m.indices": good["m.indices"] - 7},
        "pointers": {**good, "m.indptr": good["m.indptr"][::-1].copy()},
        "short": {**good, "m.values": good["m.values"][1:]},
        "missing": {k: v for k, v in good.items() if k != "m.indptr"},
        "types": {**good, "m.indices": np.ones(len(good["m.indices"]), np.float32)},
        "twice": {**good, "m.indices": np.zeros_like(good["m.indices"])},
    }
    for arrays in bad.values():
        write_container(path, "sparse", header, arrays)
        with pytest.raises(FileFormatError, match="holds no valid sparse matrices"):
            ic.load_sparse(path)
    write_container(path, "sparse", {"matrices": [1]}, good)
    with pytest.raises(FileFormatError, match="holds no valid sparse matrices"):
        ic.load_sparse(path)


# Without the packages ------------------------------------------------------------------------------------------------

HIDDEN = """
import sys

class Hide:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("torch", "scipy", "torch_sparse"):
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, Hide())
import numpy as np
from sparsecirc import interchange as ic
from sparsecirc.errors import MissingExtraError

m = ic.SparseMatrix.from_dense(np.eye(4, dtype=np.float32))
ic.to_n_m(m, 2, 4)
ic.save_sparse(sys.argv[1], {"m": m})
for call in (ic.to_scipy_csr, ic.to_torch_csr, ic.to_torch_coo, ic.from_scipy, ic.from_torch, ic.to_torch_sparse):
    try:
        call(m)
    except MissingExtraError as error:
        print(error)
"""


def test_missing_packages_are_named(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", HIDDEN, str(tmp_path / "m.safetensors")], capture_output=True, text=True, check=True
    )
    lines = done.stdout.splitlines()
    assert len(lines) == 6
    assert "needs the package 'scipy', which is not installed: pip install 'sparsecirc[bench]'" in lines[0]
    assert "pip install 'sparsecirc[torch]'" in lines[1]
    assert "torch_sparse" not in lines[5]  # torch itself is what is missing first


def test_records_are_frozen() -> None:
    matrix = sample(3, 3)
    with pytest.raises(AttributeError):
        matrix.values = np.zeros(1)
    assert replace(matrix, values=matrix.values * 2).pattern is matrix.pattern
