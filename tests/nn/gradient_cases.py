"""Random layers for the ops, and their results with the gradients of everything."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from sparsecirc._pattern import Pattern
from sparsecirc.ops import _autograd as ops

Made = dict[str, "Tensor | None"]
CELLS = ("rnn_tanh", "rnn_relu", "gru", "lstm")


def pattern(rows: int, cols: int, density: float) -> Pattern:
    mask = torch.rand(rows, cols) < density
    if rows > 2:
        mask[1] = False  # an empty row
    mask[0, 0] = True
    return Pattern.from_mask(mask.numpy())


def add_weight(made: Made, role: str, rows: int, cols: int, density: float) -> None:
    p = pattern(rows, cols, density)
    made[f"{role}_indptr"] = torch.from_numpy(p.indptr.copy())
    made[f"{role}_indices"] = torch.from_numpy(p.indices.copy())
    made[role] = torch.randn(p.nnz) / np.sqrt(max(1.0, density * cols))


def gated(
    cell: str, steps: int, units: int, batch: int, *, width: int | None = None, lengths: list[int] | None = None,
    density: float = 0.3, features: int | None = None,
) -> Made:  # fmt: skip
    """Tensors of a gated layer; ``width``: with a projection; ``lengths``: sequences packed, longest first."""
    rows = ops.GATES[cell] * units
    if features is None:
        features = {1: 1, 17: 5, 500: 70}.get(units, 50)
    made: Made = {"x": torch.randn(steps, batch, features), "offsets": None}
    if lengths is not None:
        sizes = torch.tensor([sum(n > t for n in lengths) for t in range(steps)])
        made["offsets"] = torch.cat([torch.zeros(1, dtype=torch.int64), sizes.cumsum(0)])
        made["x"] = torch.randn(int(sizes.sum()), features)
    made["state0"] = torch.randn(batch, units if width is None else width)
    if cell == "lstm":
        made["state1"] = torch.randn(batch, units)
    add_weight(made, "ih", rows, features, density)
    add_weight(made, "hh", rows, units if width is None else width, density)
    if width is not None:
        add_weight(made, "hr", width, units, density)
    return made | {"bias_ih": 0.3 * torch.randn(rows), "bias_hh": 0.3 * torch.randn(rows)}


def neurons(
    steps: int, units: int, batch: int, *, synaptic: bool = False, feedback: bool = True, drive: float = 1.0
) -> Made:
    """Tensors of spiking neurons; how often they spike grows with ``drive``."""
    made: Made = {
        "x": drive * torch.randn(steps, batch, units),
        "spk": torch.rand(batch, units).round() if feedback else None,
        "syn": torch.randn(batch, units) if synaptic else None,
        "mem": torch.randn(batch, units),
        "alpha": torch.rand(units) if synaptic else None,
        "beta": torch.rand(units),
        "theta": 0.5 + torch.rand(units),
    }
    if feedback:
        add_weight(made, "hh", units, units, 0.3)
        made["bias"] = 0.3 * torch.randn(units)
    return made


def weight(made: Made, role: str, cols: int) -> ops.Sparse | None:
    values, indptr = made.get(role), made.get(f"{role}_indptr")
    if values is None or indptr is None:
        return None
    return ops.Sparse(indptr, made[f"{role}_indices"], values, (len(indptr) - 1, cols))


def gated_outputs(job: ops.Recurrence, made: Made) -> dict[str, Tensor]:
    state = [made[n] for n in ("state0", "state1") if made.get(n) is not None]
    units = (len(made["hh_indptr"]) - 1) // ops.GATES[job.cell]
    out, last = ops.recurrent(
        job, made["x"], state, ih=weight(made, "ih", made["x"].shape[-1]), hh=weight(made, "hh", state[0].shape[1]),
        hr=weight(made, "hr", units), bias_ih=made["bias_ih"], bias_hh=made["bias_hh"], offsets=made["offsets"],
    )  # fmt: skip
    return {"out": out} | {f"last{k}": s for k, s in enumerate(last)}


def spiking_outputs(job: ops.Spiking, made: Made) -> dict[str, Tensor]:
    names = ("x", "spk", "syn", "mem")
    spk, syn, mem = ops.spiking(
        job, *(made[n] for n in names), alpha=made["alpha"], beta=made["beta"], theta=made["theta"],
        hh=weight(made, "hh", made["x"].shape[2]), bias=made.get("bias"),
    )  # fmt: skip
    return {"spk": spk, "syn": syn, "mem": mem}


def outputs(job: ops.Recurrence | ops.Spiking, made: Made) -> dict[str, Tensor]:
    return gated_outputs(job, made) if isinstance(job, ops.Recurrence) else spiking_outputs(job, made)


def run(job: ops.Recurrence | ops.Spiking, made: Made, dtype: torch.dtype) -> dict[str, Tensor]:
    """Outputs, and gradients of a random functional of them all."""
    leaves = {
        k: v.detach().to(dtype).requires_grad_() for k, v in made.items() if v is not None and v.is_floating_point()
    }
    outs = outputs(job, made | leaves)
    generator = torch.Generator().manual_seed(1)
    loss = sum(
        ((o * torch.randn(o.shape, generator=generator).to(dtype)).sum() for o in outs.values()), torch.zeros(())
    )
    loss.backward()
    results = {name: o.detach() for name, o in outs.items()}
    return results | {f"d {k}": v.grad for k, v in leaves.items() if v.grad is not None}


def assert_same(native: dict[str, Tensor], truth: dict[str, Tensor], tolerance: float = 3e-5) -> None:
    assert native.keys() == truth.keys()
    for name, right in truth.items():
        scale = 1 + float(right.abs().max()) if right.numel() else 1.0
        assert torch.isfinite(native[name]).all(), name
        error = float((native[name].double() - right).abs().max()) / scale if right.numel() else 0.0
        assert error < tolerance, f"{name}: {error}"
