from __future__ import annotations

import pytest

from edgedit.commands.common import parse_size
from engines.errors import EngineError


@pytest.mark.parametrize(
    ("text", "size"), [("1000000", 10**6), ("512M", 512 * 10**6), ("1.5g", 1_500_000_000), ("8KB", 8000), (None, None)]
)
def test_sizes(text: str | None, size: int | None) -> None:
    assert parse_size("--workspace", text) == size


@pytest.mark.parametrize("text", ["", "-1", "0M", "5T", "1e9", "M", "1.2345G", "9" * 13])
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(EngineError, match="is not a size"):
        parse_size("--workspace", text)
