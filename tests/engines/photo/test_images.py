from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms

from engines.errors import ImageError, ImageTooLargeError
from engines.photo import MAX_MEGAPIXELS, Photo, open_image, photo_name
from engines.photo.images import claimed_pixels


def gradient(width: int = 40, height: int = 24) -> np.ndarray:
    y, x = np.mgrid[:height, :width]
    return np.stack([x * 6, y * 10, 255 - x * 3 - y * 2], axis=2).astype(np.uint8)


def encoded(image: Image.Image, file_format: str, **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, file_format, **options)
    return stream.getvalue()


def png_chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png_of_claimed_size(width: int, height: int) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = png_chunk(b"IDAT", zlib.compress(b"\0" * 100))
    return b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", header) + body + png_chunk(b"IEND", b"")


def cmyk_profile() -> bytes:
    """A printer profile under which every ink is grey: L* = 100 (1 - max(C, M, Y, K))."""
    table = b"mft1\0\0\0\0" + bytes([4, 3, 2, 0]) + struct.pack(">9i", *(0x10000 * (i % 4 == 0) for i in range(9)))
    table += bytes(range(256)) * 4
    for node in range(16):
        table += bytes([255 if node == 0 else 0, 128, 128])
    table += bytes(range(256)) * 3
    tags = struct.pack(">I4sII", 1, b"A2B0", 144, len(table))
    header = struct.pack(">I4sI4s4s4s", 144 + len(table), b"\0" * 4, 0x02400000, b"prtr", b"CMYK", b"Lab ")
    header += struct.pack(">6H4s", 2026, 1, 1, 0, 0, 0, b"acsp") + b"\0" * 28
    header += struct.pack(">3i", 0xF6D6, 0x10000, 0xD32D)
    return header.ljust(128, b"\0") + tags + table


def swapped_srgb_profile() -> bytes:
    """sRGB with the red and the blue primary exchanged, so that a conversion is easy to see."""
    data = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    return data.replace(b"rXYZ", b"tmp ").replace(b"bXYZ", b"rXYZ").replace(b"tmp ", b"bXYZ")


@pytest.mark.parametrize(("file_format", "tolerance"), [("PNG", 0), ("JPEG", 12), ("WEBP", 0)])
def test_opens_every_format_from_path_and_bytes(tmp_path: Path, file_format: str, tolerance: int) -> None:
    options = {"WEBP": {"lossless": True}, "JPEG": {"quality": 95, "subsampling": 0}}.get(file_format, {})
    data = encoded(Image.fromarray(gradient()), file_format, **options)
    path = tmp_path / "photo.of.no.suffix"
    path.write_bytes(data)
    for photo in (open_image(path), open_image(str(path)), open_image(data)):
        assert photo.format == file_format
        assert photo.pixels.dtype == np.uint8 and photo.pixels.shape == (24, 40, 3)
        assert photo.alpha is None and photo.icc_profile is None
        assert np.abs(photo.pixels.astype(int) - gradient()).max() <= tolerance


def test_array_is_copied_and_pillow_image_accepted() -> None:
    array = gradient()
    photo = open_image(array)
    array[:] = 0
    assert (photo.pixels == gradient()).all() and photo.format == "array"
    photo = open_image(Image.fromarray(gradient()))
    assert (photo.pixels == gradient()).all() and photo.format == "array"
    photo.pixels[0] = 0  # writable


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("file_format", ["PNG", "JPEG", "WEBP"])
def test_exif_orientation(orientation: int, file_format: str) -> None:
    # Quadrants red, green / blue, white, stored as a camera with that orientation would.
    upright = np.zeros((32, 48, 3), np.uint8)
    upright[:16, :24], upright[:16, 24:], upright[16:, :24], upright[16:, 24:] = (
        (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)
    )  # fmt: skip
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: np.rot90(upright, 2),
        4: upright[::-1],
        5: upright.swapaxes(0, 1),
        6: np.rot90(upright),  # shown after a quarter turn clockwise
        7: np.rot90(upright, 2).swapaxes(0, 1),
        8: np.rot90(upright, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    photo = open_image(encoded(Image.fromarray(np.ascontiguousarray(stored)), file_format, exif=exif, quality=95))
    assert photo.pixels.shape == upright.shape
    for row, column in ((8, 12), (8, 36), (24, 12), (24, 36)):
        assert np.abs(photo.pixels[row, column].astype(int) - upright[row, column]).max() <= 8


def test_damaged_exif_counts_as_upright(recwarn: pytest.WarningsRecorder) -> None:
    data = encoded(Image.fromarray(gradient()), "JPEG", exif=b"Exif\0\0MM\0*\xff\xff\xff\xff garbage")
    assert open_image(data).pixels.shape == (24, 40, 3)
    assert not recwarn.list


def test_orientation_is_read_beside_damaged_exif() -> None:
    # Orientation 6, and a resolution that is negative, which no writer of EXIF takes.
    entries = (0x0112, 3, 1, 6 << 16), (0x011A, 10, 1, 38)
    tags = b"".join(struct.pack(">HHII", *entry) for entry in entries)
    exif = b"Exif\0\0MM\0*" + struct.pack(">IH", 8, 2) + tags + struct.pack(">Iii", 0, -5, 1)
    assert open_image(encoded(Image.fromarray(gradient()), "JPEG", exif=exif)).pixels.shape == (40, 24, 3)


def test_alpha_follows_orientation() -> None:
    rgba = np.dstack([gradient(), np.arange(24 * 40, dtype=np.uint32).reshape(24, 40) % 251]).astype(np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 6
    photo = open_image(encoded(Image.fromarray(rgba), "PNG", exif=exif))
    assert photo.alpha is not None
    assert (photo.alpha == np.rot90(rgba[:, :, 3], -1)).all()
    assert (photo.pixels == np.rot90(rgba[:, :, :3], -1)).all()


def test_grey_and_grey_with_alpha() -> None:
    grey = gradient()[:, :, 0]
    assert (open_image(encoded(Image.fromarray(grey), "PNG")).pixels == grey[:, :, None]).all()
    photo = open_image(encoded(Image.fromarray(np.dstack([grey, 255 - grey])), "PNG"))
    assert (photo.pixels == grey[:, :, None]).all()
    assert photo.alpha is not None and (photo.alpha == 255 - grey).all()
    black_and_white = Image.fromarray(grey > 100)
    assert set(np.unique(open_image(encoded(black_and_white, "PNG")).pixels)) == {0, 255}


def test_palette_with_transparency() -> None:
    image = Image.new("P", (32, 20), 1)
    image.putpalette([10, 20, 30, 200, 100, 50])
    image.paste(0, (0, 0, 16, 20))
    photo = open_image(encoded(image, "PNG", transparency=0))
    assert (photo.pixels[5, 20] == (200, 100, 50)).all() and (photo.pixels[5, 5] == (10, 20, 30)).all()
    assert photo.alpha is not None and photo.alpha[5, 5] == 0 and photo.alpha[5, 20] == 255
    assert open_image(encoded(image, "PNG")).alpha is None


def test_sixteen_bit_is_scaled_not_clipped() -> None:
    values = np.linspace(0, 65535, 32 * 32).astype(np.uint16).reshape(32, 32)
    photo = open_image(encoded(Image.fromarray(values), "PNG"))
    assert (photo.pixels == np.rint(values / 257.0).astype(np.uint8)[:, :, None]).all()


def test_cmyk_without_profile_is_naive() -> None:
    image = Image.new("CMYK", (32, 32), (255, 0, 0, 0))
    assert np.abs(open_image(encoded(image, "JPEG")).pixels[16, 16].astype(int) - (0, 255, 255)).max() <= 3


def test_cmyk_with_profile_goes_through_it() -> None:
    image = Image.new("CMYK", (32, 32), (255, 0, 0, 0))
    photo = open_image(encoded(image, "JPEG", icc_profile=cmyk_profile()))
    assert photo.pixels.max() <= 6  # black under this profile, cyan without it
    white = open_image(encoded(Image.new("CMYK", (32, 32)), "JPEG", icc_profile=cmyk_profile()))
    assert white.pixels.min() >= 250


def test_rgb_profile_is_converted_to_srgb() -> None:
    profile = swapped_srgb_profile()
    rgba = Image.new("RGBA", (32, 32), (255, 0, 0, 77))
    photo = open_image(encoded(rgba, "PNG", icc_profile=profile))
    assert np.abs(photo.pixels[0, 0].astype(int) - (0, 0, 255)).max() <= 2
    assert photo.alpha is not None and (photo.alpha == 77).all()
    assert photo.icc_profile == profile


def test_srgb_profile_changes_nothing_visible() -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    photo = open_image(encoded(Image.fromarray(gradient()), "PNG", icc_profile=profile))
    assert np.abs(photo.pixels.astype(int) - gradient()).max() <= 1


@pytest.mark.parametrize("profile", [b"not a profile", cmyk_profile()], ids=["broken", "other colour space"])
def test_useless_profile_is_ignored(profile: bytes) -> None:
    photo = open_image(encoded(Image.fromarray(gradient()), "PNG", icc_profile=profile))
    assert (photo.pixels == gradient()).all()


def test_first_frame_of_a_multi_picture_jpeg_is_the_photo() -> None:
    first, second = Image.new("RGB", (32, 32), "red"), Image.new("RGB", (32, 32), "blue")
    photo = open_image(encoded(first, "MPO", save_all=True, append_images=[second]))
    assert photo.format == "JPEG" and photo.pixels[16, 16, 0] > 240 and photo.pixels[16, 16, 2] < 20


@pytest.mark.parametrize("file_format", ["PNG", "WEBP"])
def test_animation_is_refused(file_format: str) -> None:
    frames = [Image.new("RGB", (32, 32), colour) for colour in ("red", "blue")]
    data = encoded(frames[0], file_format, save_all=True, append_images=frames[1:])
    with pytest.raises(ImageError, match="animated; extract one frame"):
        open_image(data)


@pytest.mark.parametrize("file_format", ["PNG", "JPEG", "WEBP"])
@pytest.mark.parametrize("fraction", [0.1, 0.5, 0.9])
def test_truncated_file(file_format: str, fraction: float) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    data = encoded(Image.fromarray(noise), file_format)
    with pytest.raises(ImageError, match=r"damaged or truncated|not a PNG") as caught:
        open_image(data[: int(len(data) * fraction)])
    assert "\n" not in str(caught.value)


def test_damaged_bytes_never_raise_anything_else() -> None:
    rng = np.random.default_rng(1)
    for file_format in ("PNG", "JPEG", "WEBP"):
        data = encoded(Image.fromarray(gradient()), file_format)
        for _ in range(60):
            broken = bytearray(data)
            for position in rng.integers(0, len(data), 6):
                broken[position] = rng.integers(256)
            try:
                photo = open_image(bytes(broken))
            except ImageError as error:
                assert "\n" not in str(error)
            else:
                assert isinstance(photo, Photo)


@pytest.mark.parametrize(
    ("size", "message"),
    [
        ((30_000, 30_000), "megapixels"),
        ((10_000, 10_000), "10000x10000, 100 megapixels; the limit is 64"),
        ((8_001, 8_000), "limit is 64"),
        ((1, 1), "1x1; the shorter side must be at least 16"),
        ((500, 15), "500x15; the shorter side"),
    ],
)
def test_size_is_checked_before_decoding(
    size: tuple[int, int], message: str, monkeypatch: pytest.MonkeyPatch, recwarn: pytest.WarningsRecorder
) -> None:
    decoded: list[object] = []
    monkeypatch.setattr(Image.Image, "load", lambda image: decoded.append(image))
    with pytest.raises(ImageError, match=message):
        open_image(png_of_claimed_size(*size))
    assert not decoded and not recwarn.list


def test_size_limits_hold_for_every_kind_of_source() -> None:
    with pytest.raises(ImageError, match="shorter side"):
        open_image(np.zeros((15, 40, 3), np.uint8))
    with pytest.raises(ImageError, match="shorter side"):
        open_image(Image.new("RGB", (1, 1)))
    with pytest.raises(ImageError, match=f"limit is {MAX_MEGAPIXELS}"):
        open_image(np.broadcast_to(np.zeros(3, np.uint8), (8001, 8000, 3)))
    assert open_image(np.zeros((16, 16, 3), np.uint8)).pixels.shape == (16, 16, 3)


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((32, 32, 3), np.float32),
        np.zeros((32, 32), np.uint8),
        np.zeros((32, 32, 4), np.uint8),
        np.zeros((1, 3, 32, 32), np.uint8),
        np.zeros((0, 0, 3), np.uint8),
    ],
)
def test_wrong_arrays(array: np.ndarray) -> None:
    with pytest.raises(ImageError):
        open_image(array)


def test_float_pillow_image_is_refused() -> None:
    with pytest.raises(ImageError, match="no known range"):
        open_image(Image.fromarray(np.ones((32, 32), np.float32)))


def test_wrong_paths(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="does not exist"):
        open_image(tmp_path / "missing.png")
    with pytest.raises(ImageError, match="is a directory"):
        open_image(tmp_path)
    (tmp_path / "empty.jpg").touch()
    with pytest.raises(ImageError, match=r"empty\.jpg is empty"):
        open_image(tmp_path / "empty.jpg")
    (tmp_path / "text.jpg").write_text("this is not an image")
    with pytest.raises(ImageError, match="not a PNG, JPEG or WebP"):
        open_image(tmp_path / "text.jpg")
    with pytest.raises(ImageError, match="cannot be read"):
        open_image("a\0b.png")
    with pytest.raises(ImageError, match=r"cannot be read|does not exist"):
        open_image(tmp_path / "text.jpg" / "below.png")
    with pytest.raises(ImageError, match="is empty"):
        open_image(b"")


def test_a_caller_may_take_less() -> None:
    stream = io.BytesIO()
    Image.new("RGB", (1000, 501)).save(stream, "PNG")
    for source in (stream.getvalue(), np.zeros((501, 1000, 3), np.uint8)):
        with pytest.raises(ImageTooLargeError, match=r"1000x501, 1 megapixels; the limit is 0\.5"):
            open_image(source, max_megapixels=0.5)
        assert open_image(source, max_megapixels=0.501).pixels.shape == (501, 1000, 3)


def test_photos_are_called_by_their_path_if_they_have_one(tmp_path: Path) -> None:
    assert photo_name(Path("a/b.png")) == str(Path("a/b.png")) and photo_name("c.png") == "c.png"
    assert photo_name(b"\x89PNG") == photo_name(gradient()) == photo_name(io.BytesIO(b"")) == "the photo"
    with (tmp_path / "d.png").open("wb") as opened:
        assert photo_name(opened) == str(tmp_path / "d.png")  # type: ignore[arg-type]


def test_the_pixels_that_a_header_claims() -> None:
    for file_format in ("PNG", "JPEG", "WEBP"):
        assert claimed_pixels(encoded(Image.fromarray(gradient()), file_format)) == 40 * 24
    assert claimed_pixels(png_of_claimed_size(9000, 9000)) == 81_000_000
    assert (
        claimed_pixels(b"no image") == claimed_pixels(b"") == claimed_pixels(png_of_claimed_size(60_000, 60_000)) == 0
    )
