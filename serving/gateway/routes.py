"""The routes of the HTTP interface."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from fastapi import APIRouter, Query, Request, Response
from pydantic import ValidationError

from engines.photo import Alignment, Cut, Photo, open_image
from engines.photo.credentials import Statement
from engines.photo.tone import PLAIN
from engines.store import Digest
from serving.client.handle import Handle
from serving.gateway.backend import LocalModel
from serving.gateway.forms import parse_form
from serving.gateway.guard import FORM, JSON, Call
from serving.gateway.logs import shorten
from serving.gateway.metrics import CONTENT_TYPE
from serving.gateway.openapi import EDITS, HEALTH, IMAGE_ANSWER, METRICS, PHOTO, problems
from serving.gateway.photos import MEDIA_TYPES, DetectedFaces, finish, grey_levels, memory, needs_reconstruction
from serving.gateway.problems import Problem, busy, invalid
from serving.gateway.schemas import (
    AlignmentAnswer,
    DirectionAnswer,
    DirectionsAnswer,
    EditForm,
    EditRequest,
    FaceAnswer,
    FacesAnswer,
    InversionAnswer,
    InversionQuery,
    Links,
    ModelAnswer,
    Rendering,
    StatusAnswer,
)

if TYPE_CHECKING:
    from serving.gateway.app import Gateway

router = APIRouter()


def _gateway(request: Request) -> Gateway:
    return request.app.state.gateway


def _media_type(request: Request) -> str:
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


@router.post(
    "/v1/faces",
    response_model=FacesAnswer,
    responses=problems(400, 408, 413, 415, 422, 503, 504),
    openapi_extra=PHOTO,
    operation_id="faces",
)
async def faces(request: Request) -> FacesAnswer:
    """Find the faces in a photo, to choose one of several; a photo without any gives an empty list."""
    gateway, call = _gateway(request), request.state.call
    body = await _sole_photo(request)
    async with _turn(gateway, call):
        with _stage(gateway, call, "photo"):
            there = await gateway.pool.run(_find, gateway, body)
    height, width = there.photo.pixels.shape[:2]
    answers = [FaceAnswer(box=one.box, landmarks=one.landmarks.tolist(), score=one.score) for one in there.faces]
    return FacesAnswer(width=width, height=height, faces=answers)


@router.post(
    "/v1/inversions",
    response_model=InversionAnswer,
    responses=problems(400, 408, 413, 415, 422, 502, 503, 504),
    openapi_extra=PHOTO,
    operation_id="invert",
)
async def invert(request: Request, query: Annotated[InversionQuery, Query()]) -> InversionAnswer:
    """Find the face in a photo and invert it, once for any number of edits."""
    gateway, call = _gateway(request), request.state.call
    body = await _sole_photo(request)
    async with _turn(gateway, call):
        cut = await _open(gateway, call, body, query.aligned, query.face)
        handle = await _invert(gateway, call, cut)
    if gateway.photos is not None:
        gateway.photos.put(handle.id, cut, memory(cut.photo, cut.face))
    height, width = cut.photo.pixels.shape[:2]
    return InversionAnswer(
        handle=handle.id,
        width=width,
        height=height,
        alignment=_alignment(cut.alignment),
        links=Links(directions="/v1/directions", edits="/v1/edits"),
    )


@router.post(
    "/v1/edits",
    response_class=Response,
    responses={200: IMAGE_ANSWER} | problems(400, 404, 408, 413, 415, 422, 502, 503, 504),
    openapi_extra=EDITS,
    operation_id="edit",
)
async def edit(request: Request) -> Response:
    """Edit an inversion that is held, or a photo that is sent along."""
    gateway, call = _gateway(request), request.state.call
    body = await request.body()
    if _media_type(request) == JSON:
        return await _edit_handle(gateway, call, _validated(EditRequest, body))
    parts = await gateway.pool.run(parse_form, request.headers["content-type"], body)
    photo = _photo(parts)
    values = {name: value.decode("utf-8", "replace") for name, value in parts.items()}
    return await _edit_photo(gateway, call, photo, _validated(EditForm, values))


@router.get("/v1/directions", responses=problems(502, 503, 504), operation_id="directions")
async def directions(request: Request) -> DirectionsAnswer:
    """List the directions of the model that is served."""
    profile = await _gateway(request).model.profile()
    return DirectionsAnswer(directions=[DirectionAnswer.model_validate(one) for one in profile.directions.values()])


@router.get("/v1/model", responses=problems(502, 503, 504), operation_id="model")
async def model(request: Request) -> ModelAnswer:
    """Tell what is served, and what may be asked of it."""
    gateway = _gateway(request)
    height, width = (await gateway.model.profile()).shape
    about = gateway.backend.about if isinstance(gateway.backend, LocalModel) else None
    offered: list[Rendering] = ["edit", "linear", "map"] if about and about.explains else ["edit"]
    return ModelAnswer(
        name=about.name if about else None,
        family=about.family if about else None,
        precision=about.precision if about else None,
        runtime=about.runtime if about else "triton",
        width=width,
        height=height,
        renderings=offered,
        keeps_photos=gateway.photos is not None,
        photo_seconds=gateway.settings.photo_seconds,
        photo_bytes=gateway.settings.body_bytes,
        photo_megapixels=gateway.settings.megapixels,
    )


@router.get("/healthz", operation_id="health", openapi_extra=HEALTH)
async def health() -> StatusAnswer:
    """Whether this process answers."""
    return StatusAnswer(status="ok")


@router.get("/readyz", operation_id="ready", responses=problems(503), openapi_extra=HEALTH)
async def ready(request: Request) -> StatusAnswer:
    """Whether an inference comes through, tried within the last second."""
    gateway = _gateway(request)
    if gateway.draining:
        raise busy(503, "stopping", "the gateway stops", 1)
    healthy = await gateway.canary.is_healthy()
    gateway.metrics.ready(healthy)
    if not healthy:
        raise busy(503, "not-ready", "the model does not answer", 1)
    return StatusAnswer(status="ready")


@router.get("/metrics", response_class=Response, responses={200: METRICS}, operation_id="metrics")
async def metrics(request: Request) -> Response:
    """Prometheus metrics."""
    return Response(_gateway(request).metrics.text(), media_type=CONTENT_TYPE)


async def _edit_handle(gateway: Gateway, call: Call, wanted: EditRequest) -> Response:
    cut = None if gateway.photos is None else gateway.photos.get(wanted.handle)
    if wanted.paste_back and cut is None:
        detail = "this photo is not kept, so to have the face put back send it along, as multipart/form-data"
        raise Problem(422, "photo-needed", detail)
    call.fields["handle"] = shorten(wanted.handle)
    edits = await gateway.model.strengths(wanted.edits, wanted.clamp)
    async with _turn(gateway, call):
        return await _edit(gateway, call, Handle(wanted.handle), edits, cut, wanted, wanted.rendering)


async def _edit_photo(gateway: Gateway, call: Call, photo: bytes, wanted: EditForm) -> Response:
    # Before the photo, which takes long: a name may be misspelt.
    edits = await gateway.model.strengths(wanted.edits, wanted.clamp)
    async with _turn(gateway, call):
        cut = await _open(gateway, call, photo, wanted.aligned, wanted.face)
        handle = await _invert(gateway, call, cut)
        return await _edit(gateway, call, handle, edits, cut, wanted)


async def _edit(
    gateway: Gateway,
    call: Call,
    handle: Handle,
    edits: dict[str, float],
    cut: Cut | None,
    wanted: EditRequest | EditForm,
    rendering: Rendering = "edit",
) -> Response:
    """Renders an edit and encodes it; `cut` has the photo, if it is known."""
    paste, credentials = wanted.paste_back, gateway.credentials
    with _stage(gateway, call, "backend"):
        face, base = await _render(gateway, handle, edits, cut if paste else None, rendering)
    if rendering == "map":
        # A map is no picture of anybody.
        cut, paste, credentials = None, False, None
    with _stage(gateway, call, "encode"):
        digest = (await gateway.model.profile()).bundle_sha256
        said = Statement(digest, edits=edits, photo=None if cut is None else cut.photo)
        how = wanted.format, wanted.quality, wanted.side, credentials, said
        encoded = await gateway.pool.run(finish, face, cut, base, paste, *how)
    return Response(encoded, media_type=MEDIA_TYPES[wanted.format], headers={"Edgedit-Handle": handle.id})


async def _explain(gateway: Gateway, handle: Handle, edits: dict[str, float], rendering: Rendering) -> np.ndarray:
    """A rendering that only a model in this process gives."""
    backend = gateway.backend
    if not (isinstance(backend, LocalModel) and backend.about.explains):
        raise Problem(422, "not-offered", f"the rendering {rendering} is not offered here; /v1/model lists what is")
    if rendering == "linear":
        return await backend.linear(handle, edits)
    return grey_levels(await backend.map(handle, edits))


async def _render(
    gateway: Gateway, handle: Handle, edits: dict[str, float], into: Cut | None, rendering: Rendering
) -> tuple[np.ndarray, np.ndarray | None]:
    """An edit and, where it is to be put back into a photo that needs it, the rendering without the edit."""
    edited = gateway.backend.edit(handle, edits) if rendering == "edit" else _explain(gateway, handle, edits, rendering)
    if into is None or rendering == "map" or not needs_reconstruction(into):
        return await edited, None
    # At the same time, so that a server can batch them.
    face, base = await asyncio.gather(edited, gateway.backend.edit(handle, {}))
    return face, base


async def _open(gateway: Gateway, call: Call, data: bytes, aligned: bool, face: int | None) -> Cut:
    shape = (await gateway.model.profile()).shape

    def work() -> Cut:
        if aligned or shape[0] != shape[1]:
            return gateway.crop(_decode(gateway, data), shape, aligned=aligned)
        there = _find(gateway, data)
        return gateway.crop(there.photo, shape, face=face, faces=there.faces)

    with _stage(gateway, call, "photo"):
        return await gateway.pool.run(work)


def _decode(gateway: Gateway, data: bytes) -> Photo:
    return open_image(data, max_megapixels=gateway.settings.megapixels)


def _find(gateway: Gateway, data: bytes) -> DetectedFaces:
    """The faces of a photo; of one that is kept they are known."""
    key = Digest.of(data).sha256
    if (known := gateway.faces.get(key)) is not None:
        return known
    photo = _decode(gateway, data)
    there = DetectedFaces(photo, gateway.crop.faces(photo))
    if gateway.photos is not None:
        gateway.faces.put(key, there, memory(photo))
    return there


async def _invert(gateway: Gateway, call: Call, cut: Cut) -> Handle:
    with _stage(gateway, call, "backend"):
        handle = await gateway.backend.invert(cut.crop, aligned=True)
    call.fields["handle"] = shorten(handle.id)
    # The cut, which has the photo, gives its light and colours back: the model's own picture is asked for.
    return replace(handle, tone=PLAIN)


@contextmanager
def _stage(gateway: Gateway, call: Call, name: str) -> Iterator[None]:
    """Times a stage, for the metrics and for the caller."""
    began = time.monotonic()
    with gateway.metrics.stage(name):
        yield
    call.stages[name] = call.stages.get(name, 0.0) + time.monotonic() - began


@asynccontextmanager
async def _turn(gateway: Gateway, call: Call) -> AsyncIterator[None]:
    """A running place of the queue, with the wait for it timed."""
    async with AsyncExitStack() as stack:
        with _stage(gateway, call, "queue"):
            await stack.enter_async_context(gateway.admission.turn())
        yield


async def _sole_photo(request: Request) -> bytes:
    """The photo that a body is, or that a form has and nothing else."""
    body = await request.body()
    if _media_type(request) != FORM:
        return body
    parts = await _gateway(request).pool.run(parse_form, request.headers["content-type"], body)
    photo = _photo(parts)
    if parts:
        raise Problem(422, "invalid-request", f"the form has a part {next(iter(parts))[:64]!r} besides photo")
    return photo


def _photo(parts: dict[str, bytes]) -> bytes:
    if "photo" not in parts:
        raise Problem(422, "invalid-request", "the form has no part named photo")
    return parts.pop("photo")


def _validated(model: type[Any], values: bytes | dict[str, str]) -> Any:
    try:
        return model.model_validate_json(values) if isinstance(values, bytes) else model.model_validate(values)
    except ValidationError as error:
        raise invalid(error.errors(include_url=False, include_context=False, include_input=False)) from None


def _alignment(alignment: Alignment | None) -> AlignmentAnswer | None:
    if alignment is None:
        return None
    corners = [(float(x), float(y)) for x, y in alignment.quad]
    return AlignmentAnswer(quad=corners, side=alignment.side, rotation=alignment.rotation)
