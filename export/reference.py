"""The network itself, in FP32, as what engines are measured against."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import torch

from engines.bundle import Bundle
from export.graphs import bundle_graphs


def pytorch_reference(
    bundle: Bundle, device: str = "cpu"
) -> Callable[[str], Callable[[Mapping[str, np.ndarray]], dict[str, np.ndarray]]]:
    """A function from a graph's name to one of its named inputs that runs the bundle's networks in PyTorch, FP32.

    The weights are those the bundle stores, FP16 values in FP32 arithmetic.

    Raises:
        BundleError: if the bundle is damaged.
        ValueError: if its weights do not fit its family.
    """
    graphs = bundle_graphs(bundle, device)

    def reference(graph: str) -> Callable[[Mapping[str, np.ndarray]], dict[str, np.ndarray]]:
        module = graphs[graph].module
        names = [tensor.name for tensor in graphs[graph].inputs]
        outputs = [tensor.name for tensor in graphs[graph].outputs]

        @torch.inference_mode()
        def run(feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
            # Copies: what a runtime gives, and a mapped file, may not be written to.
            values = module(*(torch.tensor(feeds[name], device=device) for name in names))
            values = (values,) if isinstance(values, torch.Tensor) else values
            return {name: value.cpu().numpy() for name, value in zip(outputs, values, strict=True)}

        return run

    return reference
