from __future__ import annotations

import numpy as np
import onnxruntime
import torch

from export.mapper import export_mapper
from tests.training.networks.conftest import TINY
from training.networks.mapper import LatentMapper, mapper_delta


def test_the_graph_gives_the_mappers_delta_for_any_batch() -> None:
    torch.manual_seed(0)
    mapper = LatentMapper(TINY.style_dim, ("coarse", "fine"))
    session = onnxruntime.InferenceSession(export_mapper(mapper, TINY), providers=["CPUExecutionProvider"])
    codes = np.random.default_rng(0).normal(size=(3, TINY.w_rows, TINY.style_dim)).astype(np.float32)
    (deltas,) = session.run(["delta_w"], {"w_plus": codes})
    for code, delta in zip(codes, deltas, strict=True):
        np.testing.assert_allclose(0.1 * delta, mapper_delta(mapper, code), rtol=1e-4, atol=1e-6)
    assert not deltas[:, 4:8].any() and deltas[:, :4].any()
