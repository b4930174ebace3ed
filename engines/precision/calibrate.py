"""The ranges that 8-bit data stand for, measured on what a graph computes in FP32.

The largest magnitude is exact, over every value of every photo. INT8 has even steps, so that a range which holds one
outlier costs all other values precision: among fractions of the largest magnitude, the one with the least mean squared
error on a sample of the values is taken, what is beyond it saturates. Channels that can be balanced (see `quantise`)
have a largest magnitude each, and lose none. FP8 has steps in proportion, and keeps the largest magnitude.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import onnx_ir as ir

from engines.bundle import Bundle
from engines.precision.fp32_rules import fp32_nodes
from engines.precision.quantise import QUANTISED, Peak, balanced, chosen
from engines.precision.rewrite import fold_batch_norms, prenormalise
from engines.precision.source import Tensor, initializer, load_source, shapes
from engines.runtimes.ort import session

SAMPLE = 2048
"""Values per product and photo, evenly spaced, that the range of INT8 is chosen on."""
FRACTIONS = np.linspace(0.4, 1.0, 13, dtype=np.float32)


def calibrate(
    bundle: Bundle, graph: str, feeds: Iterable[Mapping[str, np.ndarray]], precision: str, *, threads: int = 0
) -> dict[str, Peak]:
    """The magnitude, by name of a product that gains by 8 bits, that the largest 8-bit value of its data stands for;
    for INT8, if the data's channels can be balanced, one for each.

    Args:
        bundle: with FP32 graphs.
        feeds: named inputs, batch by batch.
        precision: of `quantise.QUANTISED`.
        threads: of ONNX Runtime, see `engines.cpus.threads`.

    Raises:
        BundleError, EngineError: as `source.load_source`.
        ValueError: without feeds.
    """
    model = load_source(bundle, graph)
    fold_batch_norms(model)
    specs = shapes(model)
    modulated = prenormalise(model, specs)
    specs = shapes(model)
    products, _ = chosen(model, specs, modulated, fp32_nodes(model, specs, modulated))
    names = {str(node.name): str(node.inputs[0].name) for node in products if node.inputs[0] is not None}
    watched = {str(v.name): v for node in products if (v := node.inputs[0]) is not None}
    contract = len(model.graph.outputs)
    by_channel = {str(n.inputs[0].name) for n in products if n.inputs[0] is not None and balanced(n) is not None}
    for name, value in watched.items():
        _watch(model.graph, value, specs[name], by_channel=precision == "int8" and name in by_channel)
    peaks, samples = _observe(model, contract, list(watched), feeds, threads)
    _, _, top = QUANTISED[precision]
    if precision == "int8":
        peaks |= {n: _least_error(samples[n], float(peak), top) for n, peak in peaks.items() if n not in by_channel}
    return {product: peaks[value].tolist() for product, value in names.items()}


def _watch(graph: ir.Graph, value: ir.Value, known: Tensor, *, by_channel: bool) -> None:
    """Adds the largest magnitude of a value, and evenly spaced magnitudes, to the graph's outputs."""
    name = str(value.name)
    # An odd step meets every row, column and channel.
    step = max(1, known.elements // SAMPLE) | 1
    numbers = {"flat": [-1], "start": [0], "end": [np.iinfo(np.int64).max], "axis": [0], "step": [step]}
    flat, *limits = (
        initializer(graph, f"{name}/watch_{what}", np.array(number, np.int64)) for what, number in numbers.items()
    )
    magnitude = ir.node("Abs", [value], name=f"{name}/watch_magnitude")
    rest = [initializer(graph, f"{name}/watch_rest", np.array([0, 2, 3], np.int64))] if by_channel else []
    largest = ir.node("ReduceMax", [magnitude.outputs[0], *rest], {"keepdims": 0}, name=f"{name}/watch_largest")
    line = ir.node("Reshape", [magnitude.outputs[0], flat], name=f"{name}/watch_line")
    sample = ir.node("Slice", [line.outputs[0], *limits], name=f"{name}/watch_sample")
    for node, shape in ((magnitude, None), (largest, (None,) if by_channel else ()), (line, None), (sample, (None,))):
        output = node.outputs[0]
        output.name, output.type = f"{node.name}.out", ir.TensorType(ir.DataType.FLOAT)
        graph.append(node)
        if shape is not None:
            output.shape = ir.Shape(shape)
            graph.outputs.append(output)


def _observe(
    model: ir.Model, contract: int, values: list[str], feeds: Iterable[Mapping[str, np.ndarray]], threads: int
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Largest magnitudes, of the whole or of each channel, and sampled ones, by value."""
    outputs = [str(value.name) for value in list(model.graph.outputs)[contract:]]
    with TemporaryDirectory(prefix="edgedit-calibrate-") as folder:
        file = Path(folder) / "model.onnx"
        ir.save(model, file, external_data="weights")
        observed = session(file, threads=threads)
    peaks: dict[str, np.ndarray] = {}
    samples: dict[str, list[np.ndarray]] = {}
    for batch in feeds:
        arrays = [np.asarray(array) for array in observed.run(outputs, dict(batch))]
        for name, largest, sample in zip(values, arrays[::2], arrays[1::2], strict=True):
            peaks[name] = np.maximum(peaks.get(name, np.zeros(())), largest)
            samples.setdefault(name, []).append(sample)
    if not peaks and values:
        raise ValueError("calibration needs feeds")
    return peaks, {name: np.concatenate(parts) for name, parts in samples.items()}


def _least_error(sample: np.ndarray, peak: float, top: float) -> np.ndarray:
    """The range whose rounding to whole steps, saturation included, has the least mean squared error."""
    if not peak:
        return np.array(peak)
    errors = []
    for fraction in FRACTIONS:
        step = np.float32(peak * fraction / top)
        rounded = np.minimum(np.rint(sample / step), top) * step
        errors.append(float(np.square(rounded - sample).mean()))
    return np.array(peak * float(FRACTIONS[int(np.argmin(errors))]))
