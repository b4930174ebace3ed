from __future__ import annotations

import copy
import dataclasses
import warnings

import numpy as np
import pytest
import torch

from engines.contracts import style_width
from engines.directions import Direction
from engines.errors import StrengthWarning
from training.stages.editor import EditorOptions, EditorStage, encode_set


@pytest.fixture
def directions(family) -> list[Direction]:
    source = np.random.default_rng(0)

    def direction(name: str, space: str, vector: np.ndarray, low: float, high: float) -> Direction:
        return Direction(
            name=name,
            kind="stylespace" if space == "s" else "interfacegan",
            space=space,  # type: ignore[arg-type]
            vector=vector.astype(np.float32),
            min_strength=low,
            max_strength=high,
            description="",
            source="test",
            licence="Apache-2.0",
        )

    return [
        direction("one", "w", source.normal(0, 0.3, family.style_dim), -2.0, 3.0),
        direction("two", "w+", source.normal(0, 0.3, (family.w_rows, family.style_dim)), 0.5, 1.0),
        direction("three", "s", source.normal(0, 0.3, style_width(family)), -1.0, 1.0),
    ]


@pytest.fixture
def make(faces, loss_files, system, directions):
    def stage(seed: int = 3, chosen: list[Direction] | None = None, **options) -> EditorStage:
        options = EditorOptions(**{"batch": 4, "learning_rate": 1e-3, "discrepancy_from": 2, **options})
        return EditorStage(
            copy.deepcopy(system),
            faces,
            directions if chosen is None else chosen,
            loss_files,
            options,
            seed=seed,
        )

    return stage


# Ranger takes its first step at the sixth; the discrepancy loss starts on the other side of the cut.
def test_resume_is_exact(make, assert_exact_resume):
    assert_exact_resume(lambda: make(discrepancy_from=4), cut=3, total=8)


def test_resume_is_exact_in_bfloat16(make, assert_exact_resume):
    assert_exact_resume(lambda: make(bf16=True), cut=1, total=3)


def test_starts_from_a_fresh_editor_of_its_seed(make, system, state, changed):
    first = state(make(seed=1).editor)
    torch.manual_seed(99)
    assert not changed(first, make(seed=1).editor)
    assert changed(first, make(seed=2).editor)
    assert changed(first, system.editor)


def test_codes_are_what_the_encoders_say(system, faces):
    codes = encode_set(system, faces, batch=5)
    images = faces.tensor(slice(0, len(faces)))
    with torch.no_grad():
        inversion = system.invert(images)
        synthetic = system.encode(system.generator(inversion.w_e).clamp(-1, 1))
    expected = {
        "w": inversion.w,
        "feature": inversion.feature,
        "w_e": inversion.w_e,
        "w_synthetic": synthetic[0],
        "feature_synthetic": synthetic[1],
    }
    for field in dataclasses.fields(codes):
        array = getattr(codes, field.name)
        assert array.dtype == np.float16
        wanted = expected[field.name].numpy()
        np.testing.assert_allclose(array, wanted, rtol=2e-3, atol=2e-3 * np.abs(wanted).max())


def _watch(stage: EditorStage) -> dict[str, torch.Tensor]:
    """What the editor is shown in the next step."""
    seen: dict[str, torch.Tensor] = {}
    extract, fuse = stage.editor.discrepancy, stage.editor.fuse

    def discrepancy(feature, edited):
        seen.update(feature=feature, edited=edited)
        return extract(feature, edited)

    def fusion(enhanced, difference):
        seen["enhanced"] = enhanced
        return fuse(enhanced, difference)

    stage.editor.discrepancy, stage.editor.fuse = discrepancy, fusion
    return seen


def test_photos_are_edits_of_strength_zero(make):
    stage = make(edit_share=0.5)
    seen = _watch(stage)
    stage.step(0)
    feature, edited = seen["feature"], seen["edited"]
    assert torch.equal(edited[2:], feature[2:])
    assert all(not torch.allclose(edited[i], feature[i]) for i in range(2))


def test_an_edit_of_strength_zero_shows_equal_features(make, directions):
    still = dataclasses.replace(directions[0], min_strength=0.0, max_strength=1e-30)
    stage = make(chosen=[still])
    seen = _watch(stage)
    stage.step(0)
    torch.testing.assert_close(seen["edited"], seen["feature"], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("share", "edits"), [(0.25, 1), (0.5, 2), (0.75, 3)])
def test_edits_start_from_the_synthetic_inversion(make, share, edits):
    stage = make(edit_share=share)
    seen = _watch(stage)
    stage.step(0)
    indices = stage.batches.indices(0)
    codes = stage.codes
    expected = np.concatenate([codes.feature_synthetic[indices[:edits]], codes.feature[indices[edits:]]])
    np.testing.assert_array_equal(seen["enhanced"].numpy(), expected.astype(np.float32))


def test_photos_take_what_the_edit_changes_in_the_generators_image(make):
    stage = make(edit_share=0.75, photo_share=0.67)
    seen = _watch(stage)
    pairs: list[torch.Tensor] = []
    codes_seen: list[torch.Tensor] = []
    loss, generator = stage.loss, stage.system.generator.forward

    def compare(output, target):
        pairs.append(target)
        return loss(output, target)

    def draw(w_plus, *args):
        codes_seen.append(w_plus)
        return generator(w_plus, *args)

    stage.loss, stage.system.generator.forward = compare, draw  # type: ignore[assignment]
    stage.step(0)
    indices, codes = stage.batches.indices(0), stage.codes
    expected = codes.feature[indices]
    expected[2] = codes.feature_synthetic[indices[2]]
    np.testing.assert_array_equal(seen["enhanced"].numpy(), expected.astype(np.float32))
    edited, still = codes_seen
    assert len(edited) == 3 and len(still) == 2
    with torch.no_grad():
        after, before = generator(edited), generator(still)
    photos = stage.faces.tensor(indices)
    # Directions of style space move the image without the code.
    in_w = [i for i in range(2) if not torch.equal(edited[i], still[i])]
    for i in in_w:
        wanted = (photos[i] + after[i] - before[i]).clamp(-1, 1)
        torch.testing.assert_close(pairs[0][i], wanted, rtol=1e-4, atol=1e-5)
    assert in_w
    torch.testing.assert_close(pairs[0][2], after[2], rtol=1e-4, atol=1e-5)
    assert torch.equal(pairs[1], photos[3:])


def test_photos_may_be_encoded_as_they_are_drawn(make):
    """The same up to FP16, in which codes that are kept are stored."""
    ahead, drawn = make(photo_share=0.5), make(photo_share=0.5, ahead=False)
    assert drawn.codes is None
    indices, synthetic = np.array([5, 2, 7, 0]), slice(1, 3)
    for one, other in zip(ahead._inputs(indices, synthetic), drawn._inputs(indices, synthetic), strict=True):
        assert one.shape == other.shape
        torch.testing.assert_close(one, other, rtol=2e-3, atol=2e-3 * one.abs().max().item())
    assert drawn.step(0).keys() == ahead.step(0).keys()
    assert drawn.grid().shape == (2 + 3, 8, 3, 32, 32)


def test_a_share_beyond_one_is_refused():
    with pytest.raises(ValueError, match=r"photo_share 1\.5"):
        EditorOptions(photo_share=1.5)


def test_strengths_stay_in_each_directions_range(make, directions, family):
    stage = make(chosen=[directions[1]], edit_share=0.75)
    seen: list[torch.Tensor] = []
    features = stage.system.features

    def record(w_plus, style_delta=None):
        seen.append(w_plus)
        return features(w_plus, style_delta)

    stage.system.features = record
    strengths = []
    for step in range(3):
        seen.clear()
        torch.manual_seed(step)
        stage.step(step)
        delta = (seen[1] - seen[0][:3]).reshape(3, -1)
        vector = torch.from_numpy(directions[1].vector.copy()).flatten()
        strengths.append(delta @ vector / vector.square().sum())
    strengths = torch.cat(strengths)
    assert strengths.min() > 0.5 - 1e-3 and strengths.max() < 1.0 + 1e-3
    assert strengths.std() > 0.02


def _gradient(stage: EditorStage, step: int) -> torch.Tensor:
    torch.manual_seed(1)
    with torch.no_grad():
        # A fresh editor changes nothing and extracts nothing: both sides of eq. 3.21 are zero.
        for parameter in stage.editor.parameters():
            parameter += 0.05 * torch.randn_like(parameter)
    torch.manual_seed(0)
    stage.step(step)
    return torch.cat([p.grad.flatten() for p in stage.editor.parameters() if p.grad is not None])


def test_discrepancy_loss_counts_from_its_step_on(make):
    without = _gradient(make(discrepancy=0.0), 1)
    assert torch.equal(_gradient(make(discrepancy=50.0, discrepancy_from=2), 1), without)
    started = make(discrepancy=50.0, discrepancy_from=1)
    assert not torch.allclose(_gradient(started, 1), without)


def test_units_of_narrow_directions_give_no_warning(make, directions):
    with warnings.catch_warnings():
        warnings.simplefilter("error", StrengthWarning)
        stage = make(chosen=[dataclasses.replace(directions[0], min_strength=-0.25, max_strength=0.75)])
    expected = np.tile(directions[0].vector, (1, stage.family.w_rows, 1))
    np.testing.assert_array_equal(stage.edits.delta_w.numpy(), expected)
    assert (stage.edits.low.item(), stage.edits.high.item()) == (-0.25, 0.75)


def test_only_the_editor_changes(make, state, changed):
    stage = make()
    before = state(stage.system)
    for step in range(7):
        scalars = stage.step(step)
    assert set(scalars) == {
        "l2", "lpips", "identity", "photo_l2", "photo_lpips", "photo_identity", "discrepancy",
    }  # fmt: skip
    moved = changed(before, stage.system)
    assert moved and all(name.startswith("editor.") for name in moved)
    assert stage.system.editor is stage.editor
    frozen = [p for n, p in stage.system.named_parameters() if not n.startswith("editor.")]
    assert not any(p.requires_grad for p in frozen) and all(p.grad is None for p in frozen)


def test_average_moves(make, state, changed):
    stage = make()
    before = state(stage.average)
    for step in range(7):
        stage.step(step)
    assert changed(before, stage.average)


def test_grid_has_a_row_per_direction(make, faces):
    grid = make().grid()
    assert grid.shape == (2 + 3, 8, 3, 32, 32)
    assert torch.equal(grid[0], faces.tensor(slice(0, 8)))


def test_config_names_the_directions(make):
    assert make().config()["directions"] == ["one", "two", "three"]


def test_no_directions(make):
    with pytest.raises(ValueError, match="at least one direction is needed"):
        make(chosen=[])


@pytest.mark.parametrize("share", [0.0, 0.05, 0.95, 1.0])
def test_a_share_that_leaves_nothing(share):
    with pytest.raises(ValueError, match="leaves a part of a batch of 8 empty"):
        EditorOptions(batch=8, edit_share=share)
