"""Bundles of the family whose generator is a package's: weights and a card, no graphs. Wheels that pip takes."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from engines.bundle import WEIGHTS_FILE, Bundle, BundleWriter, ProducedBy
from engines.bundle.completion import weights_file
from engines.family import FACES_1024_MOBILE, ModelFamily

OWN = {"e4e.bias": np.arange(3, dtype=np.float16), "latent_avg": np.full((1, 4), 0.1, np.float16)}
"""Tensors that are not the generator's."""


def write_whole(path: Path, tensors: dict[str, np.ndarray], family: ModelFamily = FACES_1024_MOBILE) -> Bundle:
    """A bundle called "face" of these tensors."""
    made = ProducedBy(tools={}, command="pytest", date="2026-01-01T00:00:00Z")
    with BundleWriter(
        path, name="face", family=family, precision="fp16", licence="CC0-1.0", produced_by=made
    ) as writer:
        writer.add_bytes(WEIGHTS_FILE, weights_file(tensors))
        writer.add_bytes("card.md", b"# Face")
    return Bundle.load(path)


def write_wheel(folder: Path, name: str, version: str, files: Mapping[str, bytes]) -> Path:
    """A wheel with these files, which asks for a package that nobody has."""
    stem = f"{name.replace('-', '_')}-{version}"
    about = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\nRequires-Dist: nobody-has-this\n"
    info = {"METADATA": about, "WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n", "RECORD": ""}
    wheel = folder / f"{stem}-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w", zipfile.ZIP_DEFLATED) as archive:
        for path, data in {**files, **{f"{stem}.dist-info/{file}": text for file, text in info.items()}}.items():
            archive.writestr(path, data)
    return wheel
