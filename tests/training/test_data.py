from __future__ import annotations

import io
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, PngImagePlugin

from engines.errors import OutputError
from engines.family import CARS_512, DEMO_64, FACES_1024
from training import data
from training.data import Batches, FaceSet, as_photos, at_once, encoder_input, even_shares, load_faces


def _tar(folder: Path, path: Path) -> Path:
    with tarfile.open(path, "w") as archive:
        for file in sorted(folder.iterdir(), reverse=True):
            archive.add(file, f"set/{file.name}")
    return path


def test_held_out_are_the_last_by_name(photo_folder):
    training, held_out = load_faces(photo_folder, 32, held_out=4)
    assert [Path(n).stem for n in training.names] == [f"{i:03d}" for i in range(11)]
    assert [Path(n).stem for n in held_out.names] == ["011", "012", "013", "014"]
    assert training.images.shape == (11, 32, 32, 3) and training.images.dtype == np.uint8
    assert len(held_out) == 4
    with Image.open(photo_folder / "013.png") as image:
        expected = np.asarray(image.resize((32, 32), Image.Resampling.LANCZOS))
    np.testing.assert_array_equal(held_out.images[2], expected)


def test_tar_and_folder_agree(photo_folder, tmp_path):
    folder = load_faces(photo_folder, 16, held_out=3)
    archive = load_faces(_tar(photo_folder, tmp_path / "photos.tar"), 16, held_out=3)
    for one, other in zip(folder, archive, strict=True):
        assert one.names == other.names
        np.testing.assert_array_equal(one.images, other.images)


def test_only_the_last_by_name_are_read_where_few_are_wanted(photo_folder, tmp_path):
    archive = _tar(photo_folder, tmp_path / "photos.tar")
    whole = load_faces(archive, 16, held_out=3)
    training, held_out = load_faces(archive, 16, held_out=3, most=5)
    assert held_out.names == whole[1].names and training.names == whole[0].names[-2:]
    np.testing.assert_array_equal(held_out.images, whole[1].images)
    np.testing.assert_array_equal(training.images, whole[0].images[-2:])
    assert len(load_faces(archive, 16, held_out=3, most=99)[0]) == len(whole[0])


def test_what_macos_leaves_beside_photos_is_no_photo(photo_folder, tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    for name in ("001.png", "003.png", "005.png"):
        (folder / name).write_bytes((photo_folder / name).read_bytes())
        (folder / f"._{name}").write_bytes(b"\0\x05\x16\x07\0\x02\0\0Mac OS X        ")
    for source in (folder, _tar(folder, tmp_path / "photos.tar")):
        training, held_out = load_faces(source, 16, held_out=1)
        assert training.names + held_out.names == ("001.png", "003.png", "005.png")


def test_a_png_with_much_text_is_read(tmp_path):
    text = PngImagePlugin.PngInfo()
    text.add_text("parameters", "many words " * 200_000, zip=True)
    for name in ("a.png", "b.png"):
        Image.fromarray(np.full((16, 16, 3), 77, np.uint8)).save(tmp_path / name, pnginfo=text)
    training, held_out = load_faces(tmp_path, 16, held_out=1)
    assert len(training) == len(held_out) == 1 and (training.images == 77).all()


def test_equal_names_in_several_folders_of_a_tar(photo_folder, tmp_path):
    with tarfile.open(tmp_path / "twice.tar", "w") as archive:
        for part in "ab":
            archive.add(photo_folder / "001.png", f"{part}/001.png")
    training, held_out = load_faces(tmp_path / "twice.tar", 16, held_out=1)
    assert training.names == held_out.names == ("001.png",)


def test_grey_images_become_rgb(tmp_path):
    for index in range(2):
        Image.fromarray(np.full((8, 8), 40 * index, np.uint8)).save(tmp_path / f"{index}.png")
    assert load_faces(tmp_path, 16, held_out=1)[1].images.shape == (1, 16, 16, 3)


def test_cache_is_reused(photo_folder, tmp_path, monkeypatch):
    cache = tmp_path / "cache"
    first = load_faces(photo_folder, 16, held_out=3, cache=cache)
    assert sorted(path.suffix for path in cache.iterdir()) == [".json", ".npy"]

    def unread(source):
        raise AssertionError("the images were read again")

    monkeypatch.setattr(data, "_files", unread)
    # The split is made anew, so that another number of held-out images needs no other cache.
    second = load_faces(photo_folder, 16, held_out=5, cache=cache)
    assert first[0].names + first[1].names == second[0].names + second[1].names
    np.testing.assert_array_equal(np.concatenate([s.images for s in first]), np.concatenate([s.images for s in second]))
    with pytest.raises(AssertionError, match="read again"):
        load_faces(photo_folder, 32, held_out=3, cache=cache)


def test_the_cache_is_mapped_and_says_the_same(photo_folder, tmp_path):
    """70,000 photos of 256 pixels are 14 GB, which need not fit into memory."""
    for source in (photo_folder, _tar(photo_folder, tmp_path / "photos.tar")):
        for _ in range(2):
            cached = load_faces(source, (12, 16), held_out=3, cache=tmp_path / "cache")
            read = load_faces(source, (12, 16), held_out=3)
            for one, other in zip(cached, read, strict=True):
                assert isinstance(one.images, np.memmap) and not one.images.flags.writeable
                assert one.names == other.names
                np.testing.assert_array_equal(one.images, other.images)
                assert torch.equal(one.tensor(slice(0, 2)), other.tensor(np.array([0, 1])))
    assert not list((tmp_path / "cache").glob(".*"))


def test_a_cache_that_cannot_be_written(photo_folder, tmp_path):
    (tmp_path / "cache").write_text("a file")
    with pytest.raises(OutputError, match=r"cannot write .*faces-16x16-"):
        load_faces(photo_folder, 16, held_out=3, cache=tmp_path / "cache")


def test_a_damaged_image_leaves_no_cache(photo_folder, tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    (folder / "a.png").write_bytes((photo_folder / "001.png").read_bytes())
    (folder / "b.png").write_bytes(b"not an image")
    with pytest.raises(ValueError, match=r"b\.png cannot be read"):
        load_faces(folder, 16, held_out=1, cache=tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []


@pytest.mark.parametrize("shape", [(30, 40), (60, 40), (30, 80)])
def test_the_middle_is_taken_of_photos_of_another_shape(tmp_path, shape):
    """Of 4:3 photos everything, of others what is left of it without distortion."""
    y, x = np.mgrid[0 : shape[0], 0 : shape[1]]
    ramp = np.stack([x - shape[1] / 2, y - shape[0] / 2, 0 * x], axis=2) + 100
    for index in range(2):
        Image.fromarray(ramp.astype(np.uint8)).save(tmp_path / f"{index}.png")
    images = load_faces(tmp_path, (15, 20), held_out=1)[0].images
    assert images.shape == (1, 15, 20, 3)
    columns, rows = images[0, 7, :, 0].astype(float), images[0, :, 10, 1].astype(float)
    # The photo's 30 rows or 40 columns become half as many, in whatever photo they lie: two of its pixels in each step.
    np.testing.assert_allclose(columns[3:-3], 100 + 2 * np.arange(-10, 10)[3:-3] + 0.5, atol=1.01)
    np.testing.assert_allclose(rows[3:-3], 100 + 2 * np.arange(-7.5, 7.5)[3:-3] + 0.5, atol=1.01)


def test_rendered_pictures_become_photos():
    rendered = torch.randn(2, 3, 512, 512)
    photos = as_photos(rendered, CARS_512, (192, 256))
    assert photos.shape == (2, 3, 192, 256)
    kept = rendered[:, :, 64:448]
    torch.testing.assert_close(photos[:, :, 5, 9], kept[:, :, 10:12, 18:20].mean(dim=(2, 3)))
    assert torch.equal(as_photos(rendered, CARS_512, CARS_512.image_shape), kept)
    square = torch.randn(1, 3, 8, 8)
    assert as_photos(square, FACES_1024, (8, 8)) is square


def test_large_pictures_are_drawn_a_few_at_a_time():
    assert [at_once(family) for family in (FACES_1024, CARS_512, DEMO_64)] == [4, 16, 50]


def test_photos_become_the_encoders_input():
    assert encoder_input(torch.zeros(1, 3, 384, 512), CARS_512).shape == (1, 3, 192, 256)
    photos = torch.randn(1, 3, 192, 256)
    assert encoder_input(photos, CARS_512) is photos
    with pytest.raises(ValueError, match="take images of 192 x 256 pixels; 512 x 512 has another shape"):
        encoder_input(torch.zeros(1, 3, 512, 512), CARS_512)


def test_a_changed_folder_is_read_again(photo_folder, tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    for name in ("001.png", "003.png"):
        (folder / name).write_bytes((photo_folder / name).read_bytes())
    assert len(load_faces(folder, 16, held_out=1, cache=tmp_path / "cache")[0]) == 1
    (folder / "005.png").write_bytes((photo_folder / "005.png").read_bytes())
    assert len(load_faces(folder, 16, held_out=1, cache=tmp_path / "cache")[0]) == 2


def test_too_few_images(photo_folder):
    with pytest.raises(ValueError, match="has 15 images; more than the 15 to hold out are needed"):
        load_faces(photo_folder, 16, held_out=15)


def test_no_images(tmp_path):
    (tmp_path / "notes.txt").write_text("nothing")
    with pytest.raises(ValueError, match="no images in"):
        load_faces(tmp_path, 16, held_out=0)


def test_neither_folder_nor_tar(tmp_path):
    (tmp_path / "photos.zip").write_bytes(b"PK")
    with pytest.raises(ValueError, match="neither a folder nor a tar"):
        load_faces(tmp_path / "photos.zip", 16)


@pytest.mark.parametrize("content", [b"", b"not an image", "cut"])
def test_a_damaged_image_is_named(photo_folder, tmp_path, content):
    good = (photo_folder / "001.png").read_bytes()
    (tmp_path / "a.png").write_bytes(good)
    (tmp_path / "b.png").write_bytes(good[: len(good) // 2] if content == "cut" else content)
    with pytest.raises(ValueError, match=r"b\.png cannot be read as an image") as caught:
        load_faces(tmp_path, 16, held_out=1)
    assert "\n" not in str(caught.value)


def test_tensor_range_and_order():
    images = np.zeros((3, 2, 2, 3), np.uint8)
    images[1, 0, 1] = (255, 127, 0)
    faces = FaceSet(images, ("a", "b", "c"))
    batch = faces.tensor(np.array([1, 0]))
    assert batch.shape == (2, 3, 2, 2)
    np.testing.assert_allclose(batch[0, :, 0, 1], [1.0, 127 / 127.5 - 1, -1.0], atol=1e-6)
    assert (batch[1] == -1).all()
    np.testing.assert_array_equal(faces.tensor(slice(0, 2)), faces.tensor(np.array([0, 1])))


def test_jpeg_in_memory_and_webp(tmp_path):
    for index, kind in enumerate(("JPEG", "WEBP")):
        stream = io.BytesIO()
        Image.new("RGB", (20, 20), (10, 200, 30)).save(stream, kind)
        (tmp_path / f"{index}.{kind.lower()}").write_bytes(stream.getvalue())
    training, held_out = load_faces(tmp_path, 16, held_out=1)
    assert np.abs(training.images.astype(int) - (10, 200, 30)).max() <= 4
    assert np.abs(held_out.images.astype(int) - (10, 200, 30)).max() <= 8


@given(count=st.integers(1, 60), batch=st.integers(1, 60), seed=st.integers(0, 2**31), epoch=st.integers(0, 50))
def test_batches_show_every_index_once_per_epoch(count, batch, seed, epoch):
    batch = min(count, batch)
    batches = Batches(count, batch, seed)
    per_epoch = count // batch
    seen = np.concatenate([batches.indices(epoch * per_epoch + i) for i in range(per_epoch)])
    assert len(seen) == per_epoch * batch > count - batch
    assert len(np.unique(seen)) == len(seen)
    assert seen.min() >= 0 and seen.max() < count


@given(seed=st.integers(0, 2**31), steps=st.lists(st.integers(0, 500), min_size=1, max_size=12))
def test_batches_depend_on_the_step_alone(seed, steps):
    used = Batches(23, 5, seed)
    for step in steps:
        np.testing.assert_array_equal(used.indices(step), Batches(23, 5, seed).indices(step))


def test_batches_differ_by_epoch_and_seed():
    orders = {tuple(Batches(30, 30, seed).indices(epoch)) for seed in range(4) for epoch in range(4)}
    assert len(orders) == 16


def test_batch_larger_than_the_set():
    with pytest.raises(ValueError, match="batch 5 is larger than the data set of 4 images"):
        Batches(4, 5, 0)


def _labels(path: Path, values: dict[str, object]) -> Path:
    path.write_text("file,age\n" + "".join(f"{name},{value}\n" for name, value in values.items()))
    return path


def test_even_shares_draw_rare_values_as_often(tmp_path):
    """90 young, 9 middle-aged, 1 old: all three bins as often, but for the limit of eight times by chance."""
    names = [f"{i}.png" for i in range(100)]
    ages = [20] * 90 + [50] * 9 + [80]
    shares = even_shares(names, _labels(tmp_path / "l.csv", dict(zip(names, ages, strict=True))), "age")
    often = np.array([100 / 3 / 90] * 90 + [100 / 3 / 9] * 9 + [8.0])
    np.testing.assert_allclose(shares, often / often.sum())
    drawn = np.bincount(
        np.concatenate([Batches(100, 20, 5, shares).indices(step) for step in range(2_000)]), minlength=100
    )
    np.testing.assert_allclose(drawn[:90].sum() / drawn.sum(), shares[:90].sum(), atol=0.01)
    np.testing.assert_allclose(drawn[99] / drawn.sum(), shares[99], atol=0.01)
    used = Batches(100, 20, 5, shares)
    used.indices(77)
    np.testing.assert_array_equal(used.indices(3), Batches(100, 20, 5, shares).indices(3))


@pytest.mark.parametrize(
    ("values", "column", "message"),
    [
        ({"a.png": 3}, "age", "says nothing of 1 images, b.png among them"),
        ({"a.png": 3, "b.png": "old"}, "age", "holds something that is not a number"),
        ({"a.png": 3, "b.png": "nan"}, "age", "holds something that is not a number"),
        ({"a.png": 3, "b.png": 4}, "years", "has no column 'years'; it has file, age"),
    ],
)
def test_labels_that_do_not_serve(tmp_path, values, column, message):
    with pytest.raises(ValueError, match=message):
        even_shares(["a.png", "b.png"], _labels(tmp_path / "l.csv", values), column)
