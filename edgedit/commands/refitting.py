"""`edgedit refit ENGINE --weights BUNDLE`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from edgedit.commands.common import OptionalFile, Reporting, console
from engines.bundle import Bundle
from engines.bundle.engine_manifest import EIGHT_BIT
from engines.bundle.folders import EngineFolder
from engines.errors import EngineError


@dataclass(frozen=True, kw_only=True)
class Refit(Reporting):
    """Put the weights of another bundle of the same family into engines that were built with --refit, on their GPU."""

    engine: tyro.conf.Positional[Path]
    """BUNDLE/engines/NAME, in the bundle that it was built from."""
    weights: Path
    """The bundle with the new weights; its engines/NAME is written."""
    photos: OptionalFile = None
    """For int8 and fp8: photos to measure the ranges of activations on, with the new weights; folder or tar of aligned
    faces, the last by name are used. Without it the engine keeps the ranges it was built with."""
    require_signed: Annotated[
        Path | None, tyro.conf.arg(metavar="KEY.pem", help_behavior_hint="(default: no signature is asked for)")
    ] = None
    """Refuse an engine whose bundle the holder of this public key has not signed as it is."""

    def run(self) -> dict[str, Any]:
        from engines.building.refit import refit

        peaks = None
        if self.photos is not None:
            from edgedit.commands.certifying import measured_ranges

            precision = EngineFolder.at(self.engine).manifest.precision
            if precision not in EIGHT_BIT:
                raise EngineError(f"--photos measures ranges for int8 and fp8, and {self.engine.name} is {precision}")
            peaks = measured_ranges(Bundle.load(self.weights, verify=False), precision, self.photos)
        manifest = refit(
            self.engine,
            self.weights,
            require_signed=self.require_signed,
            peaks=peaks,
            progress=lambda line: console.print(line, markup=False),
            command=f"edgedit refit ENGINE --weights {self.weights.resolve().name}",
        )
        console.print(f"wrote engines/{manifest.folder} of {manifest.bundle}", markup=False)
        return {"bundle": str(self.weights), "folder": manifest.folder, "manifest": manifest.model_dump(mode="json")}
