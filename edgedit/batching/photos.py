"""The photos of a batch: those of a folder, an archive or a list, named at once and read one by one."""

from __future__ import annotations

import os
import tarfile
import zipfile
import zlib
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path, PurePosixPath
from typing import IO

from engines.errors import EdgeditError, ImageError, ImageTooLargeError
from engines.first_bytes import LENGTH, remedy
from engines.photo.sources import SUFFIXES, is_photo

MAX_BYTES = 2**29
"""The largest size of one photo's file: the largest photo that is accepted has less in any of the formats."""
MAX_LIST_BYTES = 2**28
"""The largest size of a list of photos."""


class PhotosError(EdgeditError):
    """The place that should hold photos cannot be read, or holds none."""


class Photos(ABC):
    """Photos by name, in order; the names are relative paths with slashes, each once."""

    names: list[str]

    @abstractmethod
    def open(self, name: str) -> IO[bytes]:
        """A photo's file.

        Raises:
            Exception: of the kinds that `read` knows.
        """

    def read(self, name: str) -> bytes:
        """The bytes of a photo's file.

        Raises:
            ImageError: if it cannot be read; an ImageTooLargeError for more than `MAX_BYTES`.
        """
        try:
            with self.open(name) as stream:
                data = stream.read(MAX_BYTES + 1)
        # RuntimeError: encrypted; NotImplementedError: packed in a way that zipfile does not know.
        except (OSError, EOFError, KeyError, RuntimeError, tarfile.TarError, zipfile.BadZipFile, zlib.error) as error:
            reason = getattr(error, "strerror", None) or " ".join(str(error).split()) or type(error).__name__
            raise ImageError(f"{name} cannot be read: {reason}") from error
        if len(data) > MAX_BYTES:
            raise ImageTooLargeError(f"{name} is a file of more than {MAX_BYTES >> 20} MiB; scale it down first")
        return data


class FilePhotos(Photos):
    """Photos that are files.

    Args:
        paths: by name.
    """

    def __init__(self, paths: dict[str, Path]) -> None:
        self._paths = paths
        self.names = list(paths)

    def open(self, name: str) -> IO[bytes]:
        return self._paths[name].open("rb")


class ZipPhotos(Photos):
    """Photos in a ZIP archive."""

    def __init__(self, archive: zipfile.ZipFile) -> None:
        self._archive = archive
        members = {name: one for one in archive.infolist() if (name := _member(one.filename))}
        self._members = dict(sorted(members.items()))
        self.names = list(self._members)

    def open(self, name: str) -> IO[bytes]:
        return self._archive.open(self._members[name])


class TarPhotos(Photos):
    """Photos in an archive of tar that is not compressed; links in it are no photos."""

    def __init__(self, archive: tarfile.TarFile) -> None:
        self._archive = archive
        # In the order of the archive, which is that in which a disk gives it quickest.
        self._members = {name: one for one in archive if one.isreg() and (name := _member(one.name))}
        self.names = list(self._members)

    def open(self, name: str) -> IO[bytes]:
        stream = self._archive.extractfile(self._members[name])
        assert stream is not None
        return stream


def _member(name: str) -> str | None:
    """The name of a photo in an archive; None for what is no photo, or would lie outside a folder it is unpacked to,
    or has a name that cannot be shown."""
    path = PurePosixPath(name.replace("\\", "/"))
    unsafe = (
        not path.parts or path.is_absolute() or ".." in path.parts or ":" in path.parts[0] or not name.isprintable()
    )
    return None if unsafe or not is_photo(path.name) else str(path)


@contextmanager
def open_photos(source: Path, out: Path) -> Iterator[Photos]:
    """The photos of a folder and the folders in it, of a tar or ZIP archive, or of a text file with a path a line.

    Args:
        source: the folder or file. Paths in a list are relative to the list's folder; blank lines and those that begin
            with # are passed over.
        out: the folder of the results; if it lies in `source`, what is in it is no photo.

    Raises:
        PhotosError: if it cannot be read or holds no photo.
    """
    with ExitStack() as stack:
        try:
            photos = _opened(source, out, stack)
        except (OSError, tarfile.TarError, zipfile.BadZipFile) as error:
            raise PhotosError(f"cannot read {source}: {getattr(error, 'strerror', None) or error}") from error
        if not photos.names:
            raise PhotosError(f"{source} holds no photo; their names end in {', '.join(SUFFIXES)}")
        yield photos


def _opened(source: Path, out: Path, stack: ExitStack) -> Photos:
    if source.is_dir():
        return FilePhotos(dict(_walk(source, out)))
    if not source.exists():
        raise PhotosError(f"{source} does not exist; name a folder, a tar or ZIP archive, or a list of photos")
    if is_photo(source.name):
        raise PhotosError(f"{source} is one photo; `edgedit edit` takes it, or name the folder that it is in")
    if zipfile.is_zipfile(source):
        return ZipPhotos(stack.enter_context(zipfile.ZipFile(source)))
    if _is_tar(source):
        return TarPhotos(stack.enter_context(tarfile.open(source, "r:")))
    return FilePhotos(_listed(source))


def _is_tar(source: Path) -> bool:
    try:
        with tarfile.open(source, "r:"):
            return True
    except tarfile.ReadError:
        return False


def _walk(folder: Path, out: Path) -> Iterator[tuple[str, Path]]:
    def fail(error: OSError) -> None:
        raise error

    without = out.resolve()
    for place, folders, files in os.walk(folder, onerror=fail):
        here = Path(place)
        folders[:] = sorted(name for name in folders if (here / name).resolve() != without)
        for name in sorted(filter(is_photo, files)):
            yield (here / name).relative_to(folder).as_posix(), here / name


def _listed(source: Path) -> dict[str, Path]:
    """The photos of a list.

    Raises:
        PhotosError: if it is no text, or names a file that is no photo, or one twice.
    """
    with source.open("rb") as stream:
        data = stream.read(MAX_LIST_BYTES + 1)
    try:
        if len(data) > MAX_LIST_BYTES or b"\0" in data:
            raise UnicodeError
        lines = data.decode("utf-8-sig").splitlines()
    except UnicodeError:
        kind = remedy(data[:LENGTH]) or "is no folder, no archive and no list of photos; an archive is a .tar or a ZIP"
        raise PhotosError(f"{source} {kind}") from None
    paths: dict[str, Path] = {}
    for number, line in enumerate(lines, 1):
        text = line.strip()
        if not text or text.startswith("#"):
            continue
        path = source.parent / text
        # Results go to folders of their own, so that a name cannot climb out of them.
        name = "/".join(part for part in Path(os.path.normpath(text)).parts if part not in ("..", path.anchor))
        if not is_photo(name):
            raise PhotosError(f"{source}:{number}: {text} is no photo; its name must end in {', '.join(SUFFIXES)}")
        if name in paths:
            raise PhotosError(f"{source}:{number}: {text} has the name of another photo of the list, {name}")
        paths[name] = path
    return paths
