"""The methods of Table 5, ready to be timed: inversion and edit of one image, which leave their results on the device.

Eager, a method runs as it is written, on float images of its encoder's size. Exported, its ONNX graphs run in ONNX
Runtime: images are uint8 of the family's size on both sides there, so shrinking and rounding are part of it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import onnxruntime as ort
import torch

from bench.machine import free_memory
from bench.table5.counts import row_family
from engines.contracts import TensorSpec
from engines.errors import EdgeditError, RuntimeUnavailableError
from engines.family import ModelFamily
from engines.runtimes.onnxruntime import PROVIDERS, OnnxRuntime
from engines.runtimes.ort import session
from engines.runtimes.ort_values import dtype_name
from engines.store import atomic_directory
from export.aot import Arithmetic, channels_last, precise
from export.build import export_graphs
from export.random_weights import random_weights
from training.methods import create
from training.methods.protocol import Method

How = Literal["eager", "onnxruntime"]

GRAPHS = ("invert", "edit")
"""The graphs of an edit of a photo."""
DELTA = "delta_w"
"""The input of every `edit` graph that moves the code."""


@dataclass(frozen=True, kw_only=True)
class Setting:
    """The settings that all methods of a run have in common."""

    family: ModelFamily
    how: How = "eager"
    device: str = "cpu"
    """"cpu", or the first GPU as "cuda"."""
    precision: Arithmetic = "fp32"
    """The precision of PyTorch's arithmetic; graphs are run as they are, in FP32."""
    threads: int = 0
    """Threads of one network on the CPU; 0 leaves them to the library."""
    seed: int = 0
    """The seed of weights and images."""

    def check(self) -> None:
        """Finds out before any work whether this can be run here.

        Raises:
            EdgeditError: for the first setting that will not do.
            RuntimeUnavailableError: if the device is not there.
        """
        if self.threads < 0:
            raise EdgeditError(f"--threads must be 0 or more, got {self.threads}")
        if self.how == "onnxruntime":
            if self.precision != "fp32":
                raise EdgeditError(
                    "--precision is PyTorch's: leave it out with --how onnxruntime, whose graphs are FP32"
                )
            if PROVIDERS[self.device] not in ort.get_available_providers():
                raise RuntimeUnavailableError(
                    f"this ONNX Runtime has no {PROVIDERS[self.device]}: install onnxruntime-gpu, or say --device cpu"
                )
        if self.device == "cuda" and not torch.cuda.is_available():
            raise RuntimeUnavailableError(f"PyTorch {torch.__version__} finds no CUDA device here: say --device cpu")
        if self.device == "cpu" and self.precision == "tf32":
            raise EdgeditError("TF32 is an arithmetic of NVIDIA GPUs: say --device cuda, or leave TF32 out")

    @property
    def clock(self) -> str:
        """The device whose clock times a stage: ONNX Runtime returns when its results are there."""
        return "cpu" if self.how == "onnxruntime" else self.device


class Subject(Protocol):
    """One method."""

    memory: int | None
    """Bytes of the device that loading it took; None where it is not known in this process."""

    def invert(self) -> object:
        """Inverts the image."""

    def edit(self) -> object:
        """Edits the last inversion, one direction in W."""

    def finite(self) -> bool:
        """True if the last edit is an image of finite numbers."""
        ...


def network(key: str, setting: Setting) -> Method:
    """A method with random weights, on the setting's device.

    Raises:
        ValueError: if it does not exist, or not for the family.
    """
    with torch.device(setting.device if setting.how == "eager" else "cpu"):
        return random_weights(lambda: create(key, row_family(key, setting.family)), setting.seed)


class Eager:
    """A method in PyTorch, operator by operator."""

    def __init__(self, key: str, setting: Setting) -> None:
        self._setting = setting
        on_gpu = setting.device != "cpu"
        before = torch.cuda.memory_allocated() if on_gpu else 0
        self._method = network(key, setting)
        if setting.precision == "fp16":
            channels_last(self._method)
        source = torch.Generator().manual_seed(setting.seed)
        image = torch.rand(1, 3, *self._method.input_size, generator=source) * 2 - 1
        self._image = image.to(setting.device)
        self._delta = torch.randn(1, setting.family.style_dim, generator=source).to(setting.device)
        self._inversion: Any = None
        self._edited: torch.Tensor | None = None
        self.memory = torch.cuda.memory_allocated() - before if on_gpu else None

    @contextlib.contextmanager
    def _arithmetic(self) -> Iterator[None]:
        precision = self._setting.precision
        half = torch.autocast(self._setting.device, torch.float16, enabled=precision == "fp16")
        with torch.inference_mode(), precise(precision), half:
            yield

    def invert(self) -> object:
        with self._arithmetic():
            self._inversion = self._method.invert(self._image)
        return self._inversion

    def edit(self) -> object:
        with self._arithmetic():
            self._edited = self._method.edit(self._inversion, self._delta)
        return self._edited

    def finite(self) -> bool:
        return self._edited is not None and bool(self._edited.isfinite().all())


class Exported:
    """A method's two graphs in ONNX Runtime."""

    def __init__(self, folder: Path, setting: Setting) -> None:
        on_gpu = setting.device != "cpu"
        before = free_memory(setting.device) if on_gpu else None
        self._graphs = {name: _session(folder / f"{name}.onnx", setting) for name in GRAPHS}
        rng = np.random.default_rng(setting.seed)
        invert, edit = self._graphs.values()
        self._output_names = {name: [spec.name for spec in graph.outputs] for name, graph in self._graphs.items()}
        self._inversion: dict[str, Any] = {}
        self._edited: dict[str, Any] = {}
        self._photo = {
            spec.name: invert.put(rng.integers(0, 256, _extents(spec), dtype=np.uint8)) for spec in invert.inputs
        }
        # What the inversion does not give is the edit: in W, so the same in every row, and none in the style space.
        given = {spec.name for spec in invert.outputs}
        self._delta = {}
        for spec in (spec for spec in edit.inputs if spec.name not in given):
            shape = _extents(spec)
            value = rng.standard_normal(shape[-1], np.float32) if spec.name == DELTA else np.float32(0)
            self._delta[spec.name] = edit.put(np.full(shape, value, np.float32))
        self._needed = [spec.name for spec in edit.inputs if spec.name in given]
        self.invert()
        self.edit()
        after = free_memory(setting.device) if on_gpu else None
        # Its arena keeps what the first edit took.
        self.memory = before - after if before is not None and after is not None else None

    def invert(self) -> object:
        self._inversion = self._graphs["invert"].run(self._photo, self._output_names["invert"])
        return self._inversion

    def edit(self) -> object:
        feeds = {name: self._inversion[name] for name in self._needed}
        self._edited = self._graphs["edit"].run({**feeds, **self._delta}, self._output_names["edit"])
        return self._edited

    def finite(self) -> bool:
        # The image is uint8: what was not finite on the way shows in a code.
        values = [value.numpy() for value in self._inversion.values()]
        return bool(self._edited) and all(np.isfinite(value).all() for value in values)


def _extents(spec: TensorSpec) -> tuple[int, ...]:
    """A tensor's extents for one image."""
    return tuple(extent if isinstance(extent, int) else 1 for extent in spec.shape)


def _session(file: Path, setting: Setting) -> OnnxRuntime:
    provider = setting.device
    loaded = session(file, threads=setting.threads, providers=[PROVIDERS[provider]])
    inputs, outputs = (
        [TensorSpec(name=node.name, dtype=dtype_name(str(node.type)), shape=list(node.shape)) for node in nodes]
        for nodes in (loaded.get_inputs(), loaded.get_outputs())
    )
    return OnnxRuntime(loaded, file.stem, inputs, outputs, provider, 0, {})


def graphs_folder(root: Path, key: str, setting: Setting) -> Path:
    """The folder of a method's graphs."""
    return root / f"{setting.family.name}-seed-{setting.seed}" / key


def write_graphs(key: str, setting: Setting, folder: Path) -> None:
    """Writes a method's graphs with random weights to a folder that is not there yet, whole or not at all.

    Raises:
        EdgeditError: if it cannot be exported.
    """
    with atomic_directory(folder) as made:
        export_graphs(network(key, setting), made)
