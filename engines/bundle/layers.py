"""The layers of a network as a builder or an ONNX graph shows them: what the precision proof and the inspector read."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, ValidationError

from engines.bundle.manifest import Strict, first_error
from engines.contracts import Name
from engines.errors import EngineError

Count = Annotated[int, Field(ge=0)]

NO_PRODUCT = "no product: as wide as the graph"
"""The reason of what is in FP16, or on a CPU in FP32, with 8 bits asked, because it has no MACs; too many layers to
list one by one."""
COMPUTED = "no constant weights on its right side: attention products, whose one factor is a softmax"
GROUPED = "grouped convolution: bound by memory, a filter per channel"
LITTLE = "little work early on, and every pixel depends on it"
THIN = "few channels: bound by memory"
NO_GAIN = frozenset((COMPUTED, GROUPED, LITTLE, THIN))
"""Reasons of products in FP16 or FP32, with 8 bits asked, that have no 8-bit kernel to gain by. In a light network
they are more than a tenth of the MACs: the proof holds the 8-bit share against the others."""


class LayerTensor(Strict):
    """One input or output of a layer. Dynamic batches are given at batch 1."""

    name: str
    dtype: str
    """NumPy's name: "float16", "float32", "int64", ..."""
    shape: list[int]


class Layer(Strict):
    """One layer of a network."""

    name: str
    operator: str
    """The builder's layer type or ONNX operator, such as "CONVOLUTION" or "Conv"."""
    precision: str
    """Type of what it computes with: that of its data inputs."""
    inputs: list[LayerTensor]
    outputs: list[LayerTensor]
    macs: Count
    """Multiply-accumulates at batch 1; 0 for what is not a convolution or matrix product."""
    weight_bytes: Count
    activation_bytes: Count
    """Bytes read and written besides weights, at batch 1."""
    reason: str | None = None
    """The reason why it is not in the requested precision; None if it is, or if it does no arithmetic."""
    milliseconds: Annotated[float, Field(ge=0)] | None = None
    """Median time where it was measured."""
    fused: list[str] = Field(default_factory=list)
    """Names of the ONNX nodes inside it, where the builder says so."""


class LayerReport(Strict):
    """All layers of one graph, in order."""

    schema_version: Literal[1] = 1
    graph: Name
    source: Literal["network", "inspector", "graph"]
    """Read from a builder's network definition, an engine inspector or an ONNX graph."""
    precision: str
    """The requested precision."""
    layers: list[Layer]

    @property
    def macs(self) -> int:
        """Multiply-accumulates of all layers."""
        return sum(layer.macs for layer in self.layers)

    def share(self, dtype: str) -> float:
        """MACs of the layers that compute in a type, over all; 1 where there are none."""
        total = self.macs
        return sum(layer.macs for layer in self.layers if layer.precision == dtype) / total if total else 1.0

    @classmethod
    def parse(cls, raw: bytes, file: str) -> Self:
        """The report in these bytes; `file` names it in messages.

        Raises:
            EngineError: if it is not one.
        """
        try:
            return cls.model_validate_json(raw)
        except ValidationError as error:
            raise EngineError(f"{file} is not a layer report: {first_error(error)}") from None
