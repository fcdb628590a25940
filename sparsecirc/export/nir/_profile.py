"""Which neurons NIR can hold exactly, and in which form."""

from __future__ import annotations

from enum import Enum

import numpy as np

from sparsecirc.cells import ALIF, LI, SYNAPTIC, Reset
from sparsecirc.errors import UnsupportedError
from sparsecirc.ir import Recurrent


class Profile(str, Enum):
    """How neurons are written.

    ============  ================================================================================================
    ``AUTO``      the dialect if it is exact, else ``SUBTRACT`` if that is exact
    ``DIALECT``   LIF and CubaLIF as norse, snntorch and spikingjelly run them alike; float32, reset to zero
    ``SUBTRACT``  float64; every other reset, membranes without a reset, leaky integrators, and thresholds that adapt,
                  built of LI, LIF, Threshold, Scale and Linear. Exact for snntorch's default neurons, but few readers
                  take it
    ============  ================================================================================================
    """

    AUTO = "auto"
    DIALECT = "dialect"
    SUBTRACT = "subtract"


def decays(layer: Recurrent) -> tuple[str, ...]:
    """Names of the decay parameters of a layer of neurons."""
    return tuple(name for name in ("alpha", "beta", "rho") if name in layer.cell.vectors)


def check_layer(layer: Recurrent) -> None:
    """Refuse what NIR cannot hold in any form.

    Raises:
        UnsupportedError: names the layer and the cure.
    """
    if not layer.cell.vectors:
        raise UnsupportedError(
            f"layer '{layer.name}' is a {layer.cell.name}, for which NIR has no primitive: export it to ONNX or C"
        )
    if layer.reverse:
        raise UnsupportedError(
            f"layer '{layer.name}' runs backwards in time, which NIR cannot say: export to ONNX or C"
        )
    if np.any(layer.params.get("threshold", np.zeros(1)) < 0):
        raise UnsupportedError(
            f"layer '{layer.name}' has a negative threshold, whose reset NIR cannot hold exactly: use thresholds >= 0"
        )
    for name in decays(layer):
        value = np.asarray(layer.params[name])
        if np.any(value < 0) or np.any(value > 1):
            raise UnsupportedError(
                f"layer '{layer.name}' has {name} from {value.min():g} to {value.max():g}: NIR's leak needs 0 to 1"
            )
        if np.any(value == 1) and not np.all(value == 1):
            raise UnsupportedError(
                f"layer '{layer.name}' has {name} = 1 in some units only: a NIR node either leaks or integrates, so "
                "split the layer or use a value below 1"
            )


def integrates(layer: Recurrent, name: str) -> bool:
    """Whether the decay ``name`` is 1 in every unit (an integrator instead of a leak)."""
    return bool(np.all(layer.params[name] == 1))


def zero_reset(layer: Recurrent) -> bool:
    """Whether the layer's spikes are those of a neuron that is set to zero when it fires, as in NIR.

    ``ZERO``: delayed or not, the spikes are the same. ``ZERO_UPDATE``: only without delay, because the delayed form
    loses the input of the step after a spike.
    """
    reset, delay = layer.options.reset, layer.options.delay
    return reset is Reset.ZERO or (reset is Reset.ZERO_UPDATE and not delay)


def dialect_obstacle(layer: Recurrent, ports: frozenset[str]) -> str | None:
    """Why LIF or CubaLIF would not give the same values, or ``None``. ``ports`` are the values that are read."""
    if layer.cell is LI:
        return "it never fires: that is NIR's LI, which no reader of the dialect knows"
    if layer.cell is ALIF:
        return "its threshold adapts, that of NIR's LIF is fixed"
    read = sorted(ports - {"spk"})
    if read:
        return f"its '{read[0]}' is read, but LIF and CubaLIF put out spikes only; read its spikes"
    if not zero_reset(layer):
        return _reset_words(layer)
    if layer.cell is SYNAPTIC and (integrates(layer, "alpha") or integrates(layer, "beta")):
        return "a decay of 1 fits neither time constant of CubaLIF"
    return None


def subtract_obstacle(layer: Recurrent, ports: frozenset[str]) -> str | None:
    """Why the ``SUBTRACT`` profile would not give the same values, or ``None``."""
    if layer.cell is LI:
        return None
    if layer.cell is ALIF:
        return _adaptive_obstacle(layer, ports)
    if layer.options.reset in (Reset.SUBTRACT, Reset.NONE):
        return None
    read = sorted(ports - {"spk", "syn"})
    if read:
        return f"its '{read[0]}' is read, but a NIR neuron that resets to zero puts out spikes only; read its spikes"
    return None


def _adaptive_obstacle(layer: Recurrent, ports: frozenset[str]) -> str | None:
    if layer.options.reset not in (Reset.SUBTRACT, Reset.NONE):
        return (
            "its threshold adapts and it resets to zero, which only NIR's LIF does, with a fixed threshold; train with "
            "a reset by subtraction"
        )
    if layer.options.reset is Reset.SUBTRACT and layer.options.adapted:
        return (
            "a spike takes off the threshold that was crossed, a product of two states, which no NIR primitive forms; "
            "train with adapted=False, which takes off the resting one"
        )
    if "adapt" in ports:
        return "its 'adapt' is read one step before the NIR node that holds it has it; read its spikes or membranes"
    return None


def _reset_words(layer: Recurrent) -> str:
    reset = layer.options.reset
    if reset is Reset.NONE:
        return "it does not reset, NIR's LIF resets to zero"
    if reset is Reset.SUBTRACT:
        return "it resets by subtraction, NIR's LIF resets to zero"
    return (
        "its delayed reset to zero drops the input of the step after a spike, which no single NIR primitive does; "
        "train with reset_delay=False for a file that other readers run"
    )
