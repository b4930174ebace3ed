"""multipart/form-data from a body that is in memory, to memory."""

from __future__ import annotations

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import Field, File, FormParser, parse_options_header

from serving.gateway.problems import Problem

_MAX_PARTS = 16


def parse_form(content_type: str, body: bytes) -> dict[str, bytes]:
    """The parts of a form by name; file names and types of parts are not looked at.

    Raises:
        Problem: 400 if it is not a form, 422 for a name given twice or too many parts.
    """
    parts: dict[str, bytes] = {}
    ends: list[bool] = []

    def add(part: Field | File) -> None:
        name = (part.field_name or b"").decode("utf-8", "replace")
        if not name:
            raise FormParserError("a part has no name")
        if name in parts:
            raise Problem(422, "invalid-request", "a part of the form is there twice")
        if len(parts) >= _MAX_PARTS:
            raise Problem(422, "invalid-request", f"the form has more than {_MAX_PARTS} parts")
        if isinstance(part, File):
            part.file_object.seek(0)
            parts[name] = part.file_object.read()
        else:
            parts[name] = part.value or b""

    boundary = parse_options_header(content_type)[1].get(b"boundary")
    if not boundary:
        raise Problem(400, "malformed-form", "the multipart body has no boundary in its Content-Type")
    # No part is larger than the body: none goes to a temporary file, as photos are never stored here.
    options = {"MAX_MEMORY_FILE_SIZE": len(body)}
    try:
        parser = FormParser("multipart/form-data", add, add, lambda: ends.append(True), boundary, config=options)
        parser.write(body)
        parser.finalize()
        if not ends:
            raise FormParserError("it ends early")
    except FormParserError as error:
        raise Problem(400, "malformed-form", "the multipart body is malformed or ends early") from error
    return parts
