"""The repository that tritonserver is started on: the image's models, with engines for the GPUs at hand.

The image's own is read-only and holds no engines, but beside each `model.onnx` the strongly typed graph to build from.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from serving.deploy.builders import Batch, Builder
from serving.deploy.engine_cache import EngineCache, EngineKey, Say, graph_digest
from serving.deploy.errors import StartError
from serving.deploy.onnx_file import OnnxFile, read

ENGINE_SOURCE = "model.plan.onnx"
"""The strongly typed graph of a TensorRT model, in its version's folder; its weights lie beside it."""

_BACKEND = re.compile(r'^\s*(?:backend|platform)\s*:\s*"([^"]+)"', re.MULTILINE)
_MAX_BATCH = re.compile(r"^\s*max_batch_size\s*:\s*(\d+)", re.MULTILINE)
_DEFAULT_FILE = re.compile(r'^\s*default_model_filename\s*:\s*"([^"]+)"', re.MULTILINE)
_FILE_OF_CAPABILITY = re.compile(
    r'cc_model_filenames\s*:?\s*[\[{,\s]*key\s*:\s*"([\d.]+)"\s*,?\s*value\s*:\s*"([^"]+)"', re.MULTILINE
)


@dataclass(frozen=True)
class ModelConfig:
    """The part of a model's config.pbtxt that engines depend on."""

    name: str
    tensorrt: bool
    max_batch: int
    default_file: str
    file_of_capability: dict[str, str]
    """Engine by compute capability, such as "9.0"."""

    def engine_file(self, sm: str) -> str:
        """The file that Triton's backend opens on a GPU."""
        return self.file_of_capability.get(f"{sm[2:-1]}.{sm[-1]}", self.default_file)


def read_config(model: Path) -> ModelConfig:
    """Reads config.pbtxt of a model's folder; a StartError if it cannot be read or names no backend."""
    path = model / "config.pbtxt"
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise StartError(f"{path} cannot be read: write the model repository again") from error
    text = re.sub(r"#.*", "", text)
    backend, batch, default = (pattern.search(text) for pattern in (_BACKEND, _MAX_BATCH, _DEFAULT_FILE))
    if backend is None:
        raise StartError(f"{path} names no backend; write the model repository again")
    files = dict(_FILE_OF_CAPABILITY.findall(text))
    for name in (*files.values(), default[1] if default else "model.plan"):
        if "/" in name or name.startswith("."):
            raise StartError(f"{path} names {name!r} as a model file, which is no file name")
    return ModelConfig(
        model.name,
        backend[1] in ("tensorrt", "tensorrt_plan"),
        int(batch[1]) if batch else 0,
        default[1] if default else "model.plan",
        files,
    )


def assemble(
    models: Path, place: Path, builder: Builder, cache: EngineCache, *, tune_for: int = 1, say: Say = print
) -> list[str]:
    """Writes the repository to serve in `place`: every model's files, engines built or taken from the cache.

    Args:
        models: the repository that `edgedit serve repo` wrote.
        place: a folder; one that a former start left there is removed.
        tune_for: the batch whose speed counts most; larger than a model's largest means that one.

    Returns:
        Names of the models whose engine was built now.

    Raises:
        StartError: if a model cannot be read, built or written.
    """
    built = []
    try:
        folders = sorted(path for path in models.iterdir() if path.is_dir())
        if not folders:
            raise StartError(f"{models} holds no models: build the image with what `edgedit serve repo` wrote")
        if place.is_dir():
            shutil.rmtree(place)
        place.mkdir(parents=True)
        for model in folders:
            config = read_config(model)
            if not config.tensorrt:
                shutil.copytree(model, place / model.name)
                continue
            versions = sorted(path for path in model.iterdir() if path.is_dir() and path.name.isdigit())
            if not versions:
                raise StartError(f"{model} has no version; write the model repository again")
            for version in versions:
                (place / model.name / version.name).mkdir(parents=True)
                for name, key, graph in _wanted(config, version, builder, tune_for):
                    target = place / model.name / version.name / name
                    if cache.provide(key, graph, builder, target):
                        built.append(model.name)
                    else:
                        say(f"{model.name}: plan for {key.sm} taken from the cache")
            shutil.copyfile(model / "config.pbtxt", place / model.name / "config.pbtxt")
    except OSError as error:
        raise StartError(f"{error.filename or place} cannot be read or written: {error.strerror or error}") from error
    return built


def _wanted(
    config: ModelConfig, version: Path, builder: Builder, tune_for: int
) -> Iterator[tuple[str, EngineKey, OnnxFile]]:
    """File name, key and graph of every engine that the visible GPUs need."""
    source = version / ENGINE_SOURCE
    if not source.is_file():
        raise StartError(f"{source} is missing: write the model repository for TensorRT, or set EDGEDIT_DEVICE=cpu")
    graph = read(source)
    digest = graph_digest(graph)
    largest = max(config.max_batch, 1)
    batch: Batch = (1, min(max(tune_for, 1), largest), largest)
    architectures = sorted(set(builder.gpus))
    names = {sm: config.engine_file(sm) for sm in architectures}
    _check_distinct(config, names.values())
    for sm, name in names.items():
        yield name, EngineKey(config.name, digest, builder.version, sm, batch, builder.memory_budget), graph


def _check_distinct(config: ModelConfig, names: Collection[str]) -> None:
    if len(set(names)) < len(names):
        raise StartError(
            f"{config.name}: the visible GPUs differ, and its config.pbtxt names one plan for them; "
            "show the container GPUs of one kind"
        )
