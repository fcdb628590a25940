"""Small networks that between them use every node, for the tests of the C writer."""

from __future__ import annotations

import numpy as np

from sparsecirc._pattern import Pattern
from sparsecirc.cells import GRU, LIF
from sparsecirc.ir import (
    Add,
    Affine,
    Concat,
    Conv,
    Elementwise,
    Embedding,
    Flatten,
    Graph,
    Input,
    Linear,
    Multiply,
    Node,
    Pool,
    Recurrent,
    Repeat,
    TimeReduce,
)

RNG = np.random.default_rng(11)
_START = RNG.bit_generator.state


def normal(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape).astype(np.float32)


def gru(name: str, source: str, inputs: int, units: int) -> Recurrent:
    params = {"ih": normal(3 * units, inputs), "hh": 0.3 * normal(3 * units, units), "bias_hh": normal(3 * units)}
    pattern = Pattern.from_mask(RNG.random((3 * units, units)) < 0.2)
    return Recurrent(name, (source,), params, {"hh": pattern}, cell=GRU, units=units)


def lif(name: str, source: str, shape: tuple[int, ...], beta: np.ndarray, theta: float = 1.0) -> Recurrent:
    units = int(np.prod(shape))
    params = {"beta": beta, "threshold": np.full(units, theta, np.float32)}
    return Recurrent(name, (source,), params, cell=LIF, units=units, feature_shape=shape if len(shape) > 1 else ())


def net(*nodes: Node, **outputs: str) -> Graph:
    return Graph(nodes, outputs)


def pointwise() -> Graph:
    x = Input("x", shape=(3, 7))
    return net(
        x,
        Affine("batch_norm", ("x",), {"scale": normal(3, 1), "shift": normal(3, 1)}),
        Affine("gain", ("batch_norm",), {"scale": normal(7)}),
        Affine("full", ("gain",), {"shift": normal(3, 7)}),
        Affine("one", ("full",), {"scale": np.float32(0.5).reshape(1)}),
        *(Elementwise(fn, ("one",), fn=fn) for fn in ("relu", "tanh", "sigmoid", "softmax", "log_softmax", "identity")),
        Add("add", ("relu", "tanh", "identity")),
        Multiply("mul", ("sigmoid", "add", "log_softmax")),
        Concat("cat", ("mul", "softmax", "x")),
        Linear("rows", ("cat",), {"weight": normal(5, 21), "bias": normal(5)}),
        Flatten("flat", ("rows",), axes=2),
        y="flat",
        inner="cat",
        again="softmax",
    )


def images() -> Graph:
    grouped = Conv(
        "c2", ("p1",), {"weight": normal(6, 2, 2, 3)}, stride=(1, 2), padding=(0, 1), dilation=(2, 1), groups=2
    )
    return net(
        Input("x", shape=(2, 11, 9)),
        Conv(
            "c1",
            ("x",),
            {"weight": normal(4, 2, 3, 3), "bias": normal(4)},
            stride=(1, 1),
            padding=(1, 1),
            dilation=(1, 1),
        ),
        lif("l1", "c1", (4, 11, 9), np.linspace(0.6, 0.9, 4).reshape(4, 1, 1).astype(np.float32)),
        Pool("p1", ("l1",), how="max", kernel=(2, 2), stride=(2, 2)),
        grouped,
        Pool("p2", ("c2",), how="mean", kernel=(2, 1), stride=(1, 1)),
        lif("l2", "p2", (6, 2, 2), np.linspace(0.6, 0.9, 24).astype(np.float32)),
        Flatten("flat", ("l2",), axes=3),
        Flatten("flat1", ("l2.mem",), axes=3),
        Linear("fc", ("flat",), {"weight": normal(3, 24), "bias": normal(3)}),
        spk="l1",
        spk2="l2",
        mem="flat1",
        y="fc",
    )


def sounds() -> Graph:
    return net(
        Input("x", shape=(3, 20)),
        Conv("c", ("x",), {"weight": normal(4, 3, 5)}, stride=(2,), padding=(2,), dilation=(1,)),
        Pool("p", ("c",), how="max", kernel=(3,), stride=(2,)),
        y="p",
    )


def words() -> Graph:
    return net(
        Input("x", shape=()),
        Embedding("emb", ("x",), {"weight": normal(50, 6)}),
        gru("rnn.l0", "emb", 6, 9),
        TimeReduce("last", ("rnn.l0",), how="last", feature_shape=(9,)),
        Linear("fc", ("last",), {"weight": normal(4, 9)}),
        y="fc",
    )


def reductions() -> Graph:
    hows = ("last", "first", "mean", "sum", "max")
    return net(
        Input("x", shape=(5,)),
        Affine("low", ("x",), {"shift": np.full(5, -9.0)}),
        *(TimeReduce(how, ("low",), how=how, feature_shape=(5,)) for how in hows),
        Concat("all", hows),
        Elementwise("out", ("all",), fn="tanh"),
        y="out",
        **{f"{how}_": how for how in hows},
    )


def direct_coding() -> Graph:
    """A static image, presented at each of 15 steps, with a skip from it past the time axis."""
    return net(
        Input("x", shape=(12,), time=False),
        Linear("enc", ("x",), {"weight": 2 * normal(20, 12), "bias": normal(20)}),
        Elementwise("act", ("enc",), fn="relu"),
        Repeat("rep", ("act",), steps=15),
        Linear("fc1", ("rep",), {"weight": 0.1 * normal(16, 20)}),
        lif("lif1", "fc1", (16,), np.full(16, 0.9, np.float32)),
        Linear("fc2", ("lif1",), {"weight": normal(4, 16), "bias": 0.2 * normal(4)}),
        lif("lif2", "fc2", (4,), np.full(4, 0.8, np.float32)),
        Concat("both", ("lif1", "lif2")),
        Linear("fc3", ("both",), {"weight": normal(20, 20)}),
        Add("mix", ("fc3", "rep")),
        TimeReduce("count", ("lif2",), how="sum", feature_shape=(4,)),
        TimeReduce("mean", ("mix",), how="mean", feature_shape=(20,)),
        Add("skip", ("mean", "enc")),
        counts="count",
        spk="lif2",
        mix="mix",
        skip="skip",
    )


def static() -> Graph:
    return net(
        Input("x", shape=(6,), time=False),
        Linear("a", ("x",), {"weight": normal(8, 6), "bias": normal(8)}),
        Elementwise("b", ("a",), fn="softmax"),
        y="b",
        pre="a",
    )


NETS = {
    "pointwise": (pointwise, (9, 2, 3, 7)),
    "images": (images, (8, 2, 2, 11, 9)),
    "sounds": (sounds, (4, 2, 3, 20)),
    "words": (words, (13, 3)),
    "reductions": (reductions, (9, 2, 5)),
    "direct": (direct_coding, (3, 12)),
    "still": (static, (3, 6)),
}


def example(name: str) -> tuple[Graph, np.ndarray]:
    """A network and an input; the same ones at every call."""
    make, shape = NETS[name]
    RNG.bit_generator.state = _START
    x = RNG.integers(0, 50, shape) if name == "words" else normal(*shape)
    return make(), x
