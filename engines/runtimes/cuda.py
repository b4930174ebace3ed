"""The CUDA calls of the TensorRT runtime: PyCUDA, and the driver library for stream capture, which PyCUDA lacks.

PyCUDA raises for a call that fails; what the driver library returns is checked here. Either becomes an `EngineError`.
PyCUDA frees memory only while its context is current, so that buffers go back to a pool, from whichever thread drops
them, and the pool frees them while a context is. Nothing is allocated or freed while a stream is captured.
By hand: cuda-core 1.2 pools too, but takes cuda-bindings (48 MB with it); Polygraphy 0.53 neither pools nor captures.
"""

from __future__ import annotations

import atexit
import ctypes
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import pycuda.driver as driver

from engines.errors import EngineError, RuntimeUnavailableError, first_line

_IDLE_BYTES = 256 * 2**20
"""The memory that the pool keeps for the next buffers of the same size."""

_CAPTURE_THREAD_LOCAL = 1
"""CUDA's mode of capture in which other threads may allocate meanwhile."""


@contextmanager
def checked() -> Iterator[None]:
    """Turns PyCUDA's errors into an EngineError of one line."""
    try:
        yield
    except driver.Error as error:
        raise EngineError(f"CUDA failed: {first_line(error)}") from error


class Device:
    """One GPU with its primary context, which TensorRT and other libraries of the process share."""

    def __init__(self, index: int) -> None:
        try:
            driver.init()
            count = driver.Device.count()
            if 0 <= index < count:
                self._device = driver.Device(index)
                self._context = self._device.retain_primary_context()
        except driver.Error as error:
            raise RuntimeUnavailableError(
                f"CUDA does not start here ({first_line(error)}): run on a machine with an NVIDIA GPU and its driver, "
                "or on the CPU with --runtime onnxruntime"
            ) from error
        if not 0 <= index < count:
            raise RuntimeUnavailableError(f"there is no GPU {index} here; there are {count}, counted from 0")
        self.index = index
        self._idle: dict[int, list[Any]] = {}
        self._idle_bytes = 0
        self._returned: deque[tuple[int, Any]] = deque()
        self._lock = threading.Lock()
        atexit.register(self._drain)

    @property
    def compute_capability(self) -> str:
        """ "8.6"."""
        major, minor = self._device.compute_capability()
        return f"{major}.{minor}"

    @contextmanager
    def active(self) -> Iterator[None]:
        """Makes the context current in this thread, for PyCUDA and for TensorRT."""
        with checked():
            self._context.push()
            try:
                yield
            finally:
                driver.Context.pop()

    def allocate(self, size: int) -> Buffer:
        """Device memory of some bytes. The context must be current.

        Raises:
            EngineError: if there is none left.
        """
        self._collect(_IDLE_BYTES)
        with self._lock:
            idle = self._idle.get(size)
            allocation = idle.pop() if idle else None
            if allocation is not None:
                self._idle_bytes -= size
        if allocation is None:
            try:
                allocation = driver.mem_alloc(size)
            except driver.MemoryError:
                self._collect(0)
                try:
                    allocation = driver.mem_alloc(size)
                except driver.MemoryError as error:
                    free, total = driver.mem_get_info()
                    raise EngineError(
                        f"the GPU has no {size / 1e6:.1f} MB left ({free / 1e6:.0f} of {total / 1e6:.0f} MB are free): "
                        "take smaller batches, fewer streams, or an engine built with --memory-budget"
                    ) from error
        return Buffer(size, int(allocation), allocation, self._returned)

    def pinned(self, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
        """A page-locked array on the host. The context must be current, here and when it is freed."""
        with checked():
            return driver.pagelocked_empty(shape, dtype)

    def stream(self) -> Any:
        """A new stream. The context must be current, here and when it is freed."""
        with checked():
            return driver.Stream()

    def _collect(self, keep: int) -> None:
        """Takes back what was dropped, and frees what goes beyond `keep` bytes."""
        with self._lock:
            while self._returned:
                size, allocation = self._returned.popleft()
                self._idle.setdefault(size, []).append(allocation)
                self._idle_bytes += size
            while self._idle_bytes > keep:
                size, idle = next((s, i) for s, i in self._idle.items() if i)
                idle.pop().free()
                self._idle_bytes -= size

    def _drain(self) -> None:
        # At the end of the process the driver may be gone already, and then all memory is.
        with suppress(EngineError), self.active():
            self._collect(0)


_devices: dict[int, Device] = {}
_devices_lock = threading.Lock()


def device(index: int) -> Device:
    """The GPU of that number, the same object each time.

    Raises:
        RuntimeUnavailableError: if there is none, or no driver.
    """
    with _devices_lock:
        if index not in _devices:
            _devices[index] = Device(index)
        return _devices[index]


class Buffer:
    """Device memory that goes back to its pool when it is dropped."""

    def __init__(self, size: int, address: int, allocation: Any, returned: deque[tuple[int, Any]]) -> None:
        self.size = size
        self.address = address
        self._allocation = allocation
        self._returned = returned

    def __del__(self) -> None:
        # Any thread, at any time, even while a stream is captured: no CUDA call here.
        self._returned.append((self.size, self._allocation))


@dataclass(frozen=True, eq=False)
class CudaTensor:
    """A dense tensor in device memory that no stream writes to any more."""

    device: Device
    buffer: Buffer
    dtype: np.dtype
    shape: tuple[int, ...]

    def numpy(self) -> np.ndarray:
        """A copy on the host."""
        array = np.empty(self.shape, self.dtype)
        with self.device.active():
            driver.memcpy_dtoh(array, self.buffer.address)
        return array


def put(on: Device, array: np.ndarray) -> CudaTensor:
    """A copy of an array in device memory."""
    array = np.ascontiguousarray(array)
    with on.active():
        buffer = on.allocate(array.nbytes)
        driver.memcpy_htod(buffer.address, array)
        # From pageable memory the copy may return once it is staged.
        driver.Context.synchronize()
    return CudaTensor(on, buffer, array.dtype, array.shape)


def copy_in(to: Buffer, source: np.ndarray | Buffer, stream: Any) -> None:
    """Enqueues a copy of a page-locked array or another buffer of the same size."""
    if isinstance(source, Buffer):
        driver.memcpy_dtod_async(to.address, source.address, to.size, stream)
    else:
        driver.memcpy_htod_async(to.address, source, stream)


def copy_out(to: np.ndarray, source: Buffer, stream: Any) -> None:
    """Enqueues a copy into a page-locked array."""
    driver.memcpy_dtoh_async(to, source.address, stream)


class Graph:
    """Work captured from a stream, ready to be launched. The context must be current when it is dropped."""

    def __init__(self, stream: Any, enqueue: Callable[[], None]) -> None:
        """Captures what `enqueue` puts on the stream.

        Raises:
            EngineError: if something in it cannot be captured; the stream is then as it was before.
        """
        self._stream = ctypes.c_void_p(stream.handle)
        self._executable = ctypes.c_void_p()
        graph = ctypes.c_void_p()
        _call("cuStreamBeginCapture_v2", self._stream, ctypes.c_int(_CAPTURE_THREAD_LOCAL))
        try:
            enqueue()
        except BaseException:
            # What made it fail is told, not that the capture could not be ended.
            if not _library().cuStreamEndCapture(self._stream, ctypes.byref(graph)) and graph:
                _library().cuGraphDestroy(graph)
            raise
        _call("cuStreamEndCapture", self._stream, ctypes.byref(graph))
        try:
            _call("cuGraphInstantiateWithFlags", ctypes.byref(self._executable), graph, ctypes.c_ulonglong(0))
        finally:
            _call("cuGraphDestroy", graph)

    def launch(self) -> None:
        """Enqueues it once more."""
        _call("cuGraphLaunch", self._executable, self._stream)

    def __del__(self) -> None:
        if self._executable:
            _library().cuGraphExecDestroy(self._executable)


@cache
def _library() -> ctypes.CDLL:
    """The library that PyCUDA has loaded."""
    return ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")


def _call(name: str, *arguments: Any) -> None:
    function = getattr(_library(), name, None)
    if function is None:
        raise EngineError(f"the NVIDIA driver here has no {name}: update it to one for CUDA 11.4 or newer")
    if status := function(*arguments):
        text = ctypes.c_char_p()
        _library().cuGetErrorString(status, ctypes.byref(text))
        raise EngineError(f"CUDA failed: {name}: {(text.value or b'').decode() or status}")
