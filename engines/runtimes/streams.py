"""One stream of a TensorRT engine: execution contexts, their memory and their CUDA graphs."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np

from engines.contracts import TensorSpec
from engines.errors import EngineError
from engines.runtimes.cuda import Buffer, CudaTensor, Device, Graph, checked, copy_in, copy_out
from engines.runtimes.protocol import Feed, Runtime, extents
from engines.runtimes.trt_engine import Loaded, error_recorder

_SHAPES = 8
"""The number of sets of input shapes that a stream keeps ready; of more, the one that was not used for longest goes."""


class _Ready:
    """An execution context with its shapes and addresses set for good, and what it reads and writes."""

    def __init__(self, context: Any, recorder: Any, graph: str) -> None:
        self.context = context
        self.recorder = recorder
        self.device: dict[str, Buffer] = {}
        self.host: dict[str, np.ndarray] = {}
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.captured: Graph | None = None
        self.runs = 0
        self._graph = graph

    def expect(self, done: Any, what: str) -> None:
        """Raises an EngineError with the library's own words if a call did not do what it should."""
        if not done or self.recorder.num_errors():
            raise EngineError(f"graph {self._graph}: {what} failed: {self.recorder.text()}")


class ExecutionStream:
    """One stream. One thread at a time; made, used and closed while the device's context is current."""

    def __init__(
        self,
        runtime: Runtime,
        loaded: Loaded,
        device: Device,
        cuda_graphs: bool,
        refused: dict[tuple[tuple[int, ...], ...], str],
    ) -> None:
        self._graph = runtime.graph
        self._inputs = runtime.inputs
        self._outputs = runtime.outputs
        self._refused = refused
        self._loaded: Loaded | None = loaded
        self._device = device
        self._cuda_graphs = cuda_graphs
        self._ready: OrderedDict[tuple[tuple[int, ...], ...], _Ready] = OrderedDict()
        self._stream: Any = device.stream()
        # For any shape of the profile, so that it stays where captured graphs look for it.
        self._scratch_size = loaded.engine.device_memory_size_v2
        self._scratch = device.allocate(self._scratch_size) if self._scratch_size else None

    def run(self, feeds: Mapping[str, Feed], dynamic: Mapping[str, int], keep: Collection[str]) -> dict[str, Any]:
        """Copies in, runs and copies out; returns once all of it is done."""
        with self._device.active():
            key = tuple(feeds[spec.name].shape for spec in self._inputs)
            ready = self._ready.pop(key, None) or self._prepare(feeds, dynamic)
            try:
                result = self._run(ready, key, feeds, keep)
            except BaseException:
                # What is left of it may be half done: it is made anew.
                with checked():
                    self._stream.synchronize()
                raise
            self._ready[key] = ready
            if len(self._ready) > _SHAPES:
                self._ready.popitem(last=False)
            return result

    def close(self) -> None:
        """Frees everything; the device's context must be current."""
        self._ready.clear()
        self._loaded = self._stream = self._scratch = None

    def _run(
        self, ready: _Ready, key: tuple[tuple[int, ...], ...], feeds: Mapping[str, Feed], keep: Collection[str]
    ) -> dict[str, Any]:
        for spec in self._inputs:
            feed = feeds[spec.name]
            if isinstance(feed, CudaTensor):
                copy_in(ready.device[spec.name], feed.buffer, self._stream)
            else:
                host = self._host(ready, spec)
                np.copyto(host, feed)  # type: ignore[arg-type]
                copy_in(ready.device[spec.name], host, self._stream)
        self._launch(ready, key)
        on_device: dict[str, Buffer] = {}
        for spec in self._outputs:
            made = ready.device[spec.name]
            if spec.name in keep:
                on_device[spec.name] = self._device.allocate(made.size)
                copy_in(on_device[spec.name], made, self._stream)
            else:
                copy_out(self._host(ready, spec), made, self._stream)
        self._stream.synchronize()
        ready.expect(True, "the run")
        ready.runs += 1
        return {
            spec.name: CudaTensor(self._device, on_device[spec.name], np.dtype(spec.dtype), ready.shapes[spec.name])
            if spec.name in keep
            else self._host(ready, spec).copy()
            for spec in self._outputs
        }

    def _launch(self, ready: _Ready, key: tuple[tuple[int, ...], ...]) -> None:
        def enqueue() -> None:
            ready.expect(ready.context.execute_async_v3(self._stream.handle), "enqueueV3")

        # The first run of a context finishes setting it up, which a graph must not contain.
        if self._cuda_graphs and ready.runs and ready.captured is None and key not in self._refused:
            try:
                if hasattr(ready.context, "is_stream_capturable"):
                    ready.expect(ready.context.is_stream_capturable(self._stream.handle), "is_stream_capturable")
                ready.captured = Graph(self._stream, enqueue)
            except EngineError as error:
                # What the attempt left in the recorder is no fault of the run that follows.
                reasons = [str(error), ready.recorder.text()] if ready.recorder.num_errors() else [str(error)]
                self._refused[key] = "; ".join(reasons)
        if ready.captured is not None:
            ready.captured.launch()
        else:
            enqueue()

    def _prepare(self, feeds: Mapping[str, Feed], dynamic: Mapping[str, int]) -> _Ready:
        if self._loaded is None:
            raise EngineError(f"graph {self._graph}: its engine was closed")
        context = self._context(self._loaded)
        if context is None:
            raise EngineError(f"graph {self._graph}: there is no execution context: {self._loaded.recorder.text()}")
        recorder = context.error_recorder = error_recorder(self._loaded.backend)
        ready = _Ready(context, recorder, self._graph)
        if self._scratch is not None:
            context.set_device_memory(self._scratch.address, self._scratch_size)
        for spec in self._inputs:
            shape = ready.shapes[spec.name] = tuple(feeds[spec.name].shape)
            ready.expect(context.set_input_shape(spec.name, shape), f"set_input_shape of {spec.name} to {shape}")
        if unset := context.infer_shapes():
            raise EngineError(f"graph {self._graph}: {', '.join(unset)} has no shape: {recorder.text()}")
        for spec in self._outputs:
            shape = ready.shapes[spec.name] = tuple(context.get_tensor_shape(spec.name))
            if shape != extents(spec, dynamic):
                raise EngineError(f"graph {self._graph}: the engine gives {spec.name} as {shape} instead of {spec}")
        for spec in (*self._inputs, *self._outputs):
            size = int(np.prod(ready.shapes[spec.name])) * np.dtype(spec.dtype).itemsize
            buffer = ready.device[spec.name] = self._device.allocate(size)
            ready.expect(context.set_tensor_address(spec.name, buffer.address), f"set_tensor_address of {spec.name}")
        return ready

    def _context(self, loaded: Loaded) -> Any:
        api = loaded.backend.api
        user_managed = api.ExecutionContextAllocationStrategy.USER_MANAGED
        if not loaded.backend.rtx:
            return loaded.engine.create_execution_context(user_managed)
        config = loaded.engine.create_runtime_config()
        config.set_execution_context_allocation_strategy(user_managed)
        # Kernels for the very shapes are compiled at the first run, not behind a graph captured without them.
        config.dynamic_shapes_kernel_specialization_strategy = api.DynamicShapesKernelSpecializationStrategy.EAGER
        return loaded.engine.create_execution_context(config)

    def _host(self, ready: _Ready, spec: TensorSpec) -> np.ndarray:
        if spec.name not in ready.host:
            ready.host[spec.name] = self._device.pinned(ready.shapes[spec.name], np.dtype(spec.dtype))
        return ready.host[spec.name]
