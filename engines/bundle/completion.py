"""Bundles that are passed on without their generator, and completed where they are used.

A generator's weights that are not ours to give away, those of the package random-face (engines.bundle.mobilestylegan),
lie in no such bundle. Its folder is that of the whole bundle, but for one file:

    graphs/own.safetensors    every tensor that is not the generator's, in place of graphs/weights.safetensors

The manifest is that of the whole bundle. Whoever opens the folder gets the whole one from the cache folder, where it is
completed once from the package (engines.packages): FP32 rounded to FP16, to nearest even, and written as any export
writes it. The manifest's digest must come out, or nothing appears. After that neither the package nor a network is
needed.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load

from engines.bundle import mobilestylegan
from engines.bundle.contents import BundleContents
from engines.bundle.integrity import COPY_AGAIN, FileProblem, check_entry, read_regular, refusing
from engines.bundle.manifest import MANIFEST_DIGEST_FILE, MANIFEST_FILE, OWN_WEIGHTS_FILE, SIGNATURE_FILES, WEIGHTS_FILE
from engines.errors import BundleError
from engines.packages import GENERATOR as PACKAGE
from engines.packages import Progress
from engines.store import Digest, cache_folder, made_once, write

GENERATOR = "generator."
"""The beginning of the names of the generator's tensors."""
KIND = "mobilestylegan"
"""The kind of generator that there is a package of."""


def lacks_generator(folder: Path) -> bool:
    """True if a bundle's folder is one to be completed."""
    return os.path.lexists(folder / OWN_WEIGHTS_FILE)


def generator_weights(progress: Progress = lambda line: None) -> dict[str, np.ndarray]:
    """The package's tensors in FP16, by their names in a bundle.

    Args:
        progress: called with one line before the package is fetched.

    Raises:
        RuntimeUnavailableError: if the package is not installed and cannot be fetched.
        PackageError: if it is another version or damaged.
        OutputError: if it would be fetched and the cache folder cannot be written.
    """
    tensors = mobilestylegan.read(progress=progress)
    return {f"{GENERATOR}{name}": array.astype(np.float16) for name, array in tensors.items()}


def weights_file(tensors: Mapping[str, np.ndarray]) -> bytes:
    """A safetensors file of FP16 tensors, byte for byte as `export.weights.write_weights` writes it.

    Written here, not by the library: a manifest's digest must come out under every version of it.
    """
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    parts: list[bytes] = []
    end = 0
    for name in sorted(tensors):
        parts.append(tensors[name].astype("<f2", copy=False).tobytes())
        start, end = end, end + len(parts[-1])
        header[name] = {"dtype": "F16", "shape": list(tensors[name].shape), "data_offsets": [start, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return b"".join([len(text).to_bytes(8, "little"), text, *parts])


def require_package(tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The FP16 tensors of a bundle that are not its generator's, if the generator is the package's to the bit.

    Raises:
        BundleError: if it is not.
        RuntimeUnavailableError, PackageError, OutputError: as `generator_weights`.
    """
    known = generator_weights()
    theirs = {name for name in tensors if name.startswith(GENERATOR)}
    if theirs != known.keys() or any(tensors[name].tobytes() != known[name].tobytes() for name in theirs):
        raise BundleError(
            f"the generator is not that of {PACKAGE}, from which the bundle could be "
            "completed; leave --without-generator out"
        )
    return {name: tensor for name, tensor in tensors.items() if name not in theirs}


def leave_out_generator(bundle: BundleContents) -> None:
    """Makes a whole bundle one without its generator, in place, after a look at whether it can be completed again.

    Raises:
        BundleError, RuntimeUnavailableError, PackageError, OutputError: as `require_package`; the bundle is then as it
            was.
    """
    weights = bundle.read(WEIGHTS_FILE)
    tensors = load(weights)
    own = require_package(tensors)
    if weights_file(tensors) != weights:
        raise BundleError(f"{bundle.name}: {WEIGHTS_FILE} was not written by this edgedit; export the bundle again")
    write(bundle.path / OWN_WEIGHTS_FILE, weights_file(own))
    (bundle.path / WEIGHTS_FILE).unlink()


def complete(bundle: BundleContents, progress: Progress = lambda line: None) -> Path:
    """The folder of the whole bundle in the cache, completed there if it is not yet.

    Of several processes one completes it, and the others wait. A file of it that was damaged since is made again;
    engines that were built in it stay.

    Args:
        bundle: one that lacks its generator.
        progress: called with one line before each work that takes seconds.

    Raises:
        BundleError: if a file of the bundle is missing or damaged.
        RuntimeUnavailableError: if the package with the generator is not installed and cannot be fetched; the message
            names the command that installs it.
        PackageError: if the package is another version or damaged.
        OutputError: if the cache folder cannot be written.
    """
    digest = (bundle.path / MANIFEST_DIGEST_FILE).read_text()
    place = cache_folder() / "bundles" / f"{bundle.name}-{digest[:16]}"

    def make(staging: Path) -> None:
        progress(f"completing {bundle.name} with the generator of the package {PACKAGE.name}, once, in {place}")
        _write(bundle, staging, progress)
        if (place / "engines").is_dir():
            (place / "engines").rename(staging / "engines")

    waiting = f"waiting for another process that completes {bundle.name}"
    made_once(place, lambda: _is_whole(place, bundle, digest), make, lambda: progress(waiting))
    return place


def _is_whole(place: Path, bundle: BundleContents, digest: str) -> bool:
    try:
        line = read_regular(place, MANIFEST_DIGEST_FILE, len(digest))
        manifest = read_regular(place, MANIFEST_FILE, 1 << 30)
    except FileProblem:
        return False
    return (
        line == digest.encode()
        and Digest.of(manifest).sha256 == digest[:64]
        and all(check_entry(place, file, entry) is None for file, entry in bundle.manifest.files.items())
    )


def _write(bundle: BundleContents, folder: Path, progress: Progress) -> None:
    """Writes the whole bundle into a new folder."""
    contents = {file: bundle.read(file) for file in bundle.manifest.files if file != WEIGHTS_FILE}
    contents[WEIGHTS_FILE] = _weights(bundle, progress)
    for file in (MANIFEST_FILE, MANIFEST_DIGEST_FILE, *SIGNATURE_FILES):
        if (bundle.path / file).exists():
            contents[file] = (bundle.path / file).read_bytes()
    for file, data in contents.items():
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).write_bytes(data)


def _weights(bundle: BundleContents, progress: Progress) -> bytes:
    """The whole bundle's weights file, checked against the manifest."""
    entry = bundle.manifest.files.get(WEIGHTS_FILE)
    if bundle.family.generator != KIND or entry is None:
        raise BundleError(
            f"{bundle.name}: there is no package to complete a bundle of family {bundle.family.name} from; "
            f"remove {OWN_WEIGHTS_FILE}, or {COPY_AGAIN}"
        )
    with refusing(bundle.name, BundleError):
        own = read_regular(bundle.path, OWN_WEIGHTS_FILE, entry.bytes)
    try:
        data = weights_file(load(own) | generator_weights(progress))
    except SafetensorError:
        data = b""
    # The package has been checked by now, so a digest that differs is due to the bundle's own part.
    if Digest.of(data).sha256 != entry.sha256:
        raise BundleError(
            f"{bundle.name}: {OWN_WEIGHTS_FILE} is damaged (the digest of the whole weights differs); {COPY_AGAIN}"
        )
    return data
