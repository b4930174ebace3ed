"""Batches in one process: results, what is done again and what is not, failures, and kills at any moment."""

from __future__ import annotations

import io
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import edgedit
from edgedit.batching import job, pipeline
from edgedit.batching.edits import read_edits
from edgedit.batching.journal import Failure
from edgedit.batching.progress import Status
from edgedit.batching.report import Report
from edgedit.batching.worker import Outcome, Settings, Task, Worker
from edgedit.editor import Editor, open_bundle
from engines.bundle.manifest import MANIFEST_DIGEST_FILE, MANIFEST_FILE
from engines.errors import BundleError, DirectionError, EngineError, OutputError, StrengthWarning
from engines.photo import Cut
from engines.store import Digest, lock
from tests.edgedit.commands.test_photos import png_of_claimed_size
from tests.edgedit.conftest import Cli

EDITS: dict[str, Any] = {"smiling": {"smile": 2}, "old": {"age": 1.5, "hair": 1, "options": {"format": "png"}}}
FAST = {"aligned": True, "threads": 1, "credentials": False}
"""No face is looked for: the graphs of the tests are done in no time. Signatures hold numbers of chance, and results
are compared to the bit."""


def write_faces(folder: Path, head: np.ndarray, count: int, suffix: str = ".png") -> Path:
    folder.mkdir(parents=True)
    for shift in range(count):
        Image.fromarray(np.roll(head, 9 * shift, 1)).resize((64, 64)).save(folder / f"{shift}{suffix}", quality=95)
    return folder


def results(out: Path) -> dict[str, bytes]:
    return {path.relative_to(out).as_posix(): path.read_bytes() for path in out.rglob("*.*g") if path.is_file()}


def lines(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / ".edgedit" / "journal.jsonl").read_text().splitlines()]


@pytest.fixture
def faces(head: np.ndarray, tmp_path: Path) -> Path:
    return write_faces(tmp_path / "in", head, 5)


@pytest.fixture
def run(bundle_path: Path, faces: Path, tmp_path: Path) -> Any:
    def batch(**more: Any) -> Report:
        options = {"photos": faces, "out": tmp_path / "out", "edits": EDITS, "bundle": bundle_path, **FAST}
        return edgedit.batch(**options | more)

    return batch


def test_results_are_those_of_the_verb_edit(
    cli: Cli, bundle_path: Path, head: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    photos, out = tmp_path / "in", tmp_path / "out"
    (photos / "more").mkdir(parents=True)
    Image.fromarray(head).save(photos / "a.png")
    Image.fromarray(np.dstack([head, head[..., 0]])).resize((200, 200)).save(photos / "more" / "b.webp", lossless=True)
    # Larger than the model's face, so that its reconstruction is read; and one that is not.
    Image.fromarray(head[20:240, 20:240]).resize((90, 90)).save(photos / "more" / "c.jpg", quality=95)
    edits = {
        "plain": {"smile": 2},
        "replaced": {"smile": 2, "age": -1, "options": {"paste": "replace", "format": "jpeg"}},
        "face": {"hair": 1, "options": {"paste": False}},
    }
    (tmp_path / "edits.yaml").write_text(json.dumps(edits))
    words = ("batch", photos, out, "-e", tmp_path / "edits.yaml", "-b", bundle_path, "--threads", 1)
    # Signatures hold numbers of chance.
    done = cli(*words, "--no-credentials", "--batch", 3, "--json", tmp_path / "summary.json")
    assert (done.status, done.err) == (0, ""), done.err
    assert "3 of 3 photos done; wrote 9 results" in done.out
    names = ["a.png", "more/b.webp", "more/c.jpg"]
    jpegs = {"a.png": "a.png.jpg", "more/b.webp": "more/b.webp.jpg"}
    assert set(results(out)) | {"plain/more/b.webp", "face/more/b.webp"} == {
        *(f"{edit}/{name}" for edit in ("plain", "face") for name in names),
        *(f"replaced/{jpegs.get(name, name)}" for name in names),
    }
    for name in names:
        single = tmp_path / f"single{Path(name).suffix}"
        edit = ("edit", photos / name, "-b", bundle_path, "--threads", 1, "-d", "smile:2", "--no-credentials")
        assert cli(*edit, "-o", single).status == 0
        assert (out / "plain" / name).read_bytes() == single.read_bytes()
        assert cli(*edit, "-d", "age:-1", "--paste", "replace", "-o", tmp_path / "single.jpg").status == 0
        assert (out / "replaced" / jpegs.get(name, name)).read_bytes() == (tmp_path / "single.jpg").read_bytes()
    face = Editor.load(bundle_path, threads=1).portrait(photos / "a.png").edit_face({"hair": 1})
    with Image.open(out / "face" / "a.png") as written:
        assert np.array_equal(np.asarray(written), face)
    summary = json.loads((tmp_path / "summary.json").read_text())
    report = json.loads((out / "report.json").read_text())
    assert report.items() <= summary.items()
    assert (report["photos"], report["done"], report["failed"], report["results"]) == (3, 3, 0, 9)


def test_results_are_the_same_for_every_batch(run: Any, tmp_path: Path) -> None:
    run(out=tmp_path / "1")
    for size in (2, 5, 16):
        run(out=tmp_path / str(size), batch_size=size)
        assert results(tmp_path / str(size)) == results(tmp_path / "1")
    assert len(results(tmp_path / "1")) == 10


def test_what_is_done_is_not_done_again(run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run().results == 10
    before = results(tmp_path / "out")
    with monkeypatch.context() as patched:
        # Nothing is even loaded.
        patched.setattr(job, "Worker", None)
        again = run()
    assert (again.results, again.present, again.done) == (0, 5, 5)
    assert results(tmp_path / "out") == before


def test_what_has_changed_is_done_again_and_nothing_else(
    run: Any, head: np.ndarray, faces: Path, tmp_path: Path
) -> None:
    run()
    written: list[str] = []

    def again(**more: Any) -> list[str]:
        at = len(lines(tmp_path / "out"))
        run(**more)
        written[:] = sorted(f"{line['edit']}/{line['photo']}" for line in lines(tmp_path / "out")[at:])
        return written

    assert again() == []
    stronger = EDITS | {"smiling": {"smile": 2.5}}
    assert again(edits=stronger) == [f"smiling/{n}.png" for n in range(5)]
    more = stronger | {"new": {"smile": 1}}
    assert again(edits=more) == [f"new/{n}.png" for n in range(5)]
    assert again(edits=EDITS | {"old": {**EDITS["old"], "options": {"format": "png", "quality": 90}}})[:1] == [
        "old/0.png"
    ]
    run()
    Image.fromarray(head[::4, ::4]).save(faces / "3.png")
    Image.fromarray(head[::5, ::5]).save(faces / "new.png")
    assert again() == ["old/3.png", "old/new.png", "smiling/3.png", "smiling/new.png"]
    # A result that is lost, or is not what was written, is made again.
    (tmp_path / "out" / "old" / "1.png").unlink()
    (tmp_path / "out" / "old" / "2.png").write_bytes(b"damaged")
    assert again() == ["old/1.png", "old/2.png"]


def test_another_bundle_does_all_again(run: Any, own_bundle: Path, tmp_path: Path) -> None:
    run()
    manifest = json.loads((own_bundle / MANIFEST_FILE).read_bytes())
    data = json.dumps(manifest | {"name": "other"}).encode()
    (own_bundle / MANIFEST_FILE).write_bytes(data)
    (own_bundle / MANIFEST_DIGEST_FILE).write_bytes(Digest.of(data).line(MANIFEST_FILE))
    assert run(bundle=own_bundle).results == 10
    assert run(bundle=own_bundle).results == 0


def test_failures_are_counted_and_tried_again_when_asked(
    cli: Cli, bundle_path: Path, head: np.ndarray, tmp_path: Path
) -> None:
    photos, out = tmp_path / "in", tmp_path / "out"
    photos.mkdir()
    Image.fromarray(head).save(photos / "fine.png")
    Image.fromarray(np.full((90, 120, 3), 128, np.uint8)).save(photos / "wall.png")
    (photos / "text.jpg").write_text("no image")
    whole = (photos / "fine.png").read_bytes()
    (photos / "cut.png").write_bytes(whole[: len(whole) // 2])
    (photos / "huge.png").write_bytes(png_of_claimed_size(30_000, 30_000))
    (tmp_path / "edits.yaml").write_text("smiling: {smile: 2}")
    words = ("batch", photos, out, "--edits", tmp_path / "edits.yaml", "-b", bundle_path, "--threads", 1)
    done = cli(*words, "--batch", 4)
    assert done.error == f"4 of 5 photos failed, see {out}/report.json; --retry-failed tries them again"
    assert "1 of 5 photos done, 2 broken file, 1 too large, 1 no face; wrote 1 results" in done.out
    rows = {row["photo"]: row for row in json.loads((out / "report.json").read_text())["failures"]}
    assert {name: row["kind"] for name, row in rows.items()} == {
        "cut.png": "broken file",
        "huge.png": "too large",
        "text.jpg": "broken file",
        "wall.png": "no face",
    }
    assert "no face found in wall.png" in rows["wall.png"]["why"] and rows["wall.png"]["edit"] is None
    assert "text.jpg is not a PNG, JPEG or WebP image" in rows["text.jpg"]["why"]
    assert list(results(out)) == ["smiling/fine.png"]
    # What failed is known, and fails without a try; a new edit brings no face to the wall.
    (tmp_path / "edits.yaml").write_text("smiling: {smile: 2}\nold: {age: 1}")
    before = len(lines(out))
    assert "4 of 5 photos failed" in cli(*words).error
    assert [line["edit"] for line in lines(out)[before:]] == ["old"]
    before = len(lines(out))
    done = cli(*words, "--retry-failed")
    assert done.error == f"4 of 5 photos failed, see {out}/report.json"
    assert sorted(line["photo"] for line in lines(out)[before:]) == ["cut.png", "huge.png", "text.jpg", "wall.png"]
    # A photo that was mended is another photo.
    (photos / "cut.png").write_bytes(whole)
    assert "3 of 5 photos failed" in cli(*words).error
    assert len(results(out)) == 4


def test_what_fails_no_longer_is_done(run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(Worker, "prepare", lambda self, task: Failure("fault", "MemoryError"))
        assert run().kinds == {"fault": 5}
    assert run().failed == 5
    assert (run(retry_failed=True).done, run().present) == (5, 5)


def test_an_edit_that_leaves_no_picture_is_lost_alone(run: Any, tmp_path: Path) -> None:
    with pytest.warns(StrengthWarning):
        report = run(edits={"lost": {"smile": 1e30}, "fine": {"smile": 1}}, batch_size=3)
    assert report.kinds == {"picture lost": 5} and {one.edit for one in report.failures} == {"lost"}
    assert {name.partition("/")[0] for name in results(tmp_path / "out")} == {"fine"}


def test_jobs_that_are_refused(run: Any, tmp_path: Path) -> None:
    for size in (0, 17, True):
        with pytest.raises(EngineError, match="the batch must be 1 to 16 photos"):
            run(batch_size=size)
    with pytest.raises(DirectionError, match="edit smiling: unknown direction 'simle'; did you mean smile"):
        run(edits={"smiling": {"simle": 2}})
    with pytest.raises(BundleError, match="no such directory"):
        run(bundle=tmp_path / "none")
    assert not (tmp_path / "out").exists()
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match=r"cannot write .*file"):
        run(out=tmp_path / "file")
    run()
    with (
        lock(tmp_path / "out" / ".edgedit" / "lock"),
        pytest.raises(OutputError, match=rf"process {os.getpid()} is at work on a batch"),
    ):
        run()
    journal = tmp_path / "out" / ".edgedit" / "journal.jsonl"
    journal.write_bytes(b"{\n" + journal.read_bytes())
    with pytest.raises(OutputError, match=r"journal\.jsonl:1 is damaged; move that file away"):
        run()


def test_a_last_line_that_was_cut_is_done_again(run: Any, tmp_path: Path) -> None:
    run()
    journal = tmp_path / "out" / ".edgedit" / "journal.jsonl"
    whole = journal.read_bytes()
    journal.write_bytes(whole[:-20])
    assert run().results == 1
    assert len(lines(tmp_path / "out")) == len(whole.splitlines())


def test_a_result_in_the_place_of_a_folder_fails_alone(run: Any, tmp_path: Path) -> None:
    (tmp_path / "out" / "old" / "2.png" / "in the way").mkdir(parents=True)
    report = run()
    assert [(one.photo, one.edit, one.failure.kind) for one in report.failures] == [("2.png", "old", "not writable")]
    shutil.rmtree(tmp_path / "out" / "old" / "2.png")
    assert run(retry_failed=True).results == 1


def test_a_crash_at_any_step_of_a_result_is_made_good(
    run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stop before and after the journal's line, and after the file is in its place."""
    run(out=tmp_path / "whole")
    expected, out = results(tmp_path / "whole"), tmp_path / "out"

    class Killed(BaseException):
        pass

    def killed(*_: object, **__: object) -> None:
        raise Killed

    for place, name in ((os, "fsync"), (Path, "replace"), (job._Job, "_count")):
        with monkeypatch.context() as patched, pytest.raises(Killed):
            patched.setattr(place, name, killed)
            run()
    run()
    assert results(out) == expected
    done = [(line["photo"], line["edit"]) for line in lines(out)]
    # The first line stood for a file that never came to its place; that which came is not made again.
    assert len(done) == 11 and len(set(done)) == 10


def test_killed_at_any_moment_it_goes_on_and_loses_nothing(
    run: Any, bundle_path: Path, faces: Path, tmp_path: Path
) -> None:
    expected = run(out=tmp_path / "whole") and results(tmp_path / "whole")
    out = tmp_path / "out"
    code = (
        "import sys, time, edgedit\n"
        f"edgedit.batch({str(faces)!r}, {str(out)!r}, {EDITS!r}, bundle={str(bundle_path)!r}, **{FAST!r},\n"
        "              progress=lambda status: (print(status, flush=True), time.sleep(0.2)))"
    )
    times: dict[Path, int] = {}
    for _ in range(2):
        process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        process.stdout.readline()
        process.send_signal(signal.SIGKILL)
        process.wait()
        for path, time_ns in times.items():
            assert path.stat().st_mtime_ns == time_ns
        times = {path: path.stat().st_mtime_ns for path in out.rglob("*.png")}
    assert 2 <= len(times) < 10
    (out / ".edgedit" / ".new.0123abcd").mkdir()
    last = run()
    assert last.results == 10 - len(times)
    assert all(path.stat().st_mtime_ns == time_ns for path, time_ns in times.items())
    assert results(out) == expected
    assert sorted(os.listdir(out / ".edgedit")) == ["journal.jsonl", "lock"]


def test_memory_is_bounded(bundle_path: Path, head: np.ndarray) -> None:
    """No more photos are on their way than the budget holds, and a batch is not waited for then."""
    held: set[str] = set()
    most = 0
    guard = threading.Lock()

    class Counting(Worker):
        def prepare(self, task: Task) -> Cut | Failure:
            nonlocal most
            with guard:
                held.add(task.name)
                most = max(most, len(held))
            return super().prepare(task)

    def tasks() -> Iterator[Task]:
        stream = io.BytesIO()
        Image.fromarray(head).save(stream, "PNG")
        for number in range(12):
            yield Task(f"{number}.png", stream.getvalue(), "", (0,))

    edits = read_edits({"smiling": {"smile": 1}})
    common = {"path": bundle_path, "runtime": "onnxruntime", "public_key": None, "options": {"threads": 1}}
    settings = Settings.of(open_bundle(bundle_path), edits, aligned=True, face=None, **common)
    each = head.size * 2 + 60_000
    for budget, allowed in ((0, 1), (3 * each + 200_000, 4), (pipeline.BUDGET, 10)):
        most, done = 0, []
        for outcome in pipeline.outcomes(Counting(settings), tasks(), 4, 2, budget):
            with guard:
                held.remove(outcome.task.name)
            done.append(outcome)
        assert sorted(int(one.task.name[:-4]) for one in done) == list(range(12))
        assert all(isinstance(one, Outcome) and isinstance(one.results[0][1], bytes) for one in done)
        assert 1 <= most <= allowed


def test_progress_is_told_after_every_photo(run: Any, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[Status] = []
    run(progress=said.append)
    assert [status.done for status in said] == [1, 2, 3, 4, 5]
    assert said[0].seconds_left is None and {status.photos for status in said} == {5}


def test_the_command(cli: Cli, bundle_path: Path, faces: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    example = cli("batch", "--example").out
    (tmp_path / "edits.yaml").write_text(example)
    assert read_edits(tmp_path / "edits.yaml").keys() == {"smiling", "younger"}
    assert "name photos, a folder for the results, and edits: edgedit batch IN OUT --edits" in cli("batch", faces).error
    words = ("batch", faces, tmp_path / "out", "-e", tmp_path / "edits.yaml", "-b", bundle_path, "--aligned")
    monkeypatch.setattr("edgedit.commands.batching.EVERY", 0.0)
    done = cli(*words)
    assert (done.status, done.err) == (0, "")
    assert "1 of 5 photos\n" in done.out and "5 of 5 photos done; wrote 10 results" in done.out
    assert "5 of 5 photos done (5 of them before); wrote 0 results" in cli(*words).out
