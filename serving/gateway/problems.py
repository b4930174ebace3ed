"""Error bodies: RFC 9457 problem details that say what to do and nothing of this machine."""

from __future__ import annotations

import http
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from starlette.responses import Response

MEDIA_TYPE = "application/problem+json"
_URN = "urn:edgedit:problem:"
_LONGEST = 400
# A path, a module of Python's, an address in memory: what a message of a library below may hold.
_PRIVATE = re.compile(
    r"(?<![\w.])(?:[A-Za-z]:)?[\\/](?!v1\b)[\w.@+-]+[\\/]|\bFile \"|Traceback|\b0x[0-9a-fA-F]{6,}|<[\w.]+ object"
    r"|\w\.py\b|\b(?:\d{1,3}\.){3}\d{1,3}\b|://"
)


class Problem(Exception):
    """An answer that is an error.

    Args:
        kind: a short name of this problem that stays the same, the end of its `type`; None for a plain status.
        detail: one line for the caller: what was wrong and what to do.
        title: None for the status's own phrase.
        more: further members of the body.
    """

    def __init__(
        self,
        status: int,
        kind: str | None,
        detail: str,
        *,
        title: str | None = None,
        headers: Mapping[str, str] | None = None,
        **more: Any,
    ) -> None:
        super().__init__(detail)
        self.status, self.kind, self.detail = status, kind, detail
        self.title = title or http.HTTPStatus(status).phrase
        self.headers = dict(headers or {})
        self.more = more

    def body(self, request_id: str) -> bytes:
        """The JSON text of the answer."""
        members = {
            "type": "about:blank" if self.kind is None else _URN + self.kind,
            "title": self.title,
            "status": self.status,
            "detail": self.detail,
            "request_id": request_id,
            **self.more,
        }
        return json.dumps(members, ensure_ascii=False).encode("utf-8", "replace")

    def answer(self, request_id: str) -> Response:
        """The answer to the request of that name."""
        return Response(self.body(request_id), self.status, self.headers, media_type=MEDIA_TYPE)


def busy(status: int, kind: str, detail: str, retry_after: float) -> Problem:
    """A refusal that holds for a while: 429 or 503 with Retry-After in whole seconds, at least 1."""
    seconds = max(1, int(-(-retry_after // 1)))
    return Problem(status, kind, detail, headers={"Retry-After": str(seconds)})


def scrub(text: str, fallback: str) -> str:
    """A message of a library or server as one short line, or `fallback` if it tells of paths, code or addresses."""
    line = "".join(c if c.isprintable() else " " for c in " ".join(text.split()))
    if not line or _PRIVATE.search(line):
        return fallback
    return line if len(line) <= _LONGEST else f"{line[: _LONGEST - 3]}..."


def invalid(errors: Sequence[Any], kind: str = "invalid-request", status: int = 422) -> Problem:
    """A request that does not fit its schema, from Pydantic's or FastAPI's list of errors; inputs are not repeated."""
    entries = []
    for error in errors:
        location, message = [str(part) for part in error["loc"]], str(error["msg"])
        if error["type"] == "json_invalid":
            # Where a form's field is JSON, the request itself is well formed.
            message, status = "this is not valid JSON", status if location else 400
        entries.append({"pointer": "#/" + "/".join(location), "detail": scrub(message, "this value will not do")})
    first = entries[0] if entries else {"pointer": "#/", "detail": "it does not fit the schema"}
    where = first["pointer"].removeprefix("#/") or "body"
    detail = scrub(f"{where}: {first['detail']}", "the request does not fit its schema")
    return Problem(status, kind, detail, errors=entries[:16])
