"""Encode once, edit many: a photo is inverted once, and every edit of it reuses the inversion."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Self

import numpy as np

from engines import tensors
from engines.bundle import Bundle
from engines.contracts import graph_contract, mismatch, style_width
from engines.errors import BundleError, EdgeditError
from engines.family import ModelFamily
from engines.files import write
from engines.runtimes import Runtime, create

_METADATA = "inversion"

_PARTS = {
    "invert": ("encoder", "e4e", "features"),
    "edit": ("features", "editor", "generator"),
    "reconstruct": ("generator",),
}
"""The separate graphs that stand in for a pipeline. With an RGB skip, `reconstruct` needs `features` too."""


@dataclass(frozen=True, eq=False)
class Inversion:
    """Everything that an edit needs of a batch of photos; float32, first axis the photos.

    Raises:
        ValueError: at construction, if an array is not float32 or the shapes do not fit together.
    """

    w: np.ndarray
    """B x N x D, the reconstruction code."""
    feature: np.ndarray
    """B x C x H x W, the enhanced feature tensor f' (eq. 3.3)."""
    w_e: np.ndarray
    """B x N x D, the editing-friendly code."""
    generator_feature: np.ndarray
    """B x C x H x W, F = G(w_e^{1:k}), the generator's own feature."""

    def __post_init__(self) -> None:
        for field in fields(self):
            array = getattr(self, field.name)
            if not isinstance(array, np.ndarray) or array.dtype != np.float32:
                raise ValueError(f"inversion: {field.name} must be a float32 array")
        pairs = ((self.w, self.w_e, 3), (self.feature, self.generator_feature, 4))
        if any(a.shape != b.shape or a.ndim != n for a, b, n in pairs) or len(self.w) != len(self.feature):
            shapes = ", ".join(f"{field.name} {getattr(self, field.name).shape}" for field in fields(self))
            raise ValueError(f"inversion: the shapes do not fit together: {shapes}")

    @property
    def batch(self) -> int:
        """B, how many photos."""
        return len(self.w)

    def __len__(self) -> int:
        return self.batch

    def __getitem__(self, index: int | slice | Iterable[int]) -> Inversion:
        """Some of the photos; a single index gives a batch of one. Slices are views.

        Raises:
            IndexError: for an index outside the batch.
        """
        if isinstance(index, slice):
            chosen: Any = index
        elif isinstance(index, int | np.integer):
            chosen = [int(index)]
        else:
            chosen = list(index)
        return Inversion(*(getattr(self, field.name)[chosen] for field in fields(self)))

    def save(self, path: str | Path) -> None:
        """Writes a safetensors file.

        Raises:
            OutputError: if it cannot be written.
        """
        arrays = {field.name: getattr(self, field.name) for field in fields(self)}
        write(path, tensors.dump(arrays, _METADATA, {"version": 1}))

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Reads what `save` wrote.

        Raises:
            EdgeditError: if it cannot be read or is not an inversion.
        """
        try:
            arrays, metadata = tensors.parse(Path(path).read_bytes(), _METADATA)
            if metadata != {"version": 1}:
                raise ValueError(f"version {metadata.get('version')!r} is not read by this edgedit")
            inversion = cls(**arrays)
        except OSError as error:
            raise EdgeditError(f"cannot read {path}: {error.strerror or error}") from error
        except (TypeError, ValueError) as error:
            raise EdgeditError(f"{path} is not a saved inversion: {error}") from error
        if not all(np.isfinite(array).all() for array in arrays.values()):
            raise EdgeditError(f"{path} is damaged: it holds values that are not finite; invert the photo again")
        return inversion


class EditSession:
    """Inverts photos and edits them with the graphs of one bundle.

    Graphs are loaded when they are first needed. A bundle may hold the fused pipelines `invert`, `edit` and
    `reconstruct` or the separate graphs; each pipeline that is missing is composed of those.

    Threads: one session may be shared. Loading is locked; runs go on at the same time where the runtime allows it,
    which ONNX Runtime does. Inversions are never written to.

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
        for name, entry in self.bundle.manifest.graphs.items():
            try:
                inputs, outputs = graph_contract(self.family, name)
            except KeyError:
                continue
            if fault := mismatch(inputs, entry.inputs) or mismatch(outputs, entry.outputs):
                raise BundleError(
                    f"{self.bundle.name}: graph {name} does not fit family {self.family.name}: {fault}; export it again"
                )

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

    def invert(self, images: np.ndarray) -> Inversion:
        """Inverts photos.

        Args:
            images: uint8 B x h x w x 3, RGB, h x w the family's `image_shape`.

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
            values = self._run("invert", image=images)
        else:
            image = _encoder_image(images, self.family.encoder_size)
            values = self._run("encoder", image=image) | self._run("e4e", image=image)
            values |= self._run("features", w_plus=values["w_e"], style_delta=self._zeros(len(images)))
        return Inversion(*(values[field.name] for field in fields(Inversion)))

    def edit(self, inversion: Inversion, delta_w: np.ndarray, style_delta: np.ndarray | None = None) -> np.ndarray:
        """Renders an edit.

        Args:
            inversion: a batch of B.
            delta_w: added to the W+ codes, N x D for all photos or B x N x D (see `directions.resolve`).
            style_delta: added to the styles, T or B x T; None is zero.

        Returns:
            uint8 B x h x w x 3.

        Raises:
            ValueError: for a shape that does not fit, or deltas that are not finite.
        """
        batch = self._check(inversion)
        delta_w = _per_photo("delta_w", delta_w, batch, (self.family.w_rows, self.family.style_dim))
        if style_delta is None:
            style_delta = self._zeros(batch)
        else:
            style_delta = _per_photo("style_delta", style_delta, batch, (style_width(self.family),))
        arrays = {field.name: getattr(inversion, field.name) for field in fields(Inversion)}
        if self._graphs("edit") == ("edit",):
            return self._run("edit", **arrays, delta_w=delta_w, style_delta=style_delta)["image"]
        edited = self._run("features", w_plus=inversion.w_e + delta_w, style_delta=style_delta)
        feature = self._run(
            "editor",
            generator_feature=inversion.generator_feature,
            edited_generator_feature=edited["generator_feature"],
            feature=inversion.feature,
        )["edited_feature"]
        return self._render(feature, inversion.w + delta_w, style_delta)

    def reconstruct(self, inversion: Inversion) -> np.ndarray:
        """Renders the inversion unedited.

        Returns:
            uint8 B x h x w x 3.

        Raises:
            ValueError: for an inversion that is not of this family.
        """
        batch = self._check(inversion)
        if self._graphs("reconstruct") == ("reconstruct",):
            return self._run("reconstruct", w=inversion.w, feature=inversion.feature)["image"]
        return self._render(inversion.feature, inversion.w, self._zeros(batch))

    def _render(self, feature: np.ndarray, w_plus: np.ndarray, style_delta: np.ndarray) -> np.ndarray:
        feeds = {"feature": feature, "w_plus": w_plus, "style_delta": style_delta}
        if self.family.rgb_skip:
            feeds["rgb"] = self._run("features", w_plus=w_plus, style_delta=style_delta)["rgb"]
        image = self._run("generator", **feeds)["image"]
        first, last = self.family.visible_rows or (0, self.family.size)
        levels = np.rint((image[:, :, first:last].clip(-1, 1) + np.float32(1)) * np.float32(127.5))
        return np.ascontiguousarray(levels.astype(np.uint8).transpose(0, 2, 3, 1))

    def _graphs(self, pipeline: str) -> tuple[str, ...]:
        held = self.bundle.manifest.graphs
        if pipeline in held:
            return (pipeline,)
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
        with self._lock:
            if graph not in self._loaded:
                self._loaded[graph] = create(self.runtime, self.bundle, graph, **self._options)
            return self._loaded[graph]

    def _run(self, graph: str, **feeds: np.ndarray) -> dict[str, np.ndarray]:
        return self._load(graph).run(feeds)

    def _zeros(self, batch: int) -> np.ndarray:
        return np.zeros((batch, style_width(self.family)), np.float32)

    def _check(self, inversion: Inversion) -> int:
        code, feature = (self.family.w_rows, self.family.style_dim), self.family.feature_shape
        if inversion.w.shape[1:] != code or inversion.feature.shape[1:] != feature or not inversion.batch:
            raise ValueError(
                f"the inversion has codes {inversion.w.shape} and features {inversion.feature.shape}; family "
                f"{self.family.name} takes (batch, {code[0]}, {code[1]}) and (batch, {', '.join(map(str, feature))})"
            )
        return inversion.batch


def _per_photo(name: str, delta: np.ndarray, batch: int, shape: tuple[int, ...]) -> np.ndarray:
    delta = np.asarray(delta, np.float32)
    if delta.shape not in (shape, (batch, *shape)):
        raise ValueError(f"{name} must be {shape} or {(batch, *shape)}, got {delta.shape}")
    if not np.isfinite(delta).all():
        raise ValueError(f"{name} holds values that are not finite")
    return np.ascontiguousarray(np.broadcast_to(delta, (batch, *shape)))


def _area(source: int, target: int) -> np.ndarray:
    """target x source matrix that takes the mean of each block of source / target pixels."""
    return np.kron(np.eye(target), np.full(source // target, target / source)).astype(np.float32)


def _bilinear(source: int, target: int) -> np.ndarray:
    """target x source matrix of bilinear resampling, half-pixel centres, the filter widened where it shrinks."""
    scale = source / target
    distance = np.arange(source) + 0.5 - scale * (np.arange(target)[:, None] + 0.5)
    weights = np.clip(1 - np.abs(distance) / max(scale, 1.0), 0, None)
    return (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)


def _encoder_image(images: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """uint8 B x h x w x 3 to the encoders' float32 B x 3 x h' x w' in [-1, 1].

    The same resampling as inside the `invert` graph: block means where both sides shrink by whole factors, bilinear
    otherwise.
    """
    image = images.transpose(0, 3, 1, 2) / np.float32(127.5) - np.float32(1)
    height, width = image.shape[2:]
    if (height, width) == size:
        return image
    matrix = _bilinear if height % size[0] or width % size[1] else _area
    return matrix(height, size[0]) @ image @ matrix(width, size[1]).T
