"""The small repository."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.serving.local.small import ECHO, SLEEPER, write_small


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """A repository with the models `echo` (255 - x) and `sleeper`."""
    return write_small(tmp_path / "small", echo=ECHO, sleeper=SLEEPER)
