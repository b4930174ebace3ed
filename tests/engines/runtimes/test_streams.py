"""What lies between the calls of CUDA and TensorRT: copies, reuse, capture, failures. On a stand-in for the GPU."""

from __future__ import annotations

import gc
import importlib.util
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import numpy as np
import pytest

from engines.bundle.engine_manifest import OptimizationProfile
from engines.contracts import TensorSpec
from engines.errors import EngineError, RuntimeUnavailableError
from engines.runtimes.backend import Backend
from engines.runtimes.tensorrt import TensorRT
from engines.runtimes.trt_engine import Loaded, error_recorder
from tests.engines.runtimes import fake_gpu


def _spec(name: str) -> TensorSpec:
    return TensorSpec(name=name, dtype="float32", shape=["batch", 2, 3])


@pytest.fixture
def gpu() -> Iterator[fake_gpu.Gpu]:
    if importlib.util.find_spec("pycuda"):
        pytest.skip("PyCUDA is here: the tests marked gpu use it")
    gpu = fake_gpu.Gpu()
    with fake_gpu.installed(gpu):
        yield gpu


def runtime_on(gpu: fake_gpu.Gpu, streams: int = 1, cuda_graphs: bool = True) -> TensorRT:
    from engines.runtimes import cuda

    backend = Backend("tensorrt", "TensorRT", fake_gpu.api(), None)
    entry = SimpleNamespace(
        inputs=[_spec("w"), _spec("delta_w")],
        outputs=[_spec("image")],
        profile=OptimizationProfile(min=1, opt=1, max=20),
    )
    folder = SimpleNamespace(name="tensorrt-sm86-fp16", graph=lambda name: entry)
    loaded = Loaded(backend, None, error_recorder(backend), fake_gpu.FakeEngine(gpu))
    return TensorRT(folder, "edit", loaded, cuda.device(0), streams, cuda_graphs)  # type: ignore[arg-type]


def arrays(batch: int = 1, seed: int = 0) -> dict[str, np.ndarray]:
    w, delta = np.random.default_rng(seed).normal(size=(2, batch, 2, 3)).astype(np.float32)
    return {"w": w, "delta_w": delta}


def result(feeds: dict[str, np.ndarray]) -> np.ndarray:
    return 2 * feeds["w"] + feeds["delta_w"]


def test_runs_of_several_shapes(gpu: fake_gpu.Gpu) -> None:
    runtime = runtime_on(gpu)
    for number in range(4):
        for batch in (1, 3):
            feeds = arrays(batch, number)
            assert np.array_equal(runtime.run(feeds)["image"], result(feeds))
    assert gpu.active == 0
    # A context for each shape, and one scratch memory for both.
    assert len(gpu.contexts) == 2 and len({context.scratch for context in gpu.contexts}) == 1
    # Three buffers a shape and the scratch memory, whatever the number of runs.
    assert gpu.calls["alloc"] == 7 and gpu.calls["pinned"] == 6
    # The first run of a shape is enqueued, the second captured, and then the graph is launched.
    assert gpu.calls["instantiate"] == 2 and gpu.calls["enqueue"] == 2 and gpu.calls["launch"] == 6
    assert runtime.capture_refused == {}


def test_what_stays_on_the_device_passes_no_bus(gpu: fake_gpu.Gpu) -> None:
    runtime = runtime_on(gpu)
    feeds = arrays(2)
    held = runtime.put(feeds["w"])
    kept = runtime.run({**feeds, "w": held}, keep=("image",))["image"]
    before = gpu.calls.copy()
    again = runtime.run({"w": kept, "delta_w": feeds["delta_w"]}, keep=("image",))["image"]
    moved = gpu.calls - before
    assert moved["htod"] == 1 and moved["dtoh"] == 0 and moved["dtod"] == 2
    assert again.shape == (2, 2, 3) and again.dtype == np.float32
    assert np.array_equal(kept.numpy(), result(feeds))
    assert np.array_equal(again.numpy(), 2 * result(feeds) + feeds["delta_w"])
    assert np.array_equal(held.numpy(), feeds["w"])


def test_dropped_tensors_give_their_memory_to_the_next(gpu: fake_gpu.Gpu) -> None:
    runtime = runtime_on(gpu)
    for _ in range(3):
        runtime.run(arrays(), keep=("image",))
    allocated = gpu.calls["alloc"]
    for _ in range(20):
        runtime.run(arrays(), keep=("image",))
    assert gpu.calls["alloc"] == allocated and gpu.calls["free"] == 0
    # Dropped by another thread: no call is made there, where no context is current.
    tensors = [runtime.put(arrays()["w"]) for _ in range(3)]
    thread = threading.Thread(target=tensors.clear)
    thread.start()
    thread.join()
    assert gpu.active == 0


def test_capture_that_is_refused_falls_back_and_says_so(gpu: fake_gpu.Gpu) -> None:
    gpu.refuse_capture = True
    runtime = runtime_on(gpu)
    for number in range(3):
        feeds = arrays(2, number)
        assert np.array_equal(runtime.run(feeds)["image"], result(feeds))
    assert gpu.calls["enqueue"] == 3 and gpu.calls["launch"] == 0
    [(shapes, reason)] = runtime.capture_refused.items()
    assert shapes == ((2, 2, 3), (2, 2, 3))
    assert "cuStreamBeginCapture_v2: operation not permitted when stream is capturing" in reason
    plain = runtime_on(gpu, cuda_graphs=False)
    plain.warm_up()
    assert plain.capture_refused == {} and gpu.calls["instantiate"] == 0


def test_warming_up_captures(gpu: fake_gpu.Gpu) -> None:
    runtime = runtime_on(gpu)
    runtime.warm_up(4)
    assert gpu.calls["instantiate"] == 1
    runtime.run(arrays(4))
    assert gpu.calls["enqueue"] == 1 and gpu.calls["launch"] == 2


def test_the_librarys_words_reach_the_user_and_the_next_run_is_sound(gpu: fake_gpu.Gpu) -> None:
    runtime = runtime_on(gpu)
    gpu.fail_enqueue = "IExecutionContext::enqueueV3: Error Code 3: no kernel image\nIn run at runner.cpp:12"
    with pytest.raises(EngineError, match=r"graph edit: enqueueV3 failed: .*no kernel image") as caught:
        runtime.run(arrays())
    assert "\n" not in str(caught.value)
    assert gpu.active == 0 and gpu.capturing is None
    gpu.fail_enqueue = None
    for _ in range(3):
        assert np.array_equal(runtime.run(arrays())["image"], result(arrays()))
    # The same while it is captured: it is enqueued instead, with the first error out of the way.
    other = runtime_on(gpu)
    other.run(arrays(3))
    gpu.fail_enqueue = "not capturable"
    with pytest.raises(EngineError, match="not capturable"):
        other.run(arrays(3))
    gpu.fail_enqueue = None
    assert np.array_equal(other.run(arrays(3))["image"], result(arrays(3)))
    assert list(other.capture_refused) == [((3, 2, 3), (3, 2, 3))]


def test_no_memory_left(gpu: fake_gpu.Gpu) -> None:
    runtime = runtime_on(gpu)
    runtime.run(arrays())
    gpu.limit = sum(array.nbytes for array in gpu.memory.values()) + 100
    with pytest.raises(EngineError, match=r"the GPU has no .* MB left \(5 of 8 MB are free\): take smaller batches"):
        runtime.run(arrays(8))
    assert np.array_equal(runtime.run(arrays())["image"], result(arrays()))
    # What was dropped is given back before it comes to that.
    gpu.limit = None
    tensors = [runtime.put(np.zeros((8, 2, 3), np.float32)) for _ in range(4)]
    gpu.limit = sum(array.nbytes for array in gpu.memory.values())
    del tensors
    gc.collect()
    runtime.put(np.zeros((16, 2, 3), np.float32))
    assert gpu.calls["free"] > 0


def test_only_so_many_shapes_are_kept_ready(gpu: fake_gpu.Gpu) -> None:
    runtime = runtime_on(gpu)
    for batch in (*range(1, 11), 10, 1):
        feeds = arrays(batch)
        assert np.array_equal(runtime.run(feeds)["image"], result(feeds))
    # Ten shapes, of which the first had gone when it came again.
    assert len(gpu.contexts) == 11


def test_as_many_runs_at_once_as_streams(gpu: fake_gpu.Gpu) -> None:
    runtime = runtime_on(gpu, streams=2)
    first = runtime._borrow()
    second = runtime._borrow()
    with first as a, second as b:
        assert a is not b
        assert runtime._idle.empty()
    with ThreadPoolExecutor(4) as pool:
        streams = [stream for stream in pool.map(lambda _: id(_stream(runtime)), range(8))]
    assert set(streams) <= {id(a), id(b)}


def _stream(runtime: TensorRT) -> object:
    with runtime._borrow() as stream:
        return stream


def test_a_closed_engine(gpu: fake_gpu.Gpu) -> None:
    runtime = runtime_on(gpu)
    runtime.run(arrays())
    runtime.close()
    for _ in range(2):
        with pytest.raises(EngineError, match="its engine was closed"):
            runtime.run(arrays())
    unused = runtime_on(gpu)
    unused.close()
    with pytest.raises(EngineError, match="its engine was closed"):
        unused.run(arrays())


def test_wrong_feeds(gpu: fake_gpu.Gpu) -> None:
    runtime = runtime_on(gpu)
    with pytest.raises(ValueError, match=r"graph edit: batch 21 outside 1\.\.20"):
        runtime.run(arrays(21))
    with pytest.raises(ValueError, match="input w is float64"):
        runtime.run({**arrays(), "w": runtime.put(np.zeros((1, 2, 3)))})
    from engines.runtimes import cuda

    elsewhere = cuda.put(cuda.Device(0), arrays()["w"])
    with pytest.raises(ValueError, match="input w lies on another GPU"):
        runtime.run({**arrays(), "w": elsewhere})
    with pytest.raises(RuntimeUnavailableError, match="there is no GPU 3 here; there are 1, counted from 0"):
        cuda.Device(3)
    assert gpu.calls["enqueue"] == 0
