"""The distance of activations to FP16's limit, graph by graph, with codes of real faces and with larger ones.

    python -m bench.ranges --bundle faces-1024=BUNDLE --codes codes.npy --scale 1 --scale 10 --scale 100 --out FILE

FP16 is emulated on the CPU. Where a bundle is of a family that nobody here has trained, its weights are random, and
what was measured says how activations depend on codes, not how large a trained generator's are. What holds for any
weights is the bound beside it: how large a product's result could be for what entered it (`engines.precision.ranges`).
"""

from __future__ import annotations

import gc
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import tyro

from bench.program import Rows, named, program, say
from edgedit.demo import ASTRONAUT
from engines.bundle import Bundle
from engines.contracts import PARTS, PIPELINES, style_width
from engines.errors import EngineError
from engines.family import ModelFamily
from engines.photo import aligned_square, open_image
from engines.precision.emulate import Emulated
from engines.precision.ranges import HIGH, LIMIT, least_margin, products, ranges
from engines.precision.source import load_source
from engines.precision.typed import retype
from engines.runtimes import create
from engines.session import encoder_image

Feeds = dict[str, np.ndarray]
FROM_PHOTOS = ("invert", "encoder", "e4e")
"""Graphs whose input is a photo, which no scale changes."""
SCALES = (1.0, 10.0, 100.0)
MAX_CODE_BYTES = 2**30


@dataclass(frozen=True, kw_only=True)
class RangeBenchOptions:
    """Measure the largest FP16 activations of a bundle's graphs."""

    bundle: Annotated[tuple[str, ...], tyro.conf.UseAppendAction]
    """NAME=DIRECTORY of a bundle; may be repeated."""
    codes: Path
    """W+ codes of real faces, .npy of shape any x rows x width."""
    scale: Annotated[tuple[float, ...], tyro.conf.UseAppendAction] = ()
    """A factor of the codes; may be repeated. `SCALES` if left out."""
    graph: Annotated[tuple[str, ...], tyro.conf.UseAppendAction] = ()
    """Graphs; may be repeated. All eight if left out."""
    threads: int = 0
    """Threads of ONNX Runtime; 0 leaves them to it."""
    out: Path
    """The JSON file to write; rows of an earlier run in it are kept unless they are measured again."""


def read_codes(file: Path, family: ModelFamily) -> np.ndarray:
    """The codes in a .npy file, float32 M x rows x width.

    Raises:
        EngineError: if it holds no codes of this family.
    """
    shape = (family.w_rows, family.style_dim)
    try:
        if file.stat().st_size > MAX_CODE_BYTES:
            raise EngineError(f"{file} is larger than codes can be")
        codes = np.load(file, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise EngineError(f"{file} is not an array of codes (.npy): {error}") from error
    if not isinstance(codes, np.ndarray) or codes.ndim != 3 or codes.shape[1:] != shape or codes.dtype.kind != "f":
        raise EngineError(f"{file} must hold codes of shape any x {shape[0]} x {shape[1]} of family {family.name}")
    if not len(codes) or not np.isfinite(codes).all():
        raise EngineError(f"{file} holds no codes, or such as are not finite")
    return codes.astype(np.float32)


def extremes(codes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The code with the largest value, and the change from it to the code that is farthest from it; each 1 x rows x
    width."""
    first = codes[np.abs(codes).max(axis=(1, 2)).argmax()]
    change = codes - first
    return first[None], change[np.square(change).sum(axis=(1, 2)).argmax()][None]


def photo_feeds(family: ModelFamily, graph: str) -> Iterator[tuple[str, Feeds]]:
    """A photo of a face, and noise at the ends of the pixels' range, as a graph takes them."""
    height, width = family.image_shape
    face = aligned_square(open_image(ASTRONAUT).pixels, max(height, width))[:height, :width]
    noise = 255 * np.random.default_rng(0).integers(0, 2, (height, width, 3), np.uint8)
    for name, pixels in (("photo", face), ("noise", noise)):
        images = np.ascontiguousarray(pixels[None])
        yield name, {"image": images if graph == "invert" else encoder_image(images, family.encoder_size)}


class Codes:
    """The inputs that codes give the graphs after the inversion.

    The encoder is trained to give the generator's own features, so those of the code stand in for its output.
    """

    def __init__(self, bundle: Bundle, codes: np.ndarray, scale: float, threads: int) -> None:
        first, change = (scale * array for array in extremes(codes))
        styles = np.zeros((1, style_width(bundle.family)), np.float32)
        lower = create("onnxruntime", bundle, "features", threads=threads)
        at_first, at_changed = (lower.run({"w_plus": w, "style_delta": styles}) for w in (first, first + change))
        del lower
        maps = {
            "generator_feature": at_first["generator_feature"],
            "edited_generator_feature": at_changed["generator_feature"],
            "feature": at_first["generator_feature"],
        }
        edited = create("onnxruntime", bundle, "editor", threads=threads).run(maps)["edited_feature"]
        deltas = {"delta_w": change, "style_delta": styles}
        inversion = {"w": first, "w_e": first, "feature": maps["feature"]}
        upper = {"feature": edited, "w_plus": first + change, "style_delta": styles}
        self.by_graph: dict[str, Mapping[str, np.ndarray]] = {
            "features": {"w_plus": first + change, "style_delta": styles},
            "editor": maps,
            "generator": upper | ({"rgb": at_changed["rgb"]} if bundle.family.rgb_skip else {}),
            "edit": inversion | {"generator_feature": maps["generator_feature"]} | deltas,
            "reconstruct": {"w": first, "feature": maps["feature"]},
        }


def measure(name: str, bundle: Bundle, options: RangeBenchOptions) -> Iterator[dict[str, Any]]:
    """One row per graph and input.

    Raises:
        BundleError, EngineError: if a graph is missing or damaged, or the codes do not fit.
    """
    family = bundle.family
    codes = read_codes(options.codes, family)
    graphs = options.graph or (*PIPELINES, *PARTS)
    scales = (options.scale or SCALES) if set(graphs) - set(FROM_PHOTOS) else ()
    scaled = {s: Codes(bundle, codes, s, options.threads).by_graph for s in scales}
    gc.collect()
    for graph in graphs:
        model = load_source(bundle, graph)
        retype(model, "fp16")
        fp16_products = products(model)
        emulated = Emulated(model, watch=True, threads=options.threads)
        del model
        if graph in FROM_PHOTOS:
            inputs = photo_feeds(family, graph)
        else:
            inputs = ((f"codes x {scale:g}", dict(feeds[graph])) for scale, feeds in scaled.items())
        for what, feeds in inputs:
            emulated.peaks.clear()
            emulated.run(feeds)
            yield _row(name, graph, what, emulated.peaks, least_margin(fp16_products, emulated.peaks))
        del emulated
        gc.collect()


def _row(name: str, graph: str, what: str, peaks: Mapping[str, float], margin: tuple[float, str]) -> dict[str, Any]:
    summary = ranges(peaks)

    def finite(value: float) -> float | None:
        return value if np.isfinite(value) else None

    return {
        "bundle": name,
        "graph": graph,
        "input": what,
        "values": len(peaks),
        "largest": finite(summary.largest),
        "at": max(peaks, key=lambda value: peaks[value], default=None),
        "headroom": finite(summary.headroom),
        "near_limit": {value: finite(peak) for value, peak in summary.high_peaks.items()},
        "overflowed": summary.overflowed,
        "least_margin": {"times": finite(margin[0]), "product": margin[1]},
    }


def _line(row: Mapping[str, Any]) -> str:
    largest = "overflows" if row["largest"] is None else f"largest {row['largest']:.4g} at {row['at']}"
    headroom = f", {row['headroom']:.4g} times below the limit" if row["headroom"] else ""
    margin = row["least_margin"]["times"]
    bound = f"; no product can come nearer than {margin:.3g} times ({row['least_margin']['product']})" if margin else ""
    high = f"; near {LIMIT:.0f}: {', '.join(row['near_limit'])}" if row["near_limit"] else ""
    return f"{row['bundle']} {row['graph']}, {row['input']}: {largest}{headroom}{bound}{high}"


def run(options: RangeBenchOptions) -> None:
    """Measures every bundle, and writes the file after each row.

    Raises:
        EdgeditError: if a bundle or the codes cannot be used.
    """
    rows = Rows(options.out, "bundle", "graph", "input")
    scales = "".join(f"--scale {scale:g} " for scale in options.scale)
    for name, path in named("--bundle", options.bundle):
        for row in measure(name, Bundle.load(path, verify=False), options):
            say(_line(row))
            rows.add([row])
            rows.save(
                f"python -m bench.ranges --bundle NAME=BUNDLE --codes CODES {scales}--out FILE", limit=LIMIT, near=HIGH
            )


if __name__ == "__main__":
    program(run, RangeBenchOptions, "bench.ranges")
