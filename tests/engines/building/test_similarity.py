from __future__ import annotations

import numpy as np
import pytest
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from engines.building.similarity import ms_ssim, psnr


@pytest.fixture
def pair() -> tuple[np.ndarray, np.ndarray]:
    source = np.random.default_rng(0)
    y, x = np.mgrid[0:64, 0:64] / 64
    image = 127 + 90 * np.sin(7 * x[..., None] + source.uniform(0, 6, (3, 1, 1, 3)) + 5 * y[..., None])
    noisy = image + source.normal(0, 12, image.shape)
    return image.round().astype(np.uint8), noisy.clip(0, 255).round().astype(np.uint8)


def test_psnr_against_scikit_image(pair):
    a, b = pair
    expected = [peak_signal_noise_ratio(x, y, data_range=255) for x, y in zip(a, b, strict=True)]
    np.testing.assert_allclose(psnr(a, b), expected, rtol=1e-9)
    assert np.isinf(psnr(a, a)).all()


def test_one_scale_is_ssim(pair):
    """Below 22 pixels one scale is left, which is SSIM as scikit-image computes it."""
    a, b = (image[:, :20, :20] for image in pair)
    options = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "data_range": 255}
    expected = [structural_similarity(x, y, channel_axis=2, **options) for x, y in zip(a, b, strict=True)]
    np.testing.assert_allclose(ms_ssim(a, b), expected, atol=1e-6)


def test_more_scales_forgive_fine_noise(pair):
    a, b = pair
    assert (ms_ssim(a, a) == pytest.approx(1.0)) and (ms_ssim(a, b) < 1).all()
    one = [structural_similarity(x, y, channel_axis=2, data_range=255) for x, y in zip(a, b, strict=True)]
    assert (ms_ssim(a, b) > one).all()


def test_images_smaller_than_the_window(pair):
    with pytest.raises(ValueError, match="at least 11 pixels, got 10"):
        ms_ssim(pair[0][:, :10], pair[1][:, :10])
