"""Errors of the export."""

from __future__ import annotations

from engines.errors import EdgeditError


class ExportError(EdgeditError):
    """A system cannot be exported, or an exported graph does not compute what the network computes."""
