"""Torch modules and checkpoints for the command line. torch is imported inside the functions that need it."""

from __future__ import annotations

import importlib
import inspect
import json
import pickle
import sys
import warnings
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from sparsecirc.errors import FileFormatError, UsageError, missing_extra

_WRAPPERS = ("state_dict", "model_state_dict", "model", "net", "weights")


def import_torch(why: str) -> Any:
    """The torch module.

    Raises:
        MissingExtraError: it is not installed.
    """
    try:
        import torch
    except ImportError as error:
        raise missing_extra("torch", "torch", why) from error
    return torch


def container_kind(path: Path) -> str | None:
    """What kind of file of ours ``path`` is; ``None`` for a safetensors file of someone else.

    Raises:
        FileFormatError: it is truncated or not safetensors at all.
    """
    try:
        with safe_open(str(path), framework="numpy") as file:
            meta = file.metadata() or {}
        header = json.loads(meta["sparsecirc"]) if "sparsecirc" in meta else {}
    except (SafetensorError, OSError, ValueError) as error:
        raise FileFormatError(
            f"{path} cannot be read as safetensors ({error}): it is truncated or of another kind"
        ) from error
    return header.get("kind") if isinstance(header, dict) else None


def build(arch: str) -> Any:
    """The torch module that ``pkg.mod:factory`` makes; a module instance is taken as it is.

    Raises:
        UsageError: no such module or attribute, not callable, needs arguments, or gives something else.
    """
    torch = import_torch(f"the model {arch}")
    module_name, colon, attribute = arch.partition(":")
    if not colon or not module_name or not attribute:
        raise UsageError(f"arch '{arch}' is not understood: expected pkg.mod:factory, e.g. mynet.models:build")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)  # as `python -m` does, so that a module beside the user's data is found
    try:
        found: Any = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is not None and (module_name == error.name or module_name.startswith(f"{error.name}.")):
            raise UsageError(
                f"arch '{arch}': there is no module '{error.name}' here or among the installed packages; run from its "
                "folder or set PYTHONPATH"
            ) from error
        raise UsageError(f"arch '{arch}': module '{module_name}' needs '{error.name}', which is missing") from error
    except (ImportError, SyntaxError) as error:
        raise UsageError(f"arch '{arch}': module '{module_name}' cannot be imported: {error}") from error
    for part in attribute.split("."):
        if not hasattr(found, part):
            near = get_close_matches(part, [n for n in dir(found) if not n.startswith("_")], n=1)
            hint = f": did you mean '{near[0]}'?" if near else ""
            raise UsageError(f"arch '{arch}': '{module_name}' has no '{part}'{hint}")
        found = getattr(found, part)
    if not isinstance(found, torch.nn.Module):
        found = _call(arch, found)
    if not isinstance(found, torch.nn.Module):
        raise UsageError(f"arch '{arch}' gives {type(found).__name__}: expected a torch.nn.Module")
    return found.eval()


def _call(arch: str, factory: Any) -> Any:
    if not callable(factory):
        raise UsageError(f"arch '{arch}' is {type(factory).__name__}, not callable: expected a function or a class")
    try:
        inspect.signature(factory).bind()
    except TypeError as error:
        raise UsageError(f"arch '{arch}' {error}: expected a factory without arguments") from error
    return factory()


def read_checkpoint(path: Path, allow_pickle: bool) -> Any:
    """The state dict of a checkpoint; with ``allow_pickle``, a whole module where the file holds one.

    Raises:
        FileFormatError: missing, truncated, no tensors in it, or it would have to run code.
    """
    torch = import_torch(f"the checkpoint {path}")
    if not path.is_file():
        raise FileFormatError(f"checkpoint {path} does not exist: expected .safetensors, .pt, .pth or .ckpt")
    if path.suffix.lower() == ".safetensors":
        try:
            with safe_open(str(path), framework="pt") as file:
                return {k: file.get_tensor(k) for k in file.keys()}  # noqa: SIM118 - not a dict
        except (SafetensorError, OSError, ValueError) as error:
            raise FileFormatError(f"{path} cannot be read as safetensors ({error}): it is truncated") from error
    found = load_tensors(path, allow_pickle)
    if isinstance(found, torch.nn.Module):
        return found.eval()
    return _state_dict(torch, found, path)


def load_tensors(path: Path, allow_pickle: bool = False) -> Any:
    """What ``torch.save`` wrote; nothing but tensors and plain containers unless ``allow_pickle``.

    Raises:
        FileFormatError: truncated, of another kind, or it would have to run code.
    """
    torch = import_torch(f"the checkpoint {path}")
    with path.open("rb") as file:
        if file.read(2) not in (b"PK", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05"):  # zip, or pickle 2 to 5
            raise FileFormatError(f"{path} is not a torch checkpoint: it is empty, truncated or of another kind")
    try:
        with warnings.catch_warnings():  # torch warns of old pickle protocols, whose refusal is our message below
            warnings.filterwarnings("ignore", message="Detected pickle protocol", category=UserWarning)
            return torch.load(path, map_location="cpu", weights_only=not allow_pickle)
    except pickle.UnpicklingError as error:
        if allow_pickle:
            raise FileFormatError(f"{path} is not a torch checkpoint: {_first_sentence(error)}") from error
        raise FileFormatError(
            f"{path} holds pickled objects, which can run code while they are read: save its state_dict as "
            ".safetensors, or add --allow-pickle if you trust it"
        ) from error
    except (RuntimeError, EOFError, OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise FileFormatError(
            f"{path} cannot be read as a torch checkpoint ({_first_sentence(error)}): it is truncated or of another "
            "kind"
        ) from error


def _first_sentence(error: BaseException) -> str:
    return str(error).split(". ")[0].splitlines()[0] if str(error) else type(error).__name__


def _state_dict(torch: Any, found: Any, path: Path) -> dict[str, Any]:
    for _ in range(3):  # training loops wrap the weights in one or two dicts
        if not isinstance(found, Mapping):
            break
        if found and all(isinstance(v, torch.Tensor) for v in found.values()):
            return {str(k): v for k, v in found.items()}
        inner = next((found[k] for k in _WRAPPERS if k in found), None)
        if inner is None:
            break
        found = inner
    raise FileFormatError(
        f"{path} holds {type(found).__name__} without weights: expected a state dict, or one under "
        f"{', '.join(repr(w) for w in _WRAPPERS[:2])}"
    )


def fill(model: Any, state: Mapping[str, Any], path: Path) -> Any:
    """``model`` with the weights of ``state``, which must fit exactly.

    Raises:
        UsageError: keys are missing or left over, or a shape differs; names the first.
    """
    own = model.state_dict()
    absent = [k for k in own if k not in state]
    extra = [k for k in state if k not in own]
    if absent or extra:
        parts = []
        if absent:
            parts.append(f"{len(absent)} weights of the network are missing, first '{absent[0]}'")
        if extra:
            parts.append(f"{len(extra)} are unknown to it, first '{extra[0]}'")
        raise UsageError(f"{path} does not fit the network of --arch: {'; '.join(parts)}")
    for key, tensor in own.items():
        if tuple(state[key].shape) != tuple(tensor.shape):
            raise UsageError(
                f"{path} does not fit the network of --arch: '{key}' has shape {tuple(state[key].shape)}, the network "
                f"expects {tuple(tensor.shape)}"
            )
    model.load_state_dict(dict(state))
    return model.eval()
