"""API keys: a file holds their digests, so that reading it opens nothing.

One key a line: a name, the SHA-256 of the key in hexadecimal, and what it may do, such as

    phone     5994471abb01112afcc18159f6cc74b4f511b99806da59b3caf5a9c173cacfc5  edit
    monitor   3ba8907e7a252327488df390ed517c45b96dead033600219bdca7107d1d3f88a  metrics

Keys are random and long, so a fast digest is enough: nobody guesses 256 bits.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import secrets
from dataclasses import dataclass
from pathlib import Path

from engines.store import write
from serving.gateway.settings import GatewayError

EDIT, METRICS = "edit", "metrics"
SCOPES = (EDIT, METRICS)
"""The rights of a key: to call /v1, to read /metrics."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_DIGEST = re.compile(r"[0-9a-f]{64}")
_MAX_FILE = 1 << 20


@dataclass(frozen=True)
class Key:
    """One line of the file."""

    name: str
    digest: bytes
    scopes: frozenset[str]


class KeyRing:
    """The keys of a file, which are let in.

    Raises:
        GatewayError: if it cannot be read, holds no key, or a line is not one; the message names the line.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._keys = read_keys(path)

    def __len__(self) -> int:
        return len(self._keys)

    def reload(self) -> None:
        """Reads the file again; if that fails, the keys stay as they are and the error of `KeyRing` is raised."""
        self._keys = read_keys(self._path)

    def find(self, presented: str) -> Key | None:
        """The key that was presented, or None.

        Its digest is compared with all others, each in constant time, so that the time taken tells nothing of which
        key, or how much of one, was right.
        """
        digest = hashlib.sha256(presented.encode("utf-8", "surrogateescape")).digest()
        matching = None
        for key in self._keys:
            if hmac.compare_digest(key.digest, digest):
                matching = key
        return matching


def read_keys(path: Path) -> tuple[Key, ...]:
    """Reads a file of keys; see `KeyRing`."""
    try:
        with path.open("rb") as stream:
            text = stream.read(_MAX_FILE + 1).decode()
    except OSError as error:
        raise GatewayError(f"cannot read keys from {path}: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise GatewayError(f"{path} is not a file of keys: it is not text") from error
    if len(text) > _MAX_FILE:
        raise GatewayError(f"{path} is not a file of keys: it is over {_MAX_FILE} bytes")
    keys: dict[str, Key] = {}
    for number, line in enumerate(text.splitlines(), 1):
        words = line.partition("#")[0].split()
        if not words:
            continue
        if not 2 <= len(words) <= 3 or not _NAME.fullmatch(words[0]) or not _DIGEST.fullmatch(words[1]):
            # The line is not repeated: it may hold a key that was pasted where its digest belongs.
            raise GatewayError(f"{path}, line {number}: a key is NAME SHA256 [SCOPES], made by `edgedit serve key`")
        scopes = frozenset(words[2].split(",") if len(words) == 3 else [EDIT])
        if unknown := sorted(scopes - set(SCOPES)):
            raise GatewayError(f"{path}, line {number}: there is no scope {unknown[0]!r}, only {', '.join(SCOPES)}")
        digest = bytes.fromhex(words[1])
        if words[0] in keys or any(digest == other.digest for other in keys.values()):
            raise GatewayError(f"{path}, line {number}: the name or key of {words[0]} is there twice")
        keys[words[0]] = Key(words[0], digest, scopes)
    if not keys:
        raise GatewayError(f"{path} holds no key; make one with `edgedit serve key`")
    return tuple(keys.values())


def add_key(path: Path, name: str, scopes: tuple[str, ...] = (EDIT,)) -> str:
    """Makes a key, adds its digest to the file (created for its owner alone) and returns the key, kept nowhere.

    Raises:
        GatewayError: for a name that will not do or is taken, an unknown scope, or a file that is not one of keys.
        OutputError: if it cannot be written.
    """
    if not _NAME.fullmatch(name):
        raise GatewayError(f"a key's name is letters, digits, dots, dashes and underscores, got {name!r}")
    if unknown := sorted(set(scopes) - set(SCOPES)):
        raise GatewayError(f"there is no scope {unknown[0]!r}, only {', '.join(SCOPES)}")
    text = ""
    if path.exists():
        if any(key.name == name for key in read_keys(path)):
            raise GatewayError(f"{path} has a key named {name} already; choose another name, or take its line out")
        text = path.read_text()
        text += "" if text.endswith("\n") else "\n"
    key = f"edk_{secrets.token_urlsafe(32)}"
    digest = hashlib.sha256(key.encode()).hexdigest()
    umask = os.umask(0o077)
    try:
        write(path, f"{text}{name} {digest} {','.join(scopes)}\n".encode())
    finally:
        os.umask(umask)
    return key
