"""Where data files live: a folder the user names, or a cache filled from the canonical address.

A file is trusted only when the SHA-256 of its uncompressed bytes is the known one, wherever it came from.
"""

from __future__ import annotations

import gzip
import hashlib
import os
import urllib.error
import urllib.request
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from sparsecirc._files import write_atomic
from sparsecirc._machine import cache_dir
from sparsecirc.errors import FileFormatError, UsageError

DATA_VARIABLE = "SPARSECIRC_DATA"
Progress = Callable[[str, int, int], None]
"""``progress(file, bytes so far, bytes in total or 0)``, called while a file is downloaded."""


@dataclass(frozen=True)
class DataFile:
    """One file of a data set.

    Attributes:
        folder: its folder inside the data folder, e.g. ``"mnist"``.
        name: its name there; ``.gz`` means that it is kept compressed.
        url: where it is published; compressed there exactly if ``url`` ends in ``.gz``.
        sha256: hex digest of the uncompressed bytes.
    """

    folder: str
    name: str
    url: str
    sha256: str


def read(file: DataFile, *, progress: Progress | None = None, timeout: float = 20.0) -> bytes:
    """Uncompressed bytes of ``file``: from $SPARSECIRC_DATA, else the cache, else downloaded into the cache.

    Args:
        file: which one.
        progress: told how far a download is.
        timeout: seconds without an answer after which a download is given up.

    Raises:
        UsageError: it is nowhere on this machine and cannot be downloaded.
        FileFormatError: what was found or downloaded is damaged or another file.
    """
    for place in _places(file):
        if place.is_file():
            return _checked(file, place.read_bytes(), place.suffix == ".gz", str(place))
    target = cache_dir() / file.folder / file.name
    raw = _download(file, target, progress, timeout)
    content = _checked(file, raw, file.url.endswith(".gz"), file.url)
    stored_gz, sent_gz = target.suffix == ".gz", file.url.endswith(".gz")
    write_atomic(target, raw if stored_gz == sent_gz else gzip.compress(content, mtime=0) if stored_gz else content)
    return content


def _places(file: DataFile) -> list[Path]:
    roots = [Path(os.environ[DATA_VARIABLE])] if os.environ.get(DATA_VARIABLE) else []
    names = [file.name, file.name.removesuffix(".gz")] if file.name.endswith(".gz") else [file.name]
    return [root / file.folder / name for root in (*roots, cache_dir()) for name in names]


def _checked(file: DataFile, raw: bytes, compressed: bool, origin: str) -> bytes:
    try:
        content = gzip.decompress(raw) if compressed else raw
    except (OSError, EOFError, zlib.error) as error:
        raise FileFormatError(f"{origin} cannot be decompressed ({error}): delete it and try again") from error
    digest = hashlib.sha256(content).hexdigest()
    if digest != file.sha256:
        raise FileFormatError(
            f"{origin} has SHA-256 {digest[:16]}... uncompressed, expected {file.sha256[:16]}...: it is damaged or "
            "another file; delete it and try again"
        )
    return content


def _download(file: DataFile, target: Path, progress: Progress | None, timeout: float) -> bytes:
    request = urllib.request.Request(file.url, headers={"User-Agent": "sparsecirc"})
    chunks: list[bytes] = []
    done = 0
    try:
        with urllib.request.urlopen(request, timeout=timeout) as answer:
            total = int(answer.headers.get("Content-Length") or 0)
            while chunk := answer.read(1 << 16):
                chunks.append(chunk)
                done += len(chunk)
                if progress is not None:
                    progress(file.name, done, total)
    except OSError as error:  # URLError, HTTPError, a reset connection and a timeout are all OSErrors
        reason = getattr(error, "reason", error)
        if isinstance(error, urllib.error.HTTPError):
            error.close()  # it carries the open connection of the refusal
        raise UsageError(
            f"'{file.folder}/{file.name}' is not on this machine and {file.url} cannot be downloaded ({reason}): put "
            f"the file in {target.parent}, or set {DATA_VARIABLE} to a folder that holds {file.folder}/{file.name}"
        ) from error
    return b"".join(chunks)
