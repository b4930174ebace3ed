"""Files of others opened without running any of their code.

`form_of` says what a file is from its first bytes, for every importer; `open_checkpoint` reads weights: torch's
formats, NVIDIA's pickles, and mean images.
"""

from __future__ import annotations

import argparse
import mmap
import re
import stat
import warnings
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from engines.errors import first_line
from engines.first_bytes import LENGTH, remedy
from engines.store import Digest
from training.importers.errors import CheckpointError
from training.importers.persistent import attributes, network_tensors
from training.importers.pickled import NUMPY, Call, read_pickle

LIMIT = 8 * 2**30
"""Largest file that is read, in bytes; the largest official one, with optimizers, stays below half of it."""

_ZIP = b"PK\x03\x04"
_OLD_TORCH = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."
"""The first bytes of torch's format before version 1.6: a pickled magic number."""
_IMAGES = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"RIFF")
_NUMBERS = re.compile(rb"(?:\s|#[^\n]*\n|[\[(])*[-+]?\.?\d[-+.\deE\s,;\[\]()]*(?:#|$)")
_CHECKPOINTS = (".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".bin", ".tar", ".npy", ".npz", ".safetensors", ".zip")
_HEADER = 100 * 2**20
"""Largest header of a safetensors file, in bytes."""

Form = Literal["zipped torch", "torch", "pickle", "npy", "npz", "numbers", "image", "safetensors"]
WORDS: dict[Form, str] = {
    "zipped torch": "a torch file",
    "torch": "a torch file",
    "pickle": "a pickle",
    "npy": "a NumPy array",
    "npz": "a NumPy archive",
    "numbers": "a text of numbers",
    "image": "an image",
    "safetensors": "a safetensors file",
}


def form_of(path: Path, start: bytes, size: int) -> Form:
    """The form of a file.

    Args:
        path: the file.
        start: its first `first_bytes.LENGTH` bytes.
        size: its size in bytes.

    Raises:
        CheckpointError: for a file that no importer reads; it says what the file is and what to do.
    """
    if what := remedy(start):
        raise CheckpointError(f"{path} {what}")
    if start.startswith(_ZIP):
        return _zip_form(path, size)
    if start.startswith(_OLD_TORCH):
        return "torch"
    if start.startswith(b"\x80"):
        return "pickle"
    if start.startswith(b"\x93NUMPY"):
        return "npy"
    if start.startswith(_IMAGES):
        return "image"
    if start[8:9] == b"{" and int.from_bytes(start[:8], "little") <= _HEADER:
        return "safetensors"
    if _NUMBERS.match(start.removeprefix(b"\xef\xbb\xbf")):
        return "numbers"
    if start.isascii() and not any(byte < 9 for byte in start):
        raise CheckpointError(
            f"{path} is a text, and not one of numbers alone; if it was downloaded, download the file itself"
        )
    raise CheckpointError(f"{path} begins neither as torch's nor as NumPy's files nor as a pickle does; is it damaged?")


def _zip_form(path: Path, size: int) -> Form:
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        raise CheckpointError(f"{path} is truncated or damaged; get it again ({first_line(error)})") from error
    names = [member.filename for member in members if not member.filename.startswith("__MACOSX/")]
    if names and all(name.endswith(".npy") for name in names):
        return "npz"
    if any(name.endswith("/data.pkl") for name in names):
        if any("/code/" in name or name.endswith("/constants.pkl") for name in names):
            raise CheckpointError(
                f"{path} is a TorchScript archive, which holds a program; get the checkpoint that it was made from, or "
                "save its state_dict with torch.save"
            )
        stored = all(member.compress_type == zipfile.ZIP_STORED for member in members)
        if not stored or sum(member.file_size for member in members) > size:
            raise CheckpointError(f"{path} is a compressed archive, which torch does not write; get the file anew")
        return "zipped torch"
    if inside := next((name for name in names if name.lower().endswith(_CHECKPOINTS)), None):
        raise CheckpointError(f"{path} is a zip archive around {inside[:80]!r}; unpack it and give that file")
    raise CheckpointError(f"{path} is a zip archive in which there is no checkpoint; unpack it and look what it holds")


def _noted(name: str) -> tuple[Any, str]:
    """A class that torch's reader takes for what a file calls `name`: making one notes the call and runs nothing."""

    def new(cls: type, *args: Any) -> Any:
        call = object.__new__(cls)
        Call.__init__(call, name, args)
        return call

    def keep(call: Call, state: Any) -> None:
        call.state = state

    return type("Noted", (Call,), {"__new__": new, "__init__": lambda *_: None, "__setstate__": keep}), name


_DATA_ONLY: list[Any] = [
    # Options of training, by name. Building one of these sets attributes and calls nothing.
    argparse.Namespace,
    # Numbers and arrays of NumPy, their types, and paths: they stand among options, or are directions.
    *map(_noted, sorted(NUMPY)),
    *(_noted(f"numpy.{kind}") for kind in "bool_ float16 float32 float64 int8 int16 int32 int64 uint8".split()),
    *(_noted(f"pathlib{m}.{p}{k}Path") for m in ("", "._local") for p in ("", "Pure") for k in ("Posix", "Windows")),
    *(_noted(f"pathlib{m}.{p}Path") for m in ("", "._local") for p in ("", "Pure")),
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
    """The dictionary at its top: tensors, dictionaries of tensors, and settings. None for an image."""


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
            digest = Digest.read(stream).sha256
            stream.seek(0)
            start = stream.read(LENGTH)
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror or error}") from error
    form = form_of(path, start, status.st_size)
    content = None if form == "image" else _content(path, form)
    return Checkpoint(path=path, digest=digest, size=status.st_size, content=content)


def _content(path: Path, form: Form) -> dict[str, Any]:
    if form in ("zipped torch", "torch"):
        content = torch_content(path, form)
    elif form == "pickle":
        content = _nvidia_content(path)
    elif form == "safetensors":
        raise CheckpointError(f"{path} is a safetensors file already; import the official file that it came from")
    else:
        raise CheckpointError(f"{path} is {WORDS[form]}, and weights are torch files or pickles of StyleGAN2-ADA's")
    if not isinstance(content, dict) or not content or not all(isinstance(key, str) for key in content):
        raise CheckpointError(f"{path} holds no dictionary of tensors")
    return content


def torch_content(path: Path, form: Form) -> Any:
    """The object that `torch.save` wrote into a file, on the CPU; NumPy's arrays in it are `Call`s.

    Raises:
        CheckpointError: if it asks for more than tensors, arrays and settings need, or is damaged.
    """
    try:
        with torch.serialization.safe_globals(_DATA_ONLY), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return torch.load(path, map_location="cpu", weights_only=True, mmap=form == "zipped torch")
    except Exception as error:
        text = str(error)
        if name := re.search(r"GLOBAL ([\w.]+)", text):
            raise CheckpointError(
                f"{path} asks for {name[1]}, which tensors do not need: refused; nothing of it ran"
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
