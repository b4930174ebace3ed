"""Edits the face in a photo and puts it back: one photo, one edit."""

import argparse
import sys

from PIL import Image

import edgedit
from edgedit.demo import ASTRONAUT


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("photo", nargs="?", default=ASTRONAUT, help="left out: the photo that comes with edgedit")
    parser.add_argument("-o", "--out", default="smiling.png")
    parser.add_argument("-b", "--bundle", default=edgedit.PORTRAIT_BUNDLE)
    options = parser.parse_args()

    editor = edgedit.Editor.load(options.bundle)
    for direction in editor.directions.values():
        print(f"{direction.name}: {direction.min_strength:g} to {direction.max_strength:g}, {direction.description}")

    picture = editor.edit_photo(options.photo, {"smile": 1.0})  # uint8 height x width x 3
    Image.fromarray(picture).save(options.out)
    print(f"wrote {options.out}")


if __name__ == "__main__":
    try:
        main()
    except edgedit.EdgeditError as error:
        sys.exit(f"error: {error}")
