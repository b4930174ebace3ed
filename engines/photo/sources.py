"""Tests of whether a file is a photo: by its name in a folder, and by its bytes before they are decoded."""

from __future__ import annotations

import zlib
from pathlib import Path, PurePath

from PIL import PngImagePlugin

FORMATS = ("PNG", "JPEG", "WEBP")
SUFFIXES = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP"}

_APPLE_DOUBLE = "._"
"""The prefix of macOS' companions of files on a disk, or in an archive, that is not its own: metadata under the suffix
of the photo it belongs to."""

_PNG = b"\x89PNG\r\n\x1a\n"
_TEXT = (b"tEXt", b"zTXt", b"iTXt")
_TURNING = (b"Raw profile type exif", b"XML:com.adobe.xmp")
"""Keywords of the text in which Pillow looks for an orientation."""

_MAGIC = (
    (b"GIF8", "a GIF"),
    (b"II*\0", "a TIFF"),
    (b"MM\0*", "a TIFF"),
    (b"BM", "a BMP"),
    (b"%PDF", "a PDF"),
    (b"8BPS", "a Photoshop"),
    (b"\xff\x0a", "a JPEG XL"),
    (b"\0\0\0\x0cJXL ", "a JPEG XL"),
    (b"\0\0\0\x0cjP  ", "a JPEG 2000"),
)
_BRANDS = (
    ("an AVIF", (b"avif", b"avis")),
    ("a HEIC", (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")),
)
"""Brands of ISO base media files (ISO/IEC 23008-12, annex B): the first kind that one of them names, since AVIF files
name the general ones of HEIF too."""


def is_photo(name: str) -> bool:
    """True if a file of that name is a photo: one of `SUFFIXES`, and not macOS' `._` companion of one."""
    path = PurePath(name)
    return path.suffix.lower() in SUFFIXES and not path.name.startswith(_APPLE_DOUBLE)


def photo_files(folder: Path) -> list[Path]:
    """The photos of a folder, sorted by name."""
    return sorted(path for path in folder.iterdir() if is_photo(path.name))


def foreign_format(data: bytes) -> str | None:
    """The format of a file that is none of `FORMATS`, with its article: "a HEIC"; None if its first bytes say none."""
    if data[4:8] == b"ftyp":
        box = data[8 : max(12, min(int.from_bytes(data[:4], "big"), 256))]
        brands = {box[i : i + 4] for i in range(0, len(box), 4)}
        return next((kind for kind, own in _BRANDS if not brands.isdisjoint(own)), None)
    return next((kind for magic, kind in _MAGIC if data.startswith(magic)), None)


def without_text(data: bytes) -> bytes:
    """A PNG without its text, but for that which may hold an orientation; any other data as they are.

    Pillow reads all text, and refuses a sound file that has much of it (`PngImagePlugin.MAX_TEXT_CHUNK`), such as what
    image generators write.
    """
    if not data.startswith(_PNG):
        return data
    chunks: list[memoryview] = []
    view, start, at = memoryview(data), 0, len(_PNG)
    # A chunk is its length, its type, its body and a checksum, each but the body of four bytes.
    while at + 12 <= len(data):
        end = at + 12 + int.from_bytes(view[at : at + 4], "big")
        if end > len(data):
            break
        kind = bytes(view[at + 4 : at + 8])
        if kind in _TEXT and not _turning(kind, view[at + 8 : end - 4]):
            chunks.append(view[start:at])
            start = end
        at = end
    return b"".join((*chunks, view[start:])) if chunks else data


def _turning(kind: bytes, body: memoryview) -> bool:
    """True if a text chunk may hold an orientation and is small enough for Pillow."""
    keyword, _, rest = bytes(body[: PngImagePlugin.MAX_TEXT_CHUNK]).partition(b"\0")
    if keyword not in _TURNING or len(body) > PngImagePlugin.MAX_TEXT_CHUNK:
        return False
    if kind == b"zTXt":
        return _unpacks(rest[1:])
    # iTXt: whether it is compressed, how, a language, the keyword in that language, the text.
    return kind == b"tEXt" or rest[:1] != b"\1" or _unpacks(rest[2:].split(b"\0", 2)[-1])


def _unpacks(packed: bytes) -> bool:
    unpacker = zlib.decompressobj()
    try:
        unpacker.decompress(packed, PngImagePlugin.MAX_TEXT_CHUNK)
    except zlib.error:
        return False
    return not unpacker.unconsumed_tail
