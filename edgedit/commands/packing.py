"""The verb that makes, checks and tests packs for machines without a network: pack."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from edgedit.commands.common import BundleOption, OptionalFile, OptionalText, Reporting, say
from edgedit.editor import PORTRAIT_BUNDLE
from engines.errors import OutputError

OptionalFolder = Annotated[Path | None, tyro.conf.arg(metavar="DIRECTORY", help_behavior_hint="")]


@dataclass(frozen=True, kw_only=True)
class Pack(Reporting):
    """Write all that a machine without a network needs: wheels, a whole bundle, an installer and a self-test."""

    bundle: BundleOption = PORTRAIT_BUNDLE
    """The bundle to pack."""
    platform: OptionalText = None
    """The machine: linux-x86_64, linux-aarch64 or windows-x86_64."""
    python: str = "3.11"
    """The version of Python on that machine: 3.11, 3.12 or 3.13."""
    out: Annotated[Path | None, tyro.conf.arg(aliases=("-o",), metavar="DIRECTORY", help_behavior_hint="")] = None
    """The pack's folder, which must not exist or be empty."""
    engine: Annotated[tuple[str, ...], tyro.conf.arg(metavar="NAME [NAME ...]")] = ()
    """Engines of the bundle to take along, by their folders' names."""
    lock: OptionalFile = None
    """Requirements with hashes to take the wheels of, in place of requirements/base.lock."""
    verify: OptionalFolder = None
    """Check the digest of every file of this pack instead of making one."""
    self_test: OptionalFolder = None
    """Run the self-test of this pack, or of what was installed from one, instead."""

    def run(self) -> dict[str, Any]:
        from edgedit import packing

        if self.verify is not None:
            count = packing.verify_pack(self.verify)
            say(f"{self.verify}: every digest matches, of {count} files")
            return {"pack": str(self.verify), "files": count}
        if self.self_test is not None:
            result = packing.self_test(self.self_test, say)
            summary: dict[str, Any] = {"pack": str(self.self_test), "passed": result.passed}
            if not result.passed:
                return summary | {"psnr": result.psnr, "error": str(result)}
            say(str(result))
            return summary | {"psnr": None if result.psnr == float("inf") else result.psnr}
        if self.platform is None or self.out is None:
            raise OutputError("give --platform and -o to make a pack, or --verify or --self-test and its folder")
        options: dict[str, Any] = {"python": self.python, "engines": self.engine, "lock": self.lock}
        folder = packing.pack(self.bundle, platform=self.platform, out=self.out, progress=say, **options)
        say(f"wrote {folder}")
        return {"pack": str(folder), **packing.PackInfo.read(folder).model_dump(mode="json")}
