"""Turns e4e's official checkpoint into a verified bundle of ONNX graphs. Nothing in the checkpoint is run.

Needs the extras `train` and `export`, and the file, which its authors publish.
"""

import argparse
import sys
from pathlib import Path

import edgedit


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoint", type=Path, help="such as e4e_ffhq_encode.pt")
    parser.add_argument("-o", "--out", type=Path, default=Path("e4e-bundle"))
    parser.add_argument("--graph", nargs="+", default=["pipelines"], help="invert, edit and reconstruct if left out")
    options = parser.parse_args()

    weights = options.out.with_suffix(".safetensors")
    edgedit.import_weights("e4e", [options.checkpoint], weights)
    print(f"wrote {weights}")
    report = edgedit.export(options.out, weights=weights, graphs=options.graph, progress=print)
    graphs = report["verification"]["graphs"]
    print(f"wrote {options.out}: {', '.join(graphs)} agree with PyTorch, with {report['peak_gib']:.1f} GiB at most")


if __name__ == "__main__":
    try:
        main()
    except edgedit.EdgeditError as error:
        sys.exit(f"error: {error}")
