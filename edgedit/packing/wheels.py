"""The wheels of a pack: those of a lock that a platform needs, downloaded by pip, and edgedit's own."""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import re
import sys
import tomllib
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import InvalidRequirement, Requirement

import edgedit
from edgedit.packing.manifest import PackError
from edgedit.packing.platforms import Platform
from engines import pip
from engines.errors import RuntimeUnavailableError
from engines.packages import FACE_DETECTOR, GENERATOR, Progress
from engines.store import Digest

_ROOT = Path(edgedit.__file__).resolve().parents[1]
"""The folder that edgedit's packages lie in: a clone, or the folder of installed packages."""
LOCK = _ROOT / "requirements" / "base.lock"
"""The lock of a clone."""
_BUNDLES = "edgedit/bundles/"
_DATE = (1980, 1, 1, 0, 0, 0)
"""The date of every file in edgedit's wheel, so that the same source makes the same wheel."""


@dataclass(frozen=True)
class Pin:
    """One requirement of a lock."""

    name: str
    version: str
    hashes: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.name} {self.version}"

    @property
    def line(self) -> str:
        """The pin as a line of a lock, with its hashes."""
        return " ".join((f"{self.name}=={self.version}", *(f"--hash=sha256:{digest}" for digest in self.hashes)))


def locked(lock: str | Path | None, platform: Platform, python: str) -> list[Pin]:
    """The packages that a lock asks for on a platform, but for the generator's, which a whole bundle does without.

    Args:
        lock: a file of requirements, each with a version and hashes; None: that of the clone.
        platform: the machine.
        python: the version of CPython.

    Raises:
        PackError: if there is no such file, or it is no complete lock.
    """
    path = LOCK if lock is None else Path(lock)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        if lock is None:
            raise PackError(
                "the lock is not part of this installation; name requirements/base.lock of edgedit's source with --lock"
            ) from error
        raise PackError(f"{path} cannot be read; name a lock such as requirements/base.lock") from error
    pins = [pin for entry in _entries(text) if (pin := _pin(entry, path, platform.environment(python)))]
    if FACE_DETECTOR.name not in {pin.name for pin in pins}:
        pins.append(Pin(FACE_DETECTOR.name, FACE_DETECTOR.version, (FACE_DETECTOR.sha256,)))
    return sorted((pin for pin in pins if pin.name != GENERATOR.name), key=lambda pin: pin.name)


def _entries(text: str) -> Iterator[str]:
    for line in re.sub(r"\\\n", " ", text).splitlines():
        if entry := re.sub(r"(^|\s)#.*", "", line).strip():
            yield entry


def _pin(entry: str, lock: Path, environment: dict[str, str]) -> Pin | None:
    words, *hashes = re.split(r"\s+--hash=sha256:", entry)
    try:
        requirement = Requirement(words)
    except InvalidRequirement:
        raise PackError(f"{lock} is not a complete lock: {words[:60]!r} is no requirement") from None
    version = re.fullmatch(r"==([^,*]+)", str(requirement.specifier))
    if version is None or not hashes:
        raise PackError(f"{lock} is not a complete lock: {requirement.name} has no version or no hash")
    if requirement.marker is not None and not requirement.marker.evaluate(environment):
        return None
    return Pin(requirement.name, version[1], tuple(hashes))


def download(
    pins: Sequence[Pin], folder: Path, platform: Platform, python: str, progress: Progress = lambda line: None
) -> None:
    """Downloads the wheels of a platform with the user's pip: only wheels, and only files of the lock's hashes.

    What pip has in its own cache is not fetched twice, so that a run that was stopped goes on where it was.

    Raises:
        RuntimeUnavailableError: if there is no pip, or no index can be reached.
        PackError: if a package has no wheel for the platform, or the index has another file.
    """
    requirement = folder / "requirement.txt"
    where = f"{platform.name} and Python {python}"
    command = [sys.executable, "-P", "-m", "pip", "download", *pip.PINNED, *pip.QUIETLY, "--retries", "2"]
    command += ["--implementation", "cp", "--python-version", python, *(f"--platform={tag}" for tag in platform.tags)]
    for number, pin in enumerate(pins, 1):
        progress(f"wheel {number} of {len(pins)}: {pin}")
        requirement.write_text(f"{pin.line}\n")
        reason = pip.failure([*command, "--dest", str(folder), "--requirement", str(requirement)])
        if reason is None:
            continue
        if reason.endswith("No module named pip"):
            raise RuntimeUnavailableError("packing needs pip, which this Python lacks: python -m ensurepip")
        if reason.startswith(pip.UNREACHABLE):
            raise RuntimeUnavailableError(f"{pin} cannot be downloaded: {reason} and run it again")
        if "DO NOT MATCH THE HASHES" in reason:
            raise PackError(f"what pip's package index gives for {pin} is no file of the lock, so it is not packed")
        if "No matching distribution" in reason:
            raise PackError(f"there is no wheel of {pin} for {where} in pip's package index: take another --python")
        raise PackError(f"{pin} cannot be downloaded for {where} (pip says: {reason.rstrip('.')})")
    requirement.unlink()


def write_own_wheel(folder: Path) -> Pin:
    """Writes edgedit's wheel from the edgedit that runs, without the bundle that comes with it; returns its pin.

    Raises:
        PackError: if edgedit is not installed, so that nothing says what it is.
    """
    try:
        installed = distribution("edgedit")
    except PackageNotFoundError:
        raise PackError("edgedit is not installed: install it, with -e from a clone, and pack again") from None
    stem = f"edgedit-{edgedit.__version__}"
    path = folder / f"{stem}-py3-none-any.whl"
    members = {name: (_ROOT / name).read_bytes() for name in sorted(set(_own_files(installed)))}
    metadata = installed.read_text("METADATA") or installed.read_text("PKG-INFO") or ""
    members |= {
        f"{stem}.dist-info/METADATA": metadata.encode(),
        f"{stem}.dist-info/WHEEL": b"Wheel-Version: 1.0\nGenerator: edgedit pack\nRoot-Is-Purelib: true\n"
        b"Tag: py3-none-any\n",
        f"{stem}.dist-info/entry_points.txt": (installed.read_text("entry_points.txt") or "").encode(),
    }
    members |= {f"{stem}.dist-info/licenses/{name}": data for name, data in licences().items()}
    record = io.StringIO()
    rows = csv.writer(record, lineterminator="\n")
    for name, data in members.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
        rows.writerow((name, f"sha256={digest}", len(data)))
    rows.writerow((f"{stem}.dist-info/RECORD", "", ""))
    members[f"{stem}.dist-info/RECORD"] = record.getvalue().encode()
    with zipfile.ZipFile(path, "x") as wheel:
        for name, data in members.items():
            wheel.writestr(zipfile.ZipInfo(name, _DATE), data, zipfile.ZIP_DEFLATED)
    with path.open("rb") as stream:
        return Pin("edgedit", edgedit.__version__, (Digest.read(stream).sha256,))


def _own_files(installed: Distribution) -> Iterator[str]:
    """Paths of edgedit's code and data, of a clone or as they were installed."""
    project = _ROOT / "pyproject.toml"
    if project.is_file():
        data = tomllib.loads(project.read_text())["tool"]["setuptools"]["package-data"]
        for package in (installed.read_text("top_level.txt") or "").split():
            for pattern in ("**/*.py", *data.get(package, ())):
                names = (
                    path.relative_to(_ROOT).as_posix() for path in (_ROOT / package).glob(pattern) if path.is_file()
                )
                yield from (name for name in names if not name.startswith(_BUNDLES))
        return
    for file in installed.files or ():
        name = file.as_posix()
        outside = name.startswith("..") or ".dist-info/" in name or name.startswith(_BUNDLES)
        if not outside and not name.endswith(".pyc"):
            yield name


def licences() -> dict[str, bytes]:
    """LICENSE and NOTICE by name, as far as they are here."""
    names = ("LICENSE", "NOTICE")
    if (_ROOT / "pyproject.toml").is_file():
        return {name: (_ROOT / name).read_bytes() for name in names if (_ROOT / name).is_file()}
    files = {file.name: file for file in distribution("edgedit").files or () if file.name in names}
    return {name: file.read_binary() for name, file in sorted(files.items())}
