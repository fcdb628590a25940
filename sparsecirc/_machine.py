"""The machine this runs on: processor, cores, caches, and the folder where files may be kept that can be made again."""

from __future__ import annotations

import os
import platform
import sys
import tempfile
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

CACHE_VARIABLE = "SPARSECIRC_CACHE"

_CPUINFO = Path("/proc/cpuinfo")
_CACHES = Path("/sys/devices/system/cpu/cpu0/cache")
_USUAL_CACHES = {1: 32 * 1024, 2: 1024 * 1024, 3: 32 * 1024 * 1024}
_UNITS = {"K": 1024, "M": 1024**2, "G": 1024**3}


@dataclass(frozen=True)
class Processor:
    """A processor as the operating system describes it.

    Attributes:
        name: for people; clouds often shorten it to a brand.
        identity: name with family, model and stepping: equal for equal cores.
        flags: instruction sets and features, lower case; empty where the system does not tell.
    """

    name: str
    identity: str
    flags: frozenset[str]


@lru_cache(maxsize=1)
def processor() -> Processor:
    """The processor of this machine."""
    name = platform.processor() or platform.machine()
    if not _CPUINFO.is_file():
        return Processor(name, name, frozenset())
    facts: dict[str, str] = {}
    for line in _CPUINFO.read_text(encoding="utf-8", errors="replace").splitlines():
        key, _, value = line.partition(":")
        facts.setdefault(key.strip().lower(), value.strip())
    name = facts.get("model name", platform.machine())
    details = ("cpu family", "model", "stepping", "cpu implementer", "cpu part", "cpu variant")
    identity = " ".join([name, *(f"{d} {facts[d]}" for d in details if d in facts)])
    return Processor(name, identity, frozenset((facts.get("flags") or facts.get("features") or "").lower().split()))


def usable_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@lru_cache(maxsize=1)
def cache_sizes() -> tuple[int, int, int]:
    """Bytes of the data caches that one core can use, level 1, 2 and 3.

    Where the system does not tell, what is usual: 32 KiB, 1 MiB and 32 MiB. A missing third level counts as the second.
    """
    found: dict[int, int] = {}
    for place in sorted(_CACHES.glob("index*")) if _CACHES.is_dir() else ():
        try:
            kind, level, size = ((place / f).read_text().strip() for f in ("type", "level", "size"))
            if kind in ("Data", "Unified"):
                found[int(level)] = int(size[:-1]) * _UNITS[size[-1]] if size[-1] in _UNITS else int(size)
        except (OSError, ValueError, IndexError):
            continue
    if not found:
        found = dict(_USUAL_CACHES)
    first = found.get(1, _USUAL_CACHES[1])
    second = max(found.get(2, first), first)
    return first, second, max(found.get(3, second), second)


def cache_dir() -> Path:
    """Folder of measurements and downloads: $SPARSECIRC_CACHE, or the platform's cache folder for this package."""
    override = os.environ.get(CACHE_VARIABLE)
    if override:
        return Path(override)
    try:
        home = Path.home()
    except RuntimeError:  # a user without a home, in some containers
        return Path(tempfile.gettempdir()) / "sparsecirc"
    if sys.platform == "win32":  # pragma: no cover - the other platforms' branches are tested on Linux
        return Path(os.environ.get("LOCALAPPDATA") or home / "AppData" / "Local") / "sparsecirc" / "Cache"
    if sys.platform == "darwin":  # pragma: no cover
        return home / "Library" / "Caches" / "sparsecirc"
    return Path(os.environ.get("XDG_CACHE_HOME") or home / ".cache") / "sparsecirc"
