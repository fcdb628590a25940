"""Choices that the command line and the recipe spell out."""

from __future__ import annotations

from enum import Enum


class Method(str, Enum):
    """How connections are scored."""

    MAGNITUDE = "magnitude"
    RANDOM = "random"
    LATTICE = "lattice"
    SNIP = "snip"
    TAYLOR = "taylor"
    FISHER = "fisher"
    GRASP = "grasp"
    MOVEMENT = "movement"
    ACTIVITY = "activity"

    @property
    def looks_at_gradients(self) -> bool:
        """Whether it needs data to compute a loss on."""
        return self in (Method.SNIP, Method.TAYLOR, Method.FISHER, Method.GRASP)


class Adjacency(str, Enum):
    """How a connection enters the order of a lattice."""

    BINARY = "binary"
    CONTINUOUS = "continuous"


class Order(str, Enum):
    """What a lattice makes of cycles."""

    ACYCLIC = "acyclic"
    SCC = "scc"
    TIME = "time"


class Keep(str, Enum):
    """Which connections a lattice keeps."""

    EITHER = "either"
    BOTH = "both"
    COVER = "cover"


class Scope(str, Enum):
    """Among which connections the sparsity is counted."""

    PER_GATE = "per-gate"
    TENSOR = "tensor"
    LAYER = "layer"
    GLOBAL = "global"


class Schedule(str, Enum):
    """How the sparsity grows."""

    ONE_SHOT = "one-shot"
    CUBIC = "cubic"
    REWIND = "rewind"
    UNTIL_DROP = "until-drop"


class Budget(str, Enum):
    """How a sparsity is shared among the weights."""

    UNIFORM = "uniform"
    ERDOS_RENYI = "erdos-renyi"
    ERDOS_RENYI_KERNEL = "erdos-renyi-kernel"


class RecipeAction(str, Enum):
    """What ``recipes`` does."""

    LS = "ls"
    CAT = "cat"
    CP = "cp"
    VALIDATE = "validate"


class Clock(str, Enum):
    """What ``bench`` counts."""

    PROCESSOR = "processor"
    WALL = "wall"


class Format(str, Enum):
    """What ``export`` writes."""

    ONNX = "onnx"
    C = "c"
    NIR = "nir"
    BRIAN2 = "brian2"
    LAVA = "lava"
    NENGO_LOIHI = "nengo-loihi"
    XYLO = "xylo"
    PYNN = "pynn"


class CWeights(str, Enum):
    """Number types of weights in exported C."""

    F32 = "f32"
    INT16 = "int16"
    INT8 = "int8"


class CIndex(str, Enum):
    """Index encodings of exported C."""

    AUTO = "auto"
    RUNS = "runs"
    ABSOLUTE = "absolute"
    GAPS = "gaps"
    NONE = "none"


class CArithmetic(str, Enum):
    """How exported C sums products."""

    FLOAT = "float"
    INT8 = "int8"


class CActivations(str, Enum):
    """tanh and sigmoid of exported C."""

    EXACT = "exact"
    FAST = "fast"


class OnnxForm(str, Enum):
    """How an ONNX file holds the layers; see `sparsecirc.export.onnx.Form`."""

    AUTO = "auto"
    OP = "op"
    SCAN = "scan"
    PACKED = "packed"
    EVENTS = "events"
    CUSTOM = "custom"


class OnnxConsumer(str, Enum):
    """Who will read an ONNX file; see `sparsecirc.export.onnx.Consumer`."""

    ANY = "any"
    ONNXRUNTIME = "onnxruntime"
    LIBRARY = "onnxruntime+library"
    OPENVINO = "openvino"
    TRACT = "tract"


class CNeurons(str, Enum):
    """Membranes in exported C."""

    FLOAT = "float"
    FIXED = "fixed"


class IsaName(str, Enum):
    """Instruction sets that a program can be pinned to."""

    SCALAR = "scalar"
    NEON = "neon"
    AVX2 = "avx2"
    AVX512 = "avx512"


class Dtype(str, Enum):
    """Number types of packed weights."""

    F32 = "f32"
    BF16 = "bf16"
    INT8 = "int8"
    INT16 = "int16"


class Against(str, Enum):
    """What ``verify`` compares with."""

    INTERPRET = "interpret"
    TORCH = "torch"
    ONNX = "onnx"
    C = "c"
    NIR = "nir"
