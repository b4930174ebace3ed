"""The tiny bundle of the engines' tests, and a repository of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from engines.bundle import Bundle
from serving.repository import write_repository
from tests.engines.conftest import write_tiny


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """Shared by all tests: not to be changed."""
    return Bundle.load(write_tiny(tmp_path_factory.mktemp("bundle") / "tiny"))


@pytest.fixture(scope="session")
def models(tiny: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its repository, not to be changed."""
    return write_repository(tiny, tmp_path_factory.mktemp("repository") / "models")
