"""A stand-in for a GPU, where there is none: PyCUDA's calls on host memory, and an "engine" that doubles its input.

It stands for the parts that cannot run without a GPU, so that what lies between them can be tested: which copies are
made, what is reused, what is captured and what happens when a call fails. Work on a stream is done at once, unless the
stream is captured.
"""

from __future__ import annotations

import sys
import types
from collections import Counter
from collections.abc import Callable
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import numpy as np


class Gpu:
    """Memory by address, calls by name, and what is to fail."""

    def __init__(self) -> None:
        self.memory: dict[int, np.ndarray] = {}
        self.calls: Counter[str] = Counter()
        self.limit: int | None = None
        self.active = 0
        self.capturing: list[Callable[[], None]] | None = None
        self.graphs: dict[int, list[Callable[[], None]]] = {}
        self.refuse_capture = False
        self.contexts: list[FakeContext] = []
        self.fail_enqueue: str | None = None

    def do(self, name: str, work: Callable[[], None]) -> None:
        assert self.active, f"{name} without a current context"
        if self.capturing is not None:
            self.capturing.append(work)
        else:
            self.calls[name] += 1
            work()

    def bytes(self, address: int, size: int) -> np.ndarray:
        array = self.memory[int(address)]
        assert array.nbytes == size, "a copy of another size than the buffer"
        return array

    # What PyCUDA offers.

    def module(self) -> types.ModuleType:
        gpu = self
        module = types.ModuleType("pycuda.driver")

        class Error(Exception):
            pass

        class MemoryError_(Error):
            pass

        class Allocation:
            def __init__(self, size: int) -> None:
                used = sum(array.nbytes for array in gpu.memory.values())
                if gpu.limit is not None and used + size > gpu.limit:
                    raise MemoryError_("cuMemAlloc failed: out of memory")
                assert gpu.active and gpu.capturing is None
                gpu.calls["alloc"] += 1
                array = np.zeros(size, np.uint8)
                self.address = array.ctypes.data
                gpu.memory[self.address] = array

            def __int__(self) -> int:
                return self.address

            def free(self) -> None:
                assert gpu.active and gpu.capturing is None
                gpu.calls["free"] += 1
                del gpu.memory[self.address]

        class Context:
            def push(self) -> None:
                gpu.active += 1

            @staticmethod
            def pop() -> None:
                gpu.active -= 1

            @staticmethod
            def synchronize() -> None:
                gpu.calls["synchronize"] += 1

        class Device:
            def __init__(self, index: int) -> None:
                self.index = index

            @staticmethod
            def count() -> int:
                return 1

            def retain_primary_context(self) -> Context:
                return Context()

            def compute_capability(self) -> tuple[int, int]:
                return (8, 6)

        class Stream:
            handle = 77

            def synchronize(self) -> None:
                gpu.calls["synchronize"] += 1

        def raw(array: np.ndarray) -> np.ndarray:
            return array.reshape(-1).view(np.uint8)

        def htod(to: int, array: np.ndarray, stream: Any = None) -> None:
            gpu.do("htod", lambda: np.copyto(gpu.bytes(to, array.nbytes), raw(array)))

        def dtoh(array: np.ndarray, source: int, stream: Any = None) -> None:
            gpu.do("dtoh", lambda: np.copyto(raw(array), gpu.bytes(source, array.nbytes)))

        def dtod(to: int, source: int, size: int, stream: Any = None) -> None:
            gpu.do("dtod", lambda: np.copyto(gpu.bytes(to, size), gpu.bytes(source, size)))

        def pagelocked_empty(shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
            assert gpu.active
            gpu.calls["pinned"] += 1
            return np.empty(shape, dtype)

        module.__dict__.update(
            Error=Error,
            MemoryError=MemoryError_,
            Device=Device,
            Context=Context,
            Stream=Stream,
            init=lambda: None,
            mem_alloc=Allocation,
            mem_get_info=lambda: (5_000_000, 8_000_000),
            memcpy_htod=htod,
            memcpy_htod_async=htod,
            memcpy_dtoh=dtoh,
            memcpy_dtoh_async=dtoh,
            memcpy_dtod_async=dtod,
            pagelocked_empty=pagelocked_empty,
        )
        return module

    # What the driver library offers.

    def library(self) -> Any:
        gpu = self

        def begin(stream: Any, mode: Any) -> int:
            if gpu.refuse_capture:
                return 900
            gpu.capturing = []
            return 0

        def end(stream: Any, graph: Any) -> int:
            work, gpu.capturing = gpu.capturing, None
            number = len(gpu.graphs) + 1
            gpu.graphs[number] = work or []
            graph._obj.value = number
            return 0

        def instantiate(executable: Any, graph: Any, flags: Any) -> int:
            executable._obj.value = graph.value
            gpu.calls["instantiate"] += 1
            return 0

        def launch(executable: Any, stream: Any) -> int:
            gpu.calls["launch"] += 1
            for work in gpu.graphs[executable.value]:
                work()
            return 0

        def text(status: int, to: Any) -> int:
            to._obj.value = b"operation not permitted when stream is capturing"
            return 0

        return SimpleNamespace(
            cuStreamBeginCapture_v2=begin,
            cuStreamEndCapture=end,
            cuGraphInstantiateWithFlags=instantiate,
            cuGraphLaunch=launch,
            cuGraphDestroy=lambda graph: 0,
            cuGraphExecDestroy=lambda executable: 0,
            cuGetErrorString=text,
        )


class FakeEngine:
    """Gives `image` = 2 x `w` + `delta_w` of any batch, as an engine of TensorRT would be asked to."""

    device_memory_size_v2 = 1 << 10
    streamable_weights_size = 0

    def __init__(self, gpu: Gpu) -> None:
        self.gpu = gpu

    def create_execution_context(self, strategy: Any) -> FakeContext:
        context = FakeContext(self.gpu)
        self.gpu.contexts.append(context)
        return context


class FakeContext:
    """An execution context: shapes and addresses are set once, enqueues read and write at the addresses."""

    error_recorder: Any = None

    def __init__(self, gpu: Gpu) -> None:
        self.gpu = gpu
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.addresses: dict[str, int] = {}
        self.scratch: int | None = None

    def set_device_memory(self, address: int, size: int) -> None:
        self.gpu.bytes(address, size)
        self.scratch = address

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        self.shapes[name] = shape
        return True

    def infer_shapes(self) -> list[str]:
        return [name for name in ("w", "delta_w") if name not in self.shapes]

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return self.shapes["w"]

    def set_tensor_address(self, name: str, address: int) -> bool:
        self.addresses[name] = address
        return True

    def execute_async_v3(self, stream: int) -> bool:
        if self.gpu.fail_enqueue is not None:
            self.error_recorder.report_error(1, self.gpu.fail_enqueue)
            return False

        def work() -> None:
            memory = {name: self.gpu.memory[address].view(np.float32) for name, address in self.addresses.items()}
            memory["image"][:] = 2 * memory["w"] + memory["delta_w"]

        self.gpu.do("enqueue", work)
        return True


class FakeRecorder:
    """The interface that TensorRT lets an application implement."""

    def __init__(self) -> None:
        pass


def api() -> Any:
    """What the runtime uses of the library itself."""
    return SimpleNamespace(
        IErrorRecorder=FakeRecorder, ExecutionContextAllocationStrategy=SimpleNamespace(USER_MANAGED="user managed")
    )


@contextmanager
def installed(gpu: Gpu):
    """Makes `engines.runtimes.cuda` import with this GPU."""
    import engines.runtimes as runtimes

    ours = ("cuda", "streams")
    names = ("pycuda", "pycuda.driver", *(f"engines.runtimes.{name}" for name in ours))

    def forget() -> dict[str, Any]:
        for name in ours:
            vars(runtimes).pop(name, None)
        return {name: sys.modules.pop(name) for name in names if name in sys.modules}

    before = forget()
    package = types.ModuleType("pycuda")
    package.driver = gpu.module()  # type: ignore[attr-defined]
    sys.modules["pycuda"] = package
    sys.modules["pycuda.driver"] = package.driver
    try:
        from engines.runtimes import cuda

        cuda._library = gpu.library  # type: ignore[assignment]
        yield cuda
    finally:
        forget()
        sys.modules.update(before)
