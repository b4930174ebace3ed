from __future__ import annotations

import io
import re
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from engines.errors import ImageError
from engines.photo import open_image
from engines.photo.sources import is_photo, photo_files, without_text
from tests.engines.photo.test_images import encoded, gradient, png_chunk


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


@pytest.mark.parametrize("place", ["before the pixels", "after them"])
@pytest.mark.parametrize("kind", ["tEXt", "zTXt", "iTXt", "many"])
def test_text_of_a_png_is_not_used(kind: str, place: str) -> None:
    words = b"a face, 1girl, steps: 30 " * 80_000
    chunks = {
        "tEXt": png_chunk(b"tEXt", b"parameters\0" + words),
        "zTXt": png_chunk(b"zTXt", b"parameters\0\0" + zlib.compress(words)),
        "iTXt": png_chunk(b"iTXt", b"prompt\0\1\0en\0\0" + zlib.compress(words)),
        # More than Pillow holds of all text together.
        "many": png_chunk(b"zTXt", b"parameters\0\0" + zlib.compress(bytes(1_000_000))) * 70,
    }
    data = encoded(Image.fromarray(gradient()), "PNG")
    split = data.index(b"IDAT" if place == "before the pixels" else b"IEND") - 4
    with_text = data[:split] + chunks[kind] + data[split:]
    photo = open_image(with_text)
    assert (photo.pixels == gradient()).all() and photo.format == "PNG"
    if place == "before the pixels":
        with pytest.raises(ImageError, match=r"damaged or truncated|not a PNG"):
            open_image(with_text[: split + 40])


@pytest.mark.parametrize("packed", [False, True])
def test_orientation_in_the_text_of_a_png_is_used(packed: bool) -> None:
    xmp = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'
    chunk = b"XML:com.adobe.xmp\0" + (b"\1\0\0\0" + zlib.compress(xmp) if packed else b"\0\0\0\0" + xmp)
    words = png_chunk(b"zTXt", b"parameters\0\0" + zlib.compress(bytes(5_000_000)))
    data = encoded(Image.fromarray(gradient()), "PNG")
    split = data.index(b"IDAT") - 4
    turned = open_image(data[:split] + words + png_chunk(b"iTXt", chunk) + data[split:])
    assert (turned.pixels == np.rot90(gradient(), -1)).all()


def test_a_png_of_an_image_generator(shared: Path) -> None:
    file = shared / "cases" / "bigtext.png"
    if not file.is_file():
        pytest.skip("the shared material has no cases")
    assert open_image(file).pixels.shape == (512, 512, 3)


def test_file_objects_are_read_from_their_start_and_left_open(tmp_path: Path) -> None:
    data = encoded(Image.fromarray(gradient()), "PNG")
    written = io.BytesIO()
    written.write(data)
    path = tmp_path / "photo"
    path.write_bytes(data)
    with path.open("rb") as opened, path.open("rb", buffering=0) as raw:
        for stream in (written, opened, opened, raw):
            assert (open_image(stream).pixels == gradient()).all()
            assert not stream.closed
        opened.seek(0)
        reader = io.BufferedReader(_Pipe(opened))
        assert (open_image(reader).pixels == gradient()).all()


class _Pipe(io.RawIOBase):
    """A stream that cannot go back."""

    def __init__(self, source: io.BufferedReader) -> None:
        self._source = source

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray) -> int:  # type: ignore[override]
        part = self._source.read(len(buffer))
        buffer[: len(part)] = part
        return len(part)


def test_file_objects_that_will_not_do(tmp_path: Path) -> None:
    path = tmp_path / "photo.png"
    path.write_bytes(encoded(Image.fromarray(gradient()), "PNG"))
    with path.open() as text, (tmp_path / "new.png").open("wb") as writing, path.open("rb") as closed:
        closed.close()
        for stream, message in (
            (text, f"{path} is open as text; open it with mode 'rb'"),
            (writing, "new.png is not open for reading; open it with mode 'rb'"),
            (closed, f"{path} cannot be read: "),
            (io.BytesIO(), "the photo is empty"),
            (5, "not int"),
            (None, "not NoneType"),
        ):
            with pytest.raises(ImageError, match=re.escape(message)) as caught:
                open_image(stream)  # type: ignore[arg-type]
            assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("file_format", "told"), [("GIF", "a GIF"), ("BMP", "a BMP"), ("TIFF", "a TIFF"), ("AVIF", "an AVIF")]
)
def test_other_formats_are_refused_by_their_name(file_format: str, told: str) -> None:
    message = f"^the image data is not a PNG, JPEG or WebP image but {told} file; convert it to one of those$"
    with pytest.raises(ImageError, match=message):
        open_image(encoded(Image.fromarray(gradient()), file_format))


def test_a_format_without_a_name_is_refused() -> None:
    with pytest.raises(ImageError, match=r"^the image data is not a PNG, JPEG or WebP image$"):
        open_image(encoded(Image.fromarray(gradient()), "PPM"))


@pytest.mark.parametrize(
    ("brands", "told"),
    [
        (b"heic\0\0\0\0mif1heic", "a HEIC"),  # an iPhone's
        (b"mif1\0\0\0\0mif1heicmiaf", "a HEIC"),
        (b"msf1\0\0\0\0msf1hevc", "a HEIC"),
        (b"mif1\0\0\0\0mif1avifmiaf", "an AVIF"),
    ],
)
def test_heic_is_named(brands: bytes, told: str, tmp_path: Path) -> None:
    file = tmp_path / "IMG_0001.HEIC"
    file.write_bytes(struct.pack(">I", 8 + len(brands)) + b"ftyp" + brands + b"\0\0\0\x30meta" + bytes(300))
    with pytest.raises(ImageError) as caught:
        open_image(file)
    assert str(caught.value) == f"{file} is not a PNG, JPEG or WebP image but {told} file; convert it to one of those"


def test_a_film_is_not_called_heic() -> None:
    with pytest.raises(ImageError, match=r"^the image data is not a PNG, JPEG or WebP image$"):
        open_image(struct.pack(">I", 20) + b"ftypisom\0\0\0\0isom" + b"heic" * 80)
