"""Arithmetic of the device against FP32 on photos, by the code that certifies engines: PyTorch in FP16 beside FP16
as it is emulated on a CPU, and engines in FP16, INT8 and, where the chip has it, FP8."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from bench.gpu.context import Context
from bench.gpu.models import Model
from bench.gpu.queue import Outcome, Step
from bench.gpu.runtimes import ENGINES, Engine, build_for
from bench.runtimes.torch import TorchRuntime
from edgedit.demo import ASTRONAUT
from engines.building.certificate import Certifier, Judges
from engines.contracts import PIPELINES
from engines.runtimes import create
from export.reference import pytorch_reference
from training.data import load_faces
from training.losses.identity import Identity
from training.losses.lpips import LPIPS

_BATCH = 8
_FACE = (90, 0, 350, 260)
"""Of the astronaut's photo: left, top, right, bottom."""
_SAME = ("TensorRT FP16, no CUDA graph",)
"""Engines whose arithmetic is another one's."""


def accuracy(context: Context) -> Iterator[Step]:
    """A step is one pipeline of one bundle; random weights have nothing to compare."""
    lacks = None if context.data is None or context.data.exists() else "--faces is not there"
    for model in context.models:
        if model.bundle is None:
            continue
        certifier = cache(lambda model=model: _certifier(context, model))
        for graph in PIPELINES:
            yield Step(f"{model.name} {graph}", _measured(context, model, graph, certifier), lacks, context.least)
        for engine in ENGINES:
            if engine.precision is not None and engine.name not in _SAME:
                missing = lacks or engine.lacks(context)
                yield Step(
                    f"{model.name} {engine.name}", _engine(context, model, engine, certifier), missing, context.least
                )


def _certifier(context: Context, model: Model) -> Certifier:
    assert model.bundle is not None
    if context.data is None:
        photos = _astronaut(model.family.image_shape)
    else:
        photos = load_faces(context.data, model.family.image_shape, held_out=context.photos)[1].images
    return Certifier(
        model.bundle,
        photos,
        reference=pytorch_reference(model.bundle, context.device),
        source=f"PyTorch {torch.__version__}, FP32 on {_where(context)}",
        judges=judges(context),
        batch=_BATCH if model.family.size < 512 else 1,
    )


def _astronaut(shape: tuple[int, int]) -> np.ndarray:
    """The photo that comes with edgedit, as it is and mirrored, cut about as FFHQ is: where no other photos are."""
    height, width = shape
    photo = np.asarray(Image.open(ASTRONAUT).convert("RGB").crop(_FACE).resize((width, height)))
    return np.stack([photo, photo[:, ::-1]])


def _where(context: Context) -> str:
    return torch.cuda.get_device_name(context.device) if context.on_gpu else "CPU"


def _measured(context: Context, model: Model, graph: str, certifier: Callable[[], Certifier]) -> Callable[[], Outcome]:
    def run() -> Outcome:
        assert model.bundle is not None
        made = certifier()
        half = TorchRuntime.load(model.bundle, graph, precision="fp16", device=context.device)
        arithmetic = f"PyTorch {torch.__version__}, FP16 autocast on {context.device.partition(':')[0]}"
        row = {**model.about(), "graph": graph, "certificate": made.measure(graph, half.run, arithmetic)}
        # The same photos and reference: what emulation says in place of a GPU.
        return Outcome(row | {"emulated": made.certify(graph, "fp16")})

    return run


def _engine(
    context: Context, model: Model, engine: Engine, certifier: Callable[[], Certifier]
) -> Callable[[], Outcome]:
    def run() -> Outcome:
        assert engine.precision is not None
        made = certifier()
        certificates = {}
        with tempfile.TemporaryDirectory(prefix="edgedit-gpu-") as folder:
            bundle, built = build_for(model, engine, Path(folder), made.feeds, max(_BATCH, *context.batches))
            arithmetic = f"{engine.name}, {built.built.library} {built.built.version} on {_where(context)}"
            for graph in PIPELINES:
                runtime = create(engine.runtime, bundle, graph, **engine.options, precision=engine.precision)
                certificates[graph] = made.measure(graph, runtime.run, arithmetic, precision=engine.precision)
        # The ranges of 8 bits are those of the very photos that are compared.
        return Outcome({**model.about(), "runtime": engine.name, "certificates": certificates})

    return run


def judges(context: Context) -> Judges:
    """The networks that compare images, on the device, where their files were given."""
    device = context.device

    def tensor(images: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(images).to(device).permute(0, 3, 1, 2).float() / 127.5 - 1

    def batched(network: Any, *sets: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            starts = range(0, len(sets[0]), _BATCH)
            parts = [network(*(tensor(s[i : i + _BATCH]) for s in sets)).cpu().numpy() for i in starts]
        return np.concatenate(parts)

    embed = distance = None
    if context.identity is not None:
        embedder = Identity(context.identity).to(device).eval()
        embed = lambda images: batched(embedder, images)  # noqa: E731
    if context.lpips is not None:
        perceptual = LPIPS(context.lpips).to(device).eval()
        distance = lambda a, b: batched(perceptual, a, b)  # noqa: E731
    return Judges(identity=embed, lpips=distance)
