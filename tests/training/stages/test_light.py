"""The light family's stages: pairs, windows, and a few steps of each, resumed exactly."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
import torch

from engines.directions import Direction
from training.data import FaceSet
from training.methods.paper import EditingSystem
from training.networks.build import e4e_encoder
from training.networks.mobilestylegan import MobileGenerator
from training.running.loop import LoopOptions, train
from training.stages.light_e4e import LightE4EOptions, LightE4EStage
from training.stages.light_editor import LightEditorOptions, LightEditorStage
from training.stages.light_encoder import LightEncoderOptions, LightEncoderStage
from training.stages.pairs import SHARD, PairSet, load_pairs, render
from training.stages.windows import MARGIN, PixelWeights, Windowed, laid_over, picture_loss


@pytest.fixture(scope="module")
def generator(mobile) -> MobileGenerator:
    torch.manual_seed(4)
    return MobileGenerator(mobile).eval().requires_grad_(False)


@pytest.fixture(scope="module")
def photos() -> FaceSet:
    images = np.random.default_rng(0).integers(0, 256, (8, 128, 128, 3), dtype=np.uint8)
    return FaceSet(images, tuple(f"{i}.png" for i in range(8)))


@pytest.fixture(scope="module")
def pairs(mobile, generator, tmp_path_factory) -> PairSet:
    folder = tmp_path_factory.mktemp("pairs")
    render(generator, folder, 5)
    assert [path.name for path in folder.iterdir()] == ["00000.npz"]
    return load_pairs(folder)


def smile(mobile) -> Direction:
    vector = np.random.default_rng(5).normal(0, 0.3, mobile.style_dim).astype(np.float32)
    return Direction(
        name="smile",
        kind="interfacegan",
        space="w",
        vector=vector,
        min_strength=-1.0,
        max_strength=2.0,
        description="",
        source="test",
        licence="Apache-2.0",
    )


def test_pairs_are_what_the_generator_draws(pairs, generator):
    assert len(pairs) == SHARD and pairs.images.shape[1:] == (128, 128, 3)
    images, codes = pairs.batch(np.array([0, 7]))
    drawn = generator(generator.broadcast(codes))
    small = torch.nn.functional.interpolate(drawn, size=(128, 128), mode="area").clamp(-1, 1)
    # The generator runs in bfloat16, and images have 8 bits.
    assert (small - images).abs().mean() < 0.02


def test_pairs_stay_when_more_are_rendered(generator, tmp_path):
    render(generator, tmp_path, SHARD)
    first = (tmp_path / "00000.npz").read_bytes()
    render(generator, tmp_path, SHARD + 1)
    assert (tmp_path / "00000.npz").read_bytes() == first
    both = load_pairs(tmp_path)
    assert len(both) == 2 * SHARD and not np.array_equal(both.codes[:SHARD], both.codes[SHARD:])


def test_no_pairs(tmp_path):
    with pytest.raises(FileNotFoundError, match="edgedit train pairs"):
        load_pairs(tmp_path)


def test_a_window_is_the_pictures_part_away_from_its_edges(generator, mobile):
    windowed = Windowed(generator)
    windowed.generator = generator
    w = generator.broadcast(torch.randn(2, mobile.style_dim))
    feature = generator.lower(w)[0]
    origins, side = torch.tensor([[3, 5], [0, 8]]), 8
    whole = windowed.generator.upper(feature, w)
    parts = windowed.generator.upper(windowed.cut(feature, origins, side, 1), w, origin=origins)
    expected = windowed.cut(whole, origins, side, windowed.scale)
    settled = windowed.settled(parts, expected, origins, windowed.scale)
    torch.testing.assert_close(settled, expected, rtol=1e-3, atol=1e-4)
    assert not torch.allclose(parts, expected, atol=1e-3)
    # Only margins are settled: an edge of the picture is no margin.
    other = windowed.settled(torch.zeros_like(parts), torch.ones_like(parts), origins, windowed.scale)
    edge = MARGIN * windowed.scale
    assert other[0, 0, edge:-edge, edge:-edge].sum() == 0 and other[0, 0].mean() == 1 - (1 - 2 * MARGIN / side) ** 2
    assert other[1, 0, :-edge, edge:-edge].sum() == 0 and other[1, 0, -edge:].min() == 1


def test_laid_over_puts_the_inner_part_where_it_came_from():
    pictures, origins = torch.rand(2, 3, 128, 128), torch.tensor([[1, 2], [6, 0]])
    parts = torch.stack([p[:, y : y + 16, x : x + 16] for p, (y, x) in zip(pictures, ((4, 8), (24, 0)), strict=True)])
    assert torch.equal(laid_over(pictures, parts, origins, 4), pictures)
    changed = laid_over(pictures, parts + 1, origins, 4) - pictures
    assert (changed.sum(dim=(1, 2, 3)) - 3 * 16 * 16).abs().max() < 1e-2
    assert changed[0, :, 4, 8].min() > 0.99 and changed[1, :, 39, 15].min() > 0.99


def test_picture_loss_is_zero_for_equal_pictures_alone():
    first, second = torch.rand(2, 3, 16, 16), torch.rand(2, 3, 16, 16)
    total, terms = picture_loss(first, first, None, PixelWeights())
    assert total == 0 and all(term == 0 for term in terms.values())
    total, terms = picture_loss(first, second, None, PixelWeights(l1=2.0, l2=3.0, gradient=5.0))
    expected = 2 * (first - second).abs().mean() + 3 * (first - second).square().mean()
    assert total == pytest.approx(float(expected + 5 * terms["gradient"]), rel=1e-5)


def stages(mobile, generator, photos, pairs, loss_files):
    common = {"batch": 2, "bf16": False}
    yield lambda: LightEncoderStage(
        generator,
        photos,
        pairs,
        e4e_encoder(mobile),
        loss_files,
        LightEncoderOptions(window=14, synthetic_every=2, **common),
    )
    yield lambda: LightE4EStage(
        generator, photos, pairs, loss_files, LightE4EOptions(photos=1, photos_from=1, **common)
    )

    def editor():
        torch.manual_seed(0)
        system = EditingSystem(mobile)
        system.generator = generator
        return LightEditorStage(
            system, photos, pairs, [smile(mobile)], loss_files, LightEditorOptions(window=14, fitted=32, **common)
        )

    yield editor


@pytest.mark.parametrize("index", range(3))
def test_stages_learn_and_resume_exactly(mobile, generator, photos, pairs, loss_files, tmp_path, index):
    make = list(stages(mobile, generator, photos, pairs, loss_files))[index]
    whole = make()
    start = {name: value.clone() for name, value in whole.modules[next(iter(whole.modules))].state_dict().items()}
    options = LoopOptions(steps=3, log_every=1, checkpoint_every=1, grid_every=3, warm_up=2)
    assert train(whole, tmp_path / "whole", options) == 3
    assert (tmp_path / "whole" / "grids" / "0000003.png").is_file()
    changed = whole.modules[next(iter(whole.modules))].state_dict()
    assert any(not torch.equal(value, start[name]) for name, value in changed.items())
    train(make(), tmp_path / "parts", dataclasses.replace(options, steps=2))
    resumed = make()
    train(resumed, tmp_path / "parts", options)
    for name, value in resumed.modules[next(iter(resumed.modules))].state_dict().items():
        assert torch.equal(value, changed[name]), name
    meta = json.loads((tmp_path / "parts" / "checkpoint" / "meta.json").read_text())
    assert meta["config"]["family"]["generator"] == "mobilestylegan"


def test_learning_rates_rise_evenly_and_fall(mobile):
    options = LoopOptions(steps=100, warm_up=10, decay=0.5)
    assert [options.rate(step) for step in (0, 4, 9, 10, 50)] == pytest.approx([0.1, 0.5, 1.0, 1.0, 1.0])
    assert options.rate(100) == pytest.approx(0.1)


@pytest.fixture(scope="module")
def editor_stage(mobile, generator, photos, pairs, loss_files) -> LightEditorStage:
    *_, make = stages(mobile, generator, photos, pairs, loss_files)
    return make()


def test_photos_of_an_edit_keep_what_the_generator_does_not_change(editor_stage, generator, mobile):
    w = generator.broadcast(torch.randn(1, mobile.style_dim))
    feature, origins = editor_stage.generator.lower(w), torch.tensor([[0, 0]])
    drawn = editor_stage._drawn(feature, feature, w, torch.zeros_like(w), origins)
    assert (editor_stage._unchanged(*drawn) == 1).all()
    drawn = editor_stage._drawn(feature, editor_stage.generator.lower(w + 1.0), w, torch.ones_like(w), origins)
    assert editor_stage._unchanged(*drawn).mean() < 0.9


def test_a_pictures_code_is_to_move_as_far_as_the_generators(editor_stage):
    encoder = editor_stage.system.e4e
    torch.manual_seed(2)
    encoder.linear.weight.normal_(std=0.05)
    start, target = torch.rand(2, 2, 3, 128, 128) * 2 - 1
    with torch.no_grad():
        none = editor_stage._movement(start, start, target, start)
        whole = editor_stage._movement(target, start, target, start)
        idle = editor_stage._movement(start, start, start, start)
    assert whole == pytest.approx(0, abs=1e-6) and idle == 0
    code = (encoder(target) - encoder(start))[:, 0] / encoder.code_deviation
    length = code.square().sum(dim=1)
    assert none == pytest.approx(float((length / (length + 1)).mean()), rel=1e-4)


def test_an_edit_of_a_photo_may_lose_what_the_generators_edit_loses(editor_stage):
    start, edited = torch.rand(2, 2, 3, 128, 128, generator=torch.Generator().manual_seed(3)) * 2 - 1
    edited.requires_grad_(True)
    idle = editor_stage._lost_identity(start, start, start, start)
    more = editor_stage._lost_identity(edited, start, start, start)
    alike = editor_stage._lost_identity(edited, start, edited.detach(), start).detach()
    (slope,) = torch.autograd.grad(more, edited)
    assert float(idle) == pytest.approx(0, abs=1e-5) and float(alike) == pytest.approx(0, abs=1e-5)
    assert float(more.detach()) > 1e-3 and float(slope.abs().max()) > 0


def test_windows_at_the_pictures_edge_are_drawn_often(generator, mobile):
    torch.manual_seed(0)
    origins, last = Windowed(generator).origins(2000, 12), mobile.feature_resolution - 12
    assert origins.min() == 0 and origins.max() == last
    for end in (0, last):
        assert 0.08 < (origins[:, 0] == end).float().mean() < 0.25
    assert len(origins[:, 0].unique()) == last + 1


def test_an_encoder_that_has_learnt_is_not_fitted_anew(mobile, generator, photos, pairs, loss_files):
    """As when training goes on from a bundle: its first step is not the encoder's first."""
    _, make, _ = stages(mobile, generator, photos, pairs, loss_files)
    stage = make()
    stage.encoder.linear.weight.data.fill_(1e-4)
    stage.step(0)
    assert (stage.encoder.linear.weight - 1e-4).abs().max() < 1e-3
