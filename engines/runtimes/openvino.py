"""OpenVINO on the CPU, whose 8-bit kernels make typed INT8 graphs fast there.

A graph is compiled for each batch size by itself, which is faster than one for all of them, and nothing of it is kept
on disk. Arithmetic is FP32 wherever the graph says so, also where the processor has BF16.
"""

from __future__ import annotations

import sys
import threading
from collections import OrderedDict
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Self

import numpy as np
import onnx

from engines.bundle import Bundle
from engines.bundle.preflight import HostInfo
from engines.contracts import TensorSpec
from engines.cpus import threads as allowed
from engines.errors import EngineError, first_line
from engines.runtimes.protocol import Feed, check_run, zeros
from engines.runtimes.source import open_source

# It is imported by openvino's converter, which nothing here calls, and would report to Google Analytics.
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
import openvino  # noqa: E402

_BATCHES = 2
"""The number of batch sizes that stay compiled; of more, the one that was not used for longest goes."""


@dataclass(frozen=True, eq=False)
class HostTensor:
    """A tensor in this process's memory."""

    array: np.ndarray

    @property
    def dtype(self) -> np.dtype:
        return self.array.dtype

    @property
    def shape(self) -> tuple[int, ...]:
        return self.array.shape

    def numpy(self) -> np.ndarray:
        """A copy."""
        return self.array.copy()


class OpenVINO:
    """One graph on the CPU. `run` may be called from several threads at once."""

    def __init__(
        self, model: Any, graph: str, inputs: list[TensorSpec], outputs: list[TensorSpec], threads: int
    ) -> None:
        self.graph = graph
        self.inputs = tuple(inputs)
        self.outputs = tuple(outputs)
        self._model = model
        self._threads = threads
        self._lock = threading.Lock()
        self._compiled: OrderedDict[tuple[tuple[int, ...], ...], tuple[Any, list[Any]]] = OrderedDict()

    @classmethod
    def load(
        cls,
        bundle: Bundle,
        graph: str,
        *,
        threads: int = 0,
        precision: str | None = None,
        public_key: str | Path | None = None,
    ) -> Self:
        """Loads a graph, from memory, from the very bytes that were hashed, and compiles it for one photo.

        Args:
            threads: as `engines.cpus.threads`: never more than this process may use; 0 is one per core.
            precision: of a typed graph in the bundle's `engines/`, such as "int8"; None runs the bundle's own graph.
            public_key: PEM file of the public key that must have signed the bundle.

        Raises:
            BundleError: if the graph is not in the bundle, cannot be loaded or is not what the manifest says.
            EngineError: likewise of a typed graph, or if there is none, or it was made from other weights.
            SignatureError: if a signature is required and does not hold.
        """
        count = allowed(threads)
        version = openvino.get_version().partition("-")[0]
        host = HostInfo("OpenVINO", version)
        source = open_source(bundle, graph, "openvino", host, precision=precision, public_key=public_key)
        data = source.read(source.file)
        try:
            model = _core().read_model(_whole(data, source.weights(data)))
            loaded = cls(model, graph, source.inputs, source.outputs, count)
            loaded._compile(tuple(tuple(1 if isinstance(d, str) else d for d in spec.shape) for spec in source.inputs))
        except Exception as error:  # what OpenVINO and protobuf raise has no common base
            raise source.error(f"{source.name} cannot be loaded by OpenVINO {version}: {first_line(error)}") from error
        source.check([*map(_spec, model.inputs)], [*map(_spec, model.outputs)])
        return loaded

    def run(self, feeds: Mapping[str, Feed], keep: Collection[str] = ()) -> dict[str, Any]:
        """Runs the graph; see `Runtime.run`."""
        check_run(self.graph, self.inputs, self.outputs, feeds, keep, HostTensor)
        try:
            with self._borrow(tuple(feeds[spec.name].shape for spec in self.inputs)) as request:
                request.infer({spec.name: _array(feeds[spec.name]) for spec in self.inputs}, share_inputs=True)
                # What a request gives lies in its own memory, which the next run writes to.
                values = {spec.name: request.get_tensor(spec.name).data.copy() for spec in self.outputs}
        except RuntimeError as error:
            raise EngineError(f"graph {self.graph} failed in OpenVINO: {first_line(error)}") from error
        return {name: HostTensor(value) if name in keep else value for name, value in values.items()}

    def put(self, array: np.ndarray) -> HostTensor:
        """A copy of an array; see `Runtime.put`."""
        return HostTensor(np.array(array, order="C"))

    def warm_up(self, batch: int = 1) -> None:
        """Runs once on zeros, so that the first real call pays for no compilation."""
        self.run(zeros(self.inputs, batch))

    def _compile(self, shapes: tuple[tuple[int, ...], ...]) -> tuple[Any, list[Any]]:
        """The graph for inputs of those shapes, and its requests that are idle. The lock is held, or not needed yet."""
        if shapes not in self._compiled:
            model = self._model.clone()
            model.reshape({spec.name: list(shape) for spec, shape in zip(self.inputs, shapes, strict=True)})
            settings = {
                "INFERENCE_PRECISION_HINT": "f32",
                "INFERENCE_NUM_THREADS": self._threads,
                "NUM_STREAMS": 1,
                # Other programs may share the processors.
                "ENABLE_CPU_PINNING": False,
            }
            self._compiled[shapes] = _core().compile_model(model, "CPU", settings), []
            if len(self._compiled) > _BATCHES:
                self._compiled.popitem(last=False)
        self._compiled.move_to_end(shapes)
        return self._compiled[shapes]

    @contextmanager
    def _borrow(self, shapes: tuple[tuple[int, ...], ...]) -> Iterator[Any]:
        with self._lock:
            compiled, idle = self._compile(shapes)
            request = idle.pop() if idle else compiled.create_infer_request()
        yield request
        with self._lock:
            idle.append(request)


@cache
def _core() -> Any:
    return openvino.Core()


def _array(feed: Feed) -> np.ndarray:
    return feed.array if isinstance(feed, HostTensor) else np.ascontiguousarray(feed)


def _whole(data: bytes, weights: Mapping[str, bytes]) -> bytes:
    """A model that holds its weights itself: OpenVINO would look for them beside a file."""
    model = onnx.ModelProto.FromString(data)
    for tensor in model.graph.initializer:
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            place = {entry.key: entry.value for entry in tensor.external_data}
            start = int(place.get("offset", 0))
            tensor.raw_data = weights[place["location"]][start : start + int(place["length"])]
            tensor.data_location = onnx.TensorProto.DEFAULT
            del tensor.external_data[:]
    return model.SerializeToString()


def _spec(port: Any) -> TensorSpec:
    shape = ["dynamic" if dimension.is_dynamic else dimension.get_length() for dimension in port.partial_shape]
    return TensorSpec(name=port.any_name, dtype=str(port.element_type.to_dtype()), shape=shape)
