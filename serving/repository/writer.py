"""Writes a bundle as a Triton model repository, and new versions of its models into one that is there.

    repository.json                 what was written, from which bundle; Triton looks at folders alone
    <model>/config.pbtxt            tensorrt backend; of `edit_image` and `edit_session` there is no other
    <model>/configs/cpu.pbtxt       onnxruntime backend, for a server started with --model-config-name=cpu
    <model>/<version>/model.onnx    the bundle's graph, weights.safetensors beside it
    <model>/<version>/model_sm89.plan, ...   engines out of the bundle
    <model>/<version>/model.plan.onnx        if asked for: what a server on a GPU builds its engines from
    edit_session/<version>/         model.py, session_core.py, lost_picture.py and what they read

A bundle without the three pipelines gives a repository of its separate graphs, without `edit_image` and
`edit_session`.
"""

from __future__ import annotations

import functools
import json
import os
import shutil
from collections.abc import Callable, Collection
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath

from engines.bundle import Bundle
from engines.bundle.integrity import check_entry
from engines.contracts import BATCH, PIPELINES
from engines.directions import load_directions
from engines.errors import BundleError, OutputError, RuntimeUnavailableError
from engines.store import atomic_directory, cannot_write, scratch_directory
from serving.contract import CACHE_BYTES, CPU_CONFIG, EDIT_IMAGE, EDIT_SESSION, GRAPH_MODELS, VERSION
from serving.repository.engines import find_engines
from serving.repository.loaded import wait_until_loaded
from serving.repository.session import session_files
from serving.repository.typed import EnginePrecision, put_engine_source

REPOSITORY_FILE = "repository.json"
_SCHEMA = 1


@dataclass(frozen=True, kw_only=True)
class Repository:
    """The content of repository.json."""

    bundle: str
    """Name of the bundle that was written last."""
    bundle_sha256: str
    """The bundle's digest, see `engines.bundle.Bundle.digest`."""
    version: int
    """The version that holds it."""
    models: list[str]
    plans: dict[str, list[str]]
    """Compute capabilities that a model has an engine for."""
    plan_sources: EnginePrecision | None
    """Precision of the typed graphs, see `serving.repository.typed`; None if there are none."""
    notes: list[str]
    """Engines that are not served, and why."""
    schema_version: int = _SCHEMA

    def remarks(self, graphs: Collection[str]) -> list[str]:
        """Lines on the engines of its models: those that it has, those that it lacks and what to do about them.

        Args:
            graphs: those of the bundle; a model of another name runs no engine.
        """
        lines = list(self.notes)
        if capabilities := sorted({capability for built in self.plans.values() for capability in built}):
            lines.append(f"TensorRT engines for compute capability {', '.join(capabilities)}")
        missing = [name for name in self.models if name in graphs and name not in self.plans]
        if self.plan_sources is not None:
            lines.append(f"a server with a GPU builds the engines that it lacks from the graphs in {self.plan_sources}")
        elif missing:
            lines.append(
                f"no TensorRT engine of {', '.join(missing)}: `edgedit build --runtime tensorrt` makes them, "
                "--build-engines lets the server do so, and without them it runs on the CPU, with "
                "--model-config-name=cpu"
            )
        return lines


@dataclass(frozen=True, kw_only=True)
class RepositoryOptions:
    """The way in which a bundle is served.

    Raises:
        ValueError: at construction, for a negative number of threads or bytes.
    """

    threads: int = 1
    """Threads of ONNX Runtime for one network; 0 for as many as there are cores."""
    cache_bytes: int = CACHE_BYTES
    """Bytes of inversions that `edit_session` may keep."""
    busy_wait: bool = False
    """Have TensorRT wait for the GPU in a loop: fastest, and takes a core per model."""
    plan_sources: EnginePrecision | None = None
    """Write typed graphs of this precision too, for a server that builds its engines itself."""
    dynamic_batching: bool = True
    """Let requests that wait be answered as one batch."""

    def __post_init__(self) -> None:
        if self.threads < 0 or self.cache_bytes < 0:
            raise ValueError("threads and the bytes of the cache must be 0 or more")


def write_repository(bundle: Bundle, out: Path, options: RepositoryOptions | None = None) -> Path:
    """Writes a repository whose models have version 1; one that is there is replaced.

    Args:
        bundle: a verified bundle.
        out: the repository's folder.

    Returns:
        `out`, resolved.

    Raises:
        BundleError: if the bundle is damaged or has no graph to serve.
        EngineError: if an engine folder of TensorRT is damaged.
        OutputError: if `out` is there and is not a model repository, or it cannot be written.
        RuntimeUnavailableError: if tritonclient is not installed, or what types graphs if those are asked for.
    """
    out = Path(os.path.realpath(out))
    if os.path.lexists(out) and not _is_repository(out):
        raise OutputError(f"{out} is there and is not a model repository; give another place, or move it away")
    try:
        with atomic_directory(out) as staged:
            _write(bundle, staged, int(VERSION), options or RepositoryOptions())
    except OSError as error:
        raise cannot_write(out, error) from error
    return out


def add_version(
    bundle: Bundle,
    out: Path,
    options: RepositoryOptions | None = None,
    loaded: Callable[[list[str], int], None] | None = None,
) -> Path:
    """Writes a bundle as the next version of a repository's models, for a running server to load.

    The version before it stays, and is served until the new one is loaded. `edit_session` calls models of its own
    version alone: it must be loaded after them.

    Args:
        bundle: a verified bundle of the same family.
        out: the repository.
        loaded: called with the models and the version that are in place, before `edit_session` is: a server that
            looks for new models by itself must have loaded them when it returns.

    Raises:
        OutputError: if `out` is not a model repository of the same models.
        BundleError, EngineError, RuntimeUnavailableError: as `write_repository`.
    """
    out = Path(os.path.realpath(out))
    there = read_repository(out)
    try:
        with scratch_directory(out) as staged:
            new = _write(bundle, staged, there.version + 1, options or RepositoryOptions())
            graphs = [model for model in new.models if model in GRAPH_MODELS]
            if new.models != there.models or not _same_tensors(staged, out, graphs):
                raise OutputError(
                    f"{out} holds other models, or models of another family, than {bundle.name} gives; "
                    "write a repository of its own"
                )
            for model in graphs:
                _add(staged / model, out / model, new.version)
            if loaded is not None:
                loaded(graphs, new.version)
            for model in new.models[len(graphs) :]:
                _add(staged / model, out / model, new.version)
            (staged / REPOSITORY_FILE).replace(out / REPOSITORY_FILE)
    except OSError as error:
        raise cannot_write(out, error) from error
    return out


def _add(new: Path, there: Path, version: int) -> None:
    # The version before the configuration: a server that looks in between sees a whole model both times.
    (new / str(version)).rename(there / str(version))
    for file in ("config.pbtxt", f"configs/{CPU_CONFIG}.pbtxt"):
        if (new / file).is_file() and (new / file).read_bytes() != (there / file).read_bytes():
            (new / file).replace(there / file)


def _same_tensors(new: Path, there: Path, models: list[str]) -> bool:
    from serving.repository import configs

    def tensors(root: Path, model: str) -> tuple[str, ...]:
        config = configs.parse((root / model / "config.pbtxt").read_text())
        return tuple(map(str, (*config.input, *config.output)))

    return all(tensors(new, model) == tensors(there, model) for model in models)


def put_into_repository(
    bundle: Bundle,
    out: Path,
    options: RepositoryOptions | None = None,
    *,
    new_version: bool = False,
    server: str | None = None,
) -> Repository:
    """Writes a bundle to a repository, as all that is in it or as the next version of its models.

    Args:
        bundle, out, options: as of `write_repository`.
        new_version: add it to the repository that is there; see `add_version`.
        server: gRPC address, host:port, of a server that watches the repository: its `edit_session` gets the version
            once the server has loaded the others.

    Raises:
        OutputError, BundleError, EngineError, RuntimeUnavailableError: as `write_repository` and `add_version`; also
            for a server without a new version.
    """
    if server is not None and not new_version:
        raise OutputError("--server is of a repository that a version is added to: give --add-version too")
    if new_version:
        loaded = None if server is None else functools.partial(wait_until_loaded, server)
        return read_repository(add_version(bundle, out, options, loaded))
    return read_repository(write_repository(bundle, out, options))


def read_repository(path: Path) -> Repository:
    """Reads repository.json.

    Raises:
        OutputError: if the folder is not a model repository that this edgedit writes.
    """
    try:
        fields = json.loads((path / REPOSITORY_FILE).read_text())
        if fields["schema_version"] != _SCHEMA:
            raise ValueError
        return Repository(**fields)
    except (OSError, ValueError, TypeError, KeyError):
        raise OutputError(f"{path} is not a model repository; write one with `edgedit serve repo`") from None


def _is_repository(path: Path) -> bool:
    try:
        read_repository(path)
    except OutputError:
        return False
    return True


def _write(bundle: Bundle, root: Path, version: int, options: RepositoryOptions) -> Repository:
    try:
        from serving.repository import configs
    except ModuleNotFoundError as error:
        raise RuntimeUnavailableError(f"a model repository needs {error.name}: pip install 'edgedit[serve]'") from error
    graphs = [name for name in GRAPH_MODELS if name in bundle.manifest.graphs]
    if not graphs:
        raise BundleError(f"{bundle.name}: there is no graph to serve; export the bundle with its graphs")
    digest, (engines, notes) = bundle.digest(), find_engines(bundle)
    placed = _Weights(bundle)
    for name in graphs:
        entry, own = bundle.graph(name), engines.get(name, {})
        for spec in (*entry.inputs, *entry.outputs):
            if spec.shape[0] != BATCH or not all(isinstance(extent, int) for extent in spec.shape[1:]):
                raise BundleError(f"{bundle.name}: {spec.name} of {name} has no batch first, or dynamic extents after")
        engine_files = {capability: engine.file for capability, engine in own.items()}
        gpu = configs.tensorrt_config(bundle, name, engine_files, options.busy_wait)
        cpu = configs.onnxruntime_config(bundle, name, options.threads)
        if not options.dynamic_batching:
            gpu.ClearField("dynamic_batching")
            cpu.ClearField("dynamic_batching")
        _put(root / name / "config.pbtxt", configs.text(gpu).encode())
        _put(root / name / "configs" / f"{CPU_CONFIG}.pbtxt", configs.text(cpu).encode())
        folder = root / name / str(version)
        model = bundle.read(entry.file)
        _put(folder / "model.onnx", model)
        placed.put(folder, entry.file, model)
        for engine in own.values():
            _put(folder / engine.file, engine.read())
        if options.plan_sources is not None:
            put_engine_source(bundle, name, options.plan_sources, folder)
    models = list(graphs)
    if all(name in graphs for name in PIPELINES):
        directions = load_directions(bundle)
        for name, content in session_files(bundle, digest, directions).items():
            _put(root / EDIT_SESSION / str(version) / name, content)
        session = configs.edit_session_config(bundle, digest, directions.values(), options.cache_bytes)
        if not options.dynamic_batching:
            session.ClearField("dynamic_batching")
        _put(root / EDIT_SESSION / "config.pbtxt", configs.text(session).encode())
        # An ensemble is its configuration, but Triton looks for a folder of its version; not every way of copying a
        # repository keeps one that is empty.
        _put(root / EDIT_IMAGE / str(version) / ".keep", b"")
        _put(root / EDIT_IMAGE / "config.pbtxt", configs.text(configs.edit_image_config(bundle)).encode())
        models += [EDIT_SESSION, EDIT_IMAGE]
    repository = Repository(
        bundle=bundle.name,
        bundle_sha256=digest,
        version=version,
        models=models,
        plans={name: sorted(own) for name, own in engines.items()},
        plan_sources=options.plan_sources,
        notes=notes,
    )
    _put(root / REPOSITORY_FILE, (json.dumps(asdict(repository), indent=1) + "\n").encode())
    return repository


class _Weights:
    """Places external data beside graphs: once on the disk, as hard links where the file system has them."""

    def __init__(self, bundle: Bundle) -> None:
        self._bundle = bundle
        self._first: dict[str, Path] = {}

    def put(self, folder: Path, graph_file: str, model: bytes) -> None:
        """Places the files that a graph names; a name is stored in it as plain text."""
        beside = PurePosixPath(graph_file).parent
        for listed, entry in self._bundle.manifest.files.items():
            path = PurePosixPath(listed)
            if path.parent != beside or path.suffix == ".onnx" or path.name.encode() not in model:
                continue
            first = self._first.setdefault(listed, folder / path.name)
            _link(self._bundle.path / listed if first == folder / path.name else first, folder / path.name)
            # The file that was placed is checked, not the one that was found before.
            if first == folder / path.name and (damage := check_entry(folder, path.name, entry)):
                raise BundleError(damage.refusal(self._bundle.name))


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target, follow_symlinks=False)
    except OSError:
        # Another file system, one without links, or somebody else's file.
        shutil.copyfile(source, target)


def _put(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
