"""`Masks`: patterns kept beside a torch model and applied in place after each optimizer step.

The model stays ordinary: same keys, same storage, no hooks in it and no parametrizations, so deepcopy, pickle,
``load_state_dict``, cuDNN's flat buffer and exporters work as before.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import partial
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.optim import Optimizer

from sparsecirc._files import pack_bits, unpack_bits
from sparsecirc._pattern import Pattern
from sparsecirc._prune import (
    Criteria,
    PruneReport,
    Scope,
    Select,
    Sparsity,
    WeightInfo,
    format_rows,
    plan_weights,
    rows_of,
    unknown_name,
)
from sparsecirc._torch_layers import WeightRef, skipped, weight_refs
from sparsecirc.errors import MismatchError, NothingMatchedError, UsageError
from sparsecirc.masks._attach import Attachment
from sparsecirc.masks._bake import bake
from sparsecirc.masks._weights import matrix_shape, model_weights
from sparsecirc.patterns import PatternMaker, combined_digest, load_patterns, save_patterns, unstructured
from sparsecirc.scores import Score, magnitude


class Masks:
    """The patterns of some weights of ``model``.

    Making one, or loading one, leaves the model untouched; :meth:`apply`, :meth:`attach`, :meth:`update` and
    :meth:`prune` set dead connections to exact zero.

    Args:
        model: any module built of the layers we know; wrap-arounds such as DistributedDataParallel are passed
            unwrapped (``ddp.module``).
        patterns: by weight name, ``"rnn.l0.hh"`` or, for one gate, ``"rnn.l0.hh.f"`` (the others stay dense).

    Raises:
        UsageError: an unknown name, or a pattern of another shape than its weight.
    """

    def __init__(self, model: nn.Module, patterns: Mapping[str, Pattern]) -> None:
        self.model = model
        self._refs = {ref.name: ref for ref in weight_refs(model)}
        self._patterns: dict[str, Pattern] = {}
        self._dead: dict[tuple[str, torch.device], torch.Tensor] = {}
        self._attachments: list[Attachment] = []
        self._optimizers: list[tuple[Optimizer, Attachment]] = []
        self._set(patterns)

    @classmethod
    def prune(
        cls,
        model: nn.Module,
        sparsity: Sparsity,
        *,
        score: Score = magnitude,
        pattern: PatternMaker = unstructured,
        scope: Scope = Scope.PER_GATE,
        select: Select | None = None,
    ) -> Masks:
        """Rank the weights of ``model``, mask what loses, and set it to zero; arguments and errors as `prune`."""
        masks = cls(model, {})
        masks.update(masks.plan(sparsity, Criteria(score, pattern, scope, select)).patterns)
        return masks

    @classmethod
    def load(cls, path: str | os.PathLike[str], model: nn.Module) -> Masks:
        """Masks from a file written by :meth:`save`; the model is not touched.

        Raises:
            FileFormatError: not a readable masks file.
            UsageError: the file names weights that ``model`` has not, or of other shapes.
        """
        return cls(model, load_patterns(path))

    @classmethod
    def from_zeros(cls, model: nn.Module, select: Select | None = None) -> Masks:
        """Masks of the exact zeros in the weights, e.g. of a checkpoint pruned elsewhere.

        Args:
            model: the network.
            select: which weights to look at; by default all but embeddings, whose padding row is zero anyway.

        Raises:
            NothingMatchedError: no selected weight holds a zero.
        """
        base = cls(model, {})
        looked = [i for i in base.weights() if (select(i) if select else i.kind != "embedding")]
        patterns = {i.name: Pattern.from_mask(i.value != 0, "zeros") for i in looked if not np.all(i.value)}
        if not patterns:
            raise NothingMatchedError(
                f"no selected weight holds an exact zero: the model has {', '.join(base._refs) or 'no weights'}"
            )
        base._set(patterns)
        return base

    @classmethod
    def from_torch_prune(cls, model: nn.Module) -> Masks:
        """Take over the masks of torch.nn.utils.prune, or of parametrizations that hold a buffer ``mask``.

        The masks are baked in: each weight becomes an ordinary parameter again, under its old key, with exact zeros.
        Parameter objects are kept, so an existing optimizer goes on. Masks on biases are baked too, but not kept.

        Raises:
            NothingMatchedError: the model carries no such mask.
        """
        found = bake(model)
        by_key = {ref.key: ref.name for ref in weight_refs(model)}
        patterns = {by_key[k]: Pattern.from_mask(m, "torch prune") for k, m in found.items() if k in by_key}
        if not patterns:
            raise NothingMatchedError(
                "no weight of the model has a mask of torch.nn.utils.prune or a parametrization with a buffer 'mask': "
                "for plain zeros use Masks.from_zeros"
            )
        masks = cls(model, patterns)
        masks.apply()
        return masks

    @property
    def patterns(self) -> Mapping[str, Pattern]:
        """Pattern by weight name, read-only."""
        return MappingProxyType(self._patterns)

    def __getitem__(self, name: str) -> Pattern:
        """Pattern of a weight, or of one gate of it.

        Raises:
            UsageError: no such weight is masked.
        """
        if name in self._patterns:
            return self._patterns[name]
        weight, _, gate = name.rpartition(".")
        if weight in self._patterns and gate in self._refs[weight].gates:
            return self._patterns[weight].row_block(*self._gate_rows(weight, gate))
        raise unknown_name("mask", name, list(self._patterns))

    def ref(self, name: str) -> WeightRef:
        """Where the weight called ``name`` is in the model.

        Raises:
            UsageError: the model has no weight of this name.
        """
        if name not in self._refs:
            raise unknown_name("mask", name, list(self._refs))
        return self._refs[name]

    @property
    def density(self) -> float:
        """Live connections over all connections of the masked weights; 1 without any."""
        size = sum(p.shape[0] * p.shape[1] for p in self._patterns.values())
        return sum(p.nnz for p in self._patterns.values()) / size if size else 1.0

    @property
    def digest(self) -> str:
        """16 hex digits over the names and patterns; compare it across ranks and reruns."""
        return combined_digest(self._patterns)

    def table(self, *, per_gate: bool = True) -> str:
        """Plain-text table of the masked weights, with a line per gate where asked."""
        rows = []
        for name, pattern in self._patterns.items():
            rows += rows_of(name, self._refs[name].gates, Pattern.full(*pattern.shape), pattern)
        return format_rows(rows, per_gate)

    def weights(self) -> list[WeightInfo]:
        """Every weight of the model as the planner sees it, with its present values and pattern."""
        return model_weights(self.model, list(self._refs.values()), self._patterns)

    def plan(self, sparsity: Sparsity, how: Criteria | None = None) -> PruneReport:
        """New patterns by ranking the present weights, without changing anything; give them to :meth:`update`.

        Raises:
            UsageError, NothingMatchedError: as `prune`.
        """
        others = skipped(self.model)
        if not self._refs and not others:
            others = [(key, "vector") for key, _ in self.model.named_parameters()]
        return plan_weights(self.weights(), sparsity, how or Criteria(), others)

    @torch.no_grad()
    def apply(self, model: nn.Module | None = None) -> None:
        """Set dead connections to exact +0.0 in place, NaN included; storage is never replaced.

        Args:
            model: another model of the same architecture, e.g. an averaged copy; by default our own.
        """
        for name in self._patterns:
            self._clean(self._parameter(name, model), name)

    def attach(self, optimizer: Optimizer) -> Attachment:
        """Apply now and after every step of ``optimizer``, and keep its state (momentum, moments) of dead weights zero.

        Steps that a GradScaler skips change no weight, so nothing has to follow them. Several optimizers may be
        attached, each looks after the weights it owns. With LBFGS, and with gradient clipping, which both mix all
        gradients, use :meth:`mask_gradients` too.

        Raises:
            UsageError: already attached, or the optimizer owns none of the masked weights.
        """
        if self.attached(optimizer):
            raise UsageError("these masks are attached to this optimizer already: remove() the first attachment")
        owned = _owned(optimizer)
        if not any(id(self._parameter(name)) in owned for name in self._patterns or self._refs):
            raise UsageError(
                f"the optimizer owns none of the masked weights ({', '.join(self._patterns) or 'none'}): "
                "make it from the parameters of the same model"
            )
        self.apply()
        self._clean_optimizer(optimizer)

        def after_step(stepped: Optimizer, _args: Any, _kwargs: Any) -> None:
            self._clean_optimizer(stepped)

        attachment = Attachment([optimizer.register_step_post_hook(after_step)])
        self._optimizers = [(o, a) for o, a in self._optimizers if a.active] + [(optimizer, attachment)]
        return attachment

    def attached(self, optimizer: Optimizer) -> bool:
        """Whether these masks follow ``optimizer``."""
        return any(o is optimizer and a.active for o, a in self._optimizers)

    def mask_gradients(self) -> Attachment:
        """Zero the gradients of dead connections as they are made, so that clipping and line searches ignore them."""
        free = [(name, p) for name in self._refs if (p := self._parameter(name)).requires_grad]
        attachment = Attachment(
            p.register_hook(partial(self._masked_gradient, name))  # type: ignore[no-untyped-call]
            for name, p in free
        )
        self._attachments = [a for a in self._attachments if a.active] + [attachment]
        return attachment

    def _masked_gradient(self, name: str, grad: torch.Tensor) -> torch.Tensor:
        return grad.masked_fill(self._dead_mask(name, grad), 0.0) if name in self._patterns else grad

    def detach(self) -> None:
        """Remove every hook set by :meth:`attach` and :meth:`mask_gradients`."""
        for attachment in [*self._attachments, *(a for _, a in self._optimizers)]:
            attachment.remove()
        self._attachments.clear()
        self._optimizers.clear()

    def update(self, patterns: Mapping[str, Pattern]) -> None:
        """Replace some patterns, or add some; apply them and clean the attached optimizers.

        Raises:
            UsageError: an unknown name, or a wrong shape; then nothing has changed.
        """
        self._set(patterns)
        self.apply()
        for optimizer, attachment in self._optimizers:
            if attachment.active:
                self._clean_optimizer(optimizer)

    def check(self, model: nn.Module | None = None) -> None:
        """Verify that every dead connection is zero.

        Raises:
            MismatchError: names each weight with live entries (NaN counts) outside its pattern.
        """
        wrong = []
        for name, pattern in self._patterns.items():
            parameter = self._parameter(name, model).detach()
            outside = parameter[self._dead_mask(name, parameter)]
            count = int(torch.count_nonzero(outside))
            if count:
                worst = float(outside.abs().max())
                wrong.append(f"'{name}' has {count} of {outside.numel()} (largest {worst:.3g}; {pattern.origin})")
        if wrong:
            raise MismatchError(
                f"live entries outside the mask: {'; '.join(wrong)}; expected exact zeros. "
                "Call masks.apply(), and masks.attach(optimizer) before training on"
            )

    def save(self, path: str | os.PathLike[str]) -> None:
        """Check the model, then write the patterns to one file, atomically; readable without torch.

        Raises:
            MismatchError: the model has live entries outside the masks.
        """
        self.check()
        save_patterns(path, self._patterns)

    def state_dict(self) -> dict[str, Any]:
        """Patterns as plain tensors and numbers, for ``torch.save`` and ``torch.load(weights_only=True)``."""
        return {
            name: {"shape": list(p.shape), "origin": p.origin, "bits": torch.from_numpy(pack_bits(p))}
            for name, p in self._patterns.items()
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Replace all patterns by those of :meth:`state_dict` and apply them.

        Raises:
            UsageError: not such a state, or it does not fit the model.
        """
        try:
            patterns = {
                name: unpack_bits(item["bits"].cpu().numpy(), (item["shape"][0], item["shape"][1]), item["origin"])
                for name, item in state.items()
            }
        except (KeyError, TypeError, IndexError, AttributeError) as error:
            raise UsageError(f"not a state of masks ({error!r}): expected what Masks.state_dict() returned") from error
        whole = self._whole(patterns)
        for name in [n for n in self._patterns if n not in whole]:
            self._forget(name)
        self.update(whole)

    def _set(self, patterns: Mapping[str, Pattern]) -> None:
        for name, pattern in self._whole(patterns).items():
            self._forget(name)
            self._patterns[name] = pattern
        self._patterns = {name: self._patterns[name] for name in self._refs if name in self._patterns}

    def _forget(self, name: str) -> None:
        self._patterns.pop(name, None)
        for key in [k for k in self._dead if k[0] == name]:
            del self._dead[key]

    def _whole(self, patterns: Mapping[str, Pattern]) -> dict[str, Pattern]:
        """Patterns by weight, with those of single gates put in their place; shapes checked."""
        out: dict[str, Pattern] = {}
        for name, pattern in patterns.items():
            weight, _, gate = name.rpartition(".")
            if name in self._refs:
                self._fits(name, pattern, self._shape(name))
                out[name] = pattern
            elif weight in self._refs and gate in self._refs[weight].gates:
                start, stop = self._gate_rows(weight, gate)
                rows, cols = self._shape(weight)
                self._fits(name, pattern, (stop - start, cols))
                old = out.get(weight) or self._patterns.get(weight) or Pattern.full(rows, cols)
                out[weight] = Pattern.stack([old.row_block(0, start), pattern, old.row_block(stop, rows)])
            else:
                raise unknown_name("mask", name, list(self._refs))
        return out

    def _fits(self, name: str, pattern: Pattern, shape: tuple[int, int]) -> None:
        if pattern.shape != shape:
            raise UsageError(f"weight '{name}' has shape {shape}, the pattern {pattern.shape}: expected the same")

    def _shape(self, name: str) -> tuple[int, int]:
        return matrix_shape(self._parameter(name).shape)

    def _gate_rows(self, weight: str, gate: str) -> tuple[int, int]:
        gates = self._refs[weight].gates
        height = self._shape(weight)[0] // len(gates)
        k = gates.index(gate)
        return k * height, (k + 1) * height

    def _parameter(self, name: str, model: nn.Module | None = None) -> torch.Tensor:
        # Looked up each time: load_state_dict(assign=True) and some .to() calls exchange the Parameter object.
        return self._refs[name].parameter(model or self.model)

    def _dead_mask(self, name: str, like: torch.Tensor) -> torch.Tensor:
        key = (name, like.device)
        if key not in self._dead:
            dead = torch.from_numpy(~self._patterns[name].mask())
            self._dead[key] = dead.reshape(self._parameter(name).shape).to(like.device)
        return self._dead[key]

    def _clean(self, tensor: torch.Tensor, name: str) -> None:
        tensor.masked_fill_(self._dead_mask(name, tensor), 0.0)

    @torch.no_grad()
    def _clean_optimizer(self, optimizer: Optimizer) -> None:
        """Zero weights and optimizer state at the dead connections of the weights that ``optimizer`` owns."""
        owned = _owned(optimizer)
        for name in self._patterns:
            parameter = self._parameter(name)
            if id(parameter) not in owned:
                continue
            self._clean(parameter, name)
            for value in optimizer.state.get(parameter, {}).values():
                if isinstance(value, torch.Tensor) and value.shape == parameter.shape:
                    self._clean(value, name)


def prune_model(
    model: nn.Module,
    sparsity: Sparsity,
    *,
    score: Score = magnitude,
    pattern: PatternMaker = unstructured,
    scope: Scope = Scope.PER_GATE,
    select: Select | None = None,
) -> Masks:
    """`Masks.prune` as a function."""
    return Masks.prune(model, sparsity, score=score, pattern=pattern, scope=scope, select=select)


def _owned(optimizer: Optimizer) -> set[int]:
    return {id(p) for group in optimizer.param_groups for p in group["params"]}
