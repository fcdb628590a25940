"""torch's GRU written out in ONNX's elementary operations, for runtimes that have no such layer or none in int8."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from sparsecirc.ir import Recurrent

Array = NDArray[Any]


def rounded(weight: Array) -> tuple[Array, NDArray[np.float32]]:
    """Transposed int8 weights and a scale for each row of ``weight``."""
    scale = np.maximum(np.abs(weight).max(axis=1), 1e-30) / 127
    return np.ascontiguousarray(np.rint(weight / scale[:, None]).T.astype(np.int8)), scale.astype(np.float32)


def encode(nodes: list[Any], arrays: dict[str, Array], shape_in: list[Any], shape_out: list[Any], opset: int) -> bytes:
    """A checked ONNX file from ``x`` to ``y`` with ``arrays`` as its constants."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    made = helper.make_graph(
        nodes,
        "layer",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape_in)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, shape_out)],
        [numpy_helper.from_array(np.asarray(v), k) for k, v in arrays.items()],
    )
    domains = [helper.make_opsetid("", opset), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(made, opset_imports=domains, ir_version=7)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


def write_gru(layer: Recurrent, steps: int, batch: int, *, int8: bool, unrolled: bool) -> bytes:
    """The layer over (steps, batch, features), as a Scan over time or step after step.

    With ``int8`` the recurrent product is Microsoft's DynamicQuantizeMatMul, which quantises the state at every step.
    """
    from onnx import TensorProto, helper

    n, node = layer.units, helper.make_node
    arrays: dict[str, Array] = {
        "W": np.ascontiguousarray(layer.weight("ih").T),
        "bias_ih": layer.params["bias_ih"], "bias_hh": layer.params["bias_hh"],
        "sizes": np.array([2 * n, n], np.int64), "halves": np.array([n, n], np.int64),
        "start": np.zeros((batch, n), np.float32),
    }  # fmt: skip
    if int8:
        arrays["R"], arrays["scale"] = rounded(layer.weight("hh"))
        arrays["zero"] = np.zeros(3 * n, np.int8)
    else:
        arrays["R"] = np.ascontiguousarray(layer.weight("hh").T)

    def step(drive: str, before: str, after: str, tag: str) -> list[Any]:
        def name(*parts: str) -> list[str]:
            return [f"{part}{tag}" for part in parts]

        product = [node("MatMul", [before, "R"], name("hr")), node("Add", [*name("hr"), "bias_hh"], name("rec"))]
        if int8:
            inputs = [before, "R", "scale", "zero", "bias_hh"]
            product = [node("DynamicQuantizeMatMul", inputs, name("rec"), domain="com.microsoft")]
        return [
            *product,
            node("Split", [drive, "sizes"], name("a_rz", "a_n"), axis=-1),
            node("Split", [*name("rec"), "sizes"], name("b_rz", "b_n"), axis=-1),
            node("Add", name("a_rz", "b_rz"), name("sum")),
            node("Sigmoid", name("sum"), name("rz")),
            node("Split", [*name("rz"), "halves"], name("r", "z"), axis=-1),
            node("Mul", name("r", "b_n"), name("reset")),
            node("Add", name("a_n", "reset"), name("new")),
            node("Tanh", name("new"), name("candidate")),
            node("Sub", [before, *name("candidate")], name("gap")),
            node("Mul", name("z", "gap"), name("kept")),
            node("Add", name("candidate", "kept"), [after]),
        ]

    nodes = [node("MatMul", ["x", "W"], ["xw"]), node("Add", ["xw", "bias_ih"], ["drives"])]
    if unrolled:
        arrays |= {"ones": np.ones(steps, np.int64), "axis": np.zeros(1, np.int64)}
        nodes.append(node("Split", ["drives", "ones"], [f"slice{t}" for t in range(steps)], axis=0))
        for t in range(steps):
            nodes.append(node("Squeeze", [f"slice{t}", "axis"], [f"drive{t}"]))
            nodes += step(f"drive{t}", f"h{t - 1}" if t else "start", f"h{t}", f"_{t}")
            nodes.append(node("Unsqueeze", [f"h{t}", "axis"], [f"y{t}"]))
        nodes.append(node("Concat", [f"y{t}" for t in range(steps)], ["y"], axis=0))
    else:
        sizes = (("h", n), ("drive", 3 * n))
        starts = [helper.make_tensor_value_info(k, TensorProto.FLOAT, [batch, size]) for k, size in sizes]
        ends = [helper.make_tensor_value_info(k, TensorProto.FLOAT, [batch, n]) for k in ("next", "out")]
        inner = [*step("drive", "h", "next", ""), node("Identity", ["next"], ["out"])]
        body = helper.make_graph(inner, "step", starts, ends)
        nodes.append(node("Scan", ["start", "drives"], ["last", "y"], body=body, num_scan_inputs=1))
    features = layer.params["ih"].shape[1]
    return encode(nodes, arrays, [steps, batch, features], [steps, batch, n], 13)
