"""Which parameters of a torch model are weight matrices, and what each is called in a `Graph`.

Masks and the frontends share these names, so a mask of ``"rnn.l0.hh"`` is the pattern of role ``hh`` of node
``"rnn.l0"``. A module at the root of a model is called by its class in lower case.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import nn

from sparsecirc.cells import CELLS, Cell
from sparsecirc.errors import UnsupportedError

try:  # the spiking layers are recognised only where their package is installed
    import snntorch
except ImportError:  # pragma: no cover - exercised by the test that hides the package
    snntorch = None

CELL_OF: dict[type[nn.Module], str] = {nn.GRU: "gru", nn.LSTM: "lstm", nn.GRUCell: "gru", nn.LSTMCell: "lstm"}
"""Cells of the torch classes that have just one; nn.RNN and nn.RNNCell ask their ``nonlinearity``."""


@dataclass(frozen=True)
class WeightRef:
    """One weight matrix of a torch model.

    Attributes:
        name: ``"<node>.<role>"``, e.g. ``"rnn.l0.hh"``.
        node: name of the graph node that it becomes.
        role: ``ih``, ``hh``, ``hr``, ``hh_diag`` or ``weight``.
        key: its key in ``model.state_dict()``, e.g. ``"rnn.weight_hh_l0"``.
        gates: gate blocks stacked along its rows in torch's order; () where it has one block.
        owner: the layer it belongs to.
    """

    name: str
    node: str
    role: str
    key: str
    gates: tuple[str, ...]
    owner: nn.Module

    def parameter(self, model: nn.Module) -> torch.Tensor:
        """The live tensor in ``model``.

        Raises:
            UnsupportedError: it is computed from other parameters (weight_norm and other parametrizations).
        """
        try:
            tensor: torch.Tensor = model.get_parameter(self.key)
        except AttributeError:
            raise UnsupportedError(
                f"weight '{self.key}' is computed from other parameters, so it cannot be pruned: first call "
                "torch.nn.utils.parametrize.remove_parametrizations on its layer, or remove_weight_norm"
            ) from None
        return tensor


def is_spiking(module: nn.Module) -> bool:
    """Whether ``module`` is a neuron layer of snntorch."""
    return snntorch is not None and isinstance(module, snntorch.SpikingNeuron)


def node_name(path: str, module: nn.Module) -> str:
    """Name of the node of the module at ``path``; the class name at the root."""
    return path or type(module).__name__.lower()


def cell_of(module: nn.Module) -> Cell:
    """The recurrence of an nn.RNN/GRU/LSTM or of their single-step forms."""
    if isinstance(module, (nn.RNN, nn.RNNCell)):
        return CELLS[f"rnn_{module.nonlinearity}"]
    return next(CELLS[name] for cls, name in CELL_OF.items() if isinstance(module, cls))


def layer_suffixes(module: nn.RNNBase) -> Iterator[tuple[int, str]]:
    """(layer, torch's suffix) of each layer and direction: ``"l0"``, ``"l0_reverse"``, ``"l1"``, ..."""
    for layer in range(module.num_layers):
        yield layer, f"l{layer}"
        if module.bidirectional:
            yield layer, f"l{layer}_reverse"


def weight_refs(model: nn.Module) -> list[WeightRef]:
    """Every weight matrix of the layers we know, in module order; a tied tensor is listed once, by its first name."""
    refs: list[WeightRef] = []
    seen: set[int] = set()
    inner: set[int] = set()  # modules inside a layer that is handled as a whole
    for path, module in model.named_modules():
        if id(module) in inner:
            continue
        for ref in _of_module(path, module):
            tensor = ref.parameter(model)
            if id(tensor) not in seen:
                seen.add(id(tensor))
                refs.append(ref)
        if is_spiking(module):
            inner.update(id(m) for m in module.modules())
    return refs


def skipped(model: nn.Module) -> list[tuple[str, str]]:
    """(state-dict key, reason) of each parameter of two or more axes that no `WeightRef` covers."""
    covered = {id(r.parameter(model)) for r in weight_refs(model)}
    kinds = {f"{path}.{name}" if path else name: type(m).__name__ for path, m in model.named_modules()
             for name, _ in m.named_parameters(recurse=False)}  # fmt: skip
    return [
        (key, f"{kinds[key]} is not a layer that can be pruned")
        for key, p in model.named_parameters()
        if p.ndim >= 2 and id(p) not in covered
    ]


def _of_module(path: str, module: nn.Module) -> Iterator[WeightRef]:
    node = node_name(path, module)
    dot = f"{path}." if path else ""
    if isinstance(module, nn.RNNBase):
        gates = _gates(cell_of(module))
        for _, suffix in layer_suffixes(module):
            for role in ("ih", "hh"):
                name = f"{node}.{suffix}"
                yield WeightRef(f"{name}.{role}", name, role, f"{dot}weight_{role}_{suffix}", gates, module)
            if getattr(module, "proj_size", 0):
                name = f"{node}.{suffix}"
                yield WeightRef(f"{name}.hr", name, "hr", f"{dot}weight_hr_{suffix}", (), module)
    elif isinstance(module, nn.RNNCellBase):
        gates = _gates(cell_of(module))
        for role in ("ih", "hh"):
            yield WeightRef(f"{node}.{role}", node, role, f"{dot}weight_{role}", gates, module)
    elif isinstance(module, (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Embedding)):
        yield WeightRef(f"{node}.weight", node, "weight", f"{dot}weight", (), module)
    elif is_spiking(module):
        recurrent = getattr(module, "recurrent", None)
        if isinstance(recurrent, nn.Linear):
            yield WeightRef(f"{node}.hh", node, "hh", f"{dot}recurrent.weight", (), module)
        elif isinstance(getattr(module, "V", None), nn.Parameter) and module.V.ndim == 1:
            yield WeightRef(f"{node}.hh_diag", node, "hh_diag", f"{dot}V", (), module)


def _gates(cell: Cell) -> tuple[str, ...]:
    return cell.gates if cell.n_gates > 1 else ()
