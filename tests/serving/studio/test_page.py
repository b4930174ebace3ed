"""The studio over HTTP: pages that load nothing from elsewhere, photos that are kept for a while and no longer."""

from __future__ import annotations

import io
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from edgedit.demo import ASTRONAUT
from edgedit.editor import Editor
from engines.directions import resolve
from serving.studio.page import PAGES, STATIC
from tests.serving.gateway.conftest import decoded, encoded, problem
from tests.serving.studio.conftest import studio

pytestmark = pytest.mark.anyio

PHOTO = ASTRONAUT.read_bytes()
JPEG = {"content-type": "image/jpeg"}


class Tags(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))


@pytest.mark.parametrize("path", PAGES)
async def test_pages_carry_a_strict_policy_and_nothing_inline(editor: Editor, path: str) -> None:
    async with studio(editor) as client:
        page = await client.get(path)
        assert page.status_code == 200 and page.headers["content-type"] == "text/html; charset=utf-8"
        policy = dict(part.strip().split(" ", 1) for part in page.headers["content-security-policy"].split(";"))
        assert policy["default-src"] == "'none'" and policy["script-src"] == policy["style-src"] == "'self'"
        assert policy["frame-ancestors"] == "'none'" and policy["connect-src"] == "'self'"
        assert page.headers["x-content-type-options"] == "nosniff"
        assert page.headers["referrer-policy"] == "no-referrer"
        for tag, attributes in Tags(page.text).tags:
            assert tag != "script" or attributes.get("src")
            assert "style" not in attributes and tag != "style"
            assert not [name for name in attributes if name.startswith("on")]
            for name in ("src", "href"):
                if (target := attributes.get(name)) is not None and not target.startswith("#"):
                    assert re.match(r"/(?!/)", target), target
                    assert (await client.get(target)).status_code == 200, target


async def test_all_files_are_served_under_their_types_and_asked_for_anew(editor: Editor) -> None:
    types = {".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}
    async with studio(editor) as client:
        for file in STATIC.iterdir():
            if file.suffix == ".html":
                problem(await client.get(f"/studio/{file.name}"), 404)
                continue
            answer = await client.get(f"/studio/{file.name}")
            assert answer.content == file.read_bytes()
            assert answer.headers["content-type"].partition(";")[0] == types[file.suffix]
            again = await client.get(f"/studio/{file.name}", headers={"if-none-match": answer.headers["etag"]})
            assert (again.status_code, again.content) == (304, b"")
            # Nothing is loaded from elsewhere.
            text = file.read_text().replace("http://www.w3.org/", "")
            assert not re.search(r"(https?:)?//[a-z0-9-]+\.[a-z]", text), file.name
        for path in (
            "/studio/../page.py",
            "/studio/%2e%2e/page.py",
            "/studio/page.py",
            "/studio/",
            "/static/studio.js",
        ):
            assert (await client.get(path)).status_code == 404


async def test_other_origins_and_names_are_refused(editor: Editor) -> None:
    async with studio(editor) as client:
        problem(await client.get("/v1/model", headers={"host": "rebound.example"}), 421, "misdirected")
        for origin in ("http://evil.example", "null", "http://127.0.0.1:81", "http://localhost"):
            answer = await client.post("/v1/faces", content=PHOTO, headers={**JPEG, "origin": origin})
            problem(answer, 403, "foreign-origin")
        own = await client.post("/v1/faces", content=PHOTO, headers={**JPEG, "origin": "http://127.0.0.1"})
        assert own.status_code == 200


async def test_the_model_says_what_may_be_asked_of_it(editor: Editor) -> None:
    async with studio(editor, body_bytes=1_000_000) as client:
        model = (await client.get("/v1/model")).json()
        assert (model["name"], model["width"], model["runtime"]) == ("random", 64, "onnxruntime")
        assert model["renderings"] == ["edit", "linear", "map"] and model["keeps_photos"]
        assert (model["photo_bytes"], model["photo_seconds"]) == (1_000_000, 60)


async def test_faces_are_listed_and_none_is_no_error(editor: Editor) -> None:
    pixels = np.asarray(Image.open(ASTRONAUT).convert("RGB"))
    two = np.concatenate([pixels, pixels[:, ::-1]], axis=1)
    async with studio(editor) as client:
        answer = await client.post("/v1/faces", content=encoded(two), headers={"content-type": "image/png"})
        listed = answer.json()
        assert (listed["width"], listed["height"]) == (two.shape[1], two.shape[0])
        centres = sorted((face["box"][0] + face["box"][2]) / 2 for face in listed["faces"])
        assert len(centres) == 2 and centres[0] < two.shape[1] / 2 < centres[1]
        assert "photo;dur=" in answer.headers["server-timing"]
        grey = encoded(np.full((200, 300, 3), 120, np.uint8))
        answer = await client.post("/v1/faces", content=grey, headers={"content-type": "image/png"})
        assert answer.json() == {"width": 300, "height": 200, "faces": []}


async def test_a_kept_photo_is_edited_by_its_handle_as_if_it_were_sent_along(editor: Editor) -> None:
    portrait = editor.portrait(ASTRONAUT)
    async with studio(editor) as client:
        inversion = (await client.post("/v1/inversions", content=PHOTO, headers=JPEG)).json()
        wanted = {"handle": inversion["handle"], "edits": {"smile": 1.5}}
        answer = await client.post("/v1/edits", json=wanted)
        assert np.array_equal(decoded(answer), portrait.edit_face({"smile": 1.5}))
        assert {"backend", "encode"} <= set(re.findall(r"(\w+);dur", answer.headers["server-timing"]))
        answer = await client.post("/v1/edits", json={**wanted, "paste_back": True})
        assert np.array_equal(decoded(answer), portrait.edit({"smile": 1.5}))
        small = await client.post("/v1/edits", json={**wanted, "paste_back": True, "side": 128, "format": "jpeg"})
        assert max(decoded(small).shape) == 128


async def test_linear_editing_and_the_map(editor: Editor) -> None:
    portrait = editor.portrait(ASTRONAUT)
    edit = resolve(editor.directions, {"age": 2.0}, editor.family)
    async with studio(editor) as client:
        inversion = (await client.post("/v1/inversions", content=PHOTO, headers=JPEG)).json()
        wanted = {"handle": inversion["handle"], "edits": {"age": 2.0}}
        linear = decoded(await client.post("/v1/edits", json={**wanted, "rendering": "linear"}))
        expected = editor.session.edit_linear(portrait.inversion, edit.delta_w, edit.style_delta)[0]
        assert np.array_equal(linear, portrait.cut.in_tone(expected))
        assert not np.array_equal(linear, portrait.edit_face({"age": 2.0}))
        levels = decoded(await client.post("/v1/edits", json={**wanted, "rendering": "map"}))
        values = editor.session.edit_map(portrait.inversion, edit.delta_w, edit.style_delta)[0]
        np.testing.assert_allclose(levels[:, :, 0], 255 * values / values.max(), atol=0.51)


async def test_handles_are_random_and_forgotten(editor: Editor) -> None:
    handles = []
    for _ in range(2):
        async with studio(editor, photo_memory=1) as client:
            for _ in range(2):
                handles.append((await client.post("/v1/inversions", content=PHOTO, headers=JPEG)).json()["handle"])
            # This photo was too large to be kept.
            wanted = {"handle": handles[-1], "edits": {}, "paste_back": True}
            problem(await client.post("/v1/edits", json=wanted), 422, "photo-needed")
            assert (await client.post("/v1/edits", json={**wanted, "paste_back": False})).status_code == 200
    first, again, other, _ = handles
    assert first == again != other and re.fullmatch("[0-9a-f]{32}", first)
    async with studio(editor) as client:
        problem(await client.post("/v1/edits", json={"handle": first, "edits": {}}), 404, "resend-image")


async def test_photos_are_bounded(editor: Editor) -> None:
    async with studio(editor, body_bytes=10_000, megapixels=0.1) as client:
        problem(await client.post("/v1/faces", content=PHOTO, headers=JPEG), 413, "body-too-large")
        stream = io.BytesIO()
        Image.new("RGB", (400, 400)).save(stream, "PNG")
        answer = await client.post("/v1/faces", content=stream.getvalue(), headers={"content-type": "image/png"})
        problem(answer, 413, "photo-too-large")
