"""Makes a direction of two folders of photos, one with an attribute and one without, and edits along it.

The direction is the difference of the mean codes. A few dozen photos a side, alike in everything else, are a start;
what else differs between the folders comes along.
"""

import argparse
import sys
from pathlib import Path

import numpy as np

import edgedit
from edgedit.demo import ASTRONAUT


def mean_code(editor: edgedit.Editor, folder: Path) -> np.ndarray:
    """The mean of the codes that edits start from, W+ rows x values."""
    photos = sorted(path for path in folder.iterdir() if path.suffix.lower() in (".jpg", ".jpeg", ".png", ".webp"))
    if not photos:
        sys.exit(f"error: {folder} holds no photos")
    codes = []
    for path in photos:
        print(f"inverting {path.name}")
        codes.append(editor.invert(path).host().w_e[0])
    return np.mean(codes, axis=0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("with_it", type=Path, help="folder of photos that have the attribute")
    parser.add_argument("without", type=Path, help="folder of photos that do not")
    parser.add_argument("-o", "--out", type=Path, default=Path("own.safetensors"))
    parser.add_argument("-b", "--bundle", default=edgedit.PORTRAIT_BUNDLE)
    options = parser.parse_args()
    for folder in (options.with_it, options.without):
        if not folder.is_dir():
            sys.exit(f"error: {folder} is no folder")

    editor = edgedit.Editor.load(options.bundle)
    difference = mean_code(editor, options.with_it) - mean_code(editor, options.without)
    direction = edgedit.Direction(
        name=options.out.stem,
        kind="interfacegan",
        space="w+",
        vector=difference.astype(np.float32),
        min_strength=-2,  # one strength is the whole way from one folder's mean to the other's
        max_strength=2,
        description=f"{options.without.name} to {options.with_it.name}",
        source="difference of mean codes of our own photos",
        licence="LicenseRef-own",
    )
    direction.save(options.out)
    print(f"wrote {options.out}; use it with: edgedit edit {ASTRONAUT.name} -d {options.out}:1 -o edited.png")

    editor.add_direction(options.out)
    inversion = editor.invert(ASTRONAUT)
    change = np.abs(editor.edit(inversion, {direction.name: 1.0}).astype(int) - editor.reconstruct(inversion)).mean()
    print(f"at strength 1 it changes the astronaut's face by {change:.1f} grey levels")


if __name__ == "__main__":
    try:
        main()
    except edgedit.EdgeditError as error:
        sys.exit(f"error: {error}")
