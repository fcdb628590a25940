"""Whether the kernels compute the right thing here, and whether this machine can be measured on."""

from sparsecirc._doctor._parity import Check, layer_checks, product_checks
from sparsecirc._doctor._timer import Timer, timer_noise

__all__ = ["Check", "Timer", "layer_checks", "product_checks", "timer_noise"]
