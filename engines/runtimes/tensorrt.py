"""TensorRT and TensorRT-RTX: engines from a bundle's engine folders, on a GPU.

For each stream and set of input shapes there is an execution context with device buffers, page-locked host arrays and
a CUDA graph of its own, all kept for the next run; the contexts of a stream share their scratch memory. An engine is
native code: its bytes are parsed once their digest, and the folder's signature where one is required, were checked and
it fits the machine. Code in an engine that would run on the host stays forbidden, as it is by default.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np

from engines.bundle import Bundle
from engines.bundle.folders import EngineFolder
from engines.bundle.preflight import HostInfo
from engines.bundle.signing import open_engine
from engines.errors import EngineError, RuntimeUnavailableError, first_line
from engines.runtimes.backend import load
from engines.runtimes.protocol import Feed, check_run, zeros
from engines.runtimes.trt_engine import (
    Loaded,
    built_budget,
    check_profile,
    check_tensors,
    deserialize,
    driver_version,
    stream_weights,
)

if TYPE_CHECKING:
    from engines.runtimes.cuda import CudaTensor, Device
    from engines.runtimes.streams import ExecutionStream


class TensorRT:
    """One engine. `run` may be called from several threads; as many run at once as there are streams."""

    name: ClassVar[str] = "tensorrt"

    def __init__(
        self,
        folder: EngineFolder,
        graph: str,
        loaded: Loaded,
        device: Device,
        streams: int = 1,
        cuda_graphs: bool = True,
    ) -> None:
        entry = folder.graph(graph)
        self.graph = graph
        self.folder = folder.name
        """The name of the engine folder it came from."""
        self.inputs = tuple(entry.inputs)
        self.outputs = tuple(entry.outputs)
        self.profile = entry.profile
        self.capture_refused: dict[tuple[tuple[int, ...], ...], str] = {}
        """The reasons why a CUDA graph could not be captured, by input shapes; such shapes run by enqueueV3."""
        self._device = device
        self._loaded: Loaded | None = loaded
        self._cuda_graphs = cuda_graphs
        self._idle: queue.LifoQueue[ExecutionStream | None] = queue.LifoQueue()
        self._made: list[ExecutionStream] = []
        self._lock = threading.Lock()
        for _ in range(streams):
            self._idle.put(None)

    @classmethod
    def load(
        cls,
        bundle: Bundle,
        graph: str,
        *,
        precision: str | None = None,
        target: str | None = None,
        device: int = 0,
        streams: int = 1,
        cuda_graphs: bool = True,
        memory_budget: int | None = None,
        public_key: str | Path | None = None,
    ) -> Self:
        """Loads the engine of a graph.

        Args:
            precision: of the engine; None takes the first there is of fp16, fp32, int8 and fp8.
            target: of the engine, such as "sm86"; None takes one that fits the GPU.
            device: number of the GPU.
            streams: runs that may go on at once; each takes scratch memory of its own.
            cuda_graphs: capture a CUDA graph per set of input shapes.
            memory_budget: most bytes of device memory for weights and scratch memory of one stream, with an engine
                that was built to stream its weights; None takes the budget it was built for, if any.
            public_key: PEM file of the public key that must have signed the bundle.

        Raises:
            RuntimeUnavailableError: if the library, PyCUDA or a GPU is missing.
            EngineError: if there is no such engine, it is damaged, was built for another machine or other weights,
                does not load, or needs more memory than there is.
            SignatureError: if a signature is required and does not hold.
            ValueError: if `streams` or `memory_budget` is not positive.
        """
        if streams < 1:
            raise ValueError(f"streams must be 1 or more, got {streams}")
        if memory_budget is not None and memory_budget < 1:
            raise ValueError(f"memory_budget must be 1 byte or more, got {memory_budget}")
        backend = load(cls.name)
        gpu = _device(cls.name, device)
        host = HostInfo(backend.title, backend.version, gpu.compute_capability, driver_version())
        folder = open_engine(bundle, cls.name, graph, host, precision=precision, target=target, public_key=public_key)
        entry = folder.graph(graph)
        data = folder.read(entry.file)
        with gpu.active():
            name = f"{bundle.name}: engines/{folder.name}/{entry.file}"
            loaded = deserialize(backend, data, name)
            check_tensors(loaded.engine, entry, name)
            if memory_budget is None:
                memory_budget = built_budget(folder)
            if memory_budget is not None:
                stream_weights(loaded.engine, entry, memory_budget, folder.name)
        return cls(folder, graph, loaded, gpu, streams, cuda_graphs)

    def run(self, feeds: Mapping[str, Feed], keep: Collection[str] = ()) -> dict[str, Any]:
        """Runs the engine; see `Runtime.run`.

        Raises:
            ValueError: also for a batch outside the engine's profile.
        """
        from engines.runtimes.cuda import CudaTensor

        dynamic = check_run(self.graph, self.inputs, self.outputs, feeds, keep, CudaTensor)
        check_profile(self.graph, self.profile, dynamic)
        for name, feed in feeds.items():
            if isinstance(feed, CudaTensor) and feed.device is not self._device:
                raise ValueError(f"graph {self.graph}: input {name} lies on another GPU")
        with self._borrow() as stream:
            return stream.run(feeds, dynamic, keep)

    def put(self, array: np.ndarray) -> CudaTensor:
        """A copy of an array in device memory; see `Runtime.put`."""
        from engines.runtimes.cuda import put

        return put(self._device, array)

    def warm_up(self, batch: int = 1) -> None:
        """Runs on zeros until the CUDA graph of that batch is captured."""
        for _ in range(2):
            self.run(zeros(self.inputs, batch))

    def close(self) -> None:
        """Frees contexts, buffers and the engine; none may be running."""
        with self._lock, self._device.active():
            while self._made:
                self._made.pop().close()
            self._loaded = None

    def __del__(self) -> None:
        # Contexts and streams are freed while the CUDA context is current, so not later than here. At the end of the
        # process the driver may be gone already, which then frees everything itself.
        with suppress(Exception):
            self.close()

    @contextmanager
    def _borrow(self) -> Iterator[ExecutionStream]:
        stream = self._idle.get()
        try:
            if stream is None:
                stream = self._new_stream()
            yield stream
        finally:
            self._idle.put(stream)

    def _new_stream(self) -> ExecutionStream:
        from engines.runtimes.streams import ExecutionStream

        with self._lock, self._device.active():
            if self._loaded is None:
                raise EngineError(f"graph {self.graph}: its engine was closed")
            stream = ExecutionStream(self, self._loaded, self._device, self._cuda_graphs, self.capture_refused)
            self._made.append(stream)
            return stream


class TensorRTRTX(TensorRT):
    """One TensorRT-RTX engine."""

    name = "tensorrt-rtx"


def _device(runtime: str, index: int) -> Device:
    try:
        from engines.runtimes import cuda
    except ImportError as error:
        raise RuntimeUnavailableError(
            f"runtime {runtime} needs PyCUDA and an NVIDIA driver, and PyCUDA cannot be imported: {first_line(error)}"
        ) from error
    return cuda.device(index)
