"""The self-test of a pack: one edit of the photo that comes with edgedit, held against the one made with the pack.

Another CPU adds up in another order, so that a few pixels round the other way: where the digest differs, the two
pictures are compared.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgedit.demo import ASTRONAUT, in_order
from edgedit.editor import Editor
from edgedit.packing.manifest import Expected, PackError, PackInfo
from engines.building.similarity import psnr
from engines.packages import Progress
from engines.photo import open_image
from engines.photo.images import save_image
from engines.store import Digest

BUNDLE_FOLDER = "bundle"
EXPECTED_FILE = "expected.png"
MIN_PSNR = 40.0
"""dB between the two pictures, at least. Rounding leaves more than this; a wrong graph or weight, less."""


@dataclass(frozen=True)
class SelfTest:
    """The result of a self-test."""

    passed: bool
    psnr: float
    """dB between the picture that was drawn and the expected one; infinite for equal ones."""

    def __str__(self) -> str:
        if self.psnr == float("inf"):
            return "self-test OK: the edited photo is the expected one to the bit"
        verdict = "OK" if self.passed else "failed"
        return f"self-test {verdict}: {self.psnr:.1f} dB to the expected picture, at least {MIN_PSNR:g} wanted"


def self_test(folder: str | Path, progress: Progress = lambda line: None) -> SelfTest:
    """Edits the photo that comes with edgedit, with the bundle of a pack or of what was installed from one.

    Args:
        folder: the pack's, or the installation's.
        progress: called with one line per step.

    Raises:
        PackError: if it is no such folder, or the expected picture is damaged.
        EdgeditError: if the bundle cannot be run.
    """
    folder = Path(folder)
    expected = PackInfo.read(folder).expected
    wanted = open_image(folder / EXPECTED_FILE).pixels
    if _digest(wanted) != expected.sha256:
        raise PackError(f"{folder / EXPECTED_FILE} is not the picture that the pack was made with; copy the pack again")
    progress(f"self-test: {expected.direction} {expected.strength:+.3g} on {ASTRONAUT.name}")
    drawn = _draw(Editor.load(folder / BUNDLE_FOLDER), expected.direction, expected.strength)
    if _digest(drawn) == expected.sha256:
        return SelfTest(True, float("inf"))
    if drawn.shape != wanted.shape:
        return SelfTest(False, 0.0)
    similarity = float(psnr(drawn[None], wanted[None])[0])
    return SelfTest(similarity >= MIN_PSNR, similarity)


def write_expected(folder: Path) -> Expected:
    """Draws what a pack's self-test must draw, and writes it into the pack.

    Raises:
        PackError: if the bundle has no direction.
        EdgeditError: if the bundle cannot be run.
    """
    editor = Editor.load(folder / BUNDLE_FOLDER)
    names = in_order(editor.directions)
    if not names:
        raise PackError("the bundle has no direction to test an installation by; export it with one")
    direction = editor.directions[names[0]]
    strength = direction.max_strength / 2 or direction.min_strength / 2
    face = _draw(editor, names[0], strength)
    save_image(folder / EXPECTED_FILE, face)
    return Expected(direction=names[0], strength=strength, sha256=_digest(face), size=face.shape[0])


def _draw(editor: Editor, direction: str, strength: float) -> np.ndarray:
    return editor.portrait(ASTRONAUT).edit_face({direction: strength})


def _digest(picture: np.ndarray) -> str:
    return Digest.of(picture.tobytes()).sha256
