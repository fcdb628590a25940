"""The recipe of ``continual``: data, tasks, network, methods; everything that decides what comes out."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, field_validator

from sparsecirc.cli._recipe_file import STREAMS, RecipeFile, build_recipe, read_recipe_file, recipe_path
from sparsecirc.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping

DEFAULT = "permuted-digits"


class Source(str, Enum):
    """Data sets."""

    DIGITS = "digits"
    MNIST = "mnist"
    FASHION_MNIST = "fashion_mnist"
    JAPANESE_VOWELS = "japanese_vowels"
    NMNIST = "nmnist"
    SPOKEN_DIGITS = "spoken_digits"

    @property
    def is_sequence(self) -> bool:
        """Whether a sample is a sequence whose steps the network takes one by one."""
        return self in (Source.JAPANESE_VOWELS, Source.NMNIST, Source.SPOKEN_DIGITS)


class Tasks(str, Enum):
    """How a data set becomes a stream of tasks."""

    PERMUTED = "permuted"
    ROTATED = "rotated"
    SPLIT = "split"
    SPEAKERS = "speakers"


class Told(str, Enum):
    """What the network is told, and has to tell."""

    TASK = "task"
    DOMAIN = "domain"
    CLASS = "class"


class Neurons(str, Enum):
    """Hidden neurons."""

    LIF = "lif"
    RECURRENT = "recurrent"


class CodingName(str, Enum):
    """From a sample to the steps of the network."""

    DIRECT = "direct"
    RATE = "rate"
    LATENCY = "latency"


class LearningName(str, Enum):
    """How gradients are made."""

    BPTT = "bptt"
    OTTT = "ottt"
    DSR = "dsr"


class FeedbackName(str, Enum):
    """What carries errors back."""

    EXACT = "exact"
    ALIGNMENT = "alignment"
    SIGN_SYMMETRIC = "sign-symmetric"


class OptimizerName(str, Enum):
    """Optimizers."""

    SGD = "sgd"
    ADAM = "adam"


Count = Annotated[int, Field(ge=1)]


class Stream(BaseModel):
    """A stream of tasks, the network that learns it, and the methods that are compared."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    data: Source
    scenario: Tasks
    increment: Told = Told.DOMAIN
    tasks: int = Field(5, ge=1)
    train: Count | None = None
    test: Count | None = None
    hidden: tuple[Count, ...] = Field((200, 200), min_length=1)
    neurons: Neurons = Neurons.LIF
    steps: int | None = Field(None, ge=1)
    coding: CodingName = CodingName.DIRECT
    learning: LearningName = LearningName.BPTT
    feedback: FeedbackName = FeedbackName.EXACT
    density: float = Field(1.0, gt=0.0, le=1.0)
    methods: tuple[str, ...] = Field(("hlop", "finetune"), min_length=1)
    settings: dict[str, dict[str, Any]] = Field(default_factory=dict)
    optimizer: OptimizerName = OptimizerName.SGD
    learning_rate: float = Field(0.1, gt=0.0)
    epochs: int = Field(1, ge=1)
    batch_size: int = Field(64, ge=1)
    seeds: tuple[Annotated[int, Field(ge=0)], ...] = Field((0,), min_length=1)

    @field_validator("methods", "seeds")
    @classmethod
    def _once(cls, given: tuple[Any, ...]) -> tuple[Any, ...]:
        if len(set(given)) < len(given):
            raise ValueError("expected each one once")
        return given

    def to_yaml(self) -> str:
        """All fields, resolved."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False)


def make_stream(name: str, given: Mapping[str, Any]) -> Stream:
    """The recipe of a file, or of the package, with options on top.

    Raises:
        FileFormatError: there is no such recipe, or it is not YAML.
        UsageError: an unknown field or method, a value out of range, or fields that do not go together.
    """
    file = read_recipe_file(recipe_path(Path(name), STREAMS))
    options = {k: v for k, v in given.items() if v is not None}
    made = build_recipe(Stream, file, options)
    _check(made, file)
    return made


def _check(stream: Stream, file: RecipeFile) -> None:
    """Refuse fields that do not go together, and methods that do not exist.

    Raises:
        UsageError: names where the first of them stands.
    """
    from sparsecirc.cli._continual_methods import check_methods

    if stream.scenario is not Tasks.SPLIT and stream.increment is not Told.DOMAIN:
        raise UsageError(
            f"{file.where('increment')}increment '{stream.increment.value}' needs --scenario split: the tasks of a "
            f"{stream.scenario.value} stream share their labels, which is domain"
        )
    if (stream.scenario is Tasks.SPEAKERS) and stream.data is not Source.SPOKEN_DIGITS:
        raise UsageError(
            f"{file.where('scenario')}scenario 'speakers' needs data spoken_digits: got {stream.data.value}"
        )
    if stream.data is Source.JAPANESE_VOWELS and stream.steps is not None:
        raise UsageError(
            f"{file.where('steps')}steps {stream.steps}: the recordings of japanese_vowels bring their own"
        )
    if stream.data.is_sequence and stream.scenario is Tasks.ROTATED:
        raise UsageError(f"{file.where('scenario')}scenario 'rotated' turns images: {stream.data.value} has none")
    if stream.data.is_sequence and stream.coding is not CodingName.DIRECT:
        raise UsageError(
            f"{file.where('coding')}coding '{stream.coding.value}' is for single vectors: samples of "
            f"{stream.data.value} are sequences already"
        )
    check_methods(stream, file)
