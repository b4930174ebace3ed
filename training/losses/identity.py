"""Identity embedding as a differentiable network, read from an ONNX file.

Face embedders of the MobileFaceNet kind consist of convolutions, PReLUs, additions and one reshape; such a graph is
run node by node in torch, so that the identity loss (eq. 3.14, 3.20) has a gradient whatever the embedder.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import torch
import torch.nn.functional as F
from onnx import numpy_helper
from torch import Tensor, nn

FACE_CROP = (0.120, 0.118, 0.764)
"""Top, left and side of the square that an ArcFace five-point crop occupies in an FFHQ-aligned image, as fractions
of its side: FFHQ's side is 3.6 eye-mouth distances, ArcFace's template puts 40.7 of its 112 pixels between them."""

ARCFACE_SIZE = 112


def face_crop(image: Tensor, size: int = ARCFACE_SIZE, crop: tuple[float, float, float] = FACE_CROP) -> Tensor:
    """Cuts the tight face out of FFHQ-aligned images.

    Args:
        image: B x 3 x S x S.
        size: side of the result.
        crop: top, left and side as fractions of S.

    Returns:
        B x 3 x size x size, bilinear, averaged where it shrinks.
    """
    top, left, side = crop
    pixels = image.shape[-1]
    if pixels * side > 1.5 * size:
        shrunk = round(size / side)
        image = F.interpolate(image, size=(shrunk, shrunk), mode="bilinear", antialias=True, align_corners=False)
        pixels = shrunk
    steps = (torch.arange(size, device=image.device, dtype=image.dtype) + 0.5) / size * side
    x, y = (steps + left) * 2 - 1, (steps + top) * 2 - 1
    grid = torch.stack(torch.meshgrid(y, x, indexing="ij")[::-1], dim=-1)
    return F.grid_sample(image, grid.expand(image.shape[0], -1, -1, -1), align_corners=False, padding_mode="border")


class OnnxModule(nn.Module):
    """Runs an ONNX graph of Conv, PRelu, Relu, Add, Reshape and Flatten nodes in torch, with any batch size.

    Raises:
        ValueError: for a graph with other operators (the message names them) or unequal padding.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        graph = onnx.load(path).graph
        known = {"Conv", "PRelu", "Relu", "Add", "Reshape", "Flatten"}
        if other := sorted({node.op_type for node in graph.node} - known):
            raise ValueError(f"{path}: operators {', '.join(other)} cannot be run as a differentiable network")
        self.nodes = list(graph.node)
        for node in self.nodes:
            pads = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}.get("pads", [])
            if list(pads[: len(pads) // 2]) != list(pads[len(pads) // 2 :]):
                raise ValueError(f"{path}: {node.name or node.op_type} pads its sides differently, which cannot be run")
        self.source, self.result = graph.input[0].name, graph.output[0].name
        self.keys: dict[str, str] = {}
        for index, initializer in enumerate(graph.initializer):
            self.keys[initializer.name] = f"weight_{index}"
            value = torch.from_numpy(np.array(numpy_helper.to_array(initializer)))
            self.register_buffer(f"weight_{index}", value, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        values: dict[str, Tensor] = {self.source: x}

        def get(name: str) -> Tensor:
            return values[name] if name in values else self.get_buffer(self.keys[name])

        for node in self.nodes:
            inputs = [get(name) for name in node.input if name]
            attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
            values[node.output[0]] = _run(node.op_type, inputs, attributes)
        return values[self.result]


def _run(kind: str, inputs: list[Tensor], attributes: dict) -> Tensor:
    if kind == "Conv":
        pads = attributes.get("pads", [0, 0, 0, 0])
        weight = inputs[1]
        bias = inputs[2] if len(inputs) > 2 else None
        return F.conv2d(
            inputs[0],
            weight,
            bias,
            stride=tuple(attributes.get("strides", [1, 1])),
            padding=tuple(pads[:2]),
            dilation=tuple(attributes.get("dilations", [1, 1])),
            groups=attributes.get("group", 1),
        )
    if kind == "PRelu":
        return F.prelu(inputs[0], inputs[1].flatten().to(inputs[0].dtype))
    if kind == "Relu":
        return F.relu(inputs[0])
    if kind == "Add":
        return inputs[0] + inputs[1]
    return inputs[0].flatten(1)


class Identity(nn.Module):
    """Unit-length identity embedding of FFHQ-aligned images B x 3 x S x S in [-1, 1]: B x 512."""

    def __init__(self, weights: Path) -> None:
        super().__init__()
        self.net = OnnxModule(weights)

    def forward(self, image: Tensor) -> Tensor:
        return F.normalize(self.net(face_crop(image)).float(), dim=1)
