"""Edits the face in a photo and puts it back: one photo, one edit."""

import argparse
import sys

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

    edits = {"smile": 1.0}
    picture = editor.edit_photo(options.photo, edits)  # uint8 height x width x 3
    editor.save(options.out, picture, edits)  # and the file says that it was edited, and how
    print(f"wrote {options.out}")


if __name__ == "__main__":
    try:
        main()
    except edgedit.EdgeditError as error:
        sys.exit(f"error: {error}")
