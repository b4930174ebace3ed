"""The gateway in front of a real Triton: the same pictures as the editor's, and its faults as the caller sees them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import numpy as np
import pytest

from edgedit.editor import Editor
from engines.errors import StrengthWarning
from engines.lost_picture import LOST
from serving.client import AsyncClient
from serving.gateway.app import create_app
from serving.local.server import LocalTriton
from tests.serving.gateway.conftest import decoded, problem, settings

pytestmark = [pytest.mark.anyio, pytest.mark.triton]

_PNG = {"content-type": "image/png"}


@asynccontextmanager
async def _gateway(url: str, **limits: object) -> AsyncIterator[httpx.AsyncClient]:
    chosen = settings(**limits)
    app = create_app(lambda: AsyncClient(url, timeout=chosen.max_timeout, concurrency=2 * chosen.running), chosen)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://127.0.0.1", timeout=120) as client,
    ):
        yield client


async def test_pictures_are_the_editors(triton: LocalTriton, editor: Editor, photo: np.ndarray, png: bytes) -> None:
    portrait = editor.portrait(photo)
    async with _gateway(triton.grpc, canary_timeout=60.0) as client:
        assert (await client.get("/readyz")).json() == {"status": "ready"}
        told = (await client.get("/v1/directions")).json()["directions"]
        assert [one["name"] for one in told] == list(editor.directions)
        sent = await client.post("/v1/inversions", content=png, headers=_PNG)
        wanted = {"handle": sent.json()["handle"], "edits": {"smile": 2.0, "age": -1}}
        edited = decoded(await client.post("/v1/edits", json=wanted))
        assert np.array_equal(edited, editor.edit(portrait.inversion, wanted["edits"]))
        whole = await client.post("/v1/edits", files={"photo": png}, data={"edits": '{"smile": 2}'})
        assert np.array_equal(decoded(whole), portrait.edit({"smile": 2}))
        assert whole.headers["edgedit-handle"] == sent.json()["handle"]


async def test_refusals_of_the_model(triton: LocalTriton, face_png: bytes) -> None:
    async with _gateway(triton.grpc) as client:
        problem(await client.post("/v1/edits", json={"handle": "f" * 32, "edits": {"smile": 1}}), 404, "resend-image")
        unknown = await client.post("/v1/edits", json={"handle": "f" * 32, "edits": {"smlie": 1}})
        assert problem(unknown, 422, "unknown-direction")["suggestions"] == ["smile"]
        sent = await client.post("/v1/inversions?aligned=true", content=face_png, headers=_PNG)
        with pytest.warns(StrengthWarning, match="of smile is outside"):
            lost = await client.post("/v1/edits", json={"handle": sent.json()["handle"], "edits": {"smile": 1e6}})
        assert problem(lost, 422, "invalid-edit")["detail"] == LOST


async def test_a_burst_gives_only_answers_and_refusals(triton: LocalTriton, face_png: bytes, editor: Editor) -> None:
    expected = editor.edit(editor.invert(face_png, aligned=True), {"smile": 1})
    async with _gateway(triton.grpc, running=4, waiting=8, per_key=100) as client:
        sent = await client.post("/v1/inversions?aligned=true", content=face_png, headers=_PNG)
        wanted = {"handle": sent.json()["handle"], "edits": {"smile": 1}}
        answers = await asyncio.gather(*(client.post("/v1/edits", json=wanted) for _ in range(60)))
        codes = {answer.status_code for answer in answers}
        assert codes <= {200, 503} and 200 in codes
        for answer in answers:
            if answer.status_code == 200:
                assert np.array_equal(decoded(answer), expected)


async def test_a_triton_that_is_away_is_503(png: bytes) -> None:
    async with _gateway("127.0.0.1:1") as client:
        answer = await client.post("/v1/inversions", content=png, headers=_PNG)
        assert "127.0.0.1:1" not in str(problem(answer, 503, "backend-unavailable"))
        assert int(answer.headers["retry-after"]) >= 1
        problem(await client.get("/readyz"), 503, "not-ready")
        assert (await client.get("/healthz")).status_code == 200
