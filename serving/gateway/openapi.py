"""The OpenAPI document, completed with what FastAPI cannot know of bodies that are read raw."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from serving.gateway.guard import FORM, IMAGES, JSON
from serving.gateway.metrics import CONTENT_TYPE
from serving.gateway.photos import MEDIA_TYPES
from serving.gateway.problems import MEDIA_TYPE
from serving.gateway.schemas import EditForm, EditRequest, ProblemAnswer, reference

_TEXT = {
    400: "The request is malformed.",
    401: "No API key, or one that is not known.",
    403: "The API key is not for this, or a page of another origin asks.",
    404: "The inversion is no longer held: send the photo again.",
    408: "The body did not arrive in time.",
    413: "The body, or the photo in it, is too large.",
    415: "The body is of a type that is not taken here.",
    421: "Without API keys only loopback names are answered to.",
    422: "The request does not fit, or the photo cannot be used.",
    429: "Too many requests with this key.",
    500: "The gateway failed.",
    502: "The model failed.",
    503: "No room, or the model is away: try again later.",
    504: "No answer before the deadline.",
}
_RETRY = {"Retry-After": {"description": "Whole seconds.", "schema": {"type": "integer", "minimum": 1}}}
_TIMING = {
    "Server-Timing": {"description": "Milliseconds of each step of the work.", "schema": {"type": "string"}},
}
_ID = {"X-Request-Id": {"description": "Names this request in the logs.", "schema": {"type": "string"}}}
_BINARY = {"type": "string", "format": "binary"}
_PHOTO = {**_BINARY, "description": "JPEG, PNG or WebP."}

IMAGE_ANSWER: dict[str, Any] = {
    "description": "The image.",
    "content": {kind: {"schema": _BINARY} for kind in MEDIA_TYPES.values()},
    "headers": _TIMING
    | {"Edgedit-Handle": {"description": "The handle of the inversion that was edited.", "schema": {"type": "string"}}},
}
METRICS: dict[str, Any] = {
    "description": "Text exposition.",
    "content": {CONTENT_TYPE: {"schema": {"type": "string"}}},
}
HEALTH: dict[str, Any] = {"security": []}
PHOTO: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {kind: {"schema": _BINARY} for kind in IMAGES}
        | {
            FORM: {
                "schema": {
                    "type": "object",
                    "properties": {"photo": _PHOTO},
                    "required": ["photo"],
                    "additionalProperties": False,
                }
            }
        },
    }
}
EDITS: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {JSON: {"schema": reference(EditRequest)}, FORM: {"schema": reference(EditForm)}},
    }
}
_DEADLINE = {
    "name": "X-Request-Timeout",
    "in": "header",
    "required": False,
    "description": "Seconds after which the caller no longer waits; the gateway has a cap of its own.",
    "schema": {"type": "number", "exclusiveMinimum": 0},
}
_NAME = {
    "name": "X-Request-Id",
    "in": "header",
    "required": False,
    "description": "Names the request in logs: 1 to 128 letters, digits and ._:/+=-; anything else is replaced.",
    "schema": {"type": "string"},
}


def problems(*codes: int) -> dict[int | str, dict[str, Any]]:
    """The refusals of a route."""
    return {code: _problem(code) for code in codes}


def _problem(code: int) -> dict[str, Any]:
    answer: dict[str, Any] = {
        "description": _TEXT[code],
        "content": {MEDIA_TYPE: {"schema": reference(ProblemAnswer)}},
    }
    return answer | ({"headers": _RETRY} if code in (429, 503) else {})


def describe(app: FastAPI, secured: bool) -> dict[str, Any]:
    """The document, which is made once; `secured` where API keys are asked for."""
    if app.openapi_schema is not None:
        return app.openapi_schema
    document = get_openapi(
        title="edgedit",
        version=app.version,
        openapi_version=app.openapi_version,
        description="Edits faces in photos. Photos are not kept.",
        routes=app.routes,
    )
    components = document.setdefault("components", {})
    schemas = components.setdefault("schemas", {})
    for model in (EditRequest, EditForm, ProblemAnswer):
        schema = model.model_json_schema(ref_template="#/components/schemas/{model}")
        schemas.update(schema.pop("$defs", {}))
        schemas[model.__name__] = schema
    form = schemas[EditForm.__name__]
    form["properties"] = {"photo": _PHOTO} | form["properties"]
    form["required"] = ["photo", *form["required"]]
    if secured:
        components["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer", "description": "An API key."}}
    for path, methods in document["paths"].items():
        for operation in methods.values():
            always = [400, 403, 421, 500, 503, 504]
            guarded = path.startswith("/v1/") or path == "/metrics"
            if secured and guarded:
                operation["security"] = [{"key": []}]
                always.append(401)
            if path.startswith("/v1/"):
                always.append(429)
            operation["parameters"] = [*operation.get("parameters", []), _DEADLINE, _NAME]
            for code in always:
                operation["responses"].setdefault(str(code), _problem(code))
            for answer in operation["responses"].values():
                answer["headers"] = answer.get("headers", {}) | _ID
    app.openapi_schema = document
    return document
