from __future__ import annotations

import pytest

from bench.serve.options import DEMO
from engines.errors import RuntimeUnavailableError
from serving.local.install import Installation, ensure


@pytest.fixture(scope="session")
def development_server() -> Installation:
    """The development server, installed into the cache folder if it is not there yet."""
    if not DEMO.is_dir():
        pytest.skip("the demo bundle is not here")
    try:
        return ensure()
    except RuntimeUnavailableError as error:
        pytest.skip(str(error))
