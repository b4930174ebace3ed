"""NVIDIA's generators: the formulas of their PyTorch code, written out on their own tensors, against ours."""

from __future__ import annotations

import dataclasses

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tests.training.importers import official as o
from tests.training.importers.files import SMALL, contents, write, write_ada
from training.imported import load_generator
from training.imported import write as write_imported
from training.importers.ada import from_ada
from training.importers.checkpoints import import_checkpoint
from training.importers.errors import CheckpointError
from training.methods import load
from training.methods.generator import first_conv_point

Tensors = dict[str, Tensor]


def fir(x: Tensor, kernel: Tensor, pads: tuple[int, int], gain: float) -> Tensor:
    """A true convolution (the kernel flipped) of each channel."""
    x = F.pad(x, (*pads, *pads))
    weight = (kernel * gain).flip(0, 1)[None, None].expand(x.shape[1], 1, -1, -1)
    return F.conv2d(x, weight, groups=x.shape[1])


def affine(s: Tensors, name: str, w: Tensor) -> Tensor:
    return w @ s[f"{name}.affine.weight"].T / w.shape[1] ** 0.5 + s[f"{name}.affine.bias"]


def layer(s: Tensors, name: str, x: Tensor, w: Tensor, clamp: float | None) -> Tensor:
    """Weights modulated and demodulated per sample, not scaled by their fan-in; then noise, bias, activation, clamp."""
    styles = affine(s, name, w)
    outputs = []
    for image, style in zip(x, styles, strict=True):
        weight = s[f"{name}.weight"] * style[None, :, None, None]
        weight = weight * (weight.square().sum(dim=(1, 2, 3), keepdim=True) + 1e-8).rsqrt()
        if name.endswith("conv0"):
            y = F.conv_transpose2d(image[None], weight.transpose(0, 1), stride=2)
            y = fir(y, s[f"{name}.resample_filter"], (1, 1), 4)
        else:
            y = F.conv2d(image[None], weight, padding=1)
        outputs.append(y)
    x = torch.cat(outputs) + s[f"{name}.noise_const"] * s[f"{name}.noise_strength"]
    x = F.leaky_relu(x + s[f"{name}.bias"][None, :, None, None], 0.2) * 2**0.5
    return x if clamp is None else x.clamp(-clamp, clamp)


def to_rgb(s: Tensors, name: str, x: Tensor, w: Tensor, clamp: float | None) -> Tensor:
    styles = affine(s, name, w) / x.shape[1] ** 0.5
    y = torch.einsum("oi,bi,bihw->bohw", s[f"{name}.weight"][:, :, 0, 0], styles, x)
    y = y + s[f"{name}.bias"][None, :, None, None]
    return y if clamp is None else y.clamp(-clamp, clamp)


def synthesis(s: Tensors, ws: Tensor, *, clamp: float | None = None, change=None) -> tuple[Tensor, Tensor]:
    """The image, and the output of block 64's first convolution, which `change` may alter."""
    x = s["synthesis.b4.const"][None].expand(len(ws), -1, -1, -1)
    x = layer(s, "synthesis.b4.conv1", x, ws[:, 0], clamp)
    image = to_rgb(s, "synthesis.b4.torgb", x, ws[:, 1], clamp)
    feature, row, r = x, 1, 8
    while f"synthesis.b{r}.const" in s or f"synthesis.b{r}.conv0.weight" in s:
        block = f"synthesis.b{r}"
        x = layer(s, f"{block}.conv0", x, ws[:, row], clamp)
        if r == 64:
            feature = x
            x = x if change is None else change(x)
        x = layer(s, f"{block}.conv1", x, ws[:, row + 1], clamp)
        sparse = torch.zeros(len(ws), 3, r, r)
        sparse[:, :, ::2, ::2] = image
        image = fir(sparse, s[f"{block}.resample_filter"], (2, 1), 4)
        image = image + to_rgb(s, f"{block}.torgb", x, ws[:, row + 2], clamp)
        row, r = row + 2, 2 * r
    return image, feature


def mapping(s: Tensors, z: Tensor) -> Tensor:
    x = z * (z.square().mean(dim=1, keepdim=True) + 1e-8).rsqrt()
    for i in range(SMALL.mapping):
        weight, bias = s[f"mapping.fc{i}.weight"], s[f"mapping.fc{i}.bias"]
        x = F.leaky_relu(x @ weight.T * 0.01 / x.shape[1] ** 0.5 + bias * 0.01, 0.2) * 2**0.5
    return x


def apart(found: Tensor, expected: Tensor) -> float:
    """Largest difference over the largest value."""
    return float((found - expected).abs().max() / expected.abs().max())


@pytest.fixture(scope="module")
def tensors() -> Tensors:
    return o.fill(o.ada(SMALL))


@pytest.mark.parametrize("protocol", [3, 4])
@torch.no_grad()
def test_images_and_codes_are_nvidias(tmp_path, tensors, protocol):
    mark = tmp_path / "ran"
    path = write_ada(tmp_path / "network.pkl", tensors, protocol=protocol, mark=str(mark))
    assert str(mark).encode() in path.read_bytes()
    result = import_checkpoint("stylegan2-ada", [path])
    assert not mark.exists()
    assert {item.name for _, item in result.left_out} >= {"G", "D", "augment_pipe", "training_set_kwargs"}
    assert "non-commercial" in result.imported.licence
    write_imported(tmp_path / "g.safetensors", result.imported)
    generator, mean = load_generator(tmp_path / "g.safetensors")
    assert torch.equal(mean, tensors["mapping.w_avg"])
    z, ws = torch.randn(3, 32), torch.randn(2, SMALL.rows, 32)
    expected, _ = synthesis(tensors, ws)
    assert expected.abs().max() > 0.5
    assert apart(generator(ws), expected) < 1e-5
    assert apart(generator.mapping(z), mapping(tensors, z)) < 1e-5
    # A flipped up-convolution, or a 1 added to the affines' biases, is told apart by that measure.
    wrong = dict(tensors) | {
        name: t.flip(2, 3) if name.endswith("conv0.weight") else t + 1
        for name, t in tensors.items()
        if name.endswith(("conv0.weight", "affine.bias"))
    }
    assert apart(generator(ws), synthesis(wrong, ws)[0]) > 1e-2


@torch.no_grad()
def test_styleres_in_nvidias_form(tmp_path):
    sizes = dataclasses.replace(SMALL, size=128, base=2048, input=256)
    main = contents("styleres", sizes, o.fill)["checkpoint"]
    write_imported(
        tmp_path / "w.safetensors", import_checkpoint("styleres", write(tmp_path, "styleres", sizes)).imported
    )
    method = load(tmp_path / "w.safetensors")
    assert method.family.encoder_size == (256, 256) and method.family.feature_resolution == 64
    assert method.point == first_conv_point(64)
    s = main["generator_smooth"]
    image, delta = torch.rand(1, 3, 256, 256) * 2 - 1, torch.randn(1, 32) * 0.2
    w = method.encoder(image) + main["latent_avg"].expand(sizes.rows, -1)
    own = synthesis(s, w, clamp=256.0)[1]
    aligned = method.modify_feature_alignment(method.encoder.trunk(image)[0], own)
    residual = method.modify_feature_extraction(aligned)
    for part in ("alignment.out_layer", "extraction.first_layer", "gates.down1"):
        weight = method.get_submodule(f"modify_feature_{part}").weight
        assert torch.equal(weight, s[f"synthesis.b64.modify_feature_{part}.weight"])

    def gated(x: Tensor) -> Tensor:
        change, gate = method.modify_feature_gates(x, residual)
        return x * (1 - gate) + (x + change) * gate

    expected, _ = synthesis(s, w + delta[:, None], clamp=256.0, change=gated)
    assert apart(method.edit(method.invert(image), delta), expected) < 1e-5
    # The bound is reached by what is rendered with weights that are too large.
    louder = {n: t * 200 if n.endswith("b4.conv1.bias") else t for n, t in s.items()}
    assert apart(synthesis(louder, w, clamp=256.0)[0], synthesis(louder, w)[0]) > 0


def test_names_that_are_no_part_of_a_generator(tensors):
    extra = {"synthesis.b4.conv0.weight": torch.ones(1), "synthesis.b5.conv1.bias": torch.ones(1)}
    extra |= {"synthesis.b8.torgb.noise_const": torch.ones(1), "synthesis.b8.skip.weight": torch.ones(1)}
    found, rest = from_ada({n: t for n, t in tensors.items() if n != "mapping.w_avg"} | extra, "here")
    assert found.keys() == o.generator(SMALL).keys()
    assert {name: found[name].shape for name in found} == {n: torch.Size(s) for n, s in o.generator(SMALL).items()}
    assert rest.keys() == extra.keys()


def test_what_is_not_supported_is_named(tensors):
    name = "synthesis.b16.conv0.resample_filter"
    with pytest.raises(CheckpointError, match=f"another FIR filter .*{name}"):
        from_ada(tensors | {name: torch.ones(4, 4) / 16}, "here")
    with pytest.raises(CheckpointError, match="class label"):
        from_ada(tensors | {"mapping.embed.weight": torch.ones(1)}, "here")
