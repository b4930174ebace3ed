from __future__ import annotations

import pytest

from engines.errors import RuntimeUnavailableError
from serving.local.install import Installation, ensure


@pytest.fixture(scope="session")
def development_server() -> Installation:
    """The development server, installed into the cache folder if it is not there yet."""
    try:
        return ensure()
    except RuntimeUnavailableError as error:
        pytest.skip(str(error))
