"""What the pictures of the verbs say of their edits, and the verb that reads it."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest

from edgedit.editor import Editor
from engines.photo.claims import read_credentials
from engines.photo.mark import mark_picture
from tests.edgedit.commands.conftest import Edits
from tests.edgedit.conftest import Cli


def test_pictures_say_that_they_were_edited(edits: Edits, head_path: Path) -> None:
    pytest.importorskip("c2pa", reason="signing pictures needs the credentials extra")
    done = edits(head_path, "-d", "smile:2")
    assert "with Content Credentials signed by the local key" in done.out and edits.summary["credentials"] == "c2pa"
    claims = read_credentials(edits.out)
    assert claims.intact and claims.edit and claims.edit["edits"] == {"smile": 2.0}
    assert claims.edit["original"]["sha256"] == hashlib.sha256(head_path.read_bytes()).hexdigest()
    assert edits(head_path, "-d", "smile:2", "--no-edit-list").status == 0
    claims = read_credentials(edits.out)
    assert claims.intact and claims.edit and set(claims.edit) == {"bundle"}
    assert edits(head_path, verb="reconstruct").status == 0
    assert (read_credentials(edits.out).edit or {})["edits"] == {}
    sheet = edits.out.with_suffix(".jpg")
    assert edits(head_path, "-d", "smile", verb="demo", out=sheet).status == 0
    assert len((read_credentials(sheet).edit or {})["edits"]["smile"]) == 4


def test_credentials_can_be_left_out(edits: Edits, head_path: Path) -> None:
    done = edits(head_path, "-d", "smile:2", "--no-credentials")
    assert "nothing that says it was edited" in done.out and edits.summary["credentials"] == "none"
    claims = read_credentials(edits.out)
    assert not claims.signed and claims.digital_source_type is None
    refused = edits(head_path, "-d", "smile:2", "--no-credentials", "--no-edit-list")
    assert "do not go with --no-credentials" in refused.error
    edits.out.unlink(), edits.json.unlink()
    assert "go together" in edits(head_path, "-d", "smile:2", "--private-key", "key.pem").error
    assert edits.written == []


@pytest.mark.parametrize("kind", ["edited", "names"])
def test_a_mark_is_drawn_on_request(edits: Edits, editor: Editor, head_path: Path, kind: str) -> None:
    assert edits(head_path, "-d", "smile:2", "--mark", kind).status == 0
    plain = editor.edit_photo(head_path, {"smile": 2.0})
    text = {"edited": "edited", "names": "edited: smile"}[kind]
    assert np.array_equal(edits.pixels, mark_picture(plain, text)) and not np.array_equal(edits.pixels, plain)


def test_the_verb_credentials_tells(cli: Cli, edits: Edits, head_path: Path, tmp_path: Path) -> None:
    pytest.importorskip("c2pa", reason="signing pictures needs the credentials extra")
    assert "not signed; no source type" in cli("credentials", head_path).out
    edits(head_path, "-d", "smile:2")
    told = tmp_path / "told.json"
    done = cli("credentials", edits.out, "--json", told)
    assert done.status == 0 and "as it was signed" in done.out and '"smile": 2.0' in done.out
    assert json.loads(told.read_text())["digital_source_type"] == "compositeWithTrainedAlgorithmicMedia"
    data = bytearray(edits.out.read_bytes())
    data[data.rindex(b"IEND") - 40] ^= 1
    edits.out.write_bytes(data)
    changed = cli("credentials", edits.out)
    assert changed.status == 1 and "NOT as it was signed" in changed.out and "hash" in changed.error
    assert "is not a PNG, JPEG or WebP" in cli("credentials", told).error
