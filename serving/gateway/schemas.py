"""The bodies of requests and answers, as OpenAPI tells them."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, Json

from engines.contracts import Name
from serving.contract import HANDLE_DIGITS, MAX_EDITS

Format = Literal["png", "jpeg", "webp"]
Rendering = Literal["edit", "linear", "map"]

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
Side = Annotated[
    int | None,
    Field(ge=16, le=4096, description="Longer side of the answer, in pixels: a larger one is reduced to it."),
]
FORMAT = Field(description="Format of the answer.")
QUALITY = Field(ge=1, le=100, description="Quality of JPEG and WebP.")
CLAMP = Field(description="Limit strengths to the directions' usable ranges.")


class _Request(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class InversionQuery(_Request):
    """The way to find the face."""

    aligned: Aligned = False
    face: Face = None


class EditRequest(_Request):
    """An edit of an inversion that is held."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    handle: Handle
    edits: Edits
    format: Annotated[Format, FORMAT] = "png"
    quality: Annotated[int, QUALITY] = 95
    clamp: Annotated[bool, CLAMP] = False
    side: Side = None
    rendering: Annotated[
        Rendering,
        Field(
            description="The edit; the same by linear editing, without the editor; or where the edit acts, as grey "
            "levels. /v1/model lists those that are offered."
        ),
    ] = "edit"
    paste_back: Annotated[
        bool,
        Field(description="Put the face back. Only where photos are kept (/v1/model); elsewhere send it along."),
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
    side: Side = None
    aligned: Aligned = False
    face: Face = None


class FaceAnswer(BaseModel):
    """A face that was found, in pixels from the photo's upper left corner; the photo is upright."""

    box: tuple[float, float, float, float] = Field(description="Left, top, right, bottom; may reach outside the photo.")
    landmarks: list[tuple[float, float]] = Field(
        min_length=5, max_length=5, description="Left eye, right eye, nose, left and right corner of the mouth."
    )
    score: float = Field(description="Probability that it is a face.")


class FacesAnswer(BaseModel):
    """The faces of a photo, the largest first: `face` of other requests is the place in this list."""

    width: int = Field(description="Width of the photo, upright, in pixels.")
    height: int
    faces: list[FaceAnswer]


class AlignmentAnswer(BaseModel):
    """The place of the face in the photo, upright, in pixels from its upper left corner."""

    quad: list[tuple[float, float]] = Field(
        min_length=4, max_length=4, description="Corners: top left, bottom left, bottom right, top right."
    )
    side: float
    rotation: float = Field(description="Degrees, clockwise as seen.")


class Links(BaseModel):
    """Paths to go on with."""

    directions: str
    edits: str


class InversionAnswer(BaseModel):
    """An inversion, held for a while."""

    handle: Handle
    width: int = Field(description="Width of the photo, upright, in pixels.")
    height: int
    alignment: AlignmentAnswer | None = Field(description="null for a photo sent as aligned.")
    links: Links


class DirectionAnswer(BaseModel):
    """A direction; strengths outside the range are known to break the image or the identity."""

    model_config = ConfigDict(from_attributes=True)

    name: str
    min_strength: float
    max_strength: float
    description: str


class DirectionsAnswer(BaseModel):
    """All directions of the model that is served."""

    directions: list[DirectionAnswer]


class ModelAnswer(BaseModel):
    """The model that is served, as far as the gateway knows it, and what may be asked of it."""

    name: str | None = Field(description="The bundle's name.")
    family: str | None
    precision: str | None
    runtime: str = Field(description="The runtime of its graphs.")
    width: int = Field(description="Width of its images, in pixels.")
    height: int
    renderings: list[Rendering] = Field(description="The renderings of held inversions that /v1/edits offers.")
    keeps_photos: bool = Field(
        description="Whether a photo is kept beside its inversion, so that faces can be put back."
    )
    photo_seconds: float = Field(description="Seconds that it is kept without being used; 0 where none is.")
    photo_bytes: int = Field(description="Largest photo, as sent.")
    photo_megapixels: float = Field(description="Largest photo, decoded.")


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
    detail: str = Field(description="One line that says what was wrong and what to do.")
    request_id: str
    errors: list[FieldError] | None = None
    suggestions: list[str] | None = Field(None, description="Names close to one that is not known.")


def reference(model: type[BaseModel]) -> dict[str, Any]:
    """A reference to a model's schema among the components."""
    return {"$ref": f"#/components/schemas/{model.__name__}"}
