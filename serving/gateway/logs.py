"""Structured logs: one JSON object a line, of requests and of what uvicorn says; no photos, keys or whole handles."""

from __future__ import annotations

import json
import logging
import sys
import time
import traceback
from typing import Any, TextIO

LOGGER = "edgedit.gateway"

log = logging.getLogger(LOGGER)


class JsonFormatter(logging.Formatter):
    """A record as one line of JSON: time (UTC), level, logger, message, and the members of its `extra["fields"]`."""

    # By hand: python-json-logger writes times, levels and errors in another form, and takes as many lines to be told.
    def format(self, record: logging.LogRecord) -> str:
        moment = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        line: dict[str, Any] = {
            "time": f"{moment}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info and record.exc_info[1] is not None:
            error = record.exc_info[1]
            frames = traceback.extract_tb(error.__traceback__)[-12:]
            line["error"] = {
                "type": type(error).__name__,
                "message": str(error)[:400],
                # Where it happened, without the values that were there.
                "frames": [f"{frame.filename}:{frame.lineno} {frame.name}" for frame in frames],
            }
        return json.dumps(line, default=str)


def configure(stream: TextIO | None = None) -> None:
    """Sends the logs of the gateway and of uvicorn to a stream (standard error), and no request lines of uvicorn's."""
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JsonFormatter())
    for name in (LOGGER, "uvicorn", "uvicorn.error"):
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [handler] if name != "uvicorn.error" else [], name == "uvicorn.error"
        logger.setLevel(logging.INFO)
    access = logging.getLogger("uvicorn.access")
    access.handlers, access.propagate = [], False


def shorten(handle: str) -> str:
    """The start of a handle: enough to follow it through a log, too little to use it."""
    return handle[:8]
