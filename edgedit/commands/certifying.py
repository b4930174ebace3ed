"""What `edgedit build --photos` does before a graph is built: ranges for 8 bits, and an accuracy certificate."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgedit.commands.common import console
from engines.building.build import Fit, Peaks
from engines.building.certificate import Calibration, Certifier, Judges
from engines.bundle import Bundle
from engines.bundle.engine_manifest import EIGHT_BIT, wider
from engines.errors import EngineError, ImageError
from engines.photo import aligned_square, open_image
from engines.photo.sources import SUFFIXES, photo_files

if TYPE_CHECKING:
    from edgedit.commands.building import Build
    from engines.precision.quantise import Peak

CALIBRATION = 64
"""Most photos that ranges for 8 bits are measured on."""


@dataclass(frozen=True, kw_only=True)
class Judged:
    """What `engines.building.build.build` asks for each graph."""

    fit: Fit
    peaks: Peaks | None
    """For 8 bits."""


def judged(verb: Build) -> Judged:
    """What the photos are for.

    With PyTorch installed the reference is the network itself; without it, the bundle's FP32 graphs in ONNX Runtime,
    which the export verified against the network. Ranges for 8 bits are measured on photos that the certificate leaves
    out, where there are any.

    Raises:
        EngineError: if there are not enough photos, or what a judge needs is not installed.
    """
    assert verb.photos is not None
    bundle = Bundle.load(verb.bundle, verify=False)
    photos, others = _photos(verb.photos, bundle, verb.count)
    torch = importlib.util.find_spec("torch") is not None
    if not torch and (verb.lpips is not None or verb.identity is not None):
        raise EngineError("--lpips and --identity need torch: pip install 'edgedit[train]'")
    options: dict[str, Any] = {}
    if torch:
        import torch as installed

        from export.reference import pytorch_reference

        options = {"reference": pytorch_reference(bundle), "source": f"PyTorch {installed.__version__}, FP32"}
    calibration = None
    if verb.precision in EIGHT_BIT:
        calibration = _calibration(bundle, verb.precision, photos, others)
        whose = "others than are" if calibration.apart else "the ones that are"
        console.print(f"ranges for {verb.precision} from {calibration.photos} photos, {whose} certified on")
    console.print(f"certifying on {len(photos)} photos against {options.get('source', 'ONNX Runtime, FP32')}")
    options |= {"judges": _judges(verb), "batch": _batch(bundle), "calibration": calibration}
    certifier = Certifier(bundle, photos, **options)

    def fit(graph: str) -> tuple[frozenset[str], dict[str, Any] | None]:
        fitted = certifier.fit(graph, verb.precision, progress=lambda line: console.print(line, markup=False))
        console.print(f"{graph}: {_line(fitted.certificate, verb.precision)}", markup=False)
        return fitted.keep_fp32, fitted.certificate

    return Judged(fit=fit, peaks=calibration.peaks if calibration is not None else None)


def measured_ranges(bundle: Bundle, precision: str, source: Path) -> Peaks:
    """By graph, the ranges of 8-bit data on the last photos of a folder or tar, measured when they are asked for.

    Raises:
        EngineError: if there are no photos.
    """
    photos, _ = _photos(source, bundle, CALIBRATION)
    console.print(f"ranges for {precision} from {len(photos)} photos")
    return _calibration(bundle, precision, photos, photos[:0]).peaks


def _batch(bundle: Bundle) -> int:
    return 8 if bundle.family.size < 512 else 1


def _calibration(bundle: Bundle, precision: str, photos: np.ndarray, others: np.ndarray) -> Calibration:
    from engines.precision.calibrate import calibrate

    used = others if len(others) else photos[-CALIBRATION:]

    @cache
    def system() -> Certifier:
        return Certifier(bundle, used, batch=_batch(bundle))

    @cache
    def peaks(graph: str) -> Mapping[str, Peak]:
        return calibrate(bundle, graph, system().feeds(graph), precision)

    return Calibration(peaks=peaks, photos=len(used), apart=bool(len(others)))


def _photos(source: Path, bundle: Bundle, count: int) -> tuple[np.ndarray, np.ndarray]:
    """The last `count` photos by name, and up to `CALIBRATION` of those before them."""
    if not source.exists():
        raise EngineError(f"--photos: there is no {source}")
    if count < 1:
        raise EngineError(f"--count must be 1 or more, got {count}")
    if not source.is_dir():
        return _from_tar(source, bundle, count)
    files = photo_files(source)[-count - CALIBRATION :]
    if not files:
        raise EngineError(f"--photos: there is no {', '.join(SUFFIXES)} in {source}")
    size = bundle.family.size
    try:
        read = np.stack([aligned_square(open_image(file).pixels, size) for file in files])
    except ImageError as error:
        raise EngineError(f"--photos: {error}") from error
    return read[-count:], read[:-count]


def _from_tar(source: Path, bundle: Bundle, count: int) -> tuple[np.ndarray, np.ndarray]:
    try:
        from training.data import load_faces
    except ModuleNotFoundError as error:
        raise EngineError(f"photos in a tar need {error.name}; unpack it and give the folder") from error
    others, last = load_faces(source, bundle.family.size, held_out=count, most=count + CALIBRATION)
    return last.images, others.images[-CALIBRATION:]


def _judges(verb: Build) -> Judges:
    if verb.lpips is None and verb.identity is None:
        return Judges()
    import torch

    from training.losses.identity import Identity
    from training.losses.lpips import LPIPS

    def tensor(images: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(images).permute(0, 3, 1, 2).float() / 127.5 - 1

    embedder = Identity(verb.identity).eval() if verb.identity is not None else None
    distance = LPIPS(verb.lpips).eval() if verb.lpips is not None else None

    @torch.inference_mode()
    def embed(images: np.ndarray) -> np.ndarray:
        assert embedder is not None
        return np.concatenate([embedder(tensor(images[i : i + 8])).numpy() for i in range(0, len(images), 8)])

    @torch.inference_mode()
    def perceptual(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        assert distance is not None
        pairs = range(0, len(a), 8)
        return np.concatenate([distance(tensor(a[i : i + 8]), tensor(b[i : i + 8])).numpy() for i in pairs])

    return Judges(identity=embed if embedder is not None else None, lpips=perceptual if distance is not None else None)


def _line(certificate: dict[str, Any], precision: str) -> str:
    widened = f"; {len(certificate['widened'])} nodes widened to {wider(precision)}" if certificate["widened"] else ""
    images = certificate["images"]
    if images is None:
        worst = min((t["snr"] for t in certificate["tensors"].values() if t["snr"] is not None), default=None)
        return f"signal-to-noise {'infinite' if worst is None else f'{worst:.1f} dB'}{widened}"
    same = f", identity {images['identity']['mean']:.5f}" if images["identity"] else ""
    return (
        f"PSNR {images['psnr']['mean']:.1f} dB (worst {images['psnr']['worst']:.1f}), "
        f"MS-SSIM {images['ms_ssim']['mean']:.5f}{same}{widened}"
    )
