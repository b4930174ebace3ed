"""The two builders of a serving image, trtexec and TensorRT's Python bindings: each a command that writes an engine."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from serving.deploy.errors import StartError
from serving.deploy.onnx_file import OnnxFile

TRTEXEC = Path("/usr/src/tensorrt/bin/trtexec")
"""The place of trtexec in NVIDIA's containers."""

BINDINGS = "tensorrt"
"""The module of TensorRT's Python bindings."""

Batch = tuple[int, int, int]
"""Smallest, tuned for, largest."""

_PACKAGES = Path(__file__).resolve().parents[2]
"""The folder that `serving` lies in, for the child process."""


@dataclass(frozen=True)
class Builder:
    """A program that turns strongly typed graphs into engines on this machine."""

    version: str
    """TensorRT's version; an engine is loaded by this very version alone."""
    gpus: tuple[str, ...]
    """Architecture of every visible GPU, such as "sm90"."""
    trtexec: Path | None = None
    """The path of trtexec; None takes the bindings."""
    bindings: str = BINDINGS
    memory_budget: int | None = None
    """Bytes that a kernel may take for scratch memory while an engine is built, and that an engine may have at most."""

    @property
    def title(self) -> str:
        return f"TensorRT {self.version} ({'trtexec' if self.trtexec else 'Python bindings'})"

    def command(self, graph: OnnxFile, engine: Path, batch: Batch, sm: str) -> list[str]:
        """The arguments of the process that builds one engine. No shell reads them."""
        if self.trtexec is None:
            sizes = ":".join(map(str, batch))
            budget = [] if self.memory_budget is None else [str(self.memory_budget)]
            return [*_child("engine"), self.bindings, str(graph.path), str(engine), sizes, sm, *budget]
        return [
            str(self.trtexec),
            f"--onnx={graph.path}",
            f"--saveEngine={engine}",
            # Needed up to TensorRT 10, without effect from 11 on.
            "--stronglyTyped",
            # TF32 would round the FP32 nodes of an FP16 graph to 10 bits.
            "--noTF32",
            "--profilingVerbosity=detailed",
            "--skipInference",
            *([] if self.memory_budget is None else [f"--memPoolSize=workspace:{self.memory_budget}B"]),
            *(
                f"--{which}Shapes={_shapes(graph, size)}"
                for which, size in zip(("min", "opt", "max"), batch, strict=True)
            ),
        ]

    def build(self, graph: OnnxFile, engine: Path, batch: Batch, sm: str) -> None:
        """Runs the builder on the first GPU of an architecture; its output is kept for the error alone.

        Raises:
            StartError: if it fails, with its last error, or the engine is larger than the memory budget.
        """
        environment = dict(os.environ)
        if sm in self.gpus:
            shown = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]
            index = self.gpus.index(sm)
            environment["CUDA_VISIBLE_DEVICES"] = shown[index] if index < len(shown) else str(index)
        failed, said = run(self.command(graph, engine, batch, sm), environment)
        if not failed and engine.is_file() and (size := engine.stat().st_size):
            if self.memory_budget is not None and size > self.memory_budget:
                raise StartError(
                    f"the engine of {graph.path} has {size / 1e6:.1f} MB, and EDGEDIT_MEMORY_BUDGET is "
                    f"{self.memory_budget / 1e6:.1f} MB; raise it, or serve a smaller bundle"
                )
            return
        end = f"it was ended by signal {-failed}" if failed < 0 else f"it ended with {failed}"
        raise StartError(f"{graph.path} could not be built for {sm} by {self.title}: {_reason(said) or end}")


def find_builder(trtexec: Path = TRTEXEC, bindings: str = BINDINGS) -> Builder:
    """The builder of this image: trtexec if it is there, for it is that of the server's own TensorRT.

    Raises:
        StartError: if there is no GPU, no TensorRT, nothing that builds, or the bindings are of another version than
            the library that the server loads.
    """
    failed, said = run([*_child("describe"), bindings], dict(os.environ))
    try:
        description = json.loads(said.splitlines()[-1])
    except (IndexError, ValueError):
        raise StartError(f"TensorRT of this image cannot be asked for its version (status {failed})") from None
    gpus, library, python = description["gpus"], description["library"], description["bindings"]
    if not gpus:
        raise StartError("no NVIDIA GPU is visible: run with --gpus all (nvidia.com/gpu: 1), or set EDGEDIT_DEVICE=cpu")
    if library is None and python is None:
        raise StartError("this image has no TensorRT 10 or newer: build it FROM a tritonserver image that has one")
    if trtexec.is_file() and library is not None:
        return Builder(library, tuple(gpus), trtexec)
    if python is None:
        raise StartError(
            f"TensorRT {library} is here, but neither {trtexec} nor its Python bindings: install one of them"
        )
    # A difference in any number that both name makes engines that do not load.
    if library is not None and any(a != b for a, b in zip(library.split("."), python.split("."), strict=False)):
        raise StartError(
            f"the Python bindings are TensorRT {python}, and the server loads {library}: install {library}"
        )
    return Builder(library or python, tuple(gpus), None, bindings)


running: list[subprocess.Popen[str]] = []
"""The child at work, for who must end it."""


def run(command: list[str], environment: dict[str, str]) -> tuple[int, str]:
    """Runs a command without a shell, the package on its path.

    Returns:
        Its exit status, negative for a signal, and what it said on both streams.
    """
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, (str(_PACKAGES), environment.get("PYTHONPATH"))))
    try:
        child = subprocess.Popen(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        )
    except OSError as error:
        return error.errno or 1, f"{command[0]}: {error.strerror}"
    running.append(child)
    try:
        said, _ = child.communicate()
    finally:
        running.remove(child)
    return child.returncode, said


def _child(verb: str) -> list[str]:
    return [sys.executable, "-m", "serving.deploy.build", verb]


def _shapes(graph: OnnxFile, batch: int) -> str:
    """trtexec's spelling: image:8x64x64x3,delta_w:8x10x128. The first dimension is the batch."""
    return ",".join(
        f"{name}:{'x'.join(str(size if index else batch) for index, size in enumerate(shape))}"
        for name, shape in graph.inputs.items()
    )


def _reason(said: str) -> str:
    """The most telling line: trtexec marks errors with [E], anything else ends with its reason."""
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    errors = [line for line in lines if "[E]" in line]
    return (errors or lines[-1:] or [""])[0]
