"""Edits every photo of a folder in several ways. Run it again after a stop: what is done is not done again."""

import argparse
import sys
from pathlib import Path

import edgedit

EDITS = {"smiling": {"smile": 1.0}, "younger": {"age": -1.5, "smile": 0.5}}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("photos", type=Path, help="a folder, an archive, or a text file with a path a line")
    parser.add_argument("-o", "--out", type=Path, default=Path("edited"))
    parser.add_argument("-b", "--bundle", default=edgedit.PORTRAIT_BUNDLE)
    options = parser.parse_args()

    report = edgedit.batch(options.photos, options.out, EDITS, bundle=options.bundle, batch_size=2)
    print(
        f"{report.done} of {report.photos} photos done, {report.present} of them before; {report.results} files written"
    )
    for failure in report.failures:
        print(f"{failure.photo}: {failure.failure.why}")


if __name__ == "__main__":
    try:
        main()
    except edgedit.EdgeditError as error:
        sys.exit(f"error: {error}")
