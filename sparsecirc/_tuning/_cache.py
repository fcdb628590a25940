"""Measurements kept on disk, so that the same matrix on the same machine is measured once and gets the same kernel.

One small JSON file per measured matrix, named after a hash of everything that the measurement depends on: processor,
instruction set, the kernels themselves, and the problem. Each is written to a temporary file and renamed, so any number
of processes may share a folder; the last one to measure the same matrix wins. A file that cannot be read, or that a
newer version wrote, is a warning and a new measurement.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import warnings
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from sparsecirc import __version__, formats
from sparsecirc._files import write_atomic
from sparsecirc._machine import cache_dir, processor
from sparsecirc._native import kernels as native
from sparsecirc.errors import CacheWarning
from sparsecirc.ops import Problem

ENTRY_FORMAT = 1
LIMIT = 2000
"""Most files in the folder of measurements; beyond it the ones not used for longest are deleted."""


@lru_cache(maxsize=1)
def kernels_version() -> str:
    """Hash of what decides how fast a kernel is: the native module, and the code that lays weights out for it."""
    digest = hashlib.sha256(__version__.encode())
    for file in (Path(str(native.__file__)), *sorted(Path(str(formats.__file__)).parent.glob("*.py"))):
        digest.update(file.read_bytes())
    return digest.hexdigest()[:16]


@dataclass(frozen=True)
class Entry:
    """Where one measurement is kept.

    Attributes:
        path: the file.
        key: everything that the measurement depends on; kept in the file and compared, so a hash never lies.
    """

    path: Path
    key: Mapping[str, Any]


@dataclass(frozen=True)
class TuningCache:
    """A folder of measurements.

    Attributes:
        folder: where; ``None`` for the user's cache folder ($SPARSECIRC_CACHE, or the platform's), found when used.
        limit: most measurements kept.
    """

    folder: Path | None = None
    limit: int = LIMIT

    @property
    def place(self) -> Path:
        """The folder of the measurements themselves."""
        return (cache_dir() if self.folder is None else self.folder) / "tuning"

    def entry(self, problem: Problem, candidates: Sequence[str]) -> Entry:
        """The place of the measurement of ``candidates`` for ``problem`` on this machine with these kernels."""
        key = {
            "processor": processor().identity,
            "isa": problem.isa.value,
            "kernels": kernels_version(),
            "op": problem.op,
            "shape": list(problem.pattern.shape),
            "nnz": problem.pattern.nnz,
            "pattern": problem.pattern.digest,
            "dtype": problem.dtype,
            "vectors": problem.vectors,
            "spikes": problem.spikes,
            "exact": problem.exact,
            "candidates": sorted(candidates),
        }
        name = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:32]
        return Entry(self.place / f"{name}.json", key)

    def load(self, entry: Entry) -> dict[str, float] | None:
        """Microseconds by candidate, or ``None`` where they were not measured yet.

        Warns:
            CacheWarning: the file cannot be read, is damaged, or was written by a newer version.
        """
        try:
            text = entry.path.read_text(encoding="utf-8")
        except (FileNotFoundError, NotADirectoryError):
            return None
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or error
            _warn(f"measurements in {entry.path} cannot be read ({reason}): measuring again")
            return None
        try:
            data = json.loads(text)
            written = int(data["format"])
            if written > ENTRY_FORMAT:
                _warn(
                    f"measurements in {entry.path} have format {written}, this version reads up to {ENTRY_FORMAT}: "
                    "measuring again"
                )
                return None
            if data["key"] != entry.key:
                raise ValueError("it belongs to another matrix")
            times = {str(name): float(us) for name, us in data["us"].items()}
            if set(times) != set(entry.key["candidates"]) or not all(
                math.isfinite(us) and us > 0 for us in times.values()
            ):
                raise ValueError("times are missing or not positive")
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            _warn(f"measurements in {entry.path} are damaged ({error!r}): measuring again")
            return None
        with suppress(OSError):
            os.utime(entry.path)  # used: the last to be deleted
        return times

    def store(self, entry: Entry, times: Mapping[str, float]) -> None:
        """Keep a measurement, and delete the oldest ones beyond the limit.

        Warns:
            CacheWarning: the folder cannot be written.
        """
        record = {"format": ENTRY_FORMAT, "version": __version__, "key": dict(entry.key), "us": dict(times)}
        try:
            write_atomic(entry.path, json.dumps(record, indent=1).encode())
            self._trim()
        except OSError as error:
            _warn(
                f"measurements cannot be kept in {entry.path.parent} ({error.strerror or error}): every compile "
                "measures again; set SPARSECIRC_CACHE to a folder that can be written, or pass cache=None"
            )

    def files(self) -> list[Path]:
        """Files of all measurements."""
        return sorted(self.place.glob("*.json")) if self.place.is_dir() else []

    def size(self) -> tuple[int, int]:
        """Number of measurements, and bytes."""
        sizes = [s for s in map(_size, self.files()) if s is not None]
        return len(sizes), sum(sizes)

    def clear(self) -> int:
        """Delete every measurement; returns how many there were."""
        found = self.files()
        for file in found:
            file.unlink(missing_ok=True)
        return len(found)

    def _trim(self) -> None:
        found = self.files()
        if len(found) <= self.limit:
            return
        keep = self.limit - self.limit // 10  # some room, so that not every store has to look for the oldest
        for file in sorted(found, key=_last_used)[: len(found) - keep]:
            file.unlink(missing_ok=True)


USER_CACHE = TuningCache()
"""The user's own."""


def _size(file: Path) -> int | None:
    try:
        return file.stat().st_size
    except FileNotFoundError:  # another process deleted it
        return None


def _last_used(file: Path) -> float:
    try:
        return file.stat().st_mtime
    except FileNotFoundError:
        return 0.0


def _warn(text: str) -> None:
    warnings.warn(text, CacheWarning, stacklevel=4)
