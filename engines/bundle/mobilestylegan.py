"""The pretrained MobileStyleGAN of the package `random-face`, read as data: names to arrays, without its libraries.

The package holds a mapping and a synthesis network (Belousov 2021, arXiv 2104.04767; 1024-pixel faces, distilled from
StyleGAN2-FFHQ) as OpenVINO IR: an XML graph and a file of constants. Where they lie, and that they are those of the
one known version, `engines.packages` says. Every constant of the graphs is accounted for: it is a weight, or it holds
what the network's definition says.
"""

from __future__ import annotations

import math
import xml.etree.ElementTree as ElementTree
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from engines.packages import GENERATOR, PackageError, Progress

LICENCE = (
    "Apache-2.0 as packaged; distilled from NVIDIA's StyleGAN2-FFHQ (Source Code License-NC) and FFHQ (CC BY-NC-SA "
    "4.0): research and evaluation, clear the rights before commercial use"
)
Array = NDArray[np.generic]
_TYPES = {"f32": np.float32, "i64": np.int64, "i32": np.int32}


@dataclass(frozen=True)
class _Node:
    name: str
    kind: str
    inputs: tuple[str, ...]
    value: Array | None


class _Graph:
    """An IR graph by layer id, with the constants that were asked for so far."""

    def __init__(self, xml: bytes, constants: bytes) -> None:
        net = ElementTree.fromstring(xml)
        sources: dict[str, dict[int, str]] = {}
        for edge in net.iterfind("edges/edge"):
            sources.setdefault(edge.attrib["to-layer"], {})[int(edge.attrib["to-port"])] = edge.attrib["from-layer"]
        self.nodes: dict[str, _Node] = {}
        for layer in net.iterfind("layers/layer"):
            ports = sources.get(layer.attrib["id"], {})
            value = _constant(layer, constants) if layer.attrib["type"] == "Const" else None
            self.nodes[layer.attrib["id"]] = _Node(
                layer.attrib["name"], layer.attrib["type"], tuple(ports[port] for port in sorted(ports)), value
            )
        self.by_name = {node.name: id_ for id_, node in self.nodes.items()}
        self.taken: set[str] = set()

    def users(self, id_: str, kind: str) -> list[_Node]:
        """The layers of a kind that read this one, in the graph's order."""
        return [node for node in self.nodes.values() if id_ in node.inputs and node.kind == kind]

    def take(self, id_: str) -> Array:
        """A constant, now accounted for."""
        value = self.nodes[id_].value
        if value is None:
            raise PackageError(f"{self.nodes[id_].name} is not a constant")
        self.taken.add(id_)
        return value

    def named(self, name: str) -> Array:
        """The constant of that name."""
        return self.take(self.by_name[name])

    def operand(self, node: _Node) -> Array:
        """The one constant among a layer's inputs."""
        (constant,) = (id_ for id_ in node.inputs if self.nodes[id_].kind == "Const")
        return self.take(constant)

    def check_rest(self, known: Mapping[str, tuple[float, ...]]) -> None:
        """Every constant not taken feeds shapes, or a layer of a kind in `known` with one of those values in it.

        Raises:
            PackageError: naming the first that does not.
        """
        for id_, node in self.nodes.items():
            if node.value is None or id_ in self.taken or node.value.dtype.kind == "i":
                continue
            allowed = {
                value for user in self.nodes.values() if id_ in user.inputs for value in known.get(user.kind, ())
            }
            if not all(any(math.isclose(v, a, rel_tol=1e-6) for a in allowed) for v in np.unique(np.abs(node.value))):
                raise PackageError(f"{node.name} is a constant that MobileStyleGAN's definition does not account for")


def _constant(layer: ElementTree.Element, constants: bytes) -> Array:
    data = layer.find("data")
    assert data is not None, "every Const of the checked files has its place"
    shape = tuple(int(side) for side in data.attrib["shape"].split(",") if side.strip())
    offset, size = int(data.attrib["offset"]), int(data.attrib["size"])
    value = np.frombuffer(constants[offset : offset + size], _TYPES[data.attrib["element_type"]])
    return value.reshape(shape)


def _mapping(graph: _Graph) -> dict[str, Array]:
    tensors: dict[str, Array] = {}
    for index, product in enumerate(node for node in graph.nodes.values() if node.kind == "MatMul"):
        tensors[f"style.layers.{index}.weight"] = graph.operand(product)
        (addition,) = graph.users(graph.by_name[product.name], "Add")
        (shaped,) = (graph.nodes[id_] for id_ in addition.inputs if graph.nodes[id_].kind == "Reshape")
        tensors[f"style.layers.{index}.bias"] = graph.take(shaped.inputs[0])
    graph.check_rest({"Multiply": (1.0, math.sqrt(2.0)), "PReLU": (0.2,), "Power": (2.0, 0.5, 1.0), "Add": (1e-8,)})
    return tensors


def _convolution(graph: _Graph, theirs: str, ours: str, start: str, channels: int) -> dict[str, Array]:
    """The constants from the first convolution `start` (a layer's name) to the bias of a styled convolution."""
    tensors: dict[str, Array] = {}
    node = graph.nodes[graph.by_name[start]]
    scaled = graph.nodes[node.inputs[0]]
    style = next(graph.nodes[id_] for id_ in scaled.inputs if graph.nodes[id_].name.startswith("Mul_"))
    if not math.isclose(float(graph.operand(style).item()), 1 / math.sqrt(9 * channels), rel_tol=1e-6):
        raise PackageError(f"{theirs} scales its style by another factor than 1/sqrt(9 x {channels})")
    if node.kind == "GroupConvolution":
        tensors[f"{ours}.depthwise"] = graph.operand(node)[:, 0]
        (node,) = graph.users(graph.by_name[node.name], "Convolution")
    tensors[f"{ours}.weight"] = graph.operand(node)
    (noisy,) = graph.users(graph.by_name[node.name], "Add")
    tensors[f"{ours}.noise"] = graph.operand(noisy)
    tensors[f"{ours}.bias"] = graph.named(f"{theirs}.bias").reshape(-1)
    return tensors


def _modulation(graph: _Graph, theirs: str, ours: str) -> dict[str, Array]:
    return {
        f"{ours}.modulation.weight": graph.named(f"{theirs}.modulation.weight"),
        f"{ours}.modulation.bias": graph.named(f"{theirs}.modulation.bias").reshape(-1),
    }


def _synthesis(graph: _Graph) -> dict[str, Array]:
    tensors = {"input.input": graph.named("m.input.input")}
    (first,) = (n for n in graph.nodes.values() if n.kind == "Convolution" and "Tile" in _names(graph, n, 2))
    tensors |= _modulation(graph, "m.conv1.conv", "conv1")
    tensors |= _convolution(graph, "m.conv1", "conv1", first.name, tensors["input.input"].shape[1])
    count = sum(name.startswith("m.layers.") and name.endswith(".up.modulation.bias") for name in graph.by_name)
    for block in range(count):
        tensors |= _modulation(graph, f"m.layers.{block}.up", f"blocks.{block}.up")
        for conv in ("conv1", "conv2"):
            theirs, ours = f"m.layers.{block}.{conv}", f"blocks.{block}.{conv}"
            depthwise = graph.by_name[f"{theirs}.conv.weight_dw"]
            (start,) = graph.users(depthwise, "GroupConvolution")
            tensors |= _modulation(graph, f"{theirs}.conv", ours)
            channels = len(tensors[f"{ours}.modulation.bias"])
            tensors |= _convolution(graph, theirs, ours, start.name, channels)
    last = f"m.layers.{count - 1}.to_img"
    tensors |= _modulation(graph, f"{last}.conv", "to_image")
    tensors["to_image.weight"] = graph.named(f"{last}.conv.weight")
    tensors["to_image.bias"] = graph.named(f"{last}.bias").reshape(-1)
    graph.check_rest(
        {
            "PReLU": (0.2,),
            "GroupConvolutionBackpropData": (1 / math.sqrt(2.0),),
            "Multiply": (1 / math.sqrt(tensors["to_image.weight"].shape[1]),),
            "Broadcast": (1.0,),
        }
    )
    return tensors


def _names(graph: _Graph, node: _Node, depth: int) -> str:
    """The names of what a layer reads, directly or through `depth` layers."""
    if not depth:
        return ""
    return " ".join(graph.nodes[i].name + " " + _names(graph, graph.nodes[i], depth - 1) for i in node.inputs)


def read(path: Path | None = None, progress: Progress = lambda line: None) -> dict[str, Array]:
    """The generator's tensors under the names of `training.networks.mobilestylegan.MobileGenerator`, float32.

    Args:
        path: the package's wheel or folder; None: the installed package, or the one that was fetched.
        progress: called with one line before the package is fetched.

    Raises:
        RuntimeUnavailableError, OutputError: as `Package.find`.
        PackageError: if it is another version, damaged, or holds a constant that is not accounted for.

    Example:
        >>> weights = read()  # doctest: +SKIP
        >>> weights["conv1.weight"].shape  # doctest: +SKIP
        (512, 512, 3, 3)
    """
    source = GENERATOR.find(path, progress)
    mapping, synthesis = (
        _Graph(GENERATOR.read(source, f"data/{name}.xml"), GENERATOR.read(source, f"data/{name}.bin"))
        for name in ("MappingNetwork", "SynthesisNetwork")
    )
    return _mapping(mapping) | _synthesis(synthesis)
