"""A photo inverted once and edited many times: one direction from end to end, as a GIF."""

import argparse
import sys

import numpy as np
from PIL import Image

import edgedit
from edgedit.demo import ASTRONAUT


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("direction", nargs="?", default="smile")
    parser.add_argument("--photo", default=ASTRONAUT, help="left out: the photo that comes with edgedit")
    parser.add_argument("--frames", type=int, default=9)
    parser.add_argument("--pixels", type=int, default=384, help="width and height of the GIF")
    parser.add_argument("-o", "--out", default="sweep.gif")
    parser.add_argument("-b", "--bundle", default=edgedit.PORTRAIT_BUNDLE)
    options = parser.parse_args()

    editor = edgedit.Editor.load(options.bundle)
    if options.direction not in editor.directions:
        sys.exit(f"error: no direction {options.direction}; there are {', '.join(editor.directions)}")
    direction = editor.directions[options.direction]

    portrait = editor.portrait(options.photo)  # the face is found and inverted here, once
    frames = []
    for strength in np.linspace(direction.min_strength, direction.max_strength, options.frames):
        face = Image.fromarray(portrait.edit_face({direction.name: float(strength)}))
        frames.append(face.resize((options.pixels, options.pixels), Image.Resampling.LANCZOS))
        print(f"{direction.name} {strength:+.2f}")
    there_and_back = frames + frames[-2:0:-1]
    first, *others = there_and_back
    comment = f"A photo, edited along {direction.name} with edgedit"
    first.save(options.out, save_all=True, append_images=others, duration=120, loop=0, comment=comment)
    print(f"wrote {options.out}")


if __name__ == "__main__":
    try:
        main()
    except edgedit.EdgeditError as error:
        sys.exit(f"error: {error}")
