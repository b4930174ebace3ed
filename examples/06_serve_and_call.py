"""Calls a Triton server that serves a bundle, such as that of `edgedit serve up` in another shell.

The photo is opened, and the face in it found, here: the server sees the face alone. Needs the extra `serve`.
"""

import argparse
import sys

from PIL import Image

import edgedit
from edgedit.demo import ASTRONAUT


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("address", nargs="?", default="127.0.0.1:8001", help="gRPC of the server")
    parser.add_argument("--photo", default=ASTRONAUT, help="left out: the photo that comes with edgedit")
    parser.add_argument("-o", "--out", default="served.png")
    options = parser.parse_args()

    with edgedit.Client(options.address) as client:
        # A client gives pixels: that the picture was edited is yours to say where you show it.
        Image.fromarray(client.edit_photo(options.photo, {"smile": 1.0})).save(options.out)
        print(f"wrote {options.out}")

        handle = client.invert(options.photo)  # the inversion stays on the server, under this handle
        for strength, face in client.sweep(handle, "age", -1, 1, 3):
            print(f"age {strength:+g}: mean grey level {face.mean():.1f}")


if __name__ == "__main__":
    try:
        main()
    except edgedit.EdgeditError as error:
        sys.exit(f"error: {error}")
