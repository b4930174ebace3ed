"""Who is let in, how much, for how long."""

from __future__ import annotations

import asyncio
import io
import json
import logging
import struct
import zlib
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import numpy as np
import pytest
from PIL import Image

from serving.client.errors import UnavailableError
from serving.gateway.keys import METRICS, add_key
from serving.gateway.logs import JsonFormatter
from tests.serving.gateway.conftest import EditorBackend, encoded, gateway, problem

pytestmark = pytest.mark.anyio

_JSON = "application/json"
_PNG = {"content-type": "image/png"}
_EDIT = {"handle": "0" * 32, "edits": {"smile": 1}}


def _bearer(key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"}


async def test_keys_are_asked_for_and_scopes_hold(backend: EditorBackend, tmp_path: Path) -> None:
    path = tmp_path / "keys"
    phone, monitor = add_key(path, "phone"), add_key(path, "monitor", (METRICS,))
    async with gateway(backend, api_keys=path) as client:
        for route in ("/v1/directions", "/metrics", "/v1/nothing"):
            for headers in ({}, {"authorization": "Basic eDp5"}, {"authorization": "Bearer "}):
                answer = await client.get(route, headers=headers)
                problem(answer, 401, "no-key")
                assert answer.headers["www-authenticate"].startswith("Bearer")
            problem(await client.get(route, headers=_bearer(phone + "x")), 401, "unknown-key")
        problem(await client.post("/v1/edits", json=_EDIT), 401, "no-key")
        problem(await client.get("/metrics", headers=_bearer(phone)), 403, "key-scope")
        problem(await client.get("/v1/directions", headers=_bearer(monitor)), 403, "key-scope")
        assert (await client.get("/v1/directions", headers=_bearer(phone))).status_code == 200
        assert "edgedit_gateway_requests_total" in (await client.get("/metrics", headers=_bearer(monitor))).text
        # Probes have no keys.
        for route in ("/healthz", "/readyz", "/openapi.json"):
            assert (await client.get(route)).status_code == 200


async def test_without_keys_other_names_of_this_machine_are_refused(backend: EditorBackend) -> None:
    """A page that points its own name at 127.0.0.1 (DNS rebinding) gets nothing."""
    async with gateway(backend) as client:
        for host in ("evil.example", "evil.example:8080", "127.0.0.1.evil.example", ""):
            problem(await client.get("/v1/directions", headers={"host": host}), 421, "misdirected")
        for host in ("localhost", "127.0.0.1:8080", "[::1]:8080", "[::1]"):
            assert (await client.get("/v1/directions", headers={"host": host})).status_code == 200


async def _pieces(count: int, seen: list[int]) -> AsyncIterator[bytes]:
    for number in range(count):
        seen.append(number)
        yield b"x" * 1000


async def test_a_body_that_is_too_long_is_refused_while_it_comes(backend: EditorBackend) -> None:
    async with gateway(backend, body_bytes=10_000) as client:
        # Told: nothing of it is read.
        problem(await client.post("/v1/inversions", content=b"x" * 10_001, headers=_PNG), 413, "body-too-large")
        seen: list[int] = []
        answer = await client.post("/v1/inversions", content=_pieces(100_000, seen), headers=_PNG)
        problem(answer, 413, "body-too-large")
        assert len(seen) <= 12
        problem(await client.post("/v1/inversions", content=b"x" * 10_000, headers=_PNG), 422, "invalid-photo")
        long = {"content-type": "application/json"}
        problem(await client.post("/v1/edits", content=b" " * 70_000, headers=long), 413, "body-too-large")


def _huge_png() -> bytes:
    """A PNG of some hundred bytes whose header says 30,000 x 30,000."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 30_000, 30_000, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(bytes(90_001)))
        + chunk(b"IEND", b"")
    )


async def test_pixels_are_counted_from_the_header(backend: EditorBackend) -> None:
    stream = io.BytesIO()
    Image.new("RGB", (2000, 1001)).save(stream, "PNG")
    async with gateway(backend, megapixels=2.0) as client:
        for body in (_huge_png(), stream.getvalue()):
            told = problem(await client.post("/v1/inversions", content=body, headers=_PNG), 413, "photo-too-large")
            assert "megapixels" in str(told["detail"])
            form = {"files": {"photo": body}, "data": {"edits": "{}"}}
            problem(await client.post("/v1/edits", **form), 413, "photo-too-large")  # type: ignore[arg-type]
    assert backend.inversions == 0


async def test_types_that_are_not_taken(backend: EditorBackend, png: bytes) -> None:
    async with gateway(backend) as client:
        for kind in ("text/plain", "application/json", "image/gif", "", "image"):
            problem(await client.post("/v1/inversions", content=png, headers={"content-type": kind}), 415, "media-type")
        problem(await client.post("/v1/edits", content=png, headers=_PNG), 415, "media-type")
        zipped = {"content-type": "image/png", "content-encoding": "gzip"}
        problem(await client.post("/v1/inversions", content=png, headers=zipped), 415, "content-encoding")


async def test_names_of_types_that_are_not_registered_are_taken(backend: EditorBackend, png: bytes) -> None:
    async with gateway(backend) as client:
        for kind in ("image/jpg", "IMAGE/JPG; q=1", "image/pjpeg", "image/x-png"):
            answer = await client.post("/v1/inversions?aligned=true", content=png, headers={"content-type": kind})
            assert answer.status_code == 200, answer.text
            # Edits take JSON or a form, whatever a picture is called.
            problem(await client.post("/v1/edits", content=png, headers={"content-type": kind}), 415, "media-type")
    assert backend.inversions == 4


async def test_paths_and_methods_that_are_not_there(backend: EditorBackend) -> None:
    async with gateway(backend) as client:
        problem(await client.get("/v1/nothing"), 404)
        problem(await client.get("/docs"), 404)
        problem(await client.get("/v1/directions/"), 404)
        answer = await client.delete("/v1/edits")
        problem(answer, 405)
        assert answer.headers["allow"] == "POST"


async def test_a_key_over_its_rate_is_told_when_to_come_back(backend: EditorBackend, tmp_path: Path) -> None:
    path = tmp_path / "keys"
    hasty, calm = add_key(path, "hasty"), add_key(path, "calm")
    async with gateway(backend, api_keys=path, rate=0.01, burst=3) as client:
        answers = [await client.get("/v1/directions", headers=_bearer(hasty)) for _ in range(5)]
        assert [answer.status_code for answer in answers] == [200, 200, 200, 429, 429]
        problem(answers[-1], 429, "rate-limit")
        assert 50 <= int(answers[-1].headers["retry-after"]) <= 100
        assert (await client.get("/v1/directions", headers=_bearer(calm))).status_code == 200
        assert (await client.get("/healthz")).status_code == 200


async def test_a_burst_gives_only_answers_and_refusals(backend: EditorBackend, face_png: bytes) -> None:
    limits = {"running": 2, "waiting": 3, "per_key": 100, "timeout": 60.0}
    async with gateway(backend, **limits) as client:
        sent = await client.post("/v1/inversions?aligned=true", content=face_png, headers=_PNG)
        wanted = {"handle": sent.json()["handle"], "edits": {"smile": 1}}
        backend.gate = asyncio.Event()
        tasks = [asyncio.create_task(client.post("/v1/edits", json=wanted)) for _ in range(40)]
        # Refusals wait for nothing.
        while sum(task.done() for task in tasks) < 35:
            await asyncio.sleep(0.01)
        backend.gate.set()
        answers = await asyncio.gather(*tasks)
        codes = [answer.status_code for answer in answers]
        assert codes.count(200) == 5 and codes.count(503) == 35
        for answer in answers:
            if answer.status_code == 503:
                problem(answer, 503, "overloaded")
                assert int(answer.headers["retry-after"]) >= 1
        assert backend.most == 2
        metrics = (await client.get("/metrics")).text
        assert 'edgedit_gateway_refused_total{problem="overloaded"} 35.0' in metrics
        assert "edgedit_gateway_admitted 0.0" in metrics
        assert (await client.post("/v1/edits", json=wanted)).status_code == 200


async def test_one_key_cannot_fill_the_queue(backend: EditorBackend, tmp_path: Path, face_png: bytes) -> None:
    path = tmp_path / "keys"
    greedy, other = add_key(path, "greedy"), add_key(path, "other")
    async with gateway(backend, api_keys=path, running=1, waiting=9, per_key=2) as client:
        headers = _PNG | _bearer(other)
        sent = await client.post("/v1/inversions?aligned=true", content=face_png, headers=headers)
        wanted = {"handle": sent.json()["handle"], "edits": {"smile": 1}}
        backend.gate = asyncio.Event()
        tasks = [asyncio.create_task(client.post("/v1/edits", json=wanted, headers=_bearer(greedy))) for _ in range(6)]
        mine = asyncio.create_task(client.post("/v1/edits", json=wanted, headers=_bearer(other)))
        while sum(task.done() for task in tasks) < 4:
            await asyncio.sleep(0.01)
        backend.gate.set()
        codes = sorted(answer.status_code for answer in await asyncio.gather(*tasks))
        assert codes == [200, 200, 429, 429, 429, 429]
        assert (await mine).status_code == 200


async def test_deadlines(backend: EditorBackend, face_png: bytes) -> None:
    async with gateway(backend, timeout=30.0, max_timeout=40.0) as client:
        sent = await client.post("/v1/inversions?aligned=true", content=face_png, headers=_PNG)
        wanted = {"handle": sent.json()["handle"], "edits": {}}
        backend.gate = asyncio.Event()
        late = await client.post("/v1/edits", json=wanted, headers={"x-request-timeout": "2"})
        problem(late, 504, "deadline")
        # What was asked of the model was called off, and its place is free.
        assert backend.cancelled == 1
        assert "edgedit_gateway_admitted 0.0" in (await client.get("/metrics")).text
        for wrong in ("0", "-1", "nan", "inf", "soon", ""):
            answer = await client.get("/v1/directions", headers={"x-request-timeout": wrong})
            problem(answer, 400, "invalid-timeout")
        backend.gate.set()
        assert (await client.post("/v1/edits", json=wanted, headers={"x-request-timeout": "1e9"})).status_code == 200


async def test_a_deadline_that_is_asked_for_is_capped(backend: EditorBackend, face_png: bytes) -> None:
    async with gateway(backend, timeout=0.2, max_timeout=0.4) as client:
        backend.gate = asyncio.Event()
        wanted = {"handle": "0" * 32, "edits": {}}
        late = await client.post("/v1/edits", json=wanted, headers={"x-request-timeout": "9999"})
        assert "0.4 s" in str(problem(late, 504, "deadline")["detail"])


async def test_request_ids_go_in_and_out(backend: EditorBackend) -> None:
    async with gateway(backend) as client:
        answer = await client.get("/healthz", headers={"x-request-id": "abc-123.DEF:4/5"})
        assert answer.headers["x-request-id"] == "abc-123.DEF:4/5"
        made = set()
        for wrong in ("", "a b", "x" * 129, "<script>", '"', "-a"):
            made.add((await client.get("/healthz", headers={"x-request-id": wrong})).headers["x-request-id"])
        assert len(made) == 6 and all(len(name) == 32 for name in made)
        told = problem(await client.get("/nothing", headers={"x-request-id": "mine"}), 404)
        assert told["request_id"] == "mine"


async def test_readiness_really_infers_and_is_remembered_for_a_moment(backend: EditorBackend) -> None:
    async with gateway(backend, canary_cache=60.0, canary_timeout=60.0) as client:
        answers = await asyncio.gather(*(client.get("/readyz") for _ in range(8)))
        assert [answer.json() for answer in answers] == [{"status": "ready"}] * 8
        assert backend.edits == 1 and backend.inversions == 1
        client.app.state.gateway.draining = True  # type: ignore[attr-defined]
        problem(await client.get("/readyz"), 503, "stopping")
        assert (await client.get("/healthz")).status_code == 200
    async with gateway(backend, canary_cache=0.0, canary_timeout=60.0) as client:
        backend.fault = UnavailableError("gone")
        problem(await client.get("/readyz"), 503, "not-ready")
        assert (await client.get("/healthz")).status_code == 200
        assert "edgedit_gateway_ready 0.0" in (await client.get("/metrics")).text
        backend.fault = None
        # The model's description is asked for again a second after it could not be had.
        client.app.state.gateway.model._then -= 2  # type: ignore[attr-defined]
        assert (await client.get("/readyz")).status_code == 200
        # The canary's picture is the same while all is well, and another one after each failure: it goes elsewhere.
        held = set(backend.held)
        assert (await client.get("/readyz")).status_code == 200 and set(backend.held) == held
        backend.edit_fault = UnavailableError("this Triton is ill")
        problem(await client.get("/readyz"), 503, "not-ready")
        backend.edit_fault = None
        assert set(backend.held) == held
        assert (await client.get("/readyz")).status_code == 200
        assert len(set(backend.held) - held) == 1
    async with gateway(backend, canary_cache=0.0, canary_timeout=0.3) as client:
        backend.gate = asyncio.Event()
        problem(await client.get("/readyz"), 503, "not-ready")


async def test_while_the_server_is_away_nobody_waits_for_the_other(
    backend: EditorBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    # However long twenty requests take here: they come within the time that a failure counts.
    monkeypatch.setattr("serving.gateway.backend._ERROR_SECONDS", 600.0)
    asked = 0

    async def profile() -> None:
        nonlocal asked
        asked += 1
        await asyncio.sleep(0.05)
        raise UnavailableError("away")

    backend.profile = profile  # type: ignore[method-assign,assignment]
    async with gateway(backend) as client:
        for answer in await asyncio.gather(*(client.get("/v1/directions") for _ in range(20))):
            problem(answer, 503, "backend-unavailable")
    assert asked == 1


async def test_logs_hold_neither_photos_nor_keys_nor_whole_handles(
    backend: EditorBackend, face_png: bytes, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    key = add_key(tmp_path / "keys", "phone")
    logger = logging.getLogger("edgedit.gateway")
    logger.setLevel(logging.INFO)
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonFormatter())
    logger.addHandler(handler)
    try:
        async with gateway(backend, api_keys=tmp_path / "keys") as client:
            headers = _bearer(key) | {"x-request-id": "one"}
            sent = await client.post("/v1/inversions?aligned=true", content=face_png, headers=_PNG | headers)
            handle = sent.json()["handle"]
            await client.post("/v1/edits", json={"handle": handle, "edits": {"smile": 1}}, headers=headers)
            await client.post("/v1/edits", content=b'{"secret\n": 1', headers=headers | {"content-type": _JSON})
            backend.fault = RuntimeError("broken\nin two lines")
            await client.post("/v1/edits", json={"handle": handle, "edits": {"smile": 1}}, headers=headers)
    finally:
        logger.removeHandler(handler)
    text = stream.getvalue()
    lines = [json.loads(line) for line in text.splitlines()]
    requests = [line for line in lines if line["message"] == "request"]
    assert [line["status"] for line in requests] == [200, 200, 400, 500]
    assert all(line["request_id"] == "one" and line["key"] == "phone" for line in requests)
    assert requests[0]["bytes_in"] == len(face_png) and requests[1]["handle"] == handle[:8]
    assert requests[1]["ms"] > 0 and requests[1]["route"] == "/v1/edits"
    assert any("RuntimeError" in json.dumps(line) for line in lines if line["level"] == "error")
    assert handle not in text and key not in text and "secret" not in text


async def test_metrics_have_few_labels(backend: EditorBackend) -> None:
    async with gateway(backend) as client:
        for number in range(5):
            await client.get(f"/nothing/{number}")
            await client.request(f"ODD{number}", "/v1/edits")
        text = (await client.get("/metrics")).text
    assert 'edgedit_gateway_requests_total{method="GET",route="other",status="404"} 5.0' in text
    assert 'method="other",route="/v1/edits",status="405"' in text
    assert "ODD" not in text and "nothing" not in text


async def test_answers_are_not_cached_or_sniffed(backend: EditorBackend, png: bytes) -> None:
    async with gateway(backend) as client:
        answer: httpx.Response = await client.post("/v1/inversions", content=png, headers=_PNG)
    assert answer.headers["cache-control"] == "no-store" and answer.headers["x-content-type-options"] == "nosniff"


async def test_photos_touch_no_disk(backend: EditorBackend, photo: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    """Forms of several megabytes are often spooled to temporary files."""
    import tempfile

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a temporary file")

    for name in ("SpooledTemporaryFile", "TemporaryFile", "NamedTemporaryFile", "mkstemp"):
        monkeypatch.setattr(tempfile, name, refuse)
    noise = np.random.default_rng(0).integers(0, 255, (900, 900, 3), np.uint8)
    noise[:260, :260] = photo
    async with gateway(backend) as client:
        body = encoded(noise)
        assert len(body) > 2_000_000
        answer = await client.post("/v1/edits", files={"photo": body}, data={"edits": '{"smile": 1}'})
        assert answer.status_code in (200, 422), answer.text
