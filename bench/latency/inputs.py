"""The inputs of graphs: random photos and codes, and outputs of the graph before."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np

from engines.contracts import TensorSpec


def feeds(inputs: Iterable[TensorSpec], batch: int, given: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Inputs of a graph at a batch size.

    Args:
        inputs: what it takes.
        batch: images.
        given: tensors by name to be taken where they are an input, for one image; they are repeated. What is not among
            them is random: uint8 over all of its range, anything else normal with a tenth for deviation.
    """
    source = np.random.default_rng(0)
    made = {}
    for spec in inputs:
        shape = [extent if isinstance(extent, int) else batch for extent in spec.shape]
        if spec.name in given:
            made[spec.name] = np.repeat(given[spec.name], batch, axis=0)
        elif spec.dtype == "uint8":
            made[spec.name] = source.integers(0, 256, shape, np.uint8)
        else:
            made[spec.name] = source.normal(0, 0.1, shape).astype(spec.dtype)
    return made
