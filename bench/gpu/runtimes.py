"""The runtimes of engines, where they are installed; and what TensorRT-RTX says to a GPU outside its list.

A pass has its inputs and outputs on the device and is timed by the host's clock, in turns with PyTorch's base row.
"""

from __future__ import annotations

import itertools
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from bench.gpu.context import NO_TIME, Context
from bench.gpu.jobs import SLIDER, flat, outcome
from bench.gpu.models import Model
from bench.gpu.queue import Outcome, Step
from bench.gpu.rows import BASE, GRAPH, Setup
from bench.machine import free_memory
from bench.timing import waiting
from engines.building.build import build
from engines.building.builder import BuildOptions
from engines.building.proof import check_targets
from engines.bundle import Bundle
from engines.bundle.engine_manifest import ENGINES_FOLDER, EngineManifest, OptimizationProfile, Precision, RuntimeName
from engines.contracts import PIPELINES, graph_contract
from engines.errors import EngineError
from engines.libraries import LIBRARIES
from engines.precision.calibrate import calibrate
from engines.runtimes import backend as backends
from engines.runtimes import create
from engines.runtimes.onnxruntime import PROVIDERS
from engines.session import EditSession


@dataclass(frozen=True)
class Engine:
    """A runtime and how its graph comes to be."""

    name: str
    runtime: RuntimeName
    options: dict[str, Any] = field(default_factory=dict)
    """Options of the runtime's `load`."""
    precision: Precision | None = None
    """The precision of an engine that is built first; None runs the bundle's own graph."""

    @property
    def row(self) -> str:
        """The name of its row in `bench.latency`, by the way it runs: "onnxruntime cuda:fp16"."""
        words = [self.runtime, *(str(value) for name, value in self.options.items() if name == "provider")]
        graphs = GRAPH if self.options.get("cuda_graphs", self.runtime in LIBRARIES) else ""
        return f"{' '.join(words)}{graphs}:{self.precision or 'fp32'}"

    @property
    def load_options(self) -> dict[str, Any]:
        """All options of the runtime's `load`, the precision of its engine among them."""
        return self.options | ({"precision": self.precision} if self.precision else {})

    def lacks(self, context: Context) -> str | None:
        """The reason why it cannot be measured here; None if it can."""
        provider = self.options.get("provider", "cpu")
        if self.runtime == "onnxruntime":
            if PROVIDERS[provider] not in onnxruntime.get_available_providers():
                return f"this ONNX Runtime has no {PROVIDERS[provider]}"
            return None if provider == "cpu" or context.options.on_gpu else "needs a CUDA device"
        library = LIBRARIES[self.runtime]
        if not library.installed:
            return f"{library.title} is not installed"
        if not context.options.on_gpu:
            return "needs a CUDA device"
        capability = backends.current_capability()
        try:
            check_targets(self.precision or "fp32", [backends.architecture(capability)] if capability else [])
        except EngineError as error:
            return str(error)
        return None


ENGINES: tuple[Engine, ...] = (
    Engine("ONNX Runtime, CPU", "onnxruntime", {"provider": "cpu"}),
    Engine("ONNX Runtime, CUDA", "onnxruntime", {"provider": "cuda"}),
    Engine("ONNX Runtime, CUDA, FP16", "onnxruntime", {"provider": "cuda"}, "fp16"),
    Engine("ONNX Runtime, TensorRT, FP16", "onnxruntime", {"provider": "tensorrt"}, "fp16"),
    Engine("TensorRT FP16", "tensorrt", {}, "fp16"),
    Engine("TensorRT FP16, no CUDA graph", "tensorrt", {"cuda_graphs": False}, "fp16"),
    Engine("TensorRT INT8", "tensorrt", {}, "int8"),
    Engine("TensorRT FP8", "tensorrt", {}, "fp8"),
    Engine("TensorRT-RTX FP16", "tensorrt-rtx", {}, "fp16"),
    Engine("TensorRT-RTX INT8", "tensorrt-rtx", {}, "int8"),
    Engine("TensorRT-RTX FP8", "tensorrt-rtx", {}, "fp8"),
)


def runtimes(context: Context) -> Iterator[Step]:
    """A step is one runtime on the pipelines of one model. Random weights have no graphs: a bundle of them has."""
    probe = Engine("", "tensorrt-rtx")
    yield Step("TensorRT-RTX answers", _rtx_answer, probe.lacks(context))
    for model in context.models:
        for engine in ENGINES:
            lacks = engine.lacks(context)
            if model.bundle is None and lacks is None:
                lacks = f"has no graphs: edgedit export --random {model.name} -o DIR, then --bundle {model.name}=DIR"
            measured = partial(_measured, context, model, engine)
            yield Step(f"{model.name} {engine.name}", measured, lacks, context.options.least)


def _rtx_answer() -> Outcome:
    """Builds next to nothing for the GPU at hand; an error is an answer too."""
    rtx = backends.load("tensorrt-rtx")
    api = rtx.api
    with rtx.messages() as messages:
        builder = api.Builder(rtx.logger)
        network = builder.create_network(1 << int(api.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
        data = network.add_input("x", api.DataType.HALF, (1, 8, 8, 8))
        network.mark_output(network.add_activation(data, api.ActivationType.RELU).get_output(0))
        plan = builder.build_serialized_network(network, builder.create_builder_config())
        said = [{"severity": severity, "text": " ".join(text.split())} for severity, text in messages]
    capability = backends.current_capability()
    return Outcome(
        {
            "library": f"{rtx.title} {rtx.version}",
            "compute_capability": ".".join(map(str, capability)) if capability else None,
            "known": list(rtx.architectures),
            "built": plan is not None,
            "messages": said[:20],
        }
    )


def build_for(
    model: Model,
    engine: Engine,
    folder: Path,
    feeds: Callable[[str], Iterable[Mapping[str, np.ndarray]]],
    largest: int,
) -> tuple[Bundle, EngineManifest]:
    """A copy of a model's bundle with one engine of each pipeline.

    Args:
        model: of a bundle.
        engine: one that has a precision.
        folder: for the copy.
        feeds: by graph, named inputs; the ranges of 8 bits are measured on them.
        largest: batch size that the engine takes.

    Raises:
        EdgeditError: if it cannot be built.
    """
    assert model.bundle is not None and engine.precision is not None
    source, precision = model.bundle, engine.precision
    ignore = shutil.ignore_patterns(ENGINES_FOLDER)
    copied = Path(shutil.copytree(source.path, folder / source.path.name, ignore=ignore))
    built = build(
        copied,
        runtime=engine.runtime,
        target=_target(engine),
        precision=precision,
        options=BuildOptions(profile=OptimizationProfile(min=1, opt=1, max=largest)),
        peaks=lambda graph: calibrate(source, graph, feeds(graph), precision),
    )
    return Bundle.load(copied), built


def _target(engine: Engine) -> str:
    if engine.runtime != "onnxruntime":
        return "current"
    # A typed graph is for processors or for GPUs, whichever provider runs it there.
    return "cpu" if engine.options.get("provider", "cpu") == "cpu" else "cuda"


def _measured(context: Context, model: Model, engine: Engine) -> Outcome:
    assert model.bundle is not None

    def random(graph: str) -> list[dict[str, np.ndarray]]:
        specs = graph_contract(model.family, graph)[0]
        return [{s.name: t.numpy(force=True) for s, t in zip(specs, model.inputs(graph, 1), strict=True)}]

    rows: list[dict[str, Any]] = []
    refused: dict[str, str] = {}
    with tempfile.TemporaryDirectory(prefix="edgedit-gpu-") as folder:
        bundle, built = model.bundle, None
        if engine.precision is not None:
            bundle, built = build_for(model, engine, Path(folder), random, max(context.options.batches))
        for graph in PIPELINES:
            about = {} if built is None else _built(built, graph)
            rows += [row | about for row in _graph(context, model, bundle, graph, engine, refused)]
        if "edit" in bundle.manifest.graphs:
            rows.append(_slider(context, model, bundle, engine))
    return outcome(context, model, rows, refused, runtime=engine.name, clocks=context.clocks())


def _built(manifest: EngineManifest, graph: str) -> dict[str, Any]:
    """Figures of an engine that its build gave."""
    entry = manifest.graphs[graph]
    return {
        "build_seconds": entry.seconds,
        "engine_bytes": manifest.files[entry.file].bytes,
        "stated_memory_bytes": entry.device_memory,
        "weight_bytes": entry.weight_bytes,
    }


def _graph(
    context: Context, model: Model, bundle: Bundle, graph: str, engine: Engine, refused: dict[str, str]
) -> list[dict[str, Any]]:
    """Latency by batch size with inputs and outputs on the device, and the memory that loading and running took."""
    rows = []
    device = context.options.device
    before = free_memory(device)
    runtime = create(engine.runtime, bundle, graph, **engine.load_options)
    keep = [spec.name for spec in runtime.outputs]
    for batch in context.options.batches:
        if rows and context.left() < context.options.least:
            refused[f"{graph}, batch {batch}"] = NO_TIME
            continue
        inputs = model.inputs(graph, batch)
        feeds = {s.name: runtime.put(t.numpy(force=True)) for s, t in zip(runtime.inputs, inputs, strict=True)}
        base = Setup(model, graph, "fp32", inputs).passing(model.module(graph, "fp32"))
        calls = {engine.row: partial(runtime.run, feeds, keep), BASE: waiting(base, model.device)}
        samples = context.timed(calls, "cpu")
        used = before - free_memory(device) if context.options.on_gpu else None
        row, _ = flat(context, model, graph, samples, batch)
        rows.append(row | {"images_per_second": 1e3 * batch / row["median_ms"], "memory_bytes": used})
    return rows


def _slider(context: Context, model: Model, bundle: Bundle, engine: Engine) -> dict[str, Any]:
    """A slider's step by an edit session: from a new strength on the host to the picture on the host."""
    session = EditSession(bundle, engine.runtime, **engine.load_options)
    photo = np.random.default_rng(0).integers(0, 256, (1, *bundle.family.image_shape, 3), np.uint8)
    inversion = session.invert(photo)
    direction = np.full((bundle.family.w_rows, bundle.family.style_dim), 0.01, np.float32)
    strengths = itertools.cycle((0.5, 1.0))
    samples = context.timed({engine.row: lambda: session.edit(inversion, next(strengths) * direction)}, "cpu")
    (row,) = flat(context, model, SLIDER, samples)
    return row
