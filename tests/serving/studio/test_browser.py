"""The studio in a real browser: headless Chromium, driven as a person drives it."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgedit.demo import ASTRONAUT
from edgedit.editor import Editor
from serving.gateway.keys import EDIT, add_key
from serving.studio.page import attach
from tests.serving.gateway.conftest import EditorBackend, Running, encoded, served
from tests.serving.studio.conftest import edited, running

playwright = pytest.importorskip("playwright.sync_api", reason="needs Playwright (the dev extra)")
expect = playwright.expect

pytestmark = [pytest.mark.browser]

NAMES = ("chromium", "chromium-browser", "chromium-headless-shell", "google-chrome", "google-chrome-stable")
FLAGS = [
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
]
WAIT = 60_000
"""Milliseconds, a guard against a hang."""


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    binary = os.environ.get("EDGEDIT_CHROMIUM") or next(filter(None, map(shutil.which, NAMES)))
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=binary, args=FLAGS)
        yield browser
        browser.close()


class Tab:
    """A page of the studio, and what a person does with it."""

    def __init__(self, page: Any, url: str) -> None:
        self.page, self.url = page, url
        self.console: list[str] = []
        self.requests: list[str] = []
        page.on("console", lambda message: self.console.append(f"{message.type}: {message.text}"))
        page.on("pageerror", lambda error: self.console.append(str(error)))
        page.on("request", lambda request: self.requests.append(request.url))
        page.set_default_timeout(WAIT)
        page.goto(url)

    def upload(self, photo: bytes | Path, name: str = "photo.png") -> None:
        given = photo if isinstance(photo, Path) else {"name": name, "mimeType": "image/png", "buffer": photo}
        self.page.set_input_files("#file", given)

    def start(self) -> None:
        """Opens the astronaut's photo and waits for the reconstruction."""
        self.page.click("#sample")
        self.settled()

    def settled(self) -> None:
        expect(self.page.locator("body[data-step=editing][data-busy=no]")).to_be_attached(timeout=WAIT)

    def slide(self, name: str, value: str) -> None:
        self.page.locator(f"#slider-{name}").fill(value)
        self.settled()

    def value(self, name: str) -> str:
        return self.page.locator(f"#slider-{name}").input_value()

    @property
    def picture(self) -> str:
        """The edited picture's pixels, as a data URL: the same edit may be fetched twice."""
        drawn = """async image => {
            await image.decode();
            const canvas = document.createElement("canvas");
            [canvas.width, canvas.height] = [image.naturalWidth, image.naturalHeight];
            canvas.getContext("2d").drawImage(image, 0, 0);
            return canvas.toDataURL();
        }"""
        return self.page.locator("#after").evaluate(drawn)

    def axe(self) -> None:
        from axe_playwright_python.sync_playwright import Axe

        violations = Axe().run(self.page).response["violations"]
        assert not violations, json.dumps(
            [(one["id"], [n["html"][:200] for n in one["nodes"]]) for one in violations], indent=1
        )


Open = Callable[..., Tab]


@pytest.fixture
def browse(chromium: Any) -> Iterator[Open]:
    """Opens a tab; at the end nothing was asked of anybody else, and the console is empty but for what is allowed."""
    with ExitStack() as stack:
        tabs: list[tuple[Tab, str]] = []

        def open_tab(url: str, width: int = 1280, scheme: str = "light", allowed: str = "$^", **options: Any) -> Tab:
            size = {"width": width, "height": 800}
            context = chromium.new_context(viewport=size, color_scheme=scheme, **options)
            stack.callback(context.close)
            tab = Tab(context.new_page(), url)
            tabs.append((tab, allowed))
            return tab

        yield open_tab
        for tab, allowed in tabs:
            assert [line for line in tab.console if not re.search(allowed, line)] == []
            origin = "/".join(tab.url.split("/")[:3])
            assert [url for url in tab.requests if not url.startswith((f"{origin}/", f"blob:{origin}/"))] == []


@contextmanager
def downloaded(tab: Tab) -> Iterator[list[bytes]]:
    data: list[bytes] = []
    with tab.page.expect_download(timeout=WAIT) as download:
        yield data
    data.append(Path(download.value.path()).read_bytes())


def test_a_photo_is_edited_undone_and_downloaded(browse: Open, server: Running) -> None:
    tab = browse(server.url)
    tab.upload(ASTRONAUT)
    tab.settled()
    assert [tab.value(name) for name in ("smile", "age")] == ["0", "0"]
    reconstruction = tab.picture
    tab.slide("smile", "2")
    smiling = tab.picture
    tab.slide("age", "-1.5")
    assert len({reconstruction, smiling, tab.picture}) == 3
    edits = '{"smile": 2, "age": -1.5}'
    with downloaded(tab) as photo:
        tab.page.click("#download")
    assert photo[0] == edited(server.url, ASTRONAUT.read_bytes(), edits)
    tab.page.select_option("#take-what", "face")
    tab.page.select_option("#take-format", "jpeg")
    with downloaded(tab) as face:
        tab.page.click("#download")
    assert face[0] == edited(server.url, ASTRONAUT.read_bytes(), edits, paste_back="false", format="jpeg")

    tab.page.keyboard.press("Control+z")
    tab.settled()
    assert (tab.value("smile"), tab.value("age"), tab.picture) == ("2", "0", smiling)
    tab.page.click("#undo")
    tab.settled()
    assert tab.picture == reconstruction and tab.page.locator("#undo").is_disabled()
    tab.page.keyboard.press("Control+Shift+z")
    tab.settled()
    assert tab.picture == smiling
    tab.page.click("#reset")
    tab.settled()
    assert (tab.value("smile"), tab.picture) == ("0", reconstruction)
    tab.page.click("#undo")
    tab.settled()
    assert tab.value("smile") == "2"
    tab.page.locator(".slider.moved .zero").click()
    tab.settled()
    assert tab.value("smile") == "0"


def test_comparing_the_map_and_the_strip(browse: Open, server: Running) -> None:
    tab = browse(server.url)
    tab.start()
    page = tab.page
    tab.slide("smile", "3")
    befores = set()
    for choice, label in (("photo", "Photo"), ("reconstruction", "Reconstruction"), ("linear", "Linear editing")):
        page.select_option("#compare", choice)
        expect(page.locator("#before-tag")).to_have_text(label)
        expect(page.locator("#before")).to_be_visible()
        befores.add(page.locator("#before").get_attribute("src"))
        tab.settled()
    assert len(befores) == 3
    page.locator("#divider").focus()
    page.keyboard.press("Home")
    assert page.locator("#divider").get_attribute("aria-valuetext") == "0 % before"
    page.select_option("#compare", "off")
    expect(page.locator("#before")).to_be_hidden()

    page.get_by_label("Where it acts").check()
    expect(page.locator("#heat")).to_be_visible(timeout=WAIT)
    colours = page.evaluate("new Set(heat.getContext('2d').getImageData(0, 0, heat.width, heat.height).data).size")
    assert colours > 20

    page.click("#strip summary")
    expect(page.locator("#thumbs img")).to_have_count(7, timeout=WAIT)
    page.get_by_role("button", name="Smile −3").click()
    tab.settled()
    assert tab.value("smile") == "-3"
    expect(page.get_by_role("button", name="Smile −3")).to_have_attribute("aria-pressed", "true")

    page.get_by_text("In the photo").click()
    tab.settled()
    expect(page.locator("#after")).to_have_attribute("alt", "The edited photo")
    facts = page.locator("#facts").text_content()
    for part in ("random", "fp16-weights", "onnxruntime", "64 × 64", "model", "round trip"):
        assert part in facts


def test_a_slider_that_moves_fast_asks_for_one_picture_at_a_time(browse: Open, server: Running) -> None:
    tab = browse(server.url)
    tab.start()
    before = sum("/v1/edits" in url for url in tab.requests)
    tab.page.evaluate(
        """for (let i = 1; i <= 40; i++) {
             const slider = document.getElementById("slider-age");
             slider.value = i / 10;
             slider.dispatchEvent(new Event("input", { bubbles: true }));
           }"""
    )
    tab.settled()
    # The first and the last; those between were never asked for.
    assert sum("/v1/edits" in url for url in tab.requests) - before <= 3
    assert tab.value("age") == "4"


def test_one_of_two_faces(browse: Open, server: Running) -> None:
    from engines.photo import open_image

    pixels = open_image(ASTRONAUT).pixels
    two = encoded(np.concatenate([pixels, np.full((512, 40, 3), 90, np.uint8), pixels[:, ::-1]], axis=1))
    tab = browse(server.url)
    tab.upload(two)
    choices = tab.page.locator("#outlines button")
    expect(choices).to_have_count(2, timeout=WAIT)
    assert choices.nth(0).get_attribute("aria-label") == "Face 1 of 2, the largest"
    choices.nth(1).focus()
    tab.page.keyboard.press("Enter")
    tab.settled()
    tab.page.click("#copy-open")
    assert "--face 1" in tab.page.locator("#recipe").text_content()
    tab.page.keyboard.press("Escape")
    tab.page.click("#other-face")
    expect(choices).to_have_count(2)


def test_the_edit_as_code(browse: Open, server: Running) -> None:
    tab = browse(server.url, permissions=["clipboard-read", "clipboard-write"])
    tab.start()
    tab.slide("smile", "2")
    tab.page.click("#copy-open")
    recipes = {}
    for kind, label in (("command", "Command"), ("python", "Python"), ("curl", "curl")):
        tab.page.locator("#copy").get_by_text(label, exact=True).click()
        recipes[kind] = tab.page.locator("#recipe").text_content()
    assert recipes["command"] == "edgedit edit astronaut.jpg -d smile:2 -b BUNDLE -o edited.png\n"
    compile(recipes["python"], "recipe", "exec")
    assert 'editor.edit_photo("astronaut.jpg", {"smile": 2})' in recipes["python"]
    assert "-F photo=@astronaut.jpg" in recipes["curl"] and f"{server.url}/v1/edits" in recipes["curl"]
    tab.page.click("#copy-do")
    expect(tab.page.locator("#copy-do")).to_have_text("Copied")
    assert tab.page.evaluate("navigator.clipboard.readText()") == recipes["curl"]


def test_no_face(browse: Open, server: Running) -> None:
    tab = browse(server.url)
    tab.upload(encoded(np.full((200, 200, 3), 128, np.uint8)))
    alert = tab.page.get_by_role("alert")
    expect(alert).to_contain_text("No face was found", timeout=WAIT)
    # Which is no end: a picture of a face alone has no surroundings in which one is found.
    alert.get_by_role("button", name="Use the whole picture as a face").click()
    expect(tab.page.locator("#problem")).to_be_hidden()


def test_what_is_no_photo_or_too_large(browse: Open, editor: Editor) -> None:
    with running(editor, body_bytes=50_000, megapixels=0.1) as small:
        tab = browse(small.url, allowed="413")
        tab.upload(ASTRONAUT)
        expect(tab.page.get_by_role("alert")).to_contain_text("Scale it down first")
        tab.page.set_input_files("#file", {"name": "notes.txt", "mimeType": "text/plain", "buffer": b"no photo"})
        expect(tab.page.get_by_role("alert")).to_contain_text("notes.txt is not a JPEG, PNG or WebP")
        assert not any("/v1/faces" in url for url in tab.requests)
        tab.upload(encoded(np.zeros((400, 400, 3), np.uint8)))
        expect(tab.page.get_by_role("alert")).to_contain_text("the limit is 0.1", timeout=WAIT)


def test_a_server_that_goes_and_comes_back(browse: Open, editor: Editor) -> None:
    with running(editor) as first:
        tab = browse(first.url, allowed="ERR_CONNECTION_REFUSED|404")
        tab.start()
        before = tab.picture
    tab.page.locator("#slider-smile").fill("2")
    expect(tab.page.locator("#offline")).to_be_visible(timeout=WAIT)
    # Another process: it holds nothing of what was.
    with running(editor, port=first.port):
        expect(tab.page.locator("#offline")).to_be_hidden(timeout=WAIT)
        tab.settled()
        assert tab.value("smile") == "2" and tab.picture != before
        tab.page.goto("about:blank")


def test_a_gateway_with_keys_asks_for_one(browse: Open, editor: Editor, tmp_path: Path) -> None:
    key = add_key(tmp_path / "keys", "page", (EDIT,))
    # Its model is elsewhere, as a Triton's is, and photos are not kept.
    with served(EditorBackend(editor), attach(ASTRONAUT), api_keys=tmp_path / "keys") as secured:
        tab = browse(secured.url, allowed="401")
        tab.page.fill("#key", "wrong")
        tab.page.keyboard.press("Enter")
        expect(tab.page.locator("#key-dialog")).to_contain_text("does not know that key")
        tab.page.fill("#key", key)
        tab.page.keyboard.press("Enter")
        expect(tab.page.locator("#privacy")).to_contain_text("Photos are not kept")
        tab.start()
        expect(tab.page.get_by_label("Where it acts")).to_be_hidden()
        assert tab.page.locator("#compare option[value=linear]").is_disabled()
        tab.slide("smile", "2")
        tab.page.get_by_text("In the photo").click()
        tab.settled()
        assert key not in tab.page.content()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [375, 1280])
def test_everybody_can_use_it(browse: Open, server: Running, width: int, scheme: str) -> None:
    tab = browse(server.url, width, scheme, reduced_motion="reduce")
    page = tab.page
    expect(page.locator("#sliders fieldset")).not_to_have_count(0)

    def check() -> None:
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        tab.axe()

    check()
    tab.start()
    tab.slide("smile", "2")
    page.select_option("#compare", "reconstruction")
    page.click("#strip summary")
    page.click("#details summary")
    expect(page.locator("#thumbs img")).to_have_count(7, timeout=WAIT)
    expect(page.locator("#before")).to_be_visible()
    check()
    page.click("#copy-open")
    check()
    page.goto(f"{server.url}/docs")
    expect(page.locator("#operation-edit")).to_be_visible()
    assert page.locator("#interface section").count() > 12
    check()


def test_the_theme_is_the_systems_until_another_is_chosen(browse: Open, server: Running) -> None:
    tab = browse(server.url, scheme="dark")
    ground = "getComputedStyle(document.documentElement).backgroundColor"
    dark = tab.page.evaluate(ground)
    button = tab.page.locator("#theme")
    button.click()
    expect(button).to_have_attribute("aria-label", "Theme: light")
    light = tab.page.evaluate(ground)
    assert light != dark
    tab.page.reload()
    assert tab.page.evaluate(ground) == light
    button.click()
    assert tab.page.evaluate(ground) == dark
