"""The portrait bundle on a machine that neither has nor can fetch the package with its generator.

    python -m bench.gpu.carried generator.safetensors

writes the package's tensors in FP16, half its size, on a machine that has it; `python -m bench.gpu --generator
generator.safetensors` completes the bundle with them where the queue runs. The bundle's own digests say whether they
are the right ones.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from safetensors import SafetensorError
from safetensors.numpy import load

from engines.bundle.completion import generator_weights, weights_file
from engines.bundle.manifest import OWN_WEIGHTS_FILE, WEIGHTS_FILE
from engines.errors import BundleError, EdgeditError
from engines.store import write


def join(bundle: Path, generator: Path, out: Path) -> Path:
    """Writes the whole bundle into a folder, which it returns; what is there is replaced.

    Args:
        bundle: folder of a bundle without its generator.
        generator: file of this module's command.
        out: the folder to be written.

    Raises:
        BundleError: if the file is none of tensors. Whether it is the right one is found when the bundle is opened.
    """
    try:
        tensors = load((bundle / OWN_WEIGHTS_FILE).read_bytes()) | load(generator.read_bytes())
    except (OSError, SafetensorError) as error:
        raise BundleError(f"{generator} cannot be read: {error}; write it with python -m bench.gpu.carried") from None
    shutil.rmtree(out, ignore_errors=True)
    shutil.copytree(bundle, out, ignore=shutil.ignore_patterns(Path(OWN_WEIGHTS_FILE).name))
    write(out / WEIGHTS_FILE, weights_file(tensors))
    return out


def main() -> None:
    """Runs the command line."""
    if len(sys.argv) != 2:
        raise SystemExit("usage: python -m bench.gpu.carried FILE.safetensors")
    try:
        write(Path(sys.argv[1]), weights_file(generator_weights(print)))
    except EdgeditError as error:
        raise SystemExit(f"error: {error}") from None


if __name__ == "__main__":
    main()
