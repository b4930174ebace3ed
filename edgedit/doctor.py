"""Findings on what this machine can run and what is missing: each finding with the one command that mends it."""

from __future__ import annotations

import os
import platform
import re
import shutil
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

from edgedit.demo import ASTRONAUT
from edgedit.editor import PORTRAIT_BUNDLE, Editor, open_bundle
from engines import cpus
from engines.bundle import Bundle
from engines.bundle.completion import lacks_generator
from engines.bundle.provenance import processor, tool_versions
from engines.errors import EdgeditError, RuntimeUnavailableError, first_line
from engines.libraries import LIBRARIES
from engines.memory import memory
from engines.nvidia import nvidia_smi
from engines.packages import FACE_DETECTOR, GENERATOR, Package, Progress
from engines.photo.credentials import EXTRA, LIBRARY
from engines.store import cache_folder

State = Literal["good", "absent", "broken"]

_SWAP = "pip uninstall --yes onnxruntime; pip install --force-reinstall --no-deps onnxruntime-gpu"
"""The two install the same files."""
LEAST_DISK = 1 << 30
"""Free bytes of the cache folder's disk below which the doctor warns; a completed portrait bundle takes some 120 MB."""


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at."""

    name: str
    state: State
    detail: str
    remedy: str | None = None
    """The command, or what else to do."""
    needed: bool = False
    """Photos cannot be edited without it."""


@dataclass(frozen=True)
class Diagnosis:
    """The findings of `examine`."""

    findings: tuple[Finding, ...]
    versions: dict[str, str]
    """The versions that a bug report names."""

    @property
    def works(self) -> bool:
        """Whether photos can be edited here."""
        return not any(finding.needed and finding.state != "good" for finding in self.findings)


def examine(
    bundle: str | Path = PORTRAIT_BUNDLE, *, quick: bool = False, progress: Progress = lambda line: None
) -> Diagnosis:
    """Looks at this machine.

    Args:
        bundle: what would edit photos.
        quick: look only; else a photo is edited too, for which what is missing is fetched as for any edit.
        progress: is told what takes seconds.
    """
    findings = [*_machine(), _gpu(), *_runtimes(), *_files(Path(bundle), quick), _credentials(), _triton(), *_extras()]
    if not quick:
        findings.insert(0, _self_test(bundle, progress))
    versions = {"system": f"{platform.system()} {platform.release()} {platform.machine()}"} | tool_versions()
    return Diagnosis(tuple(findings), versions)


def _machine() -> Iterator[Finding]:
    usable, total = cpus.usable(), cpus.total()
    few = "" if usable == total else f" of {total}: the affinity mask or the control group's quota allow no more"
    words = " ".join(cpus.features()) or "not known here"
    yield Finding("processor", "good", f"{processor()}{few}; instructions: {words}")
    total_memory, free = memory()
    detail = "not known here" if total_memory is None else f"{_gb(total_memory)}, {_gb(free or 0)} free"
    yield Finding("memory", "good", detail)


def _gpu() -> Finding:
    fields = nvidia_smi("name", "compute_cap", "driver_version", "memory.total")
    if not fields:
        return Finding("GPU", "absent", "nvidia-smi tells of none; edits run on the CPU")
    return Finding(
        "GPU",
        "good",
        f"{fields.get('name')}, compute capability {fields.get('compute_cap')}, driver {fields.get('driver_version')}, "
        f"{fields.get('memory.total')} MiB",
    )


def _runtimes() -> Iterator[Finding]:
    try:
        import onnxruntime

        detail = f"{onnxruntime.__version__}, {', '.join(onnxruntime.get_available_providers())}"
        yield Finding("ONNX Runtime", "good", detail, needed=True)
    except Exception as error:  # Whatever a broken installation raises is the finding.
        remedy = "pip install --force-reinstall onnxruntime"
        yield Finding("ONNX Runtime", "broken", first_line(error), remedy, needed=True)
    for library in LIBRARIES.values():
        if library.installed:
            version = metadata.version(library.distribution) if library.distribution else "of the system"
            yield Finding(library.title, "good", version)
        else:
            yield Finding(library.title, "absent", "not installed", f"pip install 'edgedit[{library.extra}]'")
    for name, remedy in (("openvino", "pip install 'edgedit[openvino]'"), ("torch", "pip install 'edgedit[train]'")):
        version = _version(name)
        title = {"openvino": "OpenVINO", "torch": "PyTorch"}[name]
        yield Finding(title, "good", version) if version else Finding(title, "absent", "not installed", remedy)


def _files(path: Path, quick: bool) -> Iterator[Finding]:
    try:
        # Not `open_bundle`: that completes it, and this only looks.
        bundle = Bundle.open(path)
        lacking = lacks_generator(bundle.path)
        note = f"; completed from {GENERATOR} at first use" if lacking else ""
        yield Finding("bundle", "good", f"{bundle.name} {bundle.manifest.precision}{note}", needed=True)
    except EdgeditError as error:
        lacking = False
        yield Finding("bundle", "broken", str(error), "pip install --force-reinstall edgedit", needed=True)
    packages = [("face detector", FACE_DETECTOR, True), ("generator", GENERATOR, lacking)]
    yield from (_package(title, package, needed and quick) for title, package, needed in packages)
    folder = cache_folder()
    nearest = next(place for place in (folder, *folder.parents) if place.is_dir())
    size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file() and not file.is_symlink())
    free = shutil.disk_usage(nearest).free
    detail = f"{_gb(size)} in use, {_gb(free)} free on its disk ({_short(folder)})"
    if not os.access(nearest, os.W_OK):
        remedy = "set EDGEDIT_CACHE to a folder that you may write"
        yield Finding("cache folder", "broken", f"{_short(folder)} cannot be written", remedy, needed=lacking)
    elif free < LEAST_DISK:
        yield Finding("cache folder", "broken", detail, "set EDGEDIT_CACHE to a folder on a disk with more room")
    else:
        yield Finding("cache folder", "good", detail)


def _package(title: str, package: Package, needed: bool) -> Finding:
    if package.at_hand() is not None:
        return Finding(title, "good", str(package), needed=needed)
    return Finding(title, "absent", f"{package} is fetched at first use", package.install, needed)


def _credentials() -> Finding:
    # No `Credentials` is made: that would make a key.
    if version := _version(LIBRARY):
        return Finding("Content Credentials", "good", f"{LIBRARY} {version}")
    return Finding("Content Credentials", "absent", "pictures say in XMP alone that they were edited", EXTRA)


def _triton() -> Finding:
    title = "development server"
    try:
        from serving.local import install

        if install.find() is not None:
            return Finding(title, "good", f"Triton {install.RELEASE}")
        return Finding(title, "absent", "not set up", "edgedit serve setup")
    except RuntimeUnavailableError as error:
        return Finding(title, "absent", str(error))


def _extras() -> Iterator[Finding]:
    try:
        distribution = metadata.metadata("edgedit")
    except metadata.PackageNotFoundError:
        return
    wanted: dict[str, list[str]] = {name: [] for name in distribution.get_all("Provides-Extra") or ()}
    for line in distribution.get_all("Requires-Dist") or ():
        requirement, _, marker = line.partition(";")
        extra = re.search(r"extra == ['\"]([\w-]+)", marker)
        elsewhere = "sys_platform != " in marker and f"'{sys.platform}'" in marker.replace('"', "'")
        name = re.match(r"[\w.-]+", requirement)
        # An extra's other extras have their own lines.
        if extra and name and name[0] != "edgedit" and not elsewhere:
            wanted[extra[1]].append(name[0])
    for extra, names in wanted.items():
        if extra == "dev":
            continue
        missing = [name for name in names if _version(name) is None]
        if missing:
            remedy = _SWAP if extra == "gpu" else f"pip install 'edgedit[{extra}]'"
            yield Finding(f"extra {extra}", "absent", f"lacks {', '.join(missing)}", remedy)
        else:
            yield Finding(f"extra {extra}", "good", "installed")


def _self_test(bundle: str | Path, progress: Progress) -> Finding:
    progress("editing the astronaut, to see whether it works")
    try:
        opened = open_bundle(bundle, progress=progress)
        started = time.perf_counter()
        editor = Editor.load(opened.path, progress=progress)
        portrait = editor.portrait(ASTRONAUT)
        name, direction = next(iter(editor.directions.items()))
        loaded = time.perf_counter()
        face = portrait.edit_face({name: direction.max_strength / 2 or direction.min_strength / 2})
        seconds = time.perf_counter()
    except EdgeditError as error:
        return Finding("self-test", "broken", str(error), needed=True)
    except StopIteration:
        return Finding("self-test", "broken", "the bundle has no direction to edit along", needed=True)
    if face.std() == 0:
        return Finding("self-test", "broken", "the edit gave an empty picture", needed=True)
    detail = f"an edit took {seconds - loaded:.1f} s, after {loaded - started:.1f} s to load, find and invert the face"
    return Finding("self-test", "good", detail, needed=True)


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _gb(size: int) -> str:
    return f"{size / 1e9:.1f} GB"


def _short(path: Path) -> str:
    """A path without the user's name, for reports that are passed on."""
    home = Path.home()
    return f"~/{path.relative_to(home)}" if path.is_relative_to(home) else str(path)


def summary(diagnosis: Diagnosis) -> dict[str, Any]:
    """A diagnosis as a summary has it."""
    findings = [
        {"name": one.name, "state": one.state, "detail": one.detail, "remedy": one.remedy, "needed": one.needed}
        for one in diagnosis.findings
    ]
    return {"works": diagnosis.works, "findings": findings, "versions": diagnosis.versions}
