"""Asks a model for a real inference: a server goes on saying READY for a model whose process has died."""

from __future__ import annotations

import http.client
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Literal

import numpy as np

from engines.errors import EdgeditError, RuntimeUnavailableError
from serving.contract import EDITS

try:
    from tritonclient.http import InferenceServerClient, InferInput
    from tritonclient.utils import InferenceServerException, np_to_triton_dtype, triton_to_np_dtype
except ModuleNotFoundError as error:
    raise RuntimeUnavailableError(f"the watchdog needs {error.name}: pip install 'edgedit[serve]'") from error

State = Literal["healthy", "dead", "unreachable", "late", "failing"]
"""healthy: the model inferred; dead: its process is gone, and the server does not start another; unreachable: no
server, or a connection that ended; late: no answer in time, as of a busy model; failing: any other answer."""

_DEAD = "is not healthy"
_HEADERS = {"Accept-Encoding": "identity"}
"""Headers of a request that ask for no compression, which costs the server more than the whole inference."""


class InferError(EdgeditError):
    """An inference that brought no answer; one line. `state` says what that makes of the model."""

    def __init__(self, message: str, state: State) -> None:
        super().__init__(message)
        self.state: State = state


@contextmanager
def asking(address: str, deadline: float) -> Iterator[InferenceServerClient]:
    """A client for one question over HTTP, which waits for `deadline` seconds of silence. It is closed after that: an
    idle connection would hold up the server's end.

    Raises:
        InferError: for an error of the server, an answer that is not understood, or none.
    """
    client = InferenceServerClient(address, connection_timeout=deadline, network_timeout=deadline)
    try:
        yield client
    except InferenceServerException as error:
        text = " ".join(error.message().split())[:300]
        raise InferError(text, "dead" if _DEAD in text else "failing") from error
    except TimeoutError as error:
        raise InferError(f"no answer within {deadline:g} s", "late") from error
    except (OSError, http.client.HTTPException) as error:
        raise InferError(f"no connection: {str(error) or type(error).__name__}", "unreachable") from error
    except (ValueError, LookupError, TypeError) as error:
        # Such as of tensors shorter than their shapes, which the Python backend makes of outputs under NumPy 2.
        raise InferError(f"an answer is not understood: {error}", "failing") from error
    finally:
        client.close()


def infer(address: str, model: str, feeds: Mapping[str, np.ndarray], deadline: float = 10.0) -> dict[str, np.ndarray]:
    """All outputs of a model by name, for its inputs by name; errors as `asking`."""
    inputs = []
    for name, array in feeds.items():
        inputs.append(InferInput(name, list(array.shape), np_to_triton_dtype(array.dtype)))
        inputs[-1].set_data_from_numpy(array)
    with asking(address, deadline) as triton:
        result: Any = triton.infer(model, inputs, headers=_HEADERS)
        return {output["name"]: result.as_numpy(output["name"]) for output in result.get_response()["outputs"]}


class ModelCanary:
    """Asks each model with zeros of the shapes that its configuration names, for every output.

    Optional strings are left out but for `edits`, which asks `edit_session` for an image as it is.
    """

    def __init__(self, address: str, deadline: float = 10.0) -> None:
        self.address = address
        self.deadline = deadline
        self._feeds: dict[str, dict[str, np.ndarray]] = {}

    def infer(self, model: str) -> dict[str, np.ndarray]:
        """One inference; an InferError if it fails."""
        if model not in self._feeds:
            with asking(self.address, self.deadline) as triton:
                self._feeds[model] = _feeds(triton.get_model_config(model))
        return infer(self.address, model, self._feeds[model], self.deadline)

    def check(self, model: str) -> tuple[State, str]:
        """State of a model, and one line that says why it is not healthy."""
        try:
            self.infer(model)
        except InferError as error:
            return error.state, str(error)
        return "healthy", ""

    def successes(self, model: str) -> int:
        """The inferences that a model has finished since it was loaded, whoever asked for them.

        Raises:
            InferError: if the server is silent.
        """
        with asking(self.address, self.deadline) as triton:
            stats = triton.get_inference_statistics(model)["model_stats"]
            return sum(int(one["inference_stats"]["success"]["count"]) for one in stats)


def _feeds(config: dict[str, Any]) -> dict[str, np.ndarray]:
    batch = (1,) if config.get("max_batch_size") else ()
    feeds = {}
    for spec in config["input"]:
        name, datatype = spec["name"], spec["data_type"].removeprefix("TYPE_")
        # What may be of any size is asked with one.
        shape = (*batch, *(max(int(dim), 1) for dim in spec["dims"]))
        if datatype != "STRING":
            feeds[name] = np.zeros(shape, triton_to_np_dtype(datatype))
        elif name == EDITS or not spec.get("optional"):
            feeds[name] = np.full(shape, b"{}" if name == EDITS else b"", np.object_)
    return feeds
