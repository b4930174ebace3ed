"""Encode once, edit many: a photo is inverted once, and every edit of it reuses the inversion."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from engines.bundle import Bundle
from engines.contracts import PARTS, PIPELINES, TensorSpec, graph_contract, mismatch, pipeline_contract, style_width
from engines.errors import BundleError, DirectionError
from engines.family import ModelFamily
from engines.inversion import HeldInversion, Inversion
from engines.lost_picture import LOST, is_lost
from engines.photo.resample import resize
from engines.photo.tone import Tone
from engines.runtimes import DeviceTensor, Feed, Runtime, create

__all__ = ["EditSession", "Inversion"]

_log = logging.getLogger(__name__)

_PARTS = {
    "invert": ("encoder", "e4e", "features"),
    "edit": ("features", "editor", "generator"),
    "reconstruct": ("generator",),
}
"""The separate graphs that stand in for a pipeline. With an RGB skip, `reconstruct` needs `features` too."""


class EditSession:
    """Inverts photos and edits them with the graphs of one bundle, of any method.

    Graphs are loaded when they are first needed. A bundle may hold the fused pipelines `invert`, `edit` and
    `reconstruct` or the separate graphs; each pipeline that is missing is composed of those.

    Threads: one session may be shared. Loading is locked; runs go on at the same time where the runtime allows it,
    which ONNX Runtime does. Inversions are never written to.

    Processes: load after the fork, such as in gunicorn's workers and not with its --preload. A process that was forked
    from one with a session lacks the threads of it and, on a GPU, the device; the first call there says so in the log.
    On the CPU it computes all the same, on the calling thread alone.

    Args:
        bundle: a bundle, or its directory (then all of it is verified).
        runtime: a name of `engines.runtimes`.
        options: passed to the runtime's `load`, such as `provider="cuda"` or `threads=4`.

    Raises:
        BundleError: if the bundle's graphs are not those of its family.
        RuntimeUnavailableError: by the first call that needs a graph, if the runtime or provider is not there.
    """

    def __init__(self, bundle: Bundle | str | Path, runtime: str = "onnxruntime", **options: Any) -> None:
        self.bundle = bundle if isinstance(bundle, Bundle) else Bundle.load(bundle)
        self.family: ModelFamily = self.bundle.family
        self.runtime = runtime
        self._options = options
        self._loaded: dict[str, Runtime] = {}
        self._lock = threading.Lock()
        self._process = os.getpid()
        self._inversion = {spec.name: spec for spec in self.bundle.inversion}
        for name, entry in self.bundle.manifest.graphs.items():
            try:
                inputs, outputs = self._contract(name, entry.inputs)
            except KeyError:
                continue
            if cause := mismatch(inputs, entry.inputs) or mismatch(outputs, entry.outputs):
                raise BundleError(
                    f"{self.bundle.name}: graph {name} does not fit family {self.family.name}: {cause}; export it again"
                )

    def _contract(self, graph: str, inputs: list[TensorSpec]) -> tuple[list[TensorSpec], list[TensorSpec]]:
        if graph in PIPELINES:
            return pipeline_contract(self.family, graph, list(self._inversion.values()), inputs)
        return graph_contract(self.family, graph)

    def prepare(self, *pipelines: str) -> None:
        """Loads the graphs of some of `invert`, `edit` and `reconstruct` now, so that what is wrong is found now.

        Raises:
            BundleError: if the bundle lacks a graph or the runtime cannot load it.
            RuntimeUnavailableError: if the runtime or provider is not there.
        """
        for pipeline in pipelines:
            for graph in self._graphs(pipeline):
                self._load(graph)

    def warm_up(self, batch: int = 1) -> None:
        """Loads every graph that the three pipelines need and runs each once."""
        for pipeline in _PARTS:
            for graph in self._graphs(pipeline):
                self._load(graph).warm_up(batch)

    def invert(self, images: np.ndarray, tones: Sequence[Tone] = ()) -> Inversion:
        """Inverts photos.

        Args:
            images: uint8 B x h x w x 3, RGB, h x w the family's `image_shape`.
            tones: what goes with the inversion of the photos' own light and colours, which a session itself leaves to
                its caller; none for the model's.

        Returns:
            An inversion that stays where the runtime computes, and in its memory, while it is referred to: edits by
            this session move none of it. `Inversion.host` gives one that lies on the host alone.

        Raises:
            ValueError: for another dtype or shape; one line.
        """
        height, width = self.family.image_shape
        if not isinstance(images, np.ndarray) or images.dtype != np.uint8:
            kind = images.dtype if isinstance(images, np.ndarray) else type(images).__name__
            raise ValueError(f"images must be uint8 RGB, got {kind}")
        if images.ndim != 4 or images.shape[1:] != (height, width, 3) or not len(images):
            raise ValueError(f"images must be (batch, {height}, {width}, 3), got {images.shape}")
        if self._graphs("invert") == ("invert",):
            held = self._run("invert", {"image": images}, self._inversion)
        else:
            feeds = {"image": encoder_image(images, self.family.encoder_size)}
            held = self._run("encoder", feeds, ("w", "feature")) | self._run("e4e", feeds, ("w_e",))
            feeds = {"w_plus": held["w_e"], "style_delta": self._zeros(len(images))}
            held |= self._run("features", feeds, ("generator_feature",))
        return HeldInversion({name: held[name] for name in self._inversion}, self, tones)

    def hold(self, inversion: Inversion) -> Inversion:
        """Copies an inversion, such as one from a file, to where the runtime computes, for edits to find it there.

        Raises:
            ValueError: for an inversion that is not of this family.
        """
        self._check(inversion)
        if isinstance(inversion, HeldInversion) and inversion.held_by(self) is not None:
            return inversion
        runtime = self._load(self._graphs("edit")[0])
        held = {name: runtime.put(inversion.array(name)) for name in self._inversion}
        return HeldInversion(held, self, inversion.tones)

    def edit(self, inversion: Inversion, delta_w: np.ndarray, style_delta: np.ndarray | None = None) -> np.ndarray:
        """Renders an edit: the model's own picture, whatever the photo's light and colours.

        Args:
            inversion: a batch of B.
            delta_w: added to the W+ codes, N x D for all photos or B x N x D (see `directions.resolve`).
            style_delta: added to the styles, T or B x T; None is zero.

        Returns:
            uint8 B x h x w x 3.

        Raises:
            DirectionError: for a style delta that is not zero, if the bundle's method edits codes alone; for deltas so
                large that the picture is lost.
            ValueError: for a shape that does not fit, or deltas that are not finite.
        """
        delta_w, style_delta = self._deltas(inversion, delta_w, style_delta)
        if self._graphs("edit") == ("edit",):
            feeds = {**self._read("edit", self._parts(inversion)), "delta_w": delta_w}
            if self.bundle.edits_styles:
                feeds["style_delta"] = style_delta
            elif style_delta.any():
                raise DirectionError(
                    f"{self.bundle.name}: method {self.bundle.method} edits codes alone, and this edit moves styles; "
                    "use directions in W or W+"
                )
            return _picture(self._run("edit", feeds)["image"], delta_w, style_delta)
        feature = self._edited_feature(inversion, delta_w, style_delta)
        return _picture(self._render(feature, inversion.w + delta_w, style_delta), delta_w, style_delta)

    @property
    def explains(self) -> bool:
        """True if `edit_linear` and `edit_map` can run: with the separate graphs in the bundle."""
        return set(_PARTS["edit"]) <= set(self.bundle.manifest.graphs)

    def edit_linear(
        self, inversion: Inversion, delta_w: np.ndarray, style_delta: np.ndarray | None = None
    ) -> np.ndarray:
        """Renders an edit as linear editing does, without the editor, to compare with: f' + G(w + Δ) − G(w).

        Args and errors are those of `edit`.

        Returns:
            uint8 B x h x w x 3.

        Raises:
            BundleError: if the bundle lacks a separate graph (see `explains`).
        """
        self._check_explains()
        delta_w, style_delta = self._deltas(inversion, delta_w, style_delta)
        edited = self._run("features", {"w_plus": inversion.w_e + delta_w, "style_delta": style_delta})
        feature = inversion.array("feature") + edited["generator_feature"] - inversion.array("generator_feature")
        return _picture(self._render(feature, inversion.w + delta_w, style_delta), delta_w, style_delta)

    def edit_map(self, inversion: Inversion, delta_w: np.ndarray, style_delta: np.ndarray | None = None) -> np.ndarray:
        """A map of where an edit acts: the norm over the channels of f'' − f', the editor's change of the features.

        Args and errors are those of `edit`.

        Returns:
            float32 B x H x W, 0 and more, of the feature tensor's own size.

        Raises:
            BundleError: if the bundle lacks a separate graph (see `explains`).
        """
        self._check_explains()
        delta_w, style_delta = self._deltas(inversion, delta_w, style_delta)
        feature = self._edited_feature(inversion, delta_w, style_delta).numpy()
        return np.linalg.norm(feature - inversion.array("feature"), axis=1)

    def reconstruct(self, inversion: Inversion) -> np.ndarray:
        """Renders the inversion unedited.

        Returns:
            uint8 B x h x w x 3.

        Raises:
            ValueError: for an inversion that is not of this family.
        """
        batch = self._check(inversion)
        parts = self._parts(inversion)
        if self._graphs("reconstruct") == ("reconstruct",):
            return self._run("reconstruct", self._read("reconstruct", parts))["image"]
        return self._render(parts["feature"], parts["w"], self._zeros(batch))

    def _deltas(
        self, inversion: Inversion, delta_w: np.ndarray, style_delta: np.ndarray | None
    ) -> tuple[np.ndarray, np.ndarray]:
        """The two deltas, checked, one for each photo."""
        batch = self._check(inversion)
        delta_w = _per_photo("delta_w", delta_w, batch, (self.family.w_rows, self.family.style_dim))
        if style_delta is None:
            return delta_w, self._zeros(batch)
        return delta_w, _per_photo("style_delta", style_delta, batch, (style_width(self.family),))

    def _edited_feature(self, inversion: Inversion, delta_w: np.ndarray, style_delta: np.ndarray) -> DeviceTensor:
        """f'', B x C x H x W, by the separate graphs."""
        parts = self._parts(inversion)
        # The codes are small; the feature tensors are not, and stay where they are.
        feeds = {"w_plus": inversion.w_e + delta_w, "style_delta": style_delta}
        edited = self._run("features", feeds, ("generator_feature",))
        feeds = {
            "generator_feature": parts["generator_feature"],
            "edited_generator_feature": edited["generator_feature"],
            "feature": parts["feature"],
        }
        return self._run("editor", feeds, ("edited_feature",))["edited_feature"]

    def _check_explains(self) -> None:
        if not self.explains:
            lacking = next((p for p in _PARTS["edit"] if p not in self.bundle.manifest.graphs), None)
            what = f"there is no graph {lacking}" if lacking else f"its method is {self.bundle.method}"
            raise BundleError(f"{self.bundle.name}: the steps of an edit cannot be looked at: {what}; use `edit`")

    def _render(self, feature: Feed, w_plus: Feed, style_delta: np.ndarray) -> np.ndarray:
        feeds = {"w_plus": w_plus, "style_delta": style_delta}
        if self.family.rgb_skip:
            feeds["rgb"] = self._run("features", feeds, ("rgb",))["rgb"]
        image = self._run("generator", {**feeds, "feature": feature})["image"]
        first, last = self.family.visible_rows or (0, self.family.size)
        levels = np.rint((image[:, :, first:last].clip(-1, 1) + np.float32(1)) * np.float32(127.5))
        return np.ascontiguousarray(levels.astype(np.uint8).transpose(0, 2, 3, 1))

    def _graphs(self, pipeline: str) -> tuple[str, ...]:
        held = self.bundle.manifest.graphs
        if pipeline in held:
            return (pipeline,)
        if not any(part in held for part in PARTS):
            self.bundle.graph(pipeline)
        parts = _PARTS[pipeline]
        if pipeline == "reconstruct" and self.family.rgb_skip:
            parts = ("features", *parts)
        if missing := [part for part in parts if part not in held]:
            raise BundleError(
                f"{self.bundle.name}: there is no graph {pipeline}, nor {', '.join(missing)} to compose it of; "
                "export the bundle with that graph"
            )
        return parts

    def _load(self, graph: str) -> Runtime:
        if self._process != os.getpid():
            self._process = os.getpid()
            _log.warning(
                "edgedit: this process was forked from one that had loaded %s, whose threads it lacks; load the editor "
                "after the fork (gunicorn: without --preload)",
                self.bundle.name,
            )
        with self._lock:
            if graph not in self._loaded:
                self._loaded[graph] = create(self.runtime, self.bundle, graph, **self._options)
            return self._loaded[graph]

    def _run(self, graph: str, feeds: Mapping[str, Feed], keep: Collection[str] = ()) -> dict[str, Any]:
        return self._load(graph).run(feeds, keep)

    def _parts(self, inversion: Inversion) -> dict[str, Feed]:
        """The feeds of an inversion: the tensors that this session holds, or its arrays."""
        held = inversion.held_by(self) if isinstance(inversion, HeldInversion) else None
        return dict(held) if held is not None else {name: inversion.array(name) for name in self._inversion}

    def _read(self, graph: str, parts: Mapping[str, Feed]) -> dict[str, Feed]:
        """The parts of an inversion that a graph takes."""
        return {spec.name: parts[spec.name] for spec in self.bundle.graph(graph).inputs if spec.name in parts}

    def _zeros(self, batch: int) -> np.ndarray:
        return np.zeros((batch, style_width(self.family)), np.float32)

    def _check(self, inversion: Inversion) -> int:
        wanted = {name: tuple(spec.shape[1:]) for name, spec in self._inversion.items()}
        have = {name: inversion.shape(name)[1:] for name in inversion.names}
        if have != wanted or not inversion.batch:
            name = next((n for n in wanted if have.get(n) != wanted[n]), next(iter(have.keys() - wanted.keys()), None))
            what = f"{name} {inversion.shape(name)}" if name in have else f"no {name}" if name else "no photos"
            takes = ", ".join(f"{n} ({', '.join(map(str, ('batch', *shape)))})" for n, shape in wanted.items())
            raise ValueError(
                f"the inversion has {what}; family {self.family.name} takes, with method {self.bundle.method}, {takes}"
            )
        return inversion.batch


def _per_photo(name: str, delta: np.ndarray, batch: int, shape: tuple[int, ...]) -> np.ndarray:
    delta = np.asarray(delta, np.float32)
    if delta.shape not in (shape, (batch, *shape)):
        raise ValueError(f"{name} must be {shape} or {(batch, *shape)}, got {delta.shape}")
    if not np.isfinite(delta).all():
        raise ValueError(f"{name} holds values that are not finite")
    return np.ascontiguousarray(np.broadcast_to(delta, (batch, *shape)))


def _picture(images: np.ndarray, *deltas: np.ndarray) -> np.ndarray:
    """Edited photos as they are, uint8 B x h x w x 3.

    Raises:
        DirectionError: for one that the deltas have left no picture of.
    """
    if is_lost(images, *deltas):
        raise DirectionError(LOST)
    return images


def encoder_image(images: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """uint8 B x h x w x 3 to the encoders' float32 B x 3 x h' x w' in [-1, 1], by the filter of our own `invert`."""
    return resize(images.transpose(0, 3, 1, 2) / np.float32(127.5) - np.float32(1), size, "area")
