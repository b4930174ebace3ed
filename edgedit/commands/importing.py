"""`edgedit import KIND FILE [FILE ...] -o weights.safetensors`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from edgedit.commands.common import Reporting, check_output, console, say
from engines.errors import EdgeditError, OutputError
from engines.family import family
from engines.packages import GENERATOR

Kind = Literal[
    "stylegan2",
    "stylegan2-ada",
    "mobilestylegan",
    "e4e",
    "fs",
    "hfgi",
    "clcae",
    "styleres",
    "sdic",
    "sfe",
    "hyperstyle",
    "ir-se-50",
    "iresnet-50",
    "moco-v2",
]


@dataclass(frozen=True, kw_only=True)
class Import(Reporting):
    """Turn an official checkpoint into safetensors, without running code that may be in it (needs the `train` extra).

    mobilestylegan takes no file, or the wheel or folder of the package random-face, which is otherwise found or
    fetched. Kinds of several files: fs (with the pSp or StyleGAN2 file), clcae (with the StyleGAN2 file and the mean
    image), sfe (with the StyleGAN2 and e4e files), hyperstyle (with its W encoder). moco-v2 is the ResNet-50 that tells
    cars apart.
    """

    kind: tyro.conf.Positional[Kind]
    """The method, generator or backbone."""
    files: Annotated[tyro.conf.Positional[tuple[Path, ...]], tyro.conf.arg(metavar="[FILE ...]", help_behavior_hint="")]
    """The official files that it consists of, in any order."""
    out: Annotated[Path, tyro.conf.arg(aliases=("-o",))]
    """The safetensors file to write."""
    family: Annotated[str | None, tyro.conf.arg(metavar="FAMILY", help_behavior_hint="(default: as the file is)")] = (
        None
    )
    """The model family that it must be of, such as faces-1024 or cars-512x384."""

    def run(self) -> dict[str, Any]:
        check_output(self.out, (".safetensors",))
        asked = None if self.family is None else family(self.family)
        if not self.files and self.kind != "mobilestylegan":
            raise EdgeditError("no file to import; name the checkpoint")
        for path in self.files:
            if path.exists() and self.out.exists() and path.samefile(self.out):
                raise OutputError(f"--out names {path}, which is to be read; give another name")
        try:
            from training.imported import write
            from training.importers.checkpoints import import_checkpoint
            from training.importers.mobilestylegan import import_package
        except ModuleNotFoundError as error:
            raise EdgeditError(f"`edgedit import` needs {error.name}: pip install 'edgedit[train]'") from error
        places = ", ".join(map(str, self.files)) or f"the package {GENERATOR}"
        console.print(f"importing {self.kind} from {places}", markup=False)
        mobile = self.kind == "mobilestylegan"
        result = import_package(self.files, asked, say) if mobile else import_checkpoint(self.kind, self.files, asked)
        imported = result.imported
        for source in imported.sources:
            console.print(f"  {source['role']}: {source['file']}, sha256 {source['sha256']}", markup=False)
        for name, item in result.left_out:
            console.print(f"  left out of {name}: {item}", markup=False)
        for made in result.filled_in:
            console.print(f"  filled in: {made}", markup=False)
        console.print(f"licence: {imported.licence}", markup=False)
        write(self.out, imported)
        numbers = sum(tensor.numel() for tensor in imported.tensors.values())
        of = f" of {imported.family.name}" if imported.family else ""
        console.print(
            f"wrote {self.out}: {self.kind}{of}, {len(imported.tensors)} tensors, {numbers / 1e6:.3f} M numbers",
            markup=False,
        )
        return {
            "out": str(self.out),
            "kind": imported.kind,
            "family": imported.family.name if imported.family else None,
            "licence": imported.licence,
            "sources": imported.sources,
            "tensors": len(imported.tensors),
            "filled_in": result.filled_in,
            "left_out": [
                {"file": name, "name": item.name, "tensors": item.tensors, "why": item.why}
                for name, item in result.left_out
            ],
        }
