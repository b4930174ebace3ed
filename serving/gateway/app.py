"""The ASGI application."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from engines.errors import DirectionError, EdgeditError, ImageError, ImageTooLargeError, NoFaceError
from engines.photo import Cropper, Cut
from serving.client.errors import (
    DeadlineError,
    NotFoundError,
    OverloadedError,
    RequestError,
    ServingError,
    UnavailableError,
)
from serving.gateway.backend import Backend, EditCanary, Model
from serving.gateway.guard import Guard
from serving.gateway.keys import KeyRing
from serving.gateway.limits import Admission, CpuPool
from serving.gateway.logs import log
from serving.gateway.metrics import Metrics
from serving.gateway.openapi import describe
from serving.gateway.photos import DetectedFaces
from serving.gateway.problems import Problem, busy, invalid, scrub
from serving.gateway.routes import router
from serving.gateway.settings import GatewaySettings
from serving.gateway.shelf import Shelf


class Gateway:
    """The state that the routes share, as `request.app.state.gateway`."""

    backend: Backend
    model: Model
    canary: EditCanary
    pool: CpuPool

    def __init__(self, settings: GatewaySettings) -> None:
        self.settings = settings
        self.metrics = Metrics()
        self.admission = Admission(settings.running, settings.waiting, settings.per_key)
        self.keys = None if settings.api_keys is None else KeyRing(settings.api_keys)
        self.crop = Cropper()
        self.photos = Shelf[Cut](settings.photo_memory, settings.photo_seconds) if settings.photo_seconds else None
        """Photos by handle; None where none are kept."""
        self.faces = Shelf[DetectedFaces](settings.photo_memory, settings.photo_seconds)
        """Faces by digest of the photo as it was sent; used where photos are kept."""
        self.credentials = settings.open_credentials()
        self.draining = False
        self.metrics.watch("admitted", "Requests inside: sending, waiting, running.", lambda: self.admission.inside)
        self.metrics.watch("running", "Requests that have their turn.", lambda: self.admission.working)

    def start(self, backend: Backend) -> None:
        """Sets what infers, on the event loop that serves."""
        self.pool = CpuPool(self.settings.workers)
        self.backend, self.model = backend, Model(backend)
        self.canary = EditCanary(backend, self.model, self.settings.canary_timeout, self.settings.canary_cache)


def create_app(
    connect: Callable[[], AbstractAsyncContextManager[Backend]],
    settings: GatewaySettings,
    extend: Callable[[FastAPI], None] = lambda app: None,
) -> FastAPI:
    """The gateway as an ASGI application; its `state.gateway` is the `Gateway`.

    Args:
        connect: opens the backend, on the event loop that serves; it need not reach the server yet.
        extend: adds pages to the application; they are behind the same door.

    Raises:
        GatewayError: if the file of keys will not do.
    """
    gateway = Gateway(settings)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            if gateway.photos is not None:
                await stack.enter_async_context(gateway.photos.tended())
                await stack.enter_async_context(gateway.faces.tended())
            gateway.start(await stack.enter_async_context(connect()))
            try:
                yield
            finally:
                gateway.pool.close()

    # No pages with scripts from elsewhere, and no redirects that lose a body.
    app = FastAPI(title="edgedit", lifespan=lifespan, docs_url=None, redoc_url=None, redirect_slashes=False)
    app.state.gateway = gateway
    app.include_router(router)
    extend(app)
    for kind in (Problem, EdgeditError, HTTPException, RequestValidationError):
        app.add_exception_handler(kind, _answer)
    app.add_middleware(Guard, gateway=gateway)
    app.openapi = lambda: describe(app, secured=settings.api_keys is not None)  # type: ignore[method-assign]
    return app


async def _answer(request: Request, error: Exception) -> Response:
    problem, call = _problem(error), request.state.call
    call.problem = problem.kind
    if problem.status >= 500 and problem is not error:
        # Of the caller's mistakes, and of what the gateway refuses by itself, the problem says enough.
        log.warning("backend or gateway failed", exc_info=error, extra={"fields": {"request_id": call.id}})
    return problem.answer(call.id)


def _problem(error: Exception) -> Problem:
    """The problem that answers an error; words of other machines pass only if they tell nothing of those."""
    match error:
        case Problem():
            return error
        case RequestValidationError():
            return invalid(error.errors())
        case HTTPException():
            detail = {404: "there is nothing here; /openapi.json tells what is", 405: "this method does nothing here"}
            headers = dict(error.headers or {})
            return Problem(error.status_code, None, detail.get(error.status_code, "no"), headers=headers)
        case NotFoundError():
            detail = "this inversion is no longer held: send the photo again, to /v1/inversions or along with the edit"
            return Problem(404, "resend-image", detail, title="resend image")
        case DeadlineError():
            return Problem(504, "backend-deadline", "the model gave no answer in time; try again later")
        case OverloadedError():
            return busy(503, "backend-overloaded", "the model has too many requests waiting; try again later", 1)
        case UnavailableError():
            return busy(503, "backend-unavailable", "the model cannot be reached; try again later", 2)
        case RequestError():
            return Problem(422, "invalid-edit", scrub(str(error), "the model refused this request"))
        case ServingError():
            return Problem(502, "backend-failed", "the model failed; the gateway's log says more")
        case ImageTooLargeError():
            return Problem(413, "photo-too-large", _words(error))
        case NoFaceError():
            return Problem(422, "no-face", _words(error))
        case ImageError():
            return Problem(422, "invalid-photo", _words(error))
        case DirectionError():
            return Problem(422, "invalid-edit", _words(error))
    return Problem(500, "internal", "the gateway failed; its log says more")


def _words(error: Exception) -> str:
    """A message of the command line's libraries in the words of HTTP."""
    return scrub(str(error).replace("--aligned", "aligned=true"), "the photo cannot be used")
