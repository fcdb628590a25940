"""`CostModel`: microseconds of products and layers before they are measured."""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from sparsecirc import __version__
from sparsecirc._cost._bandwidth import Bandwidth
from sparsecirc._cost._features import NAMES, Size, features
from sparsecirc._files import write_atomic
from sparsecirc._machine import cache_dir, processor
from sparsecirc._program import Program
from sparsecirc._target import Isa
from sparsecirc._tuning import kernels_version
from sparsecirc.errors import CacheWarning, UnsupportedError
from sparsecirc.ir import Recurrent

MODEL_FORMAT = 1


@dataclass(frozen=True)
class HeldOut:
    """Predictions of what the fit had not seen, beside measurements.

    Attributes:
        count: how many.
        median: median of |predicted / measured - 1|.
        worst: the largest.
    """

    count: int
    median: float
    worst: float


@dataclass(frozen=True)
class CostModel:
    """Times on one machine with one instruction set.

    A product takes ``sum(coefficient * quantity)`` over the quantities of ``NAMES`` in ``_features.py``; a step of a
    layer takes its recurrent product, its share of the input product, and ``a + b * units`` for the gates.

    Attributes:
        isa: instruction set.
        processor: what it was calibrated on.
        kernels: version of the kernels then.
        caches: bytes of its caches.
        bandwidth: what one core reads from each.
        products: coefficients by ``"format/one"`` (one vector at a time) and ``"format/many"`` (per vector of many).
        gates: (a, b) in microseconds by cell.
        call_us: of one call of a layer, whatever its length.
        products_held_out, layers_held_out: error on shapes that were not fitted.
        shipped: whether it came with the package instead of being calibrated here.
    """

    isa: Isa
    processor: str
    kernels: str
    caches: tuple[int, int, int]
    bandwidth: tuple[Bandwidth, ...]
    products: Mapping[str, tuple[float, ...]]
    gates: Mapping[str, tuple[float, float]]
    call_us: float
    products_held_out: HeldOut
    layers_held_out: HeldOut
    shipped: bool = field(default=False)

    def product(self, size: Size, *, many: bool, rate: float = 1.0) -> float | None:
        """Microseconds of one product; ``None`` for a format that was not calibrated.

        Args:
            size: of the packed matrix.
            many: whether the vectors of a whole sequence are there at once.
            rate: share of the inputs that are not zero.
        """
        found = self.products.get(key_of(size.format, many=many))
        return None if found is None else float(features(size, rate, self.caches) @ found)

    def gate_us(self, cell: str, units: int) -> float | None:
        """Microseconds of the pointwise part of one step; ``None`` for a cell that was not calibrated."""
        found = self.gates.get(cell)
        return None if found is None else found[0] + found[1] * units

    def program_us(self, program: Program, steps: int, rates: Mapping[str, float] | None = None) -> float | None:
        """Microseconds of one time step of a program at batch 1; ``None`` where a part of it was not calibrated.

        Matrices that are used once per sequence count with their share of a step. ``rates`` gives the share of active
        outputs by node, for what event formats read.
        """
        total = self.call_us / steps
        for node in program.graph.nodes:
            parts: list[float | None] = []
            if isinstance(node, Recurrent):
                parts.append(self.gate_us(node.cell.name, node.units))
            share = 1.0 if program.graph.specs[node.name].time else 1 / steps
            for role in node.matrix_roles:
                packed = program.packed.get(f"{node.name}.{role}")
                if packed is not None:
                    source = node.name if role == "hh" else node.inputs[0]
                    rate = (rates or {}).get(source, 1.0)
                    us = self.product(Size.of(packed), many=share == 1 and role in ("ih", "weight"), rate=rate)
                    parts.append(None if us is None else us * share)
            if None in parts:
                return None
            total += sum(p for p in parts if p is not None)
        return total

    @property
    def note(self) -> str:
        """Where the figures come from and how far to trust them, on one line."""
        error = f"median error {self.layers_held_out.median:.0%} on layers that were not fitted"
        if self.shipped:
            return (
                f"not calibrated here: figures of {self.processor} ({self.isa.value}), {error}; "
                "run 'sparsecirc doctor --calibrate' for yours"
            )
        old = "" if self.kernels == kernels_version() else "; the kernels have changed since: calibrate again"
        return f"calibrated on this machine ({self.isa.value}), {error}{old}"

    def to_json(self) -> dict[str, Any]:
        """JSON-able form."""
        return {"format": MODEL_FORMAT, "version": __version__, "quantities": list(NAMES), **asdict(self)}

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> CostModel:
        """Inverse of `to_json`.

        Raises:
            ValueError, KeyError, TypeError: it is not a model of this version.
        """
        if data["format"] != MODEL_FORMAT or list(data["quantities"]) != list(NAMES):
            raise ValueError(f"it has format {data['format']}, this version reads {MODEL_FORMAT}")
        first, second, third = data["caches"]
        products = {str(k): tuple(float(c) for c in v) for k, v in data["products"].items()}
        if any(len(c) != len(NAMES) for c in products.values()):
            raise ValueError("a format has another number of coefficients")
        return CostModel(
            Isa(data["isa"]),
            str(data["processor"]),
            str(data["kernels"]),
            (int(first), int(second), int(third)),
            tuple(Bandwidth(**b) for b in data["bandwidth"]),
            products,
            {str(k): (float(a), float(b)) for k, (a, b) in data["gates"].items()},
            float(data["call_us"]),
            HeldOut(**data["products_held_out"]),
            HeldOut(**data["layers_held_out"]),
            bool(data["shipped"]),
        )


def key_of(form: str, *, many: bool) -> str:
    """The name of a format's coefficients."""
    return f"{form}/{'many' if many else 'one'}"


def model_file(isa: Isa) -> Path:
    """Where the calibration of this machine is kept."""
    digest = hashlib.sha256(processor().identity.encode()).hexdigest()[:12]
    return cache_dir() / "cost" / f"{isa.value}-{digest}.json"


def save_model(model: CostModel) -> Path:
    """Keep a calibration, atomically; returns its file."""
    path = model_file(model.isa)
    write_atomic(path, json.dumps(model.to_json(), indent=1).encode())
    return path


def clear_models() -> int:
    """Delete the calibrations of this machine and every other that shares the folder; returns how many there were."""
    found = list((cache_dir() / "cost").glob("*.json"))
    for file in found:
        file.unlink(missing_ok=True)
    return len(found)


def load_model(isa: Isa) -> CostModel:
    """The calibration of this machine, else the one that came with the package.

    Warns:
        CacheWarning: the calibration is damaged or of another version.

    Raises:
        UnsupportedError: neither exists for this instruction set.
    """
    path = model_file(isa)
    if path.is_file():
        try:
            return CostModel.from_json(json.loads(path.read_text(encoding="utf-8")))
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            warnings.warn(
                f"the calibration in {path} cannot be used ({error}): run 'sparsecirc doctor --calibrate' again",
                CacheWarning,
                stacklevel=2,
            )
    shipped = Path(__file__).parent / f"default_{isa.value}.json"
    if not shipped.is_file():
        raise UnsupportedError(
            f"no times are known for instruction set '{isa.value}': run 'sparsecirc doctor --calibrate --isa "
            f"{isa.value}' on this machine"
        )
    return CostModel.from_json({**json.loads(shipped.read_text(encoding="utf-8")), "shipped": True})
