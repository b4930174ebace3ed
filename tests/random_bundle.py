"""A small bundle with random weights, exported as any model is: what tests run that need real graphs of our networks.

It lies beside the tests, since its export takes minutes on a busy machine. Whoever changes what an export writes makes
it anew with `python -m tests.random_bundle`.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from engines.bundle import WEIGHTS_FILE, Bundle, BundleWriter
from engines.contracts import PIPELINES
from engines.directions import Direction, load_directions
from engines.family import EditorArchitecture, ModelFamily

RANDOM_64 = ModelFamily(
    name="random-64",
    size=64,
    style_dim=32,
    mapping_layers=2,
    channel_base=2048,
    channel_max=64,
    feature_resolution=16,
    encoder_size=(64, 64),
    encoder_width=4,
    head_width=32,
    editor=EditorArchitecture(window=8, heads=4, ftem_blocks=1, edem_layers=1, edem_mlp_ratio=2, edfm_blocks=2),
)
"""Channels are multiples of 16, so that 8-bit kernels take its products, and wide enough that these are most of it."""

RANDOM_BUNDLE = Path(__file__).parent / "bundles" / "random"
"""Where it lies: all eight graphs, and four directions called as a trained model's."""


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


def make(path: Path) -> None:
    """Exports it."""
    from export.build import export_bundle
    from tests.export.helpers import random_photos, random_system

    export_bundle(
        random_system(RANDOM_64),
        directions(RANDOM_64),
        random_photos(RANDOM_64, 1),
        path,
        name="random",
        card="# Random\n\nRandom weights, for tests of what runs a bundle; no images.\n",
        licence="CC0-1.0",
        batches=(1,),
        command="python -m tests.random_bundle",
    )


def write_pipelines(path: Path) -> Path:
    """Writes it without the separate graphs: a server of that has four models' processes to start, and not nine."""
    whole = Bundle.load(RANDOM_BUNDLE)
    manifest = whole.manifest
    with BundleWriter(
        path,
        name=whole.name,
        family=whole.family,
        precision=manifest.precision,
        licence=manifest.licence,
        produced_by=manifest.produced_by,
    ) as writer:
        writer.add_file(WEIGHTS_FILE, whole.path / WEIGHTS_FILE)
        for name in PIPELINES:
            writer.add_graph(name, whole.read(whole.graph(name).file))
        for direction in load_directions(whole).values():
            writer.add_direction(direction)
    return path


if __name__ == "__main__":
    make(RANDOM_BUNDLE)
