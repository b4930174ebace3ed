"""What a caller gets is what the editor gives, to the bit."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import httpx
import numpy as np
import pytest
from PIL import Image

from edgedit.editor import Editor
from engines.errors import CredentialsError, StrengthWarning
from engines.lost_picture import LOST
from engines.photo.claims import read_credentials
from serving.client.errors import (
    DeadlineError,
    OverloadedError,
    RequestError,
    ServingError,
    UnavailableError,
)
from serving.gateway.app import create_app
from tests.serving.gateway.conftest import EditorBackend, decoded, encoded, gateway, problem, settings

pytestmark = [pytest.mark.anyio, pytest.mark.filterwarnings("ignore::engines.errors.StrengthWarning")]

_PNG = {"content-type": "image/png"}


async def test_encode_once_edit_many(backend: EditorBackend, editor: Editor, photo: np.ndarray, png: bytes) -> None:
    async with gateway(backend) as client:
        answer = await client.post("/v1/inversions", content=png, headers=_PNG)
        assert answer.status_code == 200, answer.text
        told = answer.json()
        portrait = editor.portrait(photo)
        assert portrait.alignment is not None
        assert (told["width"], told["height"]) == (260, 260)
        assert told["alignment"]["quad"] == portrait.alignment.quad.tolist()
        assert told["alignment"]["side"] == portrait.alignment.side
        assert (await client.get(told["links"]["directions"])).status_code == 200
        for edits in ({"smile": 2.0}, {"age": -1, "smile": 1.5}, {}):
            edited = await client.post(told["links"]["edits"], json={"handle": told["handle"], "edits": edits})
            expected = editor.edit(portrait.inversion, edits) if edits else portrait.reconstruction
            assert np.array_equal(decoded(edited), expected)
            assert edited.headers["edgedit-handle"] == told["handle"]
    assert backend.inversions == 1


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
async def test_one_call_does_all(backend: EditorBackend, editor: Editor, photo: np.ndarray, kind: str) -> None:
    sent = encoded(photo, kind)
    async with gateway(backend) as client:
        answer = await client.post("/v1/edits", files={"photo": ("me", sent)}, data={"edits": '{"smile": 2}'})
    expected = editor.edit_photo(sent, {"smile": 2})
    assert answer.headers["content-type"] == "image/png"
    assert np.array_equal(decoded(answer), expected)
    assert not np.array_equal(expected, editor.portrait(sent).photo.pixels)


async def test_the_face_alone_and_other_formats(backend: EditorBackend, editor: Editor, png: bytes) -> None:
    portrait = editor.portrait(png)
    expected = editor.edit(portrait.inversion, {"smile": 2})
    form = {"edits": '{"smile": 2}', "paste_back": "false"}
    async with gateway(backend) as client:
        plain = await client.post("/v1/edits", files={"photo": png}, data=form)
        assert np.array_equal(decoded(plain), expected)
        for name, kind in (("jpeg", "image/jpeg"), ("webp", "image/webp")):
            answer = await client.post("/v1/edits", files={"photo": png}, data=form | {"format": name})
            assert answer.headers["content-type"] == kind
            error = np.abs(decoded(answer).astype(int) - expected)
            assert 0 < error.mean() < 12
        small = await client.post("/v1/edits", files={"photo": png}, data=form | {"format": "jpeg", "quality": "10"})
        large = await client.post("/v1/edits", files={"photo": png}, data=form | {"format": "jpeg", "quality": "95"})
        assert len(small.content) < len(large.content)


async def test_an_aligned_face_is_taken_whole(backend: EditorBackend, editor: Editor, face_png: bytes) -> None:
    inversion = editor.invert(face_png, aligned=True)
    async with gateway(backend) as client:
        answer = await client.post("/v1/inversions?aligned=true", content=face_png, headers=_PNG)
        assert answer.json()["alignment"] is None
        form = {"edits": '{"yaw": 1}', "aligned": "true"}
        edited = await client.post("/v1/edits", files={"photo": face_png}, data=form)
        assert np.array_equal(decoded(edited), editor.edit(inversion, {"yaw": 1}))
        sent = await client.post("/v1/inversions?aligned=true", files={"photo": face_png})
        assert sent.json()["handle"] == answer.json()["handle"]


@pytest.mark.parametrize("form", [{}, {"paste_back": "false"}, {"aligned": "true"}], ids=["photo", "face", "aligned"])
async def test_grey_and_dark_photos_come_back_so(
    backend: EditorBackend, editor: Editor, photo: np.ndarray, form: dict[str, str]
) -> None:
    taken = editor.portrait(photo).aligned if form.get("aligned") else photo
    grey = np.asarray(Image.fromarray(taken).convert("L").convert("RGB"))
    form = {"edits": '{"smile": 4.5}'} | form
    async with gateway(backend) as client:
        edited = decoded(await client.post("/v1/edits", files={"photo": encoded(grey)}, data=form))
        dark = decoded(await client.post("/v1/edits", files={"photo": encoded(taken // 4)}, data=form))
    assert np.ptp(edited.astype(int), axis=2).max() == 0
    assert dark.max() <= 80
    if "paste_back" not in form:
        aligned = bool(form.get("aligned"))
        assert np.array_equal(edited, editor.edit_photo(grey, {"smile": 4.5}, aligned=aligned))
        assert np.array_equal(dark, editor.edit_photo(taken // 4, {"smile": 4.5}, aligned=aligned))


async def test_a_photo_upside_down(backend: EditorBackend, editor: Editor, photo: np.ndarray) -> None:
    turned = encoded(np.ascontiguousarray(photo[::-1, ::-1]))
    async with gateway(backend) as client:
        told = (await client.post("/v1/inversions", content=turned, headers=_PNG)).json()
    upright = editor.portrait(photo).alignment
    assert upright is not None
    assert np.abs((260 - np.array(told["alignment"]["quad"])) - upright.quad).max() < 0.01


async def test_opacity_is_kept(backend: EditorBackend, photo: np.ndarray, tmp_path: Path) -> None:
    image = Image.fromarray(photo)
    image.putalpha(Image.linear_gradient("L").resize(image.size))
    image.save(tmp_path / "a.png")
    async with gateway(backend) as client:
        files = {"photo": (tmp_path / "a.png").read_bytes()}
        answer = await client.post("/v1/edits", files=files, data={"edits": '{"smile": 1}'})
    (tmp_path / "b.png").write_bytes(answer.content)
    with Image.open(tmp_path / "b.png") as back:
        assert back.mode == "RGBA" and np.array_equal(back.getchannel("A"), image.getchannel("A"))


async def test_clamping_keeps_to_the_ranges(backend: EditorBackend, editor: Editor, png: bytes) -> None:
    portrait = editor.portrait(png)
    form = {"edits": '{"smile": 1e6}', "paste_back": "false", "clamp": "true"}
    async with gateway(backend) as client:
        answer = await client.post("/v1/edits", files={"photo": png}, data=form)
    with pytest.warns(StrengthWarning):
        expected = editor.edit(portrait.inversion, {"smile": 1e6}, clamp=True)
    assert np.array_equal(decoded(answer), expected)


async def test_directions_are_those_of_the_model(backend: EditorBackend, editor: Editor) -> None:
    async with gateway(backend) as client:
        told = (await client.get("/v1/directions")).json()["directions"]
    assert [one["name"] for one in told] == list(editor.directions)
    smile = next(one for one in told if one["name"] == "smile")
    assert smile["max_strength"] == editor.directions["smile"].max_strength and smile["description"]


async def test_a_dropped_inversion_asks_for_the_photo(backend: EditorBackend, png: bytes) -> None:
    async with gateway(backend) as client:
        handle = (await client.post("/v1/inversions", content=png, headers=_PNG)).json()["handle"]
        backend.held.clear()
        gone = problem(
            await client.post("/v1/edits", json={"handle": handle, "edits": {"smile": 1}}), 404, "resend-image"
        )
        assert gone["title"] == "resend image"
        # With the photo at hand nothing needs to be held.
        again = await client.post("/v1/edits", files={"photo": png}, data={"edits": '{"smile": 1}'})
        assert again.status_code == 200 and again.headers["edgedit-handle"] == handle


async def test_an_unknown_direction_is_answered_with_a_suggestion_before_any_work(
    backend: EditorBackend, png: bytes
) -> None:
    async with gateway(backend) as client:
        for answer in (
            await client.post("/v1/edits", json={"handle": "0" * 32, "edits": {"smlie": 1}}),
            await client.post("/v1/edits", files={"photo": png}, data={"edits": '{"Smile": 1}'}),
        ):
            body = problem(answer, 422, "unknown-direction")
            assert "did you mean smile?" in str(body["detail"]) and body["suggestions"] == ["smile"]
        far = problem(await client.post("/v1/edits", json={"handle": "0" * 32, "edits": {"qqq": 1}}), 422)
        assert "/v1/directions" in str(far["detail"])
    assert backend.inversions == backend.edits == 0


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"handle": "0" * 32},
        {"handle": "0" * 31, "edits": {}},
        {"handle": "../../etc/passwd", "edits": {}},
        {"handle": 7, "edits": {}},
        {"handle": "0" * 32, "edits": []},
        {"handle": "0" * 32, "edits": {"smile": "2"}},
        {"handle": "0" * 32, "edits": {"smile": True}},
        {"handle": "0" * 32, "edits": {"smile": None}},
        {"handle": "0" * 32, "edits": {f"d{n}": 1 for n in range(17)}},
        {"handle": "0" * 32, "edits": {"a b": 1}},
        {"handle": "0" * 32, "edits": {}, "format": "gif"},
        {"handle": "0" * 32, "edits": {}, "quality": 0},
        {"handle": "0" * 32, "edits": {}, "strength": 2},
        [],
        "text",
    ],
)
async def test_json_that_does_not_fit_is_422_and_says_where(backend: EditorBackend, body: object) -> None:
    async with gateway(backend) as client:
        told = problem(await client.post("/v1/edits", json=body), 422, "invalid-request")
    assert told["errors"] and told["detail"]
    assert "etc/passwd" not in json.dumps(told)


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"{",
        b"\xff\xfe",
        b'{"handle": "%s", "edits": {"smile": NaN}}' % (b"0" * 32),
        b'{"handle": "%s", "edits": {"smile": 1e999}}' % (b"0" * 32),
        b"[" * 30_000,
    ],
)
async def test_malformed_json_is_refused(backend: EditorBackend, raw: bytes) -> None:
    async with gateway(backend) as client:
        answer = await client.post("/v1/edits", content=raw, headers={"content-type": "application/json"})
    assert answer.status_code in (400, 422)
    problem(answer, answer.status_code)


@pytest.mark.parametrize(
    ("files", "data"),
    [
        ({}, {"edits": "{}"}),
        ({"photo": b"x"}, {}),
        ({"photo": b"x"}, {"edits": "{"}),
        ({"photo": b"x"}, {"edits": "[]"}),
        ({"photo": b"x"}, {"edits": "{}", "face": "-1"}),
        ({"photo": b"x"}, {"edits": "{}", "paste_back": "perhaps"}),
        ({"photo": b"x"}, {"edits": "{}", "other": "1"}),
    ],
)
async def test_forms_that_do_not_fit_are_422(
    backend: EditorBackend, files: dict[str, bytes], data: dict[str, str]
) -> None:
    request = httpx.Request("POST", "http://127.0.0.1/v1/edits", files=files or {"other": b""}, data=data)
    async with gateway(backend) as client:
        problem(await client.send(request), 422, "invalid-request")


async def test_a_paste_back_needs_the_photo(backend: EditorBackend) -> None:
    async with gateway(backend) as client:
        wanted = {"handle": "0" * 32, "edits": {}, "paste_back": True}
        problem(await client.post("/v1/edits", json=wanted), 422, "photo-needed")


async def test_photos_that_cannot_be_used(backend: EditorBackend, photo: np.ndarray, png: bytes) -> None:
    sky = encoded(np.full((64, 64, 3), 200, np.uint8))
    async with gateway(backend) as client:

        async def post(body: bytes, query: str = "") -> httpx.Response:
            return await client.post(f"/v1/inversions{query}", content=body, headers=_PNG)

        problem(await post(png[: len(png) // 2]), 422, "invalid-photo")
        problem(await post(encoded(photo, "JPEG")[:3000]), 422, "invalid-photo")
        problem(await post(b"no image at all"), 422, "invalid-photo")
        problem(await post(b""), 422, "invalid-photo")
        problem(await post(encoded(photo, "GIF")), 422, "invalid-photo")
        faceless = problem(await post(sky), 422, "no-face")
        assert "aligned=true" in str(faceless["detail"]) and "--" not in str(faceless["detail"])
        problem(await post(png, "?face=7"), 422, "no-face")
        problem(await post(encoded(photo[:100]), "?aligned=true"), 422, "invalid-photo")
        problem(await post(png, "?face=-1"), 422, "invalid-request")
        problem(await post(png, "?alligned=true"), 422, "invalid-request")
    assert backend.inversions == 0


@pytest.mark.parametrize(
    ("fault", "status", "kind"),
    [
        (UnavailableError("10.1.2.3:8001 cannot be reached: /work/x"), 503, "backend-unavailable"),
        (OverloadedError("10.1.2.3:8001 has too many"), 503, "backend-overloaded"),
        (DeadlineError("10.1.2.3:8001 gave no answer"), 504, "backend-deadline"),
        (ServingError("File /work/model.py, line 3: 0x7f001234"), 502, "backend-failed"),
        (RequestError("strength of 'smile' is too large"), 422, "invalid-edit"),
        (RequestError(LOST), 422, "invalid-edit"),
        (RequestError("in /opt/tritonserver/models/x/model.py"), 422, "invalid-edit"),
        (RuntimeError("/work/secret.py"), 500, "internal"),
    ],
)
async def test_faults_behind_the_gateway_tell_nothing_of_it(
    backend: EditorBackend, fault: Exception, status: int, kind: str
) -> None:
    async with gateway(backend) as client:
        await client.get("/v1/directions")
        backend.fault = fault
        answer = await client.post("/v1/edits", json={"handle": "0" * 32, "edits": {"smile": 1}})
        told = problem(answer, status, kind)
        assert "10.1.2.3" not in str(told) and "triton" not in str(told)
        if status == 503:
            assert int(answer.headers["retry-after"]) >= 1
        if "too large" in str(fault) or str(fault) == LOST:
            assert told["detail"] == str(fault)
        backend.fault = None
        problem(await client.post("/v1/edits", json={"handle": "0" * 32, "edits": {}}), 404)


@pytest.mark.parametrize("form", ["png", "jpeg", "webp"])
async def test_pictures_say_that_they_were_edited(backend: EditorBackend, photo: np.ndarray, form: str) -> None:
    pytest.importorskip("c2pa", reason="signing pictures needs the credentials extra")
    sent = encoded(photo, "PNG")
    async with gateway(backend) as client:
        whole = await client.post(
            "/v1/edits", files={"photo": ("me", sent)}, data={"edits": '{"smile": 2}', "format": form}
        )
        edits = {"handle": whole.headers["edgedit-handle"], "edits": {"age": -1.0}, "format": form}
        face = await client.post("/v1/edits", json=edits)
    claims = read_credentials(whole.content)
    assert claims.intact and claims.edit and claims.edit["edits"] == {"smile": 2.0}
    assert claims.edit["original"]["sha256"] == hashlib.sha256(sent).hexdigest()
    claims = read_credentials(face.content)
    assert claims.intact and claims.edit and claims.edit["edits"] == {"age": -1.0} and "original" not in claims.edit
    assert claims.digital_source_type == "compositeWithTrainedAlgorithmicMedia"


async def test_an_operator_may_leave_credentials_out(backend: EditorBackend, photo: np.ndarray) -> None:
    async with gateway(backend, credentials=False) as client:
        answer = await client.post("/v1/edits", files={"photo": ("me", encoded(photo, "PNG"))}, data={"edits": "{}"})
    claims = read_credentials(answer.content)
    assert not claims.signed and claims.digital_source_type is None
    with pytest.raises(CredentialsError, match="go together"):
        create_app(lambda: backend, settings(private_key=Path("key.pem")))
