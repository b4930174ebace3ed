from __future__ import annotations

import io
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from engines.errors import ImageError, OutputError
from engines.photo import open_image, save_image
from engines.photo.images import encode_image


def gradient(width: int = 40, height: int = 24) -> np.ndarray:
    y, x = np.mgrid[:height, :width]
    return np.stack([x * 6, y * 10, 255 - x * 3 - y * 2], axis=2).astype(np.uint8)


@pytest.mark.parametrize("suffix", ["png", "jpg", "jpeg", "webp", "PNG"])
def test_save_and_open_again(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"out.{suffix}"
    path.write_text("an older file is replaced")
    assert save_image(path, gradient(), quality=np.int64(95)) == path
    photo = open_image(path)
    assert np.abs(photo.pixels.astype(int) - gradient()).max() <= (0 if suffix.lower() == "png" else 14)
    assert os.listdir(tmp_path) == [path.name]


def test_alpha_is_written_back(tmp_path: Path) -> None:
    alpha = gradient()[:, :, 1]
    for name in ("a.png", "a.webp"):
        photo = open_image(save_image(tmp_path / name, gradient(), alpha=alpha))
        assert photo.alpha is not None and (photo.alpha == alpha).all()
    flat = open_image(
        save_image(tmp_path / "a.jpg", np.zeros((32, 32, 3), np.uint8), alpha=np.zeros((32, 32), np.uint8))
    )
    assert flat.alpha is None and flat.pixels.min() >= 254


def test_no_metadata_is_written(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x010F] = "camera"
    stream = io.BytesIO()
    Image.fromarray(gradient()).save(stream, "JPEG", exif=exif)
    photo = open_image(stream.getvalue())
    for name in ("b.jpg", "b.png", "b.webp"):
        with Image.open(save_image(tmp_path / name, photo.pixels)) as written:
            assert not written.getexif() and "icc_profile" not in written.info


def test_quality_matters(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    for name in ("q.jpg", "q.webp"):
        low = save_image(tmp_path / name, noise, quality=20).stat().st_size
        assert low < save_image(tmp_path / name, noise, quality=95).stat().st_size


def test_unwritable_outputs_leave_nothing_behind(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"must end in \.png, \.jpg, \.jpeg, \.webp"):
        save_image(tmp_path / "out.gif", gradient())
    with pytest.raises(OutputError, match=r"must end in"):
        save_image(tmp_path / "out", gradient())
    with pytest.raises(OutputError, match="cannot write") as caught:
        save_image(tmp_path / "missing" / "out.png", gradient())
    assert "\n" not in str(caught.value)
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(OutputError, match="directory"):
        save_image(tmp_path / "folder.png", gradient())
    with pytest.raises(OutputError, match="quality"):
        save_image(tmp_path / "out.jpg", gradient(), quality=0)
    with pytest.raises(OutputError, match=r"cannot write .* as WEBP"):
        save_image(tmp_path / "wide.webp", np.zeros((16, 16_400, 3), np.uint8))
    assert os.listdir(tmp_path) == ["folder.png"]


def test_wrong_pixels_are_not_written(tmp_path: Path) -> None:
    with pytest.raises(ImageError):
        save_image(tmp_path / "out.png", np.zeros((32, 32, 3), np.float32))
    with pytest.raises(ImageError, match="alpha"):
        save_image(tmp_path / "out.png", gradient(), alpha=np.zeros((3, 3), np.uint8))
    assert not os.listdir(tmp_path)


def test_bytes_are_those_of_the_file(tmp_path: Path) -> None:
    for suffix, kind in (("png", "PNG"), ("jpg", "JPEG"), ("webp", "WEBP")):
        path = save_image(tmp_path / f"out.{suffix}", gradient(), quality=70)
        assert encode_image(gradient(), kind, quality=70) == path.read_bytes()
    with pytest.raises(OutputError, match="GIF"):
        encode_image(gradient(), "GIF")
