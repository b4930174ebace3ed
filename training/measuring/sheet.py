"""The sheet that shows what directions do to a generator's own pictures, before any photo is involved."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from engines.directions import Direction
from training.data import as_photos, to_pixels
from training.measuring.edits import edit_at
from training.networks.mobilestylegan import MobileGenerator
from training.networks.stylegan2 import Generator

CELL = 256
"""Width of a picture in pixels."""
LABEL = 24
"""Height of the line under a row of pictures in pixels."""
SHARES = (1.0, 0.5, 0.0, 0.5, 1.0)
"""The share of a range's end by column: of the lowest strength, of none, of the highest."""


@torch.no_grad()
def direction_sheet(
    generator: Generator | MobileGenerator, mean: Tensor, directions: Sequence[Direction], *, seed: int = 0
) -> Image.Image:
    """Draws a row per direction: a sample of the generator, another in each row, edited at strengths of its range.

    Args:
        generator: in evaluation mode.
        mean: the mean code of W, D; samples are drawn half of the way towards it.
        directions: in the order of the rows.
        seed: of the samples.

    Returns:
        An RGB picture, 5 x `CELL` pixels across.

    Example:
        >>> direction_sheet(generator, mean_w(generator), [Direction.load("smile.safetensors")]).save("sheet.jpg")
    """
    family = generator.family
    source = torch.Generator().manual_seed(seed)
    z = torch.randn(len(directions), family.style_dim, generator=source).to(mean.device)
    codes = torch.lerp(mean, generator.mapping(z), 0.5)
    rows, columns = family.image_shape
    height = CELL * rows // columns
    sheet = Image.new("RGB", (len(SHARES) * CELL, len(directions) * (height + LABEL)), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(size=LABEL - 8)
    for row, (direction, code) in enumerate(zip(directions, codes, strict=True)):
        y = row * (height + LABEL)
        # A range may lie to one side of zero.
        ends = (min(direction.min_strength, 0.0),) * 2 + (max(direction.max_strength, 0.0),) * 3
        for column, (share, end) in enumerate(zip(SHARES, ends, strict=True)):
            step, styles = edit_at(direction, share * end, family, mean.device)
            w = generator.broadcast(code[None]) + step
            feature, rgb = generator.lower(w, styles)
            image = as_photos(generator.upper(feature, w, rgb, styles), family, (height, CELL))
            sheet.paste(Image.fromarray(to_pixels(image)[0]), (column * CELL, y))
            label = f"{direction.name} {share * end:+g}" if share else "sample"
            draw.text((column * CELL + 4, y + height + 2), label, fill="black", font=font)
    return sheet
