"""From a model argument to a model: files, directories of ours, ``pkg.mod:factory``, and the built-in demos."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sparsecirc.cli._command import ModelSpec
from sparsecirc.cli._console import Out
from sparsecirc.cli._outputs import read_manifest
from sparsecirc.errors import FileFormatError, MissingExtraError, UsageError
from sparsecirc.ir import Graph, load_graph

if TYPE_CHECKING:
    from sparsecirc._program import Program

CHECKPOINTS = (".pt", ".pth", ".ckpt", ".bin", ".pkl", ".pickle")
_FACTORY = re.compile(r"(?P<arch>[A-Za-z_][\w.]*:[A-Za-z_][\w.]*)(?:@(?P<checkpoint>.+))?")

GRAPH_FILE = "graph.safetensors"
MODEL_FILE = "model.safetensors"
MASKS_FILE = "masks.safetensors"
PROGRAM_FILE = "program.safetensors"


@dataclass(frozen=True)
class Loaded:
    """A model in every form that its source gives.

    Attributes:
        spec: what the user typed.
        name: a short name for outputs.
        directory: the output directory of ours that it came from.
        model: the torch module, dead connections at zero, or ``None``.
        stored: the graph of a file, or ``None`` where it is made from ``model``.
        program: a compiled program, or ``None``.
        example: an input that the source brings with it.
        origin: how to build ``model`` again: ``{"model": ..., "arch": ..., "dt": ...}``.
        notes: what the user should know about the loading.
    """

    spec: ModelSpec
    name: str
    directory: Path | None = None
    model: Any = None
    stored: Graph | None = None
    program: Program | None = None
    example: NDArray[Any] | None = None
    origin: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @cached_property
    def graph(self) -> Graph:
        """The graph, with a pattern for each pruned weight.

        Raises:
            UnsupportedError: the model cannot be converted.
            UsageError: it holds NaN.
        """
        if self.program is not None and self.stored is None:
            return self.program.graph
        if self.stored is None:
            return convert(self, self.model)
        graph = self.stored if self.spec.dt is None else replace(self.stored, dt=self.spec.dt)
        asked = self.spec.spiking_input
        return graph if asked is None else graph.with_spiking_input(spiking=asked)

    def input(self, *, batch: int, steps: int, seed: int = 0) -> dict[str, NDArray[Any]]:
        """An input of ``batch`` samples and ``steps`` time steps: the source's own samples where they fit.

        Raises:
            UsageError: ``batch`` or ``steps`` is below 1.
        """
        from sparsecirc._bench import example_input

        if batch < 1:
            raise UsageError(f"batch is {batch}: expected at least 1")
        if steps < 1:
            raise UsageError(f"seq-len is {steps}: expected at least 1 time step")
        made = example_input(self.graph, batch=batch, steps=steps, seed=seed)
        if self.example is None or len(self.graph.inputs) != 1:
            return made
        node = self.graph.inputs[0]
        example = np.asarray(self.example)
        time_axis = (1 if self.graph.batch_first else 0) if node.time else None
        batch_axis = 0 if time_axis != 0 else 1
        if example.shape[batch_axis] < batch or (time_axis is not None and example.shape[time_axis] < steps):
            repeats = [1] * example.ndim
            repeats[batch_axis] = -(-batch // example.shape[batch_axis])
            if time_axis is not None:
                repeats[time_axis] = -(-steps // example.shape[time_axis])
            example = np.tile(example, repeats)
        example = np.take(example, range(batch), axis=batch_axis)
        if time_axis is not None:
            example = np.take(example, range(steps), axis=time_axis)
        return {node.name: np.ascontiguousarray(example)}

    @property
    def input_note(self) -> str:
        """Where :meth:`input` comes from, in words."""
        return "its own example input" if self.example is not None else "random input"


def load(spec: ModelSpec, out: Out) -> Loaded:
    """Find and read a model.

    Raises:
        FileFormatError: a file is missing, truncated or of another kind (exit code 2).
        UsageError: the argument or ``--arch`` makes no sense, or the checkpoint does not fit (exit code 2).
        UnsupportedError: a format that cannot be read, or a model that cannot be converted (exit code 3).
        MissingExtraError: the format needs a package that is not installed (exit code 7).
    """
    text = spec.text
    if spec.dt is not None and spec.dt <= 0:
        raise UsageError(f"dt is {spec.dt}: expected seconds per time step above 0, e.g. 0.001")
    if text.startswith("demo:"):
        return _demo(spec, text.removeprefix("demo:"), out)
    path = Path(text)
    if path.is_dir():
        return _directory(spec, path)
    match = _FACTORY.fullmatch(text)
    if match and not path.exists():
        return _factory(spec, match["arch"], match["checkpoint"], out)
    suffix = path.suffix.lower()
    if not path.is_file():
        raise FileFormatError(f"model {text} does not exist: {_what_else(text)}")
    if suffix == ".safetensors":
        return _safetensors(spec, path)
    if suffix in CHECKPOINTS:
        from sparsecirc.cli._torch_models import build, fill, read_checkpoint

        found = read_checkpoint(path, spec.allow_pickle)
        if not isinstance(found, Mapping):
            model, note = found, "the file held a whole module"
        else:
            model, note = fill(build(_need_arch(spec, path)), found, path), ""
        return _from_torch(spec, path.stem, model, {"arch": spec.arch}, (note,) if note else ())
    if suffix == ".nir":
        from sparsecirc.frontends import from_nir

        return Loaded(spec, path.stem, stored=from_nir(path), origin={"model": text})
    if suffix == ".onnx":
        from sparsecirc.frontends import from_onnx

        read = from_onnx(path, dt=spec.dt)
        return Loaded(spec, path.stem, stored=read, origin={"model": text}, notes=tuple(read.meta.get("notes", ())))
    raise FileFormatError(
        f"model {text} has the unknown format '{suffix or 'no extension'}': expected .safetensors, .pt, .pth, .ckpt, "
        ".nir, .onnx, or an output directory of ours"
    )


def _what_else(text: str) -> str:
    near = get_close_matches(text, _demo_names(), n=1, cutoff=0.5)
    hint = f"did you mean demo:{near[0]}?" if near else "or start with a built-in one, demo:gru"
    return f"expected a file, an output directory, pkg.mod:factory or demo:NAME; {hint}"


def _demo_names() -> tuple[str, ...]:
    """Names of the built-in networks; none where torch, which they are made of, is not installed."""
    try:
        from sparsecirc.demo import NAMES
    except MissingExtraError:
        return ()
    return tuple(NAMES)


def _demo(spec: ModelSpec, name: str, out: Out) -> Loaded:
    from sparsecirc import demo

    if name not in demo.NAMES:
        near = get_close_matches(name, demo.NAMES, n=1, cutoff=0.4)
        hint = f"did you mean demo:{near[0]}? " if near else ""
        raise UsageError(f"demo model '{name}' is unknown: {hint}There are {', '.join(demo.NAMES)}")
    built = demo.load_trained(name, out.say) if name in demo.TRAINED else demo.build(name)
    loaded = _from_torch(spec, name, built.model, {}, ())
    return replace(loaded, example=built.example)


def _factory(spec: ModelSpec, arch: str, checkpoint: str | None, out: Out) -> Loaded:
    from sparsecirc.cli._torch_models import build, fill, read_checkpoint

    model = build(arch)
    notes: tuple[str, ...] = ()
    if checkpoint is not None:
        found = read_checkpoint(Path(checkpoint), spec.allow_pickle)
        if not isinstance(found, Mapping):
            raise UsageError(f"checkpoint {checkpoint} holds a whole module: pass the file itself as the model")
        model = fill(model, found, Path(checkpoint))
    else:
        notes = (f"{arch} was built without a checkpoint: its weights are what the factory set, trained or not",)
    name = Path(checkpoint).stem if checkpoint else arch.rpartition(":")[2].rpartition(".")[2]
    return _from_torch(spec, name, model, {}, notes)


def _need_arch(spec: ModelSpec, path: Path) -> str:
    if spec.arch is None:
        raise UsageError(
            f"{path} holds weights by name and not the network: add --arch pkg.mod:factory, a function without "
            "arguments that builds the torch module"
        )
    return spec.arch


def _safetensors(spec: ModelSpec, path: Path) -> Loaded:
    from sparsecirc.cli._torch_models import container_kind

    kind = container_kind(path)
    if kind == "graph":
        return Loaded(spec, path.stem, stored=load_graph(path), origin={"model": spec.text})
    if kind == "program":
        from sparsecirc._program import Program

        return Loaded(spec, path.stem, program=Program.load(path), origin={"model": spec.text})
    if kind == "masks":
        raise UsageError(
            f"{path} holds masks without weights: pass the directory that prune wrote, or its {GRAPH_FILE}"
        )
    if kind is not None:
        raise FileFormatError(f"{path} is a sparsecirc {kind} file: expected a graph, a program or a checkpoint")
    from sparsecirc.cli._torch_models import build, fill, read_checkpoint

    arch = _need_arch(spec, path)
    found = read_checkpoint(path, spec.allow_pickle)
    return _from_torch(spec, path.stem, fill(build(arch), found, path), {"arch": arch}, ())


def _from_torch(spec: ModelSpec, name: str, model: Any, extra: Mapping[str, Any], notes: tuple[str, ...]) -> Loaded:
    origin = {"model": spec.text, "dt": spec.dt, "input_shape": spec.input_shape, **extra}
    return Loaded(spec, name, model=model, origin=origin, notes=notes)


def _directory(spec: ModelSpec, path: Path) -> Loaded:
    manifest = read_manifest(path)
    files = manifest["files"]
    if GRAPH_FILE not in files and PROGRAM_FILE not in files:
        raise FileFormatError(f"{path} holds a {manifest['kind']} and no model: expected what prune or compile wrote")
    stored = load_graph(path / GRAPH_FILE) if GRAPH_FILE in files else None
    program = None
    if PROGRAM_FILE in files:
        from sparsecirc._program import Program

        program = Program.load(path / PROGRAM_FILE)
    name = path.resolve().name
    return Loaded(spec, name, path, None, stored, program, _example(path, files), manifest.get("origin", {}))


def _example(path: Path, files: Mapping[str, int]) -> NDArray[Any] | None:
    if "example.npy" not in files:
        return None
    found: NDArray[Any] = np.load(path / "example.npy", allow_pickle=False)
    return found


def convert(loaded: Loaded, model: Any) -> Graph:
    """The graph of a torch module of this source; zeros in its weights become patterns.

    Raises:
        UnsupportedError: it cannot be converted.
    """
    from sparsecirc.frontends import to_graph

    spec = loaded.spec
    return to_graph(model, example=_shown_input(loaded), dt=spec.dt, spiking_input=spec.spiking_input)


def _shown_input(loaded: Loaded) -> Any:
    """An input for the frontend to run the model on: the source's own, else of ``--input-shape``, else none."""
    if loaded.example is not None:
        return loaded.example
    text = loaded.spec.input_shape or loaded.origin.get("input_shape")
    if text is None:
        return None
    try:
        shape = tuple(int(n) for n in text.split(","))
    except ValueError:
        shape = ()
    if len(shape) < 2 or min(shape) < 1:
        raise UsageError(
            f"input-shape '{text}' is not understood: expected sizes above 0 with the batch, e.g. 4,1,28,28"
        )
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


def has_torch_model(loaded: Loaded) -> bool:
    """Whether :func:`torch_model` has something to start from."""
    return loaded.model is not None or (loaded.directory is not None and (loaded.directory / MODEL_FILE).is_file())


def torch_model(loaded: Loaded, out: Out) -> Any:
    """The torch module with the pruned weights, from memory or built again from the manifest's origin.

    Raises:
        UsageError: there is no torch model to go back to.
    """
    if loaded.model is not None:
        return loaded.model
    weights = None if loaded.directory is None else loaded.directory / MODEL_FILE
    if weights is None or not weights.is_file():
        raise UsageError(
            f"{loaded.spec.text} has no torch model beside it: start from the directory that prune wrote, or leave "
            "torch out"
        )
    from sparsecirc.cli._torch_models import build, fill, read_checkpoint

    origin = loaded.origin
    text, arch = str(origin.get("model", "")), origin.get("arch")
    match = _FACTORY.fullmatch(text)
    if text.startswith("demo:"):
        from sparsecirc import demo

        model = demo.build(text.removeprefix("demo:")).model
    elif arch or match:
        model = build(str(arch or (match["arch"] if match else "")))
    else:
        raise UsageError(f"{loaded.directory} does not say how to build its torch model: leave torch out")
    for numbers in origin.get("kept_units", []):
        model = smaller_model(loaded, model, numbers)
    return fill(model, read_checkpoint(weights, False), weights)


def smaller_model(loaded: Loaded, model: Any, kept: Mapping[str, Any]) -> Any:
    """A copy of a torch module of this source that has only the units of these numbers left, by layer.

    Raises:
        UnsupportedError: a layer cannot be made smaller.
    """
    from sparsecirc import shrink_model

    dt = loaded.spec.dt if loaded.spec.dt is not None else loaded.origin.get("dt")
    return shrink_model(model, kept, example=_shown_input(loaded), dt=dt)
