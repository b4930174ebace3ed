"""The error that tells what is wrong with somebody else's checkpoint."""

from __future__ import annotations

from engines.errors import EdgeditError


class CheckpointError(EdgeditError):
    """A checkpoint cannot be read, is of another method or size, or asks for more than tensors need."""
