"""A latent mapper -> a small ONNX graph, w_plus -> delta_w, with its weights inside."""

from __future__ import annotations

import numpy as np
import torch

from engines.family import ModelFamily
from engines.runtimes.ort import session
from export.errors import ExportError
from export.onnx_graph import OPSET, quiet
from training.networks.mapper import LatentMapper

TOLERANCE = 1e-4
"""Largest difference to PyTorch that is accepted, of the largest value."""


def export_mapper(mapper: LatentMapper, family: ModelFamily) -> bytes:
    """A serialised graph: w_plus, float32 batch x N x D, to delta_w of the same shape, for a strength of 1.

    Raises:
        ExportError: if ONNX Runtime does not give what PyTorch gives.
    """
    example = torch.randn(2, family.w_rows, family.style_dim, generator=torch.Generator().manual_seed(0))
    with quiet(), torch.no_grad():
        program = torch.onnx.export(
            mapper,
            (example,),
            dynamo=True,
            opset_version=OPSET,
            input_names=["w_plus"],
            output_names=["delta_w"],
            dynamic_shapes=({0: torch.export.Dim.DYNAMIC},),
            verbose=False,
        )
        expected = mapper(example).numpy()
    assert program is not None, "the dynamo exporter gives a program when it writes no file"
    data = program.model_proto.SerializeToString()
    error = np.abs(session(data).run(["delta_w"], {"w_plus": example.numpy()})[0] - expected).max()
    if not error <= TOLERANCE * np.abs(expected).max():
        raise ExportError(f"the exported mapper differs from PyTorch by {error:.2g}")
    return data
