"""Running exported files in ONNX Runtime."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from importlib import import_module
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sparsecirc.errors import FileFormatError, UsageError, missing_extra
from sparsecirc.export.onnx._builder import import_onnx
from sparsecirc.export.onnx._write import METADATA

Array = NDArray[Any]
_TYPES = {"tensor(float)": np.float32, "tensor(int64)": np.int64, "tensor(int32)": np.int32}


def import_onnxruntime() -> Any:
    """The ``onnxruntime`` package.

    Raises:
        MissingExtraError: it is not installed.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise missing_extra("onnxruntime", "onnx", "running an ONNX file") from error
    return onnxruntime


def metadata(path: str | os.PathLike[str]) -> dict[str, Any]:
    """What sparsecirc wrote into the ``metadata_props`` of a file.

    Keys: ``version``, ``form``, ``cells``, ``density``, ``nnz``, ``weights``, ``dt``, ``batch_first``, ``lengths``
    (name of the input for valid steps, or ``None``), and ``states`` (state name -> names of its input and output, and
    its feature shape; only step files have any).

    Raises:
        FileFormatError: not an ONNX file, or not one of ours.
        MissingExtraError: the package ``onnx`` is absent.
    """
    onnx = import_onnx()
    damaged = import_module("google.protobuf.message").DecodeError  # comes with onnx
    try:
        model = onnx.load(os.fspath(path), load_external_data=False)
    except (OSError, damaged) as error:
        raise FileFormatError(f"{os.fspath(path)} cannot be read as ONNX ({error})") from error
    found = {p.key[len(METADATA) :]: json.loads(p.value) for p in model.metadata_props if p.key.startswith(METADATA)}
    if not found:
        raise FileFormatError(f"{os.fspath(path)} is an ONNX file, but sparsecirc did not write it")
    return found


def open_session(
    path: str | os.PathLike[str], *, threads: int = 1, library: str | os.PathLike[str] | None = None
) -> Any:
    """An ``onnxruntime.InferenceSession`` on the CPU with ``threads`` threads.

    Args:
        path: the file.
        threads: of ONNX Runtime; our own operators run on one.
        library: with our operators, as :func:`custom_ops` builds it, for files of the form ``custom``.

    Raises:
        FileFormatError: the file is missing or ONNX Runtime cannot load it.
        MissingExtraError: the package ``onnxruntime`` is absent.
    """
    ort = import_onnxruntime()
    from onnxruntime.capi import onnxruntime_pybind11_state as raised

    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 4  # what fails is raised
    try:
        if library is not None:
            options.register_custom_ops_library(os.fspath(library))
        return ort.InferenceSession(os.fspath(path), options, providers=["CPUExecutionProvider"])
    except (
        raised.NoSuchFile, raised.InvalidProtobuf, raised.InvalidGraph, raised.Fail, raised.InvalidArgument,
        raised.NotImplemented, raised.RuntimeException,
    ) as error:  # fmt: skip
        reason = str(error).splitlines()[0]
        raise FileFormatError(f"{os.fspath(path)} cannot be loaded by ONNX Runtime ({reason})") from error


def run_onnx(
    path: str | os.PathLike[str],
    x: ArrayLike | Mapping[str, ArrayLike],
    state: Mapping[str, ArrayLike] | None = None,
    *,
    lengths: ArrayLike | None = None,
    threads: int = 1,
    library: str | os.PathLike[str] | None = None,
) -> dict[str, Array]:
    """Run a file once.

    Args:
        path: a main file, or a step file.
        x: the input, or one array per input name, in the file's layout.
        state: for a step file, states by input name; zeros where absent.
        lengths: for a file that was exported with lengths, valid steps per sample (B,); all steps where absent.
        threads: of ONNX Runtime.
        library: see :func:`open_session`.

    Returns:
        Every output by name; for a step file the new states too.

    Raises:
        UsageError: an input is missing, unknown or empty.
        FileFormatError, MissingExtraError: see :func:`open_session`.
    """
    return run_session(open_session(path, threads=threads, library=library), x, state, lengths)


def run_session(
    session: Any,
    x: ArrayLike | Mapping[str, ArrayLike],
    state: Mapping[str, ArrayLike] | None = None,
    lengths: ArrayLike | None = None,
) -> dict[str, Array]:
    """:func:`run_onnx` on an open session."""
    known = {i.name: i for i in session.get_inputs()}
    states, ragged = _states(session), _fact(session, "lengths")
    inputs = [name for name in known if name not in states and name != ragged]
    if lengths is not None and ragged is None:
        raise UsageError("the file takes no lengths: export it with lengths=True")
    if isinstance(x, Mapping):
        given = dict(x)
    elif len(inputs) == 1:
        given = {inputs[0]: x}
    else:
        raise UsageError(f"the file has {len(inputs)} inputs: pass a dict with {inputs}")
    given.update(state or {})
    lengths = given.pop(ragged, lengths) if ragged is not None else lengths
    unknown = sorted(set(given) - set(known))
    missing = [name for name in inputs if name not in given]
    if unknown or missing:
        what = f"input '{unknown[0]}' is unknown" if unknown else f"input '{missing[0]}' is missing"
        raise UsageError(f"{what}: the file takes {', '.join(known)}")
    feed = {name: np.asarray(value, dtype=_TYPES[known[name].type]) for name, value in given.items()}
    for name, array in feed.items():
        if not array.size:  # ONNX Runtime 1.32 ends the whole process in a GRU of no steps
            raise UsageError(f"'{name}' has shape {array.shape}: ONNX Runtime needs one or more steps and samples")
    if ragged is not None:
        time, batch = _size(session, feed)
        valid = np.full(batch, time) if lengths is None else np.asarray(lengths)
        if valid.shape != (batch,) or valid.dtype.kind not in "iu" or np.any((valid < 0) | (valid > time)):
            raise UsageError(f"lengths are {valid.tolist()}: expected {batch} whole numbers from 0 to {time}")
        feed[ragged] = valid.astype(np.int32)
    for name in states:
        if name not in feed:
            batch = len(feed[inputs[0]])
            feed[name] = np.zeros((batch, *known[name].shape[1:]), np.float32)
    names = [o.name for o in session.get_outputs()]
    return dict(zip(names, session.run(names, feed), strict=True))


def _fact(session: Any, key: str) -> Any:
    return json.loads(session.get_modelmeta().custom_metadata_map.get(f"{METADATA}{key}", "null"))


def _states(session: Any) -> dict[str, str]:
    """Input name -> output name of each state of a step file."""
    return {s["input"]: s["output"] for s in (_fact(session, "states") or {}).values()}


def _size(session: Any, feed: Mapping[str, Array]) -> tuple[int, int]:
    """(T, B) of what is fed to a main file."""
    for given in session.get_inputs():
        if "T" in given.shape and given.name in feed:
            shape = feed[given.name].shape
            return int(shape[given.shape.index("T")]), int(shape[given.shape.index("B")])
    raise UsageError("the file has no sequence input")


def stream_onnx(
    path: str | os.PathLike[str], x: ArrayLike | Mapping[str, ArrayLike], *, batch_first: bool = False, threads: int = 1
) -> dict[str, Array]:
    """Run a step file over a whole sequence, one call a step, from zero state.

    Args:
        path: a step file.
        x: sequences (T, B, ...), or (B, T, ...) with ``batch_first``; one array per input name where there are several.
        batch_first: the layout of ``x`` and of the result.
        threads: of ONNX Runtime.

    Returns:
        The outputs of every step, stacked along time, by name.

    Raises:
        UsageError: no step to run, or inputs that do not fit.
        FileFormatError, MissingExtraError: see :func:`open_session`.
    """
    session = open_session(path, threads=threads)
    states = _states(session)
    time = 1 if batch_first else 0
    given = dict(x) if isinstance(x, Mapping) else {session.get_inputs()[0].name: x}
    arrays = {name: np.moveaxis(np.asarray(a), time, 0) for name, a in given.items()}
    lengths = {len(a) for a in arrays.values()}
    if len(lengths) != 1 or 0 in lengths:
        raise UsageError(f"a step file needs one or more time steps, and as many in every input, got {sorted(lengths)}")
    state: dict[str, ArrayLike] = {}
    rows: dict[str, list[Array]] = {o.name: [] for o in session.get_outputs() if o.name not in states.values()}
    for t in range(lengths.pop()):
        out = run_session(session, {name: a[t] for name, a in arrays.items()}, state)
        state = {given: out[new] for given, new in states.items()}
        for name, row in rows.items():
            row.append(out[name])
    return {name: np.stack(row, axis=time) for name, row in rows.items()}
