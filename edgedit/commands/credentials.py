"""The verb credentials: what a picture says of how it was made."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from edgedit.commands.common import Reporting, say
from engines.photo.claims import read_credentials


@dataclass(frozen=True, kw_only=True)
class CredentialsOf(Reporting):
    """Say how a picture was made, by its own account: whether it was edited, how, who signed that, and whether it was
    changed since. A signature that does not hold is exit status 1."""

    picture: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="PICTURE")]
    """PNG, JPEG or WebP, edgedit's or any other."""

    def run(self) -> dict[str, Any]:
        claims = read_credentials(self.picture)
        say(f"{self.picture}: {claims.in_words}")
        if claims.edit is not None:
            say(f"edgedit says: {json.dumps(claims.edit)}")
        summary = {"picture": str(self.picture)} | asdict(claims)
        return summary if claims.problem is None else summary | {"error": f"{self.picture}: {claims.problem}"}
