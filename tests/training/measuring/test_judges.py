from __future__ import annotations

import numpy as np
import onnxruntime
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from training.losses.identity import face_crop
from training.measuring.judges import ATTRIBUTE_CROP, JudgeFiles, Judges


def test_names_follow_the_files(judge_files):
    expressions, poses = ("smile", "sadness", "anger", "surprise"), ("yaw", "pitch")
    assert Judges(judge_files, threads=1).names == ("age", "female", *expressions, *poses)
    assert Judges(JudgeFiles(expression=judge_files.expression), threads=1).names == expressions
    assert Judges(JudgeFiles(pose=judge_files.pose, age_gender=judge_files.age_gender), threads=1).names == (
        "age",
        "female",
        *poses,
    )
    assert Judges(JudgeFiles()).names == ()


def test_scores_follow_the_contracts(judges, judge_files, faces):
    images = faces.tensor(slice(0, 5))
    scores = judges.score(images)
    assert set(scores) == set(judges.names)
    assert all(values.shape == (5,) for values in scores.values())
    tight = face_crop(images, crop=ATTRIBUTE_CROP).add(1).div(2).clamp(0, 1)
    means = tight.mean(dim=(2, 3)).numpy()
    np.testing.assert_allclose(scores["age"], 50 * (1 + means.mean(axis=1)), rtol=1e-4)
    np.testing.assert_allclose(scores["female"], 1 / (1 + np.exp(4 * (means[:, 0] - means[:, 1]))), atol=1e-5)
    session = onnxruntime.InferenceSession(str(judge_files.expression), providers=["CPUExecutionProvider"])
    expected = session.run(None, {"image": tight.numpy()})[0]
    np.testing.assert_allclose(expected.sum(axis=1), 1, rtol=1e-5)
    for name, index in {"smile": 1, "sadness": 2, "anger": 3, "surprise": 6}.items():
        np.testing.assert_allclose(scores[name], expected[:, index], rtol=1e-5)
    np.testing.assert_array_equal(judges.score(images, ("male",))["male"], np.float32(1) - scores["female"])


@pytest.mark.parametrize(("angle", "output"), [("yaw", 0), ("pitch", 1)])
def test_angles_are_the_means_of_their_bins(judges, judge_files, faces, angle, output):
    images = faces.tensor(slice(0, 3))
    x = F.interpolate((images + 1) / 2, size=(224, 224), mode="bilinear", align_corners=False)
    mean = torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1)
    std = torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1)
    session = onnxruntime.InferenceSession(str(judge_files.pose), providers=["CPUExecutionProvider"])
    degrees = []
    for one in (x - mean) / std:
        bins = session.run(None, {"image": one[None].numpy()})[output][0].astype(np.float64)
        share = np.exp(bins - bins.max()) / np.exp(bins - bins.max()).sum()
        degrees.append((share * (np.arange(66) * 3 - 99)).sum())
    scores = judges.score(images, (angle,))[angle]
    np.testing.assert_allclose(scores, degrees, rtol=1e-3, atol=1e-2)
    assert (np.abs(scores) <= 99).all()


def test_only_what_is_asked_for(judges, faces):
    images = faces.tensor(slice(0, 2))
    everything = judges.score(images)
    for names in (("smile",), ("female",), ("yaw", "age")):
        scores = judges.score(images, names)
        assert tuple(scores) == names
        for name in names:
            np.testing.assert_array_equal(scores[name], everything[name])


def test_values_beyond_the_range_are_clamped(judges, faces):
    images = faces.tensor(slice(0, 2)) * 3
    for name, values in judges.score(images).items():
        np.testing.assert_array_equal(values, judges.score(images.clamp(-1, 1))[name])


def test_images_that_need_a_gradient(judges, faces):
    assert judges.score(faces.tensor(slice(0, 1)).requires_grad_(True), ("age",))["age"].shape == (1,)


def test_real_judges(shared):
    """Every contract holds for the files that the demo models are fitted and measured with."""
    folder = shared / "weights"
    files = JudgeFiles(
        age_gender=folder / "age_gender.onnx", expression=folder / "expression.onnx", pose=folder / "fr_pose.onnx"
    )
    photos = sorted((shared / "photos").glob("*.jpg"))[:2]
    if not all(path.is_file() for path in (files.age_gender, files.expression, files.pose)) or len(photos) < 2:
        pytest.skip("no judges or photos among the shared material")
    images = []
    for photo in photos:
        with Image.open(photo) as image:
            images.append(torch.from_numpy(np.asarray(image.convert("RGB").resize((128, 128))).copy()))
    batch = torch.stack(images).permute(0, 3, 1, 2).float() / 127.5 - 1
    real = Judges(files, threads=1)
    scores = real.score(batch)
    assert set(scores) == set(real.names)
    assert ((scores["age"] > 0) & (scores["age"] < 110)).all()
    for name in ("female", "smile"):
        assert ((scores[name] >= 0) & (scores[name] <= 1)).all()
    assert (np.abs(scores["yaw"]) < 60).all()
    mirrored = Judges(files, threads=1).score(batch.flip(3), ("yaw",))["yaw"]
    assert (np.abs(mirrored + scores["yaw"]) < 20).all()
