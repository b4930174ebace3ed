"""Writes a pack: first the wheels, which is what fails most, then the bundle and the installer."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import jinja2

import edgedit
from edgedit.editor import PORTRAIT_BUNDLE, open_bundle
from edgedit.packing.manifest import PACK_FILE, SUMS_FILE, PackError, PackInfo, write_sums
from edgedit.packing.platforms import PYTHONS, Platform, platform_named
from edgedit.packing.self_test import BUNDLE_FOLDER, EXPECTED_FILE, write_expected
from edgedit.packing.wheels import Pin, download, licences, locked, write_own_wheel
from engines.bundle import Bundle
from engines.bundle.engine_manifest import ENGINES_FOLDER
from engines.bundle.folders import EngineFolder, list_engines
from engines.bundle.integrity import walk
from engines.bundle.manifest import SIGNATURE_FILES
from engines.errors import OutputError
from engines.packages import GENERATOR, Progress
from engines.store import Digest, atomic_directory

_TEMPLATES = Path(__file__).parent / "templates"


def pack(
    bundle: str | Path = PORTRAIT_BUNDLE,
    *,
    platform: str,
    out: str | Path,
    python: str = "3.11",
    engines: Sequence[str] = (),
    lock: str | Path | None = None,
    progress: Progress = lambda line: None,
) -> Path:
    """Writes all that a machine without a network needs to edit photos with a bundle; see `edgedit.packing`.

    Example:
        >>> folder = edgedit.pack(bundle, platform="linux-aarch64", python="3.12", out="PACK", engines=[])
        >>> sorted(path.name for path in folder.iterdir())[:3]
        ['LICENSE', 'NOTICE', 'README.txt']

    Args:
        bundle: the bundle's directory; one without its generator is completed first, and is whole in the pack.
        platform: linux-x86_64, linux-aarch64 or windows-x86_64.
        out: the pack's folder, which must not exist or be empty; it appears whole or not at all.
        python: the version of CPython on that machine: 3.11, 3.12 or 3.13.
        engines: names of engine folders of the bundle to take along; the libraries that run them are not in the pack.
        lock: requirements with hashes to take the wheels of; None: `requirements/base.lock` of the clone.
        progress: called with one line per step.

    Returns:
        The folder.

    Raises:
        PackError: for an unknown platform or Python, a lock that is incomplete, or a package that has no wheel there.
        RuntimeUnavailableError: if pip is missing or its index cannot be reached.
        BundleError, EngineError: if the bundle or an engine is damaged, or there is no such engine.
        OutputError: if the folder is not empty or cannot be written.
    """
    place, machine = Path(out), platform_named(platform)
    if python not in PYTHONS:
        raise PackError(f"--python must be one of {', '.join(PYTHONS)}, got {python}")
    if os.path.lexists(place) and not (place.is_dir() and not any(place.iterdir())):
        raise OutputError(f"cannot write {place}: it is there and not an empty folder; name another one")
    pins = locked(lock, machine, python)
    opened = open_bundle(bundle, progress=progress)
    folders = [EngineFolder.load(opened, name).name for name in dict.fromkeys(engines)]
    try:
        with atomic_directory(place) as staging:
            _fill(staging, opened, folders, machine, python, pins, progress)
    except OSError as error:
        raise OutputError(f"cannot write {place}: {error.strerror or error}") from error
    return place


def _fill(
    staging: Path,
    bundle: Bundle,
    engines: Sequence[str],
    machine: Platform,
    python: str,
    pins: list[Pin],
    progress: Progress,
) -> None:
    wheels = staging / "wheels"
    wheels.mkdir()
    download(pins, wheels, machine, python, progress)
    own = write_own_wheel(wheels)
    (staging / "requirements.txt").write_text("".join(f"{pin.line}\n" for pin in (*pins, own)))
    progress(f"bundle {bundle.name}{''.join(f', engine {name}' for name in engines)}")
    _copy_bundle(bundle, staging / BUNDLE_FOLDER, engines, progress)
    progress("drawing what the self-test must draw")
    info = PackInfo(
        edgedit=edgedit.__version__,
        platform=machine.name,
        python=python,
        bundle=bundle.name,
        engines=tuple(engines),
        wheels=tuple(sorted(path.name for path in wheels.iterdir())),
        expected=write_expected(staging),
    )
    (staging / PACK_FILE).write_text(info.model_dump_json(indent=1) + "\n")
    for name, data in licences().items():
        (staging / name).write_bytes(data)
    _render(staging, machine, info, bundle)
    progress(f"{write_sums(staging)} files, listed in {SUMS_FILE}")


def _copy_bundle(bundle: Bundle, folder: Path, engines: Sequence[str], progress: Progress) -> None:
    """Copies a bundle, whose files were checked when it was opened, with some of its engines.

    A signature is over all engines: it goes along only if they all do.
    """
    all_engines = set(engines) == set(list_engines(bundle))
    for name, _ in walk(bundle.path):
        parts = Path(name).parts
        if (parts[0] == ENGINES_FOLDER and parts[1] not in engines) or (name in SIGNATURE_FILES and not all_engines):
            continue
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        with (bundle.path / name).open("rb") as stream:
            Digest.copy(stream, target)
    if not all_engines and any((bundle.path / name).exists() for name in SIGNATURE_FILES):
        progress("the bundle's signature is over engines that stay behind, and is left out: sign the packed bundle")
    # What was copied is checked as a whole, engines with it.
    Bundle.load(folder)


def _render(staging: Path, machine: Platform, info: PackInfo, bundle: Bundle) -> None:
    """Writes the installer and README.txt."""
    templates = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES), undefined=jinja2.StrictUndefined, keep_trailing_newline=True
    )
    manifest = bundle.manifest
    values = {
        **info.model_dump(),
        "machine": machine.markers["platform_machine"],
        "installer": machine.installers[0],
        "windows": machine.markers["os_name"] == "nt",
        "expected_file": EXPECTED_FILE,
        "licence": manifest.licence,
        "from_package": GENERATOR.name if bundle.family.generator == "mobilestylegan" else None,
    }
    for name in (*machine.installers, "README.txt"):
        text = templates.get_template(name).render(values)
        (staging / name).write_text(text, newline="\r\n" if values["windows"] else "\n")
        if name.endswith(".sh"):
            (staging / name).chmod(0o755)
