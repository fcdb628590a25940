"""Loaders: parsers on hand-made bytes, the store on a local server, and the real files where they are at hand."""

from __future__ import annotations

import gzip
import hashlib
import http.server
import os
import struct
import threading
from pathlib import Path

import numpy as np
import pytest

from sparsecirc import data
from sparsecirc.data import DataFile
from sparsecirc.errors import FileFormatError, UsageError

CONTENT = b"a small file of which the digest is known"
DIGEST = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.delenv("SPARSECIRC_DATA", raising=False)
    monkeypatch.setenv("SPARSECIRC_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def server(tmp_path):
    """Address of a folder served over HTTP on this machine, and the folder."""
    root = tmp_path / "published"
    root.mkdir()

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, directory=str(root), **kwargs)

        def log_message(self, *args):
            pass

    httpd = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    httpd.daemon_threads = False  # so that closing waits for requests whose client has gone
    thread = threading.Thread(target=httpd.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{httpd.server_port}/", root
    httpd.shutdown()
    thread.join()
    httpd.server_close()


def test_idx_of_two_images():
    pixels = np.arange(12, dtype=np.uint8).reshape(2, 3, 2)
    raw = bytes([0, 0, 8, 3]) + struct.pack(">III", 2, 3, 2) + pixels.tobytes()
    assert np.array_equal(data.parse_idx(raw, "f"), pixels)
    with pytest.raises(FileFormatError, match="holds 11 bytes after its header: expected 12"):
        data.parse_idx(raw[:-1], "f")
    with pytest.raises(FileFormatError, match="truncated"):
        data.parse_idx(raw[:7], "f")
    with pytest.raises(FileFormatError, match="expected an idx file"):
        data.parse_idx(b"\x1f\x8b..", "f")


TS = """#words
@problemName p
@timeStamps false
@classLabel true 7 3
@data
1,2,3:4,5,6:3
1.5:-2e-1:7
"""


def test_ts_of_two_series_and_padding():
    series = data.parse_ts(TS, "f.ts")
    assert series.labels == ("3", "7")
    assert series.classes == ("7", "3")
    assert np.array_equal(series.cases[0], np.array([[1, 4], [2, 5], [3, 6]], np.float32))
    padded, lengths = data.pad(series.cases, 3)
    assert lengths.tolist() == [3, 1]
    assert padded[1].tolist() == [[1.5, pytest.approx(-0.2)], [0, 0], [0, 0]]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (TS.replace("4,5,6", "4,5"), r"f.ts:6 has dimensions of lengths \[3, 2\]"),
        (TS.replace("1.5:", "x:"), "f.ts:7 holds a value that is not a number"),
        (TS.replace("-2e-1:7", "7"), "f.ts:7 has 1 dimensions: expected 2"),
        (TS.replace(":7\n", ":9\n"), "label '9'"),
        ("@data\n", "no sample"),
        ("@timeStamps true\n", "time stamps"),
    ],
)
def test_ts_that_is_wrong_names_its_line(text, message):
    with pytest.raises(FileFormatError, match=message):
        data.parse_ts(text, "f.ts")


def test_downloads_once_into_the_cache(cache, server):
    url, root = server
    (root / "a.bin").write_bytes(CONTENT)
    file = DataFile("things", "a.bin.gz", url + "a.bin", DIGEST)
    seen = []
    assert data.read(file, progress=lambda *a: seen.append(a)) == CONTENT
    assert seen[-1] == ("a.bin.gz", len(CONTENT), len(CONTENT))
    assert gzip.decompress((cache / "things" / "a.bin.gz").read_bytes()) == CONTENT
    (root / "a.bin").unlink()
    assert data.read(file) == CONTENT  # from the cache: the server has it no more


def test_a_wrong_download_is_refused_and_leaves_nothing(cache, server):
    url, root = server
    (root / "a.bin").write_bytes(CONTENT[:-1])
    with pytest.raises(FileFormatError, match="SHA-256"):
        data.read(DataFile("things", "a.bin", url + "a.bin", DIGEST))
    assert not list(cache.rglob("*.*"))


def test_a_missing_file_names_the_file_the_folder_and_the_variable(cache, server):
    url, _ = server
    with pytest.raises(UsageError) as caught:
        data.read(DataFile("things", "a.bin", url + "a.bin", DIGEST))
    for word in ("things/a.bin", str(cache / "things"), "SPARSECIRC_DATA"):
        assert word in str(caught.value)


def test_nobody_answers(cache):
    with pytest.raises(UsageError, match="SPARSECIRC_DATA"):
        data.read(DataFile("things", "a.bin", "http://127.0.0.1:9/a.bin", DIGEST), timeout=2)


def test_the_users_folder_comes_first_and_is_checked(cache, tmp_path, monkeypatch):
    monkeypatch.setenv("SPARSECIRC_DATA", str(tmp_path / "mine"))
    file = DataFile("things", "a.bin.gz", "http://127.0.0.1:9/a.bin.gz", DIGEST)
    path = tmp_path / "mine" / "things" / "a.bin.gz"
    path.parent.mkdir(parents=True)
    path.write_bytes(gzip.compress(CONTENT))
    assert data.read(file) == CONTENT
    path.write_bytes(gzip.compress(CONTENT)[:-9])
    with pytest.raises(FileFormatError, match="cannot be decompressed"):
        data.read(file)
    path.unlink()
    path.with_suffix("").write_bytes(CONTENT)  # kept uncompressed: taken as well
    assert data.read(file) == CONTENT


def test_the_cache_folder_follows_the_platform(monkeypatch, tmp_path):
    monkeypatch.setenv("SPARSECIRC_CACHE", str(tmp_path / "x"))
    assert data.cache_dir() == tmp_path / "x"
    monkeypatch.delenv("SPARSECIRC_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr("sys.platform", "linux")
    assert data.cache_dir() == tmp_path / "sparsecirc"
    monkeypatch.setattr("sys.platform", "darwin")
    assert data.cache_dir().parts[-2:] == ("Caches", "sparsecirc")


def test_digits_are_split_stratified_and_repeatably():
    pytest.importorskip("sklearn", reason="needs scikit-learn (extra 'demo')")
    a, b, other = data.digits(), data.digits(), data.digits(seed=1)
    assert a.x_train.shape == (1347, 8, 8)
    assert a.x_test.shape == (450, 8, 8)
    assert a.classes == 10
    assert a.x_train.dtype == np.float32
    assert 0.99 < a.x_train.max() <= 1.0
    assert np.array_equal(a.x_test, b.x_test)
    assert not np.array_equal(a.y_test, other.y_test)
    share = np.bincount(a.y_test) / np.bincount(np.concatenate([a.y_train, a.y_test]))
    assert np.all(np.abs(share - 0.25) < 0.01)
    both = {x.tobytes() for x in a.x_train} & {x.tobytes() for x in a.x_test}
    assert not both
    small = a.head(5, 3)
    assert (len(small.x_train), len(small.y_test)) == (5, 3)


def _need_real_data() -> None:
    if not os.environ.get("SPARSECIRC_DATA") or not Path(os.environ["SPARSECIRC_DATA"]).is_dir():
        pytest.skip("SPARSECIRC_DATA does not name a folder with the real data")


@pytest.mark.slow
def test_real_files_have_the_published_shapes():
    _need_real_data()
    for load in (data.mnist, data.fashion_mnist):
        d = load()
        assert d.x_train.shape == (60000, 28, 28)
        assert d.x_test.shape == (10000, 28, 28)
        assert np.bincount(d.y_test).sum() == 10000
    vowels = data.japanese_vowels()
    assert vowels.x_train.shape == (270, 29, 12)
    assert vowels.lengths_test is not None
    assert vowels.lengths_test.min() == 7
    assert vowels.lengths_test.max() == 29
    assert np.bincount(vowels.y_train).tolist() == [30] * 9
    arrays = data.wavernn_768()
    assert arrays["wavernn_gru_weights"].shape == (3072, 1024)
    assert np.all(arrays["wavernn_gru_weights"][arrays["wavernn_gru_mask"] == 0] == 0)
