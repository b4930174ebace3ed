"""What is wrong with a request is said with its status, and the server serves on: every model, both protocols."""

from __future__ import annotations

import http.client
import json
import re
import socket
from collections.abc import Iterator

import numpy as np
import pytest

from edgedit.editor import open_bundle
from serving.contract import EDIT_IMAGE, EDIT_SESSION, EDITED_IMAGE, MAX_BATCH
from serving.local.canary import ModelCanary
from serving.local.server import LocalTriton
from tests.random_bundle import RANDOM_BUNDLE
from tests.serving.repository.asking import Asker, asking, session_feeds

pytest.importorskip("tritonclient.grpc", reason="tritonclient is not installed")
from tritonclient.utils import InferenceServerException

pytestmark = pytest.mark.triton

HEIGHT, WIDTH = open_bundle(RANDOM_BUNDLE).family.image_shape
IMAGE = np.full((1, HEIGHT, WIDTH, 3), 90, np.uint8)
_STATUS = {"400": "INVALID_ARGUMENT", "404": "NOT_FOUND"}


@pytest.fixture(scope="module", params=["grpc", "http"])
def ask(request: pytest.FixtureRequest, triton: LocalTriton) -> Iterator[Asker]:
    with asking(triton, request.param) as asker:
        yield asker


@pytest.fixture(autouse=True)
def serves_on(triton: LocalTriton) -> Iterator[None]:
    """After every fault the same process answers, by every one of its own."""
    before = triton.pid, set(triton.processes())
    yield
    assert (triton.pid, set(triton.processes())) == before
    assert ModelCanary(triton.http, 120).check(EDIT_SESSION) == ("healthy", "")


def refused(ask: Asker, model: str, feeds: dict[str, np.ndarray], outputs: list[str]) -> tuple[str, str]:
    """Status, as gRPC names it, and message."""
    with pytest.raises(InferenceServerException) as caught:
        ask(model, feeds, outputs)
    status, message = str(caught.value.status()), caught.value.message()
    assert "Traceback" not in message and not re.search(r"/\w+/\w+|\.py\b", message), message
    return _STATUS.get(status, status.removeprefix("StatusCode.")), message


@pytest.mark.parametrize("model", ["invert", EDIT_IMAGE, EDIT_SESSION])
@pytest.mark.parametrize(
    ("image", "says"),
    [
        (IMAGE[:, 1:], "shape"),
        (IMAGE[0], "batch"),
        (IMAGE[None], "shape"),
        (IMAGE[..., :1], "shape"),
        (np.zeros((1, 0, 0, 3), np.uint8), "shape"),
        (np.zeros((1, 3, HEIGHT, WIDTH), np.uint8), "shape"),
        (np.zeros((1, 20 * HEIGHT, 20 * WIDTH, 3), np.uint8), "shape"),
        (IMAGE.astype(np.int8), "type"),
        (IMAGE.astype(np.float32), "type"),
        (np.repeat(IMAGE, MAX_BATCH + 1, axis=0), "batch"),
    ],
    ids=["height", "no batch", "rank", "channels", "empty", "planes first", "oversize", "int8", "float32", "batch"],
)
def test_an_image_that_is_none(ask: Asker, model: str, image: np.ndarray, says: str) -> None:
    feeds, outputs = {"image": image}, ["handle"]
    if model == EDIT_IMAGE:
        edit = {spec.name: spec for spec in open_bundle(RANDOM_BUNDLE).graph("edit").inputs}
        batch = image.shape[0] if image.ndim == 4 else 1
        for name in ("delta_w", "style_delta"):
            feeds[name] = np.zeros((batch, *map(int, edit[name].shape[1:])), np.float32)
    if model != EDIT_SESSION:
        outputs = [EDITED_IMAGE if model == EDIT_IMAGE else "w"]
    status, message = refused(ask, model, feeds, outputs)
    assert status == "INVALID_ARGUMENT" and says in message


@pytest.mark.parametrize("graph", ["encoder", "e4e", "features", "editor", "generator", "edit", "reconstruct"])
def test_tensors_of_a_graph_that_do_not_fit(ask: Asker, graph: str) -> None:
    specs = open_bundle(RANDOM_BUNDLE).graph(graph)
    feeds = {spec.name: np.zeros((1, *map(int, spec.shape[1:])), spec.dtype) for spec in specs.inputs}
    outputs = [spec.name for spec in specs.outputs]
    assert set(ask(graph, feeds, outputs)) == set(outputs)
    first, *_ = feeds
    wrong = {
        "one more in the last dimension": feeds | {first: np.concatenate([feeds[first]] * 2, axis=-1)},
        "doubles": feeds | {first: feeds[first].astype(np.float64)},
        "another name": {("x" if name == first else name): array for name, array in feeds.items()},
        "one too many": feeds | {"x": feeds[first]},
        "one missing": {name: array for name, array in feeds.items() if name != first},
    }
    for what, given in wrong.items():
        if given:
            assert refused(ask, graph, given, outputs)[0] == "INVALID_ARGUMENT", what
    assert refused(ask, graph, feeds, ["x"])[0] in ("INVALID_ARGUMENT", "NOT_FOUND")


def test_what_is_not_there(ask: Asker) -> None:
    feeds = session_feeds(IMAGE[0])
    assert refused(ask, "edit_sessions", feeds, ["handle"])[0] == "NOT_FOUND"
    with pytest.raises(InferenceServerException) as caught:
        ask.client.infer(EDIT_SESSION, ask.inputs(feeds), model_version="999", **ask.options)
    assert str(caught.value.status()) in ("StatusCode.NOT_FOUND", "404", "400")
    assert refused(ask, EDIT_SESSION, feeds | {"x": np.zeros((1, 1), np.int32)}, ["handle"])[0] == "INVALID_ARGUMENT"


def exchange(
    server: LocalTriton, body: bytes, headers: dict[str, str], *, length: int | None = None
) -> tuple[int, bytes]:
    """Status and body that the server answers to raw bytes; 0 if it hangs up. Sends `body`, whatever it promises."""
    head = {"Host": "localhost", "Content-Length": str(len(body) if length is None else length)} | headers
    lines = [f"POST /v2/models/{EDIT_SESSION}/infer HTTP/1.1", *(f"{name}: {value}" for name, value in head.items())]
    with socket.create_connection(("127.0.0.1", int(server.http.rpartition(":")[2])), timeout=60) as link:
        try:
            link.sendall("\r\n".join(lines).encode() + b"\r\n\r\n" + body)
            if length is not None:
                link.shutdown(socket.SHUT_WR)
            response = http.client.HTTPResponse(link, method="POST")
            response.begin()
            return response.status, response.read()
        except (OSError, http.client.HTTPException):
            return 0, b""


def assert_refused(answer: tuple[int, bytes]) -> None:
    """400, or what Triton 2.51 answers to most of what it cannot parse: 500, and one line of JSON that says so."""
    status, body = answer
    assert status == 400 or (status == 500 and "parse" in json.loads(body)["error"]), answer


def binary(shape: tuple[int, ...] = IMAGE.shape, size: int = IMAGE.nbytes) -> bytes:
    """The JSON head of a binary request for a handle."""
    tensor = {"name": "image", "datatype": "UINT8", "shape": shape, "parameters": {"binary_data_size": size}}
    return json.dumps({"inputs": [tensor], "outputs": [{"name": "handle"}]}).encode()


def test_whole_binary_requests_are_taken(triton: LocalTriton) -> None:
    """So that what follows is refused for what is wrong with it."""
    head = binary()
    answer = exchange(triton, head + IMAGE.tobytes(), {"Inference-Header-Content-Length": str(len(head))})
    assert answer[0] == 200 and b"handle" in answer[1]


@pytest.mark.parametrize(
    ("head", "data"),
    [
        (binary(), IMAGE.tobytes()[:-1]),
        (binary(), b""),
        (binary(), IMAGE.tobytes() + b"x"),
        (binary(size=IMAGE.nbytes - 1), IMAGE.tobytes()[:-1]),
        (binary(size=2**40), IMAGE.tobytes()),
        (binary(size=-1), IMAGE.tobytes()),
        (binary(shape=(2**31, 2**31, 2**31, 3)), IMAGE.tobytes()),
        (binary(shape=(1, -64, -64, 3)), IMAGE.tobytes()),
        (binary()[:-5], IMAGE.tobytes()),
    ],
    ids="cut none more short-size huge-size negative-size huge-shape negative-shape cut-head".split(),
)
def test_truncated_binary_is_refused(triton: LocalTriton, head: bytes, data: bytes) -> None:
    assert_refused(exchange(triton, head + data, {"Inference-Header-Content-Length": str(len(head))}))


@pytest.mark.parametrize("said", ["99999999", "-1", "x", "18446744073709551616"])
def test_a_header_that_lies_about_the_head_is_400(triton: LocalTriton, said: str) -> None:
    answer = exchange(triton, binary() + IMAGE.tobytes(), {"Inference-Header-Content-Length": said})
    assert answer[0] == 400, answer


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"null",
        b"[]",
        b'"inputs"',
        b"{}",
        b'{"inputs": 5}',
        b'{"inputs": [5]}',
        b'{"inputs": [{}]}',
        b'{"inputs": [{"name": "image", "datatype": "UINT8", "shape": "large", "data": []}]}',
        b'{"inputs": [{"name": "image", "datatype": "UINT8", "shape": [1, 2], "data": [1, 2, 3]}]}',
        b'{"inputs": [{"name": "edits", "datatype": "BYTES", "shape": [1, 1], "data": [[{"smile": 1}]]}]}',
        b"[" * 4000,
        b"\xff\xfe\x00",
    ],
)
def test_malformed_json_is_refused(triton: LocalTriton, body: bytes) -> None:
    assert_refused(exchange(triton, body, {"Content-Type": "application/json"}))


def test_bodies_that_never_end_hold_up_nobody_else(triton: LocalTriton) -> None:
    """Who sends slowly, or hangs up within a body, costs a connection and no more."""
    head = binary()
    address = "127.0.0.1", int(triton.http.rpartition(":")[2])
    begun = (
        f"POST /v2/models/{EDIT_SESSION}/infer HTTP/1.1\r\nHost: localhost\r\n"
        f"Content-Length: {len(head) + IMAGE.nbytes}\r\nInference-Header-Content-Length: {len(head)}\r\n\r\n"
    ).encode() + head
    slow = [socket.create_connection(address, timeout=60) for _ in range(24)]
    try:
        for link in slow:
            link.sendall(begun + IMAGE.tobytes()[:100])
        assert ModelCanary(triton.http, 120).check(EDIT_SESSION) == ("healthy", "")
        for link in slow[1:]:
            link.close()
        # The slowest is answered once it is through.
        slow[0].sendall(IMAGE.tobytes()[100:])
        assert slow[0].recv(65536).startswith(b"HTTP/1.1 200")
    finally:
        for link in slow:
            link.close()
    told = {"Inference-Header-Content-Length": str(len(head))}
    assert exchange(triton, head + b"xx", told, length=10**6)[0] in (0, 400)


def test_what_is_no_protobuf_is_refused(triton: LocalTriton) -> None:
    grpc = pytest.importorskip("grpc", reason="gRPC is not installed")
    with grpc.insecure_channel(triton.grpc, options=[("grpc.enable_http_proxy", 0)]) as channel:
        call = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
        for body in (b"\xff" * 100, b"\x0a\xff\xff\xff\xff\x0f", bytes(100)):
            with pytest.raises(grpc.RpcError) as caught:
                call(body, timeout=120)
            assert caught.value.code() in (grpc.StatusCode.INTERNAL, grpc.StatusCode.INVALID_ARGUMENT)
        unknown = channel.unary_unary("/inference.GRPCInferenceService/Nothing")
        with pytest.raises(grpc.RpcError) as caught:
            unknown(b"", timeout=120)
        assert caught.value.code() == grpc.StatusCode.UNIMPLEMENTED
