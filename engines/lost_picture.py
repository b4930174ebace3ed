"""The test of whether an edit has left a picture: one rule for the edit session and for the model that Triton serves.

Needs NumPy alone, since it is copied beside the served model `edit_session`, where edgedit is not installed.
"""

from __future__ import annotations

import numpy as np

LOST = "the edit is so large that nothing is left of the picture; use smaller strengths or deltas"
"""The message about such an edit."""

_LARGE = 5.0
"""Changes of a code or style, whose own values are about 1, from which on an edit is looked at for being a picture."""


def is_lost(images: np.ndarray, *deltas: np.ndarray) -> bool:
    """True if one of some edited photos is no picture any more, after a delta of `_LARGE` or more.

    Where a delta is too large, numbers overflow and the photo turns black, or all that is left is black and white:
    less than a hundredth of its values lie in between, of which a photo has nearly all. A grid of them tells.

    Args:
        images: uint8 B x h x w x 3.
        deltas: what was added to codes and styles, of any shapes.
    """
    if all(np.abs(delta).max() < _LARGE for delta in deltas):
        return False
    grid = images[:, ::4, ::4]
    between = ((grid > 0) & (grid < 255)).mean(axis=(1, 2, 3))
    return bool((between < 0.01).any())
