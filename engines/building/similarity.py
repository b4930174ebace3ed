"""Similarity of two sets of uint8 images; plain NumPy, so that a machine that builds engines needs nothing more.

By hand: scikit-image 0.26 has no MS-SSIM, and torchmetrics 1.9 needs PyTorch and refuses sides up to 160 pixels.
"""

from __future__ import annotations

import numpy as np

_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
"""The weights of the five scales (Wang et al. 2003, section 3.2)."""
_SIDE, _SIGMA = 11, 1.5
"""The Gaussian window of SSIM (Wang et al. 2004)."""


def psnr(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Peak signal-to-noise ratio in dB per image of uint8 B x h x w x 3; infinite for equal images."""
    error = np.square(a.astype(np.float64) - b.astype(np.float64)).mean(axis=(1, 2, 3))
    with np.errstate(divide="ignore"):
        return 10 * np.log10(255.0**2 / error)


def _blur(x: np.ndarray) -> np.ndarray:
    """B x h x w with the window's valid part only: B x (h - 10) x (w - 10)."""
    place = np.arange(_SIDE) - _SIDE // 2
    window = np.exp(-(place**2) / (2 * _SIGMA**2))
    window /= window.sum()
    for axis in (1, 2):
        x = np.lib.stride_tricks.sliding_window_view(x, _SIDE, axis=axis) @ window
    return x


def _similarities(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Means over an image of SSIM, and of its contrast-structure part, of B x h x w in 0..255."""
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    mean_a, mean_b = _blur(a), _blur(b)
    covariance = 2 * (_blur(a * b) - mean_a * mean_b) + c2
    variance = _blur(a * a) - mean_a**2 + _blur(b * b) - mean_b**2 + c2
    structure = covariance / variance
    luminance = (2 * mean_a * mean_b + c1) / (mean_a**2 + mean_b**2 + c1)
    return (luminance * structure).mean(axis=(1, 2)), structure.mean(axis=(1, 2))


def ms_ssim(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Multi-scale structural similarity per image of uint8 B x h x w x 3, mean over the channels.

    As many of the five scales as leave the smaller side at least one window wide, their weights scaled to sum 1.

    Raises:
        ValueError: for images smaller than the window.
    """
    side = min(a.shape[1:3])
    if side < _SIDE:
        raise ValueError(f"MS-SSIM needs images of at least {_SIDE} pixels, got {side}")
    scales = min(len(_WEIGHTS), int(np.log2(side / _SIDE)) + 1)
    weights = np.array(_WEIGHTS[:scales]) / sum(_WEIGHTS[:scales])
    channels = []
    for channel in range(a.shape[3]):
        x, y = (image[..., channel].astype(np.float64) for image in (a, b))
        product = np.ones(len(a))
        for scale, weight in enumerate(weights):
            whole, structure = _similarities(x, y)
            last = scale == scales - 1
            product *= np.maximum(whole if last else structure, 0.0) ** weight
            x, y = (_halve(image) for image in (x, y))
        channels.append(product)
    return np.mean(channels, axis=0)


def _halve(x: np.ndarray) -> np.ndarray:
    """Means of 2 x 2 pixels."""
    height, width = (side // 2 * 2 for side in x.shape[1:])
    x = x[:, :height, :width]
    return (x[:, ::2, ::2] + x[:, 1::2, ::2] + x[:, ::2, 1::2] + x[:, 1::2, 1::2]) / 4
