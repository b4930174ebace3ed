"""Hand-made layer reports in the manner of the project's networks. Their times are invented."""

from __future__ import annotations

import json
import math
from hashlib import sha256
from pathlib import Path

from engines.bundle import Bundle
from engines.bundle.engine_manifest import (
    ENGINE_DIGEST_FILE,
    ENGINE_FILE,
    BuiltWith,
    EngineGraph,
    EngineManifest,
    OptimizationProfile,
    PrecisionProof,
    WideLayer,
    engine_digest_line,
    engine_manifest_bytes,
)
from engines.bundle.layers import Layer, LayerReport, LayerTensor
from engines.bundle.manifest import FileEntry
from engines.contracts import TensorSpec
from engines.family import DEMO_64, ModelFamily

STYLE = "styles and demodulation: a vector per image, whose sums and reciprocals need the range"
SOFTMAX = "softmax: exponentials and their sum"
NORM = "normalisation: sums of squares over many values"
RGB = "image: ToRGB outputs and the RGB skip are summed here and rounded once"
BYTES = {"float32": 4, "float16": 2, "int8": 1, "int64": 8}


def layer(
    name: str,
    operator: str,
    inputs: list[list[int]],
    output: list[int],
    *,
    macs: int = 0,
    weights: int = 0,
    precision: str = "float16",
    reason: str | None = None,
    fused: tuple[str, ...] = (),
    milliseconds: float | None = None,
) -> Layer:
    """A layer whose bytes follow from its shapes; `weights` counts values."""
    size = BYTES.get(precision, 2)
    values = sum(math.prod(s) for s in [*inputs, output])
    return Layer(
        name=name,
        operator=operator,
        precision=precision,
        inputs=[LayerTensor(name=f"{name}_in{i}", dtype=precision, shape=s) for i, s in enumerate(inputs)],
        outputs=[LayerTensor(name=f"{name}_out", dtype=precision, shape=output)],
        macs=macs,
        weight_bytes=weights * size,
        activation_bytes=values * size,
        reason=reason,
        fused=list(fused),
        milliseconds=milliseconds,
    )


def edit_layers(family: ModelFamily, low: str = "float16") -> list[Layer]:
    """The editor's attention and the upper half of the generator, node by node."""
    wide = None if low == "float32" else "why"

    def why(reason: str) -> str | None:
        return reason if wide else None

    found: list[Layer] = []
    c, r = family.feature_channels, family.feature_resolution
    window, heads = family.window**2, family.editor.heads
    windows = r * r // window
    for block in range(2 * family.editor.edem_layers):
        at = f"/edem/blocks.{block}"
        norm = layer(f"{at}/norm/LayerNormalization", "LayerNormalization", [[1, r * r, c]], [1, r * r, c])
        found.append(norm.model_copy(update={"precision": "float32", "reason": why(NORM)}))
        for part in ("q", "k", "v"):
            shape = [1, r * r, c]
            found.append(
                layer(f"{at}/{part}/MatMul", "MatMul", [shape], shape, macs=r * r * c * c, weights=c * c, precision=low)
            )
        tokens, scores = [windows * heads, window, c // heads], [windows * heads, window, window]
        found.append(
            layer(f"{at}/scores/MatMul", "MatMul", [tokens, tokens], scores, macs=r * r * window * c, precision=low)
        )
        found.append(layer(f"{at}/Softmax", "Softmax", [scores], scores, precision="float32", reason=why(SOFTMAX)))
        found.append(
            layer(f"{at}/values/MatMul", "MatMul", [scores, tokens], tokens, macs=r * r * window * c, precision=low)
        )
        found.append(layer(f"{at}/Add", "Add", [[1, r * r, c]] * 2, [1, r * r, c], precision=low))
    for block in range(family.editor.edfm_blocks):
        at, shape = f"/edfm/blocks.{block}", [1, c, r, r]
        found.append(
            layer(
                f"{at}/norm/InstanceNormalization",
                "InstanceNormalization",
                [shape],
                shape,
                precision="float32",
                reason=why(NORM),
            )
        )
        for part in ("shared", "gamma", "beta", "conv"):
            found.append(
                layer(
                    f"{at}/{part}/Conv",
                    "Conv",
                    [shape],
                    shape,
                    macs=9 * c * c * r * r,
                    weights=9 * c * c,
                    precision=low,
                )
            )
    for resolution in (x for x in family.resolutions if x > r):
        below, here = family.channels(resolution // 2), family.channels(resolution)
        for number, (first, second, side) in enumerate(((below, here, resolution // 2), (here, here, resolution))):
            at = f"/generator/b{resolution}/conv{number}"
            style = layer(
                f"{at}/affine/Gemm",
                "Gemm",
                [[1, family.style_dim]],
                [1, first],
                macs=family.style_dim * first,
                weights=family.style_dim * first,
                precision="float32",
                reason=why(STYLE),
            )
            found.append(style)
            found.append(
                layer(
                    f"{at}/demod/ReduceSum",
                    "ReduceSum",
                    [[1, first]],
                    [1, second],
                    precision="float32",
                    reason=why(STYLE),
                )
            )
            found.append(
                layer(
                    f"{at}/modulate/Mul",
                    "Mul",
                    [[1, first, side, side], [1, first, 1, 1]],
                    [1, first, side, side],
                    precision=low,
                )
            )
            kind = "Conv" if number else "ConvTranspose"
            out = [1, second, resolution, resolution]
            macs = 9 * first * second * side * side
            found.append(
                layer(
                    f"{at}/{kind}",
                    kind,
                    [[1, first, side, side]],
                    out,
                    macs=macs,
                    weights=9 * first * second,
                    precision=low,
                )
            )
            found.append(layer(f"{at}/act/LeakyRelu", "LeakyRelu", [out], out, precision=low))
        image = [1, 3, resolution, resolution]
        found.append(
            layer(
                f"/generator/b{resolution}/torgb/Conv",
                "Conv",
                [[1, here, resolution, resolution]],
                image,
                macs=3 * here * resolution**2,
                weights=3 * here,
                precision=low,
            )
        )
        found.append(
            layer(
                f"/generator/b{resolution}/skip/Add", "Add", [image, image], image, precision="float32", reason=why(RGB)
            )
        )
    found.append(layer("/Shape", "Shape", [image], [4], precision="int64"))
    return found


def edit_report(family: ModelFamily = DEMO_64, precision: str = "fp16") -> LayerReport:
    """Every ONNX node a layer, as a graph shows them; not measured."""
    low = {"fp16": "float16", "fp32": "float32"}[precision]
    return LayerReport(graph="edit", source="graph", precision=precision, layers=edit_layers(family, low))


def engine_report(family: ModelFamily = DEMO_64) -> LayerReport:
    """The same as an engine with fused layers and (invented) times shows it."""
    layers: list[Layer] = []
    for node in edit_layers(family):
        # What follows a convolution goes into it, as builders do it.
        if layers and layers[-1].macs and node.operator in ("LeakyRelu", "Add", "Mul") and node.precision == "float16":
            names = (*layers[-1].fused, node.name)
            layers[-1] = layers[-1].model_copy(update={"fused": list(names), "name": " + ".join(names)})
        else:
            operator = {"Conv": "CaskConvolution", "MatMul": "CaskGemm"}.get(node.operator, node.operator)
            layers.append(node.model_copy(update={"operator": operator, "fused": [node.name]}))
    timed = []
    for index, node in enumerate(layers):
        floor = max(2 * node.macs / 71e12, (node.weight_bytes + node.activation_bytes) / 936e9)
        timed.append(node.model_copy(update={"milliseconds": 1e3 * floor * (1.3 + 0.9 * ((index * 7) % 5)) + 0.0015}))
    return LayerReport(graph="edit", source="inspector", precision="fp16", layers=timed)


def big_report(layers: int = 5000) -> LayerReport:
    """A report of that many layers with long names, tensors and fused nodes."""
    base = edit_layers(DEMO_64)
    many = []
    for index in range(layers):
        node = base[index % len(base)]
        name = f"/outer.{index}/some/rather/deep/module/path{node.name}"
        many.append(
            node.model_copy(
                update={
                    "name": name,
                    "fused": [f"{name}_{i}" for i in range(6)],
                    "milliseconds": 0.01 + index % 13 / 100,
                }
            )
        )
    return LayerReport(graph="edit", source="inspector", precision="fp16", layers=many)


def write_report(path: Path, report: LayerReport) -> Path:
    path.write_text(report.model_dump_json())
    return path


CERTIFICATE = {
    "reference": "ONNX Runtime, FP32",
    "arithmetic": "emulated on a CPU",
    "photos": 64,
    "images": {"psnr": {"mean": 58.25, "worst": 51.5}, "lpips": None, "max_abs": 3},
    "passed": True,
}


def write_engine(
    bundle: Path, reports: list[LayerReport], certificate: dict | None = None, names: list[str] | None = None
) -> Path:
    """An engine folder inside a bundle, whole but for the engines themselves, which are a few bytes."""
    opened = Bundle.load(bundle, verify=False)
    files: dict[str, bytes] = {}
    graphs: dict[str, EngineGraph] = {}
    for name, report in zip(names or [report.graph for report in reports], reports, strict=True):
        files |= {f"{name}.engine": b"engine", f"{name}.layers.json": report.model_dump_json().encode()}
        wide = [
            WideLayer(name=x.name, operator=x.operator, reason=x.reason, macs=x.macs) for x in report.layers if x.reason
        ]
        graphs[name] = EngineGraph(
            file=f"{name}.engine",
            layers=f"{name}.layers.json",
            source_sha256="1" * 64,
            inputs=[TensorSpec(name="w", dtype="float32", shape=["batch", 10, 128])],
            outputs=[TensorSpec(name="image", dtype="uint8", shape=["batch", 64, 64, 3])],
            profile=OptimizationProfile(min=1, opt=1, max=8),
            proof=PrecisionProof(
                asked="fp16", share=report.share("float16"), macs=report.macs, source="network", wide=wide
            ),
            device_memory=3_000_000,
            weight_bytes=sum(x.weight_bytes for x in report.layers),
            seconds=1.5,
            certificate=certificate,
        )
    manifest = EngineManifest(
        schema_version=1,
        bundle=opened.name,
        weights_sha256="2" * 64,
        runtime="tensorrt-rtx",
        target="sm86",
        precision="fp16",
        graphs=graphs,
        files={name: FileEntry(sha256=sha256(data).hexdigest(), bytes=len(data)) for name, data in files.items()},
        built=BuiltWith(
            library="TensorRT-RTX",
            version="1.7.1",
            compute_capabilities=["8.6"],
            hardware_compatible=False,
            version_compatible=False,
            driver_floor="580.65",
            flags=json.loads("{}"),
            tools={"onnx-ir": "1.0.0"},
            command="edgedit build demo",
            date="2026-11-01T00:00:00Z",
        ),
    )
    folder = bundle / "engines" / manifest.folder
    folder.mkdir(parents=True)
    raw = engine_manifest_bytes(manifest)
    for name, data in {**files, ENGINE_FILE: raw, ENGINE_DIGEST_FILE: engine_digest_line(raw)}.items():
        (folder / name).write_bytes(data)
    return folder
