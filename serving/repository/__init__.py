"""Triton model repositories of bundles: the same models on TensorRT and, without a GPU, on ONNX Runtime.

writer.py     the repository: staged, published by one rename; new versions of a bundle's models
configs.py    config.pbtxt and configs/cpu.pbtxt, as protobuf messages
engines.py    TensorRT engines out of a bundle's engine folders
typed.py      typed graphs, for a server that builds its engines itself
loaded.py     waits for a running server to load a new version
session.py    the files beside the `edit_session` model
"""

from serving.repository.loaded import wait_until_loaded
from serving.repository.writer import Repository, RepositoryOptions, add_version, read_repository, write_repository

__all__ = ["Repository", "RepositoryOptions", "add_version", "read_repository", "wait_until_loaded", "write_repository"]
