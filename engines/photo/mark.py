"""A small mark in a picture's corner that says to people what Content Credentials say to programs."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from engines.photo.images import Pixels

MARK = "edited"
_SHARE = 32
"""Pictures' shorter side over the letters' height."""
_LEAST = 10
"""Smallest letters, in pixels: what can still be read."""


def mark_picture(pixels: Pixels, text: str = MARK) -> Pixels:
    """A copy with a mark in its lower right corner: white letters on a dark ground that lets the picture through.

    Args:
        pixels: uint8 H x W x 3.
        text: what it says; cut short where the picture is too narrow for it.
    """
    image = Image.fromarray(np.ascontiguousarray(pixels))
    size = max(_LEAST, min(image.size) // _SHARE)
    font = ImageFont.load_default(size=size)
    margin = max(2, size // 3)
    room = image.width - 4 * margin
    while len(text) > 1 and font.getlength(text) > room:
        text = f"{text.removesuffix('…')[:-1]}…" if len(text) > 2 else text[:1]
    left, top, right, bottom = font.getbbox(text)
    box = (
        image.width - round(right - left) - 3 * margin,
        image.height - round(bottom - top) - 3 * margin,
        image.width - margin,
        image.height - margin,
    )
    ground = Image.new("L", image.size)
    ImageDraw.Draw(ground).rounded_rectangle(box, radius=margin, fill=150)
    image.paste((0, 0, 0), mask=ground)
    ImageDraw.Draw(image).text((box[0] + margin - left, box[1] + margin - top), text, fill="white", font=font)
    return np.asarray(image)
