"""Small model repositories that need no bundle, and what the tests ask of the system about their server."""

from __future__ import annotations

import contextlib
import http.client
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from serving.local.canary import ModelCanary, infer
from serving.local.server import LocalTriton
from serving.local.supervisor import SHARED_MEMORY

_CONFIG = """
name: "{name}"
backend: "python"
max_batch_size: 8
input [ {{ name: "x" data_type: TYPE_UINT8 dims: [ 4, 4, 3 ] }} ]
output [ {{ name: "y" data_type: TYPE_UINT8 dims: [ 4, 4, 3 ] }} ]
instance_group [ {{ count: 1 kind: KIND_CPU }} ]
"""

_ASLEEP = "asleep"

ECHO = """
import triton_python_backend_utils as pb

class TritonPythonModel:
    def execute(self, requests):
        found = [pb.get_input_tensor_by_name(r, "x").as_numpy() for r in requests]
        return [pb.InferenceResponse([pb.Tensor("y", 255 - x)]) for x in found]
"""

SLEEPER = """
import ctypes, os
import triton_python_backend_utils as pb

class TritonPythonModel:
    def execute(self, requests):
        found = [pb.get_input_tensor_by_name(r, "x").as_numpy() for r in requests]
        # The first pixel says for how many tenths of a second. Nothing else of the process runs meanwhile, as in a
        # network's own code.
        open(os.path.join(os.environ["HOME"], "asleep"), "w").close()
        ctypes.PyDLL(None).poll(None, 0, 100 * max(int(x.flat[0]) for x in found))
        return [pb.InferenceResponse([pb.Tensor("y", x)]) for x in found]
"""


def write_small(folder: Path, **models: str) -> Path:
    """A repository of models from their source."""
    for name, source in models.items():
        (folder / name / "1").mkdir(parents=True)
        (folder / name / "config.pbtxt").write_text(_CONFIG.format(name=name))
        (folder / name / "1" / "model.py").write_text(source)
    return folder


def call(server: LocalTriton, model: str, value: int = 7, deadline: float = 20.0) -> np.ndarray:
    """What a model makes of pixels of one value."""
    return infer(server.http, model, {"x": np.full((1, 4, 4, 3), value, np.uint8)}, deadline)["y"]


def ask(server: LocalTriton, path: str, body: bytes | None = None) -> tuple[int, bytes]:
    """Status and body of an answer over HTTP; a body is posted."""
    connection = http.client.HTTPConnection(server.http, timeout=20)
    with contextlib.closing(connection):
        connection.request("GET" if body is None else "POST", path, body)
        response = connection.getresponse()
        return response.status, response.read()


def revived(server: LocalTriton) -> LocalTriton:
    """A server that a test before may have stopped or killed, whole again, and by no request asleep."""
    canary = ModelCanary(server.http, 30) if server.alive else None
    if canary is None or any(canary.check(model)[0] != "healthy" for model in server.models):
        server.stop(grace=False)
        server.start()
    (server.log.parent / _ASLEEP).unlink(missing_ok=True)
    return server


def stub(server: LocalTriton, model: str) -> int:
    """The process of a model."""
    for pid in server.processes():
        if f"/{model}/1/model." in Path(f"/proc/{pid}/cmdline").read_text():
            return pid
    raise AssertionError(f"{model} has no process")


def asleep(server: LocalTriton) -> bool:
    """Whether a request has reached the model `sleeper` since the server was started or revived."""
    return (server.log.parent / _ASLEEP).exists()


def running(pid: int) -> bool:
    """Whether a process is there and no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def remains(pids: list[int], prefix: str) -> list[str]:
    """What is left of a server: processes and shared memory."""
    assert prefix
    return [str(pid) for pid in pids if running(pid)] + [p.name for p in SHARED_MEMORY.glob(f"{prefix}*")]


def wait_for(true: Callable[[], object], seconds: float = 120.0) -> bool:
    """Whether something becomes true at all: the time is that of a hang, not of a slow machine."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if true():
            return True
        time.sleep(0.05)
    return False
