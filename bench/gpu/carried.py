"""The portrait bundle on a machine that neither has nor can fetch the package with its generator.

    python -m bench.gpu.carried generator.safetensors

writes the package's tensors in FP16, half its size, on a machine that has it; `python -m bench.gpu --generator
generator.safetensors` completes the bundle with them where the queue runs. The bundle's own digests say whether they
are the right ones.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro
from safetensors import SafetensorError
from safetensors.numpy import load

from bench.program import program, say
from engines.bundle.completion import generator_weights, weights_file
from engines.bundle.manifest import OWN_WEIGHTS_FILE, WEIGHTS_FILE
from engines.errors import BundleError
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


@dataclass(frozen=True)
class CarryOptions:
    """Write the generator of the portrait bundle to a file, in FP16, for `python -m bench.gpu --generator FILE`."""

    file: Annotated[Path, tyro.conf.Positional]
    """The safetensors file to write."""


def run(options: CarryOptions) -> None:
    """Writes the file.

    Raises:
        EdgeditError: if the generator is not here, or the file cannot be written.
    """
    write(options.file, weights_file(generator_weights(say)))


if __name__ == "__main__":
    program(run, CarryOptions, "bench.gpu.carried")
