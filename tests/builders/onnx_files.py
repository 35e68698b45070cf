"""Small networks in ONNX files: one convolution for each output."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from onnx import NodeProto, TensorProto, helper, numpy_helper, save

STRIDE = 4  # pixels between features


def write_network(
    path: Path,
    outputs: Sequence[str] = ("contour", "features"),
    *,
    sides: tuple[int | str, int | str] = ("height", "width"),
    colours: int = 3,
    contours: int = 1,
    scale: float = 4,
    sigmoid: bool = True,
    metadata: Mapping[str, str] | None = None,
) -> Path:
    """Write a network whose contour is the sigmoid of `scale · (red - green)`, and whose 40 features are colours.

    Other output names give the contour too. `sigmoid` can be left out, and the contour have several channels.
    """
    kernels = {
        "contour_kernel": np.tile(np.array([scale, -scale, 0])[:colours, None, None], (contours, 1, 1, 1)),
        "features_kernel": np.random.default_rng(0).normal(size=(40, colours, STRIDE, STRIDE)),
    }
    nodes = [node for output in outputs for node in _nodes(output, sigmoid=sigmoid)]
    graph = helper.make_graph(
        nodes,
        "network",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, colours, *sides])],
        [helper.make_tensor_value_info(output, TensorProto.FLOAT, [None] * 4) for output in outputs],
        [numpy_helper.from_array(kernel.astype(np.float32), name) for name, kernel in kernels.items()],
    )
    model = helper.make_model(graph, ir_version=10, opset_imports=[helper.make_opsetid("", 17)])
    helper.set_model_props(model, dict(metadata or {}))
    save(model, path)
    return path


def _nodes(output: str, *, sigmoid: bool) -> list[NodeProto]:
    if output == "features":
        return [helper.make_node("Conv", ["image", "features_kernel"], [output], strides=[STRIDE, STRIDE])]
    logits = helper.make_node("Conv", ["image", "contour_kernel"], [f"{output}_logits"])
    return [logits, helper.make_node("Sigmoid" if sigmoid else "Identity", [f"{output}_logits"], [output])]
