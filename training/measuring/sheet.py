"""The sheet that shows what directions do to a generator's own pictures, before any photo is involved."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from engines.directions import Direction, resolve
from training.data import as_photos
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
        wide = replace(
            direction, min_strength=min(direction.min_strength, 0.0), max_strength=max(direction.max_strength, 0.0)
        )
        ends = (wide.min_strength,) * 2 + (wide.max_strength,) * 3
        for column, (share, end) in enumerate(zip(SHARES, ends, strict=True)):
            edit = resolve({wide.name: wide}, {wide.name: share * end}, family)
            deltas = [torch.from_numpy(delta).to(mean.device)[None] for delta in (edit.delta_w, edit.style_delta)]
            w = generator.broadcast(code[None]) + deltas[0]
            feature, rgb = generator.lower(w, deltas[1])
            image = as_photos(generator.upper(feature, w, rgb, deltas[1]), family, (height, CELL))[0]
            pixels = image.clamp(-1, 1).add(1).mul(127.5).round().byte().permute(1, 2, 0).cpu().numpy()
            sheet.paste(Image.fromarray(np.ascontiguousarray(pixels)), (column * CELL, y))
            label = f"{wide.name} {share * end:+g}" if share else "sample"
            draw.text((column * CELL + 4, y + height + 2), label, fill="black", font=font)
    return sheet
