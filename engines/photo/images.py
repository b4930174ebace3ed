"""Reading and writing photos: every way a file can be wrong is one clear line."""

from __future__ import annotations

import io
import os
import struct
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageCms, ImageOps, PngImagePlugin

from engines import store
from engines.errors import ImageError, ImageTooLargeError, OutputError
from engines.photo.sources import FORMATS, SUFFIXES, foreign_format, without_text


class Stream(Protocol):
    """A file that is open in binary mode, or what reads like one."""

    def read(self) -> bytes: ...


Pixels: TypeAlias = NDArray[np.uint8]
Source: TypeAlias = "str | os.PathLike[str] | bytes | Stream | Image.Image | Pixels"
"""A photo: a path, the bytes of an image file, a file object, a Pillow image, or a uint8 H x W x 3 RGB array."""

MAX_MEGAPIXELS = 64
MIN_SIDE = 16
"""Shorter side of the smallest photo accepted, in pixels."""

_DECODE_ERRORS = (OSError, SyntaxError, ValueError, EOFError, IndexError, KeyError, struct.error)
# Filters of the warnings module are per process: two threads that open photos must not restore each other's.
_warnings_lock = threading.Lock()


@dataclass(frozen=True, eq=False)
class Photo:
    """A decoded photo: upright, in sRGB."""

    pixels: Pixels
    """uint8 H x W x 3, RGB, EXIF orientation applied."""
    alpha: Pixels | None = None
    """uint8 H x W opacity where the source had one; pixels are not premultiplied."""
    icc_profile: bytes | None = None
    """The profile embedded in the source; the pixels have already been converted from it to sRGB."""
    format: str = "array"
    """"PNG", "JPEG", "WEBP", or "array" for a source that was never a file."""
    sha256: str | None = None
    """Digest of the file's bytes, hexadecimal; None for a source that was never a file."""


def open_image(source: Source, *, max_megapixels: float = MAX_MEGAPIXELS) -> Photo:
    """Decode a photo.

    Files and bytes may be PNG, JPEG or WebP. The size is checked from the header, before anything is decoded. Grey,
    palette, CMYK and 16-bit images become 8-bit RGB (16 bits are scaled, not clipped); an embedded ICC profile is
    honoured. Text in a PNG is not used.

    Args:
        source: a photo; an array is copied, and a file object read from its start, where it can be rewound, and left
            open.
        max_megapixels: the largest photo accepted; a limit over `MAX_MEGAPIXELS` is that one.

    Raises:
        ImageError: if the source cannot be read, is not such an image, is animated, has a side below `MIN_SIDE`
            pixels or more than `max_megapixels` megapixels.
    """
    limit = min(max_megapixels, MAX_MEGAPIXELS)
    if isinstance(source, np.ndarray):
        return Photo(_check_array(source, "the array", limit).copy())
    if isinstance(source, Image.Image):
        return _decode(source, "the image", limit)
    if isinstance(source, bytes | bytearray | memoryview):
        return _read(bytes(source), "the image data", limit)
    if not isinstance(source, str | os.PathLike):
        return _read(_drained(source), photo_name(source), limit)
    path = Path(source)
    if path.is_dir():
        raise ImageError(f"{path} is a directory, not an image; name one file")
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise ImageError(f"{path} does not exist") from None
    except (OSError, ValueError) as error:
        raise ImageError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}") from error
    return _read(data, str(path), limit)


def photo_name(source: Source) -> str:
    """The name of a photo in messages: its path, if it has one."""
    name = getattr(source, "name", None) if hasattr(source, "read") else source
    return str(name) if isinstance(name, str | os.PathLike) else "the photo"


def _drained(stream: Stream) -> bytes:
    """All bytes of a file object.

    Raises:
        ImageError: if it is no file object, is not open for reading bytes, or cannot be read.
    """
    name = photo_name(stream)
    if not callable(getattr(stream, "read", None)):
        raise ImageError(f"a photo is a path, bytes, a file object, an image or an array, not {type(stream).__name__}")
    if isinstance(stream, io.TextIOBase):
        raise ImageError(f"{name} is open as text; open it with mode 'rb'")
    try:
        if isinstance(stream, io.IOBase) and stream.seekable():
            stream.seek(0)
        data = stream.read()
    except io.UnsupportedOperation:
        raise ImageError(f"{name} is not open for reading; open it with mode 'rb'") from None
    except (OSError, ValueError) as error:
        raise ImageError(f"{name} cannot be read: {_one_line(error)}") from error
    if not isinstance(data, bytes | bytearray | memoryview):
        raise ImageError(f"{name} gives {type(data).__name__} when it is read, not bytes")
    return bytes(data)


def claimed_pixels(data: bytes) -> int:
    """The number of pixels that the header of an image file claims; 0 if it has none that can be read."""
    try:
        with _quiet(), Image.open(io.BytesIO(without_text(data)), formats=FORMATS) as image:
            return image.width * image.height
    except (*_DECODE_ERRORS, Image.DecompressionBombError):
        return 0


def check_size(width: int, height: int, name: str, limit: float = MAX_MEGAPIXELS) -> None:
    """Refuse sizes outside the limits.

    Raises:
        ImageError: with the size and the limit; an ImageTooLargeError above it.
    """
    if width * height > limit * 1_000_000:
        raise ImageTooLargeError(
            f"{name} is {width}x{height}, {width * height / 1e6:.0f} megapixels; the limit is {limit:g}, "
            "so scale it down first"
        )
    if min(width, height) < MIN_SIDE:
        raise ImageError(f"{name} is {width}x{height}; the shorter side must be at least {MIN_SIDE} pixels")


def _check_array(array: Any, name: str, limit: float = MAX_MEGAPIXELS) -> Pixels:
    if not isinstance(array, np.ndarray) or array.dtype != np.uint8 or array.ndim != 3 or array.shape[2] != 3:
        actual = f"{array.dtype} {'x'.join(map(str, array.shape))}" if isinstance(array, np.ndarray) else type(array)
        raise ImageError(f"{name} must be uint8 of shape height x width x 3 (RGB), got {actual}")
    check_size(array.shape[1], array.shape[0], name, limit)
    return array


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence Pillow's warnings about sizes (checked here, with an error) and damaged metadata (not used)."""
    with _warnings_lock, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _read(data: bytes, name: str, limit: float) -> Photo:
    if not data:
        raise ImageError(f"{name} is empty")
    try:
        with _quiet():
            image = Image.open(io.BytesIO(without_text(data)), formats=FORMATS)
    except Image.DecompressionBombError as error:
        raise ImageTooLargeError(f"{name} is over {limit:g} megapixels; scale it down first") from error
    except Image.UnidentifiedImageError:
        kind = foreign_format(data)
        instead = f" but {kind} file; convert it to one of those" if kind else ""
        raise ImageError(f"{name} is not a PNG, JPEG or WebP image{instead}") from None
    except _DECODE_ERRORS as error:
        raise ImageError(f"{name} is damaged or truncated: {_one_line(error)}") from error
    with image:
        return replace(_decode(image, name, limit), sha256=store.Digest.of(data).sha256)


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _decode(image: Image.Image, name: str, limit: float) -> Photo:
    check_size(*image.size, name, limit)
    # A JPEG with several frames (MPO: depth maps, previews) is a photo whose first frame counts.
    if image.format != "MPO" and getattr(image, "n_frames", 1) > 1:
        raise ImageError(f"{name} is animated; extract one frame and pass that")
    try:
        image.load()
        orientation = _orientation(image)
        profile = image.info.get("icc_profile") or None
        rgb, alpha = _to_rgb(image, profile, name)
    except Image.DecompressionBombError as error:
        raise ImageTooLargeError(f"{name} is over {limit:g} megapixels; scale it down first") from error
    except _DECODE_ERRORS as error:
        raise ImageError(f"{name} is damaged or truncated: {_one_line(error)}") from error
    file_format = {"MPO": "JPEG", None: "array"}.get(image.format, image.format)
    return Photo(
        pixels=_upright(rgb, orientation),
        alpha=None if alpha is None else _upright(alpha, orientation),
        icc_profile=profile,
        format=str(file_format),
    )


def _orientation(image: Image.Image) -> Any:
    """The value of the EXIF orientation; damaged metadata counts as upright."""
    try:
        with _quiet():
            return image.getexif().get(ExifTags.Base.Orientation, 1)
    except (*_DECODE_ERRORS, TypeError):
        return 1


def _upright(image: Image.Image, orientation: Any) -> Pixels:
    # Of all metadata the orientation alone: Pillow writes what it turns anew, and fails at other tags that are damaged.
    image.info = {}
    image.getexif()[ExifTags.Base.Orientation] = orientation
    return np.array(ImageOps.exif_transpose(image))


def _to_rgb(image: Image.Image, profile: bytes | None, name: str) -> tuple[Image.Image, Image.Image | None]:
    """8-bit sRGB and, where there is one, 8-bit opacity."""
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PNG"):
        scaled = (np.asarray(image).astype(np.float32) * (255 / 65535) + 0.5).clip(0, 255).astype(np.uint8)
        image = Image.fromarray(scaled)
    if image.mode in ("I", "F"):
        raise ImageError(f"{name} has {image.mode} pixels of no known range; pass 8-bit RGB")
    alpha = None
    if image.has_transparency_data:
        alpha = image.convert("RGBA").getchannel("A")
    # A palette, premultiplied or padded image has an RGB profile; L and CMYK are what their profile is for.
    base = {"1": "L", "LA": "L", "La": "L"}.get(image.mode, image.mode)
    base = base if base in ("L", "CMYK") else "RGB"
    if image.mode in ("La", "RGBa"):
        image = image.convert({"La": "LA", "RGBa": "RGBA"}[image.mode])
    if image.mode != base:
        image = image.convert(base)
    if profile:
        # A profile that is broken or of another colour space says nothing: take the pixels as they are.
        with suppress(ImageCms.PyCMSError, OSError, ValueError):
            converted = ImageCms.profileToProfile(
                image,
                ImageCms.ImageCmsProfile(io.BytesIO(profile)),
                ImageCms.createProfile("sRGB"),
                renderingIntent=ImageCms.Intent.RELATIVE_COLORIMETRIC,
                outputMode="RGB",
                flags=ImageCms.Flags.BLACKPOINTCOMPENSATION,
            )
            if converted is not None:
                return converted, alpha
    return image.convert("RGB"), alpha


def save_image(path: str | os.PathLike[str], pixels: Pixels, *, quality: int = 95, alpha: Pixels | None = None) -> Path:
    """Write sRGB pixels as PNG, JPEG or WebP, by the path's suffix; see `encode_image`.

    The file appears whole or not at all: it is written under a temporary name in the same folder and then renamed.

    Args:
        pixels: uint8 H x W x 3, RGB.
        quality: 1 to 100, for JPEG (without chroma subsampling) and WebP.
        alpha: uint8 H x W opacity, kept in PNG and WebP; JPEG has none, so there the photo is laid on white.

    Returns:
        The path.

    Raises:
        ImageError: if the arrays are not of those shapes.
        OutputError: for another suffix or quality, or if the file cannot be written.
    """
    return write_picture(path, lambda kind: encode_image(pixels, kind, quality=quality, alpha=alpha))


def write_picture(path: str | os.PathLike[str], encode: Callable[[str], bytes]) -> Path:
    """Writes a picture whole or not at all.

    Args:
        encode: gives the bytes for one of `FORMATS`, that of the path's suffix.

    Raises:
        OutputError: for another suffix, if the file cannot be written, or if `encode` raises one.
    """
    path = Path(path)
    file_format = SUFFIXES.get(path.suffix.lower())
    if file_format is None:
        raise OutputError(f"cannot write {path}: its name must end in {', '.join(SUFFIXES)}")
    try:
        encoded = encode(file_format)
    except OutputError as error:
        raise OutputError(f"cannot write {path}: {error}") from error
    if path.is_dir():
        raise OutputError(f"cannot write {path}: it is a directory")
    store.write(path, encoded)
    return path


def encode_image(
    pixels: Pixels, file_format: str, *, quality: int = 95, alpha: Pixels | None = None, xmp: bytes | None = None
) -> bytes:
    """The bytes of a file of sRGB pixels.

    EXIF of the source photo is dropped on purpose: it holds places, times and serial numbers of cameras, and often a
    thumbnail of the unedited face. No colour profile is written; pixels without one are sRGB.

    Args:
        file_format: one of `FORMATS`; the other arguments are those of `save_image`.
        xmp: an XMP packet, UTF-8, to write into the file.

    Raises:
        ImageError: if the arrays are not of those shapes.
        OutputError: for another format or quality, or a size that the format does not hold.
    """
    if file_format not in FORMATS:
        raise OutputError(f"the format must be one of {', '.join(FORMATS)}, got {file_format!r}")
    if not 1 <= quality <= 100:
        raise OutputError(f"quality must be 1 to 100, got {quality}")
    image = Image.fromarray(np.ascontiguousarray(_check_array(pixels, "the pixels to write")))
    if alpha is not None:
        if alpha.dtype != np.uint8 or alpha.shape != pixels.shape[:2]:
            raise ImageError(f"alpha must be uint8 of shape {pixels.shape[:2]}, got {alpha.dtype} {alpha.shape}")
        opacity = Image.fromarray(np.ascontiguousarray(alpha))
        if file_format == "JPEG":
            image = Image.composite(image, Image.new("RGB", image.size, "white"), opacity)
        else:
            image.putalpha(opacity)
    options: dict[str, Any] = {
        "JPEG": {"quality": int(quality), "subsampling": 0},
        "WEBP": {"quality": int(quality)},
        # A warm edit would wait twice as long for zlib's default, which saves a twentieth of the file.
        "PNG": {"compress_level": 3},
    }.get(file_format, {})
    if xmp is not None and file_format == "PNG":
        options["pnginfo"] = PngImagePlugin.PngInfo()
        options["pnginfo"].add_itxt("XML:com.adobe.xmp", xmp.decode())
    elif xmp is not None:
        options["xmp"] = xmp
    encoded = io.BytesIO()
    try:
        image.save(encoded, file_format, **options)
    except (OSError, ValueError) as error:
        raise OutputError(f"the pixels cannot be written as {file_format}: {_one_line(error)}") from error
    return encoded.getvalue()
