"""Where commands write: nothing half-written, nothing replaced unasked, a manifest beside every result."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sparsecirc import __version__
from sparsecirc._files import write_atomic
from sparsecirc.cli._console import jsonable
from sparsecirc.errors import FileFormatError, UsageError

MANIFEST = "manifest.json"


def check_free(path: Path, force: bool) -> None:
    """Refuse an output that exists, before any work is done.

    Raises:
        UsageError: something is there, and ``--force`` was not given or may not replace it.
    """
    ancestor = next(p for p in [path.parent, *path.parent.parents] if p.exists())
    if not ancestor.is_dir():
        raise UsageError(f"output {path} cannot be made: {ancestor} is not a directory")
    if path.is_dir():
        if not any(path.iterdir()):
            return
        if not force:
            raise UsageError(f"output directory {path} exists: choose another with -o, or replace it with --force")
        if not _is_ours(path):
            raise UsageError(
                f"output directory {path} holds other files and no {MANIFEST} of ours: --force does not replace it, "
                "choose another with -o"
            )
    elif path.exists() and not force:
        raise UsageError(f"output file {path} exists: choose another with -o, or replace it with --force")


def _is_ours(directory: Path) -> bool:
    try:
        read_manifest(directory)
    except FileFormatError:
        return False
    return True


@contextmanager
def _parents(path: Path) -> Iterator[None]:
    """Make the parent directories of ``path``; those made here go again when the block fails."""
    made = [p for p in [path.parent, *path.parent.parents] if not p.exists()]
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        yield
    except BaseException:
        for parent in made:  # nearest first
            if parent.is_dir() and not any(parent.iterdir()):
                parent.rmdir()
        raise


@contextmanager
def staged(path: Path, *, force: bool = False) -> Iterator[Path]:
    """A hidden sibling directory that becomes ``path`` when the block ends well, and vanishes when it does not.

    Raises:
        UsageError: see :func:`check_free`.
    """
    check_free(path, force)
    with _parents(path):
        stage = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}."))
        try:
            yield stage
            stage.chmod(0o755)
            _swap(stage, path)
        except BaseException:
            shutil.rmtree(stage, ignore_errors=True)
            raise


def _swap(stage: Path, path: Path) -> None:
    if not path.exists():
        stage.replace(path)
        return
    old = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}.old."))
    path.replace(old / path.name)
    try:
        stage.replace(path)
    except BaseException:
        (old / path.name).replace(path)
        raise
    shutil.rmtree(old)


@contextmanager
def staged_files(path: Path, *, force: bool = False) -> Iterator[Path]:
    """A hidden directory in which to write ``path`` and files beside it; all move to its parent at the end.

    Raises:
        UsageError: one of the files exists already and ``force`` was not given.
    """
    check_free(path, force)
    with _parents(path), tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as name:
        yield Path(name)
        files = sorted(Path(name).iterdir())
        for file in files:
            check_free(path.parent / file.name, force)
        for file in files:
            file.replace(path.parent / file.name)


def write_json(path: Path, document: Mapping[str, Any]) -> None:
    """One JSON document, atomically."""
    write_atomic(path, (json.dumps(jsonable(document), indent=2, allow_nan=False) + "\n").encode())


def write_manifest(directory: Path, kind: str, **facts: Any) -> None:
    """Record what ``directory`` holds and where it came from."""
    files = {p.relative_to(directory).as_posix(): p.stat().st_size for p in sorted(directory.rglob("*")) if p.is_file()}
    files.pop(MANIFEST, None)
    write_json(directory / MANIFEST, {"kind": kind, "format": 1, "version": __version__, **facts, "files": files})


def read_manifest(directory: Path) -> dict[str, Any]:
    """The manifest of an output directory.

    Raises:
        FileFormatError: there is none, or it is not one of ours.
    """
    path = directory / MANIFEST
    if not path.is_file():
        raise FileFormatError(f"{directory} has no {MANIFEST}: expected an output directory of prune or compile")
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise FileFormatError(f"{path} is not JSON ({error}): expected what prune or compile wrote") from error
    if not isinstance(found, dict) or "kind" not in found or "files" not in found:
        raise FileFormatError(f"{path} is not a manifest of sparsecirc: expected what prune or compile wrote")
    version = found.get("format", 0)
    if isinstance(version, int) and version > 1:  # exports of version 0.1.0 had the name of theirs here
        raise FileFormatError(f"{path} was written by sparsecirc {found.get('version')}: upgrade sparsecirc")
    return found


def refresh_manifest(directory: Path) -> None:
    """Bring the file list of an output directory up to date after something was added."""
    known = read_manifest(directory)
    facts = {k: v for k, v in known.items() if k not in ("kind", "format", "version", "files")}
    write_manifest(directory, known["kind"], **facts)


def record(directory: Path | None, name: str, document: Mapping[str, Any]) -> None:
    """Keep the latest ``document`` as ``name`` in an output directory, for ``report``; nothing for ``None``."""
    if directory is not None:
        write_json(directory / name, document)
        refresh_manifest(directory)


def record_export(directory: Path | None, format_: str, facts: Mapping[str, Any]) -> None:
    """Add one export to the ``report.json`` of an output directory; nothing for ``None``."""
    if directory is not None:
        path = directory / "report.json"
        found = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
        record(directory, path.name, {**found, "exports": {**found.get("exports", {}), format_: facts}})
