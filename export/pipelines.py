"""The pipelines of every method: `invert`, `edit` and `reconstruct`, uint8 at the door.

    invert       image uint8 B x h x w x 3 -> the method's inversion, float32
    edit         what it reads of the inversion, delta_w B x N x D, the style delta B x T where the method takes one
                 -> image uint8 B x h x w x 3
    reconstruct  what it reads of the inversion -> image

h x w is the family's `image_shape`. The inversion's tensors are the fields of the method's NamedTuple, in its order; a
field that is a tuple of tensors gives `<field>_0`, `<field>_1` and so on. Shapes follow from the method and its family,
and all of it goes into the bundle's manifest, where those who run the graphs read it.

An edit is always given for every row of the code. CLCAE edits in W by moving its base code: its graph takes an edit
that is the same in every row for one in W, per image, as its own scripts tell the two apart by the shape.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from engines.contracts import BATCH, PIPELINES, TensorSpec, graph_contract, pipeline_contract
from engines.family import ModelFamily
from engines.photo.resample import Filter
from export.bound import BoundGraph
from export.resize import Resize
from training.methods.protocol import Method


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


class Layout(NamedTuple):
    """The named tensors that a method's inversion is made of."""

    kind: type
    fields: dict[str, tuple[str, ...] | None]
    """The names of a field's tensors, by field; None where the field is a tensor itself."""
    specs: list[TensorSpec]

    def build(self, tensors: Mapping[str, Tensor]) -> Any:
        """The NamedTuple; fields whose tensors are not given are None."""
        values = {
            field: tensors.get(field) if names is None else tuple(tensors[name] for name in names)
            for field, names in self.fields.items()
        }
        return self.kind(**values)


@cache
def layout(kind: type[Method], family: ModelFamily) -> Layout:
    """The tensors of a method's inversion, known from a run without data."""
    with torch.device("meta"), torch.no_grad():
        method = kind(family).eval().exportable()
        inversion = method.invert(torch.empty(2, 3, *method.input_size))
    fields: dict[str, tuple[str, ...] | None] = {}
    specs: list[TensorSpec] = []
    for field, value in inversion._asdict().items():
        alone = isinstance(value, Tensor)
        tensors = (value,) if alone else value
        names = (field,) if alone else tuple(f"{field}_{i}" for i in range(len(tensors)))
        fields[field] = None if alone else names
        specs += [
            TensorSpec(name=name, dtype="float32", shape=[BATCH, *tensor.shape[1:]])
            for name, tensor in zip(names, tensors, strict=True)
        ]
    return Layout(type(inversion), fields, specs)


class _Pipeline(nn.Module):
    def __init__(self, method: Method) -> None:
        super().__init__()
        self.system = method


class Invert(_Pipeline):
    """uint8 image -> the inversion's tensors, one after the other."""

    def __init__(self, method: Method) -> None:
        super().__init__(method)
        self.image_in = ImageIn(method.family.image_shape, method.input_size, method.resize)

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        inversion = self.system.invert(self.image_in(image))
        return tuple(t for value in inversion for t in ((value,) if isinstance(value, Tensor) else value))


class _Rendered(_Pipeline):
    """Puts the tensors that are read back into the method's NamedTuple; the others are None."""

    def __init__(self, method: Method, made: Layout, reads: Sequence[str]) -> None:
        super().__init__(method)
        self.layout, self.reads = made, tuple(reads)
        self.image_out = ImageOut(method.family)

    def inversion(self, tensors: Sequence[Tensor]) -> Any:
        """The method's NamedTuple of the tensors that the graph reads."""
        return self.layout.build(dict(zip(self.reads, tensors, strict=True)))


class Edit(_Rendered):
    """Inversion, delta_w and, where the method takes one, style_delta -> uint8 image."""

    def forward(self, *tensors: Tensor) -> Tensor:
        count = len(self.reads)
        return self.image_out(self.system.edit_rows(self.inversion(tensors[:count]), *tensors[count:]))


class Reconstruct(_Rendered):
    """Inversion -> uint8 image: rendered without an edit."""

    def forward(self, *tensors: Tensor) -> Tensor:
        return self.image_out(self.system.reconstruct(self.inversion(tensors)))


def pipelines(method: Method) -> dict[str, BoundGraph]:
    """The three pipelines around a method, by name.

    Args:
        method: in a form that exports (`Method.exportable`).
    """
    made, family = layout(type(method), method.family), method.family
    # The specs of what each reads of an inversion, and of the style delta, are all that its contract leaves open.
    styles = graph_contract(family, "edit")[0][-1:] if method.edits_styles else []
    fields = {"invert": None, "edit": method.edit_reads, "reconstruct": method.reconstruct_reads}
    reads = {
        name: [spec for spec in made.specs if names is None or spec.name in names] for name, names in fields.items()
    }
    modules = {
        "invert": Invert(method),
        "edit": Edit(method, made, [spec.name for spec in reads["edit"]]),
        "reconstruct": Reconstruct(method, made, [spec.name for spec in reads["reconstruct"]]),
    }
    return {
        name: BoundGraph(name, modules[name].eval(), *pipeline_contract(family, name, made.specs, reads[name] + styles))
        for name in PIPELINES
    }
