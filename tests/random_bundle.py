"""A small bundle with random weights, exported as any model is: what tests run that need real graphs of our networks.

It is made once and kept in pytest's cache, until a source that it depends on or a library's version changes.
"""

from __future__ import annotations

import fcntl
import hashlib
from importlib import metadata
from pathlib import Path

import numpy as np

from engines.directions import Direction
from engines.family import EditorOptions, ModelFamily

RANDOM_64 = ModelFamily(
    name="random-64",
    size=64,
    style_dim=32,
    mapping_layers=2,
    channel_base=1024,
    channel_max=32,
    feature_resolution=16,
    encoder_size=(64, 64),
    encoder_width=8,
    head_width=32,
    editor=EditorOptions(window=8, heads=4, ftem_blocks=1, edem_layers=1, edem_mlp_ratio=2, edfm_blocks=1),
)
"""Channels are multiples of 16, so that 8-bit kernels take its products."""

_ROOT = Path(__file__).resolve().parent.parent
_SOURCES = ("export", "training/networks", "tests/random_bundle.py", "tests/export/helpers.py")
_LIBRARIES = ("torch", "onnx", "onnxscript", "numpy", "safetensors")


def directions(family: ModelFamily) -> list[Direction]:
    """Four directions in W whose edits of a random model are to be seen and do not saturate the picture."""
    source = np.random.default_rng(3)
    return [
        Direction(
            name=name,
            kind="interfacegan",
            space="w",
            vector=source.normal(0, 0.1, family.style_dim).astype(np.float32),
            min_strength=-3,
            max_strength=4,
            description=f"a random direction called {name}",
            source="made up",
            licence="CC0-1.0",
        )
        for name in ("smile", "age", "female", "yaw")
    ]


def _key() -> str:
    """Digest of what the bundle depends on."""
    digest = hashlib.sha256()
    for source in _SOURCES:
        path = _ROOT / source
        for file in sorted(path.rglob("*.py")) if path.is_dir() else [path]:
            digest.update(file.read_bytes())
    digest.update(" ".join(f"{name} {metadata.version(name)}" for name in _LIBRARIES).encode())
    return digest.hexdigest()[:16]


def make(folder: Path) -> Path:
    """The bundle, made in `folder` if it is not there yet; of several processes one makes it and the others wait."""
    from export.build import export_bundle
    from tests.export.helpers import random_photos, random_system

    path = folder / f"random-{_key()}"
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "random.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not path.is_dir():
            export_bundle(
                random_system(RANDOM_64),
                RANDOM_64,
                directions(RANDOM_64),
                random_photos(RANDOM_64, 1),
                path,
                name="random",
                card="# Random\n",
                licence="CC0-1.0",
                batches=(1,),
                threads=1,
            )
    return path
