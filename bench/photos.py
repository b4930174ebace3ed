"""The edits of photos in other colours, other light and another way up than those that models are trained on.

    python -m bench.photos --photos FOLDER --out FILE

Each photo is edited as it is, in black-and-white, in sepia, at a quarter and an eighth of its brightness, by the means
of `engines.photo` and without them, and its face is looked for in its quarter turns.
"""

from __future__ import annotations

import io
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from PIL import Image

from bench.program import program, save, say
from edgedit.editor import PORTRAIT_BUNDLE, Editor
from engines.bundle.provenance import provenance
from engines.errors import ImageError
from engines.photo import Alignment, Cut, Tone, feather, open_image
from engines.photo.images import SUFFIXES

SEPIA = np.array([(0.393, 0.769, 0.189), (0.349, 0.686, 0.168), (0.272, 0.534, 0.131)])
TINT = 8
"""Levels that an edit may move a pixel's channels apart by, beside what the line of its colours asks for."""


@dataclass(frozen=True, kw_only=True)
class PhotoBenchOptions:
    """Edit odd versions of photos and write down how far off the results are."""

    photos: Path
    """A folder of photos of faces."""
    bundle: Path = PORTRAIT_BUNDLE
    """The bundle that edits them."""
    direction: str = "smile"
    """The direction of the edit."""
    strength: float = 1.5
    """The strength of the edit."""
    out: Path
    """The JSON file to write."""


def measure(editor: Editor, photo: np.ndarray, edits: dict[str, float]) -> dict[str, Any]:
    """One photo's figures, in levels unless they say otherwise.

    Args:
        editor: edits.
        photo: uint8 H x W x 3.
        edits: strength by direction.

    Returns:
        `grey` and `sepia`: the share of the face's pixels tinted, with and without the photo's tone, and how far
        apart the channels of the result lie at most; `dark`: the mean difference, in the light of the photo and over
        the face, to the edit of the photo as it is, and that edit's own mean change; `turned`: the largest and the mean
        difference of the crop, by degrees, or the error.
    """
    grey = np.asarray(Image.fromarray(photo).convert("L").convert("RGB"))
    sepia = _jpeg(np.rint(photo @ SEPIA.T).clip(0, 255).astype(np.uint8))
    upright = editor.portrait(photo)
    lit = upright.edit(edits, mode="detail")
    row: dict[str, Any] = {"plain": {"gain": upright.cut.tone.gain, "toned": upright.cut.tone.line is not None}}
    neutral, brown = np.ones(3), SEPIA.sum(axis=1)
    for name, pixels, line in (("grey", grey, neutral), ("grey_jpeg", _jpeg(grey), neutral), ("sepia", sepia, brown)):
        toned, plain, cut = _both(editor, pixels, edits)
        inside = _inside(cut, pixels)
        row[name] = {
            "tinted": _tinted(toned, pixels, inside, line),
            "tinted_without": _tinted(plain, pixels, inside, line),
            "channels_apart": int(np.ptp(toned.astype(int), axis=2).max()),
        }
    for share in (4, 8):
        pixels = np.rint(photo / share).astype(np.uint8)
        lifted, plain, cut = _both(editor, pixels, edits)
        inside = _inside(upright.cut, pixels)
        row[f"dark_{share}"] = {
            "gain": cut.tone.gain,
            "off": _mean(lifted * float(share) - lit, inside),
            "off_without": _mean(plain * float(share) - lit, inside),
            "change": _mean(lit - photo.astype(float), inside),
        }
    row["turned"] = {str(90 * turn): _turned(editor, photo, upright.aligned, turn) for turn in (1, 2, 3)}
    return row


def _both(editor: Editor, pixels: np.ndarray, edits: dict[str, float]) -> tuple[np.ndarray, np.ndarray, Cut]:
    """A photo edited with its tone and, the same crop, without it."""
    portrait = editor.portrait(pixels)
    plain = replace(portrait.cut, tone=Tone())
    inversion = editor.session.invert(plain.crop[None])
    without = plain.put_back(editor.edit(inversion, edits), editor.reconstruct(inversion), "detail")
    return portrait.edit(edits, mode="detail"), without, portrait.cut


def _turned(editor: Editor, photo: np.ndarray, crop: np.ndarray, turn: int) -> dict[str, Any]:
    try:
        aligned = editor.portrait(np.ascontiguousarray(np.rot90(photo, turn))).aligned
    except ImageError as error:
        return {"error": str(error)}
    off = np.abs(aligned.astype(int) - crop)
    return {"most": int(off.max()), "mean": float(off.mean())}


def _jpeg(pixels: np.ndarray) -> np.ndarray:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "JPEG", quality=75)
    return open_image(stream.getvalue()).pixels


def _inside(cut: Cut, pixels: np.ndarray) -> np.ndarray:
    """A mask of the pixels at which the edit has its full weight, H x W."""
    alignment = cut.alignment
    assert isinstance(alignment, Alignment)
    matrix = alignment.photo_to_crop(2)
    rows, columns = np.mgrid[: pixels.shape[0], : pixels.shape[1]] + 0.5
    return feather(*(row[0] * columns + row[1] * rows + row[2] - 1 for row in matrix[:2])) == 1


def _tinted(result: np.ndarray, photo: np.ndarray, inside: np.ndarray, line: np.ndarray) -> float:
    shift = (result.astype(float) - photo) / line
    # A photo's line bends where the strongest channel is cut off at 255. How light its colours are there is read
    # from the weakest, since JPEG leaves what was cut off at a little less than 255.
    light = np.maximum(result, photo)[:, :, line.argmin()] / line.min() * line.max()
    whole = (light < 255 - TINT) & (np.minimum(result, photo).min(axis=2) > 0)
    return float((np.ptp(shift, axis=2) > TINT)[inside & whole].mean())


def _mean(difference: np.ndarray, inside: np.ndarray) -> float:
    return float(np.abs(difference)[inside].mean())


def run(options: PhotoBenchOptions) -> None:
    """Measures every photo of the folder, and writes the file.

    Raises:
        EdgeditError: if the bundle or a photo cannot be used, or there is no photo.
    """
    editor = Editor.load(options.bundle, threads=1)
    paths = sorted(path for path in options.photos.glob("*") if path.suffix.lower() in SUFFIXES)
    if not paths:
        raise ImageError(f"{options.photos} holds no photo")
    rows = []
    for path in paths:
        rows.append(measure(editor, open_image(path).pixels, {options.direction: options.strength}))
        say(f"{path.name}: {rows[-1]}")
    medians = {
        name: {key: median(row[name][key] for row in rows) for key in rows[0][name]}
        for name in ("grey", "grey_jpeg", "sepia", "dark_4", "dark_8")
    }
    edit = {"bundle": editor.session.bundle.name, "direction": options.direction, "strength": options.strength}
    result = provenance("python -m bench.photos --photos FOLDER --out FILE") | edit
    save(options.out, result | {"medians": medians, "rows": rows})


def main() -> None:
    """Runs the command line."""
    program(run, PhotoBenchOptions, "bench.photos")


if __name__ == "__main__":
    main()
