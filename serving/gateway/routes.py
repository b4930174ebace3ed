"""What can be asked for."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from pydantic import ValidationError

from engines.photo import Alignment, Cut, Photo, open_image
from engines.photo.credentials import Statement
from engines.photo.tone import PLAIN
from serving.client.handle import Handle
from serving.gateway.forms import parse_form
from serving.gateway.guard import FORM, JSON, Call
from serving.gateway.logs import shorten
from serving.gateway.metrics import CONTENT_TYPE
from serving.gateway.openapi import EDITS, HEALTH, IMAGE_ANSWER, INVERSIONS, METRICS, READY, problems
from serving.gateway.photos import MEDIA_TYPES, finish, needs_reconstruction
from serving.gateway.problems import Problem, busy, invalid
from serving.gateway.schemas import (
    AlignmentAnswer,
    DirectionAnswer,
    DirectionsAnswer,
    EditForm,
    EditRequest,
    InversionAnswer,
    InversionQuery,
    Links,
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
    "/v1/inversions",
    response_model=InversionAnswer,
    responses=problems(400, 408, 413, 415, 422, 502, 503, 504),
    openapi_extra=INVERSIONS,
    operation_id="invert",
)
async def invert(request: Request, query: Annotated[InversionQuery, Query()]) -> InversionAnswer:
    """Find the face in a photo and invert it, once for any number of edits."""
    gateway, call = _gateway(request), request.state.call
    body = await request.body()
    if _media_type(request) == FORM:
        parts = await gateway.pool.run(parse_form, request.headers["content-type"], body)
        body = _photo(parts)
        if parts:
            raise Problem(422, "invalid-request", f"the form has a part {next(iter(parts))[:64]!r} besides photo")
    async with _turn(gateway):
        cut = await _open(gateway, body, query.aligned, query.face)
        handle = await _invert(gateway, call, cut)
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
    known = [
        DirectionAnswer(
            name=name, min_strength=one.min_strength, max_strength=one.max_strength, description=one.description
        )
        for name, one in profile.directions.items()
    ]
    return DirectionsAnswer(directions=known)


@router.get("/healthz", operation_id="health", openapi_extra=HEALTH)
async def health() -> StatusAnswer:
    """Whether this process answers."""
    return StatusAnswer(status="ok")


@router.get("/readyz", operation_id="ready", responses=problems(503), openapi_extra=READY)
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
    if wanted.paste_back:
        detail = "photos are not kept, so to have the face put back send the photo along, as multipart/form-data"
        raise Problem(422, "photo-needed", detail)
    call.fields["handle"] = shorten(wanted.handle)
    edits = await gateway.model.strengths(wanted.edits, wanted.clamp)
    async with _turn(gateway):
        with gateway.metrics.stage("backend"):
            face = await gateway.backend.edit(Handle(wanted.handle), edits)
        with gateway.metrics.stage("encode"):
            said = await _statement(gateway, edits)
            how = wanted.format, wanted.quality, gateway.credentials, said
            encoded = await gateway.pool.run(finish, face, None, None, False, *how)
    return _image(encoded, wanted.format, wanted.handle)


async def _edit_photo(gateway: Gateway, call: Call, photo: bytes, wanted: EditForm) -> Response:
    # Before the photo, which takes long: a name may be misspelt.
    edits = await gateway.model.strengths(wanted.edits, wanted.clamp)
    async with _turn(gateway):
        cut = await _open(gateway, photo, wanted.aligned, wanted.face)
        handle = await _invert(gateway, call, cut)
        base = None
        with gateway.metrics.stage("backend"):
            if wanted.paste_back and needs_reconstruction(cut):
                # At the same time, so that the server can batch them.
                face, base = await asyncio.gather(gateway.backend.edit(handle, edits), gateway.backend.edit(handle, {}))
            else:
                face = await gateway.backend.edit(handle, edits)
        with gateway.metrics.stage("encode"):
            said = await _statement(gateway, edits, cut.photo)
            how = wanted.format, wanted.quality, gateway.credentials, said
            encoded = await gateway.pool.run(finish, face, cut, base, wanted.paste_back, *how)
    return _image(encoded, wanted.format, handle.id)


async def _statement(gateway: Gateway, edits: dict[str, float], photo: Photo | None = None) -> Statement:
    return Statement((await gateway.model.profile()).bundle_sha256, edits=edits, photo=photo)


async def _open(gateway: Gateway, data: bytes, aligned: bool, face: int | None) -> Cut:
    shape = (await gateway.model.profile()).shape

    def work() -> Cut:
        photo = open_image(data, max_megapixels=gateway.settings.megapixels)
        return gateway.crop(photo, shape, aligned=aligned, face=face)

    with gateway.metrics.stage("photo"):
        return await gateway.pool.run(work)


async def _invert(gateway: Gateway, call: Call, cut: Cut) -> Handle:
    with gateway.metrics.stage("backend"):
        handle = await gateway.backend.invert(cut.crop, aligned=True)
    call.fields["handle"] = shorten(handle.id)
    # The cut, which has the photo, gives its light and colours back: the model's own picture is asked for.
    return replace(handle, tone=PLAIN)


@asynccontextmanager
async def _turn(gateway: Gateway) -> AsyncIterator[None]:
    """A running place of the queue, with the wait for it timed."""
    async with AsyncExitStack() as stack:
        with gateway.metrics.stage("queue"):
            await stack.enter_async_context(gateway.admission.turn())
        yield


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


def _image(data: bytes, file_format: str, handle: str) -> Response:
    return Response(data, media_type=MEDIA_TYPES[file_format], headers={"Edgedit-Handle": handle})
