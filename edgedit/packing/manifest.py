"""The manifest of a pack: the digests of its files, and pack.json."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from stat import S_ISREG
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from engines.bundle.integrity import walk
from engines.errors import EdgeditError
from engines.store import Digest

SUMS_FILE = "SHA256SUMS"
PACK_FILE = "pack.json"
_MAX_BYTES = 1 << 20
"""Bound of either file."""


class PackError(EdgeditError):
    """A pack cannot be made, or is damaged."""


class Expected(BaseModel):
    """The picture that the self-test must draw: the face of the photo that comes with edgedit, after one edit."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    direction: str
    strength: float
    sha256: str
    """The digest of the face's pixels, uint8 S x S x 3."""
    size: int
    """The face's side in pixels."""


class PackInfo(BaseModel):
    """pack.json."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    schema_version: Literal[1] = 1
    edgedit: str
    """The version."""
    platform: str
    python: str
    bundle: str
    """The bundle's name."""
    engines: tuple[str, ...]
    wheels: tuple[str, ...]
    expected: Expected

    @classmethod
    def read(cls, folder: Path) -> PackInfo:
        """Raises:
        PackError: if the folder holds none, or one that this edgedit does not read.
        """
        try:
            with (folder / PACK_FILE).open("rb") as stream:
                return cls.model_validate_json(stream.read(_MAX_BYTES))
        except OSError as error:
            raise PackError(f"{folder} is neither a pack nor installed from one: it has no {PACK_FILE}") from error
        except ValidationError as error:
            raise PackError(f"{folder / PACK_FILE} is damaged or of another edgedit: make the pack again") from error


def write_sums(folder: Path) -> int:
    """Writes the digests of all files of a pack; returns how many they are."""
    names = [name for name, _ in walk(folder)]
    lines = []
    for name in names:
        with (folder / name).open("rb") as stream:
            lines.append(Digest.read(stream).line(name))
    (folder / SUMS_FILE).write_bytes(b"".join(lines))
    return len(names)


def verify_pack(folder: str | Path) -> int:
    """Checks the digest of every file of a pack, and that there is no other file.

    Returns:
        How many files were checked.

    Raises:
        PackError: if it is not a pack, or naming the first file that is missing, damaged or not listed.
    """
    folder = Path(folder)
    sums = dict(_sums(folder))
    problems = [problem for name, digest in sums.items() if (problem := _problem(folder, name, digest))]
    problems += [f"{name} is not listed in {SUMS_FILE}" for name, _ in walk(folder) if name not in {*sums, SUMS_FILE}]
    if problems:
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        raise PackError(f"{folder}: {problems[0]}{more}; copy the pack again, or make it again")
    PackInfo.read(folder)
    return len(sums)


def _sums(folder: Path) -> Iterator[tuple[str, str]]:
    """Name and digest of every file that a pack lists."""
    try:
        with (folder / SUMS_FILE).open("rb") as stream:
            text = stream.read(_MAX_BYTES).decode()
    except (OSError, UnicodeDecodeError) as error:
        raise PackError(f"{folder} is not a pack: it has no {SUMS_FILE} that can be read") from error
    for line in text.splitlines():
        match = re.fullmatch(r"([0-9a-f]{64})  ([^/\\:].*)", line)
        if match is None or ".." in match[2].split("/"):
            raise PackError(f"{folder}: {SUMS_FILE} is damaged; copy the pack again, or make it again")
        yield match[2], match[1]
    if not text:
        raise PackError(f"{folder}: {SUMS_FILE} is empty; copy the pack again, or make it again")


def _problem(folder: Path, name: str, digest: str) -> str | None:
    try:
        if not S_ISREG(os.lstat(folder / name).st_mode):
            return f"{name} is not a regular file"
        with (folder / name).open("rb") as stream:
            same = Digest.read(stream).sha256 == digest
    except FileNotFoundError:
        return f"{name} is missing"
    except OSError as error:
        return f"{name} cannot be read: {error.strerror or error}"
    return None if same else f"{name} is damaged (its SHA-256 differs)"
