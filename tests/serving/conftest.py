"""A real Triton for everything that serves."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from edgedit.editor import open_bundle
from serving.local.install import Installation
from serving.local.server import LocalTriton
from tests.random_bundle import RANDOM_BUNDLE


@pytest.fixture(scope="session")
def triton(development_server: Installation) -> Iterator[LocalTriton]:
    """A server of the random bundle, with shared memory for clients. For tests that leave it as it is; one that kills
    or restarts takes a server of its own."""
    with LocalTriton(open_bundle(RANDOM_BUNDLE), shared_memory=True, installation=development_server) as server:
        yield server
