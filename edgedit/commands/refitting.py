"""`edgedit refit ENGINE --from-bundle BUNDLE`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from edgedit.commands.common import OptionalFile, PublicKey, Reporting, say


@dataclass(frozen=True, kw_only=True)
class Refit(Reporting):
    """Put the weights of another bundle of the same family into engines that were built with --refit, on their GPU."""

    engine: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="ENGINE")]
    """BUNDLE/engines/NAME, in the bundle that it was built from."""
    from_bundle: Annotated[Path, tyro.conf.arg(metavar="BUNDLE")]
    """The bundle with the new weights; its engines/NAME is written."""
    faces: OptionalFile = None
    """For int8 and fp8: photos to measure the ranges of activations on, with the new weights; folder or tar of aligned
    faces, the last by name are used. Without it the engine keeps the ranges it was built with."""
    public_key: PublicKey = None
    """Refuse an engine whose bundle the holder of this public key has not signed as it is."""

    def run(self) -> dict[str, Any]:
        from edgedit.building import refit

        manifest = refit(
            self.engine,
            self.from_bundle,
            faces=self.faces,
            public_key=self.public_key,
            progress=say,
            command=f"edgedit refit ENGINE --from-bundle {self.from_bundle.resolve().name}",
        )
        say(f"wrote engines/{manifest.folder} of {manifest.bundle}")
        return {
            "bundle": str(self.from_bundle),
            "folder": manifest.folder,
            "manifest": manifest.model_dump(mode="json"),
        }
