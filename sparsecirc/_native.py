"""The native module, with a hint where it is missing, and what it can do here."""

from __future__ import annotations

from sparsecirc._target import Isa, Target
from sparsecirc.errors import UnsupportedError

try:
    from sparsecirc import _kernels as kernels
except ImportError as error:  # pragma: no cover - exercised by the test that hides the module
    error.add_note(
        "the native kernels of sparsecirc are not built: install the package with 'pip install .' (a C and C++ "
        "compiler is needed), or run 'make install' in a checkout"
    ) if hasattr(error, "add_note") else None
    raise

__all__ = ["available_isas", "kernels", "resolve_isa"]


def available_isas() -> tuple[Isa, ...]:
    """Instruction sets that this build and this processor have, least capable first."""
    return tuple(Isa(name) for name in kernels.isas())


def resolve_isa(target: Target) -> Isa:
    """The instruction set that ``target`` means here.

    Raises:
        UnsupportedError: the target asks for something this machine or build does not have.
    """
    if target.device != "cpu":
        raise UnsupportedError(
            f"target device '{target.device}' has no kernels in this version that run programs: use Target.cpu(), or "
            "sparsecirc.nn.to_target for layers that are trained"
        )
    here = available_isas()
    if target.isa is None:
        return here[-1]
    if target.isa not in here:
        raise UnsupportedError(
            f"instruction set '{target.isa.value}' is not available here: this machine and build have "
            f"{', '.join(i.value for i in here)}"
        )
    return target.isa
