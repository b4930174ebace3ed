"""Aligned face images for training: a folder or a tar of image files, resized once and kept as one array.

The held-out split is the last files by name, so that every stage and every measurement agree on it without a list.
"""

from __future__ import annotations

import csv
import hashlib
import io
import os
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from engines.family import ModelFamily
from engines.photo.sources import FORMATS, is_photo, photo_files, without_text
from training import parallel


def _files(source: Path) -> Iterator[tuple[str, bytes]]:
    if source.is_dir():
        for path in photo_files(source):
            yield path.name, path.read_bytes()
    elif tarfile.is_tarfile(source):
        with tarfile.open(source) as archive:
            for member in archive:
                if member.isfile() and is_photo(member.name):
                    stream = archive.extractfile(member)
                    if stream is not None:
                        yield Path(member.name).name, stream.read()
    else:
        raise ValueError(f"{source} is neither a folder nor a tar archive of images")


def _decode(name: str, data: bytes, size: int) -> np.ndarray:
    try:
        with Image.open(io.BytesIO(without_text(data)), formats=FORMATS) as image:
            return np.asarray(image.convert("RGB").resize((size, size), Image.Resampling.LANCZOS))
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(f"{name} cannot be read as an image; mend or remove it") from error


@dataclass(frozen=True)
class FaceSet:
    """Images of one split: `images` uint8 M x S x S x 3 (RGB), `names` the files they came from, sorted."""

    images: np.ndarray
    names: tuple[str, ...]
    shares: np.ndarray | None = None
    """How often each image is drawn, M shares that sum to 1; None: all alike."""

    def __len__(self) -> int:
        return len(self.names)

    def tensor(self, indices: Tensor | np.ndarray | slice, device: torch.device | str = "cpu") -> Tensor:
        """The images at `indices` as float32 B x 3 x S x S in [-1, 1]."""
        batch = torch.from_numpy(
            np.ascontiguousarray(
                self.images[np.asarray(indices)] if not isinstance(indices, slice) else self.images[indices]
            )
        )
        return batch.to(device).permute(0, 3, 1, 2).float().div_(127.5).sub_(1.0)


def load_faces(source: Path, size: int, *, held_out: int = 500, cache: Path | None = None) -> tuple[FaceSet, FaceSet]:
    """Reads all images of a folder or tar at `size` pixels.

    Args:
        source: folder or tar of square, aligned images.
        size: side to resize to (Lanczos).
        held_out: how many images, the last by file name, form the second set.
        cache: folder for the decoded array; None reads the files anew.

    Returns:
        The training set and the held-out set.

    Raises:
        ValueError: if `source` holds no images, no more than `held_out`, or one that cannot be read.
    """
    stamp = source.stat()
    key = hashlib.sha256(f"{source.resolve()}:{stamp.st_mtime_ns}:{stamp.st_size}:{size}".encode()).hexdigest()[:16]
    cached = cache / f"faces-{size}-{key}.npz" if cache is not None else None
    if cached is not None and cached.exists():
        with np.load(cached, allow_pickle=False) as archive:
            images, names = archive["images"], archive["names"].tolist()
    else:
        decoded = sorted(((n, _decode(n, data, size)) for n, data in _files(source)), key=lambda entry: entry[0])
        if not decoded:
            raise ValueError(f"no images in {source}")
        names = [name for name, _ in decoded]
        images = np.stack([image for _, image in decoded])
        if cached is not None:
            cached.parent.mkdir(parents=True, exist_ok=True)
            part = cached.with_suffix(f".{os.getpid()}.part")
            with part.open("wb") as stream:
                np.savez(stream, images=images, names=np.array(names))
            part.replace(cached)
    if len(names) <= held_out:
        raise ValueError(f"{source} has {len(names)} images; more than the {held_out} to hold out are needed")
    cut = len(names) - held_out
    return FaceSet(images[:cut], tuple(names[:cut])), FaceSet(images[cut:], tuple(names[cut:]))


def encoder_input(images: Tensor, family: ModelFamily) -> Tensor:
    """Images B x 3 x S x S, averaged down to the encoders' B x 3 x h x w; the same images if the sizes are equal.

    Raises:
        ValueError: for a family whose visible image is not square: its photos are framed, not aligned.
    """
    if family.visible_rows is not None:
        raise ValueError(f"family {family.name} is not trained from aligned squares; its photos need their own framing")
    size = family.encoder_size
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
