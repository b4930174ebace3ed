from __future__ import annotations

import numpy as np

from training.losses.judges import BATCH, picture_judges


def test_pictures_are_judged_in_batches(loss_files):
    images = np.random.default_rng(0).integers(0, 256, (BATCH + 1, 64, 64, 3), dtype=np.uint8)
    judges = picture_judges(loss_files.lpips, loss_files.identity)
    assert judges.lpips is not None and judges.identity is not None
    assert np.abs(judges.lpips(images, images)).max() < 1e-6 < judges.lpips(images, images[::-1].copy())[0]
    vectors = judges.identity(images)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    alone = picture_judges(identity=loss_files.identity)
    assert alone.lpips is None and alone.identity is not None
    np.testing.assert_allclose(alone.identity(images[-1:]), vectors[-1:], atol=1e-5)
