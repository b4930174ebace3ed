"""The light e4e's trunk against the embedder it starts from, and its linear map against ridge regression."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from training.networks.light import LightE4EEncoder
from training.networks.mobilefacenet import MobileFaceNet, load_trunk


def test_the_trunk_computes_what_the_embedder_computes(shared, tmp_path):
    path = shared / "weights" / "fr_feature.onnx"
    if not path.is_file():
        pytest.skip("no embedder among the shared material")
    trunk = MobileFaceNet().eval().requires_grad_(False)
    assert load_trunk(trunk, path)
    model = onnx.load(path)
    # The sums that end the second and the third stage.
    sums = [node.output[0] for node in model.graph.node if node.op_type == "Add"]
    for name in (sums[9], sums[11]):
        model.graph.output.append(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None))
    image = np.random.default_rng(0).uniform(-1, 1, (1, 3, 112, 112)).astype(np.float32)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    expected = session.run([sums[9], sums[11]], {model.graph.input[0].name: image})
    for ours, theirs in zip(trunk(torch.from_numpy(image)), expected, strict=True):
        np.testing.assert_allclose(ours.numpy(), theirs, rtol=1e-3, atol=1e-4)


def test_another_embedder_leaves_the_trunk_as_it_was(loss_files):
    trunk = MobileFaceNet()
    before = {name: value.clone() for name, value in trunk.state_dict().items()}
    assert not load_trunk(trunk, loss_files.identity)
    assert all(torch.equal(value, before[name]) for name, value in trunk.state_dict().items())


def test_the_linear_map_is_found_where_there_is_one(mobile):
    torch.manual_seed(0)
    encoder = LightE4EEncoder(mobile).eval()
    images = torch.rand(300, 3, 128, 128) * 2 - 1
    with torch.no_grad():
        inputs = torch.cat([encoder.inputs(part) for part in images.split(50)])
        truth = torch.randn(mobile.style_dim, inputs.shape[1]) / inputs.std(dim=0).clamp_min(1e-3)
        mean = torch.randn(mobile.style_dim)
        codes = mean + (inputs - inputs.mean(dim=0)) @ truth.T + 0.5
        encoder.set_statistics(codes)
        encoder.fit(inputs, codes, mean, penalty=1e-2)
        found = encoder(images[:20])[:, 0] + mean
    assert ((found - codes[:20]) / codes.std(dim=0)).square().mean() < 0.05
