"""Accuracy certificates: what a graph in a lower precision does to real photos, against FP32.

Every graph is fed what the FP32 system feeds it, so that its own error shows and not that of the graphs before it.
Image graphs are compared as the images a user gets; `invert` and `encoder` through the FP32 `reconstruct`, since a
code is only as good as the photo that comes back; the remaining parts as tensors. Where the target hardware is absent
FP16 arithmetic is emulated (see `precision.emulate`), and the certificate says so.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime

from engines.building.fidelity import TensorErrors, finite, image_figures
from engines.building.gates import GATES, passes, shortfall
from engines.building.similarity import ms_ssim, psnr
from engines.bundle import Bundle
from engines.contracts import PIPELINES, style_width
from engines.directions import load_directions, resolve
from engines.errors import EngineError
from engines.precision.emulate import Emulated
from engines.precision.fp32_rules import MOVES
from engines.precision.keep_fp32 import by_bisection, by_noise
from engines.precision.macs import macs
from engines.precision.quantise import QUANTISED, Peak, computes_in
from engines.precision.ranges import ranges
from engines.precision.source import copy_of, load_source, shapes
from engines.precision.typed import retype
from engines.runtimes import create
from engines.session import EditSession, encoder_image

Feeds = Mapping[str, np.ndarray]
Run = Callable[[Feeds], Mapping[str, np.ndarray]]
Embed = Callable[[np.ndarray], np.ndarray]
"""uint8 B x h x w x 3 to unit vectors B x E."""
Distance = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""Two sets of uint8 images to one number each."""

_WIDEST = {"fp16": "FP32", "int8": "FP16", "fp8": "FP16"}
PROBES = 4
"""Photos that a search for offenders is run on: those that came out worst."""
EMULATED = (
    "emulated on a CPU: every FP16 node computes in FP32 from FP16 values and its result is rounded to FP16, range "
    "included"
)
EMULATED_EIGHT_BIT = (
    "emulated on a CPU: 8-bit products multiply the values that QuantizeLinear and DequantizeLinear give, and sum in "
    "FP32; every other node as in FP16, its result rounded to FP16, range included"
)
SINGLE_EIGHT_BIT = (
    "on a CPU: 8-bit products multiply the values that QuantizeLinear and DequantizeLinear give, and sum in FP32; "
    "every other node in FP32"
)


@dataclass(frozen=True, kw_only=True)
class Judges:
    """Networks that compare images, where they are at hand."""

    identity: Embed | None = None
    lpips: Distance | None = None


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """The source of the ranges of 8-bit data."""

    peaks: Callable[[str], Mapping[str, Peak]]
    """A function from a graph to its ranges, see `precision.calibrate`."""
    photos: int
    """The number of photos that they were measured on."""
    apart: bool
    """True if none of these photos enters the certificate."""


@dataclass(frozen=True)
class Fitted:
    """A precision that was tried on a graph, and widened until its gates held."""

    keep_fp32: frozenset[str]
    """Nodes that must stay one step wider than the rules have them, see `precision.typed.lower`."""
    certificate: dict[str, Any]


class Certifier:
    """Certifies the graphs of one bundle on one set of photos.

    Args:
        bundle: with FP32 graphs.
        photos: uint8 B x h x w x 3, of the bundle's image size.
        reference: by graph, what runs it in FP32; None: ONNX Runtime on the bundle's own graphs, which the export
            verified against PyTorch.
        calibration: for 8 bits.
        single: for engines of a CPU, see `precision.typed.lower`.
        threads: of ONNX Runtime, see `engines.cpus.threads`.

    Raises:
        ValueError: for photos of another size, or none.
    """

    def __init__(
        self,
        bundle: Bundle,
        photos: np.ndarray,
        *,
        reference: Callable[[str], Run] | None = None,
        source: str = f"ONNX Runtime {onnxruntime.__version__}, FP32",
        judges: Judges | None = None,
        calibration: Calibration | None = None,
        single: bool = False,
        batch: int = 8,
        threads: int = 0,
    ) -> None:
        height, width = bundle.family.image_shape
        if photos.ndim != 4 or photos.shape[1:] != (height, width, 3) or not len(photos):
            raise ValueError(f"certifying {bundle.name} takes photos of {width}x{height}, got {photos.shape}")
        self.bundle, self.photos, self.judges, self.threads = bundle, photos, judges or Judges(), threads
        self.source, self.calibration, self.single = source, calibration, single
        self._make = reference or (lambda graph: create("onnxruntime", bundle, graph, threads=threads).run)
        self._references: dict[str, Run] = {}
        self._outputs: tuple[str, dict[int, Mapping[str, np.ndarray]]] = ("", {})
        self._folded: tuple[str, ir.Model | None] = ("", None)
        self._edits: list[str] = []
        self._batches = self._collect(batch)

    def _reference(self, graph: str) -> Run:
        if graph not in self._references:
            self._references[graph] = self._make(graph)
        return self._references[graph]

    def _wanted(self, graph: str, index: int, feeds: Feeds) -> Mapping[str, np.ndarray]:
        """The reference's outputs for a batch, cached for one graph at a time, since a search asks again and again."""
        if self._outputs[0] != graph:
            self._outputs = (graph, {})
        outputs = self._outputs[1]
        if index not in outputs:
            outputs[index] = self._reference(graph)(feeds)
        return outputs[index]

    def feeds(self, graph: str) -> Sequence[Feeds]:
        """The inputs of a graph in the FP32 system on these photos, batch by batch."""
        if graph not in PIPELINES:
            return self._part_feeds[graph]
        names = [spec.name for spec in self.bundle.graph(graph).inputs]
        return [{name: known[name] for name in names} for known in self._batches]

    def _retyped(self, graph: str, precision: str, keep_fp32: frozenset[str]) -> tuple[ir.Model, dict[str, str]]:
        model = self._source(graph)
        measured = self.calibration.peaks(graph) if precision in QUANTISED and self.calibration is not None else None
        return model, retype(model, precision, keep_fp32, measured, single=self.single)

    def _source(self, graph: str) -> ir.Model:
        """A copy of the graph as `load_source` gives it; its constants are computed once for all that a search asks."""
        name, model = self._folded
        if model is None or name != graph:
            model = load_source(self.bundle, graph)
            self._folded = (graph, model)
        return copy_of(model)

    def _collect(self, batch: int) -> list[dict[str, np.ndarray]]:
        """All that the pipelines read, batch by batch: photos through the FP32 system, each with one direction at one
        end of its range."""
        family = self.bundle.family
        session = EditSession(self.bundle, threads=self.threads)
        directions = load_directions(self.bundle)
        ends = [(name, s) for name, d in directions.items() for s in (d.max_strength, d.min_strength)]
        batches = []
        for start in range(0, len(self.photos), batch):
            images = self.photos[start : start + batch]
            inversion = session.invert(images)
            deltas = np.zeros((len(images), family.w_rows, family.style_dim), np.float32)
            styles = np.zeros((len(images), style_width(family)), np.float32)
            for row in range(len(images)):
                if ends:
                    name, strength = ends[(start + row) % len(ends)]
                    self._edits.append(f"{name}:{strength:g}")
                    edit = resolve(directions, {name: strength}, family)
                    deltas[row], styles[row] = edit.delta_w, edit.style_delta
            moves = {"delta_w": deltas, "style_delta": styles}
            batches.append({name: inversion.array(name) for name in inversion.names} | {"image": images} | moves)
        return batches

    @cached_property
    def _part_feeds(self) -> dict[str, list[Feeds]]:
        """The inputs of the separate graphs, which hold twice as much as those of the pipelines."""
        family, feeds = self.bundle.family, defaultdict(list)
        if not {"features", "editor"} <= set(self.bundle.manifest.graphs):
            return {}
        for known in self._batches:
            deltas, styles = known["delta_w"], known["style_delta"]
            edited_code = {"w_plus": known["w_e"] + deltas, "style_delta": styles}
            lower = self._reference("features")(edited_code)
            maps = {
                "generator_feature": known["generator_feature"],
                "edited_generator_feature": lower["generator_feature"],
                "feature": known["feature"],
            }
            changed = self._reference("editor")(maps)["edited_feature"]
            upper = {"feature": changed, "w_plus": known["w"] + deltas, "style_delta": styles}
            if family.rgb_skip:
                upper["rgb"] = self._reference("features")({"w_plus": upper["w_plus"], "style_delta": styles})["rgb"]
            image = encoder_image(known["image"], family.encoder_size)
            parts = {"encoder": {"image": image}, "e4e": {"image": image}, "features": edited_code}
            for graph, values in (parts | {"editor": maps, "generator": upper}).items():
                feeds[graph].append(values)
        return dict(feeds)

    def fit(self, graph: str, precision: str, *, progress: Callable[[str], None] = lambda message: None) -> Fitted:
        """Certifies a graph in a precision; if a gate fails, widens the nodes that it fails on.

        The nodes are looked for on the photos that came out worst. Where other photos fail with them, these join.

        Raises:
            EngineError: if the gates fail even in FP32, or the precision is not offered.
        """
        certificate, noise = self._certify(graph, precision)
        if certificate["passed"] or precision == "fp32":
            return Fitted(frozenset(), certificate)
        progress(f"{graph}: {shortfall(certificate)}; looking for the nodes it is due to")
        probes = self._worst(noise)
        first = frozenset(probes)

        def passes(wide: frozenset[str]) -> bool:
            return self._certify(graph, precision, wide, probes)[0]["passed"]

        def power(wide: frozenset[str]) -> float:
            return sum(self._certify(graph, precision, wide, first)[1].values())

        model, rules = self._retyped(graph, precision, frozenset())
        nodes = [str(node.name) for node in model.graph if node.op_type not in MOVES and str(node.name) not in rules]
        sets = by_bisection(nodes, passes, progress=progress)
        if precision in QUANTISED:
            specs = shapes(model)
            products = {str(node.name): macs(node, specs) for node in model.graph if computes_in(node)}
            # Where all products are not enough, one of the other nodes leaves the range of FP16.
            sets = chain(by_noise(products, power, passes, progress=progress), sets)
        for wide in sets:
            attempt, noise = self._certify(graph, precision, wide)
            if attempt["passed"]:
                return Fitted(wide, attempt)
            progress(f"{len(wide)} nodes widened: {shortfall(attempt)} on all photos; more are needed")
            probes |= self._worst(noise)
        raise EngineError(
            f"graph {graph} fails its accuracy gate even in {_WIDEST[precision]}: {shortfall(certificate)}"
        )

    def _worst(self, noise: Mapping[int, float]) -> set[int]:
        """The batches that came out worst, of `PROBES` photos together."""
        count = math.ceil(PROBES * len(noise) / len(self.photos))
        return set(sorted(noise, key=lambda index: -noise[index])[:count])

    def certify(self, graph: str, precision: str, keep_fp32: frozenset[str] = frozenset()) -> dict[str, Any]:
        """The certificate of a graph in a precision, emulated."""
        return self._certify(graph, precision, keep_fp32)[0]

    def _certify(
        self,
        graph: str,
        precision: str,
        keep_fp32: frozenset[str] = frozenset(),
        batches: Collection[int] | None = None,
    ) -> tuple[dict[str, Any], dict[int, float]]:
        model, _ = self._retyped(graph, precision, keep_fp32)
        emulated = Emulated(model, watch=precision != "fp32", threads=self.threads)
        how = EMULATED
        if precision in QUANTISED:
            how = SINGLE_EIGHT_BIT if self.single else EMULATED_EIGHT_BIT
        certificate, noise = self._measure(graph, emulated.run, how, precision, batches)
        if precision != "fp32":
            activations = ranges(emulated.peaks)
            certificate["activations"] = {
                "largest": finite(activations.largest),
                "headroom": finite(activations.headroom),
                "near_limit": {name: finite(peak) for name, peak in activations.high_peaks.items()},
                "overflowed": activations.overflowed,
            }
            certificate["passed"] = certificate["passed"] and not activations.overflowed
        if precision in QUANTISED and self.calibration is not None:
            certificate["calibration"] = {"photos": self.calibration.photos, "apart": self.calibration.apart}
        certificate["widened"] = sorted(keep_fp32)
        return certificate, noise

    def measure(self, graph: str, run: Run, arithmetic: str, *, precision: str = "fp16") -> dict[str, Any]:
        """Compares any implementation of a graph with the reference.

        Args:
            run: named inputs to named outputs.
            arithmetic: how it computes, in words.
            precision: whose gates it is held against.
        """
        return self._measure(graph, run, arithmetic, precision)[0]

    def _measure(
        self, graph: str, run: Run, arithmetic: str, precision: str, batches: Collection[int] | None = None
    ) -> tuple[dict[str, Any], dict[int, float]]:
        """The certificate and the noise by batch, on some of the batches or all."""
        rendered = graph in ("invert", "encoder") and "reconstruct" in self.bundle.manifest.graphs
        images: dict[str, list[np.ndarray]] = {}
        tensors: dict[str, list[TensorErrors]] = {}
        noise: dict[int, float] = {}
        used = 0
        # Batch by batch: all outputs together would take many times the memory that the graph does.
        for index, feeds in enumerate(self.feeds(graph)):
            if batches is not None and index not in batches:
                continue
            used += len(next(iter(feeds.values())))
            want, have = dict(self._wanted(graph, index, feeds)), dict(run(feeds))
            if rendered:
                read = self.bundle.graph("reconstruct").inputs
                for values in (want, have):
                    codes = {spec.name: values[spec.name] for spec in read}
                    values["rendered"] = self._reference("reconstruct")(codes)["image"]
            errors = {n: TensorErrors.of(want[n], have[n]) for n, value in want.items() if value.dtype != np.uint8}
            for name, error in errors.items():
                tensors.setdefault(name, []).append(error)
            picture = next((name for name, value in want.items() if value.dtype == np.uint8), None)
            noise[index] = max((error.share for error in errors.values()), default=0.0)
            if picture is not None:
                figures = self._images(want[picture], have[picture])
                noise[index] = float(10 ** (-figures["psnr"].min() / 10))
                for name, figure in figures.items():
                    images.setdefault(name, []).append(figure)
        totals = {name: sum(errors[1:], start=errors[0]) for name, errors in tensors.items()}
        broken = {what: sum(getattr(total, what) for total in totals.values()) for what in ("nan", "inf")}
        certificate: dict[str, Any] = {
            "reference": self.source,
            "arithmetic": arithmetic,
            "photos": used,
            "edits": sorted(set(self._edits)) if graph in ("edit", "features", "editor", "generator") else [],
            "images": image_figures({name: np.concatenate(parts) for name, parts in images.items()}),
            "tensors": {name: total.figures() for name, total in totals.items()},
            **broken,
            "gates": GATES[precision],
        }
        certificate["passed"] = not any(broken.values()) and passes(certificate)
        return certificate, noise

    def _images(self, reference: np.ndarray, images: np.ndarray) -> dict[str, np.ndarray]:
        """Figures of each image."""
        difference = np.abs(reference.astype(np.int16) - images)
        figures = {
            "psnr": np.minimum(psnr(reference, images), 99.0),
            "ms_ssim": ms_ssim(reference, images),
            "max_abs": difference.max(axis=(1, 2, 3)),
            "pixels_changed": (difference > 0).mean(axis=(1, 2, 3)),
        }
        if self.judges.lpips is not None:
            figures["lpips"] = self.judges.lpips(reference, images)
        if self.judges.identity is not None:
            figures["identity"] = (self.judges.identity(reference) * self.judges.identity(images)).sum(axis=1)
        return figures
