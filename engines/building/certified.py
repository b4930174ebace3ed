"""The use of faces before an engine is built from a graph: ranges for 8 bits, and an accuracy certificate."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from engines.building.build import Fit, Peaks
from engines.building.certificate import Calibration, Certifier, Judges, Run
from engines.bundle import Bundle
from engines.bundle.engine_manifest import EIGHT_BIT, wider
from engines.errors import EngineError, ImageError
from engines.photo import aligned_square, open_image
from engines.photo.sources import SUFFIXES, photo_files

if TYPE_CHECKING:
    from engines.precision.quantise import Peak

CALIBRATION = 64
"""Most faces that ranges for 8 bits are measured on."""


@dataclass(frozen=True, kw_only=True)
class CertificationInputs:
    """The functions that `engines.building.build.build` calls for each graph."""

    fit: Fit
    peaks: Peaks | None
    """The ranges for 8 bits; None for other precisions."""


@dataclass(frozen=True, kw_only=True)
class Faces:
    """Aligned faces of a bundle's size, uint8 B x h x w x 3."""

    last: np.ndarray
    """The last ones by name, which are certified on."""
    others: np.ndarray
    """The photos before those, at most `CALIBRATION`."""


def read_faces(folder: Path, bundle: Bundle, max_faces: int) -> Faces:
    """The last `max_faces` pictures of a folder by name, and those before them.

    Raises:
        EngineError: if there are none, or one cannot be read.
    """
    files = photo_files(folder)[-max_faces - CALIBRATION :]
    if not files:
        raise EngineError(f"--faces: there is no {', '.join(SUFFIXES)} in {folder}")
    size = bundle.family.size
    try:
        read = np.stack([aligned_square(open_image(file).pixels, size) for file in files])
    except ImageError as error:
        raise EngineError(f"--faces: {error}") from error
    return Faces(last=read[-max_faces:], others=read[:-max_faces])


def certification_inputs(
    bundle: Bundle,
    precision: str,
    faces: Faces,
    *,
    reference: Callable[[str], Run] | None = None,
    source: str = "ONNX Runtime, FP32",
    judges: Judges | None = None,
    single: bool = False,
    progress: Callable[[str], None] = lambda line: None,
) -> CertificationInputs:
    """Each graph's certificate on the faces, and for 8 bits the ranges of its data.

    Args:
        bundle: with FP32 graphs.
        faces: ranges for 8 bits are measured on those that the certificate leaves out, where there are any.
        reference: by graph, what runs it in FP32; None: the bundle's own graphs in ONNX Runtime.
        single: for engines of a CPU, see `precision.typed.lower`.
        progress: called with one line per step.
    """
    ranges = None
    if precision in EIGHT_BIT:
        ranges = calibration(bundle, precision, faces)
        whose = "others than are" if ranges.apart else "the ones that are"
        progress(f"ranges for {precision} from {ranges.photos} photos, {whose} certified on")
    progress(f"certifying on {len(faces.last)} photos against {source}")
    named: dict[str, Any] = {} if reference is None else {"reference": reference, "source": source}
    certifier = Certifier(
        bundle, faces.last, judges=judges, single=single, batch=_batch(bundle), calibration=ranges, **named
    )

    def fit(graph: str) -> tuple[frozenset[str], dict[str, Any] | None]:
        fitted = certifier.fit(graph, precision, progress=progress)
        progress(f"{graph}: {_line(fitted.certificate, precision)}")
        return fitted.keep_fp32, fitted.certificate

    return CertificationInputs(fit=fit, peaks=ranges.peaks if ranges is not None else None)


def calibration(bundle: Bundle, precision: str, faces: Faces) -> Calibration:
    """The ranges of each graph's 8-bit data on faces, measured when they are asked for."""
    from engines.precision.calibrate import calibrate

    used = faces.others if len(faces.others) else faces.last[-CALIBRATION:]

    @cache
    def system() -> Certifier:
        return Certifier(bundle, used, batch=_batch(bundle))

    @cache
    def peaks(graph: str) -> Mapping[str, Peak]:
        return calibrate(bundle, graph, system().feeds(graph), precision)

    return Calibration(peaks=peaks, photos=len(used), apart=bool(len(faces.others)))


def _batch(bundle: Bundle) -> int:
    return 8 if bundle.family.size < 512 else 1


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
