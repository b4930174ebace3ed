"""A result of `edgedit bench latency`, as it is read again."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, ValidationError

from bench.program import read_json
from engines.bundle.manifest import first_error
from engines.errors import EdgeditError

Milliseconds = Annotated[FiniteFloat, Field(gt=0)]


class _Read(BaseModel):
    # More than is read here may stand there.
    model_config = ConfigDict(frozen=True, extra="ignore")


class Times(_Read):
    """Samples, with their median and its interval."""

    median_ms: Milliseconds
    interval_ms: tuple[Milliseconds, Milliseconds] | None = None
    samples_ms: Annotated[list[Milliseconds], Field(min_length=1)]


class Row(Times):
    """One graph at one batch size in one runtime and precision."""

    graph: str
    batch: Annotated[int, Field(ge=1)]
    runtime: str
    precision: str
    speedup: FiniteFloat | None
    speedup_interval: tuple[FiniteFloat, FiniteFloat] | None
    gflops: FiniteFloat | None = None
    share_of_product: FiniteFloat | None = None
    gbs: FiniteFloat | None = None
    share_of_copy: FiniteFloat | None = None

    @property
    def name(self) -> str:
        """The name of the candidate: "onnxruntime:fp32"."""
        return f"{self.runtime}:{self.precision}"

    @property
    def key(self) -> tuple[str, int, str]:
        """The key of the row that it is compared with in another run."""
        return self.graph, self.batch, self.name


class Start(_Read):
    """A candidate in processes of its own."""

    name: str
    start_ms: Times
    load_ms: Times
    first_ms: Times
    picture_ms: Times
    peak_bytes: int | None


class Device(_Read):
    """The device of a run."""

    name: str


class Result(_Read):
    """One run."""

    command: str
    date: str
    device: Device
    versions: dict[str, str]
    threads: int
    base: str
    boundary: str
    start_boundary: str
    ceilings: list[dict[str, Any]]
    rows: Annotated[list[Row], Field(min_length=1)]
    starts: list[Start]
    not_measured: dict[str, str]


def parse(raw: dict[str, Any], name: str) -> Result:
    """A result of `edgedit bench latency`; `name` is for messages.

    Raises:
        EdgeditError: if it is none.
    """
    try:
        return Result.model_validate(raw)
    except ValidationError as error:
        raise EdgeditError(f"{name} is not what `edgedit bench latency` writes: {first_error(error)}") from None


def read(path: Path) -> Result:
    """The result in a file.

    Raises:
        EdgeditError: if it holds none.
    """
    return parse(read_json(path), str(path))
