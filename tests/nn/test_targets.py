"""Where layers are trained: refusals without a GPU, and whole layers on the GPU kernels."""

from __future__ import annotations

import importlib
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from layer_catalogue import gradients
from torch import nn

from sparsecirc import Target
from sparsecirc.errors import UnsupportedError
from sparsecirc.nn import SparseGRU, SparseLIF, SparseLinear, SparseRLIF, SparseRSynaptic, to_target

ON_GPU: dict[str, Callable[[], nn.Module]] = {
    "linear": lambda: SparseLinear(3, 2, density=0.5),
    "gru": lambda: SparseGRU(3, 2, num_layers=2, bidirectional=True, density=0.5),
    "lif": lambda: SparseLIF(0.9, learn_beta=True),
    "recurrent_lif": lambda: SparseRLIF(0.9, 3, learn_threshold=True, density=0.5, reset_delay=False),
}
MODULES = [importlib.import_module(f"sparsecirc.nn.{name}") for name in ("_linear", "_recurrent", "_neurons")]


def test_the_cpu_takes_everything():
    model = nn.Sequential(SparseRSynaptic(0.5, 0.9, 4))
    assert to_target(model, Target.cpu()) is model


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_no_gpu_is_said_clearly():
    with pytest.raises(UnsupportedError, match=r"Target\.cuda\(\) needs a GPU, and torch .* finds none here"):
        to_target(SparseGRU(4, 8), Target.cuda())


def test_what_is_missing_on_a_gpu_is_said_before_anything_moves(monkeypatch: pytest.MonkeyPatch):
    target = importlib.import_module("sparsecirc.nn._target")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(target, "find_spec", lambda name: None)
    with pytest.raises(UnsupportedError, match="needs the package triton"):
        to_target(SparseGRU(4, 8), Target.cuda())
    monkeypatch.setattr(target, "find_spec", lambda name: name)
    with pytest.raises(UnsupportedError, match="layer '1' is a SparseRSynaptic, which has no GPU kernels"):
        to_target(nn.Sequential(SparseLinear(4, 4), SparseRSynaptic(0.5, 0.9, 4)), Target.cuda())


@pytest.mark.parametrize("name", ON_GPU)
def test_layers_on_the_gpu_kernels(monkeypatch: pytest.MonkeyPatch, name: str):
    pytest.importorskip("triton", reason="the package triton is not installed: pip install -c constraints.txt '.[gpu]'")
    from sparsecirc.ops import triton

    layer, x = ON_GPU[name](), torch.randn(3, 2, 3)
    wanted = gradients(layer, layer, x)
    for module in MODULES:  # by the interpreter, on the CPU
        monkeypatch.setattr(module, "ops_for", lambda values: triton)
    for mine, theirs in zip(gradients(layer, layer, x), wanted, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-5)


COMPILE = """
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
import triton
from sparsecirc.ops.triton import _kernels

KINDS = dict.fromkeys(("pointers", "columns", "rows"), "*i32") | {"scale": "fp32"}
KINDS |= dict.fromkeys(("batch", "units", "steps", "drive_stride", "a_step", "h_step"), "i32")
LANES = {"LANES": _kernels.LANES}
BLOCK = {"HEIGHT": 16, "WIDTH": 16, **LANES}
CASES = [("product", {"HAS_BIAS": True, **LANES}), ("sampled", LANES), ("block_product", {"HAS_BIAS": True, **BLOCK}),
         ("block_sampled", BLOCK), ("gru_forward", {"HAS_BIAS": True, **LANES}), ("gru_backward", LANES)]
for k in range(3):
    spiking = {"FEEDBACK": k % 2 == 0, "RESET": k, "DELAY": k > 1, **LANES}
    CASES += [("lif_forward", spiking), ("lif_backward", {**spiking, "SURROGATE": k})]
for name, constants in CASES:
    kernel = getattr(_kernels, name)
    signature = {a: "constexpr" if a in constants else KINDS.get(a, "*fp32") for a in kernel.arg_names}
    made = triton.compile(ASTSource(kernel, signature, constexprs=constants), target=GPUTarget("cuda", 80, 32))
    assert "fma" in made.asm["ptx"] or name == "sampled", name
"""


@pytest.mark.skipif(sys.platform != "linux", reason="Triton compiles on Linux")
def test_the_kernels_compile_for_a_gpu(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """The interpreter takes more than the compiler does, which needs no GPU."""
    pytest.importorskip("triton", reason="the package triton is not installed: pip install -c constraints.txt '.[gpu]'")
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    ran = subprocess.run([sys.executable, "-c", COMPILE], capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
