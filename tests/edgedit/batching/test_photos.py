from __future__ import annotations

import io
import tarfile
import zipfile
from pathlib import Path

import pytest

from edgedit.batching import photos as photos_module
from edgedit.batching.photos import PhotosError, open_photos
from engines.errors import ImageError, ImageTooLargeError

FILES = {"a.jpg": b"a", "deep/er/b.PNG": b"b", "deep/c.webp": b"c"}
OTHERS = {"notes.txt": b"", "._a.jpg": b"", "deep/._c.webp": b"", "d.gif": b""}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, data in (FILES | OTHERS).items():
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "in" / name).write_bytes(data)
    return tmp_path / "in"


def read(source: Path, out: Path | None = None) -> dict[str, bytes]:
    with open_photos(source, out or source.parent / "out") as photos:
        return {name: photos.read(name) for name in photos.names}


def write_tar(path: Path, mode: str = "w:") -> Path:
    with tarfile.open(path, mode) as archive:
        for name, data in (FILES | OTHERS).items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return path


def write_zip(path: Path, files: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return path


def test_folders_and_archives_hold_the_same_photos(folder: Path, tmp_path: Path) -> None:
    assert read(folder) == FILES
    assert read(write_tar(tmp_path / "photos.tar")) == FILES
    assert read(write_zip(tmp_path / "photos.zip", FILES | OTHERS)) == FILES


def test_results_inside_the_folder_are_no_photos(folder: Path) -> None:
    (folder / "out" / "smiling").mkdir(parents=True)
    (folder / "out" / "smiling" / "a.jpg").write_bytes(b"edited")
    assert read(folder, folder / "out") == FILES


def test_lists(folder: Path, tmp_path: Path) -> None:
    lines = ["# comment", "", "in/a.jpg", f"{folder}/deep/c.webp", "in/../in/deep/er/b.PNG"]
    (tmp_path / "list.txt").write_text("\n".join(lines))
    absolute = f"{folder}/deep/c.webp".lstrip("/")
    assert read(tmp_path / "list.txt") == {"in/a.jpg": b"a", absolute: b"c", "in/deep/er/b.PNG": b"b"}
    # A photo outside of the list's folder has a name inside that of the results all the same.
    (folder / "list.txt").write_text("../in/a.jpg")
    assert read(folder / "list.txt") == {"in/a.jpg": b"a"}
    (folder / "list.txt").write_text("a.jpg\nnotes.txt")
    with pytest.raises(PhotosError, match=r"list\.txt:2: notes\.txt is no photo"):
        read(folder / "list.txt")
    (folder / "list.txt").write_text("a.jpg\n\n./a.jpg")
    with pytest.raises(PhotosError, match=r"list\.txt:3: \./a\.jpg has the name of another photo"):
        read(folder / "list.txt")


def test_archives_reach_no_place_but_their_own(tmp_path: Path) -> None:
    names = ["../up.jpg", "/root.jpg", "a/../../b.jpg", "c:/d.jpg", "..\\e.jpg", "f\n.jpg", "fine.jpg"]
    assert read(write_zip(tmp_path / "a.zip", dict.fromkeys(names, b"x"))) == {"fine.jpg": b"x"}
    with tarfile.open(tmp_path / "a.tar", "w:") as archive:
        for name in names:
            member = tarfile.TarInfo(name)
            member.size = 1
            archive.addfile(member, io.BytesIO(b"x"))
        link = tarfile.TarInfo("link.jpg")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
    assert read(tmp_path / "a.tar") == {"fine.jpg": b"x"}


def test_a_photo_that_cannot_be_read_is_one_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_zip(tmp_path / "a.zip", {"a.jpg": bytes(1000), "b.jpg": b"fine"})
    data = bytearray(path.read_bytes())
    data[38] ^= 0xFF
    path.write_bytes(data)
    with open_photos(path, tmp_path / "out") as photos:
        with pytest.raises(ImageError, match=r"a\.jpg cannot be read"):
            photos.read("a.jpg")
        assert photos.read("b.jpg") == b"fine"
        monkeypatch.setattr(photos_module, "MAX_BYTES", 3)
        with pytest.raises(ImageTooLargeError, match=r"b\.jpg is a file of more than"):
            photos.read("b.jpg")
    (tmp_path / "gone.jpg").touch()
    with open_photos(tmp_path, tmp_path / "out") as photos:
        (tmp_path / "gone.jpg").unlink()
        with pytest.raises(ImageError, match=r"gone\.jpg cannot be read: No such file"):
            photos.read("gone.jpg")


def test_sources_that_are_refused(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "bytes").write_bytes(b"\0\1\2")
    for source, message in (
        (tmp_path / "none", "does not exist; name a folder"),
        (tmp_path / "empty", "holds no photo; their names end in .png"),
        (folder / "a.jpg", "is one photo; `edgedit edit` takes it"),
        (tmp_path / "bytes", "is no folder, no archive and no list of photos"),
        (write_tar(tmp_path / "photos.tar.gz", mode="w:gz"), "is compressed with gzip; unpack it"),
        (write_zip(tmp_path / "no.zip", OTHERS), "holds no photo"),
    ):
        with pytest.raises(PhotosError) as refused:
            read(source)
        assert message in str(refused.value) and str(source) in str(refused.value)
