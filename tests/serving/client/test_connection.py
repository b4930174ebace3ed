"""What goes over the wire, by both of tritonclient's libraries."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from serving.client.connection import Connection, Protocol, inference
from serving.client.deadline import Deadline
from serving.client.errors import ServingError
from serving.client.regions import Region
from serving.client.wire import Request

grpc = pytest.importorskip("tritonclient.grpc", reason="tritonclient is not installed")
http = pytest.importorskip("tritonclient.http", reason="tritonclient is not installed")

HANDLE = "ab" * 16
PIXELS = np.arange(72, dtype=np.uint8).reshape(6, 4, 3)


@pytest.fixture(params=[False, True], ids=["inline", "shared"])
def region(request: pytest.FixtureRequest) -> Iterator[Region | None]:
    lent = Region(72) if request.param else None
    yield lent
    if lent is not None:
        lent.unlink()


def test_both_protocols_are_sent_the_same(region: Region | None) -> None:
    from tritonclient.grpc._utils import _get_inference_request as grpc_message
    from tritonclient.http._utils import _get_inference_request as http_body

    request = Request((6, 4), PIXELS, HANDLE, '{"smile": 2.0}')
    arguments = inference(grpc, request, region)
    del arguments["model_name"]
    message = grpc_message("edit_session", **arguments, model_version="", request_id="", **NOTHING, parameters=None)
    arguments = inference(http, request, region)
    assert arguments.pop("model_name") == "edit_session"
    body, length = http_body(**arguments, request_id="", **NOTHING, custom_parameters=None)
    text = json.loads(body[:length])

    assert [(t.name, t.datatype, list(t.shape)) for t in message.inputs] == [
        (t["name"], t["datatype"], t["shape"]) for t in text["inputs"]
    ]
    assert [(t.name, t.datatype, list(t.shape)) for t in message.inputs] == [
        ("image", "UINT8", [1, 6, 4, 3]),
        ("handle", "BYTES", [1, 1]),
        ("edits", "BYTES", [1, 1]),
    ]
    assert [t.name for t in message.outputs] == [t["name"] for t in text["outputs"]] == ["handle", "image"]
    contents = list(message.raw_input_contents)
    assert body[length:] == b"".join(contents)
    strings = [len(raw).to_bytes(4, "little") + raw for raw in (HANDLE.encode(), b'{"smile": 2.0}')]
    if region is None:
        assert contents == [PIXELS.tobytes(), *strings]
    else:
        assert contents == strings and np.array_equal(region.read(72, 0).reshape(6, 4, 3), PIXELS)
        lies = {"shared_memory_region": region.name, "shared_memory_byte_size": 72}
        for sent, told, offset in (
            (message.inputs[0].parameters, text["inputs"][0]["parameters"], {}),
            (message.outputs[1].parameters, text["outputs"][1]["parameters"], {"shared_memory_offset": 72}),
        ):
            plain = {name: value.string_param or value.int64_param for name, value in sent.items()}
            assert plain == {**lies, **offset}
            assert {name: value for name, value in told.items() if name != "binary_data"} == plain


NOTHING: dict[str, Any] = {
    "sequence_id": 0, "sequence_start": False, "sequence_end": False, "priority": 0, "timeout": None
}  # fmt: skip


class Noting:
    """A client of tritonclient's that notes what it was asked for."""

    def __init__(self) -> None:
        self.asked: dict[str, Any] = {}

    async def infer(self, **arguments: Any) -> Any:
        self.asked = arguments
        return self

    def as_numpy(self, name: str) -> np.ndarray:
        return PIXELS[None]

    async def close(self) -> None: ...


@pytest.mark.parametrize("protocol", ["grpc", "http"])
def test_a_request_says_what_it_is_about_and_how_long_it_may_take(protocol: Protocol) -> None:
    connection = Connection("127.0.0.1:1", protocol)
    connection._triton = noting = Noting()
    asyncio.run(connection.infer(Request((6, 4), handle=HANDLE, edits="{}"), None, Deadline(30)))
    if protocol == "grpc":
        assert noting.asked["headers"] == {"edgedit-handle": HANDLE}
        assert 0 < noting.asked["client_timeout"] <= 30
    else:
        assert noting.asked["headers"] == {"Accept-Encoding": "identity", "edgedit-handle": HANDLE}


@pytest.mark.parametrize("protocol", ["grpc", "http"])
def test_a_closed_connection_makes_no_other(protocol: Protocol) -> None:
    connection = Connection("127.0.0.1:1", protocol)

    async def main() -> None:
        await connection.close()
        with pytest.raises(ServingError, match="this client is closed"):
            await connection.describe(Deadline(30))

    asyncio.run(main())
    assert connection.under_way == 0
