"""`SparseRNN`, `SparseGRU` and `SparseLSTM`: torch's recurrent layers on live connections only."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import dropout
from torch.nn.utils.rnn import PackedSequence

from sparsecirc._pattern import Pattern
from sparsecirc.errors import UnsupportedError, UsageError
from sparsecirc.nn._common import Live, check_shape, computed, copy_into, ops_for, pattern_of
from sparsecirc.nn._weight import SparseWeight, fan_in_uniform_, random_pattern
from sparsecirc.ops import _autograd as ops
from sparsecirc.patterns import PatternMaker


class Layer(NamedTuple):
    """Weights and biases of one layer and direction."""

    ih: SparseWeight
    hh: SparseWeight
    hr: SparseWeight | None
    bias_ih: nn.Parameter | None
    bias_hh: nn.Parameter | None


class Observed(NamedTuple):
    """What one layer and direction was given and gave; arguments of `sparsecirc.ops._autograd.recurrent`."""

    suffix: str
    job: ops.Recurrence
    seq: Tensor
    state: list[Tensor]
    offsets: Tensor | None
    out: Tensor
    last: list[Tensor]


class SparseRNNBase(nn.Module):
    """Layers, directions and states, as torch.nn.RNNBase has them.

    Weights are `SparseWeight` modules under torch's names (``weight_ih_l0``, ``weight_hh_l0_reverse``), so that the
    checkpoint keys are ``weight_hh_l0.values`` and so on; biases are dense and keep torch's keys.

    Args:
        input_size: features of the input.
        hidden_size: units.
        num_layers: layers stacked on each other.
        bias: whether there are ``bias_ih`` and ``bias_hh``.
        batch_first: whether sequences are (B, T, features) instead of (T, B, features).
        dropout: probability of dropping an output between layers in training.
        bidirectional: whether each layer also runs backwards.
        proj_size: features of a projection of the output, which is then fed back; 0 for none, LSTM only.
        density: share of live connections of random patterns, or one per role: ``{"ih": 1.0, "hh": 0.1, "hr": 0.5}``;
            a role without one is dense. None for what the maker brings (`patterns.modular`).
        pattern: makes those patterns from random scores, gate by gate (see `sparsecirc.patterns`).
        patterns: patterns by weight name, ``"weight_hh_l0"``; the others are random.
        dtype: float32, or float64 for the plain torch reference.

    Raises:
        UsageError: a size, the density or a pattern is not usable, or a name in ``patterns`` is no weight.
    """

    cell: ClassVar[str]
    observer: Callable[[Observed], None] | None = None
    """Told what each layer and direction computes, while rules gather activity."""

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        proj_size: int = 0,
        *,
        density: float | Mapping[str, float | None] | None = 0.1,
        pattern: PatternMaker | None = None,
        patterns: Mapping[str, Pattern] | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        if proj_size and (self.cell != "lstm" or not 0 < proj_size < hidden_size):
            raise UsageError(
                f"proj_size={proj_size}: only SparseLSTM projects, to fewer features than its {hidden_size} units"
            )
        if min(input_size, hidden_size, num_layers) < 1:
            raise UsageError(f"sizes {(input_size, hidden_size, num_layers)}: expected at least 1 each")
        self.input_size, self.hidden_size, self.num_layers = input_size, hidden_size, num_layers
        self.bias, self.batch_first, self.dropout, self.bidirectional = bias, batch_first, dropout, bidirectional
        self.proj_size, self.features = proj_size, proj_size or hidden_size
        given = dict(patterns or {})
        share = density if isinstance(density, Mapping) else dict.fromkeys(("ih", "hh", "hr"), density)
        for suffix in self.suffixes():
            for role, (rows, cols) in self._shapes(suffix).items():
                name, gates = f"weight_{role}_{suffix}", 1 if role == "hr" else ops.GATES[self._kind()]
                if name in given:
                    made = given.pop(name)
                else:
                    made = random_pattern(rows, cols, share.get(role, 1.0), pattern if role in share else None, gates)
                check_shape(name, made, (rows, cols))
                self.add_module(name, SparseWeight(made, dtype=dtype))
                if role != "hr":
                    b = nn.Parameter(torch.zeros(rows, dtype=dtype)) if bias else None
                    self.register_parameter(f"bias_{role}_{suffix}", b)
        if given:
            raise UsageError(f"pattern of '{next(iter(given))}' has no weight: this layer has {self.weight_names()}")
        self.reset_parameters()

    def _kind(self) -> str:
        return self.cell

    def suffixes(self) -> list[str]:
        """Suffix of each layer and direction: ``"l0"``, ``"l0_reverse"``, ..."""
        directions = ("", "_reverse") if self.bidirectional else ("",)
        return [f"l{layer}{direction}" for layer in range(self.num_layers) for direction in directions]

    def _shapes(self, suffix: str) -> dict[str, tuple[int, int]]:
        """Shape of each weight of one layer and direction, by its role."""
        rows = ops.GATES[self._kind()] * self.hidden_size
        width = self.input_size if suffix.startswith("l0") else self.features * (1 + self.bidirectional)
        shapes = {"ih": (rows, width), "hh": (rows, self.features)}
        return shapes | {"hr": (self.proj_size, self.hidden_size)} if self.proj_size else shapes

    def weight_names(self) -> list[str]:
        """Names of the weights, in order."""
        return [f"weight_{role}_{suffix}" for suffix in self.suffixes() for role in self._shapes(suffix)]

    def weights(self) -> Iterator[tuple[str, SparseWeight]]:
        """The weights with their names."""
        for name in self.weight_names():
            weight = self.get_submodule(name)
            assert isinstance(weight, SparseWeight)
            yield name, weight

    def layer(self, suffix: str) -> Layer:
        """Weights and biases of one layer and direction."""
        found = [getattr(self, f"{name}_{suffix}", None) for name in ("weight_ih", "weight_hh", "weight_hr")]
        return Layer(*found, *(getattr(self, f"bias_{role}_{suffix}") for role in ("ih", "hh")))  # type: ignore[arg-type]

    @torch.no_grad()
    def reset_parameters(self, *, rescale: bool = False) -> None:
        """Uniform within +-1 / sqrt(hidden_size), torch's; ``rescale``: by rows, times sqrt(cols / live fan-in)."""
        bound = 1.0 / math.sqrt(self.hidden_size)
        for _, weight in self.weights():
            if rescale:
                fan_in_uniform_(weight, bound)
            else:
                weight.values.uniform_(-bound, bound)
        for name, parameter in self.named_parameters():
            if name.startswith("bias_"):
                parameter.uniform_(-bound, bound)

    def forward(self, x: Tensor | PackedSequence, hx: Any = None) -> tuple[Any, Any]:
        """As torch's layer: x (T, B, input), (T, input) or packed; states (layers * directions, B, features).

        Features are those of the projection in ``h`` where there is one, else the units. States are zero if None.
        Half-precision input is computed in float32: the output comes back in the input's type, states in float32.
        """
        if isinstance(x, PackedSequence):
            return self._packed(x, hx)
        if x.ndim not in (2, 3) or x.shape[-1] != self.input_size:
            raise UsageError(
                f"input of shape {tuple(x.shape)}: expected (T, B, {self.input_size}), (B, T, {self.input_size}) with "
                f"batch_first, or (T, {self.input_size})"
            )
        single = x.ndim == 2
        seq = x.unsqueeze(1) if single else x.transpose(0, 1) if self.batch_first else x
        given = None if hx is None else [s.unsqueeze(1) if single else s for s in self._listed(hx)]
        out, final = self._layers(seq, seq.shape[1], given, None)
        if single:
            out, final = out.squeeze(1), [s.squeeze(1) for s in final]
        elif self.batch_first:
            out = out.transpose(0, 1)
        return out, final[0] if len(final) == 1 else tuple(final)

    def _packed(self, x: PackedSequence, hx: Any) -> tuple[PackedSequence, Any]:
        if x.data.ndim != 2 or x.data.shape[1] != self.input_size:
            raise UsageError(f"packed input of shape {tuple(x.data.shape)}: expected {self.input_size} features")
        sizes = x.batch_sizes
        offsets = torch.cat([sizes.new_zeros(1), sizes.cumsum(0)])
        given = None if hx is None else self._listed(hx)
        if given is not None and x.sorted_indices is not None:
            given = [s.index_select(1, x.sorted_indices) for s in given]
        out, final = self._layers(x.data, int(sizes[0]), given, offsets)
        if x.unsorted_indices is not None:
            final = [s.index_select(1, x.unsorted_indices) for s in final]
        packed = PackedSequence(out, sizes, x.sorted_indices, x.unsorted_indices)
        return packed, final[0] if len(final) == 1 else tuple(final)

    def _layers(
        self, seq: Tensor, batch: int, given: list[Tensor] | None, offsets: Tensor | None
    ) -> tuple[Tensor, list[Tensor]]:
        """All layers over (T, B, input), or over packed rows; returns their output and last states."""
        kind = seq.dtype
        seq = computed(seq, self.layer("l0").ih.values)
        states = self._states(seq, batch, given)
        lasts: list[list[Tensor]] = [[] for _ in states]
        index = 0
        for layer in range(self.num_layers):
            outs = []
            for direction in range(1 + self.bidirectional):
                state = [s[index] for s in states]
                out, last = self._run(f"l{layer}" + "_reverse" * direction, seq, state, offsets)
                outs.append(out)
                for kept, now in zip(lasts, last, strict=True):
                    kept.append(now)
                index += 1
            seq = torch.cat(outs, -1) if len(outs) > 1 else outs[0]
            if self.dropout and self.training and layer + 1 < self.num_layers:
                seq = dropout(seq, self.dropout)
        return seq.to(kind), [torch.stack(kept) for kept in lasts]

    def _run(
        self, suffix: str, seq: Tensor, state: list[Tensor], offsets: Tensor | None
    ) -> tuple[Tensor, list[Tensor]]:
        w = self.layer(suffix)
        job = ops.Recurrence(self._kind(), reverse=suffix.endswith("_reverse"))
        out, last = ops_for(w.ih.values).recurrent(
            job, seq, state, ih=w.ih.sparse(), hh=w.hh.sparse(), hr=w.hr.sparse() if w.hr is not None else None,
            bias_ih=w.bias_ih, bias_hh=w.bias_hh, offsets=offsets,
        )  # fmt: skip
        if self.observer is not None:
            self.observer(Observed(suffix, job, seq, state, offsets, out, last))
        return out, last

    @staticmethod
    def _listed(hx: Any) -> list[Tensor]:
        return [hx] if isinstance(hx, Tensor) else list(hx)

    def _states(self, seq: Tensor, batch: int, given: list[Tensor] | None) -> list[Tensor]:
        n = self.num_layers * (1 + self.bidirectional)
        shapes = [(n, batch, self.features), (n, batch, self.hidden_size)][: 2 if self.cell == "lstm" else 1]
        if given is None:
            return [seq.new_zeros(shape) for shape in shapes]
        states = [computed(s, seq) for s in given]
        if [tuple(s.shape) for s in states] != shapes:
            raise UsageError(f"states of shapes {[tuple(s.shape) for s in states]}: expected {shapes}")
        return states

    @classmethod
    def from_dense(cls, module: nn.RNNBase, masks: Live = None, prefix: str = "rnn") -> SparseRNNBase:
        """The same layer on the connections that ``masks`` calls ``<prefix>.l0.hh`` and so on; see `pattern_of`.

        Raises:
            UnsupportedError: the module is of another kind.
        """
        kind = {nn.RNN: SparseRNN, nn.GRU: SparseGRU, nn.LSTM: SparseLSTM}.get(type(module))
        if kind is None or not issubclass(kind, cls):
            raise UnsupportedError(f"{type(module).__name__} is no dense form of {cls.__name__}")
        weights = {n: p for n, p in module.named_parameters() if n.startswith("weight_")}
        patterns = {n: pattern_of(masks, _mask_name(prefix, n), p) for n, p in weights.items()}
        more = {"nonlinearity": module.nonlinearity} if isinstance(module, nn.RNN) else {}
        made: SparseRNNBase = kind(
            module.input_size, module.hidden_size, module.num_layers, bias=module.bias, batch_first=module.batch_first,
            dropout=module.dropout, bidirectional=module.bidirectional, proj_size=module.proj_size,
            patterns=patterns, dtype=next(iter(weights.values())).dtype, **more,
        )  # fmt: skip
        for name, target in made.weights():
            target.set_dense(weights[name])
        for name, parameter in module.named_parameters():
            if name.startswith("bias_"):
                copy_into(made.get_parameter(name), parameter)
        return made.train(module.training)

    def to_dense(self) -> nn.RNNBase:
        """The same layer of torch, with exact zeros."""
        dense: type[Any] = {"gru": nn.GRU, "lstm": nn.LSTM}.get(self.cell, nn.RNN)
        more: dict[str, Any] = {"proj_size": self.proj_size} if self.proj_size else {}
        if dense is nn.RNN:
            more["nonlinearity"] = self._kind().removeprefix("rnn_")
        made: nn.RNNBase = dense(
            self.input_size, self.hidden_size, self.num_layers, bias=self.bias, batch_first=self.batch_first,
            dropout=self.dropout, bidirectional=self.bidirectional, dtype=self.layer("l0").ih.values.dtype, **more,
        )  # fmt: skip
        for name, weight in self.weights():
            copy_into(made.get_parameter(name), weight.dense())
        for name, parameter in self.named_parameters():
            if name.startswith("bias_"):
                copy_into(made.get_parameter(name), parameter)
        return made.train(self.training)

    def extra_repr(self) -> str:
        """Sizes, and what differs from the defaults."""
        flags = [f for f in ("batch_first", "bidirectional") if getattr(self, f)]
        flags += [f"proj_size={self.proj_size}"] if self.proj_size else []
        return ", ".join([f"{self.input_size}, {self.hidden_size}, num_layers={self.num_layers}", *flags])


def _mask_name(prefix: str, key: str) -> str:
    """``weight_hh_l0_reverse`` -> ``<prefix>.l0_reverse.hh``."""
    _, role, suffix = key.split("_", 2)
    return f"{prefix}.{suffix}.{role}"


class SparseRNN(SparseRNNBase):
    """Elman layers, h' = tanh(W_ih x + b_ih + W_hh h + b_hh), or relu; arguments of `SparseRNNBase`."""

    cell = "rnn"

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        nonlinearity: str = "tanh",
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        **more: Any,
    ) -> None:
        if nonlinearity not in ("tanh", "relu"):
            raise UsageError(f"nonlinearity {nonlinearity!r} is unknown: expected 'tanh' or 'relu'")
        self.nonlinearity = nonlinearity
        super().__init__(input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional, **more)

    def _kind(self) -> str:
        return f"rnn_{self.nonlinearity}"


class SparseGRU(SparseRNNBase):
    """GRU layers in torch's form; arguments of `SparseRNNBase`."""

    cell = "gru"


class SparseLSTM(SparseRNNBase):
    """LSTM layers, with projections if wanted (Sak et al. 2014); arguments of `SparseRNNBase`, states (h, c)."""

    cell = "lstm"
