"""Built-in networks that come trained: trained here when they are first asked for, and kept."""

from __future__ import annotations

from collections.abc import Callable

import torch
from safetensors import SafetensorError
from safetensors.torch import load as decode
from safetensors.torch import save as encode

from sparsecirc._files import write_atomic
from sparsecirc._machine import cache_dir
from sparsecirc.data import mnist
from sparsecirc.demo._models import Built, build
from sparsecirc.demo._train import Trainer

TRAINED = ("mnist-lstm",)
"""Names after ``demo:`` that stand for trained networks."""
EPOCHS = 4
VERSION = 1
"""Raise it when the network or its training changes: files of other versions are not read."""


def load_trained(name: str, say: Callable[[str], None], *, epochs: int = EPOCHS) -> Built:
    """The network called ``name`` (one of `TRAINED`) with its trained weights, and a test image.

    ``mnist-lstm`` is trained for four epochs on MNIST rows (about a minute, 98 % of the test part); the weights are
    kept in the cache folder.

    Raises:
        KeyError: there is none of that name.
        UsageError: MNIST is neither in $SPARSECIRC_DATA nor cached, and cannot be downloaded.
    """
    if name not in TRAINED:
        raise KeyError(name)
    data = mnist()
    model = build(name).model
    file = cache_dir() / "demo" / f"{name}-{VERSION}-{epochs}.safetensors"
    try:
        model.load_state_dict(decode(file.read_bytes()))
    except (OSError, SafetensorError, RuntimeError):  # absent, damaged, or of another network: made again
        say(f"training demo:{name} once, {epochs} epochs of MNIST; kept in {file.parent}")

        def progress(phase: str, epoch: int, total: int, loss: float) -> None:
            say(f"epoch {epoch}/{total}, loss {loss:.3f}")

        with torch.random.fork_rng(devices=[]):
            Trainer(model, data, False, 0, progress).train(epochs)
        write_atomic(file, encode({k: v.contiguous() for k, v in model.state_dict().items()}))
    return Built(model.eval(), data.x_test[:1])
