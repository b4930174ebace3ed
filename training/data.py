"""Aligned images for training: a folder or a tar of image files, resized once and kept as one array.

The held-out split is the last files by name, so that every stage and every measurement agree on it without a list.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import tarfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from engines.family import ModelFamily
from engines.photo.sources import FORMATS, is_photo, photo_files, without_text
from engines.store import atomic_file, cannot_write, write
from training import parallel


def _files(source: Path) -> Iterator[tuple[str, Callable[[], bytes]]]:
    """Names of the images, and what reads each one while it is the current one."""
    if source.is_dir():
        for path in photo_files(source):
            yield path.name, path.read_bytes
    elif tarfile.is_tarfile(source):
        with tarfile.open(source) as archive:
            for member in archive:
                if member.isfile() and is_photo(member.name) and (stream := archive.extractfile(member)):
                    yield Path(member.name).name, stream.read
    else:
        raise ValueError(f"{source} is neither a folder nor a tar archive of images")


def _decode(name: str, read: Callable[[], bytes], size: tuple[int, int]) -> np.ndarray:
    """The middle of an image that has the shape asked for, height x width, resized to it."""
    height, width = size
    try:
        with Image.open(io.BytesIO(without_text(read())), formats=FORMATS) as image:
            scale = min(image.width / width, image.height / height)
            left, top = (image.width - scale * width) / 2, (image.height - scale * height) / 2
            box = (left, top, image.width - left, image.height - top)
            return np.asarray(image.convert("RGB").resize((width, height), Image.Resampling.LANCZOS, box=box))
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(f"{name} cannot be read as an image; mend or remove it") from error


def from_pixels(pixels: np.ndarray, device: torch.device | str = "cpu") -> Tensor:
    """Pictures uint8 B x h x w x 3 as float32 B x 3 x h x w in [-1, 1]."""
    # A copy: pictures may be a file that is mapped for reading alone.
    return torch.tensor(pixels).to(device).permute(0, 3, 1, 2).float().div_(127.5).sub_(1.0)


def to_pixels(images: Tensor) -> np.ndarray:
    """Pictures B x 3 x h x w, clamped to [-1, 1], as uint8 B x h x w x 3."""
    levels = images.clamp(-1, 1).add(1).mul(127.5).round().byte()
    return np.ascontiguousarray(levels.permute(0, 2, 3, 1).cpu().numpy())


@dataclass(frozen=True)
class FaceSet:
    """Images of one split: `images` uint8 M x h x w x 3 (RGB), in memory or in a mapped file, `names` the files they
    came from, sorted."""

    images: np.ndarray
    names: tuple[str, ...]
    shares: np.ndarray | None = None
    """The M shares, which sum to 1, by which images are drawn; None: all alike."""

    def __len__(self) -> int:
        return len(self.names)

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the images."""
        return self.images.shape[1], self.images.shape[2]

    def tensor(self, indices: Tensor | np.ndarray | slice, device: torch.device | str = "cpu") -> Tensor:
        """The images at `indices` as float32 B x 3 x h x w in [-1, 1]."""
        chosen = indices if isinstance(indices, slice) else np.asarray(indices)
        return from_pixels(self.images[chosen], device)


def load_faces(
    source: Path,
    size: int | tuple[int, int],
    *,
    held_out: int = 500,
    cache: Path | None = None,
    most: int | None = None,
) -> tuple[FaceSet, FaceSet]:
    """Reads all images of a folder or tar at one size.

    Args:
        source: folder or tar of aligned images.
        size: side, or height and width, to resize to (Lanczos); of an image of another shape the middle is taken.
        held_out: how many images, the last by file name, form the second set.
        cache: folder for the decoded array, which is then mapped into memory rather than held in it; None reads the
            files anew.
        most: without a cache, read no more than so many images, the last by file name; None reads all.

    Returns:
        The training set and the held-out set.

    Raises:
        ValueError: if `source` holds no images, no more than `held_out`, or one that cannot be read.
        OutputError: if the cache cannot be written.
    """
    height, width = (size, size) if isinstance(size, int) else size
    if cache is None:
        names, order = _sorted_names(source)
        first = 0 if most is None else max(len(names) - most, 0)
        names = names[first:]
        images = np.empty((len(names), height, width, 3), np.uint8)
        _fill(images, source, [place - first for place in order])
    else:
        stamp = source.stat()
        shape = f"{height}x{width}"
        key = hashlib.sha256(f"{source.resolve()}:{stamp.st_mtime_ns}:{stamp.st_size}:{shape}".encode()).hexdigest()
        cached = cache / f"faces-{shape}-{key[:16]}.npy"
        if not cached.exists():
            _write_cache(cached, source, (height, width))
        images = np.load(cached, mmap_mode="r")
        names = json.loads(cached.with_suffix(".json").read_text())
    if len(names) <= held_out:
        raise ValueError(f"{source} has {len(names)} images; more than the {held_out} to hold out are needed")
    cut = len(names) - held_out
    return FaceSet(images[:cut], tuple(names[:cut])), FaceSet(images[cut:], tuple(names[cut:]))


def _sorted_names(source: Path) -> tuple[list[str], list[int]]:
    """All names, sorted, and for each image in the order of reading its place among them."""
    names = [name for name, _ in _files(source)]
    if not names:
        raise ValueError(f"no images in {source}")
    by_name = sorted(range(len(names)), key=names.__getitem__)
    places = [0] * len(names)
    for place, index in enumerate(by_name):
        places[index] = place
    return [names[index] for index in by_name], places


def _fill(images: np.ndarray, source: Path, places: Sequence[int]) -> None:
    """Decodes images into their places; those of negative places are left out."""
    for place, (name, read) in zip(places, _files(source), strict=True):
        if place >= 0:
            images[place] = _decode(name, read, (images.shape[1], images.shape[2]))


def _write_cache(path: Path, source: Path, size: tuple[int, int]) -> None:
    """Decodes into a file that appears whole, with the names beside it; it need not fit into memory."""
    names, places = _sorted_names(source)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_file(path) as temporary:
            images = np.lib.format.open_memmap(temporary, "w+", np.uint8, (len(names), *size, 3))
            _fill(images, source, places)
            images.flush()
            write(path.with_suffix(".json"), json.dumps(names).encode())
    except OSError as error:
        raise cannot_write(path, error) from error


def encoder_input(images: Tensor, family: ModelFamily) -> Tensor:
    """Images B x 3 x h x w, averaged down to the size of the encoders' input; the same images if the sizes are equal.

    Raises:
        ValueError: if they have another shape than that input.
    """
    height, width = family.encoder_size
    if images.shape[2] * width != images.shape[3] * height:
        raise ValueError(
            f"the encoders of the family {family.name} take images of {height} x {width} pixels; "
            f"{images.shape[2]} x {images.shape[3]} has another shape"
        )
    return _averaged(images, family.encoder_size)


def visible(rendered: Tensor, family: ModelFamily) -> Tensor:
    """The rows of rendered images B x 3 x S x S that show something."""
    return rendered if family.visible_rows is None else rendered[:, :, slice(*family.visible_rows)]


def as_photos(rendered: Tensor, family: ModelFamily, size: tuple[int, int]) -> Tensor:
    """Rendered images B x 3 x S x S as photos are: cut to the rows that the family keeps, averaged down to `size`.

    pSp and e4e compare pictures so, at a quarter of a 1024-pixel generator's side: a photo has no more to say to
    encoders that see 256 pixels.

    Args:
        rendered: what the generator drew.
        family: of the generator.
        size: height and width of the photos, at most those of the image.
    """
    return _averaged(visible(rendered, family), size)


def at_once(family: ModelFamily) -> int:
    """Pictures of a generator that are rendered together where no gradient is needed: 4 megapixels, at most 50."""
    return max(1, min(50, 2**22 // family.size**2))


def _averaged(images: Tensor, size: tuple[int, int]) -> Tensor:
    return images if images.shape[2:] == size else F.interpolate(images, size=size, mode="area")


_BINS = 9
_MOST_OFTEN = 8.0


def even_shares(names: Sequence[str], labels: Path, column: str) -> np.ndarray:
    """Shares that draw the values of a label evenly, so that rare ones (old faces, say) are learnt as well.

    The values are sorted into bins of equal width, each drawn as often as another; no image is drawn more than
    eight times as often as it would be by chance, since a handful of images learnt by heart helps nobody.

    Args:
        names: files of the images, M.
        labels: CSV with a column `file` and the label's.
        column: a numeric column.

    Returns:
        Shares (M), which sum to 1.

    Raises:
        ValueError: if the table lacks a column, an image, or holds something that is not a number.
    """
    with labels.open(newline="") as stream:
        rows = csv.DictReader(stream)
        for needed in ("file", column):
            if needed not in (rows.fieldnames or ()):
                raise ValueError(f"{labels} has no column {needed!r}; it has {', '.join(rows.fieldnames or ())}")
        try:
            known = {row["file"]: float(row[column]) for row in rows}
        except (TypeError, ValueError):
            raise ValueError(f"column {column!r} of {labels} holds something that is not a number") from None
    if lost := [name for name in names if name not in known]:
        raise ValueError(f"{labels} says nothing of {len(lost)} images, {lost[0]} among them")
    values = np.array([known[name] for name in names])
    if not np.isfinite(values).all():
        raise ValueError(f"column {column!r} of {labels} holds something that is not a number")
    edges = np.linspace(values.min(), values.max(), _BINS + 1)[1:-1]
    bins = np.digitize(values, edges)
    counts = np.bincount(bins, minlength=_BINS)
    often = np.minimum(len(values) / np.count_nonzero(counts) / counts[bins], _MOST_OFTEN)
    return often / often.sum()


class Batches:
    """Endless shuffled batches whose content depends on the seed and the step alone, so that a resumed run sees
    exactly the batches an uninterrupted one would have seen. Processes that train together get batches of their own.

    With `shares` (see `FaceSet.shares`) images are drawn by them, with replacement; without, an epoch has each once.
    """

    def __init__(self, count: int, batch: int, seed: int, shares: np.ndarray | None = None) -> None:
        together = batch * parallel.processes()
        if together > count:
            raise ValueError(f"batch {together} is larger than the data set of {count} images")
        self.batch = batch
        self.per_epoch = count // together
        self.count = count
        self.seed = seed
        self.shares = shares
        self._epoch = -1
        self._order = np.empty(0, dtype=np.int64)

    def indices(self, step: int) -> np.ndarray:
        """Indices of the images of batch `step`, counted from 0."""
        epoch, position = divmod(step, self.per_epoch)
        if epoch != self._epoch:
            draws = np.random.default_rng((self.seed, epoch))
            by_chance = self.shares is None
            self._order = (
                draws.permutation(self.count) if by_chance else draws.choice(self.count, self.count, p=self.shares)
            )
            self._epoch = epoch
        first = (position * parallel.processes() + parallel.rank()) * self.batch
        return self._order[first : first + self.batch]
