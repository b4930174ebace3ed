"""What pictures say of their edits: signed where c2pa-python is, in XMP everywhere; read back by the library itself."""

from __future__ import annotations

import io
import json
import os
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from engines.directions import Strength
from engines.errors import CredentialsError, OutputError
from engines.photo import open_image, signer
from engines.photo.claims import read_credentials
from engines.photo.credentials import ASSERTION, MEDIA_TYPES, SOURCE_TYPE, Credentials, Statement
from engines.photo.mark import mark_picture
from engines.photo.sources import FORMATS
from tests.engines.engine_folders import write_keys

PIXELS = np.random.default_rng(5).integers(0, 256, (96, 128, 3), np.uint8)
TERM = SOURCE_TYPE.rpartition("/")[2]


def original() -> bytes:
    stream = io.BytesIO()
    Image.fromarray(PIXELS).save(stream, "JPEG")
    return stream.getvalue()


def statement(photo: bytes | None = None) -> Statement:
    edits = {"smile": 2.0, "age": Strength(-1.5, rows=(2, 8), ramp=(1, 0)), "yaw": [1.0, 2.0]}
    return Statement("ab" * 32, "faces", edits, None if photo is None else open_image(photo))


@pytest.fixture(scope="module")
def c2pa() -> object:
    return pytest.importorskip("c2pa", reason="signing pictures needs the credentials extra")


def without_library(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("credentials", "claims"):
        monkeypatch.setattr(f"engines.photo.{module}.importlib.util.find_spec", lambda name: None)


@pytest.mark.parametrize("file_format", FORMATS)
def test_a_picture_says_what_was_done(c2pa, file_format: str) -> None:
    photo = original()
    data = Credentials().encode(PIXELS, file_format, statement(photo))
    settings = c2pa.Settings.from_dict({"verify": {"remote_manifest_fetch": False}})
    with c2pa.Reader(MEDIA_TYPES[file_format], io.BytesIO(data), context=c2pa.Context(settings)) as reader:
        assert reader.get_validation_state() == "Valid"
        store = json.loads(reader.json())
    # The signer is told to be unknown, and nothing else is amiss.
    assert [one["code"] for one in store["validation_status"]] == ["signingCredential.untrusted"]
    manifest = store["manifests"][store["active_manifest"]]
    assert manifest["claim_generator_info"][0]["name"] == "edgedit" and "thumbnail" not in manifest
    (ingredient,) = manifest["ingredients"]
    assert ingredient["relationship"] == "parentOf" and ingredient["format"] == "image/jpeg"
    assert "thumbnail" not in ingredient and "active_manifest" not in ingredient
    told = {one["label"]: one["data"] for one in manifest["assertions"]}
    opened, edited = told["c2pa.actions.v2"]["actions"]
    assert (opened["action"], edited["action"]) == ("c2pa.opened", "c2pa.edited")
    assert edited["digitalSourceType"] == SOURCE_TYPE and edited["softwareAgent"]["name"] == "edgedit"
    assert told[ASSERTION] == {
        "bundle": {"name": "faces", "sha256": "ab" * 32},
        "edits": {
            "smile": 2.0,
            "age": {"strength": -1.5, "rows": {"first": 2, "end": 8}, "ramp": {"first": 1.0, "last": 0.0}},
            "yaw": [{"strength": 1.0}, {"strength": 2.0}],
        },
        "original": {"sha256": open_image(photo).sha256},
    }
    pixels = open_image(data).pixels
    assert np.array_equal(pixels, PIXELS) if file_format == "PNG" else pixels.shape == PIXELS.shape


def test_the_reader_tells_the_same_and_finds_changes(c2pa) -> None:
    data = Credentials().encode(PIXELS, "PNG", statement())
    claims = read_credentials(data)
    assert (claims.signed, claims.intact, claims.trusted, claims.problem) == (True, True, False, None)
    assert claims.digital_source_type == TERM and claims.software and claims.software.startswith("edgedit ")
    assert claims.signer == "edgedit, self-signed" and "nobody that readers know" in claims.in_words
    assert claims.edit and claims.edit["edits"]["smile"] == 2.0 and "original" not in claims.edit
    # In the last pixels.
    place = data.rindex(b"IEND") - 40
    changed = read_credentials(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])
    assert (changed.signed, changed.intact) == (True, False) and changed.problem and "NOT" in changed.in_words
    assert read_credentials(original()).signed is False


def test_edits_need_not_be_named(c2pa) -> None:
    claims = read_credentials(Credentials(edits=False).encode(PIXELS, "JPEG", statement(original())))
    assert claims.intact and claims.edit == {"bundle": {"name": "faces", "sha256": "ab" * 32}}


def test_many_threads_share_a_key(c2pa) -> None:
    credentials = Credentials()
    with ThreadPoolExecutor(4) as pool:
        pictures = list(pool.map(lambda _: credentials.encode(PIXELS, "WEBP", statement()), range(8)))
    assert all(read_credentials(picture).intact for picture in pictures)


def test_the_local_key_is_made_once_and_is_the_users_alone(
    c2pa, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "cache" / "credentials"
    monkeypatch.setattr(signer, "local_folder", lambda: place)
    lines: list[str] = []
    first, again = (Credentials(progress=lines.append) for _ in range(2))
    assert first.key == again.key and first.form == "c2pa" and "the local key" in first.words
    assert len(lines) == 1 and str(place) in lines[0] and "untrusted" in lines[0]
    if os.name == "posix":
        assert stat.S_IMODE(place.stat().st_mode) == 0o700
        assert stat.S_IMODE((place / signer.KEY_FILE).stat().st_mode) == 0o600


def test_where_no_key_can_lie_pictures_say_it_unsigned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setattr(signer, "local_folder", lambda: tmp_path / "file" / "credentials")
    credentials = Credentials()
    assert credentials.form == "xmp" and "unsigned" in credentials.words
    assert read_credentials(credentials.encode(PIXELS, "PNG", statement())).digital_source_type == TERM


@pytest.mark.parametrize("file_format", FORMATS)
def test_without_the_library_xmp_says_it(monkeypatch: pytest.MonkeyPatch, file_format: str) -> None:
    without_library(monkeypatch)
    credentials = Credentials()
    assert credentials.form == "xmp" and "pip install 'edgedit[credentials]'" in credentials.words
    data = credentials.encode(PIXELS, file_format, statement())
    claims = read_credentials(data)
    assert (claims.signed, claims.digital_source_type, claims.problem) == (False, TERM, None)
    assert b"Iptc4xmpExt:DigitalSourceType" in data
    # What edgedit writes it can edit again.
    assert open_image(data).pixels.shape == PIXELS.shape
    with pytest.raises(CredentialsError, match="cannot be signed"):
        Credentials("key.pem", "certificate.pem")


def test_without_the_library_a_signature_is_not_checked(c2pa, monkeypatch: pytest.MonkeyPatch) -> None:
    data = Credentials().encode(PIXELS, "JPEG", statement())
    without_library(monkeypatch)
    claims = read_credentials(data)
    assert (
        (claims.signed, claims.intact) == (True, None) and claims.problem and "edgedit[credentials]" in claims.problem
    )


def test_a_key_of_ones_own(c2pa, tmp_path: Path) -> None:
    key, certificates = signer._issue()
    (tmp_path / "key.pem").write_bytes(key), (tmp_path / "certificate.pem").write_bytes(certificates)
    credentials = Credentials(tmp_path / "key.pem", tmp_path / "certificate.pem")
    assert "certificate.pem" in credentials.words
    assert read_credentials(credentials.encode(PIXELS, "PNG", statement())).intact
    other, _ = write_keys(tmp_path, "other")
    with pytest.raises(CredentialsError, match=r"is not the certificate of .*other\.pem"):
        Credentials(other, tmp_path / "certificate.pem")
    odd, _ = write_keys(tmp_path, "odd", "secp256k1")
    for private, certificate, message in (
        (tmp_path / "key.pem", None, "go together"),
        (tmp_path / "none.pem", tmp_path / "certificate.pem", "No such file"),
        (tmp_path / "certificate.pem", tmp_path / "certificate.pem", "no private key in PEM"),
        (tmp_path / "key.pem", tmp_path / "key.pem", "holds no certificate"),
        (odd, tmp_path / "certificate.pem", "is not the certificate"),
    ):
        with pytest.raises(CredentialsError, match=message):
            Credentials(private, certificate)


@pytest.mark.parametrize("data", [b"", b"GIF89a", original()[:40], b"\x89PNG\r\n\x1a\n"])
def test_what_is_no_picture_is_refused(data: bytes) -> None:
    with pytest.raises(CredentialsError, match="is not a PNG, JPEG or WebP picture"):
        read_credentials(data)


def test_missing_files_and_names(tmp_path: Path) -> None:
    with pytest.raises(CredentialsError, match="No such file"):
        read_credentials(tmp_path / "none.png")
    with pytest.raises(OutputError, match="must end in"):
        Credentials().save(tmp_path / "picture.gif", PIXELS, statement())
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("size", [(64, 64), (96, 640), (1024, 768), (16, 16)])
def test_a_mark_stands_in_the_corner_alone(size: tuple[int, int]) -> None:
    grey = np.full((*size, 3), 128, np.uint8)
    marked = mark_picture(grey, "edited: smile, age, glasses")
    changed = (marked != grey).any(axis=2)
    rows, columns = np.nonzero(changed)
    assert marked.shape == grey.shape and (grey == 128).all()
    assert rows.min() > size[0] * 0.8 or size[0] < 100
    assert columns.max() < size[1] and marked.max() > 200 and marked[changed].min() < 100
