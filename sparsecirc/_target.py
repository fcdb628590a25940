"""What to compile for: device, instruction set, number type, threads, memory limit."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from sparsecirc.errors import UsageError


class Isa(str, Enum):
    """Instruction sets of the native kernels: avx2 and avx512 on x86-64, neon on 64-bit Arm, scalar everywhere."""

    SCALAR = "scalar"
    NEON = "neon"
    AVX2 = "avx2"
    AVX512 = "avx512"


@dataclass(frozen=True)
class Target:
    """Where a :class:`~sparsecirc.Program` will run.

    Attributes:
        device: ``"cpu"`` or ``"cuda"``.
        isa: instruction set to use, or ``None`` for the best one this machine has.
        dtype: number type of the packed weights: ``"f32"``, ``"bf16"``, ``"int8"`` or ``"int16"``.
        threads: most threads a program may use; never exceeded. They share the samples of a batch, the vectors of a
            feed-forward product, or the rows of the recurrent products of a single sample, where each gets enough work.
            A run of one sample times its first steps both ways and leaves the other threads where they do not pay.
            Results do not depend on the number of threads.
        memory_limit: most bytes of packed weights, or ``None``.

    Raises:
        UsageError: a field is outside its range.
    """

    device: str = "cpu"
    isa: Isa | None = None
    dtype: str = "f32"
    threads: int = 1
    memory_limit: int | None = None

    def __post_init__(self) -> None:
        if self.device not in ("cpu", "cuda"):
            raise UsageError(f"target device {self.device!r} is unknown: expected 'cpu' or 'cuda'")
        if self.dtype not in ("f32", "bf16", "int8", "int16"):
            raise UsageError(f"target dtype {self.dtype!r} is unknown: expected 'f32', 'bf16', 'int8' or 'int16'")
        if self.threads < 1:
            raise UsageError(f"target threads is {self.threads}: expected at least 1")
        if self.memory_limit is not None and self.memory_limit <= 0:
            raise UsageError(f"target memory_limit is {self.memory_limit}: expected a positive number of bytes")

    @staticmethod
    def cpu(isa: Isa | str | None = None, *, dtype: str = "f32", threads: int = 1) -> Target:
        """A CPU target; ``isa`` forces an instruction set by name."""
        if isa is not None and not isinstance(isa, Isa):
            try:
                isa = Isa(isa)
            except ValueError:
                names = ", ".join(i.value for i in Isa)
                raise UsageError(f"instruction set {isa!r} is unknown: expected one of {names}") from None
        return Target("cpu", isa, dtype, threads)

    @staticmethod
    def cuda(*, dtype: str = "f32") -> Target:
        """A GPU on which trainable layers run (`sparsecirc.nn.to_target`), on the optional Triton kernels.

        Programs have no kernels there in this version.
        """
        return Target("cuda", None, dtype, 1)
