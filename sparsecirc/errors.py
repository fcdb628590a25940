"""Every error a user can meet, with the exit code the command line gives it.

Messages say what, got, expected, and what to do, in one line.
"""

from __future__ import annotations


class SparsecircError(Exception):
    """Base of all errors raised on purpose. ``exit_code`` is what the command line returns."""

    exit_code = 1


class UsageError(SparsecircError, ValueError):
    """An argument, a recipe or a file is not what it has to be (exit code 2)."""

    exit_code = 2


class FileFormatError(UsageError):
    """A file is missing, truncated, of another kind, or written by a newer version (exit code 2)."""


class UnsupportedError(SparsecircError):
    """A model, layer or problem that cannot be converted or run; names it and the cure (exit code 3)."""

    exit_code = 3


class NothingMatchedError(UnsupportedError):
    """A selection matched no weight: nothing would be pruned, so nothing is reported as done (exit code 3)."""


class MismatchError(SparsecircError):
    """Two computations that must agree do not (exit code 4)."""

    exit_code = 4


class PerformanceError(SparsecircError):
    """A performance gate set by the user was missed (exit code 5)."""

    exit_code = 5


class AccuracyError(SparsecircError):
    """An accuracy gate set by the user was missed (exit code 6)."""

    exit_code = 6


class MissingExtraError(SparsecircError, ImportError):
    """An optional dependency is absent; names the package and the extra that brings it (exit code 7)."""

    exit_code = 7


class SparsecircWarning(UserWarning):
    """Base of our warnings; the command line prints them as one line."""


class CacheWarning(SparsecircWarning):
    """Measurements kept on disk could not be read or written; the work goes on without them."""


def missing_extra(package: str, extra: str, why: str) -> MissingExtraError:
    """The error for an absent optional ``package``, with the command that installs it."""
    return MissingExtraError(
        f"{why} needs the package '{package}', which is not installed: pip install 'sparsecirc[{extra}]'"
    )
