"""Builds one engine with TensorRT's Python bindings, or says what this machine builds for. Run as a child process.

A child, so that device memory and the driver's files are gone before tritonserver starts, and so that a crash of the
builder is an error message.

    python3 -m serving.deploy.build describe MODULE
    python3 -m serving.deploy.build engine MODULE MODEL.onnx OUT.plan MIN:OPT:MAX SM [MEMORY]
"""

from __future__ import annotations

import ctypes
import ctypes.util
import importlib
import json
import sys
from pathlib import Path
from typing import Any

LIBRARIES = ("libnvinfer.so.11", "libnvinfer.so.10")
"""TensorRT as Triton's backend loads it, where the dynamic linker's cache does not name it."""


def describe(module: str) -> dict[str, Any]:
    """Versions of the library and of the bindings, None where they are absent, and the compute capability by GPU."""
    try:
        bindings = importlib.import_module(module).__version__
    except (ImportError, OSError, RuntimeError):
        bindings = None
    return {"library": library_version(), "bindings": bindings, "gpus": gpus()}


def library_version(*names: str) -> str | None:
    """Version of TensorRT's library, such as "11.2.0.5"; None if there is none, or it is older than 10."""
    for name in names or (ctypes.util.find_library("nvinfer"), *LIBRARIES):
        if name is None:
            continue
        try:
            library = ctypes.CDLL(name)
            parts = [getattr(library, f"getInferLib{part}Version")() for part in ("Major", "Minor", "Patch", "Build")]
        except (OSError, AttributeError):
            continue
        return ".".join(map(str, parts))
    return None


def gpus() -> list[str]:
    """ "sm90" for each visible GPU, in CUDA's order; empty without a driver."""
    try:
        cuda = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return []
    count, device, major, minor = (ctypes.c_int() for _ in range(4))
    if cuda.cuInit(0) or cuda.cuDeviceGetCount(ctypes.byref(count)):
        return []
    architectures = []
    for index in range(count.value):
        # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR is 75, _MINOR 76.
        if not (
            cuda.cuDeviceGet(ctypes.byref(device), index)
            or cuda.cuDeviceGetAttribute(ctypes.byref(major), 75, device)
            or cuda.cuDeviceGetAttribute(ctypes.byref(minor), 76, device)
        ):
            architectures.append(f"sm{major.value}{minor.value}")
    return architectures


def build(
    module: str, onnx: Path, engine: Path, batch: tuple[int, int, int], sm: str, memory: int | None = None
) -> None:
    """Parses a strongly typed graph and writes its engine; `memory` bounds the scratch memory of a kernel, in bytes.

    Raises:
        RuntimeError: with what the library said first, if it cannot be parsed or built.
    """
    trt = importlib.import_module(module)
    heard: list[str] = []

    class Listener(trt.ILogger):
        def __init__(self) -> None:
            trt.ILogger.__init__(self)

        def log(self, severity: Any, msg: str) -> None:
            # An exception must not pass through the library's own threads.
            if severity.name.endswith("ERROR"):
                heard.append(" ".join(msg.split()))

    logger = Listener()
    builder = trt.Builder(logger)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, logger)
    if not parser.parse_from_file(str(onnx)) or parser.num_errors or not network.num_outputs:
        if parser.num_errors:
            error = parser.get_error(0)
            raise RuntimeError(f"node {error.node_name()} ({error.node_operator()}): {error.desc()}")
        raise RuntimeError(" ".join(heard[:1]) or "it holds no ONNX graph")
    config = builder.create_builder_config()
    # As `edgedit build` does: TF32 rounds the FP32 nodes of an FP16 graph to 10 bits.
    config.clear_flag(trt.BuilderFlag.TF32)
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    if memory is not None:
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, memory)
    if hasattr(config, "set_compute_capability"):
        # TensorRT-RTX builds for an architecture by name, also where there is no GPU.
        config.num_compute_capabilities = 1
        config.set_compute_capability(getattr(trt.ComputeCapability, sm.upper()), 0)
    profile = builder.create_optimization_profile()
    for index in range(network.num_inputs):
        tensor = network.get_input(index)
        _, *rest = tuple(tensor.shape)
        profile.set_shape(tensor.name, *((size, *rest) for size in batch))
    if config.add_optimization_profile(profile) < 0:
        raise RuntimeError(f"batch {batch} is outside the limits of the graph")
    del heard[:]
    serialised = builder.build_serialized_network(network, config)
    if serialised is None:
        raise RuntimeError(" ".join(heard[:1]) or "the builder does not say why")
    engine.write_bytes(serialised)


def main(arguments: list[str]) -> int:
    """0, or 1 with the reason as the last line of the standard error."""
    match arguments:
        case ["describe", module]:
            print(json.dumps(describe(module)))
        case ["engine", module, onnx, engine, batch, sm, *memory] if len(memory) < 2:
            low, best, high = map(int, batch.split(":"))
            try:
                build(module, Path(onnx), Path(engine), (low, best, high), sm, *map(int, memory))
            except (RuntimeError, ValueError, TypeError, AttributeError, OSError) as error:
                print(" ".join(str(error).split()) or type(error).__name__, file=sys.stderr)
                return 1
        case _:
            print(__doc__, file=sys.stderr)
            return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
