"""A bundle small enough to damage ten thousand times: hand-made graphs of a 16-pixel family, weights in FP16."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from safetensors.numpy import save

from engines.bundle import EXTERNAL_LOCATION, WEIGHTS_FILE, Bundle, BundleWriter, ProducedBy
from engines.contracts import PARTS, PIPELINES, TensorSpec, graph_contract, style_width
from engines.directions import Direction
from engines.errors import RuntimeUnavailableError
from engines.family import EditorArchitecture, ModelFamily
from engines.runtimes.backend import Backend, load

TINY = ModelFamily(
    name="tiny",
    size=16,
    visible_rows=(2, 14),
    style_dim=8,
    channel_base=64,
    channel_max=8,
    feature_resolution=8,
    encoder_size=(16, 16),
    encoder_width=4,
    head_width=8,
    editor=EditorArchitecture(window=8, heads=4),
)


def tiny_weights(family: ModelFamily, seed: int = 7) -> dict[str, np.ndarray]:
    """Random FP16 weights with a few names in the manner of a state dict; the odd length sets others off alignment."""
    rng = np.random.default_rng(seed)
    rows, width, channels, styles = family.w_rows, family.style_dim, family.feature_channels, style_width(family)
    shapes = {
        "a.odd": (3,),
        "e4e.weight": (3, rows * width),
        "encoder.content": (channels, 3, 1, 1),
        "encoder.weight": (3, rows * width),
        "editor.gain": (1, channels, 1, 1),
        "generator.const": (1, *family.feature_shape),
        "generator.lower": (width, channels),
        "generator.lower_style": (styles, channels),
        "generator.to_rgb": (3, channels, 1, 1),
        "generator.upper": (channels, 3, 2, 2),
        "generator.upper_rgb": (3, 3, 2, 2),
        "generator.upper_w": (width, 3),
    }
    return {name: rng.normal(0, 0.3, shape).astype(np.float16) for name, shape in shapes.items()}


class Graph:
    """Builds one graph node by node; weights are external data in the safetensors file, read as FP16 and cast."""

    def __init__(self, family: ModelFamily, weights: bytes) -> None:
        self.family = family
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: dict[str, onnx.TensorProto] = {}
        length = int.from_bytes(weights[:8], "little")
        self.layout = json.loads(weights[8 : 8 + length])
        self.start = 8 + length

    def op(self, kind: str, *inputs: str, output: str = "", **attributes: object) -> str:
        output = output or f"{kind.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, inputs, [output], **attributes))
        return output

    def const(self, values: object, dtype: type = np.float32) -> str:
        name = f"const_{len(self.initializers)}"
        self.initializers[name] = onnx.numpy_helper.from_array(np.array(values, dtype), name)
        return name

    def weight(self, name: str) -> str:
        if name not in self.initializers:
            first, last = self.layout[name]["data_offsets"]
            tensor = TensorProto(name=name, data_type=TensorProto.FLOAT16, dims=self.layout[name]["shape"])
            tensor.data_location = TensorProto.EXTERNAL
            place = {"location": EXTERNAL_LOCATION, "offset": str(self.start + first), "length": str(last - first)}
            for key, value in place.items():
                tensor.external_data.add(key=key, value=value)
            self.initializers[name] = tensor
        return self.op("Cast", name, to=TensorProto.FLOAT)

    def code(self, image: str, weight: str, output: str) -> str:
        pooled = self.op("ReduceMean", image, self.const([2, 3], np.int64), keepdims=0)
        shape = self.const([-1, self.family.w_rows, self.family.style_dim], np.int64)
        return self.op("Reshape", self.op("MatMul", pooled, self.weight(weight)), shape, output=output)

    def encoder(self, image: str) -> None:
        self.code(image, "encoder.weight", "w")
        stride = self.family.encoder_size[0] // self.family.feature_resolution
        pooled = self.op("AveragePool", image, kernel_shape=[stride] * 2, strides=[stride] * 2)
        self.op("Conv", pooled, self.weight("encoder.content"), output="feature")

    def e4e(self, image: str) -> None:
        self.code(image, "e4e.weight", "w_e")

    def project(self, w_plus: str, style_delta: str | None, weight: str, style: str | None) -> str:
        mean = self.op("ReduceMean", w_plus, self.const([1], np.int64), keepdims=0)
        value = self.op("MatMul", mean, self.weight(weight))
        if style_delta is not None and style is not None:
            value = self.op("Add", value, self.op("MatMul", style_delta, self.weight(style)))
        return self.op("Unsqueeze", value, self.const([2, 3], np.int64))

    def features(self, w_plus: str, style_delta: str | None, output: str) -> str:
        value = self.project(w_plus, style_delta, "generator.lower", "generator.lower_style")
        return self.op("Mul", value, self.weight("generator.const"), output=output)

    def rgb(self, feature: str, output: str = "") -> str:
        return self.op("Conv", feature, self.weight("generator.to_rgb"), output=output)

    def editor(self, feature: str, generator_feature: str, edited: str, output: str) -> str:
        change = self.op("Mul", self.weight("editor.gain"), self.op("Sub", edited, generator_feature))
        return self.op("Add", feature, change, output=output)

    def generator(self, feature: str, w_plus: str, rgb: str | None, output: str) -> str:
        image = self.op("ConvTranspose", feature, self.weight("generator.upper"), strides=[2, 2])
        if rgb is not None:
            skip = self.op("ConvTranspose", rgb, self.weight("generator.upper_rgb"), strides=[2, 2])
            image = self.op("Add", image, skip)
        return self.op("Add", image, self.project(w_plus, None, "generator.upper_w", None), output=output)

    def image_in(self) -> str:
        image = self.op("Transpose", self.op("Cast", "image", to=TensorProto.FLOAT), perm=[0, 3, 1, 2])
        image = self.op("Sub", self.op("Div", image, self.const(127.5)), self.const(1.0))
        (height, width), size = self.family.image_shape, self.family.encoder_size
        if (height, width) == size:
            return image
        kernel = [height // size[0], width // size[1]]
        if kernel[0] * size[0] == height and kernel[1] * size[1] == width:
            return self.op("AveragePool", image, kernel_shape=kernel, strides=kernel)
        sizes = self.op("Concat", self.op("Shape", image, end=2), self.const(size, np.int64), axis=0)
        return self.op("Resize", image, "", "", sizes, mode="linear", antialias=1)

    def image_out(self, image: str) -> None:
        first, last = self.family.visible_rows or (0, self.family.size)
        image = self.op("Slice", image, *(self.const([i], np.int64) for i in (first, last, 2)))
        image = self.op("Clip", image, self.const(-1.0), self.const(1.0))
        levels = self.op("Mul", self.op("Add", image, self.const(1.0)), self.const(127.5))
        rounded = self.op("Transpose", self.op("Round", levels), perm=[0, 2, 3, 1])
        self.op("Cast", rounded, output="image_out", to=TensorProto.UINT8)

    def model(self, inputs: list[TensorSpec], outputs: list[TensorSpec]) -> bytes:
        for node in self.nodes:
            node.output[:] = ["image" if name == "image_out" else name for name in node.output]

        def info(spec: TensorSpec) -> onnx.ValueInfoProto:
            return helper.make_tensor_value_info(
                spec.name, helper.np_dtype_to_tensor_dtype(np.dtype(spec.dtype)), spec.shape
            )

        graph = helper.make_graph(
            self.nodes, "tiny", list(map(info, inputs)), list(map(info, outputs)), list(self.initializers.values())
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
        return model.SerializeToString()


def tiny_graph(family: ModelFamily, name: str, weights: bytes) -> bytes:
    """The serialized graph of that name."""
    g = Graph(family, weights)
    skip = family.rgb_skip
    if name in ("encoder", "e4e"):
        getattr(g, name)("image")
    elif name == "features":
        g.features("w_plus", "style_delta", "generator_feature")
        if skip:
            g.rgb("generator_feature", "rgb")
    elif name == "editor":
        g.editor("feature", "generator_feature", "edited_generator_feature", "edited_feature")
    elif name == "generator":
        g.op("Identity", "style_delta")
        g.generator("feature", "w_plus", "rgb" if skip else None, "image_out")
    elif name == "invert":
        image = g.image_in()
        g.encoder(image)
        g.e4e(image)
        g.features("w_e", None, "generator_feature")
    elif name == "edit":
        w_plus = g.op("Add", "w", "delta_w")
        edited = g.features(g.op("Add", "w_e", "delta_w"), "style_delta", "edited")
        feature = g.editor("feature", "generator_feature", edited, "edited_feature")
        rgb = g.rgb(g.features(w_plus, "style_delta", "skip")) if skip else None
        g.image_out(g.generator(feature, w_plus, rgb, "rendered"))
    elif name == "reconstruct":
        rgb = g.rgb(g.features("w", None, "skip")) if skip else None
        g.image_out(g.generator("feature", "w", rgb, "rendered"))
    return g.model(*graph_contract(family, name))


def tiny_directions(family: ModelFamily) -> list[Direction]:
    rng = np.random.default_rng(11)
    shapes = {"w": (family.style_dim,), "w+": (family.w_rows, family.style_dim), "s": (style_width(family),)}
    rest = {"min_strength": -3.0, "max_strength": 3.0, "description": "d", "source": "random", "licence": "CC0-1.0"}

    def make(name: str, kind: str, space: str, **more: object) -> Direction:
        vector = rng.normal(0, 1, shapes[space]).astype(np.float32)
        return Direction(name=name, kind=kind, space=space, vector=vector, **rest, **more)

    return [
        make("smile", "interfacegan", "w"),
        make("age", "ganspace", "w", rows=(1, 3)),
        make("pose", "styleclip", "w+"),
        make("hair", "stylespace", "s"),
    ]


def write_tiny(
    path: Path,
    family: ModelFamily = TINY,
    graphs: tuple[str, ...] = (*PARTS, *PIPELINES),
    *,
    name: str = "tiny",
    directions: list[Direction] | None = None,
    edit: Callable[[str, onnx.ModelProto], None] | None = None,
    seed: int = 7,
) -> Path:
    """Writes a bundle of hand-made graphs; `edit` may change each graph before it is written."""
    weights = save(tiny_weights(family, seed))
    produced_by = ProducedBy(tools={"onnx": onnx.__version__}, command="pytest", date="2026-01-01T00:00:00Z")
    with BundleWriter(
        path, name=name, family=family, precision="fp16", licence="CC0-1.0", produced_by=produced_by
    ) as writer:
        writer.add_bytes(WEIGHTS_FILE, weights)
        for graph in graphs:
            data = tiny_graph(family, graph, weights)
            if edit is not None:
                model = onnx.load_from_string(data)
                edit(graph, model)
                data = model.SerializeToString()
            writer.add_graph(graph, data)
        for direction in tiny_directions(family) if directions is None else directions:
            writer.add_direction(direction)
        writer.add_bytes("card.md", f"# {name}\n".encode())
        writer.metrics["max_error"] = 0.25
    return path


@pytest.fixture(scope="session")
def tiny_family() -> ModelFamily:
    return TINY


@pytest.fixture(scope="session")
def make_tiny_bundle(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Writes a tiny bundle to a place of its own: make_tiny_bundle(family=..., graphs=...)."""
    return lambda **options: write_tiny(tmp_path_factory.mktemp("bundle") / "tiny", **options)


@pytest.fixture(scope="session")
def tiny_bundle_path(make_tiny_bundle: Callable[..., Path]) -> Path:
    """A tiny bundle shared by all tests: not to be changed."""
    return make_tiny_bundle()


@pytest.fixture(scope="session")
def tiny_bundle(tiny_bundle_path: Path) -> Bundle:
    return Bundle.load(tiny_bundle_path)


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The PEM files of a key pair to sign with: private, public. Needs the `sign` extra."""
    from tests.engines.engine_folders import write_keys

    return write_keys(tmp_path_factory.mktemp("keys"))


@pytest.fixture(scope="module")
def private(keys: tuple[Path, Path]) -> Path:
    return keys[0]


@pytest.fixture(scope="module")
def public(keys: tuple[Path, Path]) -> Path:
    return keys[1]


@pytest.fixture(scope="session")
def rtx() -> Backend:
    """TensorRT-RTX where it is installed."""
    try:
        return load("tensorrt-rtx")
    except RuntimeUnavailableError as error:
        pytest.skip(str(error))
