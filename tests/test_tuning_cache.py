"""Measurements on disk: found again, shared by processes, bounded, and never trusted when they are damaged."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import sparsecirc
from sparsecirc import TuningCache, _compile, _tuning
from sparsecirc._target import Isa
from sparsecirc._tuning import _cache
from sparsecirc.cells import GRU, LIF
from sparsecirc.errors import CacheWarning
from sparsecirc.formats import CSR, DENSE
from sparsecirc.ops import Problem
from sparsecirc.testing import classifier_graph, random_pattern, recurrent_graph

PROBLEM = Problem("rnn.hh", "gru", Isa.SCALAR, random_pattern(96, 32, 0.2, 0), 1, False, False)


def never(*args: object) -> dict[str, float]:
    raise AssertionError("measured again")


def test_a_second_compile_measures_nothing_and_chooses_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache, graph = TuningCache(tmp_path), classifier_graph(GRU, 32, 64, 5, 0.1)
    first = sparsecirc.compile(graph, cache=cache)
    assert not any(c.cached for c in first.choices.values())
    assert cache.size()[0] == 3
    monkeypatch.setattr(_compile, "measure", never)
    again = sparsecirc.compile(graph, cache=cache)
    assert all(c.cached for c in again.choices.values())
    for name, choice in first.choices.items():
        assert replace(again.choices[name], cached=False) == choice
        assert np.array_equal(again.packed[name].values, first.packed[name].values)
    assert str(again.explain()).count(", from cache") == 3
    assert ", from cache" not in str(first.explain())
    again.save(tmp_path / "net.scp")
    assert sparsecirc.Program.load(tmp_path / "net.scp").choices == again.choices


def test_without_a_cache_nothing_is_kept_or_looked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPARSECIRC_CACHE", str(tmp_path / "user"))
    graph = recurrent_graph(GRU, 8, 16, 0.3)
    program = sparsecirc.compile(graph, cache=None)
    assert not (tmp_path / "user").exists()
    sparsecirc.compile(graph)
    assert TuningCache().size()[0] == len(program.choices)
    assert TuningCache().place == tmp_path / "user" / "tuning"
    again = sparsecirc.compile(graph, cache=None)
    assert not any(c.cached for c in again.choices.values())


@pytest.mark.parametrize(
    "other",
    [
        replace(PROBLEM, isa=Isa.AVX2),
        replace(PROBLEM, pattern=random_pattern(96, 32, 0.2, 1)),
        replace(PROBLEM, vectors=32),
        replace(PROBLEM, spikes=True),
        replace(PROBLEM, exact=True),
        replace(PROBLEM, dtype="int16"),
    ],
)
def test_whatever_a_measurement_depends_on_is_in_its_key(tmp_path: Path, other: Problem) -> None:
    cache = TuningCache(tmp_path)
    cache.store(cache.entry(PROBLEM, ["csr", "dense"]), {"csr": 1.0, "dense": 2.0})
    assert cache.load(cache.entry(PROBLEM, ["dense", "csr"])) == {"csr": 1.0, "dense": 2.0}
    assert cache.load(cache.entry(other, ["csr", "dense"])) is None
    assert cache.load(cache.entry(PROBLEM, ["csr", "dense", "lookup"])) is None


def test_other_kernels_are_measured_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = TuningCache(tmp_path)
    cache.store(cache.entry(PROBLEM, ["csr"]), {"csr": 1.0})
    assert len(_tuning.kernels_version()) == 16
    monkeypatch.setattr(_cache, "kernels_version", lambda: "another build")
    assert cache.load(cache.entry(PROBLEM, ["csr"])) is None


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda d: "", "damaged"),
        (lambda d: "[]", "damaged"),
        (lambda d: json.dumps({**d, "us": {"csr": -1.0, "dense": 2.0}}), "not positive"),
        (lambda d: json.dumps({**d, "us": {"csr": 1.0}}), "missing"),
        (lambda d: json.dumps({**d, "us": {"csr": float("nan"), "dense": 2.0}}), "not positive"),
        (lambda d: json.dumps({**d, "key": {}}), "another matrix"),
        (lambda d: json.dumps(d)[:40], "damaged"),
        (lambda d: json.dumps({**d, "format": 99}), "format 99, this version reads up to 1"),
    ],
)
def test_damaged_and_newer_files_are_a_warning_and_a_new_measurement(tmp_path: Path, damage, words: str) -> None:
    cache = TuningCache(tmp_path)
    entry = cache.entry(PROBLEM, ["csr", "dense"])
    cache.store(entry, {"csr": 1.0, "dense": 2.0})
    entry.path.write_text(damage(json.loads(entry.path.read_text())))
    with pytest.warns(CacheWarning, match=words):
        assert cache.load(entry) is None
    cache.store(entry, {"csr": 1.0, "dense": 2.0})
    assert cache.load(entry) == {"csr": 1.0, "dense": 2.0}


def test_compile_survives_a_damaged_cache(tmp_path: Path) -> None:
    cache, graph = TuningCache(tmp_path), recurrent_graph(LIF, 8, 16, 0.3)
    first = sparsecirc.compile(graph, cache=cache)
    for file in cache.files():
        file.write_bytes(b"\xff\x00")
    with pytest.warns(CacheWarning, match="measuring again"):
        again = sparsecirc.compile(graph, cache=cache)
    assert not any(c.cached for c in again.choices.values())
    assert set(again.choices) == set(first.choices)


def test_a_folder_that_cannot_be_written_is_a_warning(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    cache = TuningCache(tmp_path / "file")
    with pytest.warns(CacheWarning, match="set SPARSECIRC_CACHE"):
        sparsecirc.compile(recurrent_graph(GRU, 4, 8, 0.5, bias=False), cache=cache)
    assert cache.size() == (0, 0)


def test_the_folder_stays_bounded_and_keeps_what_was_used_last(tmp_path: Path) -> None:
    cache = TuningCache(tmp_path, limit=10)
    entries = [cache.entry(replace(PROBLEM, vectors=k + 1), ["csr"]) for k in range(11)]
    for k, entry in enumerate(entries[:10]):
        cache.store(entry, {"csr": 1.0})
        os.utime(entry.path, (k, k))
    assert cache.load(entries[0]) == {"csr": 1.0}  # the oldest, but used just now
    cache.store(entries[10], {"csr": 1.0})
    assert cache.size()[0] == 9
    kept = {f.name for f in cache.files()}
    assert {entries[0].path.name, entries[10].path.name} <= kept
    assert entries[1].path.name not in kept
    assert cache.clear() == 9
    assert cache.size() == (0, 0)


WRITER = """
import sys
from pathlib import Path
from sparsecirc import TuningCache, compile
from sparsecirc.cells import GRU
from sparsecirc.testing import recurrent_graph

cache = TuningCache(Path(sys.argv[1]), limit=6)
for seed in range(4):
    for _ in range(2):
        compile(recurrent_graph(GRU, 8, 16, 0.3, seed=seed), cache=cache)
"""


def test_processes_share_a_folder(tmp_path: Path) -> None:
    """Writers of the same measurements, with a limit below what they write, so that they also delete each other's."""
    command = [sys.executable, "-W", "error", "-c", WRITER, str(tmp_path)]
    running = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for _ in range(3)]
    for process in running:
        _, words = process.communicate(timeout=120)
        assert process.returncode == 0, words
    assert 0 < TuningCache(tmp_path).size()[0] <= 6
    assert [f.name for f in (tmp_path / "tuning").iterdir() if f.name.startswith(".")] == []
    for file in TuningCache(tmp_path).files():
        assert json.loads(file.read_text())["format"] == 1


def test_repeated_products_are_the_same_product() -> None:
    from sparsecirc._native import kernels

    weight = np.random.default_rng(0).standard_normal((37, 19)).astype(np.float32)
    pattern = random_pattern(37, 19, 0.3, 0)
    x = np.random.default_rng(1).standard_normal((3, 19), dtype=np.float32)
    for form in (DENSE, CSR):
        once, often = np.empty((3, 37), np.float32), np.empty((3, 37), np.float32)
        matrix = form.pack(pattern, weight).matrix
        kernels.product(matrix, "scalar", x, None, once)
        kernels.product(matrix, "scalar", x, None, often, 5)
        assert np.array_equal(once, often)
    with pytest.raises(ValueError, match="repeats and threads must be at least 1"):
        kernels.product(matrix, "scalar", x, None, once, 0)
    with pytest.raises(ValueError, match="one step runs on one thread"):
        kernels.product(matrix, "scalar", x, None, once, 1, 2, step=True)
