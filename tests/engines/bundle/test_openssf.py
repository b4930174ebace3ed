"""Signature files and keys; that a bundle is what was signed is asserted in test_signing."""

from __future__ import annotations

import base64
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from engines.bundle import Bundle
from engines.bundle.manifest import SIGNATURE_FILE
from engines.bundle.signing import sign_bundle, verify_signature
from engines.errors import SignatureError
from tests.engines.engine_folders import flip, refusal, save_keys, signed_bundle, write_keys

pytest.importorskip("model_signing", reason="signatures need the sign extra")

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

RTX = "tensorrt-rtx-sm86-fp16"


@pytest.fixture(scope="module")
def original(tiny_bundle_path: Path, tmp_path_factory: pytest.TempPathFactory, private: Path) -> Path:
    return signed_bundle(tiny_bundle_path, tmp_path_factory.mktemp("signed") / "tiny", private)


@pytest.fixture
def signed(original: Path, tmp_path: Path) -> Path:
    """A signed bundle with an engine, to damage."""
    return Path(shutil.copytree(original, tmp_path / "tiny"))


@pytest.mark.parametrize("cut", [0, 1, 100, -1])
def test_truncated_and_grown_signatures(signed: Path, public: Path, cut: int) -> None:
    sound = (signed / SIGNATURE_FILE).read_bytes()
    for wrong in (sound[:cut], sound + b"\n", b" " + sound, b"[" * 10_000, b"{}", b"[]", b"null", b"\xff"):
        (signed / SIGNATURE_FILE).write_bytes(wrong)
        assert refusal(signed, public) == "tiny: model.sig is damaged or no signature of a key pair"


def rewrite(path: Path, change: Callable[[dict], None]) -> None:
    document = json.loads((path / SIGNATURE_FILE).read_bytes())
    change(document)
    (path / SIGNATURE_FILE).write_bytes(json.dumps(document, separators=(",", ":")).encode())


def test_what_a_signature_does_not_vouch_for_may_not_differ_either(signed: Path, public: Path) -> None:
    sound = (signed / SIGNATURE_FILE).read_bytes()
    changes: list[Callable[[dict], object]] = [
        lambda d: d["dsseEnvelope"]["signatures"][0].update(keyid="me"),
        lambda d: d["dsseEnvelope"]["signatures"].append(d["dsseEnvelope"]["signatures"][0]),
        lambda d: d["verificationMaterial"]["publicKey"].pop("hint"),
        lambda d: d["verificationMaterial"]["publicKey"].update(hint=None),
        lambda d: d["verificationMaterial"].update(timestampVerificationData={}),
        lambda d: d.update(surprise=1),
        lambda d: d["dsseEnvelope"].update(payload=d["dsseEnvelope"]["payload"] + "\n"),
        lambda d: d["dsseEnvelope"].update(payload=1),
    ]
    for change in changes:
        rewrite(signed, change)
        assert (signed / SIGNATURE_FILE).read_bytes() != sound
        assert refusal(signed, public).endswith("is damaged or no signature of a key pair")
        (signed / SIGNATURE_FILE).write_bytes(sound)


def test_a_forged_statement(signed: Path, public: Path) -> None:
    (signed / "card.md").write_bytes(b"# evil\n")

    def forge(document: dict) -> None:
        statement = json.loads(base64.b64decode(document["dsseEnvelope"]["payload"]))
        statement["predicate"]["resources"][0]["digest"] = "0" * 64
        document["dsseEnvelope"]["payload"] = base64.b64encode(json.dumps(statement).encode()).decode()

    rewrite(signed, forge)
    assert refusal(signed, public) == f"tiny: model.sig does not match the key {public}"


def test_another_key(signed: Path, tmp_path: Path) -> None:
    _, other = write_keys(tmp_path)
    assert refusal(signed, other) == f"tiny: model.sig was made with another key than {other}"


def test_a_false_claim_about_the_key(signed: Path, public: Path, tmp_path: Path) -> None:
    """Somebody signs with a key of their own and says that it was the right one."""
    claim = json.loads((signed / SIGNATURE_FILE).read_bytes())["verificationMaterial"]["publicKey"]["hint"]
    own, _ = write_keys(tmp_path, "own")
    sign_bundle(Bundle.load(signed), own)
    rewrite(signed, lambda d: d["verificationMaterial"]["publicKey"].update(hint=claim))
    assert refusal(signed, public) == f"tiny: model.sig does not match the key {public}"


def test_keys_that_will_not_do(signed: Path, keys: tuple[Path, Path], tmp_path: Path) -> None:
    plain = serialization.NoEncryption()
    (tmp_path / "text.pem").write_text("hello")
    text = tmp_path / "text.pem", tmp_path / "text.pem"
    missing = tmp_path / "none.pem", tmp_path / "none.pem"
    locked = save_keys(
        tmp_path, "locked", ec.generate_private_key(ec.SECP256R1()), serialization.BestAvailableEncryption(b"x")
    )
    edwards = save_keys(tmp_path, "edwards", ed25519.Ed25519PrivateKey.generate(), plain)
    rivest = save_keys(tmp_path, "rivest", rsa.generate_private_key(65537, 2048), plain)
    koblitz = write_keys(tmp_path, "koblitz", "secp256k1")
    curves = "is not a key on the curves P-256, P-384 or P-521"
    before = (signed / SIGNATURE_FILE).read_bytes()
    for (private, public), for_signing, for_verifying in (
        (text, "is not a private key in PEM; `openssl", "is not a public key in PEM; `openssl"),
        (missing, "cannot read the key .*: No such file", "cannot read the key .*: No such file"),
        ((tmp_path, tmp_path), "cannot read the key .*: Is a directory", "cannot read the key .*: Is a directory"),
        (keys[::-1], "is not a private key in PEM", "is not a public key in PEM"),
        (edwards, curves, curves),
        (rivest, curves, curves),
        (koblitz, curves, curves),
        (locked, "is protected by a passphrase; sign with a key without one", "was made with another key"),
    ):
        with pytest.raises(SignatureError, match=for_signing):
            sign_bundle(Bundle.load(signed), private)
        with pytest.raises(SignatureError, match=for_verifying):
            verify_signature(Bundle.load(signed), public)
    assert (signed / SIGNATURE_FILE).read_bytes() == before


def test_other_curves(signed: Path, tmp_path: Path) -> None:
    private, public = write_keys(tmp_path, "large", "secp384r1")
    sign_bundle(Bundle.load(signed), private)
    assert verify_signature(Bundle.load(signed), public)


def test_the_tool_of_model_signing_agrees(signed: Path, public: Path) -> None:
    from model_signing import verifying

    config = verifying.Config().use_elliptic_key_verifier(public_key=public)
    config.verify(signed, signed / SIGNATURE_FILE)
    flip(signed / "card.md")
    with pytest.raises(ValueError, match=r"Hash mismatch for 'card\.md'"):
        verifying.Config().use_elliptic_key_verifier(public_key=public).verify(signed, signed / SIGNATURE_FILE)


@pytest.mark.parametrize("ignored", [[], ["engines"]])
def test_a_signature_made_by_that_tool(signed: Path, private: Path, public: Path, ignored: list[str]) -> None:
    """It counts, but not what it says of files to ignore."""
    from model_signing import hashing, signing

    (signed / SIGNATURE_FILE).unlink()
    files = hashing.Config().set_ignored_paths(paths=[SIGNATURE_FILE, *ignored])
    config = signing.Config().use_elliptic_key_signer(private_key=private).set_hashing_config(files)
    config.sign(signed, signed / SIGNATURE_FILE)
    if ignored:
        assert f"engines/{RTX} is not as it was signed" in refusal(signed, public)
    else:
        assert f"engines/{RTX}/edit.engine" in verify_signature(Bundle.load(signed), public)
