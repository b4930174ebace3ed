"""Builds engines of a bundle and shows in which precision they compute.

As it stands it writes typed graphs for ONNX Runtime on this CPU. With the extra `rtx`, `--runtime tensorrt-rtx --target
sm89 --precision fp16` builds for a GPU that need not be here.
"""

import argparse
import sys
from collections import Counter
from pathlib import Path

import edgedit
from engines.bundle import Bundle


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runtime", default="onnxruntime")
    parser.add_argument("--target", default="cpu")
    parser.add_argument("--precision", default="fp32")
    parser.add_argument("--gpu", default="rtx4060", help="a GPU to estimate for")
    parser.add_argument("-b", "--bundle", type=Path, default=edgedit.PORTRAIT_BUNDLE)
    options = parser.parse_args()

    for floor in edgedit.estimate(options.bundle, options.gpu):
        print(f"{floor.graph}: no {options.gpu} needs less than {floor.milliseconds:.2f} ms in FP16")

    manifest = edgedit.build(
        options.bundle,
        runtime=options.runtime,
        target=options.target,
        precision=options.precision,
        graphs=["edit", "reconstruct"],
    )
    for name, graph in manifest.graphs.items():
        print(f"{name}: {graph.proof.share:.1%} of {graph.proof.macs / 1e9:.1f} GMACs in {graph.proof.asked}")
        for reason, layers in Counter(layer.reason for layer in graph.proof.wide).items():
            print(f"  {layers} layers that are wider: {reason}")
    whole = Bundle.load(options.bundle)  # the portrait bundle's lies in the cache folder
    print(f"its layers: edgedit inspect {whole.path / 'engines' / manifest.folder} --html report.html")


if __name__ == "__main__":
    try:
        main()
    except edgedit.EdgeditError as error:
        sys.exit(f"error: {error}")
