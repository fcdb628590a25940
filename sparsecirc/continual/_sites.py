"""Sites: the weights of a model that a method protects, and the rows that feed them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from sparsecirc.continual._connect import patches
from sparsecirc.continual._learning import RECURRENT
from sparsecirc.continual._network import SpikingNet
from sparsecirc.errors import NothingMatchedError
from sparsecirc.nn import SparseLinear, SparseWeight

Rows = Callable[[Tensor], Tensor]
"""``rows(seq)``: from the presynaptic activity (T, R, n) of a mini-batch to the rows (R', n) that are learned from."""


def firing_rate(seq: Tensor) -> Tensor:
    """Mean over the steps, (R, n)."""
    return seq[0] if len(seq) == 1 else seq.mean(0)


def each_step(seq: Tensor) -> Tensor:
    """The activity of every step, (T R, n)."""
    return seq.flatten(0, 1)


@dataclass(frozen=True)
class WeightedRate:
    """Weighted firing rate: weights ``decay^(T - 1 - t)`` with sum 1, the representation of `DSR`."""

    decay: float = 0.5

    def __call__(self, seq: Tensor) -> Tensor:
        """(T, R, n) to (R, n)."""
        powers = self.decay ** torch.arange(len(seq) - 1, -1, -1, dtype=torch.float64)
        rate: Tensor = torch.tensordot((powers / powers.sum()).to(seq.dtype), seq, dims=1)
        return rate


@dataclass(frozen=True)
class Site:
    """A weight of a model, seen as a matrix whose rows are those of its output units.

    A bias is one more column, as the weight of an input that is always 1.

    Attributes:
        name: of the module; with ``[k]`` for the k-th group of a convolution.
        module: nn.Linear, nn.Conv2d, SparseLinear, or recurrent neurons.
        width: columns n, the bias included.
        group: of a convolution.
    """

    name: str
    module: nn.Module
    width: int
    group: int = 0

    @property
    def sparse(self) -> SparseWeight | None:
        """The live values, where the weight is sparse."""
        if isinstance(self.module, RECURRENT):
            return self.module.recurrent
        return self.module.weight if isinstance(self.module, SparseLinear) else None

    @property
    def bias(self) -> nn.Parameter | None:
        """The bias, where there is one."""
        if isinstance(self.module, RECURRENT):
            return self.module.recurrent_bias
        found = self.module.bias
        return found if isinstance(found, nn.Parameter) else None

    def tensors(self) -> list[Tensor]:
        """The weight (a group of it) and the bias, as views of the parameters."""
        bias = self.bias
        sparse = self.sparse
        if sparse is not None:
            return [sparse.values.data, *([] if bias is None else [bias.data])]
        weight = self.module.weight.data
        assert isinstance(weight, Tensor)
        return self._part([weight, *([] if bias is None else [bias.data])])

    def grads(self) -> list[Tensor]:
        """Gradients in the same order; none where there is one missing."""
        sparse = self.sparse
        weight = self.module.weight if sparse is None else sparse.values
        found = [weight.grad, *([] if self.bias is None else [self.bias.grad])]
        return [] if any(g is None for g in found) else self._part([g for g in found if isinstance(g, Tensor)])

    def _part(self, tensors: list[Tensor]) -> list[Tensor]:
        if not isinstance(self.module, nn.Conv2d) or self.module.groups == 1:
            return tensors
        size = self.module.out_channels // self.module.groups
        return [t[self.group * size : (self.group + 1) * size] for t in tensors]

    @staticmethod
    def matrix(tensors: list[Tensor]) -> Tensor:
        """Dense weight and bias as one matrix (out, n)."""
        weight = tensors[0].flatten(1)
        return weight if len(tensors) == 1 else torch.cat([weight, tensors[1][:, None]], dim=1)

    @staticmethod
    def write(matrix: Tensor, tensors: list[Tensor]) -> None:
        """Inverse of `matrix`, in place."""
        if len(tensors) > 1:
            tensors[1].copy_(matrix[:, -1])
            matrix = matrix[:, :-1]
        tensors[0].copy_(matrix.reshape(tensors[0].shape))

    def rows(self, calls: list[Tensor], steps: int) -> Tensor:
        """Presynaptic activity (T, R, n) from what the module was called with in one forward pass.

        A module called once per step gave one entry per step; one called once gave all steps, along the first axis, or
        for images ``steps`` times the batch.
        """
        if isinstance(self.module, nn.Conv2d):
            rows = [patches(c.flatten(0, 1) if c.ndim == 5 else c, self.module)[self.group] for c in calls]
            seq = torch.stack(rows)
            if len(calls) == 1:
                first = calls[0]
                times = len(first) if first.ndim == 5 else (steps if len(first) % steps == 0 else 1)
                seq = seq[0].reshape(times, -1, seq.shape[2])
        elif len(calls) > 1:
            seq = torch.stack([c.flatten(0, -2) for c in calls])
        else:
            seq = calls[0].flatten(1, -2) if calls[0].ndim > 2 else calls[0].unsqueeze(0)
        return seq if self.bias is None else torch.cat([seq, seq.new_ones((*seq.shape[:2], 1))], dim=2)


def sites(model: nn.Module, keep: Callable[[str], bool] | None = None) -> list[Site]:
    """The weights of a model that can be protected, in the order of its modules.

    Args:
        model: any model with nn.Linear, nn.Conv2d, SparseLinear, SparseRLIF or SparseRSynaptic modules.
        keep: which, by name; by default all, but read-outs of single tasks.

    Raises:
        NothingMatchedError: none is left.
    """
    several = isinstance(model, SpikingNet) and len(model.readouts) > 1
    found = []
    for name, module in model.named_modules():
        if keep is not None and not keep(name):
            continue
        if keep is None and several and name.startswith("readouts."):
            continue
        found += list(_of(name, module))
    if not found:
        raise NothingMatchedError(
            f"{type(model).__name__} has no nn.Linear, nn.Conv2d, SparseLinear or recurrent layer to protect here"
        )
    return found


def _of(name: str, module: nn.Module) -> Iterator[Site]:
    if isinstance(module, RECURRENT):
        yield Site(f"{name}.recurrent", module, module.linear_features + 1)
    elif isinstance(module, (nn.Linear, SparseLinear)):
        yield Site(name, module, module.in_features + (module.bias is not None))
    elif isinstance(module, nn.Conv2d):
        width = module.weight[0].numel() + (module.bias is not None)
        for k in range(module.groups):
            yield Site(name if module.groups == 1 else f"{name}[{k}]", module, width, k)


class Tap:
    """Collects what feeds the sites of a model: from `SpikingNet` itself, else by hooks.

    Args:
        model: the model.
        watched: its sites.
        testing: collect while the model is in evaluation, not while it is trained.
    """

    def __init__(self, model: nn.Module, watched: Iterable[Site], *, testing: bool = False) -> None:
        self.model, self.sites, self._training = model, list(watched), not testing
        self._calls: dict[str, list[Tensor]] = {}
        self._handles: list[torch.utils.hooks.RemovableHandle] = []
        names = {s.name.split("[")[0] for s in self.sites}
        if isinstance(model, SpikingNet):
            self._replaced, model.observe = model.observe, self._note
            self._names = names
            return
        for site in self.sites:
            if site.group:
                continue
            hook = self._output_hook(site.name) if isinstance(site.module, RECURRENT) else None
            self._handles.append(
                site.module.register_forward_hook(hook)
                if hook is not None
                else site.module.register_forward_pre_hook(self._input_hook(site.name.split("[")[0]))
            )

    def _note(self, name: str, x: Tensor) -> None:
        if name in self._names and self.model.training is self._training:
            self._calls.setdefault(name, []).append(x)

    def _input_hook(self, name: str) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        def hook(module: nn.Module, args: tuple[Tensor, ...]) -> None:
            if module.training is self._training:
                self._calls.setdefault(name, []).append(args[0].detach())

        return hook

    def _output_hook(self, name: str) -> Callable[[nn.Module, tuple[Tensor, ...], tuple[Tensor, ...]], None]:
        def hook(module: nn.Module, args: tuple[Tensor, ...], out: tuple[Tensor, ...]) -> None:
            if module.training is self._training:
                spikes = out[0].detach()
                self._calls.setdefault(name, []).append(torch.cat([torch.zeros_like(spikes[:1]), spikes[:-1]]))

        return hook

    def rows(self, site: Site, steps: int) -> Tensor | None:
        """Activity (T, R, n) of a site since `clear`; ``None`` where it was not used."""
        calls = self._calls.get(site.name.split("[")[0])
        return site.rows(calls, steps) if calls else None

    def clear(self) -> None:
        """Forget the mini-batch."""
        self._calls.clear()

    def remove(self) -> None:
        """Leave the model as it was."""
        self.clear()
        for handle in self._handles:
            handle.remove()
        if isinstance(self.model, SpikingNet):
            self.model.observe = self._replaced
