"""A batch from beginning to end: what is to be done still, the work, results and journal, and the report."""

from __future__ import annotations

import errno
import json
import os
import shutil
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import ExitStack, closing
from itertools import chain
from pathlib import Path
from typing import Any

from edgedit.batching import pipeline
from edgedit.batching.edits import read_edits
from edgedit.batching.journal import Entry, Failure, Journal
from edgedit.batching.photos import Photos, open_photos
from edgedit.batching.progress import Estimate, Status
from edgedit.batching.report import FILE, FailedPhoto, Report
from edgedit.batching.worker import Outcome, Settings, Task, Worker, failure_of
from edgedit.editor import PORTRAIT_BUNDLE, open_bundle
from engines.bundle.signing import ensure_signed
from engines.cpus import usable
from engines.errors import EngineError, ImageError, OutputError
from engines.packages import Progress
from engines.photo.credentials import Credentials
from engines.store import Digest, cannot_write, lock, scratch_directory, write

MAX_BATCH = 16
STATE = ".edgedit"
"""The folder, among the results, of the journal, the lock and what is being written."""
THREADS = 4
"""Threads for decoding and encoding, at most: they keep up with the networks of a CPU many times over."""
_UNFIT = (errno.ENAMETOOLONG, errno.EISDIR, errno.ENOTDIR, errno.EEXIST, errno.ENOTEMPTY)
"""A result that cannot be put in its place for its name's sake: what others do not suffer from."""


def batch(
    photos: str | Path,
    out: str | Path,
    edits: str | Path | Mapping[str, Any],
    *,
    bundle: str | Path = PORTRAIT_BUNDLE,
    runtime: str = "onnxruntime",
    public_key: str | Path | None = None,
    batch_size: int = 1,
    aligned: bool = False,
    face: int | None = None,
    retry_failed: bool = False,
    credentials: bool = True,
    edit_list: bool = True,
    private_key: str | Path | None = None,
    certificate: str | Path | None = None,
    ray: str | None = None,
    workers: int = 0,
    progress: Callable[[Status], None] = lambda status: None,
    say: Progress = lambda line: None,
    **options: Any,
) -> Report:
    """Edits many photos, each with every one of some named edits; what is done already is not done again.

    A result is `OUT/EDIT/PHOTO`, the photo's path in its folder or archive, with a suffix more if the edit asks for
    another format (`a.png.jpg`); its bytes are those that `edgedit edit` writes, but
    for what its credentials hold of chance. Results appear whole or not at all,
    and a journal in `OUT/.edgedit` says which are there: a run that was stopped or killed at any moment goes on where
    it was, and one with other photos, edits or another bundle makes what is new or has changed. Results of edits that
    are no longer named stay.

    Args:
        photos: a folder, with the folders in it; a tar or ZIP archive; or a text file with a path a line. PNG, JPEG and
            WebP are photos.
        out: the folder of the results, which is made if need be.
        edits: a YAML file, or what it says: strength by direction, by a name for each edit, and `options`.
        bundle, runtime, public_key, options: as `Editor.load`.
        batch_size: photos that the networks take at once, 1 to 16. Results do not depend on it, but for a level of a
            pixel where the runtime adds numbers up in another order.
        aligned: the photos are aligned faces already: they are edited whole.
        face: which face of a photo with several, 0 the largest; None takes the largest.
        retry_failed: try photos again that failed in an earlier run.
        credentials: let results say that they were edited (see `engines.photo.credentials`); without it that is yours
            to say.
        edit_list: let them name the edits too.
        private_key, certificate: PEM files of what signs that; None takes this user's own key.
        ray: do the work on the machines of a Ray cluster at this address; "local" for processes on this one. The bundle
            must lie at the same path on all; photos and results go through this machine.
        workers: processes of Ray that each load the bundle; 0 is one for each processor that Ray has, or for as many
            as each takes with the option `threads`.
        progress: told how far it is after every photo.
        say: told in a line if weights are to be fetched first, or that a worker was lost.

    Returns:
        What was done and what failed and why, of all photos; it is written to `OUT/report.json` too.

    Raises:
        EdgeditError: for photos, edits, a bundle or a folder that cannot be used, or if another process is at work
            there. A photo that cannot be used is none: it is in the report.

    Example:
        >>> report = edgedit.batch(faces, "edited", {"smiling": {"smile": 2.0}}, bundle=bundle, aligned=True)
        >>> report.photos, report.done, report.failures
        (1, 1, ())
        >>> edgedit.batch(faces, "edited", {"smiling": {"smile": 2.0}}, bundle=bundle, aligned=True).results
        0
    """
    if isinstance(batch_size, bool) or not isinstance(batch_size, int) or not 1 <= batch_size <= MAX_BATCH:
        raise EngineError(f"the batch must be 1 to {MAX_BATCH} photos, got {batch_size!r}")
    named = read_edits(edits)
    says = None
    if credentials:
        says = {"private_key": private_key, "certificate": certificate, "edits": edit_list}
        # A key that will not do is found before any work, and this user's is made.
        Credentials(**says, progress=say)
    place = Path(out)
    with ExitStack() as stack:
        listed = stack.enter_context(open_photos(Path(photos), place))
        loaded = open_bundle(bundle, progress=say)
        if public_key is not None:
            ensure_signed(loaded, public_key)
        settings = Settings.of(
            loaded,
            named,
            path=None if Path(bundle) == PORTRAIT_BUNDLE else Path(bundle).absolute(),
            aligned=aligned,
            face=face,
            runtime=runtime,
            public_key=None if public_key is None else Path(public_key),
            options=options,
            credentials=says,
        )
        job = _Job(listed, place, settings, Estimate(batch_size), retry_failed, progress, stack)
        started = time.monotonic()
        if ray is None:
            run = _here(settings, job.tasks(), batch_size)
        else:
            from edgedit.batching.cluster import outcomes

            run = outcomes(ray, settings, job.tasks(), batch_size, workers, say)
        # Before the journal and the photos are closed, if anything goes wrong.
        for outcome in stack.enter_context(closing(run)):
            job.settle(outcome)
        report = Report(
            photos=len(listed.names),
            done=job.done,
            present=job.present,
            failures=tuple(sorted(job.failures, key=lambda one: (one.photo, one.edit))),
            results=job.results,
            seconds=time.monotonic() - started,
            bundle=loaded.name,
            edits={name: edit.strengths for name, edit in named.items()},
        )
        write(place / FILE, (json.dumps(report.to_json(), indent=1) + "\n").encode())
    return report


def _here(settings: Settings, tasks: Iterator[Task], batch_size: int) -> Generator[Outcome]:
    """The work in this process; nothing is loaded if there is none."""
    first = next(tasks, None)
    if first is not None:
        yield from pipeline.outcomes(Worker(settings), chain((first,), tasks), batch_size, min(usable(), THREADS))


class _Job:
    """A batch's folder: what is in it, and what is put there."""

    def __init__(
        self,
        photos: Photos,
        out: Path,
        settings: Settings,
        estimate: Estimate,
        retry_failed: bool,
        progress: Callable[[Status], None],
        stack: ExitStack,
    ) -> None:
        self._photos, self._out, self._settings, self._estimate = photos, out, settings, estimate
        self._retry_failed, self._progress = retry_failed, progress
        self.done = self.present = self.results = self._failed = 0
        self.failures: list[FailedPhoto] = []
        self._known: dict[str, list[tuple[str, Failure]]] = {}
        """Edits of photos on their way that failed in an earlier run."""
        state = out / STATE
        try:
            state.mkdir(parents=True, exist_ok=True)
            stack.enter_context(lock(state / "lock", self._refuse))
            # Under the lock, what is there of these is of processes that were killed.
            for left in state.glob(".new.*"):
                shutil.rmtree(left)
            self._scratch = stack.enter_context(scratch_directory(state / "new"))
            # It would tell of an earlier run if this one were stopped.
            (out / FILE).unlink(missing_ok=True)
        except OSError as error:
            raise cannot_write(out, error) from error
        self._journal = stack.enter_context(Journal(state / "journal.jsonl"))
        self._left = sum(map(self._expected, photos.names))
        """Photos that are not read yet and are expected to be worked on."""

    def _refuse(self, owner: str) -> None:
        who = f"process {owner}" if owner else "another process"
        raise OutputError(f"{who} is at work on a batch in {self._out}; wait for it, or name another folder")

    def _expected(self, name: str) -> bool:
        """Whether there is work on a photo, by the journal alone; that its file has changed shows when it is read."""
        whole = self._journal.entry(name, "")
        if whole and whole.failure and whole.recipe == self._settings.finding:
            return self._retry_failed
        entries = [(recipe, self._journal.entry(name, recipe.name)) for recipe in self._settings.recipes]
        return not all(
            entry and entry.recipe == recipe.digest and not (entry.failure and self._retry_failed)
            for recipe, entry in entries
        )

    def tasks(self) -> Iterator[Task]:
        """The photos that there is work on, read one by one; what is known of the others is counted."""
        for name in self._photos.names:
            self._left -= self._expected(name)
            try:
                data = self._photos.read(name)
            except ImageError as error:
                self._count(name, [("", failure_of(error))])
                continue
            digest = Digest.of(data).sha256
            whole = self._journal.entry(name, "")
            if (
                whole
                and whole.failure
                and (whole.recipe, whole.photo) == (self._settings.finding, digest)
                and not self._retry_failed
            ):
                self._count(name, [("", whole.failure)])
                continue
            edits, failures = self._lacking(name, digest)
            if edits:
                self._known[name] = failures
                yield Task(name, data, digest, edits)
            else:
                self.present += not failures
                self._count(name, failures)

    def _lacking(self, name: str, digest: str) -> tuple[tuple[int, ...], list[tuple[str, Failure]]]:
        """The recipes of a photo that are to be made, and those known to fail."""
        edits, failures = [], []
        for index, recipe in enumerate(self._settings.recipes):
            entry = self._journal.entry(name, recipe.name)
            if entry is None or (entry.recipe, entry.photo) != (recipe.digest, digest):
                edits.append(index)
            elif entry.failure and not self._retry_failed:
                failures.append((recipe.name, entry.failure))
            elif entry.failure or not _is_whole(self._out / recipe.result(name), entry.digest):
                edits.append(index)
        return tuple(edits), failures

    def settle(self, outcome: Outcome) -> None:
        """Writes down what became of a photo, and its results.

        Raises:
            OutputError: if a result or the journal cannot be written.
        """
        task, failures = outcome.task, self._known.pop(outcome.task.name)
        if outcome.failure:
            failures = [("", outcome.failure)]
        if outcome.failure or self._journal.entry(task.name, ""):
            # Also that it has failed no longer.
            self._journal.write(task.name, "", Entry(self._settings.finding, task.sha256, None, outcome.failure))
        for index, result in outcome.results:
            recipe = self._settings.recipes[index]
            if not isinstance(result, Failure):
                result = self._put(task, index, result)
            if result is not None:
                failures.append((recipe.name, result))
                self._journal.write(task.name, recipe.name, Entry(recipe.digest, task.sha256, None, result))
        self._estimate.add()
        self._count(task.name, failures)

    def _put(self, task: Task, index: int, data: bytes) -> Failure | None:
        """Puts a result in its place; what is wrong with the place alone is a failure of the photo."""
        recipe = self._settings.recipes[index]
        place = self._out / recipe.result(task.name)
        fresh = self._scratch / "result"
        try:
            with fresh.open("wb") as stream:
                stream.write(data)
                stream.flush()
                os.fsync(stream.fileno())
            self._journal.write(task.name, recipe.name, Entry(recipe.digest, task.sha256, Digest.of(data), None))
            place.parent.mkdir(parents=True, exist_ok=True)
            fresh.replace(place)
        except OSError as error:
            refusal = cannot_write(place, error)
            if error.errno not in _UNFIT:
                raise refusal from error
            return failure_of(refusal)
        self.results += 1
        return None

    def _count(self, name: str, failures: list[tuple[str, Failure]]) -> None:
        self.failures += [FailedPhoto(name, edit, failure) for edit, failure in failures]
        self._failed += bool(failures)
        self.done += not failures
        self._progress(self._status(name))

    def _status(self, name: str) -> Status:
        each = self._estimate.seconds
        return Status(
            photos=len(self._photos.names),
            done=self.done,
            failed=self._failed,
            present=self.present,
            seconds_left=each and each * (self._left + len(self._known)),
            photos_per_second=each and 1 / each,
        )


def _is_whole(file: Path, digest: Digest | None) -> bool:
    try:
        with file.open("rb") as stream:
            return os.fstat(stream.fileno()).st_size == (digest and digest.size) and Digest.read(stream) == digest
    except OSError:
        return False
