"""tritonclient, imported when a client is made; and requests in its terms."""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import numpy as np

from engines.errors import RuntimeUnavailableError
from serving.client.regions import Region
from serving.client.translate import translate
from serving.client.wire import Request
from serving.contract import EDIT_SESSION, EDITS, HANDLE, HANDLE_DIGITS, HANDLE_HEADER, IMAGE

HTTP_HEADERS = {"Accept-Encoding": "identity"}
"""Triton compresses what it may, which takes longer than sending it."""

_ROUTABLE = re.compile(rf"[0-9a-f]{{{HANDLE_DIGITS}}}")

GRPC_OPTIONS = (
    ("grpc.max_send_message_length", 2**31 - 1),
    ("grpc.max_receive_message_length", 2**31 - 1),
    # A server that was restarted is found again within a second, not within gRPC's two minutes.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),
    # As with HTTP here, proxies of the environment are not for one's own server.
    ("grpc.enable_http_proxy", 0),
)


def library(name: str) -> ModuleType:
    """A module of tritonclient or below it.

    Raises:
        RuntimeUnavailableError: if it is not installed.
    """
    try:
        return importlib.import_module(name)
    except (ImportError, RuntimeError) as error:
        # tritonclient says with a RuntimeError that what it builds on cannot be imported.
        reason = error if isinstance(error, ImportError) else error.__cause__ or error.__context__
        missing = (getattr(reason, "name", None) or name).partition(".")[0]
        raise RuntimeUnavailableError(
            f"a client needs {missing}, which is not installed; pip install 'edgedit[serve]'"
        ) from error


@contextmanager
def translated(url: str) -> Iterator[None]:
    """Raises the client's errors for any other."""
    try:
        yield
    except Exception as error:
        translation = translate(error, url)
        if translation is error:
            raise
        raise translation from error


def routing(home: str) -> dict[str, str]:
    """Headers, or gRPC metadata, that send a request to the server that holds an inversion. Anybody's text may be given
    as a handle; what cannot be one goes to any server, which says so."""
    return {HANDLE_HEADER: home} if _ROUTABLE.fullmatch(home) else {}


def grpc_message(service: ModuleType, request: Request, region: Region | None) -> Any:
    """A ModelInferRequest; `service` is tritonclient.grpc.service_pb2. With a region, images lie there: the one sent
    at its start, the one asked for after it."""
    message = service.ModelInferRequest(model_name=EDIT_SESSION)

    def add(name: str, datatype: str, shape: tuple[int, ...]) -> Any:
        tensor = message.inputs.add(name=name, datatype=datatype)
        tensor.shape.extend(shape)
        return tensor

    if request.image is not None:
        tensor = add(IMAGE, "UINT8", (1, *request.image.shape))
        if region is None:
            message.raw_input_contents.append(request.image.tobytes())
        else:
            region.write(request.image)
            tensor.parameters["shared_memory_region"].string_param = region.name
            tensor.parameters["shared_memory_byte_size"].int64_param = request.image.nbytes
        message.outputs.add(name=HANDLE)
    for name, text in ((HANDLE, request.handle), (EDITS, request.edits)):
        if text is not None:
            add(name, "BYTES", (1, 1))
            raw = text.encode()
            message.raw_input_contents.append(len(raw).to_bytes(4, "little") + raw)
    if request.edits is not None:
        output = message.outputs.add(name=IMAGE)
        if region is not None:
            output.parameters["shared_memory_region"].string_param = region.name
            output.parameters["shared_memory_byte_size"].int64_param = request.image_bytes
            output.parameters["shared_memory_offset"].int64_param = request.image_bytes
    return message


def http_arguments(http: ModuleType, request: Request, region: Region | None) -> dict[str, Any]:
    """The same as arguments of `infer`; `http` is tritonclient.http."""
    inputs, outputs = [], []
    if request.image is not None:
        tensor = http.InferInput(IMAGE, [1, *request.image.shape], "UINT8")
        if region is None:
            tensor.set_data_from_numpy(np.ascontiguousarray(request.image[None]))
        else:
            region.write(request.image)
            tensor.set_shared_memory(region.name, request.image.nbytes)
        inputs.append(tensor)
        outputs.append(http.InferRequestedOutput(HANDLE))
    for name, text in ((HANDLE, request.handle), (EDITS, request.edits)):
        if text is not None:
            tensor = http.InferInput(name, [1, 1], "BYTES")
            tensor.set_data_from_numpy(np.array([[text.encode()]], np.object_))
            inputs.append(tensor)
    if request.edits is not None:
        output = http.InferRequestedOutput(IMAGE)
        if region is not None:
            output.set_shared_memory(region.name, request.image_bytes, request.image_bytes)
        outputs.append(output)
    headers = HTTP_HEADERS | routing(request.home)
    return {"model_name": EDIT_SESSION, "inputs": inputs, "outputs": outputs, "headers": headers}
