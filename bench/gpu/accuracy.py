"""Arithmetic of the device against FP32 on photos, by the code that certifies engines: PyTorch in FP16 beside FP16
as it is emulated on a CPU, and engines in FP16, INT8 and, where the chip has it, FP8."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from functools import cache, partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from bench.gpu.context import Context
from bench.gpu.models import Model
from bench.gpu.options import GpuBenchOptions
from bench.gpu.queue import Outcome, Step
from bench.gpu.runtimes import ENGINES, Engine, build_for
from bench.runtimes.torch import TorchRuntime
from edgedit.demo import ASTRONAUT
from engines.building.certificate import Certifier
from engines.bundle import Bundle
from engines.contracts import PIPELINES
from engines.runtimes import create
from export.reference import pytorch_reference
from training.data import load_faces
from training.losses.judges import picture_judges

_BATCH = 8
_FACE = (90, 0, 350, 260)
"""The face in the astronaut's photo: left, top, right, bottom."""
_SAME = ("TensorRT FP16, no CUDA graph",)
"""Engines whose arithmetic is another one's."""


def accuracy(context: Context) -> Iterator[Step]:
    """A step is one pipeline of one bundle; random weights have nothing to compare."""
    options = context.options
    lacks = None if options.faces is None or options.faces.exists() else "--faces is not there"
    for model in context.models:
        if model.bundle is None:
            continue
        certifier = cache(partial(_certifier, context, model.bundle))
        for graph in PIPELINES:
            measured = partial(_measured, model, graph, certifier)
            yield Step(f"{model.name} {graph}", measured, lacks, options.least)
        for engine in ENGINES:
            if engine.precision is not None and engine.name not in _SAME:
                measured = partial(_engine, context, model, engine, certifier)
                yield Step(f"{model.name} {engine.name}", measured, lacks or engine.lacks(context), options.least)


def _certifier(context: Context, bundle: Bundle) -> Certifier:
    options = context.options
    if options.faces is None:
        photos = _astronaut(bundle.family.image_shape)
    else:
        photos = load_faces(options.faces, bundle.family.image_shape, held_out=options.max_faces)[1].images
    return Certifier(
        bundle,
        photos,
        reference=pytorch_reference(bundle, options.device),
        source=f"PyTorch {torch.__version__}, FP32 on {_where(options)}",
        judges=picture_judges(options.lpips, options.identity, options.device),
        batch=_BATCH if bundle.family.size < 512 else 1,
    )


def _astronaut(shape: tuple[int, int]) -> np.ndarray:
    """The photo that comes with edgedit, as it is and mirrored, cut about as FFHQ is: where no other photos are."""
    height, width = shape
    photo = np.asarray(Image.open(ASTRONAUT).convert("RGB").crop(_FACE).resize((width, height)))
    return np.stack([photo, photo[:, ::-1]])


def _where(options: GpuBenchOptions) -> str:
    return torch.cuda.get_device_name(options.device) if options.on_gpu else "CPU"


def _measured(model: Model, graph: str, certifier: Callable[[], Certifier]) -> Outcome:
    assert model.bundle is not None
    half = TorchRuntime.load(model.bundle, graph, precision="fp16", device=model.device)
    arithmetic = f"PyTorch {torch.__version__}, FP16 autocast on {model.device.partition(':')[0]}"
    row = {**model.about(), "graph": graph, "certificate": certifier().measure(graph, half.run, arithmetic)}
    # The same photos and reference: what emulation says in place of a GPU.
    return Outcome(row | {"emulated": certifier().certify(graph, "fp16")})


def _engine(context: Context, model: Model, engine: Engine, certifier: Callable[[], Certifier]) -> Outcome:
    assert engine.precision is not None
    made = certifier()
    certificates = {}
    with tempfile.TemporaryDirectory(prefix="edgedit-gpu-") as folder:
        # The ranges of 8 bits are those of the very photos that are compared.
        bundle, built = build_for(model, engine, Path(folder), made.feeds, max(_BATCH, *context.options.batches))
        arithmetic = f"{engine.name}, {built.built.library} {built.built.version} on {_where(context.options)}"
        for graph in PIPELINES:
            runtime = create(engine.runtime, bundle, graph, **engine.load_options)
            certificates[graph] = made.measure(graph, runtime.run, arithmetic, precision=engine.precision)
    return Outcome({**model.about(), "runtime": engine.name, "certificates": certificates})
