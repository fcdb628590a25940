"""Prune recurrent and spiking networks, compile them to kernels that are really faster, prove it, export them.

Names are imported when they are first used, so that a program runs where torch is not installed and the command line
answers at once.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sparsecirc._bench import bench as bench
    from sparsecirc._compile import compile as compile
    from sparsecirc._cost import what_if as what_if
    from sparsecirc._pattern import Pattern as Pattern
    from sparsecirc._program import Program as Program
    from sparsecirc._prune import plan as plan
    from sparsecirc._prune import prune as prune
    from sparsecirc._sensitivity import sensitivity as sensitivity
    from sparsecirc._shrink import rank_units as rank_units
    from sparsecirc._shrink import remove_units as remove_units
    from sparsecirc._shrink import shrink as shrink
    from sparsecirc._shrink_model import shrink_model as shrink_model
    from sparsecirc._target import Target as Target
    from sparsecirc._tuning import TuningCache as TuningCache
    from sparsecirc._verify import verify as verify
    from sparsecirc.export.c import export_c as export_c
    from sparsecirc.export.nir import export_nir as export_nir
    from sparsecirc.export.onnx import export_onnx as export_onnx
    from sparsecirc.frontends import from_nir as from_nir
    from sparsecirc.frontends import from_onnx as from_onnx
    from sparsecirc.frontends import from_snntorch as from_snntorch
    from sparsecirc.frontends import from_torch as from_torch
    from sparsecirc.frontends import to_graph as to_graph
    from sparsecirc.hardware import fits as fits
    from sparsecirc.interchange import SparseMatrix as SparseMatrix
    from sparsecirc.ir import Graph as Graph
    from sparsecirc.ir import interpret as interpret
    from sparsecirc.ir import load_graph as load_graph
    from sparsecirc.ir import save_graph as save_graph
    from sparsecirc.masks import Masks as Masks

__version__ = "0.1.0"

_HOME = {
    "Graph": "ir",
    "Masks": "masks",
    "Pattern": "_pattern",
    "Program": "_program",
    "SparseMatrix": "interchange",
    "Target": "_target",
    "TuningCache": "_tuning",
    "bench": "_bench",
    "compile": "_compile",
    "export_c": "export.c",
    "export_nir": "export.nir",
    "export_onnx": "export.onnx",
    "fits": "hardware",
    "from_nir": "frontends",
    "from_onnx": "frontends",
    "from_snntorch": "frontends",
    "from_torch": "frontends",
    "interpret": "ir",
    "load_graph": "ir",
    "plan": "_prune",
    "prune": "_prune",
    "rank_units": "_shrink",
    "remove_units": "_shrink",
    "save_graph": "ir",
    "sensitivity": "_sensitivity",
    "shrink": "_shrink",
    "shrink_model": "_shrink_model",
    "to_graph": "frontends",
    "verify": "_verify",
    "what_if": "_cost",
}

__all__ = ["__version__", *_HOME]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'sparsecirc' has no attribute '{name}'")
    value = getattr(import_module(f"sparsecirc.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
