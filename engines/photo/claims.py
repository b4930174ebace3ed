"""The claims in a picture about how it was made, whoever wrote it: Content Credentials and IPTC's source type.

Pictures are strangers' files: form and size are looked at first, and nothing is asked of a network.
"""

from __future__ import annotations

import importlib.util
import io
import json
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from engines.errors import CredentialsError
from engines.photo.credentials import ASSERTION, EXTRA, LIBRARY, MEDIA_TYPES, SETTINGS
from engines.photo.signer import read_at_most
from engines.photo.sources import FORMATS, without_text

MAX_BYTES = 256 << 20
"""Most bytes of a file that is read."""
_TERM = re.compile(r"https?://cv\.iptc\.org/newscodes/digitalsourcetype/(\w{1,64})")
_UNTRUSTED = "signingCredential.untrusted"


@dataclass(frozen=True, kw_only=True)
class PictureClaims:
    """The claims of a picture about itself."""

    signed: bool
    """True if it has a C2PA manifest, or may have one where the package that reads them is absent (see `problem`)."""
    intact: bool | None = None
    """True if it is as it was signed; None if it is not signed, or that cannot be checked."""
    trusted: bool = False
    """True if an authority that readers know vouches for the signer; never for a local key."""
    signer: str | None = None
    """The organisation in the signer's certificate, as it calls itself."""
    digital_source_type: str | None = None
    """IPTC's term, such as compositeWithTrainedAlgorithmicMedia: of the manifest, else of the XMP packet."""
    software: str | None = None
    """The program that wrote the manifest, with its version."""
    edit: dict[str, Any] | None = None
    """The content of edgedit's own assertion: bundle, edits, original."""
    problem: str | None = None
    """The reason why a signature does not hold or cannot be checked."""

    @property
    def in_words(self) -> str:
        """The claims in a sentence, and how far to believe them."""
        source = f"source type {self.digital_source_type}" if self.digital_source_type else "no source type"
        if not self.signed:
            return f"not signed; {source}"
        vouched = "an authority vouches for the signer" if self.trusted else "nobody that readers know vouches for them"
        intact = {True: "as it was signed", False: "NOT as it was signed", None: "signature not checked"}[self.intact]
        return f"{source}; {intact}; signed by {self.signer or 'nobody named'} ({vouched}), with {self.software}"


def read_credentials(picture: str | os.PathLike[str] | bytes) -> PictureClaims:
    """Reads what a picture says of how it was made.

    Args:
        picture: path or bytes of a PNG, JPEG or WebP.

    Raises:
        CredentialsError: if it cannot be read, or is not such a picture.

    Example:
        >>> edgedit.read_credentials(photo).signed
        False
    """
    name = "the picture" if isinstance(picture, bytes) else str(picture)
    data = picture if isinstance(picture, bytes) else read_at_most(Path(picture), MAX_BYTES + 1)
    if len(data) > MAX_BYTES:
        raise CredentialsError(f"{name} has more than {MAX_BYTES >> 20} MiB")
    try:
        with Image.open(io.BytesIO(without_text(data)), formats=FORMATS) as image:
            media_type = MEDIA_TYPES.get({"MPO": "JPEG"}.get(str(image.format), str(image.format)))
            packet = image.info.get("xmp", image.info.get("XML:com.adobe.xmp", b""))
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise CredentialsError(f"{name} is not a PNG, JPEG or WebP picture") from error
    if media_type is None:
        raise CredentialsError(f"{name} is not a PNG, JPEG or WebP picture")
    text = packet.decode("utf-8", "replace") if isinstance(packet, bytes) else str(packet)
    term = _TERM.search(text)
    noted = term[1] if term else None
    if importlib.util.find_spec("c2pa") is None:
        signed = b"jumb" in data and b"c2pa" in data
        problem = f"signatures cannot be checked without {LIBRARY}: {EXTRA}" if signed else None
        return PictureClaims(signed=signed, digital_source_type=noted, problem=problem)
    return _manifest(data, media_type, noted)


def _manifest(data: bytes, media_type: str, noted: str | None) -> PictureClaims:
    import c2pa

    try:
        context = c2pa.Context(c2pa.Settings.from_dict(SETTINGS))
        reader = c2pa.Reader.try_create(media_type, io.BytesIO(data), context=context)
        if reader is None:
            return PictureClaims(signed=False, digital_source_type=noted)
        with reader:
            store = json.loads(reader.json())
    except (c2pa.C2paError, ValueError) as error:
        problem = f"its credentials cannot be read: {' '.join(str(error).split())}"
        return PictureClaims(signed=True, intact=False, digital_source_type=noted, problem=problem)
    manifest = store.get("manifests", {}).get(store.get("active_manifest"), {})
    failures = [one for one in store.get("validation_status", ()) if one.get("code") != _UNTRUSTED]
    state = store.get("validation_state")
    assertions = {one.get("label"): one.get("data") for one in manifest.get("assertions", ())}
    terms = [_TERM.fullmatch(str(one.get("digitalSourceType"))) for one in _actions(assertions)]
    makers = manifest.get("claim_generator_info") or [{}]
    maker = " ".join(str(makers[0][key]) for key in ("name", "version") if makers[0].get(key))
    edit = assertions.get(ASSERTION)
    return PictureClaims(
        signed=True,
        intact=state in ("Valid", "Trusted"),
        trusted=state == "Trusted",
        signer=manifest.get("signature_info", {}).get("issuer"),
        digital_source_type=next((term[1] for term in terms if term), noted),
        software=maker or None,
        edit=edit if isinstance(edit, dict) else None,
        problem="; ".join(str(one.get("explanation") or one.get("code")) for one in failures) or None,
    )


def _actions(assertions: dict[str, Any]) -> list[dict[str, Any]]:
    for label in ("c2pa.actions.v2", "c2pa.actions"):
        data = assertions.get(label)
        if isinstance(data, dict):
            return [action for action in data.get("actions", ()) if isinstance(action, dict)]
    return []
