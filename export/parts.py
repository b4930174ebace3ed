"""The separate graphs of a method that has them, for builds that compose or time the parts: float32 throughout.

They split the paper's system at its feature tensor. Names, types and shapes are those of `engines.contracts`.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from engines.contracts import graph_contract
from export.bound import BoundGraph
from training.methods.paper import EditingSystem
from training.methods.protocol import Method


class _Part(nn.Module):
    def __init__(self, system: EditingSystem) -> None:
        super().__init__()
        self.system = system


class Encoder(_Part):
    """image -> w, feature: E0 and the feature tensor enhancement (eq. 3.1-3.3)."""

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        return self.system.encode(image)


class E4E(_Part):
    """image -> w_e: the editing-friendly code."""

    def forward(self, image: Tensor) -> Tensor:
        return self.system.encode_e4e(image)


class Features(_Part):
    """w_plus, style_delta -> generator_feature, the generator's lower half; with `rgb_skip` also its image so far."""

    def forward(self, w_plus: Tensor, style_delta: Tensor) -> Tensor | tuple[Tensor, Tensor | None]:
        if self.system.family.rgb_skip:
            return self.system.generator.lower(w_plus, style_delta)
        return self.system.features(w_plus, style_delta)


class Editor(_Part):
    """generator_feature, edited_generator_feature, feature -> edited_feature (eq. 3.5-3.10)."""

    def forward(self, generator_feature: Tensor, edited_generator_feature: Tensor, feature: Tensor) -> Tensor:
        return self.system.transform(generator_feature, edited_generator_feature, feature)


class Generator(_Part):
    """feature, w_plus, style_delta -> image, the generator's upper half (eq. 3.4, 3.11), not clamped.

    For families with `rgb_skip` it takes the image of the lower half too, and continues it.
    """

    def forward(self, feature: Tensor, w_plus: Tensor, style_delta: Tensor, rgb: Tensor | None = None) -> Tensor:
        return self.system.render(feature, w_plus, rgb, style_delta)


MODULES: dict[str, type[nn.Module]] = {
    "encoder": Encoder,
    "e4e": E4E,
    "features": Features,
    "editor": Editor,
    "generator": Generator,
}


def parts(method: Method) -> dict[str, BoundGraph]:
    """The separate graphs around a method, by name; none for most methods."""
    return {
        name: BoundGraph(name, MODULES[name](method).eval(), *graph_contract(method.family, name))
        for name in method.separate_graphs
    }


def part_feeds(graphs: Mapping[str, BoundGraph], known: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The inputs of the separate graphs by name, from the inversion and the edit that are known already."""

    def features(w_plus: Tensor) -> tuple[Tensor, ...]:
        outputs = graphs["features"].module(w_plus, known["style_delta"])
        return (outputs,) if isinstance(outputs, Tensor) else outputs

    w_plus = known["w"] + known["delta_w"]
    return {
        "image": graphs["invert"].module.image_in(known["photo"]),
        "w_plus": w_plus,
        "edited_generator_feature": features(known["w_e"] + known["delta_w"])[0],
        # The RGB skip of families that have one.
        **dict(zip(("rgb",), features(w_plus)[1:], strict=False)),
    }
