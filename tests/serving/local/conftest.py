"""The small repository, and a server of it to kill."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from serving.local.install import Installation
from serving.local.server import LocalTriton
from tests.serving.local.small import ECHO, SLEEPER, revived, write_small


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """A repository with the models `echo` (255 - x) and `sleeper`."""
    return write_small(tmp_path / "small", echo=ECHO, sleeper=SLEEPER)


@pytest.fixture(scope="session")
def killable(tmp_path_factory: pytest.TempPathFactory, development_server: Installation) -> Iterator[LocalTriton]:
    small = write_small(tmp_path_factory.mktemp("killable") / "small", echo=ECHO, sleeper=SLEEPER)
    server = LocalTriton(small, installation=development_server)
    yield server
    server.stop(grace=False)


@pytest.fixture
def server(killable: LocalTriton) -> LocalTriton:
    """One to kill or to stop: the next test gets it started again, if it is not whole."""
    return revived(killable)
