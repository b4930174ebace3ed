from __future__ import annotations

from pathlib import Path

import pytest

from engines.photo.sources import is_photo, photo_files, without_text


@pytest.mark.parametrize(
    ("name", "taken"),
    [
        ("a.png", True),
        ("set/B.JPEG", True),
        (".hidden.webp", True),
        ("._a.png", False),
        ("set/._B.JPEG", False),
        ("__MACOSX/set/._a.png", False),
        ("a.heic", False),
        ("png", False),
    ],
)
def test_photos_by_their_name(name: str, taken: bool) -> None:
    assert is_photo(name) is taken


def test_photos_of_a_folder_are_sorted(tmp_path: Path) -> None:
    for name in ("b.png", "a.jpg", "._a.jpg", "notes.txt"):
        (tmp_path / name).touch()
    assert [file.name for file in photo_files(tmp_path)] == ["a.jpg", "b.png"]


def test_what_is_no_png_or_has_no_text_is_not_copied() -> None:
    for data in (b"", b"GIF89a" + bytes(40), b"\x89PNG\r\n\x1a\n", b"\x89PNG\r\n\x1a\n" + b"\xff" * 40):
        assert without_text(data) is data
