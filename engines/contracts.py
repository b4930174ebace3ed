"""Tensor contracts of the graphs: names, dtypes and shapes, all derived from a model family.

The exporter writes them into a bundle's manifest, a runtime checks feeds against them and a session checks that the
bundle it was given speaks them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from engines.family import ModelFamily

BATCH = "batch"
"""The symbolic dimension of every graph."""

PIPELINES = ("invert", "edit", "reconstruct")
"""The fused graphs, uint8 at the door."""

PARTS = ("encoder", "e4e", "features", "editor", "generator")
"""The separate graphs, float32 throughout."""

SELECTIONS: dict[str, tuple[str, ...]] = {"all": (*PARTS, *PIPELINES), "pipelines": PIPELINES, "split": PARTS}
"""Words for several graphs, wherever graphs are named."""

DEFAULT_METHOD = "ours"
"""The method of a bundle whose manifest names none: the paper's own. What it computes is for `training.methods` to say;
what its graphs take and give is in the manifest, as with every method."""

Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$")]
"""A name that is safe as one path component."""

Dimension = Annotated[int, Field(ge=1)] | Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,63}$")]
"""A fixed extent, or the name of a dynamic one."""


class TensorSpec(BaseModel):
    """Name, dtype (NumPy's name) and shape of one graph input or output."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    name: Name
    dtype: Annotated[str, StringConstraints(pattern=r"^(float(16|32|64)|u?int(8|16|32|64)|bool)$")]
    shape: list[Dimension]

    def __str__(self) -> str:
        return f"{self.dtype} ({', '.join(map(str, self.shape))})"


def style_width(family: ModelFamily) -> int:
    """T, the length of a style delta: the sum of all style widths (9,088 at 1024)."""
    return sum(family.style_channels)


def graph_contract(family: ModelFamily, graph: str) -> tuple[list[TensorSpec], list[TensorSpec]]:
    """Inputs and outputs of a graph of that name, in order.

    With `family.rgb_skip` the `features` graph also gives, and the `generator` graph also takes, the RGB skip.

    Raises:
        KeyError: if no graph of that name has a contract.
    """
    rows, width, size = family.w_rows, family.style_dim, family.size

    def tensor(name: str, *shape: int, dtype: str = "float32") -> TensorSpec:
        return TensorSpec(name=name, dtype=dtype, shape=[BATCH, *shape])

    def code(name: str) -> TensorSpec:
        return tensor(name, rows, width)

    def feature(name: str) -> TensorSpec:
        return tensor(name, *family.feature_shape)

    photo = tensor("image", *family.image_shape, 3, dtype="uint8")
    encoder_image = tensor("image", 3, *family.encoder_size)
    style_delta = tensor("style_delta", style_width(family))
    inversion = [code("w"), feature("feature"), code("w_e"), feature("generator_feature")]
    rgb = [tensor("rgb", 3, *family.feature_shape[1:])] if family.rgb_skip else []
    contracts = {
        "encoder": ([encoder_image], [code("w"), feature("feature")]),
        "e4e": ([encoder_image], [code("w_e")]),
        "features": ([code("w_plus"), style_delta], [feature("generator_feature"), *rgb]),
        "editor": (
            [feature("generator_feature"), feature("edited_generator_feature"), feature("feature")],
            [feature("edited_feature")],
        ),
        "generator": (
            [feature("feature"), code("w_plus"), style_delta, *rgb],
            [tensor("image", 3, size, size)],
        ),
        "invert": ([photo], inversion),
        "edit": ([*inversion, code("delta_w"), style_delta], [photo]),
        "reconstruct": ([code("w"), feature("feature")], [photo]),
    }
    return contracts[graph]


def pipeline_contract(
    family: ModelFamily, pipeline: str, inversion: Sequence[TensorSpec], inputs: Sequence[TensorSpec]
) -> tuple[list[TensorSpec], list[TensorSpec]]:
    """Inputs and outputs that a pipeline of any method has, given the tensors of its inversion.

    `edit` and `reconstruct` need not read all of the inversion, and `edit` takes a style delta if the method has one:
    what they do read is what `inputs` name.

    Raises:
        KeyError: for anything but a pipeline.
    """
    named = {spec.name for spec in inputs}
    photo, delta_w, style_delta = (
        graph_contract(family, graph)[side][place]
        for graph, side, place in (("invert", 0, 0), ("edit", 0, -2), ("edit", 0, -1))
    )
    read = [spec for spec in inversion if spec.name in named]
    styles = [style_delta] if style_delta.name in named else []
    return {
        "invert": ([photo], list(inversion)),
        "edit": ([*read, delta_w, *styles], [photo]),
        "reconstruct": (read, [photo]),
    }[pipeline]


def mismatch(expected: list[TensorSpec], actual: list[TensorSpec]) -> str | None:
    """The difference between two lists of specs, order and names of dynamic dimensions aside; None if nothing does."""
    have = {spec.name: spec for spec in actual}
    for want in expected:
        spec = have.pop(want.name, None)
        if spec is None:
            return f"{want.name} is missing"
        same = len(want.shape) == len(spec.shape) and all(
            a == b or (isinstance(a, str) and isinstance(b, str)) for a, b in zip(want.shape, spec.shape, strict=True)
        )
        if spec.dtype != want.dtype or not same:
            return f"{want.name} is {spec} instead of {want}"
    return f"{next(iter(have))} is not expected" if have else None


def check_feeds(graph: str, specs: list[TensorSpec] | tuple[TensorSpec, ...], feeds: Mapping[str, np.ndarray]) -> None:
    """Checks named arrays against a graph's inputs; a dynamic dimension has one extent in all of them.

    Raises:
        ValueError: with one line that says what the graph takes, for a missing or unknown name, a wrong dtype or a
            wrong shape.
    """
    expected = ", ".join(f"{spec.name} {spec}" for spec in specs)
    if unknown := sorted(set(feeds) - {spec.name for spec in specs}):
        raise ValueError(f"graph {graph} has no input {unknown[0]}; it takes {expected}")
    extents: dict[str, int] = {}
    for spec in specs:
        if spec.name not in feeds:
            raise ValueError(f"graph {graph} needs input {spec.name}; it takes {expected}")
        array = feeds[spec.name]
        if not isinstance(array, np.ndarray):
            raise ValueError(f"graph {graph}: input {spec.name} must be a NumPy array, got {type(array).__name__}")
        fits = len(array.shape) == len(spec.shape) and all(
            have == (extents.setdefault(want, have) if isinstance(want, str) else want) and have > 0
            for have, want in zip(array.shape, spec.shape, strict=True)
        )
        if array.dtype.name != spec.dtype or not fits:
            dynamic = "".join(f", {name} = {extent}" for name, extent in extents.items())
            shape = ", ".join(map(str, array.shape))
            raise ValueError(
                f"graph {graph}: input {spec.name} is {array.dtype.name} ({shape}); it takes {spec}{dynamic}"
            )
