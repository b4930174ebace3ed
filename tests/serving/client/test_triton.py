"""Both clients against a real Triton that serves the random bundle."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from edgedit.demo import ASTRONAUT
from edgedit.editor import Editor, Portrait, open_bundle
from engines.errors import NoFaceError, StrengthWarning
from engines.lost_picture import LOST
from serving.client import AsyncClient, Client, Handle
from serving.client.errors import DeadlineError, NotFoundError, RequestError, ServingError, UnavailableError
from serving.local.install import Installation
from serving.local.server import LocalTriton
from serving.repository import RepositoryOptions, write_repository
from tests.serving.client.conftest import EDITS, regions

pytestmark = pytest.mark.triton
_ROOT = Path(__file__).resolve().parents[3]

# Nothing here is about speed: the machine may be busy.
PATIENT: dict[str, Any] = {"timeout": 240.0}
WAYS = pytest.mark.parametrize(
    ("protocol", "shared_memory"), [("grpc", False), ("grpc", True), ("http", False), ("http", True)]
)
PROTOCOLS = pytest.mark.parametrize("protocol", ["grpc", "http"])


def url(server: LocalTriton, protocol: str) -> str:
    return server.grpc if protocol == "grpc" else server.http


@pytest.fixture(scope="module")
def killable(pipelines: Path, development_server: Installation) -> Iterator[LocalTriton]:
    with LocalTriton(open_bundle(pipelines), shared_memory=True, installation=development_server) as server:
        yield server


@pytest.fixture
def own(killable: LocalTriton) -> LocalTriton:
    """A server to kill and to restart."""
    if not (killable.alive and killable.ready()):
        killable.restart()
    return killable


def statistics(server: LocalTriton, model: str = "edit_session") -> int:
    """How many inferences a model has done."""
    with urllib.request.urlopen(f"http://{server.http}/v2/models/{model}/stats", timeout=60) as response:
        return json.load(response)["model_stats"][0]["inference_count"]


@pytest.mark.parametrize(("protocol", "other"), [("grpc", "http"), ("http", "grpc")])
def test_the_port_of_the_other_protocol_is_told(triton: LocalTriton, protocol: Any, other: str) -> None:
    with Client(url(triton, other), protocol=protocol) as client:
        with pytest.raises(ServingError, match=f"give the server's port for .*, or protocol='{other}'$") as caught:
            client.directions()
    assert type(caught.value) is ServingError


def registered(server: LocalTriton) -> set[str]:
    """Regions of clients of this process that the server has mapped."""
    with urllib.request.urlopen(f"http://{server.http}/v2/systemsharedmemory/status", timeout=60) as response:
        return {one["name"] for one in json.load(response) if one["name"].startswith(f"edgedit_{os.getpid()}_")}


@pytest.fixture(scope="module")
def expected(demo: Editor, demo_portrait: Portrait) -> dict[str, Any]:
    """What every verb gives in this process."""
    inversion = demo_portrait.inversion
    sweep = [(s, demo.edit(inversion, {"age": s})) for s in np.linspace(-2, 2, 9).tolist()]
    return {
        "crop": demo_portrait.aligned,
        "edit": demo.edit(inversion, EDITS),
        "keywords": demo.edit(inversion, {"smile": 0.5, "age": 1.25}),
        "reconstruct": demo_portrait.reconstruction,
        "edit_photo": demo_portrait.edit(EDITS),
        "edit_aligned": demo.edit_photo(demo_portrait.aligned, EDITS, aligned=True),
        "sweep": sweep,
    }


def check(got: dict[str, Any], expected: dict[str, Any]) -> None:
    frames, wanted = got.pop("sweep"), {**expected}.pop("sweep")
    assert [strength for strength, _ in frames] == [strength for strength, _ in wanted]
    for (strength, image), (_, other) in zip(frames, wanted, strict=True):
        assert np.array_equal(image, other), strength
    for name, image in got.items():
        assert image.dtype == np.uint8 and image.flags.writeable == (name != "crop")
        assert np.array_equal(image, expected[name]), name


@WAYS
def test_every_verb_equals_the_editor_to_the_bit(
    triton: LocalTriton, protocol: Any, shared_memory: bool, expected: dict[str, Any]
) -> None:
    with Client(url(triton, protocol), protocol=protocol, shared_memory=shared_memory, **PATIENT) as client:
        assert client.ready()
        handle = client.invert(ASTRONAUT)
        got = {
            "crop": handle.crop,
            "edit": client.edit(handle, EDITS),
            "keywords": client.edit(handle, {"smile": 0.5}, age=1.25),
            "reconstruct": client.reconstruct(handle),
            "edit_photo": client.edit_photo(ASTRONAUT, EDITS),
            "edit_aligned": client.edit_photo(handle.crop, EDITS, aligned=True),
            "sweep": list(client.sweep(handle, "age", -2, 2, 9)),
        }
        assert bool(regions()) == shared_memory
    check(got, expected)
    assert not regions() and not registered(triton)


@WAYS
def test_every_coroutine_equals_the_editor_to_the_bit(
    triton: LocalTriton, protocol: Any, shared_memory: bool, expected: dict[str, Any]
) -> None:
    async def main() -> dict[str, Any]:
        address = url(triton, protocol)
        async with AsyncClient(address, protocol=protocol, shared_memory=shared_memory, **PATIENT) as client:
            assert await client.ready()
            handle = await client.invert(ASTRONAUT)
            got = {
                "crop": handle.crop,
                "edit": await client.edit(handle, EDITS),
                "keywords": await client.edit(handle, {"smile": 0.5}, age=1.25),
                "reconstruct": await client.reconstruct(handle),
                "edit_photo": await client.edit_photo(ASTRONAUT, EDITS),
                "edit_aligned": await client.edit_photo(handle.crop, EDITS, aligned=True),
                "sweep": [frame async for frame in client.sweep(handle, "age", -2, 2, 9)],
            }
            assert bool(regions()) == shared_memory
            return got

    check(asyncio.run(main()), expected)
    assert not regions() and not registered(triton)


def test_photos_of_every_kind_have_one_handle(triton: LocalTriton, demo_portrait: Portrait) -> None:
    with Client(triton.grpc, **PATIENT) as client, Image.open(ASTRONAUT) as image:
        photos = [ASTRONAUT, str(ASTRONAUT), ASTRONAUT.read_bytes(), image, demo_portrait.photo.pixels]
        handles = [client.invert(photo) for photo in photos]
        assert len(set(handles)) == 1
        assert handles[0].alignment is not None and demo_portrait.alignment is not None
        assert np.array_equal(handles[0].alignment.quad, demo_portrait.alignment.quad)
        assert client.invert(handles[0].crop, aligned=True) == handles[0]
        with pytest.raises(NoFaceError, match="no face found in the photo"):
            client.invert(np.full((64, 64, 3), 127, np.uint8))
        with pytest.raises(NoFaceError, match="no face number 3"):
            client.invert(ASTRONAUT, face=3)


@PROTOCOLS
@pytest.mark.parametrize("share", [1, 4])
def test_edits_of_a_handle_are_in_the_photos_light_and_colours(
    triton: LocalTriton, protocol: Any, demo: Editor, demo_portrait: Portrait, share: int
) -> None:
    photo = np.asarray(Image.fromarray(demo_portrait.aligned).convert("L").convert("RGB")) // np.uint8(share)
    inversion = demo.invert(photo, aligned=True)
    assert (inversion.tones[0].gain > 3) == (share == 4) and inversion.tones[0].grey
    with Client(url(triton, protocol), protocol=protocol, **PATIENT) as client:
        handle = client.invert(photo, aligned=True)
        edited = client.edit(handle, EDITS)
        assert not np.ptp(edited.astype(int), axis=2).any()
        assert np.array_equal(edited, demo.edit(inversion, EDITS))
        assert np.array_equal(client.reconstruct(handle), demo.reconstruct(inversion))
        for strength, image in client.sweep(handle, "age", -1, 1, 3):
            assert np.array_equal(image, demo.edit(inversion, {"age": strength}))
        assert np.array_equal(client.edit(handle.id, EDITS), demo.render(inversion, EDITS))


@PROTOCOLS
def test_what_the_server_says_of_itself_and_refuses(
    triton: LocalTriton, protocol: Any, demo: Editor, demo_portrait: Portrait
) -> None:
    with Client(url(triton, protocol), protocol=protocol, **PATIENT) as client:
        directions = client.directions()
        assert list(directions) == list(demo.directions)
        for name, direction in demo.directions.items():
            told = directions[name]
            assert (told.min_strength, told.max_strength) == (direction.min_strength, direction.max_strength)
            assert told.description == direction.description
        assert client.profile().shape == demo.family.image_shape
        handle = client.invert(demo_portrait.aligned, aligned=True)
        with pytest.raises(RequestError, match=r"^unknown direction 'simle'; did you mean smile\?$"):
            client.edit(handle, simle=1)
        with pytest.raises(RequestError, match="unknown direction 'simle'"):
            list(client.sweep(handle, "simle", -1, 1, 5))
        with pytest.warns(StrengthWarning, match="of smile is outside"), pytest.raises(RequestError, match=f"^{LOST}$"):
            client.edit(handle, smile=1e6)
        high = directions["age"].max_strength
        with pytest.warns(StrengthWarning, match="of age is outside"):
            limited = client.edit(handle, {"age": high + 5}, clamp=True)
        assert np.array_equal(limited, demo.edit(demo_portrait.inversion, {"age": high}))
        with pytest.raises(RequestError, match="the handle is not that of the image"):
            client.edit(Handle("0" * 32, handle.crop), age=1)
        with pytest.raises(NotFoundError, match="invert the photo again"):
            client.edit("0" * 32, age=1)
        with pytest.raises(DeadlineError):
            client.edit(handle, age=1, timeout=1e-4)


@pytest.mark.parametrize(("protocol", "shared_memory"), [("grpc", True), ("http", False)])
def test_200_concurrent_edits_of_threads(
    triton: LocalTriton,
    protocol: Any,
    shared_memory: bool,
    edited: Callable[[float], np.ndarray],
) -> None:
    strengths = [(k % 10 - 5) / 4 for k in range(200)]
    options: dict[str, Any] = {"protocol": protocol, "shared_memory": shared_memory, "concurrency": 6}
    with Client(url(triton, protocol), **options, **PATIENT) as client, ThreadPoolExecutor(24) as pool:
        handle = client.invert(ASTRONAUT)
        images = list(pool.map(lambda strength: client.edit(handle, age=strength), strengths))
        assert len(regions()) <= 6
    for strength, image in zip(strengths, images, strict=True):
        assert np.array_equal(image, edited(strength)), strength
    assert not regions() and not registered(triton)


@pytest.mark.parametrize(("protocol", "shared_memory"), [("grpc", False), ("http", True)])
def test_200_concurrent_edits_of_tasks(
    triton: LocalTriton,
    protocol: Any,
    shared_memory: bool,
    edited: Callable[[float], np.ndarray],
) -> None:
    strengths = [(k % 10 - 5) / 4 for k in range(200)]

    async def main() -> list[np.ndarray]:
        options: dict[str, Any] = {"protocol": protocol, "shared_memory": shared_memory, "concurrency": 6}
        async with AsyncClient(url(triton, protocol), **options, **PATIENT) as client:
            handle = await client.invert(ASTRONAUT)
            images = await asyncio.gather(*(client.edit(handle, age=strength) for strength in strengths))
            assert len(regions()) <= 6
            return images

    for strength, image in zip(strengths, asyncio.run(main()), strict=True):
        assert np.array_equal(image, edited(strength)), strength
    assert not regions() and not registered(triton)


@WAYS
def test_an_ended_sweep_computes_no_more(triton: LocalTriton, protocol: Any, shared_memory: bool) -> None:
    with Client(
        url(triton, protocol), protocol=protocol, shared_memory=shared_memory, concurrency=3, **PATIENT
    ) as client:
        handle = client.invert(ASTRONAUT)
        before = statistics(triton)
        sweep = client.sweep(handle, "age", -2, 2, 500)
        next(sweep)
        next(sweep)
        sweep.close()  # type: ignore[attr-defined]
        # All slots are free again, and so is the server.
        for _ in range(4):
            client.edit(handle, age=1)
        assert statistics(triton) - before < 30
    assert not regions() and not registered(triton)


@WAYS
def test_a_cancelled_task_ends_its_sweep(triton: LocalTriton, protocol: Any, shared_memory: bool) -> None:
    async def main() -> None:
        options: dict[str, Any] = {"protocol": protocol, "shared_memory": shared_memory, "concurrency": 3}
        async with AsyncClient(url(triton, protocol), **options, **PATIENT) as client:
            handle = await client.invert(ASTRONAUT)
            before = statistics(triton)
            some = asyncio.Event()

            async def play() -> None:
                async for _ in client.sweep(handle, "age", -2, 2, 500):
                    some.set()

            task = asyncio.create_task(play())
            await some.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            await asyncio.gather(*(client.edit(handle, age=1) for _ in range(4)))
            assert statistics(triton) - before < 50

    asyncio.run(main())
    assert not regions() and not registered(triton)


def test_a_sweep_that_waits_for_its_reader_holds_no_slot(
    triton: LocalTriton, edited: Callable[[float], np.ndarray]
) -> None:
    with Client(triton.grpc, concurrency=1, shared_memory=True, **PATIENT) as client:
        handle = client.invert(ASTRONAUT)
        for strength, image in client.sweep(handle, "age", -1, 1, 5):
            assert np.array_equal(image, edited(strength))
            assert np.array_equal(client.edit(handle, age=1.0), edited(1.0))


def test_a_fork_in_a_sweep_does_not_break_it_and_its_child_is_told(
    triton: LocalTriton, edited: Callable[[float], np.ndarray]
) -> None:
    with Client(triton.grpc, retries=0, **PATIENT) as client:
        handle = client.invert(ASTRONAUT)
        taken = []
        for strength, image in client.sweep(handle, "age", -1, 1, 5):
            assert np.array_equal(image, edited(strength))
            taken.append(strength)
            if len(taken) == 1:
                if (child := os.fork()) == 0:
                    try:
                        client.edit(handle, age=1.0)
                    except ServingError as error:
                        os._exit("was forked while a call or a sweep was under way" not in str(error))
                    os._exit(2)
                assert os.waitpid(child, 0)[1] == 0
        assert taken == np.linspace(-1, 1, 5).tolist()


@pytest.fixture(scope="module")
def forgetful(
    pipelines: Path, development_server: Installation, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[LocalTriton]:
    """A server that keeps no inversion at all."""
    models = write_repository(
        open_bundle(pipelines), tmp_path_factory.mktemp("forgetful") / "models", RepositoryOptions(cache_bytes=0)
    )
    with LocalTriton(models, shared_memory=True, installation=development_server) as server:
        yield server


@WAYS
def test_photos_are_sent_again_to_a_server_that_forgets(
    forgetful: LocalTriton, protocol: Any, shared_memory: bool, edited: Callable[[float], np.ndarray]
) -> None:
    with Client(url(forgetful, protocol), protocol=protocol, shared_memory=shared_memory, **PATIENT) as client:
        handle = client.invert(ASTRONAUT)
        assert np.array_equal(client.edit(handle, age=0.5), edited(0.5))
        for strength, image in client.sweep(handle, "age", -1, 1, 5):
            assert np.array_equal(image, edited(strength))
        with pytest.raises(NotFoundError, match="no longer holds inversion"):
            client.edit(handle.id, age=0.5)
        with pytest.raises(NotFoundError, match="no longer holds inversion"):
            list(client.sweep(handle.id, "age", -1, 1, 5))


@WAYS
def test_a_server_that_is_killed_at_work_and_comes_back(
    own: LocalTriton, protocol: Any, shared_memory: bool, edited: Callable[[float], np.ndarray]
) -> None:
    options: dict[str, Any] = {"protocol": protocol, "shared_memory": shared_memory, **PATIENT}
    with Client(url(own, protocol), retries=0, **options) as client, ThreadPoolExecutor(8) as pool:
        handle = client.invert(ASTRONAUT)
        for strength in (0.5, 0.75):
            edited(strength)
        sweep = client.sweep(handle, "age", 0.5, 0.75, 200)
        next(sweep)
        calls = [pool.submit(client.edit, handle, age=0.5) for _ in range(120)]
        assert np.array_equal(calls[0].result(), edited(0.5))
        assert own.pid is not None
        os.kill(own.pid, signal.SIGKILL)
        with pytest.raises(UnavailableError):
            for _ in sweep:
                pass
        failed = 0
        for call in calls:
            try:
                assert np.array_equal(call.result(), edited(0.5))
            except UnavailableError as error:
                assert "\n" not in str(error)
                failed += 1
        assert failed
        assert not client.ready()
        # One that is asked to try again does so until the server is back.
        with Client(url(own, protocol), retries=400, **options) as patient:
            waiting = pool.submit(patient.edit, handle, age=0.75)
            own.restart()
            assert np.array_equal(waiting.result(), edited(0.75))
        # And so does the one that was there before, which is told of no new server.
        assert np.array_equal(client.edit(handle, age=0.75), edited(0.75))
    assert not regions() and not registered(own)


def test_a_restart_between_two_calls_is_not_noticed(own: LocalTriton, edited: Callable[[float], np.ndarray]) -> None:
    with Client(own.grpc, shared_memory=True, retries=20, **PATIENT) as client:
        handle = client.invert(ASTRONAUT)
        own.restart()
        assert np.array_equal(client.edit(handle, age=0.5), edited(0.5))
        own.restart()
        frames = list(client.sweep(handle, "age", 0.5, 0.75, 2))
        assert np.array_equal(frames[0][1], edited(0.5)) and np.array_equal(frames[1][1], edited(0.75))


def test_a_sweep_goes_on_where_a_restart_broke_it(own: LocalTriton, edited: Callable[[float], np.ndarray]) -> None:
    async def main() -> None:
        async with AsyncClient(own.grpc, shared_memory=True, retries=400, **PATIENT) as client:
            handle = await client.invert(ASTRONAUT)
            seen = []
            async for strength, image in client.sweep(handle, "age", -1, 1, 9):
                assert np.array_equal(image, edited(strength)), strength
                seen.append(strength)
                if len(seen) == 2:
                    await asyncio.to_thread(own.restart)
            assert seen == np.linspace(-1, 1, 9).tolist()

    asyncio.run(main())
    assert not regions() and not registered(own)


@pytest.fixture(scope="module")
def without_shared_memory(pipelines: Path, development_server: Installation) -> Iterator[LocalTriton]:
    with LocalTriton(open_bundle(pipelines), installation=development_server) as server:
        yield server


@PROTOCOLS
def test_a_server_without_shared_memory_says_so(
    without_shared_memory: LocalTriton, protocol: Any, demo_portrait: Portrait
) -> None:
    with Client(url(without_shared_memory, protocol), protocol=protocol, shared_memory=True, **PATIENT) as client:
        with pytest.raises(RequestError, match=r"does not take shared memory .*pass shared_memory=False"):
            client.invert(demo_portrait.aligned, aligned=True)
        assert not regions()


_LEAVE = """
import asyncio, sys
import numpy as np
from serving.client import AsyncClient, Client
kind, protocol, url = sys.argv[1:]
crop = np.full((64, 64, 3), 120, np.uint8)
options = dict(protocol=protocol, shared_memory=True, timeout=200)
if kind == "threads":
    client = Client(url, **options)
    client.edit(client.invert(crop, aligned=True), age=1)
else:
    async def main():
        client = AsyncClient(url, **options)
        await client.edit(await client.invert(crop, aligned=True), age=1)
        return client
    client = asyncio.run(main())
from pathlib import Path
print(len(list(Path("/dev/shm").glob("edgedit_*"))), flush=True)
"""


@PROTOCOLS
@pytest.mark.parametrize("kind", ["threads", "asyncio"])
def test_a_program_that_forgets_to_close_leaves_nothing(triton: LocalTriton, protocol: str, kind: str) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", _LEAVE, kind, protocol, url(triton, protocol)],
        cwd=_ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as program:
        out, complaints = program.communicate()
    assert program.returncode == 0, complaints
    assert int(out) > 0
    assert not regions(program.pid)
    with urllib.request.urlopen(f"http://{triton.http}/v2/systemsharedmemory/status", timeout=60) as response:
        names = [one["name"] for one in json.load(response)]
    assert not [name for name in names if name.startswith(f"edgedit_{program.pid}_")]


def test_closing_one_client_ends_its_calls_and_no_others(
    triton: LocalTriton, edited: Callable[[float], np.ndarray]
) -> None:
    with Client(triton.grpc, shared_memory=True, **PATIENT) as other:
        handle = other.invert(ASTRONAUT)
        client = Client(triton.grpc, shared_memory=True, **PATIENT)
        outcomes: list[Any] = []

        def work() -> None:
            try:
                while True:
                    outcomes.append(client.edit(handle, age=0.5))
            except ServingError as error:
                outcomes.append(error)

        threads = [threading.Thread(target=work) for _ in range(3)]
        for thread in threads:
            thread.start()
        while not outcomes:
            time.sleep(0.01)
        client.close()
        for thread in threads:
            thread.join()
        errors = [outcome for outcome in outcomes if isinstance(outcome, ServingError)]
        assert len(errors) == 3
        assert all(np.array_equal(image, edited(0.5)) for image in outcomes if isinstance(image, np.ndarray))
        assert np.array_equal(other.edit(handle, age=0.5), edited(0.5))
