"""Checkpoint files opened without running any of their code: torch's formats, NVIDIA's pickles, and mean images."""

from __future__ import annotations

import argparse
import hashlib
import mmap
import re
import stat
import warnings
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from engines.errors import first_line
from training.importers.errors import CheckpointError
from training.importers.persistent import attributes, network_tensors
from training.importers.pickled import read_pickle

LIMIT = 8 * 2**30
"""Largest file that is read, in bytes; the largest official one, with optimizers, stays below half of it."""

_ZIP = b"PK\x03\x04"
_OLD_TORCH = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."
"""How torch's format before version 1.6 begins: a pickled magic number."""
TORCH_STARTS = (_ZIP, _OLD_TORCH)
"""How torch's files begin."""
_IMAGES = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"RIFF")


class _Unread:
    """Takes the place of NumPy's numbers, such as a best loss: they play no part in a network."""

    def __init__(self, *_: Any) -> None:
        pass

    def __setstate__(self, _: Any) -> None:
        pass


_DATA_ONLY: list[Any] = [
    # Options of training, by name. Building one of these sets attributes and calls nothing.
    argparse.Namespace,
    *((_Unread, f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")),
    (_Unread, "numpy.dtype"),
]


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A file that has been opened."""

    path: Path
    digest: str
    """SHA-256 of the file, hexadecimal."""
    size: int
    """Bytes."""
    content: dict[str, Any] | None
    """What it holds at its top: tensors, dictionaries of tensors, and settings. None for an image."""


def open_checkpoint(path: Path) -> Checkpoint:
    """Reads a file; of zipped torch files only what is looked at is read from the disk.

    Raises:
        CheckpointError: if it is not a checkpoint, is damaged, is too large, or asks for more than tensors need.
    """
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise CheckpointError(f"{path} is not a file; name the checkpoint itself")
        if status.st_size > LIMIT:
            raise CheckpointError(f"{path} has {status.st_size} bytes; checkpoints up to {LIMIT} are read")
        with path.open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
            stream.seek(0)
            start = stream.read(16)
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror or error}") from error
    content = None if start.startswith(_IMAGES) else _content(path, start, status.st_size)
    return Checkpoint(path=path, digest=digest, size=status.st_size, content=content)


def _content(path: Path, start: bytes, size: int) -> dict[str, Any]:
    if start.startswith(TORCH_STARTS):
        content = torch_content(path, start, size)
    elif start.startswith(b"\x80"):
        content = _nvidia_content(path)
    elif start[8:9] == b"{":
        raise CheckpointError(f"{path} is a safetensors file already; import the official file that it came from")
    elif start.lstrip().startswith((b"<", b"{")):
        raise CheckpointError(f"{path} is a text or web page, not a checkpoint; download the file itself")
    else:
        raise CheckpointError(f"{path} is not a checkpoint: it begins neither as torch's files nor as a pickle does")
    if not isinstance(content, dict) or not content or not all(isinstance(key, str) for key in content):
        raise CheckpointError(f"{path} holds no dictionary of tensors")
    return content


def torch_content(path: Path, start: bytes, size: int) -> Any:
    """What `torch.save` wrote into a file, on the CPU.

    Args:
        path: the file.
        start: its first bytes, one of `TORCH_STARTS`.
        size: its size in bytes; it unpacks to no more.

    Raises:
        CheckpointError: if it asks for more than tensors and settings need, or is damaged.
    """
    if start.startswith(_ZIP):
        _check_zip(path, size)
    return _torch_content(path, mapped=start.startswith(_ZIP))


def _check_zip(path: Path, size: int) -> None:
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
    except (zipfile.BadZipFile, OSError, ValueError) as error:
        raise CheckpointError(f"{path} is truncated or damaged; get it again ({first_line(error)})") from error
    stored = all(member.compress_type == zipfile.ZIP_STORED for member in members)
    if not stored or sum(member.file_size for member in members) > size:
        raise CheckpointError(f"{path} is a compressed archive, which torch does not write; unpack it")


def _torch_content(path: Path, *, mapped: bool) -> Any:
    try:
        with torch.serialization.safe_globals(_DATA_ONLY), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except Exception as error:
        text = str(error)
        if asked := re.search(r"GLOBAL ([\w.]+)", text):
            raise CheckpointError(
                f"{path} asks for {asked[1]}, which tensors do not need: refused; nothing of it ran"
            ) from error
        reason = next((line for line in text.splitlines() if line and "weights_only" not in line), type(error).__name__)
        if "Weights only load failed" in text:
            reason = "it asks for more than tensors need, refused"
        raise CheckpointError(f"{path} cannot be read, truncated or damaged ({reason[:200]})") from error


def _nvidia_content(path: Path) -> dict[str, Any]:
    """The averaged generator's tensors under `G_ema`, its scalar attributes under `settings`, other parts as None."""
    # A map gives no more than there is, where a file's `read` first makes room for all that a damaged length asks for.
    with path.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        data = read_pickle(mapped, str(path))
    if not isinstance(data, dict) or "G_ema" not in data:
        raise CheckpointError(f"{path} is a pickle, but not one of StyleGAN2-ADA's: it has no G_ema")
    content: dict[str, Any] = {key: None for key in data if isinstance(key, str)}
    content["G_ema"] = network_tensors(data["G_ema"], f"{path}: G_ema")
    settings = attributes(data["G_ema"], f"{path}: G_ema")
    content["settings"] = {name: value for name, value in settings.items() if isinstance(value, int | str)}
    return content
