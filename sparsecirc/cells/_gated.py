"""Elman, GRU and LSTM cells with torch's equations and gate order."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from sparsecirc.cells._cell import Array, Cell, Options, States


def sigmoid(x: Array) -> Array:
    """1 / (1 + exp(-x)), without overflow for large |x|."""
    return np.asarray(0.5 * (np.tanh(0.5 * x) + 1.0), dtype=x.dtype)


def _pre(drive: Array, rec: Array | None) -> Array:
    return drive if rec is None else drive + rec


def _rnn_tanh(drive: Array, rec: Array | None, state: States, _v: Mapping[str, Array], _o: Options) -> States:
    return {"h": np.tanh(_pre(drive, rec))}


def _rnn_relu(drive: Array, rec: Array | None, state: States, _v: Mapping[str, Array], _o: Options) -> States:
    return {"h": np.maximum(_pre(drive, rec), 0)}


def _gru(drive: Array, rec: Array | None, state: States, _v: Mapping[str, Array], _o: Options) -> States:
    h = state["h"]
    a_r, a_z, a_n = np.split(drive, 3, axis=-1)
    b_r, b_z, b_n = np.split(np.zeros_like(drive) if rec is None else rec, 3, axis=-1)
    r = sigmoid(a_r + b_r)
    z = sigmoid(a_z + b_z)
    n = np.tanh(a_n + r * b_n)
    return {"h": (1 - z) * n + z * h}


def _lstm(drive: Array, rec: Array | None, state: States, _v: Mapping[str, Array], _o: Options) -> States:
    i, f, g, o = np.split(_pre(drive, rec), 4, axis=-1)
    c = sigmoid(f) * state["c"] + sigmoid(i) * np.tanh(g)
    return {"h": sigmoid(o) * np.tanh(c), "c": c}


RNN_TANH = Cell("rnn_tanh", ("h",), ("h",), "h", (), False, _rnn_tanh, "h' = tanh(W_ih x + b_ih + W_hh h + b_hh)")
RNN_RELU = Cell("rnn_relu", ("h",), ("h",), "h", (), False, _rnn_relu, "h' = max(0, W_ih x + b_ih + W_hh h + b_hh)")
GRU = Cell(
    "gru",
    ("r", "z", "n"),
    ("h",),
    "h",
    (),
    False,
    _gru,
    "r = s(a_r + b_r); z = s(a_z + b_z); n = tanh(a_n + r * b_n); h' = (1 - z) n + z h, "
    "with a = W_ih x + b_ih and b = W_hh h + b_hh (Cho et al. 2014, torch's form)",
)
LSTM = Cell(
    "lstm",
    ("i", "f", "g", "o"),
    ("h", "c"),
    "h",
    (),
    False,
    _lstm,
    "i, f, o = s(.), g = tanh(.) of W_ih x + b_ih + W_hh h + b_hh; c' = f c + i g; h' = W_hr (o tanh(c')), "
    "W_hr only with a projection (Hochreiter & Schmidhuber 1997; Sak et al. 2014)",
)
