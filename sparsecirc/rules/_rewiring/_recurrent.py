"""What recurrent layers do inside: states on both sides of each weight, and gradients before the gates."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from sparsecirc.nn._recurrent import Layer, Observed
from sparsecirc.ops import _autograd as ops
from sparsecirc.ops._autograd import Sparse


@dataclass
class Run:
    """One layer and direction over a sequence, with the gradients that reach its outputs.

    Attributes:
        seen: what it was given and gave.
        grads: of out, then of the last states; filled in backward.
    """

    seen: Observed
    grads: dict[int, Tensor] = field(default_factory=dict)

    def follow(self) -> None:
        """Note the gradients when backward comes by."""
        for k, tensor in enumerate([self.seen.out, *self.seen.last]):
            if tensor.requires_grad:
                tensor.register_hook(partial(self._note, k))  # type: ignore[no-untyped-call]

    def _note(self, k: int, grad: Tensor | None) -> None:
        if grad is not None:  # an output that the loss does not read
            self.grads[k] = grad.detach()

    def before(self) -> Tensor:
        """State that each step began with, shaped like out."""
        return previous(self.seen.out.detach(), self.seen.state[0].detach(), self.seen.offsets, self.seen.job.reverse)

    def gradients(self, layer: Layer) -> tuple[Tensor, Tensor]:
        """Of what the input weight and the recurrent weight give to the gates, each (steps and samples, rows).

        The kernel runs once more with one further input per row, connected to that row alone by a 1: what reaches
        these inputs is the gradient before the gates. It costs about a forward and backward of the layer.
        """
        seen, rows = self.seen, layer.ih.shape[0]
        x = seen.seq.detach()
        probe = x.new_zeros((*x.shape[:-1], rows), requires_grad=True)
        with torch.enable_grad():
            out, last = ops.recurrent(
                seen.job, torch.cat([x, probe], -1), [s.detach() for s in seen.state], ih=_probed(layer.ih.sparse()),
                hh=_fixed(layer.hh.sparse()), hr=None if layer.hr is None else _fixed(layer.hr.sparse()),
                bias_ih=_detached(layer.bias_ih), bias_hh=_detached(layer.bias_hh), offsets=seen.offsets,
            )  # fmt: skip
            reached = [(t, self.grads[k]) for k, t in enumerate([out, *last]) if k in self.grads]
            if not reached:
                flat = probe.detach().reshape(-1, rows)
                return flat, flat
            found = torch.autograd.grad([t for t, _ in reached], probe, [g for _, g in reached])[0]
        into = found.reshape(-1, rows)
        if seen.job.cell != "gru":
            return into, into
        units = rows // 3
        reset = torch.sigmoid(
            _gate(layer.ih.sparse(), layer.bias_ih, x, units)
            + _gate(layer.hh.sparse(), layer.bias_hh, self.before(), units)
        )
        return into, torch.cat([into[:, : 2 * units], into[:, 2 * units :] * reset.reshape(-1, units)], 1)


def previous(out: Tensor, first: Tensor, offsets: Tensor | None, reverse: bool) -> Tensor:
    """State before each step: the one that was given, then the outputs; of packed rows those of the same sample."""
    if offsets is None:
        parts = [out[1:], first[None]] if reverse else [first[None], out[:-1]]
        return torch.cat(parts)[: len(out)] if len(out) else out
    steps = [out[a:b] for a, b in itertools.pairwise(offsets.tolist())]
    made = []
    for t, step in enumerate(steps):
        later = steps[t + 1] if reverse and t + 1 < len(steps) else first[:0] if reverse else None
        if later is not None:  # samples that end here begin, going backwards, with the state that was given
            made.append(torch.cat([later, first[len(later) : len(step)]]))
        else:
            made.append((steps[t - 1] if t else first)[: len(step)])
    return torch.cat(made)


def _detached(tensor: Tensor | None) -> Tensor | None:
    return None if tensor is None else tensor.detach()


def _fixed(weight: Sparse) -> Sparse:
    return weight._replace(values=weight.values.detach())


def _probed(weight: Sparse) -> Sparse:
    """The weight with one further column per row, where that row alone has a 1."""
    rows, cols = weight.shape
    ends = weight.indptr[1:].numpy()
    indices = np.insert(weight.indices.numpy(), ends, cols + np.arange(rows, dtype=np.int32))
    values = np.insert(weight.values.detach().numpy(), ends, 1.0)
    indptr = weight.indptr.numpy() + np.arange(rows + 1, dtype=np.int32)
    return Sparse(torch.from_numpy(indptr), torch.from_numpy(indices), torch.from_numpy(values), (rows, cols + rows))


def _gate(weight: Sparse, bias: Tensor | None, x: Tensor, units: int) -> Tensor:
    """What the first gate gets from one weight."""
    end = int(weight.indptr[units])
    first = Sparse(
        weight.indptr[: units + 1].contiguous(), weight.indices[:end], weight.values.detach()[:end],
        (units, weight.shape[1]),
    )  # fmt: skip
    return ops.linear(x, first, None if bias is None else bias.detach()[:units])


# torch's own layers --------------------------------------------------------------------------------------------------


@torch.no_grad()
def dense_runs(module: nn.RNNBase, args: tuple[Any, ...], output: Any) -> Iterator[tuple[str, Tensor, Tensor, Tensor]]:
    """(suffix, input, states before, states) of every layer and direction of a torch layer, each (T, B, features).

    A single layer has shown all of it; of several the inner ones are run once more, without their dropout.
    """
    x, hx = args[0], args[1] if len(args) > 1 else None
    packed = isinstance(x, PackedSequence)
    data, sizes = (x.data, x.batch_sizes) if packed else (x, None)
    single = not packed and data.ndim == 2
    seq = data.unsqueeze(1) if single else data.transpose(0, 1) if module.batch_first and not packed else data
    batch = int(sizes[0]) if sizes is not None else seq.shape[1]
    ways = 2 if module.bidirectional else 1
    width = module.proj_size or module.hidden_size
    many = module.num_layers * ways
    h0, c0 = _states(module, hx, seq, many, batch, width, single, x.sorted_indices if packed else None)
    offsets = None if sizes is None else torch.cat([sizes.new_zeros(1), sizes.cumsum(0)])
    final = output[0].data if packed else output[0]
    if not packed:
        final = final.unsqueeze(1) if single else final.transpose(0, 1) if module.batch_first else final
    for layer in range(module.num_layers):
        here = slice(layer * ways, (layer + 1) * ways)
        out = final if layer == module.num_layers - 1 else _one_layer(module, layer, seq, sizes, h0[here], c0[here])
        for way in range(ways):
            own = out[..., way * width : (way + 1) * width].detach()
            before = previous(own, h0[layer * ways + way], offsets, bool(way))
            suffix = f"l{layer}" + "_reverse" * way
            seen = [t if sizes is None else t.unsqueeze(0) for t in (seq.detach(), before, own)]
            yield suffix, seen[0], seen[1], seen[2]
        seq = out


def _states(
    module: nn.RNNBase, hx: Any, seq: Tensor, many: int, batch: int, width: int, single: bool, order: Tensor | None
) -> tuple[Tensor, Tensor]:
    given = [] if hx is None else [hx] if isinstance(hx, Tensor) else list(hx)
    given = [s.detach().unsqueeze(1) if single else s.detach() for s in given]
    if order is not None:
        given = [s.index_select(1, order) for s in given]
    zeros = seq.new_zeros(many, batch, width), seq.new_zeros(many, batch, module.hidden_size)
    return (given[0] if given else zeros[0]), (given[1] if len(given) > 1 else zeros[1])


def _one_layer(module: nn.RNNBase, layer: int, seq: Tensor, sizes: Tensor | None, h: Tensor, c: Tensor) -> Tensor:
    """Output of one layer of torch's, both directions."""
    ways = ("", "_reverse") if module.bidirectional else ("",)
    names = [
        f"{kind}_l{layer}{way}"
        for way in ways
        for kind in ("weight_ih", "weight_hh", "bias_ih", "bias_hh", "weight_hr")
    ]
    weights = [getattr(module, n) for n in names if hasattr(module, n)]
    kind = {"GRU": "gru", "LSTM": "lstm"}.get(module.mode, module.mode.lower())
    call = getattr(torch._VF, kind)
    state: Any = (h.contiguous(), c.contiguous()) if kind == "lstm" else h.contiguous()
    more = (weights, module.bias, 1, 0.0, False, module.bidirectional)
    out: Tensor = (call(seq, state, *more, False) if sizes is None else call(seq, sizes, state, *more))[0]
    return out
