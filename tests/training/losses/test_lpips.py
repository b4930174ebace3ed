from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from training.losses.lpips import LPIPS


def test_equal_images_have_distance_zero(lpips, faces):
    images = faces.tensor(slice(0, 4))
    assert torch.equal(lpips(images, images.clone()), torch.zeros(4))


def test_symmetric_and_positive(lpips, faces):
    first, second = faces.tensor(slice(0, 6)), faces.tensor(slice(6, 12))
    distance = lpips(first, second)
    assert distance.shape == (6,)
    assert (distance > 1e-3).all()
    torch.testing.assert_close(distance, lpips(second, first))


def test_images_of_a_batch_do_not_mix(lpips, faces):
    first, second = faces.tensor(slice(0, 3)), faces.tensor(slice(3, 6))
    single = torch.cat([lpips(first[i : i + 1], second[i : i + 1]) for i in range(3)])
    torch.testing.assert_close(lpips(first, second), single, rtol=1e-4, atol=1e-6)


def test_grows_with_the_disturbance(lpips, faces):
    torch.manual_seed(0)
    image = faces.tensor(slice(0, 1))
    noise = torch.randn_like(image)
    distances = [lpips(image, image + level * noise).item() for level in (0.02, 0.1, 0.4)]
    assert distances == sorted(distances) and distances[2] > 3 * distances[0]


def test_distance_is_that_of_the_definition(lpips, loss_files, faces):
    """Eq. 1 of Zhang et al. 2018: squared differences of unit feature vectors, weighted, averaged, summed."""
    first, second = lpips.features(faces.tensor(slice(0, 2))), lpips.features(faces.tensor(slice(2, 4)))
    tensors = load_file(loss_files.lpips)
    expected = np.zeros(2)
    for level, (a, b) in enumerate(zip(first, second, strict=True)):
        lengths = a.square().sum(dim=1)
        assert (((lengths - 1).abs() < 1e-4) | (lengths == 0)).all()
        head = tensors[f"lin{level}.model.1.weight"].double().numpy()
        expected += (((a - b).double().numpy() ** 2) * head).sum(axis=1).mean(axis=(1, 2))
    np.testing.assert_allclose(lpips.distance(first, second).numpy(), expected, rtol=1e-5)


def test_gradient_flows(lpips, faces):
    image = faces.tensor(slice(0, 2)).requires_grad_(True)
    lpips(image, faces.tensor(slice(2, 4))).sum().backward()
    assert torch.isfinite(image.grad).all() and (image.grad != 0).float().mean() > 0.9


def test_gradient_is_finite_where_all_features_are_zero(loss_files, faces, tmp_path):
    tensors = load_file(loss_files.lpips)
    tensors["features.6.bias"] = torch.full_like(tensors["features.6.bias"], -1e4)
    save_file(tensors, tmp_path / "dark.safetensors")
    image = faces.tensor(slice(0, 2)).requires_grad_(True)
    distance = LPIPS(tmp_path / "dark.safetensors")(image, faces.tensor(slice(2, 4)))
    distance.sum().backward()
    assert torch.isfinite(distance).all() and torch.isfinite(image.grad).all()


def test_weights_are_no_part_of_a_checkpoint(lpips):
    assert not lpips.state_dict() and not list(lpips.parameters())


def test_a_file_that_holds_no_lpips(tmp_path):
    save_file({"x": torch.zeros(1)}, tmp_path / "x.safetensors")
    with pytest.raises(ValueError, match="neither AlexNet nor VGG16"):
        LPIPS(tmp_path / "x.safetensors")


@pytest.mark.parametrize("content", [b"", b"not safetensors", None])
def test_a_file_that_cannot_be_read(tmp_path, content):
    path = tmp_path / "broken.safetensors"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ValueError, match="cannot be read as LPIPS weights"):
        LPIPS(path)


@pytest.mark.parametrize("backbone", ["alexnet", "vgg16"])
def test_real_weights(shared, backbone):
    """Blurring is nearer than another face, and both lie in the range that published comparisons show."""
    weights = shared / "weights" / f"lpips_{backbone}.safetensors"
    files = sorted((shared / "photos").glob("*.jpg"))[:3]
    if not weights.is_file() or len(files) < 3:
        pytest.skip("no LPIPS weights or photos among the shared material")
    images = []
    for file in files:
        with Image.open(file) as image:
            array = np.asarray(image.convert("RGB").resize((64, 64), Image.Resampling.LANCZOS))
        images.append(torch.from_numpy(array.copy()).permute(2, 0, 1).float() / 127.5 - 1)
    photos = torch.stack(images)
    distance = LPIPS(weights)
    assert distance.backbone == backbone
    assert all((tensor >= 0).all() for name, tensor in distance.named_buffers() if name.startswith("lin"))
    small = torch.nn.functional.interpolate(photos, scale_factor=0.5, mode="area")
    blurred = torch.nn.functional.interpolate(small, scale_factor=2.0, mode="bilinear")
    near, far = distance(photos, blurred), distance(photos, photos.roll(1, 0))
    assert torch.equal(distance(photos, photos), torch.zeros(3))
    assert (near > 0.01).all() and (near < far).all()
    assert (far > 0.15).all() and (far < 1.2).all()
