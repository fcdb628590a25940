"""`SparseRNN`, `SparseGRU` and `SparseLSTM`: torch's recurrent layers on live connections only."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import dropout
from torch.nn.utils.rnn import PackedSequence

from sparsecirc._pattern import Pattern
from sparsecirc.errors import UnsupportedError, UsageError
from sparsecirc.nn._common import Live, check_shape, computed, copy_into, pattern_of
from sparsecirc.nn._weight import SparseWeight, random_pattern
from sparsecirc.ops import _autograd as ops
from sparsecirc.patterns import PatternMaker

Layer = tuple[SparseWeight, SparseWeight, "nn.Parameter | None", "nn.Parameter | None"]


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
        proj_size: must be 0.
        density: share of live connections of random patterns, or one per role: ``{"ih": 1.0, "hh": 0.1}``.
        pattern: makes those patterns from random scores, gate by gate (see `sparsecirc.patterns`).
        patterns: patterns by weight name, ``"weight_hh_l0"``; the others are random.
        dtype: float32, or float64 for the plain torch reference.

    Raises:
        UnsupportedError: ``proj_size`` is not 0.
        UsageError: a size, the density or a pattern is not usable, or a name in ``patterns`` is no weight.
    """

    cell: ClassVar[str]

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
        density: float | Mapping[str, float] = 0.1,
        pattern: PatternMaker | None = None,
        patterns: Mapping[str, Pattern] | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        if proj_size:
            raise UnsupportedError(f"proj_size={proj_size} cannot be trained sparsely in this version: use proj_size=0")
        if min(input_size, hidden_size, num_layers) < 1:
            raise UsageError(f"sizes {(input_size, hidden_size, num_layers)}: expected at least 1 each")
        self.input_size, self.hidden_size, self.num_layers = input_size, hidden_size, num_layers
        self.bias, self.batch_first, self.dropout, self.bidirectional = bias, batch_first, dropout, bidirectional
        given, share = dict(patterns or {}), density if isinstance(density, Mapping) else {"ih": density, "hh": density}
        gates = ops.GATES[self._kind()]
        for layer, suffix in self.suffixes():
            width = input_size if layer == 0 else hidden_size * (1 + bidirectional)
            for role, cols in (("ih", width), ("hh", hidden_size)):
                name, rows = f"weight_{role}_{suffix}", gates * hidden_size
                if name in given:
                    made = given.pop(name)
                else:
                    made = random_pattern(rows, cols, share.get(role, 1.0), pattern, gates)
                check_shape(name, made, (rows, cols))
                self.add_module(name, SparseWeight(made, dtype=dtype))
                b = nn.Parameter(torch.zeros(rows, dtype=dtype)) if bias else None
                self.register_parameter(f"bias_{role}_{suffix}", b)
        if given:
            raise UsageError(f"pattern of '{next(iter(given))}' has no weight: this layer has {self.weight_names()}")
        self.reset_parameters()

    def _kind(self) -> str:
        return self.cell

    def suffixes(self) -> Iterator[tuple[int, str]]:
        """(layer, suffix) of each layer and direction: ``"l0"``, ``"l0_reverse"``, ..."""
        for layer in range(self.num_layers):
            yield layer, f"l{layer}"
            if self.bidirectional:
                yield layer, f"l{layer}_reverse"

    def weight_names(self) -> list[str]:
        """Names of the weights, in order."""
        return [f"weight_{role}_{suffix}" for _, suffix in self.suffixes() for role in ("ih", "hh")]

    def layer(self, suffix: str) -> Layer:
        """(ih, hh, bias_ih, bias_hh) of one layer and direction."""
        ih, hh = self.get_submodule(f"weight_ih_{suffix}"), self.get_submodule(f"weight_hh_{suffix}")
        assert isinstance(ih, SparseWeight)
        assert isinstance(hh, SparseWeight)
        return ih, hh, getattr(self, f"bias_ih_{suffix}"), getattr(self, f"bias_hh_{suffix}")

    @torch.no_grad()
    def reset_parameters(self, *, rescale: bool = False) -> None:
        """Uniform within +-1 / sqrt(hidden_size), torch's bound; ``rescale`` widens it by sqrt(cols / live fan-in)."""
        bound = 1.0 / math.sqrt(self.hidden_size)
        for _, suffix in self.suffixes():
            ih, hh, *biases = self.layer(suffix)
            for weight in (ih, hh):
                live = weight.nnz / (weight.shape[0] * weight.shape[1])
                wide = bound / math.sqrt(live) if rescale and live else bound
                weight.values.uniform_(-wide, wide)
            for bias in biases:
                if bias is not None:
                    bias.uniform_(-bound, bound)

    def forward(self, x: Tensor, hx: Any = None) -> tuple[Tensor, Any]:
        """As torch's layer: (T, B, input) or (T, input), and states (layers * directions, B, hidden), zero if None.

        Half-precision input is computed in float32: the output comes back in the input's type, states in float32.
        """
        if isinstance(x, PackedSequence):
            raise UnsupportedError(f"{type(self).__name__} takes no PackedSequence in this version: pad the sequences")
        if x.ndim not in (2, 3) or x.shape[-1] != self.input_size:
            raise UsageError(
                f"input of shape {tuple(x.shape)}: expected (T, B, {self.input_size}), (B, T, {self.input_size}) with "
                f"batch_first, or (T, {self.input_size})"
            )
        single, kind = x.ndim == 2, x.dtype
        seq = x.unsqueeze(1) if single else x.transpose(0, 1) if self.batch_first else x
        seq = computed(seq, self.layer("l0")[0].values)
        states = self._states(seq, hx, single)
        lasts: list[list[Tensor]] = [[] for _ in states]
        index = 0
        for layer in range(self.num_layers):
            outs = []
            for direction in range(1 + self.bidirectional):
                out, last = self._run(f"l{layer}" + "_reverse" * direction, seq, [s[index] for s in states])
                outs.append(out)
                for kept, now in zip(lasts, last, strict=True):
                    kept.append(now)
                index += 1
            seq = torch.cat(outs, -1) if len(outs) > 1 else outs[0]
            if self.dropout and self.training and layer + 1 < self.num_layers:
                seq = dropout(seq, self.dropout)
        final = [torch.stack(kept) for kept in lasts]
        if single:
            seq, final = seq.squeeze(1), [s.squeeze(1) for s in final]
        elif self.batch_first:
            seq = seq.transpose(0, 1)
        return seq.to(kind), final[0] if len(final) == 1 else tuple(final)

    def _run(self, suffix: str, seq: Tensor, state: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        ih, hh, bias_ih, bias_hh = self.layer(suffix)
        job = ops.Recurrence(self._kind(), reverse=suffix.endswith("_reverse"))
        out, _, *last = ops.recurrent(job, seq, state, ih=ih.sparse(), hh=hh.sparse(), bias_ih=bias_ih, bias_hh=bias_hh)
        return out, last[: len(state)]

    def _states(self, seq: Tensor, hx: Any, single: bool) -> list[Tensor]:
        count, n = (2 if self.cell == "lstm" else 1), self.num_layers * (1 + self.bidirectional)
        shape = (n, seq.shape[1], self.hidden_size)
        if hx is None:
            return [seq.new_zeros(shape) for _ in range(count)]
        states = [hx] if isinstance(hx, Tensor) else list(hx)
        states = [computed(s.unsqueeze(1) if single else s, seq) for s in states]
        if len(states) != count or any(tuple(s.shape) != shape for s in states):
            raise UsageError(f"states of shapes {[tuple(s.shape) for s in states]}: expected {count} of {shape}")
        return states

    @classmethod
    def from_dense(cls, module: nn.RNNBase, masks: Live = None, prefix: str = "rnn") -> SparseRNNBase:
        """The same layer on the connections that ``masks`` calls ``<prefix>.l0.hh`` and so on; see `pattern_of`.

        Raises:
            UnsupportedError: the module is of another kind, or has projections.
        """
        kind = {nn.RNN: SparseRNN, nn.GRU: SparseGRU, nn.LSTM: SparseLSTM}.get(type(module))
        if kind is None or not issubclass(kind, cls):
            raise UnsupportedError(f"{type(module).__name__} is no dense form of {cls.__name__}")
        weights = {n: p for n, p in module.named_parameters() if n.startswith("weight_")}
        patterns = {n: pattern_of(masks, _mask_name(prefix, n), p) for n, p in weights.items() if "_hr_" not in n}
        more = {"nonlinearity": module.nonlinearity} if isinstance(module, nn.RNN) else {}
        made: SparseRNNBase = kind(
            module.input_size, module.hidden_size, module.num_layers, bias=module.bias, batch_first=module.batch_first,
            dropout=module.dropout, bidirectional=module.bidirectional, proj_size=module.proj_size,
            patterns=patterns, dtype=next(iter(weights.values())).dtype, **more,
        )  # fmt: skip
        for name, weight in weights.items():
            target = made.get_submodule(name)
            assert isinstance(target, SparseWeight)
            target.set_dense(weight)
        for name, parameter in module.named_parameters():
            if name.startswith("bias_"):
                copy_into(made.get_parameter(name), parameter)
        return made.train(module.training)

    def to_dense(self) -> nn.RNNBase:
        """The same layer of torch, with exact zeros."""
        dense: type[Any] = {"gru": nn.GRU, "lstm": nn.LSTM}.get(self.cell, nn.RNN)
        more = {"nonlinearity": self._kind().removeprefix("rnn_")} if dense is nn.RNN else {}
        made: nn.RNNBase = dense(
            self.input_size, self.hidden_size, self.num_layers, bias=self.bias, batch_first=self.batch_first,
            dropout=self.dropout, bidirectional=self.bidirectional, dtype=self.layer("l0")[0].values.dtype, **more,
        )  # fmt: skip
        for name in self.weight_names():
            weight = self.get_submodule(name)
            assert isinstance(weight, SparseWeight)
            copy_into(made.get_parameter(name), weight.dense())
        for name, parameter in self.named_parameters():
            if name.startswith("bias_"):
                copy_into(made.get_parameter(name), parameter)
        return made.train(self.training)

    def extra_repr(self) -> str:
        """Sizes, and what differs from the defaults."""
        flags = [f for f in ("batch_first", "bidirectional") if getattr(self, f)]
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
    """LSTM layers without projections; arguments of `SparseRNNBase`, states (h, c)."""

    cell = "lstm"
