"""Engine folders of a bundle: listed, found, read and verified.

    engines/<runtime>-<target>-<precision>/engine.json    see `engines.bundle.engine_manifest`, with every file's digest
    engines/<runtime>-<target>-<precision>/engine.sha256  digest of engine.json, in the format of `sha256sum`
    engines/<runtime>-<target>-<precision>/...            engines, typed graphs, layer reports

An engine is native code, so nothing of a folder is parsed, let alone deserialised, before its digest matches. Names in
`engines/` that begin with a dot are a builder's locks and half-written folders: no engines, and nothing reads them.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from stat import S_ISREG
from typing import Self

from engines.bundle.contents import BundleContents
from engines.bundle.engine_manifest import (
    ENGINE_DIGEST_FILE,
    ENGINE_FILE,
    ENGINES_FOLDER,
    MAX_ENGINE_MANIFEST_BYTES,
    ONNX_GRAPHS,
    EngineGraph,
    EngineManifest,
    Precision,
    engine_digest_line,
    parse_engine_manifest,
)
from engines.bundle.integrity import FileProblem, check_entry, read_entry, read_regular, refusing, walk
from engines.bundle.preflight import (
    HostInfo,
    build_command,
    is_compatible,
    target_of,
)
from engines.contracts import PARTS
from engines.errors import EngineError
from engines.store import Digest

HIDDEN_ENGINES = f"{ENGINES_FOLDER}/."
"""The beginning of the paths of a builder's locks and half-written folders."""

_AGAIN = "build the engine again, or copy the bundle again"
PREFERRED: tuple[Precision, ...] = ("fp16", "fp32", "int8", "fp8")
"""The order of choice if no precision is requested; the quantised ones have the weakest claims to accuracy."""


@dataclass(frozen=True)
class EngineFolder:
    """An engine folder whose engine.json has been checked and parsed. Made by `EngineFolder.load`."""

    bundle: Path
    """The bundle's directory."""
    owner: str
    """The bundle's name, for messages."""
    name: str
    manifest: EngineManifest
    sha256: str
    """Digest of engine.json, which holds the digests of all else."""

    @property
    def path(self) -> Path:
        """The folder itself. Read its files with `read`."""
        return self.bundle / ENGINES_FOLDER / self.name

    @classmethod
    def load(cls, bundle: BundleContents, name: str) -> Self:
        """Opens a folder; its engine.json is parsed once its digest matches, the other files are not looked at.

        Raises:
            EngineError: if there is no such folder, or its engine.json is missing, damaged or another folder's.
        """
        if name not in (there_are := list_engines(bundle)):
            raise EngineError(f"{bundle.name}: there is no engine {name!r}; there are {', '.join(there_are) or 'none'}")
        with refusing(bundle.name, EngineError):
            return cls._load(bundle.path, bundle.name, name)

    @classmethod
    def at(cls, path: str | Path) -> Self:
        """Opens the folder at BUNDLE/engines/NAME, whatever state the bundle around it is in.

        Raises:
            EngineError: if it is not such a folder, or its engine.json is missing, damaged or another folder's.
        """
        folder = Path(path).resolve()
        if not folder.is_dir() or folder.parent.name != ENGINES_FOLDER:
            raise EngineError(f"{path} is not an engine folder; give one of those in BUNDLE/{ENGINES_FOLDER}")
        root = folder.parent.parent
        with refusing(root.name, EngineError):
            return cls._load(root, root.name, folder.name)

    @classmethod
    def _load(cls, root: Path, owner: str, name: str) -> Self:
        file = f"{ENGINES_FOLDER}/{name}/{ENGINE_FILE}"
        raw = read_regular(root, file, MAX_ENGINE_MANIFEST_BYTES, _AGAIN)
        line = engine_digest_line(raw)
        if read_regular(root, f"{ENGINES_FOLDER}/{name}/{ENGINE_DIGEST_FILE}", len(line), _AGAIN) != line:
            raise FileProblem(file, "digest", f"does not match {ENGINE_DIGEST_FILE}", _AGAIN)
        try:
            manifest = parse_engine_manifest(raw, owner)
        except EngineError as error:
            reason = str(error).removeprefix(f"{owner}: {ENGINE_FILE} ").rpartition("; ")[0]
            raise FileProblem(file, "invalid", reason, _AGAIN) from None
        if manifest.folder != name:
            raise FileProblem(file, "invalid", f"is that of {manifest.folder}", _AGAIN)
        return cls(root, owner, name, manifest, Digest.of(raw).sha256)

    def graph(self, name: str) -> EngineGraph:
        """The entry of a graph.

        Raises:
            EngineError: if the folder has none of that name; the message lists those it has.
        """
        try:
            return self.manifest.graphs[name]
        except KeyError:
            there_are = ", ".join(self.manifest.graphs) or "none"
            raise EngineError(f"{self.owner}: {self.name} has no graph {name!r}; it has {there_are}") from None

    def read(self, relative: str) -> bytes:
        """The content of a file that engine.json lists, read once and checked: these very bytes have its digest.

        Raises:
            EngineError: if engine.json does not list it, or it is missing or damaged.
        """
        entry = self.manifest.files.get(relative)
        if entry is None:
            raise EngineError(f"{self.owner}: there is no {relative} in {ENGINES_FOLDER}/{self.name}")
        with refusing(self.owner, EngineError):
            return read_entry(self.bundle, f"{ENGINES_FOLDER}/{self.name}/{relative}", entry, _AGAIN)

    def verify(self) -> list[FileProblem]:
        """Compares every file with engine.json as it was loaded, and names those that it does not list.

        An empty list means that all is well. Paths are relative to the bundle. Parses nothing.
        """
        try:
            walked = [file for file, _ in walk(self.path, f"{ENGINES_FOLDER}/{self.name}/")]
        except OSError as error:
            folder = f"{ENGINES_FOLDER}/{self.name}"
            return [FileProblem(folder, "irregular", f"cannot be listed: {error.strerror or error}", _AGAIN)]
        return self._problems(walked)

    def _problems(self, walked: Iterable[str]) -> list[FileProblem]:
        files = {f"{ENGINES_FOLDER}/{self.name}/{file}": entry for file, entry in self.manifest.files.items()}
        problems = [p for f, entry in sorted(files.items()) if (p := check_entry(self.bundle, f, entry, _AGAIN))]
        own = {f"{ENGINES_FOLDER}/{self.name}/{file}" for file in (ENGINE_FILE, ENGINE_DIGEST_FILE)}
        return problems + [_unlisted(file) for file in walked if file not in files and file not in own]


def list_engines(bundle: BundleContents) -> list[str]:
    """Names of the bundle's engine folders, sorted. What a builder has not published is none."""
    engines = bundle.path / ENGINES_FOLDER
    try:
        if engines.is_symlink():
            return []
        with os.scandir(engines) as entries:
            folders = [e.name for e in entries if e.is_dir(follow_symlinks=False) and not e.name.startswith(".")]
    except FileNotFoundError:
        return []
    except OSError as error:
        raise EngineError(f"{bundle.name}: {ENGINES_FOLDER} cannot be listed: {error.strerror or error}") from None
    return sorted(name for name in folders if os.path.lexists(engines / name / ENGINE_FILE))


def find_engine(
    bundle: BundleContents,
    runtime: str,
    graph: str,
    precision: str | None = None,
    target: str | None = None,
    host: HostInfo | None = None,
) -> EngineFolder:
    """The engine folder that holds a graph for a runtime.

    Args:
        precision: None takes the first there is of fp16, fp32, int8 and fp8.
        target: "sm86" also finds a folder for several targets; None takes any.
        host: what the machine has: a folder that fits it is taken before others. Whether the one returned fits is
            left to `check_compatible`.

    Raises:
        EngineError: if there is none, listing what there is and the command that builds one; or if a folder of this
            runtime is damaged.
    """
    names = list_engines(bundle)
    folders: list[EngineFolder] = []
    for name in names:
        of_runtime, of_target, of_precision = _split(name)
        if of_runtime == runtime and precision in (None, of_precision) and _covers(of_target, target):
            folder = EngineFolder.load(bundle, name)
            if graph in folder.manifest.graphs:
                folders.append(folder)
    if folders:
        return min(folders, key=lambda folder: _rank(folder, target, host))
    wanted = " ".join(filter(None, (runtime, precision, "engine", target and f"for {target}")))
    if target is None:
        gpu = host.compute_capability if host is not None else None
        target = "cpu" if runtime in ONNX_GRAPHS else target_of(gpu) if gpu else "current"
    command = build_command(
        bundle.path, runtime, target, precision or PREFERRED[0], PARTS if graph in PARTS else [graph]
    )
    raise EngineError(
        f"{bundle.name}: there is no {wanted} of {graph}; there are {_listing(bundle, names)}: run `{command}`"
    )


def engine_problems(root: Path, walked: Iterable[tuple[str, int]]) -> list[FileProblem]:
    """The problems in the `engines` folder of a bundle.

    Args:
        walked: path inside the bundle and `st_mode` of every file in `engines/` that must be some engine's.
    """
    problems: list[FileProblem] = []
    folders: dict[str, list[str]] = {}
    for file, mode in walked:
        _, name, *rest = file.split("/")
        if rest:
            folders.setdefault(name, []).append(file)
        elif S_ISREG(mode):
            problems.append(_unlisted(file))
        else:
            problems.append(FileProblem(file, "irregular", "is not a directory", "remove it"))
    for name, files in folders.items():
        manifest = f"{ENGINES_FOLDER}/{name}/{ENGINE_FILE}"
        if manifest not in files and f"{ENGINES_FOLDER}/{name}/{ENGINE_DIGEST_FILE}" not in files:
            problems += map(_unlisted, files)
            continue
        try:
            problems += EngineFolder._load(root, "", name)._problems(files)
        except FileProblem as problem:
            problems.append(problem)
    return problems


def _unlisted(file: str) -> FileProblem:
    return FileProblem(file, "unlisted", f"is not listed in any {ENGINE_FILE}", "remove it")


def _split(name: str) -> tuple[str, str, str]:
    """Runtime, target and precision of a folder's name; runtimes alone have a dash in them."""
    runtime, target, precision = ("--" + name).rsplit("-", 2)
    return runtime.removeprefix("--"), target, precision


def _covers(targets: str, target: str | None) -> bool:
    return target is None or target == targets or set(target.split("+")) <= set(targets.split("+"))


def _rank(folder: EngineFolder, target: str | None, host: HostInfo | None) -> tuple[bool, bool, int, str]:
    manifest = folder.manifest
    return (
        host is not None and not is_compatible(manifest, host),
        target is not None and manifest.target != target,
        PREFERRED.index(manifest.precision),
        folder.name,
    )


def _listing(bundle: BundleContents, names: list[str]) -> str:
    def describe(name: str) -> str:
        try:
            return f"{name} ({', '.join(EngineFolder.load(bundle, name).manifest.graphs)})"
        except EngineError:
            return f"{name} (damaged)"

    return ", ".join(map(describe, names)) or "none"
