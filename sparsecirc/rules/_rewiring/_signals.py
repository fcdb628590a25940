"""`Signals`: what is known of the activity and the gradients on both sides of each weight."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from sparsecirc.errors import UnsupportedError, UsageError
from sparsecirc.masks import Masks
from sparsecirc.nn import SparseLinear
from sparsecirc.nn._neurons import SparseNeurons
from sparsecirc.nn._recurrent import Observed, SparseRNNBase
from sparsecirc.rules._rewiring._recurrent import Run, dense_runs
from sparsecirc.rules._rewiring._sides import Sides, normalised, thinned
from sparsecirc.rules._rewiring._sites import MaskedSite, Site, model_of, sites_of
from sparsecirc.rules._rewiring._windows import Window, same_step

FADED = 0.01
"""Batches whose weight in a moving average has fallen below are forgotten."""
Function = Callable[[Tensor], Tensor]


@dataclass
class Call:
    """One call of a layer: what went in, what came of it, and the gradient of its output."""

    pre: Tensor
    post: Tensor
    grad: Tensor | None = None

    def follow(self, tensor: Tensor) -> None:
        """Note the gradient of ``tensor`` when backward comes by."""
        if tensor.requires_grad:
            tensor.register_hook(self._note)  # type: ignore[no-untyped-call]

    def _note(self, grad: Tensor | None) -> None:
        self.grad = None if grad is None else grad.detach()


@dataclass
class Heard:
    """What one optimizer step let hear of a weight: its calls in order, and the runs of a sparse recurrent layer.

    Neurons of snntorch have finished ``steps`` of their steps.
    """

    calls: list[Call] = field(default_factory=list)
    runs: list[Run] = field(default_factory=list)
    steps: int = 0


class Signals:
    """Gathers activity with hooks while it listens, and answers in scores of connections, blocks of rows at a time.

    The score of a connection is the cosine similarity (Pearson's correlation where ``centered``) of the activity of its
    two ends over batch and time (CH of G2GNet, arXiv:2508.14140). Memory is that of the samples; no matrix of units x
    units is ever made. Postsynaptic activity is that of the module which takes the layer's output next, as long as it
    keeps the shape: `nn.ReLU`, normalisations, neurons. A function that is no module is told with ``post``.

    Args:
        target: the model with sparse layers, or the masks of a dense one.
        centered: Pearson instead of cosine.
        momentum: 0 for the latest batch alone; else batch k steps ago counts momentum^k, until that is below 1 %.
        samples: of a batch (samples x steps), evenly spread ones where it has more.
        window: which activity counts as together: `same_step`, or `Traces` and `Stdp` for spikes.
        post: by name of a weight, what turns the layer's output into activity, e.g. ``{"fc1.weight": torch.relu}``.

    Raises:
        NothingMatchedError: nothing can be rewired.
        UsageError: a number out of range, or ``post`` for an unknown weight.
    """

    def __init__(
        self,
        target: nn.Module | Masks,
        *,
        centered: bool = False,
        momentum: float = 0.0,
        samples: int = 4096,
        window: Window = same_step,
        post: Mapping[str, Function] | None = None,
    ) -> None:
        if not 0 <= momentum < 1 or samples < 1:
            raise UsageError(f"momentum {momentum}, samples {samples}: expected a number in [0, 1), and 1 or more")
        self.sites = sites_of(target)
        self.centered, self.momentum, self.samples, self.window = centered, momentum, samples, window
        self.post = dict(post or {})
        unknown = sorted(set(self.post) - set(self.sites))
        if unknown:
            raise UsageError(f"post for '{unknown[0]}': expected one of {', '.join(self.sites)}")
        self.listening = False
        self._gradients = False
        self._heard: dict[str, Heard] = {name: Heard() for name in self.sites}
        self._kept: dict[str, list[tuple[Tensor, Tensor]]] = {name: [] for name in self.sites}
        self._passed: dict[int, tuple[Tensor, Call]] = {}
        self._handles: list[RemovableHandle] = []
        self._model = model_of(target)
        self._fixed = False

    # ---- listening ----------------------------------------------------------------------------------------------
    def listen(self, on: bool, *, gradients: bool = False) -> None:
        """Whether the coming forward passes, in training mode, are heard; with ``gradients`` also their backward.

        Hooks are in the model only meanwhile, so that copies and files of it are ordinary.
        """
        self.listening, self._gradients = on, gradients
        if on and not self._handles:
            self._hook()
        elif not on and not self._fixed:
            self._unhook()

    def attach(self) -> None:
        """Leave the hooks in the model from now on: for `torch.compile`, which sees those that are there before it."""
        self._unhook()
        self._fixed = True
        self._hook()

    def _hook(self) -> None:
        by_owner: dict[int, list[Site]] = {}
        for site in self.sites.values():
            by_owner.setdefault(id(site.owner), []).append(site)
        for module in self._model.modules():
            own = by_owner.get(id(module), [])
            hook = self._hook_of(module, own)
            if hook is not None:
                self._register(module, hook)

    def _register(self, module: nn.Module, hook: Callable[..., None]) -> None:
        """A hook; compiled graphs are broken where it is, since what it keeps is no part of a graph."""
        if self._fixed:
            hook = torch.compiler.disable(hook)  # type: ignore[no-untyped-call]
        self._handles.append(module.register_forward_hook(hook))

    def _hook_of(self, module: nn.Module, own: list[Site]) -> Callable[..., None] | None:
        if not own:
            holds = {id(s.owner) for s in self.sites.values()} & {id(m) for m in module.modules()}
            weighs = any(p.ndim > 1 for p in module.parameters())  # another layer: what it makes is its own activity
            return None if holds or weighs else self._passes
        if isinstance(module, SparseRNNBase):
            module.observer = partial(self._observed, {(s.suffix, s.role): s.name for s in own})
            return self._opaque
        if isinstance(module, nn.RNNBase):
            return partial(self._dense_rnn, {(s.suffix, s.role): s.name for s in own})
        if isinstance(module, nn.RNNCellBase):
            return partial(self._cell, own)
        if isinstance(module, (nn.Linear, SparseLinear)):
            return partial(self._linear, own[0].name)
        if isinstance(module, SparseNeurons):
            return partial(self._neurons, own[0].name)
        inner = getattr(module, "recurrent", None)
        if isinstance(inner, nn.Linear):  # snntorch: the feedback is called inside of the neurons
            self._register(inner, partial(self._feedback, own[0].name))
            return partial(self._fired, own[0].name)
        return None

    def _opaque(self, module: nn.Module, args: Any, output: Any) -> None:
        """A layer of ours ends the way of what it reads; it is here so that there is a hook to be removed."""

    def _hears(self, module: nn.Module) -> bool:
        return self.listening and module.training

    def _linear(self, name: str, module: nn.Module, args: Any, output: Tensor) -> None:
        if not self._hears(module):
            return
        done = self.post.get(name)
        call = Call(args[0].detach(), (output if done is None else done(output)).detach())
        self._heard[name].calls.append(call)
        if self._gradients:
            call.follow(output)
        if done is None:
            self._passed[id(output)] = (output, call)

    def _passes(self, module: nn.Module, args: Any, output: Any) -> None:
        """A module without weights of ours: what it makes of a layer's output is the layer's activity."""
        if not self._hears(module) or not args or id(args[0]) not in self._passed:
            return
        _, call = self._passed[id(args[0])]
        out = output if isinstance(output, Tensor) else output[0]
        if isinstance(out, Tensor) and out.shape == call.post.shape:
            call.post = out.detach()
            self._passed[id(out)] = (out, call)

    def _neurons(self, name: str, module: nn.Module, args: Any, output: Any) -> None:
        self._passes(module, args, output)
        if not self._hears(module):
            return
        drive, spikes = args[0], output[0].detach()
        seq = spikes if spikes.ndim == 3 else spikes.unsqueeze(0)
        first = args[1].detach() if len(args) > 1 and args[1] is not None else seq.new_zeros(seq.shape[1:])
        call = Call(torch.cat([first.unsqueeze(0), seq])[: len(seq)], seq)
        self._heard[name].calls.append(call)
        if self._gradients:
            call.follow(drive)

    def _feedback(self, name: str, module: nn.Module, args: Any, output: Tensor) -> None:
        if self._hears(module):
            call = Call(args[0].detach(), output.detach())
            self._heard[name].calls.append(call)

    def _fired(self, name: str, module: nn.Module, args: Any, output: Any) -> None:
        self._passes(module, args, output)
        if not self._hears(module) or not self._heard[name].calls:
            return
        heard = self._heard[name]
        # a reset that drops the update calls the feedback twice in a step
        heard.calls[heard.steps :] = heard.calls[-1:]
        heard.steps = len(heard.calls)
        heard.calls[-1].post = (output if isinstance(output, Tensor) else output[0]).detach()

    def _cell(self, own: list[Site], module: nn.Module, args: Any, output: Any) -> None:
        if not self._hears(module):
            return
        h = (output if isinstance(output, Tensor) else output[0]).detach()
        given = args[1] if len(args) > 1 else None
        before = torch.zeros_like(h) if given is None else (given if isinstance(given, Tensor) else given[0]).detach()
        for site in own:
            self._heard[site.name].calls.append(Call(args[0].detach() if site.role == "ih" else before, h))

    def _dense_rnn(self, names: Mapping[tuple[str, str], str], module: nn.Module, args: Any, output: Any) -> None:
        if not self._hears(module):
            return
        assert isinstance(module, nn.RNNBase)
        for suffix, seq, before, out in dense_runs(module, args, output):
            for role, pre in (("ih", seq), ("hh", before)):
                if (suffix, role) in names:
                    self._heard[names[suffix, role]].calls.append(Call(pre, out))

    def _observed(self, names: Mapping[tuple[str, str], str], seen: Observed) -> None:
        if not self.listening or not torch.is_grad_enabled():
            return
        run = Run(seen)
        if self._gradients:
            run.follow()
        out = seen.out.detach()
        for role, pre in (("ih", seen.seq.detach()), ("hh", run.before())):
            name = names.get((seen.suffix, role))
            if name is not None:
                flat = seen.offsets is not None
                self._heard[name].calls.append(Call(pre.unsqueeze(0), out.unsqueeze(0)) if flat else Call(pre, out))
                self._heard[name].runs.append(run)

    # ---- what was heard -----------------------------------------------------------------------------------------
    def take(self, names: Iterable[str] | None = None) -> None:
        """Take over the activity of the step that ends now; call once after each step that was heard.

        Raises:
            UsageError: nothing was heard of a weight: it did not run in training mode.
        """
        for name in self.sites if names is None else names:
            kept = self._kept[name]
            kept.append(self._samples(name))
            while len(kept) > 1 and (not self.momentum or self.momentum ** (len(kept) - 1) < FADED):
                kept.pop(0)

    def forget_step(self) -> None:
        """Let go of the tensors of the step that ends now."""
        self._heard = {name: Heard() for name in self.sites}
        self._passed.clear()

    def _samples(self, name: str) -> tuple[Tensor, Tensor]:
        site = self.sites[name]
        if site.role == "hr" or bool(getattr(site.owner, "proj_size", False)):
            raise UnsupportedError(
                f"weight '{name}' belongs to a layer with a projection, whose inner activity is not seen: rewire it "
                "with drop.magnitude and grow.random"
            )
        calls = self._heard[name].calls
        if not calls:
            raise UsageError(
                f"nothing was heard of '{name}' before this step: expected a forward pass in training mode; with "
                "torch.compile call signals.attach() first"
            )
        parts = []
        for pre, post in _sequences(calls):
            left, right = self.window(pre.float(), post.float())
            if left.shape[1] * site.gates != site.pattern.shape[0] or right.shape[1] != site.pattern.shape[1]:
                raise UnsupportedError(f"weight '{name}' of a {type(site.owner).__name__} has no activity per unit")
            parts.append((left.cpu(), right.cpu()))
        return thinned(parts, self.samples)

    def sides(self, name: str) -> Sides:
        """Scores of the connections of one gate of a weight by activity; all gates have the same.

        Raises:
            UsageError: nothing was taken yet.
        """
        kept = self._kept[name]
        if not kept:
            raise UsageError(f"no activity of '{name}' was taken: call listen(True), train a step, then take()")
        last = len(kept) - 1
        return normalised(
            [((self.momentum or 1.0) ** (last - k), a, b) for k, (a, b) in enumerate(kept)], centered=self.centered
        )

    def gradient_sides(self, name: str) -> Sides:
        """Gradient of every connection of a weight, dead ones too, as a product: of all gates, over the last step.

        Raises:
            UsageError: no gradient came by.
        """
        site, heard = self.sites[name], self._heard[name]
        if isinstance(site, MaskedSite):
            raise UsageError(f"weight '{name}' is dense: its gradient is that of the parameter")
        parts = []
        if heard.runs:
            assert isinstance(site.owner, SparseRNNBase)
            for run in heard.runs:
                into = run.gradients(site.owner.layer(site.suffix))[0 if site.role == "ih" else 1]
                pre = run.seen.seq.detach() if site.role == "ih" else run.before()
                parts.append((into, pre.reshape(-1, pre.shape[-1])))
        else:
            parts = [
                (c.grad.reshape(-1, c.grad.shape[-1]), c.pre.reshape(-1, c.pre.shape[-1]))
                for c in heard.calls
                if c.grad is not None
            ]
        if not parts:
            raise UsageError(f"no gradient of '{name}' was heard: expected a backward pass before this step")
        return Sides(*(torch.cat([p[k] for p in parts]).float().cpu() for k in (0, 1)))

    # ---- the rest -----------------------------------------------------------------------------------------------
    def remove(self) -> None:
        """Stop listening and take all hooks out of the model."""
        self.listening = self._fixed = False
        self._unhook()

    def _unhook(self) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        for site in self.sites.values():
            if isinstance(site.owner, SparseRNNBase):
                site.owner.observer = None

    def state_dict(self) -> dict[str, Any]:
        """Samples of the moving average; loads with ``torch.load(weights_only=True)``."""
        return {name: [list(pair) for pair in kept] for name, kept in self._kept.items()} if self.momentum else {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a state of :meth:`state_dict`.

        Raises:
            UsageError: the state of another model.
        """
        if not set(state) <= set(self.sites):
            raise UsageError(f"activity of {sorted(set(state) - set(self.sites))}: expected {', '.join(self.sites)}")
        for name in self.sites:
            self._kept[name] = [(a.clone(), b.clone()) for a, b in state.get(name, [])]


def _sequences(calls: list[Call]) -> list[tuple[Tensor, Tensor]]:
    """(T, B, in) and (T, B, out) of each sequence: calls on single steps are the steps of one."""
    pairs = [(c.pre, c.post) if c.pre.ndim > 1 else (c.pre.unsqueeze(0), c.post.unsqueeze(0)) for c in calls]
    made = [(pre.flatten(1, -2), post.flatten(1, -2)) for pre, post in pairs if pre.ndim > 2]
    steps = [pair for pair in pairs if pair[0].ndim == 2]
    if steps and all(pre.shape == steps[0][0].shape for pre, _ in steps):
        return [*made, (torch.stack([pre for pre, _ in steps]), torch.stack([post for _, post in steps]))]
    return [*made, *((pre.unsqueeze(0), post.unsqueeze(0)) for pre, post in steps)]
