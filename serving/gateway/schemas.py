"""What goes over the wire, as OpenAPI tells it."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, Json

from engines.contracts import Name
from serving.contract import HANDLE_DIGITS, MAX_EDITS

Format = Literal["png", "jpeg", "webp"]

Handle = Annotated[
    str,
    Field(
        pattern=f"^[0-9a-f]{{{HANDLE_DIGITS}}}$",
        description="Names an inversion; whoever knows it can edit that face, so treat it as you treat the photo.",
    ),
]

Edits = Annotated[
    dict[Name, Annotated[float, Field(allow_inf_nan=False)]],
    Field(
        max_length=MAX_EDITS,
        description="Strength by direction; several are added up, none at all gives the reconstruction.",
        examples=[{"smile": 2}, {"age": -1.5, "smile": 1}],
    ),
]

Face = Annotated[
    int | None, Field(ge=0, le=1000, description="Which face of several, 0 the largest. Left out: the largest.")
]
Aligned = Annotated[
    bool, Field(description="The image is an aligned face already (square, FFHQ framing): take it whole.")
]
FORMAT = Field(description="Format of the answer.")
QUALITY = Field(ge=1, le=100, description="For JPEG and WebP.")
CLAMP = Field(description="Limit strengths to the directions' usable ranges.")


class _Request(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class InversionQuery(_Request):
    """How to find the face."""

    aligned: Aligned = False
    face: Face = None


class EditRequest(_Request):
    """An edit of an inversion that Triton holds."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    handle: Handle
    edits: Edits
    format: Annotated[Format, FORMAT] = "png"
    quality: Annotated[int, QUALITY] = 95
    clamp: Annotated[bool, CLAMP] = False
    paste_back: Annotated[
        bool, Field(description="Only with the photo itself, as a form: photos are not kept here.")
    ] = False


class EditForm(_Request):
    """An edit of a photo that is sent along: nothing needs to be held anywhere."""

    edits: Json[Edits]
    format: Annotated[Format, FORMAT] = "png"
    quality: Annotated[int, QUALITY] = 95
    clamp: Annotated[bool, CLAMP] = False
    paste_back: Annotated[
        bool, Field(description="Answer with the whole photo, the face put back; otherwise with the face alone.")
    ] = True
    aligned: Aligned = False
    face: Face = None


class AlignmentAnswer(BaseModel):
    """Where the face lies in the photo, upright, in pixels from its upper left corner."""

    quad: list[tuple[float, float]] = Field(
        min_length=4, max_length=4, description="Corners: top left, bottom left, bottom right, top right."
    )
    side: float
    rotation: float = Field(description="Degrees, clockwise as seen.")


class Links(BaseModel):
    """Where to go on."""

    directions: str
    edits: str


class InversionAnswer(BaseModel):
    """An inversion, held by Triton for a while."""

    handle: Handle
    width: int = Field(description="Of the photo, upright, in pixels.")
    height: int
    alignment: AlignmentAnswer | None = Field(description="null for a photo sent as aligned.")
    links: Links


class DirectionAnswer(BaseModel):
    """A direction; strengths outside the range are known to break the image or the identity."""

    name: str
    min_strength: float
    max_strength: float
    description: str


class DirectionsAnswer(BaseModel):
    """All directions of the model that is served."""

    directions: list[DirectionAnswer]


class StatusAnswer(BaseModel):
    """All is well."""

    status: Literal["ok", "ready"]


class FieldError(BaseModel):
    """One part of a request that does not fit."""

    pointer: str
    detail: str


class ProblemAnswer(BaseModel):
    """RFC 9457 problem details."""

    model_config = ConfigDict(extra="allow")

    type: str = Field(description="URI of the problem; it stays the same.")
    title: str
    status: int = Field(ge=400, le=599)
    detail: str = Field(description="What was wrong and what to do.")
    request_id: str
    errors: list[FieldError] | None = None
    suggestions: list[str] | None = Field(None, description="Names close to one that is not known.")


def reference(model: type[BaseModel]) -> dict[str, Any]:
    """A reference to a model's schema among the components."""
    return {"$ref": f"#/components/schemas/{model.__name__}"}
