"""Data sets that have no published file of their own form: arrays in one ``.npz`` in the data folder."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sparsecirc._machine import cache_dir
from sparsecirc.data._store import DATA_VARIABLE
from sparsecirc.errors import FileFormatError, UsageError


def read_arrays(folder: str, name: str, keys: Mapping[str, str], source: str) -> dict[str, NDArray[Any]]:
    """Arrays of ``folder/name`` in $SPARSECIRC_DATA or in the cache.

    Args:
        folder: of the data set.
        name: of the file.
        keys: the arrays it holds, each with what it is, for the message.
        source: where the recordings are published.

    Raises:
        UsageError: the file is not there.
        FileFormatError: it is no ``.npz``, or lacks an array.
    """
    roots = [Path(os.environ[DATA_VARIABLE])] if os.environ.get(DATA_VARIABLE) else []
    path = next((p for r in (*roots, cache_dir()) if (p := r / folder / name).is_file()), None)
    if path is None:
        raise UsageError(
            f"'{folder}/{name}' is not on this machine: set {DATA_VARIABLE} to a folder that holds it; it is made of "
            f"{source} and has the arrays {', '.join(f'{k} ({what})' for k, what in keys.items())}"
        )
    try:
        with np.load(path, allow_pickle=False) as found:
            missing = [k for k in keys if k not in found.files]
            if missing:
                raise FileFormatError(f"{path} has no array '{missing[0]}': expected {', '.join(keys)}")
            return {k: found[k] for k in keys}
    except FileFormatError:
        raise
    except (zipfile.BadZipFile, ValueError, EOFError, OSError) as error:  # numpy takes what is no archive for a pickle
        raise FileFormatError(f"{path} is no .npz file of plain arrays: make or copy it again") from error
