from __future__ import annotations

import dataclasses

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file

from tests.training.importers import official as o
from tests.training.importers.files import message
from training.imported import load_backbone, load_generator, write
from training.importers.checkpoints import import_checkpoint
from training.losses.identity import Identity
from training.losses.moco import SceneIdentity, load_identity
from training.networks.e4e import E4EEncoder
from training.networks.resnet import ResNet50

WIDTH = 4


@pytest.fixture
def official(tmp_path):
    """A training checkpoint of MoCo v2, as facebookresearch/moco saves it."""
    state = o.fill(o.moco_v2(WIDTH, whole=True))
    optimizer = {"state": {0: {"momentum_buffer": torch.ones(2)}}, "param_groups": [{"lr": 0.03}]}
    path = tmp_path / "moco_v2_800ep_pretrain.pth.tar"
    torch.save({"epoch": 800, "arch": "resnet50", "state_dict": state, "optimizer": optimizer}, path)
    return path


@pytest.fixture
def imported(official, tmp_path):
    path = tmp_path / "moco.safetensors"
    write(path, import_checkpoint("moco-v2", [official]).imported)
    return path


def test_the_official_network():
    """25,557,032 parameters, as torchvision has it, less the last layer's 2,049,000."""
    assert sum(p.numel() for p in ResNet50().parameters()) == 23_508_032
    shapes = {name: tuple(tensor.shape) for name, tensor in ResNet50().state_dict().items()}
    assert shapes == o.resnet_50(64)


def test_strides_are_those_of_the_3x3_convolutions():
    net = ResNet50(WIDTH).eval()
    sizes = []
    for layer in (net.layer1, net.layer2, net.layer3, net.layer4):
        layer.register_forward_hook(lambda _, __, y: sizes.append(tuple(y.shape[1:])))
    assert net(torch.zeros(1, 3, 224, 224)).shape == (1, 32 * WIDTH)
    assert sizes == [(16, 56, 56), (32, 28, 28), (64, 14, 14), (128, 7, 7)]
    assert net.layer2[0].conv2.stride == (2, 2) and net.layer2[0].conv1.stride == (1, 1)


def test_import(official):
    result = import_checkpoint("moco-v2", [official])
    stored, state = result.imported.tensors, torch.load(official, weights_only=True)["state_dict"]
    assert result.imported.kind == "moco-v2" and result.imported.family is None
    assert result.imported.licence.startswith("CC-BY-NC-4.0")
    assert {name: tuple(tensor.shape) for name, tensor in stored.items()} == o.resnet_50(WIDTH)
    assert all(torch.equal(tensor, state[f"module.encoder_q.{name}"]) for name, tensor in stored.items())
    left = {(item.tensors, item.why) for _, item in result.left_out}
    assert left == {
        (0, "settings"),
        (1, "optimizer"),
        (4, "the head that features are taken before"),
        (len(o.resnet_50(WIDTH)) + 6, "the slow copy of the network and its queue"),
    }


def test_the_file_that_is_offered_for_download(tmp_path):
    """It holds the query network alone."""
    torch.save({"state_dict": o.fill(o.moco_v2(WIDTH, whole=False))}, tmp_path / "moco.pt")
    assert len(import_checkpoint("moco-v2", [tmp_path / "moco.pt"]).imported.tensors) == 318


def test_other_files_are_recognised(official, tmp_path):
    assert "looks like a MoCo v2 ResNet-50, not like an e4e checkpoint" in message("e4e", official)
    torch.save(o.fill(o.ir_se_50(WIDTH)), tmp_path / "arcface.pth")
    assert "looks like an ArcFace IR-SE-50, not like a MoCo v2 ResNet-50" in message(
        "moco-v2", tmp_path / "arcface.pth"
    )
    content = torch.load(official, weights_only=True)
    del content["state_dict"]["module.encoder_q.layer3.5.conv2.weight"]
    torch.save(content, official)
    assert "1 missing tensor (layer3.5.conv2.weight)" in message("moco-v2", official)


def test_features_of_the_whole_picture(imported):
    """Resized to the nearest pixels, in [-1, 1], of unit length."""
    identity = load_identity(imported)
    assert isinstance(identity, SceneIdentity) and not any(p.requires_grad for p in identity.parameters())
    torch.manual_seed(0)
    images = torch.rand(2, 3, 48, 64) * 2 - 1
    features = identity(images)
    rows, columns = torch.arange(224) * 48 // 224, torch.arange(224) * 64 // 224
    expected = F.normalize(identity.net(images[:, :, rows][:, :, :, columns]), dim=1)
    torch.testing.assert_close(features, expected)
    torch.testing.assert_close(features.norm(dim=1), torch.ones(2))
    torch.testing.assert_close(identity(images.flip(0)), features.flip(0), rtol=1e-4, atol=1e-5)
    images.requires_grad_(True)
    (identity(images)[0] * features[1].detach()).sum().backward()
    assert (images.grad[0] != 0).float().mean() > 0.9 and not images.grad[1].any()


def test_torchvisions_own_file(imported, tmp_path):
    """With the last layer and without counters it says the same."""
    shapes = o.resnet_50(WIDTH) | o.linear("fc", 32 * WIDTH, 10)
    tensors = {name: t for name, t in o.fill(shapes, seed=3).items() if not name.endswith("num_batches_tracked")}
    save_file(tensors, tmp_path / "resnet50.safetensors")
    identity = SceneIdentity(tmp_path / "resnet50.safetensors")
    assert torch.equal(identity.net.layer4[2].conv3.weight, tensors["layer4.2.conv3.weight"])


def test_what_is_no_resnet(imported, tmp_path, loss_files, family):
    broken = tmp_path / "broken.safetensors"
    broken.write_bytes(imported.read_bytes()[:100])
    with pytest.raises(ValueError, match="cannot be read as a ResNet-50"):
        load_identity(broken)
    save_file({"input_layer.0.weight": torch.ones(4, 3, 3, 3)}, broken)
    with pytest.raises(ValueError, match=r"holds no ResNet-50 .* it has no conv1\.weight"):
        load_identity(broken)
    tensors = o.fill(o.resnet_50(WIDTH))
    save_file(tensors | {"layer1.0.conv2.weight": torch.ones(1)}, broken)
    with pytest.raises(ValueError, match=r"is not a ResNet-50: .*layer1\.0\.conv2\.weight"):
        load_identity(broken)
    del tensors["layer4.2.bn3.bias"]
    save_file(tensors, broken)
    with pytest.raises(ValueError, match=r"is not a ResNet-50: layer4\.2\.bn3\.bias is missing"):
        load_identity(broken)
    assert isinstance(load_identity(loss_files.identity), Identity)
    with pytest.raises(ValueError, match="holds moco-v2, not a generator"):
        load_generator(imported)
    with pytest.raises(ValueError, match=r"the backbone moco-v2 in .* is not this encoder's"):
        load_backbone(imported, E4EEncoder(dataclasses.replace(family, encoder_width=WIDTH)))
