"""Verbs on signatures: sign, verify."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from edgedit.commands.common import BundleOption, OwnBundle, PublicKey, Reporting, console, opened, say
from edgedit.editor import PORTRAIT_BUNDLE
from engines.bundle.manifest import SIGNATURE_FILE
from engines.bundle.signing import is_signed, sign_bundle, verify_signature


@dataclass(frozen=True, kw_only=True)
class Sign(Reporting):
    """Sign every file of a bundle, engines included (needs the `sign` extra). Sign again after building engines."""

    bundle: OwnBundle
    """The bundle to sign."""
    private_key: Annotated[Path, tyro.conf.arg(metavar="PRIVATE_KEY.pem")]
    """A private key on the curve P-256, P-384 or P-521, in PEM and without a passphrase."""

    def run(self) -> dict[str, Any]:
        bundle = opened(self.bundle, verify=False)
        count = sign_bundle(bundle, self.private_key)
        say(f"{bundle.name}: signed {count} files, signature in {SIGNATURE_FILE}")
        return {"bundle": str(self.bundle), "signature": SIGNATURE_FILE, "files": count}


@dataclass(frozen=True, kw_only=True)
class Verify(Reporting):
    """Check every digest of a bundle and its engines, and with --public-key who signed it."""

    bundle: BundleOption = PORTRAIT_BUNDLE
    """The bundle to check."""
    public_key: PublicKey = None
    """The public key of who must have signed it, in PEM; a bundle that is not signed then fails."""

    def run(self) -> dict[str, Any]:
        bundle = opened(self.bundle)
        say(f"{bundle.name}: every digest matches")
        summary: dict[str, Any] = {"bundle": str(self.bundle), "signed": is_signed(bundle), "verified": False}
        if self.public_key is not None:
            summary["files"] = len(verify_signature(bundle, self.public_key))
            summary["verified"] = True
            say(f"signed with {self.public_key}: all {summary['files']} files")
        elif summary["signed"]:
            console.print("signed, but not checked by whom: give --public-key")
        else:
            console.print("not signed")
        return summary
