"""The model `edit_session`: inverts a face once and renders any number of edits of it (see `serving.contract`).

Runs inside Triton's python backend and calls the models `invert`, `edit` and `reconstruct` of its own version, so
that no inversion of one version meets the editor of another while the repository is upgraded. No edgedit here.
"""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import numpy as np
import triton_python_backend_utils as pb
from lost_picture import LOST, is_lost  # pyright: ignore[reportMissingImports]  (of `engines`, see the package)
from session_core import CACHE_BYTES, SESSION_FILE, Cache, EditsError, Units, handle_of, parse_edits

_AWAY = ("is not ready", "is not healthy")
"""Triton's words, with no code of its own, for a model or version that is not there, or whose process has died."""


class _Refusal(Exception):
    """An error for the client: a message without paths, and one of TritonError's codes."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code


class TritonPythonModel:
    """One model; Triton calls the methods."""

    def initialize(self, args: dict[str, str]) -> None:
        """Reads the units of the directions, which lie beside this file."""
        folder = Path(__file__).parent
        session = json.loads((folder / SESSION_FILE).read_text())
        parameters = json.loads(args["model_config"])["parameters"]
        self._version = int(args["model_version"])
        self._digest: str = session["bundle_sha256"]
        self._bytes: int = session["inversion_bytes"]
        self._reads: dict[str, list[str]] = session["reads"]
        # What neither reads is not asked for.
        self._outputs = sorted({name for names in self._reads.values() for name in names})
        self._deltas: list[str] = session["deltas"]
        self._units = Units.load(folder)
        self._host = pb.PreferredMemory(pb.TRITONSERVER_MEMORY_CPU, 0)
        self._cache = Cache(int(parameters.get("cache_bytes", {}).get("string_value", CACHE_BYTES)))

    async def execute(self, requests: list) -> list:
        """Answers every request; those of one call run at the same time, so that their edits form a batch."""
        inverting: dict[str, asyncio.Task] = {}
        return list(await asyncio.gather(*(self._answer(request, inverting) for request in requests)))

    async def _answer(self, request: pb.InferenceRequest, inverting: dict[str, asyncio.Task]) -> pb.InferenceResponse:
        try:
            return pb.InferenceResponse(await self._serve(request, inverting))
        except _Refusal as refusal:
            error = pb.TritonError(str(refusal), refusal.code)
        except EditsError as mistake:
            error = pb.TritonError(str(mistake), pb.TritonError.INVALID_ARG)
        except Exception as failure:  # one that left `execute` would fail all requests, and name paths
            pb.Logger.log_error(f"edit_session: {failure!r}")
            error = pb.TritonError("edit_session failed", pb.TritonError.INTERNAL)
        return pb.InferenceResponse(error=error)

    async def _serve(self, request: pb.InferenceRequest, inverting: dict[str, asyncio.Task]) -> list[pb.Tensor]:
        image, handle, edits = _image(request), _text(request, "handle"), _text(request, "edits")
        wants_image = "image" in request.requested_output_names()
        if image is None and handle is None:
            raise _Refusal("send an image, a handle or both", pb.TritonError.INVALID_ARG)
        if edits is None and wants_image:
            raise _Refusal(
                "an image is rendered of edits: send edits, or ask for handle alone", pb.TritonError.INVALID_ARG
            )
        # What is wrong with the edits is said before anything is inverted.
        strengths = None if edits is None else parse_edits(edits)
        deltas = self._units.resolve(strengths) if strengths else None
        key = handle.decode("ascii", "replace") if handle is not None else ""
        if image is not None:
            own = handle_of(image[0], self._digest)
            if handle is not None and key != own:
                raise _Refusal(
                    "the handle is not that of the image; send one of them alone", pb.TritonError.INVALID_ARG
                )
            key = own
        _check_cancelled(request)
        inversion = self._cache.get(key)
        if inversion is None:
            if image is None:
                raise _Refusal("resend image", pb.TritonError.NOT_FOUND)
            # Requests of the same face wait for one inversion.
            if key not in inverting:
                inverting[key] = asyncio.ensure_future(self._invert(key, image))
            inversion = await inverting[key]
            _check_cancelled(request)
        answer = [pb.Tensor("handle", np.array([[key.encode()]], np.object_))]
        if strengths is None or not wants_image:
            return answer
        if deltas is None:
            feeds = [_tensor(name, inversion[name]) for name in self._reads["reconstruct"]]
            return answer + await self._call("reconstruct", feeds, ["image"])
        feeds = [_tensor(name, inversion[name]) for name in self._reads["edit"]]
        moves: dict[str, np.ndarray] = dict(zip(("delta_w", "style_delta"), deltas, strict=True))
        feeds += [pb.Tensor(name, moves[name][None]) for name in self._deltas]
        # On the host, where it is looked at before it is sent.
        (picture,) = await self._call("edit", feeds, ["image"], preferred_memory=self._host)
        if is_lost(picture.as_numpy(), *deltas):
            raise _Refusal(LOST, pb.TritonError.INVALID_ARG)
        return [*answer, picture]

    async def _invert(self, handle: str, image: np.ndarray) -> dict[str, pb.Tensor | np.ndarray]:
        tensors = await self._call("invert", [pb.Tensor("image", image)], self._outputs)
        # Tensors on a device stay there, as they are. One on the host lies in the stub's shared memory, which is
        # neither large nor ever given back: a copy leaves it.
        inversion = {t.name(): t.as_numpy().copy() if t.is_cpu() else t for t in tensors}
        self._cache.put(handle, inversion, self._bytes)
        return inversion

    async def _call(self, model: str, inputs: list[pb.Tensor], outputs: list[str], **options: Any) -> list[pb.Tensor]:
        request = pb.InferenceRequest(
            model_name=model, model_version=self._version, requested_output_names=outputs, inputs=inputs, **options
        )
        response = await request.async_exec()
        if response.has_error():
            message = response.error().message()
            pb.Logger.log_error(f"edit_session: {model}: {message}")
            if any(sign in message for sign in _AWAY):
                raise _Refusal(f"model {model} is not available, try again", pb.TritonError.UNAVAILABLE)
            raise _Refusal(f"model {model} failed", pb.TritonError.INTERNAL)
        return [pb.get_output_tensor_by_name(response, name) for name in outputs]


def _tensor(name: str, value: pb.Tensor | np.ndarray) -> pb.Tensor:
    return pb.Tensor(name, value) if isinstance(value, np.ndarray) else value


def _image(request: pb.InferenceRequest) -> np.ndarray | None:
    tensor = pb.get_input_tensor_by_name(request, "image")
    if tensor is None:
        return None
    image = tensor.as_numpy()
    if len(image) != 1:
        raise _Refusal("send one image per request", pb.TritonError.INVALID_ARG)
    return image


def _text(request: pb.InferenceRequest, name: str) -> bytes | None:
    tensor = pb.get_input_tensor_by_name(request, name)
    if tensor is None:
        return None
    values = tensor.as_numpy().reshape(-1)
    if len(values) != 1:
        raise _Refusal(f"send one string as {name}", pb.TritonError.INVALID_ARG)
    return values[0]


def _check_cancelled(request: pb.InferenceRequest) -> None:
    if request.is_cancelled():
        raise _Refusal("cancelled", pb.TritonError.CANCELLED)
