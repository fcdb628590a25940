"""What products and layers cost on this machine before they are measured."""

from sparsecirc._cost._bandwidth import Bandwidth, read_bandwidth
from sparsecirc._cost._calibrate import calibrate, steps_of
from sparsecirc._cost._model import CostModel, HeldOut, clear_models, load_model, model_file, save_model
from sparsecirc._cost._what_if import Guess, LayerGuess, WhatIf, what_if

__all__ = [
    "Bandwidth",
    "CostModel",
    "Guess",
    "HeldOut",
    "LayerGuess",
    "WhatIf",
    "calibrate",
    "clear_models",
    "load_model",
    "model_file",
    "read_bandwidth",
    "save_model",
    "steps_of",
    "what_if",
]
