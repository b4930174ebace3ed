"""Asks a model for a real inference: a server goes on saying READY for a model whose process has died.

Over HTTP with the standard library alone, one connection a question: an idle one would hold up the server's end.
"""

from __future__ import annotations

import http.client
import json
import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from engines.errors import EdgeditError
from serving.contract import EDITS, TRITON_TYPES

State = Literal["healthy", "dead", "unreachable", "late", "failing"]
"""healthy: the model inferred; dead: its process is gone, and the server does not start another; unreachable: no
server, or a connection that ended; late: no answer in time, as of a busy model; failing: any other answer."""

_DEAD = "is not healthy"
_DTYPES = {triton: np.dtype(name) for name, triton in TRITON_TYPES.items()}


class InferError(EdgeditError):
    """An inference that brought no answer; one line.

    Attributes:
        state: what that says of the model.
        status: of HTTP; None without an answer.
    """

    def __init__(self, message: str, state: State, status: int | None = None) -> None:
        super().__init__(message)
        self.state: State = state
        self.status = status


@dataclass(frozen=True)
class Question:
    """One tensor that is asked with."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    data: bytes


def ask(address: str, method: str, path: str, body: bytes, headers: dict[str, str], deadline: float) -> tuple[Any, ...]:
    """One HTTP exchange.

    Returns:
        The response's headers and body.

    Raises:
        InferError: for any status but 200, or no answer within `deadline` seconds of silence.
    """
    connection = http.client.HTTPConnection(address, timeout=deadline)
    try:
        # Compressing an image costs the server more than the whole inference.
        connection.request(method, path, body, headers | {"Accept-Encoding": "identity", "Connection": "close"})
        response = connection.getresponse()
        read = response.read()
    except TimeoutError as error:
        raise InferError(f"no answer within {deadline:g} s", "late") from error
    except (OSError, http.client.HTTPException) as error:
        raise InferError(f"no connection: {error or type(error).__name__}", "unreachable") from error
    finally:
        connection.close()
    if response.status == 200:
        return response.headers, read
    text = " ".join(read.decode(errors="replace").split())[:300]
    raise InferError(text, "dead" if _DEAD in text else "failing", response.status)


def infer(address: str, model: str, questions: list[Question], deadline: float = 10.0) -> dict[str, np.ndarray | bytes]:
    """One inference over HTTP with binary tensors.

    Args:
        address: host:port of HTTP.
        model: its name.
        questions: its inputs.
        deadline: seconds.

    Returns:
        The outputs by name; of strings the bytes as they came.

    Raises:
        InferError: if no answer comes, or one whose tensors are not as long as their shapes say.
    """
    inputs = [
        {"name": q.name, "datatype": q.datatype, "shape": q.shape, "parameters": {"binary_data_size": len(q.data)}}
        for q in questions
    ]
    head = json.dumps({"inputs": inputs, "parameters": {"binary_data_output": True}}).encode()
    body = head + b"".join(q.data for q in questions)
    headers = {"Inference-Header-Content-Length": str(len(head)), "Content-Type": "application/octet-stream"}
    answered, read = ask(address, "POST", f"/v2/models/{model}/infer", body, headers, deadline)
    try:
        length = int(answered.get("Inference-Header-Content-Length", len(read)))
        found: dict[str, np.ndarray | bytes] = {}
        for output in json.loads(read[:length])["outputs"]:
            size = output["parameters"]["binary_data_size"]
            raw, length = read[length : length + size], length + size
            found[output["name"]] = _array(model, output, raw)
    except (ValueError, LookupError, TypeError) as error:
        raise InferError(f"model {model}: its answer is not understood", "failing", 200) from error
    return found


def _array(model: str, output: dict[str, Any], raw: bytes) -> np.ndarray | bytes:
    if output["datatype"] == "BYTES":
        return raw
    dtype = _DTYPES[output["datatype"]]
    needed = math.prod(output["shape"]) * dtype.itemsize
    if len(raw) != needed:
        # What the Python backend makes of an output under NumPy 2.
        raise InferError(f"model {model}: {output['name']} has {len(raw)} bytes, not {needed}", "failing", 200)
    return np.frombuffer(raw, dtype).reshape(output["shape"])


class ModelCanary:
    """Asks each model with zeros of the shapes that its configuration names, for every output.

    Optional strings are left out but for `edits`, which asks `edit_session` for an image as it is.
    """

    def __init__(self, address: str, deadline: float = 10.0) -> None:
        self.address = address
        self.deadline = deadline
        self._questions: dict[str, list[Question]] = {}

    def infer(self, model: str) -> dict[str, np.ndarray | bytes]:
        """One inference.

        Raises:
            InferError: if it fails.
        """
        if model not in self._questions:
            _, read = ask(self.address, "GET", f"/v2/models/{model}/config", b"", {}, self.deadline)
            self._questions[model] = _questions(json.loads(read))
        return infer(self.address, model, self._questions[model], self.deadline)

    def check(self, model: str) -> tuple[State, str]:
        """State of a model, and one line that says why it is not healthy."""
        try:
            self.infer(model)
        except InferError as error:
            return error.state, str(error)
        return "healthy", ""

    def successes(self, model: str) -> int:
        """Inferences that a model has finished since it was loaded, anybody's.

        Raises:
            InferError: if the server does not say.
        """
        _, read = ask(self.address, "GET", f"/v2/models/{model}/stats", b"", {}, self.deadline)
        try:
            return sum(int(one["inference_stats"]["success"]["count"]) for one in json.loads(read)["model_stats"])
        except (ValueError, LookupError, TypeError) as error:
            raise InferError(f"model {model}: its statistics are not understood", "failing", 200) from error


def _questions(config: dict[str, Any]) -> list[Question]:
    batch = (1,) if config.get("max_batch_size") else ()
    questions = []
    for spec in config["input"]:
        # What may be of any size is asked with one.
        shape = (*batch, *(max(int(dim), 1) for dim in spec["dims"]))
        datatype = spec["data_type"].removeprefix("TYPE_")
        if datatype == "STRING":
            if spec.get("optional") and spec["name"] != EDITS:
                continue
            text = b"{}" if spec["name"] == EDITS else b""
            one = len(text).to_bytes(4, "little") + text
            questions.append(Question(spec["name"], "BYTES", shape, one * math.prod(shape)))
        else:
            size = math.prod(shape) * _DTYPES[datatype].itemsize
            questions.append(Question(spec["name"], datatype, shape, bytes(size)))
    return questions
