from __future__ import annotations

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch

from engines.photo.resample import resize
from export.resize import Resize
from tests.export.helpers import export_door

SIZES = [((64, 64), (16, 16)), ((32, 64), (16, 32)), ((48, 48), (16, 16)), ((40, 24), (16, 16)), ((16, 16), (32, 48))]


@pytest.mark.parametrize("kind", ["area", "bilinear", "bicubic"])
@pytest.mark.parametrize(("source", "target"), SIZES)
def test_layers_compute_what_the_session_does(kind, source, target):
    images = np.random.default_rng(0).choice(np.float32([-1, 0.2, 1]), (2, 3, *source))
    made = Resize(source, target, kind)(torch.from_numpy(images)).numpy()
    np.testing.assert_allclose(made, resize(images, target, kind), rtol=0, atol=1e-6)


def test_whole_factors_are_a_few_taps_and_no_matrix():
    module = Resize((1024, 1024), (256, 256), "bicubic")
    assert sorted(tuple(b.shape) for b in module.buffers()) == [(3, 1, 1, 16), (3, 1, 16, 1), (256,), (256, 1)]
    assert not module.state_dict()
    # Where nothing is resized nothing is computed.
    assert not list(Resize((64, 64), (64, 64), "bicubic").buffers())


@pytest.mark.parametrize(("source", "target"), [SIZES[0], SIZES[3]])
def test_a_graph_has_plain_operators_and_gives_the_same(source, target, tmp_path):
    file = export_door(tmp_path / "door.onnx", source, target)
    # TensorRT reads no antialiased Resize.
    assert "Resize" not in {node.op_type for node in onnx.load(file).graph.node}
    photos = np.random.default_rng(1).integers(0, 256, (3, *source, 3), np.uint8)
    (made,) = ort.InferenceSession(file, providers=["CPUExecutionProvider"]).run(None, {"image": photos})
    wanted = resize(photos.transpose(0, 3, 1, 2) / np.float32(127.5) - np.float32(1), target, "bicubic")
    np.testing.assert_allclose(made, wanted, rtol=0, atol=1e-5)
