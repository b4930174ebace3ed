from __future__ import annotations

import numpy as np
import onnxruntime
import pytest
import torch
from onnx import helper
from PIL import Image

from training.losses.identity import ARCFACE_SIZE, FACE_CROP, Identity, OnnxModule, face_crop


def _reference(path, images: torch.Tensor) -> np.ndarray:
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return np.concatenate([session.run(None, {name: images[i : i + 1].numpy()})[0] for i in range(len(images))])


def _agrees(path) -> None:
    torch.manual_seed(0)
    images = torch.rand(3, 3, 112, 112) * 2 - 1
    with torch.no_grad():
        output = OnnxModule(path)(images)
    expected = _reference(path, images)
    assert output.shape == (3, 512)
    np.testing.assert_allclose(output.numpy(), expected, rtol=1e-5, atol=1e-5 * np.abs(expected).max())


def test_equals_onnxruntime(loss_files):
    _agrees(loss_files.identity)


def test_the_shared_embedder_equals_onnxruntime(shared):
    path = shared / "weights" / "fr_feature.onnx"
    if not path.is_file():
        pytest.skip("no embedder among the shared material")
    _agrees(path)


def test_gradient_is_the_slope(loss_files):
    torch.manual_seed(0)
    net = OnnxModule(loss_files.identity).double()
    image = torch.rand(1, 3, 112, 112, dtype=torch.float64, requires_grad=True)
    way = torch.randn_like(image)
    probe = torch.randn(512, dtype=torch.float64)
    (gradient,) = torch.autograd.grad((net(image) * probe).sum(), image)
    with torch.no_grad():
        slope = ((net(image + 1e-5 * way) - net(image - 1e-5 * way)) * probe).sum() / 2e-5
    assert (gradient * way).sum().item() == pytest.approx(slope.item(), rel=1e-4)


@pytest.mark.parametrize("dilation", [1, 2])
def test_convolution_attributes(onnx_file, tmp_path, dilation):
    source = np.random.default_rng(0)
    weight = source.normal(size=(4, 2, 3, 3)).astype(np.float32)
    nodes = [
        helper.make_node(
            "Conv", ["x", "w"], ["a"], dilations=[dilation] * 2, strides=[2, 1], pads=[2, 1, 2, 1], group=2
        ),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("Flatten", ["b"], ["y"]),
    ]
    path = onnx_file(tmp_path / "n.onnx", nodes, {"w": weight}, ("x", [1, 4, 12, 12]), {"y": [1, None]})
    images = torch.from_numpy(source.normal(size=(2, 4, 12, 12)).astype(np.float32))
    np.testing.assert_allclose(OnnxModule(path)(images).numpy(), _reference(path, images), rtol=1e-4, atol=1e-5)


def test_unknown_operators_are_named(onnx_file, tmp_path):
    nodes = [
        helper.make_node("Tanh", ["x"], ["a"]),
        helper.make_node("Softmax", ["a"], ["b"]),
        helper.make_node("Relu", ["b"], ["y"]),
    ]
    path = onnx_file(tmp_path / "n.onnx", nodes, {}, ("x", [1, 4]), {"y": [1, 4]})
    with pytest.raises(ValueError, match="operators Softmax, Tanh cannot be run"):
        OnnxModule(path)


def test_unequal_padding_is_refused(onnx_file, tmp_path):
    nodes = [helper.make_node("Conv", ["x", "w"], ["y"], pads=[1, 1, 0, 0])]
    weight = np.ones((1, 1, 2, 2), np.float32)
    path = onnx_file(tmp_path / "n.onnx", nodes, {"w": weight}, ("x", [1, 1, 4, 4]), {"y": [1, 1, 4, 4]})
    with pytest.raises(ValueError, match="pads its sides differently"):
        OnnxModule(path)


def _ramps(side: int) -> torch.Tensor:
    """Channel 0 is the vertical position of each pixel's centre as a fraction of the side, channel 1 the horizontal."""
    line = (torch.arange(side, dtype=torch.float32) + 0.5) / side
    y, x = torch.meshgrid(line, line, indexing="ij")
    return torch.stack([y, x, torch.ones_like(x)])[None]


@pytest.mark.parametrize("side", [32, 64, 128, 200, 256, 1024])
@pytest.mark.parametrize("crop", [FACE_CROP, (0.20, 0.17, 0.66)])
def test_face_crop_maps_the_square(side, crop):
    cut = face_crop(_ramps(side), crop=crop)[0]
    assert cut.shape == (3, ARCFACE_SIZE, ARCFACE_SIZE)
    top, left, width = crop
    line = (torch.arange(ARCFACE_SIZE) + 0.5) / ARCFACE_SIZE * width
    torch.testing.assert_close(cut[0], (top + line)[:, None].expand(-1, ARCFACE_SIZE), rtol=0, atol=5e-4)
    torch.testing.assert_close(cut[1], (left + line)[None].expand(ARCFACE_SIZE, -1), rtol=0, atol=5e-4)
    torch.testing.assert_close(cut[2], torch.ones(ARCFACE_SIZE, ARCFACE_SIZE))


def test_a_crop_of_the_whole_image_is_the_image():
    torch.manual_seed(0)
    image = torch.rand(2, 3, 24, 24)
    torch.testing.assert_close(face_crop(image, size=24, crop=(0.0, 0.0, 1.0)), image)


def test_shrinking_averages():
    """A chequerboard of single pixels is grey after shrinking, not aliased."""
    board = (torch.arange(512)[:, None] + torch.arange(512)) % 2 * 2.0 - 1.0
    assert face_crop(board.expand(1, 3, -1, -1)).abs().max() < 0.05


def test_embedding_has_unit_length_and_gradient(identity, faces):
    images = faces.tensor(slice(0, 3)).requires_grad_(True)
    embedding = identity(images)
    assert embedding.shape == (3, 512)
    torch.testing.assert_close(embedding.norm(dim=1), torch.ones(3))
    (embedding[0] @ embedding[1]).backward()
    assert torch.isfinite(images.grad).all()
    assert (images.grad[:2] != 0).any() and not images.grad[2].any()


def test_the_shared_embedder_knows_faces_apart(shared):
    path, files = shared / "weights" / "fr_feature.onnx", sorted((shared / "photos").glob("*.jpg"))[:4]
    if not path.is_file() or len(files) < 4:
        pytest.skip("no embedder or photos among the shared material")
    images = []
    for file in files:
        with Image.open(file) as image:
            array = np.asarray(image.convert("RGB").resize((256, 256), Image.Resampling.LANCZOS))
        images.append(torch.from_numpy(array.copy()).permute(2, 0, 1).float() / 127.5 - 1)
    photos = torch.stack(images)
    with torch.no_grad():
        net = Identity(path)
        plain, darker = net(photos), net(photos * 0.8 - 0.1)
    cosines = plain @ darker.T
    assert cosines.diagonal().min() > 0.9
    assert (cosines - torch.diag(cosines.diagonal())).max() < cosines.diagonal().min()
