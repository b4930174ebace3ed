"""The repository in a real server: every answer is that of the engines in this process."""

from __future__ import annotations

import functools
import re
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from edgedit.demo import ASTRONAUT
from edgedit.editor import Editor
from engines.bundle import Bundle
from engines.contracts import PARTS, PIPELINES, TensorSpec
from engines.directions import load_directions, resolve
from engines.lost_picture import LOST
from engines.runtimes import create
from engines.session import EditSession
from serving.contract import EDIT_IMAGE, EDIT_SESSION, EDITED_IMAGE, RESEND, handle_of
from serving.local.install import Installation
from serving.local.server import LocalTriton
from serving.repository import RepositoryOptions, add_version, wait_until_loaded, write_repository
from tests.engines.conftest import write_tiny
from tests.random_bundle import RANDOM_BUNDLE
from tests.serving.repository.asking import Asker, asking, session_feeds

pytest.importorskip("tritonclient.grpc", reason="tritonclient is not installed")
from tritonclient.utils import InferenceServerException

pytestmark = pytest.mark.triton


@pytest.fixture(scope="module")
def editor() -> Editor:
    """The random bundle in this process, with the threads that the server has."""
    return Editor.load(RANDOM_BUNDLE, threads=1)


@pytest.fixture(scope="module")
def crops(editor: Editor) -> np.ndarray:
    """Three different pictures of the model's size: a photo, and two that are none."""
    height, width = editor.family.image_shape
    rng = np.random.default_rng(5)
    from PIL import Image

    photo = Image.open(ASTRONAUT).convert("RGB").resize((width, height))
    noise = rng.integers(0, 256, (2, height, width, 3), np.uint8)
    return np.concatenate([np.asarray(photo)[None], noise])


@pytest.fixture(scope="module", params=["grpc", "http"])
def ask(request: pytest.FixtureRequest, triton: LocalTriton) -> Iterator[Asker]:
    with asking(triton, request.param) as asker:
        yield asker


def random_feed(spec: TensorSpec, batch: int, rng: np.random.Generator) -> np.ndarray:
    return rng.normal(0, 0.5, (batch, *map(int, spec.shape[1:]))).astype(np.float32)


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("graph", PARTS)
def test_every_separate_graph_equals_this_process(ask: Asker, editor: Editor, graph: str, batch: int) -> None:
    runtime = create("onnxruntime", editor.session.bundle, graph, threads=1)
    rng = np.random.default_rng(batch)
    feeds = {spec.name: random_feed(spec, batch, rng) for spec in runtime.inputs}
    expected = runtime.run(feeds)
    answer = ask(graph, feeds, [spec.name for spec in runtime.outputs])
    assert set(answer) == set(expected)
    for name, array in expected.items():
        assert np.array_equal(answer[name], array), name


@pytest.mark.parametrize("batch", [1, 3])
def test_the_pipelines_equal_this_process(ask: Asker, editor: Editor, crops: np.ndarray, batch: int) -> None:
    images, session = crops[:batch], editor.session
    expected = session.invert(images)
    inversion = ask("invert", {"image": images}, list(expected.names))
    for name in expected.names:
        assert np.array_equal(inversion[name], getattr(expected, name)), name
    edit = resolve(editor.directions, {"smile": 2.0, "age": -1.5}, editor.family)
    deltas = {"delta_w": np.stack([edit.delta_w] * batch), "style_delta": np.stack([edit.style_delta] * batch)}
    edited = session.edit(expected, edit.delta_w, edit.style_delta)
    assert np.array_equal(ask("edit", inversion | deltas, ["image"])["image"], edited)
    assert np.array_equal(ask(EDIT_IMAGE, {"image": images} | deltas, [EDITED_IMAGE])[EDITED_IMAGE], edited)
    codes = {name: inversion[name] for name in ("w", "feature")}
    assert np.array_equal(ask("reconstruct", codes, ["image"])["image"], session.reconstruct(expected))


def test_a_session_equals_this_process(ask: Asker, editor: Editor, crops: np.ndarray) -> None:
    for crop in crops:
        inversion = editor.invert(crop, aligned=True)
        handle, image = ask.session(crop)
        assert handle == handle_of(crop, editor.session.bundle.digest()) and image is None
        for edits in ({"smile": 2}, {"age": -1.5, "yaw": 1, "smile": 0.25}, dict.fromkeys(editor.directions, 0.5)):
            expected = editor.edit(inversion, edits)
            assert np.array_equal(ask.session(handle=handle, edits=edits)[1], expected)
            assert np.array_equal(ask.session(crop, edits=edits)[1], expected)
            assert np.array_equal(ask.session(crop, handle, edits)[1], expected)
        assert np.array_equal(ask.session(handle=handle, edits={})[1], editor.reconstruct(inversion))
        assert ask.session(handle=handle, edits={"smile": 1}, outputs=["handle"]) == (handle, None)


@pytest.mark.parametrize(
    ("feeds", "status", "message"),
    [
        ({"handle": "0" * 32, "edits": {}}, "NOT_FOUND", RESEND),
        ({"handle": "", "edits": {}}, "NOT_FOUND", RESEND),
        ({"handle": "\udcff\0/etc/passwd", "edits": {}}, "NOT_FOUND", RESEND),
        ({"edits": {"smile": 1}}, "INVALID_ARGUMENT", "send an image, a handle or both"),
        ({"image": 0, "handle": "0" * 32, "edits": {}}, "INVALID_ARGUMENT", "the handle is not that of the image"),
        ({"image": 0, "edits": {"Smlie": 1}}, "INVALID_ARGUMENT", "unknown direction 'Smlie'; did you mean smile?"),
        ({"image": 0, "edits": "{"}, "INVALID_ARGUMENT", "edits are not JSON"),
        ({"image": 0, "edits": '{"smile": NaN}'}, "INVALID_ARGUMENT", "finite"),
        ({"image": 0, "edits": '{"smile": "2"}'}, "INVALID_ARGUMENT", "must be a number"),
        ({"image": 0, "edits": {"smile": 1e300}}, "INVALID_ARGUMENT", "too large"),
        ({"image": 0, "edits": {"smile": 1e6}}, "INVALID_ARGUMENT", LOST),
        ({"image": 0, "edits": {f"d{k}": 1 for k in range(17)}}, "INVALID_ARGUMENT", "17 directions; 16 are allowed"),
        ({"image": 0, "edits": " " * 5000}, "INVALID_ARGUMENT", "4096 are allowed"),
    ],
)
def test_a_mistake_is_told_with_its_code_and_no_path(
    ask: Asker, crops: np.ndarray, feeds: dict, status: str, message: str
) -> None:
    given = feeds | ({"image": crops[feeds["image"]]} if "image" in feeds else {})
    if isinstance(given.get("handle"), str):
        given["handle"] = given["handle"].encode("utf-8", "surrogateescape").decode("latin-1")
    with pytest.raises(InferenceServerException, match=re.escape(message)) as error:
        ask.session(**given)
    http = {"NOT_FOUND": "404", "INVALID_ARGUMENT": "400"}[status]
    assert error.value.status() in (f"StatusCode.{status}", http)
    assert not re.search(r"/\w+/|\.py|Traceback", error.value.message())


def test_an_image_needs_edits_and_there_is_one_per_request(ask: Asker, crops: np.ndarray) -> None:
    with pytest.raises(InferenceServerException, match="send edits, or ask for handle alone"):
        ask.session(crops[0], outputs=["handle", "image"])
    with pytest.raises(InferenceServerException, match="send one image per request"):
        ask(EDIT_SESSION, {"image": crops[:2]}, ["handle"])
    with pytest.raises(InferenceServerException, match="unexpected shape"):
        ask(EDIT_SESSION, {"image": crops[:1, 1:]}, ["handle"])
    # The server is none the worse for it.
    assert len(ask.session(crops[0])[0]) == 32


def test_many_edits_at_once_are_answered_each_with_its_own(
    triton: LocalTriton, editor: Editor, crops: np.ndarray
) -> None:
    inversions = [editor.invert(crop, aligned=True) for crop in crops]
    asked = [(k % 3, {"smile": k / 16, "age": -k / 32}) for k in range(48)]
    expected = [editor.edit(inversions[k], edits) for k, edits in asked]
    with asking(triton) as ask:
        handles = [ask.session(crop)[0] for crop in crops]
        with ThreadPoolExecutor(12) as pool:
            # One in four comes with its image, of which each may be a batch of its own.
            answers = list(
                pool.map(
                    lambda n: ask.session(
                        crops[asked[n][0]] if n % 4 == 0 else None, handles[asked[n][0]], asked[n][1]
                    )[1],
                    range(len(asked)),
                )
            )
    for answer, image in zip(answers, expected, strict=True):
        # A batch may be added up in another order than a photo alone.
        assert np.abs(answer.astype(int) - image.astype(int)).max() <= 1


def test_edits_of_requests_that_wait_form_batches(triton: LocalTriton, crops: np.ndarray) -> None:
    def counts() -> tuple[int, int]:
        stats = ask.client.get_inference_statistics("edit").model_stats[0]
        return stats.inference_count, stats.execution_count

    with asking(triton) as ask, ThreadPoolExecutor(16) as pool:
        handle = ask.session(crops[0])[0]
        before = counts()
        list(pool.map(lambda k: ask.session(handle=handle, edits={"smile": k / 32}), range(64)))
        inferred, executed = (after - b for after, b in zip(counts(), before, strict=True))
    assert inferred == 64 and executed < 64


def test_a_request_that_was_cancelled_costs_no_edit(triton: LocalTriton, crops: np.ndarray, editor: Editor) -> None:
    def cancelled() -> float:
        with urllib.request.urlopen(f"http://{triton.metrics}/metrics", timeout=60) as answer:
            text = answer.read().decode()
        return sum(
            float(line.split()[-1])
            for line in text.splitlines()
            if line.startswith("nv_inference_request_failure") and 'reason="CANCELED"' in line and EDIT_SESSION in line
        )

    with asking(triton) as ask:
        handle = ask.session(crops[0])[0]
        before, deadline = cancelled(), time.monotonic() + 120
        inputs = ask.inputs(session_feeds(None, handle, {"smile": 1}))
        # A request may be cancelled before the server has it, which costs it nothing, or answered before it is
        # cancelled: who is faster differs, so bursts are sent until one was cancelled in the queue.
        while cancelled() == before and time.monotonic() < deadline:
            done, ended = threading.Semaphore(0), list[str]()

            def ending(
                result: object, error: Exception | None, ended: list[str] = ended, done: threading.Semaphore = done
            ) -> None:
                ended.append("answered" if error is None else str(error))
                done.release()

            calls = [ask.client.async_infer(EDIT_SESSION, inputs, ending) for _ in range(64)]
            for call in calls[8:]:
                call.cancel()
            assert all(done.acquire(timeout=120) for _ in calls)
            assert sum("CANCELLED" in text for text in ended) >= 8
            assert ended.count("answered") + sum("CANCELLED" in text for text in ended) == len(calls)
            settled = time.monotonic() + 1
            while cancelled() == before and time.monotonic() < settled:
                time.sleep(0.1)
        assert cancelled() > before
        expected = editor.edit(editor.invert(crops[0], aligned=True), {"smile": 1})
        assert np.array_equal(ask.session(handle=handle, edits={"smile": 1})[1], expected)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """Its pipelines alone: the fewer models, the sooner a server has loaded them."""
    return Bundle.load(write_tiny(tmp_path_factory.mktemp("bundle") / "tiny", graphs=PIPELINES))


@pytest.fixture
def tiny_crops(tiny: Bundle) -> np.ndarray:
    return np.random.default_rng(2).integers(0, 256, (4, *tiny.family.image_shape, 3), np.uint8)


def test_inversions_make_room_for_others_when_the_cache_is_full(
    tiny: Bundle, tiny_crops: np.ndarray, tmp_path: Path, development_server: Installation
) -> None:
    inversion = EditSession(tiny).invert(tiny_crops[:1])
    one = sum(inversion.array(name).nbytes for name in inversion.names)
    repository = write_repository(tiny, tmp_path / "models", RepositoryOptions(cache_bytes=2 * one))
    with LocalTriton(repository, installation=development_server) as server, asking(server) as ask:
        first, second, third = (ask.session(crop)[0] for crop in tiny_crops[:3])
        with pytest.raises(InferenceServerException, match=RESEND) as error:
            ask.session(handle=first, edits={})
        assert error.value.status() == "StatusCode.NOT_FOUND"
        # What was used last stays, whichever came first.
        ask.session(handle=second, edits={})
        assert ask.session(tiny_crops[0], edits={})[0] == first
        ask.session(handle=second, edits={})
        with pytest.raises(InferenceServerException, match=RESEND):
            ask.session(handle=third, edits={})


def test_a_new_version_is_loaded_under_load_without_an_error(
    tiny: Bundle, tiny_crops: np.ndarray, tmp_path: Path, development_server: Installation
) -> None:
    other = Bundle.load(write_tiny(tmp_path / "other", graphs=PIPELINES, seed=8))
    bundles, crop = {"1": tiny, "2": other}, tiny_crops[0]
    expected = {}
    for version, bundle in bundles.items():
        session, edit = EditSession(bundle, threads=1), resolve(load_directions(bundle), {"smile": 2}, bundle.family)
        image = session.edit(session.invert(crop[None]), edit.delta_w, edit.style_delta)[0]
        expected[handle_of(crop, bundle.digest())] = (version, image.tobytes())
    assert len({image for _, image in expected.values()}) == 2
    repository = write_repository(tiny, tmp_path / "models")
    watching = ("--model-control-mode=poll", "--repository-poll-secs=1")
    with LocalTriton(repository, arguments=watching, installation=development_server) as server:
        stop, seen, errors = threading.Event(), Counter[str](), list[str]()

        def load() -> None:
            with asking(server) as ask:
                while not stop.is_set():
                    try:
                        handle, image = ask.session(crop, edits={"smile": 2})
                        version, right = expected[handle]
                        # An inversion of one version never meets the editor of the other.
                        seen[version if image is not None and image.tobytes() == right else "wrong"] += 1
                    except InferenceServerException as error:
                        errors.append(str(error))

        threads = [threading.Thread(target=load) for _ in range(3)]
        for thread in threads:
            thread.start()
        try:
            add_version(other, repository, None, functools.partial(wait_until_loaded, server.grpc))
            deadline = time.monotonic() + 120
            while seen["2"] < 50 and time.monotonic() < deadline:
                time.sleep(0.1)
        finally:
            stop.set()
            for thread in threads:
                thread.join()
    assert errors == []
    assert seen["1"] and seen["2"] >= 50 and not seen["wrong"]
