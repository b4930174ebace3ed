"""The graphs of a bundle: export-only modules around the networks, and the table of their tensors.

Five graphs split at the feature tensor, for builds that compose or time the parts, and three pipelines that production
runs. Pipelines take and give uint8 images (NHWC); scaling, resizing, clamping and rounding happen inside the graph.

Names, types and shapes of graph tensors are those of `engines.contracts`; `GRAPHS` joins them to the modules. Example
inputs, manifests and checks derive from it.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from engines.contracts import PARTS, PIPELINES, SELECTIONS, TensorSpec, graph_contract
from engines.family import ModelFamily
from engines.photo.resample import Filter
from export.errors import ExportError
from export.resize import Resize
from training.networks.system import EditingSystem, Inversion

SYSTEM_PREFIX = "system."
"""Every wrapper holds the editing system under this name, so a parameter's name in a trace is this prefix and its name
in `EditingSystem.state_dict()`."""


class ImageIn(nn.Module):
    """uint8 NHWC to float NCHW in [-1, 1] (x / 127.5 - 1), resized to the encoders' input by a filter."""

    def __init__(self, source: tuple[int, int], target: tuple[int, int], kind: Filter = "area") -> None:
        """Args: heights and widths in pixels, and the filter, see `engines.photo.resample`."""
        super().__init__()
        self.resize = Resize(source, target, kind)

    def forward(self, image: Tensor) -> Tensor:
        # The cast comes first: TensorRT allows no other operator on uint8.
        return self.resize(image.to(torch.float32).permute(0, 3, 1, 2) / 127.5 - 1.0)


class ImageOut(nn.Module):
    """Float NCHW to uint8 NHWC: keeps the visible rows, clamps to [-1, 1], rounds half to even."""

    def __init__(self, family: ModelFamily) -> None:
        super().__init__()
        self.rows = family.visible_rows

    def forward(self, image: Tensor) -> Tensor:
        if self.rows is not None:
            image = image[:, :, self.rows[0] : self.rows[1]]
        levels = (image.clamp(-1.0, 1.0) + 1.0) * 127.5
        return levels.round().permute(0, 2, 3, 1).to(torch.uint8)


class _Graph(nn.Module):
    def __init__(self, system: EditingSystem, family: ModelFamily) -> None:
        super().__init__()
        self.system = system
        self.family = family


class Encoder(_Graph):
    """image -> w, feature: E0 and the feature tensor enhancement (eq. 3.1-3.3)."""

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        return self.system.encode(image)


class E4E(_Graph):
    """image -> w_e: the editing-friendly code."""

    def forward(self, image: Tensor) -> Tensor:
        return self.system.encode_e4e(image)


class Features(_Graph):
    """w_plus, style_delta -> generator_feature, the generator's lower half; with `rgb_skip` also its image so far."""

    def forward(self, w_plus: Tensor, style_delta: Tensor) -> Tensor | tuple[Tensor, Tensor | None]:
        if self.family.rgb_skip:
            return self.system.generator.lower(w_plus, style_delta)
        return self.system.features(w_plus, style_delta)


class Editor(_Graph):
    """generator_feature, edited_generator_feature, feature -> edited_feature (eq. 3.5-3.10)."""

    def forward(self, generator_feature: Tensor, edited_generator_feature: Tensor, feature: Tensor) -> Tensor:
        return self.system.transform(generator_feature, edited_generator_feature, feature)


class Generator(_Graph):
    """feature, w_plus, style_delta -> image, the generator's upper half (eq. 3.4, 3.11), not clamped."""

    def forward(self, feature: Tensor, w_plus: Tensor, style_delta: Tensor) -> Tensor:
        return self.system.render(feature, w_plus, None, style_delta)


class GeneratorWithSkip(_Graph):
    """`Generator` for families with `rgb_skip`: it continues the image of the lower half."""

    def forward(self, feature: Tensor, w_plus: Tensor, style_delta: Tensor, rgb: Tensor) -> Tensor:
        return self.system.render(feature, w_plus, rgb, style_delta)


class Invert(_Graph):
    """uint8 image -> w, feature, w_e, generator_feature: all of an edit that depends on the photo alone."""

    def __init__(self, system: EditingSystem, family: ModelFamily) -> None:
        super().__init__(system, family)
        self.image_in = ImageIn(family.image_shape, family.encoder_size)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        inversion = self.system.invert(self.image_in(image))
        return inversion.w, inversion.feature, inversion.w_e, inversion.generator_feature


class Edit(_Graph):
    """inversion, delta_w, style_delta -> uint8 image."""

    def __init__(self, system: EditingSystem, family: ModelFamily) -> None:
        super().__init__(system, family)
        self.image_out = ImageOut(family)

    def forward(
        self, w: Tensor, feature: Tensor, w_e: Tensor, generator_feature: Tensor, delta_w: Tensor, style_delta: Tensor
    ) -> Tensor:
        inversion = Inversion(w=w, feature=feature, w_e=w_e, generator_feature=generator_feature)
        return self.image_out(self.system.edit(inversion, delta_w, style_delta))


class Reconstruct(_Graph):
    """w, feature -> uint8 image: the inversion rendered without an edit."""

    def __init__(self, system: EditingSystem, family: ModelFamily) -> None:
        super().__init__(system, family)
        self.image_out = ImageOut(family)

    def forward(self, w: Tensor, feature: Tensor) -> Tensor:
        # `reconstruct` reads w and the feature alone; the other two fields of an inversion serve edits.
        inversion = Inversion(w=w, feature=feature, w_e=w, generator_feature=feature)
        return self.image_out(self.system.reconstruct(inversion))


def _generator(system: EditingSystem, family: ModelFamily) -> nn.Module:
    return GeneratorWithSkip(system, family) if family.rgb_skip else Generator(system, family)


@dataclass(frozen=True, eq=False)
class BoundGraph:
    """A graph around networks that are there: what is traced, and what verification compares with."""

    name: str
    module: nn.Module
    """In evaluation mode; it holds the networks under `SYSTEM_PREFIX`."""
    inputs: list[TensorSpec]
    """In the order of the module's arguments; the first dimension is the batch."""
    outputs: list[TensorSpec]
    """In the order of the module's results."""


@dataclass(frozen=True)
class GraphSpec:
    """A graph's name and module; its tensors are those of `engines.contracts`, for any family."""

    name: str
    module: Callable[[EditingSystem, ModelFamily], nn.Module]

    def inputs(self, family: ModelFamily) -> list[TensorSpec]:
        """Names, dtypes and shapes in the order of the module's arguments; the first dimension is the batch."""
        return graph_contract(family, self.name)[0]

    def outputs(self, family: ModelFamily) -> list[TensorSpec]:
        """Likewise, in the order of the module's results."""
        return graph_contract(family, self.name)[1]

    def bind(self, system: EditingSystem, family: ModelFamily) -> BoundGraph:
        """The graph of one system."""
        return BoundGraph(self.name, self.module(system, family).eval(), self.inputs(family), self.outputs(family))

    def example(self, family: ModelFamily, batch: int, seed: int = 0) -> tuple[Tensor, ...]:
        """Random inputs: normal for float32, uniform for uint8."""
        return example_inputs(self.inputs(family), batch, seed)


_MODULES: dict[str, Callable[[EditingSystem, ModelFamily], nn.Module]] = {
    "encoder": Encoder,
    "e4e": E4E,
    "features": Features,
    "editor": Editor,
    "generator": _generator,
    "invert": Invert,
    "edit": Edit,
    "reconstruct": Reconstruct,
}

GRAPHS: dict[str, GraphSpec] = {name: GraphSpec(name, _MODULES[name]) for name in (*PARTS, *PIPELINES)}
"""All graphs, in the order they are exported."""


def own_graphs(system: EditingSystem, family: ModelFamily) -> dict[str, BoundGraph]:
    """All graphs of a system, by name."""
    return {name: spec.bind(system, family) for name, spec in GRAPHS.items()}


def select(graphs: str | Sequence[str]) -> tuple[str, ...]:
    """The graphs that a name, or several, stand for (see `engines.contracts.SELECTIONS`), in the order of `GRAPHS`.

    Raises:
        ExportError: for an unknown name, or none at all.
    """
    if isinstance(graphs, str):
        graphs = [graphs]
    if unknown := [name for name in graphs if name not in GRAPHS and name not in SELECTIONS]:
        known = ", ".join((*SELECTIONS, *GRAPHS))
        raise ExportError(f"there is no graph {unknown[0]!r} to export; there are {known}")
    if not graphs:
        raise ExportError("no graphs were asked for; a bundle needs at least one")
    named = {graph for name in graphs for graph in SELECTIONS.get(name, (name,))}
    return tuple(name for name in GRAPHS if name in named)


def batch_shapes(module: nn.Module, inputs: int, dimension: Any) -> Any:
    """What a tracer is told of a module's inputs: the first dimension of each is that one."""
    shapes = tuple({0: dimension} for _ in range(inputs))
    parameters = inspect.signature(module.forward).parameters.values()
    # What a module gathers in *tensors is one argument to the tracer.
    return (shapes,) if any(p.kind is p.VAR_POSITIONAL for p in parameters) else shapes


def example_inputs(specs: Sequence[TensorSpec], batch: int, seed: int = 0) -> tuple[Tensor, ...]:
    """Random tensors of those shapes, for tracing: normal for float32, uniform for uint8."""
    source = torch.Generator().manual_seed(seed)
    made: list[Tensor] = []
    for spec in specs:
        shape = (batch, *(int(size) for size in spec.shape[1:]))
        if spec.dtype == "uint8":
            made.append(torch.randint(0, 256, shape, dtype=torch.uint8, generator=source))
        else:
            made.append(torch.randn(shape, generator=source))
    return tuple(made)
