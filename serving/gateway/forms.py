"""multipart/form-data from a body that is in memory, to memory.

Starlette's own parser writes parts over one megabyte to a temporary file; photos are never stored here.
"""

from __future__ import annotations

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from serving.gateway.problems import Problem

_MAX_PARTS = 16


def parse_form(content_type: str, body: bytes) -> dict[str, bytes]:
    """The parts of a form by name; file names and types of parts are not looked at.

    Raises:
        Problem: 400 if it is not a form, 422 for a name given twice or too many parts.
    """
    _, options = parse_options_header(content_type)
    boundary = options.get(b"boundary")
    if not boundary:
        raise Problem(400, "malformed-form", "the multipart body has no boundary in its Content-Type")
    parts: dict[str, bytes] = {}
    field, value, data = bytearray(), bytearray(), bytearray()
    headers: dict[bytes, bytes] = {}
    ended = False

    def begin() -> None:
        if len(parts) >= _MAX_PARTS:
            raise Problem(422, "invalid-request", f"the form has more than {_MAX_PARTS} parts")
        headers.clear()
        data.clear()

    def header_end() -> None:
        headers[bytes(field).lower()] = bytes(value)
        field.clear()
        value.clear()

    def part_end() -> None:
        _, found = parse_options_header(headers.get(b"content-disposition", b""))
        name = found.get(b"name", b"").decode("utf-8", "replace")
        if not name:
            raise FormParserError("a part has no name")
        if name in parts:
            raise Problem(422, "invalid-request", "a part of the form is there twice")
        parts[name] = bytes(data)

    def end() -> None:
        nonlocal ended
        ended = True

    try:
        parser = MultipartParser(
            boundary,
            {
                "on_part_begin": begin,
                "on_part_data": lambda chunk, start, end: data.extend(chunk[start:end]),
                "on_part_end": part_end,
                "on_header_field": lambda chunk, start, end: field.extend(chunk[start:end]),
                "on_header_value": lambda chunk, start, end: value.extend(chunk[start:end]),
                "on_header_end": header_end,
                "on_end": end,
            },
        )
        parser.write(body)
        parser.finalize()
        if not ended:
            raise FormParserError("it ends early")
    except FormParserError as error:
        raise Problem(400, "malformed-form", "the multipart body is malformed or ends early") from error
    return parts
