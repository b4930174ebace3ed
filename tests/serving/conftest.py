"""A real Triton for everything that serves: the development server, installed when the first test needs it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from edgedit.editor import open_bundle
from engines.errors import RuntimeUnavailableError
from serving.local.install import Installation, ensure
from serving.local.server import LocalTriton
from tests.random_bundle import RANDOM_BUNDLE


@pytest.fixture(scope="session")
def development_server() -> Installation:
    """The development server, installed into the cache folder if it is not there yet."""
    try:
        return ensure()
    except RuntimeUnavailableError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def triton(development_server: Installation) -> Iterator[LocalTriton]:
    """A server of the random bundle, with shared memory for clients. For tests that leave it as it is; one that kills
    or restarts takes a server of its own."""
    with LocalTriton(open_bundle(RANDOM_BUNDLE), shared_memory=True, installation=development_server) as server:
        yield server
