from __future__ import annotations

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.gateway.forms import parse_form
from serving.gateway.problems import Problem

_NAMES = st.text("abcdefgh_", min_size=1, max_size=12)


def _form(files: dict[str, bytes], fields: dict[str, str]) -> tuple[str, bytes]:
    sent = httpx.Request(
        "POST", "http://x", files={name: ("a.jpg", data) for name, data in files.items()}, data=dict(fields)
    )
    return sent.headers["content-type"], sent.read()


@given(st.dictionaries(_NAMES, st.binary(max_size=300), min_size=1, max_size=4), st.text("xyz", max_size=20))
def test_what_another_library_writes_is_read(files: dict[str, bytes], field: str) -> None:
    kind, body = _form(files, {"zz": field})
    assert parse_form(kind, body) == files | {"zz": field.encode()}


@given(st.binary(min_size=1, max_size=200), st.data())
def test_a_form_that_ends_early_is_malformed(data: bytes, draw: st.DataObject) -> None:
    kind, body = _form({"photo": data}, {"edits": "{}"})
    # The last line is "--boundary--"; anything shorter than its two dashes is not the end.
    end = draw.draw(st.integers(0, len(body) - 4))
    with pytest.raises(Problem) as caught:
        parse_form(kind, body[:end])
    assert caught.value.status == 400


@given(st.binary(max_size=400))
def test_no_bytes_are_more_than_malformed(body: bytes) -> None:
    for kind in ("multipart/form-data", "multipart/form-data; boundary=", "multipart/form-data; boundary=" + "x" * 500):
        with pytest.raises(Problem) as caught:
            parse_form(kind, body)
        assert caught.value.status == 400
    with pytest.raises(Problem):
        parse_form("multipart/form-data; boundary=qqqqqq", body)


def test_a_part_given_twice_is_refused() -> None:
    part = b'--b\r\nContent-Disposition: form-data; name="photo"\r\n\r\nx\r\n'
    with pytest.raises(Problem, match="twice") as caught:
        parse_form("multipart/form-data; boundary=b", part * 2 + b"--b--\r\n")
    assert caught.value.status == 422


def test_too_many_parts_are_refused() -> None:
    parts = b"".join(b'--b\r\nContent-Disposition: form-data; name="p%d"\r\n\r\nx\r\n' % number for number in range(40))
    with pytest.raises(Problem, match="more than"):
        parse_form("multipart/form-data; boundary=b", parts + b"--b--\r\n")
