"""Triton model repositories of bundles: the same models on TensorRT and, without a GPU, on ONNX Runtime."""

from serving.repository.loaded import wait_until_loaded
from serving.repository.writer import (
    Repository,
    RepositoryOptions,
    add_version,
    put_into_repository,
    read_repository,
    write_repository,
)

__all__ = [
    "Repository",
    "RepositoryOptions",
    "add_version",
    "put_into_repository",
    "read_repository",
    "wait_until_loaded",
    "write_repository",
]
