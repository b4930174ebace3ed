from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from engines.directions import resolve
from training.measuring.judges import JudgeFiles, Judges
from training.networks.e4e import E4EEncoder
from training.stages.directions import (
    FitOptions,
    Samples,
    discriminant,
    fit,
    normals,
    orthogonalise,
    photo_codes,
    sample,
    slopes,
    usable_range,
)

OPTIONS = FitOptions(samples=60, batch=20, components=3, probes=6, limit=1.5)


def _planted(seed: int, dim: int = 16, count: int = 2000, noise: float = 0.3):
    """Codes with correlated axes whose score is their position along one direction, plus noise."""
    source = np.random.default_rng(seed)
    mixing = 0.5 * source.normal(size=(dim, dim)) / np.sqrt(dim) + np.eye(dim)
    w = source.normal(size=(count, dim)) @ mixing
    normal = source.normal(size=dim)
    normal /= np.linalg.norm(normal)
    along = w @ normal
    return w, along + noise * along.std() * source.normal(size=count), normal


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_discriminant_recovers_a_planted_direction(seed):
    w, scores, normal = _planted(seed)
    found = discriminant(w, scores, share=0.2, shrinkage=0.05)
    assert np.linalg.norm(found) == pytest.approx(1)
    assert found @ normal > 0.9


def test_discriminant_turns_with_the_scores():
    w, scores, _ = _planted(1)
    one, other = (discriminant(w, sign * scores, share=0.2, shrinkage=0.3) for sign in (1, -1))
    np.testing.assert_allclose(one, -other, atol=1e-9)


def test_full_shrinkage_is_the_difference_of_the_means():
    w, scores, _ = _planted(2)
    order = np.argsort(scores)
    difference = w[order[-400:]].mean(axis=0) - w[order[:400]].mean(axis=0)
    found = discriminant(w, scores, share=0.2, shrinkage=1.0)
    np.testing.assert_allclose(found, difference / np.linalg.norm(difference), atol=1e-9)


def test_no_shrinkage_is_fishers_discriminant():
    """Where one axis is noisier than the rest, it counts for less than its mean difference says."""
    source = np.random.default_rng(0)
    w = source.normal(size=(2000, 2)) * (1.0, 10.0)
    w[1000:] += 1.0
    found = discriminant(w, np.repeat([0.0, 1.0], 1000), share=0.5, shrinkage=0.0)
    assert found[0] > 0.99


def test_equal_scores_have_no_direction():
    with pytest.raises(ValueError, match="all samples have the same score"):
        discriminant(np.random.default_rng(0).normal(size=(50, 3)), np.ones(50), share=0.2, shrinkage=0.3)


@given(seed=st.integers(0, 2**32 - 1), dim=st.integers(4, 40))
def test_orthogonalise(seed, dim):
    source = np.random.default_rng(seed)
    normals = {name: (v := source.normal(size=dim)) / np.linalg.norm(v) for name in ("a", "b", "c")}
    kept = {name: vector.copy() for name, vector in normals.items()}
    result = orthogonalise(normals, [("a", "b"), ("a", "c"), ("b", "c"), ("a", "absent"), ("absent", "a")])
    assert set(result) == {"a", "b", "c"}
    assert abs(result["a"] @ normals["b"]) < 1e-9 and abs(result["a"] @ normals["c"]) < 1e-9
    assert abs(result["b"] @ normals["c"]) < 1e-9
    np.testing.assert_array_equal(result["c"], normals["c"])
    for name in normals:
        assert np.linalg.norm(result[name]) == pytest.approx(1)
        np.testing.assert_array_equal(normals[name], kept[name])


def test_sample(generator, judges):
    samples = sample(generator, judges, OPTIONS, seed=4)
    assert samples.w.shape == (60, generator.family.style_dim)
    assert {name: len(values) for name, values in samples.scores.items()} == dict.fromkeys(judges.names, 60)
    with torch.no_grad():
        image = generator(generator.broadcast(torch.from_numpy(samples.w[17:18])))
    assert judges.score(image, ("age",))["age"][0] == pytest.approx(samples.scores["age"][17], rel=1e-4)
    again, other = sample(generator, judges, OPTIONS, seed=4), sample(generator, judges, OPTIONS, seed=5)
    np.testing.assert_array_equal(samples.w, again.w)
    assert not np.array_equal(samples.w, other.w)


@pytest.fixture
def probes(generator, judges):
    w = sample(generator, judges, OPTIONS).w[:6]
    return w, np.random.default_rng(0).normal(0, 0.4, w.shape[1])


def test_usable_range_narrows_with_the_floor(generator, identity, probes):
    ranges = [
        usable_range(generator, identity, *probes, dataclasses.replace(OPTIONS, limit=6.0, identity_floor=floor))
        for floor in (-1.1, 0.5, 0.9, 0.98, 0.999, 1.1)
    ]
    assert ranges[0] == (-6.0, 6.0)
    assert ranges[-1] == (-0.5, 0.5)
    assert [low for low, _ in ranges] == sorted(low for low, _ in ranges)
    assert [high for _, high in ranges] == sorted((high for _, high in ranges), reverse=True)
    assert len(set(ranges)) > 2


def test_usable_range_ends_where_identity_is_lost(generator, identity, probes):
    options = dataclasses.replace(OPTIONS, limit=6.0, identity_floor=0.98)
    _, high = usable_range(generator, identity, *probes, options)
    assert 0.5 < high < 6.0
    w, step = (torch.from_numpy(a).float() for a in probes)

    @torch.no_grad()
    def kept(strength: float) -> float:
        plain, edited = (identity(generator(generator.broadcast(c))) for c in (w, w + strength * step))
        return (plain * edited).sum(dim=1).mean().item()

    assert kept(high) >= 0.98 > kept(high + 0.5)


@pytest.mark.parametrize(("limit", "end"), [(1.0, 1.0), (1.3, 1.0), (1.45, 1.0), (1.5, 1.5)])
def test_usable_range_never_passes_its_limit(generator, identity, probes, limit, end):
    options = dataclasses.replace(OPTIONS, limit=limit, identity_floor=-1.1)
    assert usable_range(generator, identity, *probes, options) == (-end, end)


def test_fit(generator, judges, identity, family, tmp_path):
    directions, effects = fit(generator, judges, identity, OPTIONS, seed=2)
    by_name = {d.name: d for d in directions}
    assert list(by_name) == [*judges.names, "pc00", "pc01", "pc02"]
    assert [d.kind for d in directions] == ["interfacegan"] * len(judges.names) + ["ganspace"] * 3
    assert set(effects) == set(by_name)
    for direction in directions:
        assert direction.space == "w" and direction.vector.shape == (family.style_dim,)
        assert -1.5 <= direction.min_strength < 0 < direction.max_strength <= 1.5
        edit = resolve(by_name, {direction.name: 0.5}, family)
        np.testing.assert_allclose(edit.delta_w, np.tile(0.5 * direction.vector, (family.w_rows, 1)), rtol=1e-6)
        assert not edit.style_delta.any()
        direction.save(tmp_path / f"{direction.name}.safetensors")
        assert set(effects[direction.name]) == set(judges.names)
    # The judges look at colour alone, so that even few samples show the way up.
    for name in ("age", "female", "yaw"):
        assert effects[name][name] > 0


def test_one_unit_is_a_standard_deviation(generator, judges, identity):
    directions, _ = fit(generator, judges, identity, OPTIONS, seed=2)
    w = sample(generator, judges, OPTIONS, seed=2).w
    for direction in directions:
        length = np.linalg.norm(direction.vector)
        assert (w @ (direction.vector / length)).std() == pytest.approx(length, rel=1e-3)


def test_components_are_orthogonal_and_ordered(generator, judges, identity):
    directions, _ = fit(generator, judges, identity, OPTIONS, seed=2)
    vectors = np.stack([d.vector for d in directions if d.kind == "ganspace"]).astype(np.float64)
    lengths = np.linalg.norm(vectors, axis=1)
    assert lengths[0] >= lengths[1] >= lengths[2] > 0
    cosines = vectors @ vectors.T / np.outer(lengths, lengths)
    np.testing.assert_allclose(cosines, np.eye(3), atol=1e-4)


def test_attributes_are_disentangled_as_asked(generator, judges, identity):
    options = dataclasses.replace(OPTIONS, orthogonalise=(("age", "female"),), components=1)
    together, _ = fit(generator, judges, identity, options, seed=2)
    vectors = {d.name: d.vector.astype(np.float64) for d in together}
    cosine = vectors["age"] @ vectors["female"]
    assert abs(cosine) < 1e-5 * np.linalg.norm(vectors["age"]) * np.linalg.norm(vectors["female"])


@given(seed=st.integers(0, 2**32 - 1))
def test_slopes_keep_entangled_attributes_apart(seed):
    """Where one score rises with another, the mean difference mixes their directions; the regression does not."""
    source = np.random.default_rng(seed)
    a = source.normal(size=3000)
    b = 0.7 * a + 0.7 * source.normal(size=3000)
    basis = np.linalg.qr(source.normal(size=(12, 2)))[0].T
    w = np.outer(a, basis[0]) + np.outer(b, basis[1]) + 0.3 * source.normal(size=(3000, 12))
    found = slopes(w, {"a": a, "b": b})
    assert found["a"] @ basis[0] > 0.98 and found["b"] @ basis[1] > 0.98
    assert abs(found["a"] @ basis[1]) < 0.15
    assert np.linalg.norm(found["a"]) == pytest.approx(1)


def test_slopes_of_equal_scores():
    with pytest.raises(ValueError, match="all samples have the same score for flat"):
        slopes(np.ones((5, 2)), {"flat": np.ones(5)})


@pytest.fixture
def photos(generator, judges, family, faces):
    torch.manual_seed(3)
    e4e = E4EEncoder(family).eval()
    options = dataclasses.replace(OPTIONS, samples=8, batch=3, probes=3, components=1, photos=True, regression=True)
    mean = torch.full((family.style_dim,), 0.5)
    return e4e, mean, options, photo_codes(e4e, generator, mean, faces, judges, options, seed=1)


def test_codes_of_photos(photos, faces, judges, family):
    e4e, mean, _, samples = photos
    chosen = np.random.default_rng(1).permutation(len(faces))[:8]
    images = faces.tensor(chosen)
    with torch.no_grad():
        expected = e4e(images) + mean
    np.testing.assert_allclose(samples.w, expected.numpy(), atol=1e-4)
    for name, values in judges.score(images).items():
        np.testing.assert_allclose(samples.scores[name], values, rtol=1e-4, atol=1e-4)


def test_directions_fitted_to_photos_are_in_w_plus(photos, generator, judges, identity, family):
    samples = photos[3]
    scores = {name: np.random.default_rng(i).normal(size=8) for i, name in enumerate(samples.scores)}
    directions, effects = fit(generator, judges, identity, photos[2], samples=Samples(samples.w, scores))
    for direction in directions:
        assert direction.space == "w+" and direction.vector.shape == (family.w_rows, family.style_dim)
        assert "training photos" in direction.source
    assert set(effects) == {d.name for d in directions} == {*scores, "pc00"}


def test_normals_point_where_the_score_grows_and_nowhere_else():
    source = np.random.default_rng(0)
    w = source.normal(size=(4000, 6)) @ source.normal(size=(6, 6))
    truth = np.array([[1.0, 0, 0, 0, 0, 0], [0, 0.6, 0.8, 0, 0, 0]])
    scores = {"angle": 3 * w @ truth[0] + source.normal(size=4000), "rare": 1 / (1 + np.exp(5 - w @ truth[1]))}
    found = normals(w, scores, ridge=1e-6)
    # Unlike the mean code of those who have an attribute, the normal does not follow what comes along with it.
    assert found["angle"] @ truth[0] > 0.99 and found["rare"] @ truth[1] > 0.99
    others = [np.eye(6)[0] + np.eye(6)[3], np.eye(6)[5]]
    for vector in normals(w, scores, others).values():
        assert np.linalg.norm(vector) == pytest.approx(1)
        assert all(abs(vector @ other) < 1e-9 for other in others)


def test_normals_of_equal_scores():
    with pytest.raises(ValueError, match="the same score for flat"):
        normals(np.random.default_rng(0).normal(size=(20, 3)), {"flat": np.ones(20)})


def test_without_judges_there_are_components_alone(generator, identity):
    """Of what is no face nothing is scored, and no picture is drawn for it."""
    directions, effects = fit(generator, Judges(JudgeFiles()), identity, OPTIONS, seed=2)
    assert effects == {"pc00": {}, "pc01": {}, "pc02": {}}
    w = sample(generator, Judges(JudgeFiles()), OPTIONS, seed=2).w
    for direction in directions:
        length = np.linalg.norm(direction.vector)
        assert (w @ (direction.vector / length)).std() == pytest.approx(length, rel=1e-3)
