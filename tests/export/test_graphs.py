from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from PIL import Image

from engines.contracts import PARTS, PIPELINES, graph_contract
from engines.family import FAMILIES
from export.bound import SYSTEM_PREFIX, example_inputs
from export.errors import ExportError
from export.graphs import GRAPHS, method_graphs, select
from export.pipelines import ImageIn, ImageOut
from tests.export.helpers import TINY, random_photos, random_system

CARS = dataclasses.replace(TINY, name="tiny-cars", visible_rows=(16, 48), encoder_size=(16, 32))
SKIP = dataclasses.replace(TINY, name="tiny-skip", rgb_skip=True)


def test_every_grey_level_survives_the_two_doors():
    levels = torch.arange(256, dtype=torch.uint8).view(1, 16, 16, 1).expand(2, 16, 16, 3)
    family = dataclasses.replace(TINY, size=16)
    image = ImageIn((16, 16), (16, 16))(levels)
    expected = levels.numpy().astype(np.float32).transpose(0, 3, 1, 2) / np.float32(127.5) - np.float32(1)
    np.testing.assert_array_equal(image.numpy(), expected)
    assert image.min() == -1 and image.max() == 1
    torch.testing.assert_close(ImageOut(family)(image), levels, rtol=0, atol=0)


def test_the_way_out_clamps_and_rounds_half_to_even():
    values = np.array(
        [-7.0, -1.0, -1.0 + 1 / 255, 1 / 127.5 * 0.5 - 1, 0.0, 2.5 / 127.5 - 1, 0.999, 1.0, 40.0], np.float32
    )
    image = torch.from_numpy(np.resize(values, (1, 3, 16, 16)))
    out = ImageOut(dataclasses.replace(TINY, size=16))(image)
    clipped = np.clip(image.numpy(), np.float32(-1), np.float32(1))
    expected = np.rint((clipped + np.float32(1)) * np.float32(127.5)).astype(np.uint8).transpose(0, 2, 3, 1)
    assert out.dtype == torch.uint8
    np.testing.assert_array_equal(out.numpy(), expected)
    assert ImageOut(dataclasses.replace(TINY, size=16))(torch.zeros(1, 3, 16, 16)).unique().tolist() == [128]


def test_the_way_out_keeps_the_visible_rows():
    rows = torch.linspace(-1, 1, 64).view(1, 1, 64, 1).expand(1, 3, 64, 64)
    whole, cut = ImageOut(TINY)(rows), ImageOut(CARS)(rows)
    assert cut.shape == (1, *CARS.image_shape, 3)
    torch.testing.assert_close(cut, whole[:, 16:48], rtol=0, atol=0)


def test_whole_factors_are_block_means():
    photo = torch.from_numpy(random_photos(CARS, 2))
    image = ImageIn((32, 64), (16, 32))(photo)
    blocks = photo.numpy().astype(np.float64).reshape(2, 16, 2, 32, 2, 3).mean(axis=(2, 4)).transpose(0, 3, 1, 2)
    np.testing.assert_allclose(image.numpy(), blocks / 127.5 - 1, rtol=0, atol=1e-6)


def test_other_ratios_are_antialiased_bilinear():
    photo = random_photos(TINY, 1)
    image = ImageIn((64, 64), (48, 48))(torch.from_numpy(photo))
    pillow = np.asarray(Image.fromarray(photo[0]).resize((48, 48), Image.Resampling.BILINEAR), np.float32)
    levels = (image[0].permute(1, 2, 0).numpy() + 1) * 127.5
    assert np.abs(levels - pillow).max() < 1.01


def test_growing_is_plain_bilinear():
    flat = torch.full((1, 16, 16, 3), 51, dtype=torch.uint8)
    image = ImageIn((16, 16), (32, 32))(flat)
    assert image.shape == (1, 3, 32, 32)
    torch.testing.assert_close(image, torch.full_like(image, 51 / 127.5 - 1))


@pytest.mark.parametrize("family", [TINY, CARS, SKIP], ids=lambda f: f.name)
def test_modules_meet_the_contract(family):
    system = random_system(family)
    for name, graph in method_graphs(system).items():
        module = graph.module
        assert all(key.startswith(SYSTEM_PREFIX) for key in module.state_dict())
        with torch.no_grad():
            outputs = module(*example_inputs(graph.inputs, batch=2))
        outputs = [outputs] if isinstance(outputs, torch.Tensor) else outputs
        inputs, contract = graph_contract(family, name)
        assert graph.inputs == inputs and graph.outputs == contract
        assert len(outputs) == len(contract), name
        for tensor, wanted in zip(outputs, contract, strict=True):
            assert list(tensor.shape) == [2, *wanted.shape[1:]], (name, wanted.name)
            assert str(tensor.dtype) == f"torch.{wanted.dtype}", (name, wanted.name)


@pytest.mark.parametrize("family", [TINY, SKIP], ids=lambda f: f.name)
def test_parts_compose_to_the_pipelines(family):
    system = random_system(family)
    parts = {name: graph.module for name, graph in method_graphs(system).items()}
    photo = torch.from_numpy(random_photos(family, 2))
    image = ImageIn(family.image_shape, family.encoder_size)(photo)
    (delta_w, style_delta) = example_inputs(graph_contract(family, "edit")[0], batch=2)[-2:]
    delta_w, style_delta = 0.1 * delta_w, 0.05 * style_delta
    with torch.no_grad():
        inversion = parts["invert"](photo)
        w, feature = parts["encoder"](image)
        w_e = parts["e4e"](image)
        zero = torch.zeros_like(style_delta)
        own = parts["features"](w_e, zero)
        own = own[0] if family.rgb_skip else own
        for have, wanted in zip(inversion, (w, feature, w_e, own), strict=True):
            torch.testing.assert_close(have, wanted, rtol=0, atol=0)
        edited = parts["features"](w_e + delta_w, style_delta)
        edited = edited[0] if family.rgb_skip else edited
        rgb = [parts["features"](w + delta_w, style_delta)[1]] if family.rgb_skip else []
        fused = parts["editor"](own, edited, feature)
        rendered = parts["generator"](fused, w + delta_w, style_delta, *rgb)
        out = parts["edit"](*inversion, delta_w, style_delta)
        torch.testing.assert_close(out, ImageOut(family)(rendered), rtol=0, atol=0)
        assert (out != parts["reconstruct"](w, feature)).float().mean() > 0.3


def test_a_zero_style_delta_changes_nothing(system, family):
    feature, w_plus, _ = example_inputs(graph_contract(family, "generator")[0], batch=2)
    zero = torch.zeros(2, sum(family.style_channels))
    graphs = method_graphs(system)
    with torch.no_grad():
        image = graphs["generator"].module(feature, w_plus, zero)
        torch.testing.assert_close(image, system.render(feature, w_plus), rtol=0, atol=0)
        own = graphs["features"].module(w_plus, zero)
        torch.testing.assert_close(own, system.features(w_plus), rtol=0, atol=0)
        changed = graphs["generator"].module(feature, w_plus, zero + 0.5)
    assert (changed - image).abs().max() > 0.01


@pytest.mark.parametrize("family", FAMILIES.values(), ids=lambda f: f.name)
def test_every_family_has_all_contracts(family):
    for graph in GRAPHS:
        inputs, outputs = graph_contract(family, graph)
        for tensor in (*inputs, *outputs):
            assert isinstance(tensor.shape[0], str) and all(isinstance(size, int) for size in tensor.shape[1:])
    assert [s.shape[1:] for s in graph_contract(family, "invert")[0]] == [[*family.image_shape, 3]]


def test_examples_repeat(family):
    for graph in GRAPHS:
        first, again = (example_inputs(graph_contract(family, graph)[0], 2) for _ in range(2))
        assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))


def test_selections():
    assert set(select("all")) == set(PARTS) | set(PIPELINES)
    assert select("pipelines") == PIPELINES and select("split") == PARTS
    assert select("edit") == ("edit",)
    assert select(["reconstruct", "features"]) == ("features", "reconstruct")
    for wrong, message in (
        (["features", "best"], "no graph 'best'"),
        ("none", "no graph 'none'"),
        ([], "at least one"),
    ):
        with pytest.raises(ExportError, match=message):
            select(wrong)
