"""Job 3: FP16 arithmetic of the device against FP32 on real photos, by the code that certifies engines."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import numpy as np
import torch

from bench.gpu.context import Context
from bench.gpu.models import Model
from bench.gpu.queue import Outcome, Step
from bench.runtimes.torch import TorchRuntime
from engines.certificate import Certifier, Judges
from engines.contracts import PIPELINES
from export.reference import pytorch_reference
from training.data import load_faces
from training.losses.identity import Identity
from training.losses.lpips import LPIPS

_BATCH = 8


def accuracy(context: Context) -> Iterator[Step]:
    """A step is one pipeline of one bundle; random weights have no photos to compare."""
    lacks = None if context.data is not None and context.data.exists() else "needs --data: real photos"
    for model in context.models:
        if model.bundle is None:
            continue
        certifier = cache(lambda model=model: _certifier(context, model))
        for graph in PIPELINES:
            yield Step(f"{model.name} {graph}", _measured(context, model, graph, certifier), lacks, context.least)


def _certifier(context: Context, model: Model) -> Certifier:
    assert model.bundle is not None and context.data is not None
    photos = load_faces(context.data, model.family.size, held_out=context.photos)[1].images
    where = torch.cuda.get_device_name(context.device) if context.on_gpu else "CPU"
    return Certifier(
        model.bundle,
        photos,
        reference=pytorch_reference(model.bundle, context.device),
        source=f"PyTorch {torch.__version__}, FP32 on {where}",
        judges=judges(context),
        batch=_BATCH if model.family.size < 512 else 1,
    )


def _measured(context: Context, model: Model, graph: str, certifier: Callable[[], Certifier]) -> Callable[[], Outcome]:
    def run() -> Outcome:
        assert model.bundle is not None
        made = certifier()
        half = TorchRuntime.load(model.bundle, graph, precision="fp16", device=context.device)
        arithmetic = f"PyTorch {torch.__version__}, FP16 autocast on {context.device.partition(':')[0]}"
        return Outcome({**model.about(), "graph": graph, "certificate": made.measure(graph, half.run, arithmetic)})

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
