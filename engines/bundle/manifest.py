"""The manifest of a bundle: the pydantic models of manifest.json, and the names of the files beside it."""

from __future__ import annotations

import json
from collections.abc import Collection
from pathlib import PurePosixPath
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    JsonValue,
    StringConstraints,
    ValidationError,
    field_validator,
    model_validator,
)

from engines.contracts import DEFAULT_METHOD, Name, TensorSpec
from engines.errors import BundleError
from engines.family import ModelFamily
from engines.store import Digest

SCHEMA_VERSION = 1
MANIFEST_FILE = "manifest.json"
MANIFEST_DIGEST_FILE = "manifest.sha256"
SIGNATURE_FILE = "model.sig"
SIGNATURE_FILES = (SIGNATURE_FILE,)
"""Files that a bundle may hold without the manifest listing them, since they are made after it."""
WEIGHTS_FILE = "graphs/weights.safetensors"
OWN_WEIGHTS_FILE = "graphs/own.safetensors"
"""The weights file of a bundle that is passed on without its generator (see engines.bundle.completion)."""
EXTERNAL_LOCATION = PurePosixPath(WEIGHTS_FILE).name
"""The `location` that graphs give for their external data."""
CARD_FILE = "card.md"
MAX_MANIFEST_BYTES = 4 * 2**20


def _check_relative(path: str) -> str:
    parts = path.split("/")
    if any(part in ("", ".", "..") for part in parts) or any(c in path for c in "\\:") or not path.isprintable():
        raise ValueError(f"{path!r} is not a plain relative path inside the bundle")
    if path in (MANIFEST_FILE, MANIFEST_DIGEST_FILE, *SIGNATURE_FILES):
        raise ValueError(f"{path!r} cannot list itself")
    return path


RelativePath = Annotated[str, StringConstraints(max_length=255), AfterValidator(_check_relative)]


class Strict(BaseModel):
    """Base of what is read from a manifest: exact types, no unknown fields, frozen."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)


class FileEntry(Strict):
    """Digest and size of one file."""

    sha256: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
    bytes: Annotated[int, Field(ge=0)]

    @classmethod
    def of(cls, digest: Digest) -> Self:
        """The entry of a file that has this digest."""
        return cls(sha256=digest.sha256, bytes=digest.size)


class GraphEntry(Strict):
    """The file of a graph and the tensors that it takes and gives."""

    file: RelativePath
    inputs: list[TensorSpec]
    outputs: list[TensorSpec]


class ProducedBy(Strict):
    """The origin of a bundle: versions of the tools by name, the command line, and when (ISO 8601)."""

    tools: dict[str, str]
    command: str
    date: str


class Manifest(Strict):
    """Everything that a bundle says of itself."""

    schema_version: Literal[1]
    name: Name
    method: Name = DEFAULT_METHOD
    """The method of the graphs: the key of one of `training.methods`."""
    refinements: Annotated[int, Field(ge=1, le=100)] | None = None
    """The number of times that the graph `invert` refines the generator's weights, for a method that does (HyperStyle).
    Of any other method, and in bundles of earlier versions, it is not there: then a method does what is its default."""
    family: dict[str, JsonValue]
    graphs: dict[Name, GraphEntry]
    precision: str
    files: dict[RelativePath, FileEntry]
    produced_by: ProducedBy
    metrics: dict[str, JsonValue]
    directions: list[Name]
    licence: str

    @field_validator("family")
    @classmethod
    def _check_family(cls, value: dict[str, JsonValue]) -> dict[str, JsonValue]:
        try:
            ModelFamily.from_dict(value)
        except (TypeError, AttributeError, ArithmeticError) as error:
            raise ValueError(f"not a model family: {error}") from error
        return value

    @model_validator(mode="after")
    def _check_references(self) -> Self:
        for name, graph in self.graphs.items():
            if graph.file not in self.files:
                raise ValueError(f"graph {name} refers to {graph.file}, which is not among the files")
        for name in self.directions:
            if direction_file(name) not in self.files:
                raise ValueError(f"direction {name} has no file {direction_file(name)}")
        return self

    @property
    def model_family(self) -> ModelFamily:
        """`family` as a dataclass."""
        return ModelFamily.from_dict(self.family)


def direction_file(name: str) -> str:
    """The path of a direction inside a bundle."""
    return f"directions/{name}.safetensors"


def manifest_digest_line(manifest: bytes) -> bytes:
    """The content of manifest.sha256."""
    return Digest.of(manifest).line(MANIFEST_FILE)


class _Schema(BaseModel):
    schema_version: Any = None


def parse_manifest(raw: bytes, bundle: str) -> Manifest:
    """The manifest in these bytes; `bundle` names it in messages.

    Raises:
        BundleError: if it is not JSON, of another schema or not valid; one line with the first fault.
    """
    try:
        version = _Schema.model_validate_json(raw).schema_version
        if version != SCHEMA_VERSION:
            raise BundleError(
                f"{bundle}: {MANIFEST_FILE} has schema {version!r} and this edgedit reads {SCHEMA_VERSION}; "
                "use the edgedit that made it, or export it again"
            )
        return Manifest.model_validate_json(raw)
    except ValidationError as error:
        raise BundleError(f"{bundle}: {MANIFEST_FILE} is not valid: {first_error(error)}") from None


def first_error(error: ValidationError) -> str:
    """The first error of a document, and its place, on one line."""
    first = error.errors(include_url=False, include_context=False)[0]
    where = ".".join(map(str, first["loc"]))
    return f"{where}: {first['msg']}" if where else first["msg"]


def json_document(model: BaseModel, limit: int, without: Collection[str] = ()) -> bytes:
    """A model as JSON, small enough to be read back; the fields named in `without` are left out.

    Raises:
        ValueError: if a figure is not finite, or there are more than `limit` bytes.
    """
    data = (json.dumps(model.model_dump(mode="json", exclude=set(without)), indent=1, allow_nan=False) + "\n").encode()
    if len(data) > limit:
        raise ValueError(f"a manifest of {len(data)} bytes is more than the {limit} that are read back")
    return data


def manifest_bytes(manifest: Manifest) -> bytes:
    """The content of manifest.json.

    Raises:
        ValueError: if a metric is not finite, or it is too large to be read back.
    """
    # Left out where there is none, so that earlier versions read the manifest too.
    return json_document(manifest, MAX_MANIFEST_BYTES, ["refinements"] if manifest.refinements is None else [])
