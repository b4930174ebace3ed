"""Content Credentials: what a picture that was edited says of it, in a form that other programs read.

Every picture says that it is a photo with parts made by a trained model, IPTC's `compositeWithTrainedAlgorithmicMedia`:
in an XMP packet, which anything can read and anything can strip; and, where the package c2pa-python is installed, in a
signed C2PA manifest too, which tells whether the picture was changed since. What the original photo's own metadata or
credentials hold is not passed on: places, times, serial numbers, often a thumbnail of the unedited face.
"""

from __future__ import annotations

import functools
import importlib.util
import io
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

from engines.bundle import Bundle
from engines.directions import Strength
from engines.errors import CredentialsError, OutputError, first_line
from engines.packages import Progress
from engines.photo.images import Photo, Pixels, encode_image, write_picture
from engines.photo.signer import SigningKey, local_key, own_key

SOURCE_TYPE = "http://cv.iptc.org/newscodes/digitalsourcetype/compositeWithTrainedAlgorithmicMedia"
"""IPTC's term for a photo of which parts were made by a trained model."""
ASSERTION = "edgedit.edit"
"""The label of what edgedit says of an edit in a manifest."""
MEDIA_TYPES = {"PNG": "image/png", "JPEG": "image/jpeg", "WEBP": "image/webp"}
LIBRARY = "c2pa-python"
"""The package that signs, as it is installed."""
EXTRA = "pip install 'edgedit[credentials]'"
SETTINGS = {
    # A thumbnail would be one more copy of the face; and nothing here asks a network.
    "builder": {"thumbnail": {"enabled": False}},
    "verify": {"remote_manifest_fetch": False, "ocsp_fetch": False},
}

_PACKET = """<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>
<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">\
<rdf:Description rdf:about="" xmlns:xmp="http://ns.adobe.com/xap/1.0/" \
xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/" \
Iptc4xmpExt:DigitalSourceType="{source}" xmp:CreatorTool="{tool}"/></rdf:RDF></x:xmpmeta>
<?xpacket end="r"?>"""

Edits = Mapping[str, "float | Strength | Sequence[float]"]
"""Strength by direction; several of a sheet."""


@dataclass(frozen=True)
class Statement:
    """The statement of what was done to a picture.

    Example:
        >>> from engines.photo.credentials import Statement
        >>> Statement.of(edgedit.Editor.load(bundle).session.bundle, {"smile": 2.0}).edits
        {'smile': 2.0}
    """

    bundle_sha256: str
    """Digest of the bundle's manifest, which vouches for all of the model."""
    bundle: str | None = None
    """The bundle's name; None if only the digest is known."""
    edits: Edits = field(default_factory=dict)
    """The edits; empty where the model rendered the face without any."""
    photo: Photo | None = None
    """The original, if it is at hand."""

    @classmethod
    def of(cls, bundle: Bundle, edits: Edits, photo: Photo | None = None) -> Statement:
        """The statement for a bundle that is opened."""
        return cls(bundle.digest(), bundle.name, edits, photo)

    def assertion(self, edits: bool) -> dict[str, Any]:
        """The assertion's content.

        Args:
            edits: name edits and the original's digest, and not the model alone.
        """
        model = {"name": self.bundle, "sha256": self.bundle_sha256}
        content: dict[str, Any] = {"bundle": {name: value for name, value in model.items() if value}}
        if edits:
            content["edits"] = {name: _plain(strength) for name, strength in self.edits.items()}
            if self.photo is not None and self.photo.sha256 is not None:
                content["original"] = {"sha256": self.photo.sha256}
        return content


class Credentials:
    """Writes pictures that say that they were edited.

    Safe to use from several threads.

    Args:
        private_key: PEM file of the key that signs; None takes this user's own, which is made at first need.
        certificate: PEM file of that key's certificate and those that vouch for it; goes with `private_key`.
        edits: name the edits, their strengths and the original's digest.
        progress: called with one line if a key is made.

    Raises:
        CredentialsError: if the key or certificate will not do, or one is given without the other, or without the
            package that signs.

    Example:
        >>> credentials = edgedit.Credentials()
        >>> portrait = edgedit.Editor.load(bundle).portrait(photo)
        >>> path = portrait.save("smiling.png", {"smile": 2.0}, credentials=credentials)
        >>> edgedit.read_credentials(path).digital_source_type
        'compositeWithTrainedAlgorithmicMedia'
    """

    def __init__(
        self,
        private_key: str | Path | None = None,
        certificate: str | Path | None = None,
        *,
        edits: bool = True,
        progress: Progress = lambda line: None,
    ) -> None:
        if (private_key is None) != (certificate is None):
            raise CredentialsError("--private-key and --certificate go together: give both, or neither")
        self.edits = edits
        self.key: SigningKey | None = None
        """The key that signs; None: pictures carry the XMP packet alone."""
        self.problem = ""
        """The reason why nothing signs."""
        self._context: Any = None
        try:
            if importlib.util.find_spec("c2pa") is None:
                raise ModuleNotFoundError(f"{LIBRARY} is not installed: {EXTRA}")
            if private_key is not None and certificate is not None:
                self.key = own_key(private_key, certificate)
            else:
                self.key = local_key(progress)
            self._context = _context(self.key)
        except (ModuleNotFoundError, OSError, OutputError) as error:
            if private_key is not None:
                raise CredentialsError(f"Content Credentials cannot be signed: {error}") from error
            # The local key is a convenience: where it cannot be, pictures say what they are without it.
            self.key, self.problem = None, str(error)

    @property
    def form(self) -> Literal["c2pa", "xmp"]:
        """The form in which pictures say it: in a signed manifest with an XMP packet beside it, or in that alone."""
        return "xmp" if self.key is None else "c2pa"

    @property
    def words(self) -> str:
        """The form in words."""
        if self.key is None:
            return f"an unsigned XMP note that it was edited ({self.problem})"
        return f"Content Credentials signed by {self.key.name}"

    def encode(
        self,
        pixels: Pixels,
        file_format: str,
        statement: Statement,
        *,
        quality: int = 95,
        alpha: Pixels | None = None,
    ) -> bytes:
        """The bytes of a picture file with what it says.

        Args:
            pixels, file_format, quality, alpha: as of `engines.photo.images.encode_image`.

        Raises:
            ImageError, OutputError: as `encode_image`.
            CredentialsError: if the key cannot sign it.
        """
        xmp = _PACKET.format(source=SOURCE_TYPE, tool=" ".join(_agent().values())).encode()
        encoded = encode_image(pixels, file_format, quality=quality, alpha=alpha, xmp=xmp)
        if self.key is None:
            return encoded
        import c2pa

        signed = io.BytesIO()
        try:
            builder = c2pa.Builder(self._manifest(statement), self._context)
            builder.sign(MEDIA_TYPES[file_format], io.BytesIO(encoded), signed)
        except c2pa.C2paError as error:
            raise CredentialsError(f"{self.key.name} cannot sign Content Credentials: {first_line(error)}") from error
        return signed.getvalue()

    def save(
        self,
        path: str | os.PathLike[str],
        pixels: Pixels,
        statement: Statement,
        *,
        quality: int = 95,
        alpha: Pixels | None = None,
    ) -> Path:
        """Writes a picture whole or not at all, by the path's suffix; arguments and errors as `encode`."""
        return write_picture(path, lambda kind: self.encode(pixels, kind, statement, quality=quality, alpha=alpha))

    def _manifest(self, statement: Statement) -> str:
        agent = _agent()
        photo = statement.photo
        ingredient = {"title": "the original photo", "relationship": "parentOf", "label": "original"}
        if photo is not None and photo.format in MEDIA_TYPES:
            ingredient["format"] = MEDIA_TYPES[photo.format]
        actions = [
            {"action": "c2pa.opened", "parameters": {"ingredientIds": ["original"]}},
            {
                "action": "c2pa.edited",
                "softwareAgent": agent,
                "digitalSourceType": SOURCE_TYPE,
                "description": "The face was rendered anew by a trained model.",
            },
        ]
        manifest = {
            "claim_generator_info": [agent],
            "title": "edited photo",
            "ingredients": [ingredient],
            "assertions": [
                {"label": "c2pa.actions.v2", "data": {"actions": actions}},
                {"label": ASSERTION, "data": statement.assertion(self.edits)},
            ],
        }
        return json.dumps(manifest)


@functools.cache
def own_credentials() -> Credentials:
    """The credentials of this user's own key, opened once in a process."""
    return Credentials()


@functools.cache
def _agent() -> dict[str, str]:
    return {"name": "edgedit", "version": metadata.version("edgedit")}


def _plain(strength: float | Strength | Sequence[float]) -> Any:
    """A strength without lists of numbers: c2pa-python 0.38 takes those for bytes, and damages some."""
    if isinstance(strength, int | float):
        return float(strength)
    if not isinstance(strength, Strength):
        return [{"strength": float(one)} for one in strength]
    content: dict[str, Any] = {"strength": float(strength.value)}
    if strength.rows is not None:
        content["rows"] = dict(zip(("first", "end"), strength.rows, strict=True))
    if strength.ramp != (1.0, 1.0):
        content["ramp"] = dict(zip(("first", "last"), strength.ramp, strict=True))
    return content if len(content) > 1 else content["strength"]


def _context(key: SigningKey) -> Any:
    import c2pa

    try:
        signer = c2pa.Signer.from_info(c2pa.C2paSignerInfo(key.algorithm, key.certificates, key.private_key, None))
        return c2pa.Context(c2pa.Settings.from_dict(SETTINGS), signer)
    except c2pa.C2paError as error:
        raise CredentialsError(f"{key.name} cannot sign Content Credentials: {first_line(error)}") from error
