"""The key that signs pictures' Content Credentials: the user's own, or one that is made once for this user and machine.

A certificate that nobody vouches for proves that a picture was not changed since it was signed, and not by whom it was
signed: readers of credentials call it untrusted. All pictures of one key can be told to come from the same hand.

C2PA's specification lets no certificate that signs pictures be signed by itself: that of the local key is issued by
an authority whose key is thrown away at once.
"""

from __future__ import annotations

import datetime
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engines.errors import CredentialsError
from engines.packages import Progress
from engines.store import cache_folder, made_once

KEY_FILE = "private-key.pem"
CERTIFICATE_FILE = "certificates.pem"
VALID_DAYS = 3650
"""A local certificate's life; a picture that was signed in it has no time stamp, so that it ends with it."""
MAX_PEM_BYTES = 1 << 20

_ALGORITHMS = {"secp256r1": "es256", "secp384r1": "es384", "secp521r1": "es512"}


@dataclass(frozen=True)
class SigningKey:
    """A private key with its certificates, as PEM."""

    algorithm: str
    """The algorithm as C2PA calls it: es256, es384, es512, ps256 or ed25519."""
    private_key: bytes
    certificates: bytes
    """The key's own first, then the chain."""
    name: str
    """The name in messages."""


def local_folder() -> Path:
    """The folder of this user's own key."""
    return cache_folder() / "credentials"


def local_key(progress: Progress = lambda line: None) -> SigningKey:
    """This user's key, made at first need; its file can be read by the user alone.

    Raises:
        ModuleNotFoundError: without the package cryptography.
        OutputError: if the folder cannot be written.
        CredentialsError: if what lies there is damaged.
    """
    place = local_folder()

    def make(staging: Path) -> None:
        progress(
            f"making a key that signs pictures' Content Credentials, once, in {place}: no authority vouches for it, so "
            "readers call the signature untrusted"
        )
        key, certificates = _issue()
        staging.chmod(0o700)
        with open(staging / KEY_FILE, "xb", opener=lambda path, flags: os.open(path, flags, 0o600)) as stream:
            stream.write(key)
        (staging / CERTIFICATE_FILE).write_bytes(certificates)

    files = place / KEY_FILE, place / CERTIFICATE_FILE
    made_once(place, lambda: all(file.is_file() for file in files), make)
    return own_key(*files, name="the local key")


def own_key(private_key: str | Path, certificate: str | Path, name: str | None = None) -> SigningKey:
    """A key from PEM files.

    Args:
        private_key: on P-256, P-384 or P-521, Ed25519 or RSA, without a passphrase.
        certificate: the key's certificate, and those that vouch for it after it.
        name: what messages call it; the certificate's file by default.

    Raises:
        ModuleNotFoundError: without the package cryptography.
        CredentialsError: if they cannot be read, or do not belong together.
    """
    from cryptography import x509
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives import serialization

    key_file, certificate_file = Path(private_key), Path(certificate)
    try:
        # TypeError: it is behind a passphrase.
        key = serialization.load_pem_private_key(read_at_most(key_file), password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise CredentialsError(f"{key_file} is no private key in PEM without a passphrase") from error
    try:
        chain = x509.load_pem_x509_certificates(read_at_most(certificate_file))
        public = chain[0].public_key()
    except (ValueError, UnsupportedAlgorithm) as error:
        raise CredentialsError(f"{certificate_file} holds no certificate in PEM") from error
    if public != key.public_key():
        raise CredentialsError(f"{certificate_file} is not the certificate of {key_file}: its own must come first")
    return SigningKey(
        algorithm=_algorithm(key, key_file),
        # One form of the many that PEM has.
        private_key=key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        ),
        certificates=b"".join(one.public_bytes(serialization.Encoding.PEM) for one in chain),
        name=name or str(certificate_file),
    )


def read_at_most(file: Path, limit: int = MAX_PEM_BYTES) -> bytes:
    """The first bytes of a file.

    Raises:
        CredentialsError: if it cannot be read.
    """
    try:
        with file.open("rb") as stream:
            return stream.read(limit)
    except OSError as error:
        raise CredentialsError(f"{file}: {error.strerror or error}") from error


def _algorithm(key: Any, file: Path) -> str:
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

    if isinstance(key, ed25519.Ed25519PrivateKey):
        return "ed25519"
    if isinstance(key, rsa.RSAPrivateKey):
        return "ps256"
    if isinstance(key, ec.EllipticCurvePrivateKey) and key.curve.name in _ALGORITHMS:
        return _ALGORITHMS[key.curve.name]
    raise CredentialsError(f"{file} is of a kind that C2PA does not sign with; use one on P-256, or Ed25519")


def _issue() -> tuple[bytes, bytes]:
    """A new private key and its certificates, as PEM: two keys, of which the authority's is forgotten."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

    authority, key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    now = datetime.datetime.now(datetime.UTC)

    def name(common: str) -> x509.Name:
        # Neither the user's name nor the machine's.
        words = ((NameOID.ORGANIZATION_NAME, "edgedit, self-signed"), (NameOID.COMMON_NAME, common))
        return x509.Name([x509.NameAttribute(kind, word) for kind, word in words])

    def certificate(subject: str, public: ec.EllipticCurvePublicKey, issues: bool) -> x509.CertificateBuilder:
        usage = dict.fromkeys(
            (
                "content_commitment",
                "key_encipherment",
                "data_encipherment",
                "key_agreement",
                "encipher_only",
                "decipher_only",
            ),
            False,
        )
        return (
            x509.CertificateBuilder()
            .subject_name(name(subject))
            .issuer_name(name("local authority"))
            .public_key(public)
            .serial_number(x509.random_serial_number())
            # A day of grace for clocks that differ.
            .not_valid_before(now - datetime.timedelta(days=1))
            .not_valid_after(now + datetime.timedelta(days=VALID_DAYS))
            .add_extension(x509.BasicConstraints(issues, 0 if issues else None), True)
            .add_extension(
                x509.KeyUsage(digital_signature=not issues, key_cert_sign=issues, crl_sign=issues, **usage), True
            )
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.public_key()), False)
        )

    root = certificate("local authority", authority.public_key(), True).sign(authority, hashes.SHA256())
    leaf = (
        certificate("local key", key.public_key(), False)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.EMAIL_PROTECTION]), False)
        .sign(authority, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return private, b"".join(one.public_bytes(serialization.Encoding.PEM) for one in (leaf, root))
