"""The ranges that an engine's 8-bit data stand for, kept beside the engine.

They are the one input of a quantised graph that is not in the bundle. With them the typed graph can be written again,
which is how new weights find their places in an engine that is there.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Literal, Self

from pydantic import Field, ValidationError

from engines.bundle.manifest import Strict, first_error
from engines.contracts import Name
from engines.errors import EngineError

if TYPE_CHECKING:
    from engines.precision.quantise import Peak

Magnitude = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class Calibrated(Strict):
    """The content of `<graph>.ranges.json` in an engine folder."""

    schema_version: Literal[1] = 1
    graph: Name
    peaks: dict[str, Magnitude | list[Magnitude]]
    """The magnitude, by name of a product, that the largest 8-bit value of its data, or of each of their channels,
    stands for, see `precision.calibrate`."""

    @classmethod
    def of(cls, graph: str, peaks: Mapping[str, Peak]) -> Self:
        """The ranges that were measured of a graph."""
        return cls.model_validate({"graph": graph, "peaks": dict(peaks)})

    @classmethod
    def parse(cls, raw: bytes, file: str) -> Self:
        """The ranges in these bytes; `file` names it in messages.

        Raises:
            EngineError: if they are none.
        """
        try:
            return cls.model_validate_json(raw)
        except ValidationError as error:
            raise EngineError(f"{file} holds no ranges: {first_error(error)}; build the engine again") from None

    @property
    def file(self) -> str:
        """The file's name in the engine folder."""
        return f"{self.graph}.ranges.json"

    def document(self) -> bytes:
        """The file's content."""
        return self.model_dump_json(indent=1).encode() + b"\n"
