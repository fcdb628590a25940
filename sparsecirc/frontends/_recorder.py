"""`Recorder`: runs a model on an example and writes down, in a `Draft`, what happens to the tensors made of the input.

Running beats symbolic tracing here: a loop over time has to know its length, states start as ``torch.zeros(x.size(0),
...)``, and neurons keep their state in attributes. Layers are recorded whole (their ``forward`` is wrapped on a private
copy of the model), everything else through ``__torch_function__``. The outputs of the run are the reference that the
graph is compared with.
"""

from __future__ import annotations

import inspect
import linecache
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache, partial
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.overrides import TorchFunctionMode

from sparsecirc.errors import UnsupportedError
from sparsecirc.frontends._draft import Draft
from sparsecirc.frontends._values import Buffer, Opaque, Refusal, Running, Stack, Tracked, Value

Handler = Callable[..., Any]
_CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict, nn.ParameterList, nn.ParameterDict)
_RUNNER = str(Path(__file__).with_name("_run.py"))
_INTERNAL = tuple(
    str(Path(f).parent) for f in (torch.__file__, __file__) if f is not None
)  # frames of torch and of this package are not lines of the model


class Recorder(TorchFunctionMode):
    """Records one run.

    Attributes:
        model: the private copy that runs.
        draft: where nodes go.
        dtype: number type of the weights in the graph.
    """

    def __init__(self, model: nn.Module, draft: Draft, functions: Mapping[str, Handler], dtype: Any) -> None:
        super().__init__()
        self.model = model
        self.draft = draft
        self.dtype = dtype
        self._functions = functions
        self._known: dict[int, tuple[torch.Tensor, Tracked]] = {}  # the tensor is kept so that its id stays its own
        self._inside = 0
        self._path = ""

    # ---- tensors ------------------------------------------------------------------------------------------------
    def track(self, tensor: torch.Tensor, what: Tracked) -> torch.Tensor:
        """Remember what a tensor holds; returns the tensor."""
        self._known[id(tensor)] = (tensor, what)
        return tensor

    def find(self, tensor: Any) -> Tracked | None:
        """What a tensor holds; ``None`` for one that does not depend on the input."""
        found = self._known.get(id(tensor))
        return found[1] if found is not None and found[0] is tensor else None

    def value(self, tensor: Any) -> Value:
        """The single graph value that a tensor holds.

        Raises:
            Refusal: it holds none or several.
        """
        what = self.find(tensor)
        if isinstance(what, Value):
            return what
        if isinstance(what, Running):  # a finished sum over time; finish() refuses an unfinished one
            self.draft.stacked(what.name, what.last + 1)
            total = self.draft.reduce(what.name, "sum")
            return Value(total.name, what.axes)
        if isinstance(what, Buffer):
            return self.sequence([what.filled[k] for k in sorted(what.filled)], what.axis, tensor.shape[what.axis])
        if isinstance(what, Stack):
            raise Refusal("uses the states of several layers at once", "pick one, e.g. h_n[-1], or concatenate them")
        if isinstance(what, Opaque):
            raise Refusal(f"uses {what.what}", "compute it outside the model")
        raise Refusal("mixes the input with a constant tensor here", "make the constant a layer's bias or weight")

    def sequence(self, steps: list[Value], axis: int, size: int) -> Value:
        """One sequence out of its steps 0, 1, 2, ..., put together along ``axis``."""
        first = steps[0]
        if [v.step for v in steps] != list(range(size)) or len({(v.name, v.axes) for v in steps}) != 1:
            raise Refusal(
                "collects steps that are not the steps 0, 1, 2, ... of one value", "collect one value per step"
            )
        self.draft.stacked(first.name, size)
        return Value(first.name, (*first.axes[:axis], "T", *first.axes[axis:]))

    def array(self, tensor: torch.Tensor) -> NDArray[Any]:
        """A weight as numpy: at the model's own precision where it is a parameter, else as it was computed."""
        array = np.ascontiguousarray(tensor.detach().numpy())
        narrow = array.astype(self.dtype)
        return narrow if np.array_equal(narrow, array, equal_nan=True) else array.copy()

    def is_zero(self, tensor: torch.Tensor) -> bool:
        """Whether a constant tensor is all zeros."""
        return not bool(torch.count_nonzero(tensor))

    def parameter_name(self, tensor: torch.Tensor) -> str | None:
        """Key of the parameter that a tensor is, or is a view of."""
        base = tensor if tensor._base is None else tensor._base
        return next((k for k, p in self.model.named_parameters() if p is tensor or p is base), None)

    # ---- interception -------------------------------------------------------------------------------------------
    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if self._inside or not any(self.find(t) is not None for t in tensors((args, kwargs))):
            return func(*args, **kwargs)
        name = func.__name__.strip("_")
        if name == "get":
            name = f"get {func.__self__.__name__}"
        elif func.__name__ in ("__int__", "__float__", "__bool__", "__complex__"):
            name = "item"
        try:
            handler = self._functions.get(name)
            if handler is None:
                out = func(*args, **kwargs)
                if next(tensors(out), None) is None:
                    return out
                raise Refusal(f"'{name}' is not among the operations that can be converted", _REWRITE)
            try:
                _signature(handler).bind(self, func, *args, **kwargs)
            except TypeError:
                raise Refusal(f"'{name}' is called with options that cannot be converted", _REWRITE) from None
            return handler(self, func, *args, **kwargs)
        except Refusal as refusal:
            raise self.error(refusal) from None

    def layer(
        self, handler: Handler, path: str, module: nn.Module, forward: Callable[..., Any], *args: Any, **kwargs: Any
    ) -> Any:
        """Stands for ``forward`` of a layer that is recorded as a whole."""
        if self._inside or not any(self.find(t) is not None for t in tensors((args, kwargs))):
            return forward(*args, **kwargs)
        self._inside += 1
        self._path = path
        try:
            return handler(self, path, module, forward, *args, **kwargs)
        except Refusal as refusal:
            raise self.error(refusal, f"layer '{path or type(module).__name__}' ({type(module).__name__})") from None
        finally:
            self._inside -= 1

    def error(self, refusal: Refusal, who: str = "") -> UnsupportedError:
        """The user's error: layer, line of the model, what, cure."""
        place = ", ".join(p for p in (who, source_line()) if p)
        return UnsupportedError(f"{place + ': ' if place else ''}{refusal.what}; {refusal.cure}")

    @contextmanager
    def recording(self, handlers: Mapping[type[nn.Module], Handler], fallback: Handler) -> Iterator[None]:
        """Record what runs in the block; layers are those of ``handlers``, anything else of torch is ``fallback``."""
        wrapped: list[nn.Module] = []
        try:
            for path, module in self.model.named_modules():
                handler = layer_handler(module, handlers, fallback)
                if handler is not None and "forward" not in vars(module):
                    module.forward = partial(self.layer, handler, path, module, module.forward)
                    wrapped.append(module)
            with torch.no_grad(), self:
                yield
        finally:
            for module in wrapped:
                del vars(module)["forward"]
            self._known.clear()


_REWRITE = (
    "write it with layers and functions that can be (see the documentation of from_torch), or do it outside the model"
)


@cache
def _signature(handler: Handler) -> inspect.Signature:
    return inspect.signature(handler)


def layer_handler(module: nn.Module, handlers: Mapping[type[nn.Module], Handler], fallback: Handler) -> Handler | None:
    """How to record a module: by its class, whole but unknown, or (``None``) through what its forward does."""
    for cls, handler in handlers.items():
        if isinstance(module, cls) and type(module).forward is cls.forward:
            return handler
    origin = type(module).__module__
    library = origin.startswith("torch.nn.modules") or origin.startswith("snntorch.")
    return fallback if library and not isinstance(module, _CONTAINERS) else None


def tensors(obj: Any) -> Iterator[torch.Tensor]:
    """Every tensor in nested tuples, lists and dicts."""
    if isinstance(obj, torch.Tensor):
        yield obj
    elif isinstance(obj, Mapping):
        yield from tensors(tuple(obj.values()))
    elif isinstance(obj, (tuple, list)):
        for item in obj:
            yield from tensors(item)


def source_line() -> str:
    """``file:line `text``` of the innermost running line that belongs to the user."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        name = frame.f_code.co_filename
        if name == _RUNNER:  # what lies outside called us, it is not the model
            return ""
        library = name.startswith(_INTERNAL) or "snntorch" in Path(name).parts or Path(name).name == "contextlib.py"
        if not library and not name.startswith("<frozen"):
            text = linecache.getline(name, frame.f_lineno).strip()
            return f"{name}:{frame.f_lineno}" + (f" `{text}`" if text else "")
        frame = frame.f_back
    return ""
