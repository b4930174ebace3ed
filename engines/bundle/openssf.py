"""The part of signing that needs OpenSSF model-signing: key pairs on elliptic curves. Imported on demand.

The signature is a Sigstore bundle (v0.3) around an in-toto statement with the SHA-256 of each file, so that
`model_signing verify key` of that package checks it too. Two things are stricter here. A signature of that package may
say which files it ignores; here the files that count are the verifier's to say. And of the signature file itself no
byte may differ, not even one that the key does not vouch for.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import tempfile
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from model_signing import hashing, manifest, signing, verifying

from engines.bundle.manifest import SIGNATURE_FILE
from engines.errors import SignatureError

_CURVES = ("secp256r1", "secp384r1", "secp521r1")
_MEDIA_TYPE = "application/vnd.dev.sigstore.bundle.v0.3+json"
_PAYLOAD_TYPE = "application/vnd.in-toto+json"
_PREDICATE_TYPE = "https://model_signing/signature/v1.0"
_MAX_KEY_BYTES = 2**16
_NEW_KEY = "`openssl ecparam -genkey -name prime256v1 -noout -out KEY.pem` makes one"
_MALFORMED = f"{SIGNATURE_FILE} is damaged or no signature of a key pair"


def sign(root: Path, files: Collection[str], private_key: Path) -> bytes:
    """The content of the signature file.

    Args:
        private_key: PEM file of a P-256, P-384 or P-521 key without a passphrase.

    Raises:
        SignatureError: for a key that will not do.
        OSError: if a file cannot be read.
    """
    try:
        key = serialization.load_pem_private_key(_read_key(private_key), None)
    except TypeError:
        raise SignatureError(
            f"{private_key} is protected by a passphrase; sign with a key without one "
            "(`openssl pkey -in KEY.pem -out PLAIN.pem` takes it off)"
        ) from None
    except (ValueError, UnsupportedAlgorithm):
        raise SignatureError(f"{private_key} is not a private key in PEM; {_NEW_KEY}") from None
    if not isinstance(key, ec.EllipticCurvePrivateKey) or key.curve.name not in _CURVES:
        raise SignatureError(f"{private_key} is not a key on the curves P-256, P-384 or P-521; {_NEW_KEY}")
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / SIGNATURE_FILE
        config = signing.Config().use_elliptic_key_signer(private_key=private_key)
        config.set_hashing_config(_Files(files)).sign(root, file)
        envelope = json.loads(file.read_bytes())["dsseEnvelope"]
    return _document(_fingerprint(key.public_key()), envelope["payload"], envelope["signatures"][0]["sig"])


def verify(root: Path, files: Collection[str], signature: bytes, public_key: Path) -> tuple[dict[str, str], list[str]]:
    """Checks a signature, then the files.

    Args:
        files: paths inside it of all that must be signed.
        public_key: PEM file of the signer's public key.

    Returns:
        SHA-256 (hex) by path of what was signed, and the paths that are not as they were signed: changed, added, gone.

    Raises:
        SignatureError: if the signature is malformed or not of this key, or the key will not do.
        OSError: if a file cannot be read.
    """
    try:
        key = serialization.load_pem_public_key(_read_key(public_key))
    except (ValueError, UnsupportedAlgorithm):
        raise SignatureError(
            f"{public_key} is not a public key in PEM; `openssl pkey -in KEY.pem -pubout -out PUBLIC.pem` writes that "
            "of a private one"
        ) from None
    if not isinstance(key, ec.EllipticCurvePublicKey) or key.curve.name not in _CURVES:
        raise SignatureError(f"{public_key} is not a key on the curves P-256, P-384 or P-521")
    payload = _payload(signature, _fingerprint(key), public_key)
    tree = _Files(files)
    with tempfile.TemporaryDirectory() as folder:
        # The bytes that were looked at above are the ones that are verified.
        file = Path(folder) / SIGNATURE_FILE
        file.write_bytes(signature)
        config = verifying.Config().use_elliptic_key_verifier(public_key=public_key).set_hashing_config(tree)
        try:
            config.verify(root, file)
            mismatch = None
        except InvalidSignature:
            raise SignatureError(f"{SIGNATURE_FILE} does not match the key {public_key}") from None
        except (ValueError, KeyError, TypeError) as error:
            mismatch = error
    if tree.digests is None:
        # It was refused before any file was looked at.
        raise SignatureError(_MALFORMED) from mismatch
    signed = _signed(payload)
    differing = sorted(file for file, _ in set(signed.items()) ^ set(tree.digests.items()))
    if mismatch is not None and not differing:
        raise SignatureError(_MALFORMED) from mismatch
    return signed, list(dict.fromkeys(differing))


class _Files(hashing.Config):
    """Hashes these files and no others, whatever a signature says of paths to ignore."""

    def __init__(self, files: Iterable[str]) -> None:
        super().__init__()
        self._files = sorted(files)
        self.digests: dict[str, str] | None = None
        """SHA-256 (hex) by path; None until files are hashed, which is after the signature was found to be right."""
        # Written into the signature, for verifiers that go by it.
        self.set_ignored_paths(paths=[SIGNATURE_FILE], ignore_git_paths=False)

    def hash(
        self, model_path: hashing.PathLike, *, files_to_hash: Iterable[hashing.PathLike] | None = None
    ) -> manifest.Manifest:
        root = Path(model_path)  # type: ignore[arg-type]
        hashed = super().hash(root, files_to_hash=[root / file for file in self._files])
        self.digests = {item.identifier: item.digest.digest_hex for item in hashed.resource_descriptors()}
        return hashed

    def add_ignored_paths(self, *, model_path: hashing.PathLike, paths: Iterable[hashing.PathLike]) -> None:
        pass


def _read_key(path: Path) -> bytes:
    try:
        with path.open("rb") as stream:
            return stream.read(_MAX_KEY_BYTES)
    except OSError as error:
        raise SignatureError(f"cannot read the key {path}: {error.strerror or error}") from None


def _fingerprint(key: ec.EllipticCurvePublicKey) -> str:
    pem = key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    return hashlib.sha256(pem).hexdigest()


def _document(fingerprint: str, payload: str, signature: str) -> bytes:
    document = {
        "mediaType": _MEDIA_TYPE,
        "verificationMaterial": {"publicKey": {"hint": fingerprint}, "tlogEntries": []},
        "dsseEnvelope": {
            "payload": payload,
            "payloadType": _PAYLOAD_TYPE,
            "signatures": [{"sig": signature, "keyid": ""}],
        },
    }
    return json.dumps(document, separators=(",", ":")).encode()


def _payload(signature: bytes, fingerprint: str, key: Path) -> bytes:
    """The statement inside a signature file that is byte for byte as `sign` writes it; nothing is verified yet."""
    try:
        document = json.loads(signature)
        hint = document["verificationMaterial"]["publicKey"]["hint"]
        envelope = document["dsseEnvelope"]
        encoded, signed = envelope["payload"], envelope["signatures"][0]["sig"]
        if not isinstance(hint, str) or signature != _document(hint, encoded, signed):
            raise ValueError
        payload = _decode(encoded)
        _decode(signed)
    except (ValueError, KeyError, TypeError, IndexError, RecursionError):
        raise SignatureError(_MALFORMED) from None
    if hint != fingerprint:
        raise SignatureError(f"{SIGNATURE_FILE} was made with another key than {key}")
    return payload


def _decode(encoded: str) -> bytes:
    try:
        decoded = base64.b64decode(encoded, validate=True)
    except binascii.Error as error:
        raise ValueError from error
    if base64.b64encode(decoded).decode() != encoded:
        raise ValueError
    return decoded


def _signed(payload: bytes) -> dict[str, str]:
    """The digest of each file in a statement that has been verified."""
    try:
        statement: dict[str, Any] = json.loads(payload)
        resources = statement["predicate"]["resources"]
        if statement["predicateType"] != _PREDICATE_TYPE or any(r["algorithm"] != "sha256" for r in resources):
            raise ValueError
        return {resource["name"]: resource["digest"] for resource in resources}
    except (ValueError, KeyError, TypeError):
        raise SignatureError(_MALFORMED) from None
