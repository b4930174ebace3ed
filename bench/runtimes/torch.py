"""The bundle's networks in PyTorch: eager, compiled, or ahead of time by AOTInductor."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self, get_args

import numpy as np
import torch
from torch import Tensor

from engines.bundle import Bundle
from engines.cpus import usable
from engines.errors import BundleError, EngineError, RuntimeUnavailableError, first_line
from engines.runtimes.protocol import Feed, check_run, zeros
from export.aot import Arithmetic, graph_module, load_package, precise

Mode = Literal["eager", "compiled", "aotinductor"]

_TF32 = threading.Lock()
"""The rounding of products to TF32 is a switch of the whole process: one run at a time turns it."""


@dataclass(frozen=True, eq=False)
class TorchTensor:
    """A tensor on the runtime's device."""

    tensor: Tensor

    @property
    def dtype(self) -> np.dtype:
        return torch.empty(0, dtype=self.tensor.dtype).numpy().dtype

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.tensor.shape)

    def numpy(self) -> np.ndarray:
        """A copy on the host."""
        return self.tensor.numpy(force=True).copy()


class TorchRuntime:
    """One graph's module, in inference mode. Runs of FP32 and TF32 on a GPU wait for each other."""

    def __init__(
        self, bundle: Bundle, graph: str, call: Callable[..., Any], precision: Arithmetic, device: str
    ) -> None:
        entry = bundle.graph(graph)
        self.graph = graph
        self.inputs = tuple(entry.inputs)
        self.outputs = tuple(entry.outputs)
        self.precision: Arithmetic = precision
        self.device = torch.device(device)
        self._call = call

    @classmethod
    def load(
        cls,
        bundle: Bundle,
        graph: str,
        *,
        mode: Mode = "eager",
        precision: Arithmetic = "fp32",
        device: str = "cpu",
        package: str | Path | None = None,
        threads: int = 0,
    ) -> Self:
        """Loads a graph's module with the bundle's weights.

        Args:
            bundle: where the weights are.
            graph: a graph of the bundle; its ONNX file is not read.
            mode: "eager", "compiled" (torch.compile, at the first run of a shape) or "aotinductor".
            precision: "fp32", "tf32" (a CUDA device), "fp16" or "bf16": autocast, channels-last, norms and sums
                in FP32.
            device: "cpu", "cuda" or "cuda:1".
            package: the `.pt2` that `export.aot.write_package` wrote of this graph; for "aotinductor" alone.
            threads: of this process's PyTorch, never more than it may use (`engines.cpus`); 0 leaves them as they are.

        Raises:
            BundleError: if the bundle has no such graph, or its weights do not fit its family.
            EngineError: if the package is damaged, or was made for another graph, bundle or machine.
            RuntimeUnavailableError: if the device is not there.
            ValueError: for an unknown mode or precision, or options that do not go together.
        """
        if mode not in get_args(Mode) or precision not in get_args(Arithmetic):
            raise ValueError(
                f"there is no mode {mode!r} with precision {precision!r}; modes are {', '.join(get_args(Mode))}, "
                f"precisions {', '.join(get_args(Arithmetic))}"
            )
        if (package is not None) != (mode == "aotinductor"):
            raise ValueError("a package goes with mode aotinductor, and with that alone")
        if threads < 0:
            raise ValueError(f"threads must be 0 or more, got {threads}")
        bundle.graph(graph)
        _check_device(device, precision)
        if threads:
            torch.set_num_threads(min(threads, usable()))
        if package is not None:
            call = load_package(package, bundle, graph, precision, device)
        else:
            try:
                module = graph_module(bundle, graph, precision).to(device)
            except ValueError as error:
                raise BundleError(str(error)) from error
            call = torch.compile(module) if mode == "compiled" else module
        return cls(bundle, graph, call, precision, device)

    def run(self, feeds: Mapping[str, Feed], keep: Collection[str] = ()) -> dict[str, Any]:
        """Runs the graph; see `Runtime.run`."""
        check_run(self.graph, self.inputs, self.outputs, feeds, keep, TorchTensor)
        try:
            with torch.inference_mode(), self._arithmetic():
                given = self._call(*(self._tensor(feeds[spec.name]) for spec in self.inputs))
        except RuntimeError as error:
            raise EngineError(
                f"graph {self.graph} failed in PyTorch {torch.__version__}: {first_line(error)}"
            ) from error
        values = (given,) if isinstance(given, Tensor) else tuple(given)
        return {
            spec.name: TorchTensor(value) if spec.name in keep else TorchTensor(value).numpy()
            for spec, value in zip(self.outputs, values, strict=True)
        }

    def put(self, array: np.ndarray) -> TorchTensor:
        """A copy of an array on the device; see `Runtime.put`."""
        return TorchTensor(torch.tensor(array, device=self.device))

    def warm_up(self, batch: int = 1) -> None:
        """Runs once on zeros, which also compiles for that batch."""
        self.run(zeros(self.inputs, batch))

    def _tensor(self, feed: Feed) -> Tensor:
        if isinstance(feed, TorchTensor):
            return feed.tensor.to(self.device)
        array = np.ascontiguousarray(feed)
        return torch.from_numpy(array if array.flags.writeable else array.copy()).to(self.device)

    @contextmanager
    def _arithmetic(self) -> Iterator[None]:
        if self.device.type != "cuda" or self.precision in ("fp16", "bf16"):
            yield
            return
        with _TF32, precise(self.precision):
            yield


def _check_device(device: str, precision: Arithmetic) -> None:
    kind, _, index = device.partition(":")
    if kind == "cpu" and precision == "tf32":
        raise ValueError("tf32 is an arithmetic of NVIDIA GPUs: use device='cuda', or precision='fp32'")
    if kind not in ("cpu", "cuda"):
        raise ValueError(f"device must be cpu, cuda or cuda:N, got {device!r}")
    if kind == "cuda" and int(index or 0) >= torch.cuda.device_count():
        raise RuntimeUnavailableError(
            f"PyTorch {torch.__version__} finds {torch.cuda.device_count()} CUDA devices here, none for {device!r}: "
            "install a build of PyTorch for CUDA on a machine with an NVIDIA GPU, or use device='cpu'"
        )
