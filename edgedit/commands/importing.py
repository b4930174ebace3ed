"""`edgedit import weights|direction|mapper ...`: files of others turned into edgedit's."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from edgedit.commands.common import OptionalText, Reporting, console, needing, say
from edgedit.commands.directions import row
from engines.directions import Kind
from engines.directions.direction import SUFFIX
from engines.family import FACES_1024, family
from engines.packages import GENERATOR
from engines.store import check_output

WeightsKind = Literal[
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
class Weights(Reporting):
    """Turn an official checkpoint into safetensors, without running code that may be in it (needs the `train` extra).

    mobilestylegan takes no file, or the wheel or folder of the package random-face, which is otherwise found or
    fetched. Kinds of several files: fs (with the pSp or StyleGAN2 file), clcae (with the StyleGAN2 file and the mean
    image), sfe (with the StyleGAN2 and e4e files), hyperstyle (with its W encoder). moco-v2 is the ResNet-50 that tells
    cars apart.
    """

    kind: tyro.conf.Positional[WeightsKind]
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
        from edgedit.importing import import_weights

        check_output(self.out, (SUFFIX,))
        places = ", ".join(map(str, self.files)) or f"the package {GENERATOR}"
        say(f"importing {self.kind} from {places}")
        with needing("edgedit import weights", "train"):
            result = import_weights(self.kind, self.files, self.out, family=self.family, progress=say)
        imported = result.imported
        for source in imported.sources:
            say(f"  {source['role']}: {source['file']}, sha256 {source['sha256']}")
        for name, item in result.left_out:
            say(f"  left out of {name}: {item}")
        for made in result.filled_in:
            say(f"  filled in: {made}")
        say(f"licence: {imported.licence}")
        numbers = sum(tensor.numel() for tensor in imported.tensors.values())
        of = f" of {imported.family.name}" if imported.family else ""
        say(f"wrote {self.out}: {self.kind}{of}, {len(imported.tensors)} tensors, {numbers / 1e6:.3f} M numbers")
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


@dataclass(frozen=True, kw_only=True)
class Importing(Reporting):
    """Options of every direction and of mappers."""

    out: Annotated[Path, tyro.conf.arg(aliases=("-o",))]
    """The file to write; its name ends in .safetensors."""
    name: OptionalText = None
    """The direction's name; the recipe's, or the file's without its suffix, if it is left out."""
    family: str = FACES_1024.name
    """The family of the generator that it was found for."""
    range: Annotated[
        tuple[float, float] | None, tyro.conf.arg(metavar="LOW HIGH", help_behavior_hint="(default: as published)")
    ] = None
    """Usable strengths."""
    description: OptionalText = None
    """The direction's effect in words."""
    source: OptionalText = None
    """The direction's source."""
    licence: OptionalText = None
    """The direction's terms (SPDX); needed for a file that is not one of the official ones that edgedit knows."""

    def words(self) -> dict[str, Any]:
        """These options but for the file."""
        fields = ("family", "name", "range", "description", "source", "licence")
        return {field: getattr(self, field) for field in fields}

    def written(self, kind: Kind, file: Path | None, **options: Any) -> dict[str, Any]:
        """Makes the direction, writes it and says so."""
        from training.importers.directions import import_direction

        check_output(self.out, (SUFFIX,))
        made = import_direction(kind, file, **self.words(), **options)
        direction = made.direction
        direction.save(self.out)
        say(
            f"wrote {self.out}: {direction.name}, {direction.kind}, {direction.extent}, strengths "
            f"{direction.min_strength:g} to {direction.max_strength:g} {direction.units}; licence {direction.licence}"
        )
        named = {"name": direction.name} | row(direction) | made.chosen
        return {"out": str(self.out), "family": self.family, "direction": named}


FilePosition = Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="FILE")]


@dataclass(frozen=True, kw_only=True)
class Interfacegan(Importing):
    """A vector in W or W+ (torch, NumPy, pickle or a text of numbers): 1 x 512, or 1 x rows x 512."""

    file: FilePosition
    """The official file."""

    def run(self) -> dict[str, Any]:
        return self.written("interfacegan", self.file)


@dataclass(frozen=True, kw_only=True)
class Ganspace(Importing):
    """A principal component of W on some rows, from a PCA file (.pt with mean, comp, std, or GANSpace's own .npz)."""

    file: FilePosition
    """The official file."""
    recipe: OptionalText = None
    """A published edit by name, such as head_angle_up for faces-1024 or cube for cars-512x384."""
    component: Annotated[int | None, tyro.conf.arg(help_behavior_hint="")] = None
    """The component, from 0, in place of a recipe."""
    rows: Annotated[tuple[int, int] | None, tyro.conf.arg(metavar="FIRST END", help_behavior_hint="(default: all)")] = (
        None
    )
    """First and one-past-last W+ row of that component's edit."""

    def run(self) -> dict[str, Any]:
        return self.written("ganspace", self.file, recipe=self.recipe, component=self.component, rows=self.rows)


@dataclass(frozen=True, kw_only=True)
class Stylespace(Importing):
    """Single style channels, in standard deviations from a statistics file (S_mean_std) or in a unit of your own."""

    file: Annotated[tyro.conf.Positional[Path | None], tyro.conf.arg(metavar="[FILE]", help_behavior_hint="")] = None
    """The statistics of the style channels, a pickle of means and deviations by layer."""
    recipe: OptionalText = None
    """A published edit by name, such as smiling for faces-1024 or headlights for cars-512x384."""
    channels: Annotated[tuple[str, ...], tyro.conf.arg(metavar="LAYER:CHANNEL", help_behavior_hint="")] = ()
    """Style channels in place of a recipe, such as 6:501; the layers count ToRGB too, as StyleSpace's do."""
    unit: Annotated[float | None, tyro.conf.arg(help_behavior_hint="")] = None
    """The amount that a strength of 1 adds to each channel, where there are no statistics."""

    def run(self) -> dict[str, Any]:
        return self.written("stylespace", self.file, recipe=self.recipe, channels=self.channels, unit=self.unit)


@dataclass(frozen=True, kw_only=True)
class Styleclip(Importing):
    """StyleCLIP's global direction for a text, from the CLIP direction of each style channel (fs3.npy)."""

    file: FilePosition
    """The channel matrix: channels of the convolutions x 512 (6,048 x 512 for faces-1024)."""
    text: Path
    """The CLIP embedding of the target text less that of the neutral one: 512 numbers (.npy or .pt)."""
    statistics: Path
    """The statistics of the style channels (S_mean_std)."""
    beta: float
    """Channels less relevant to the text than this stay as they are; StyleCLIP's interface offers 0.08 to 0.4."""

    def run(self) -> dict[str, Any]:
        options = {"text": self.text, "statistics": self.statistics, "beta": self.beta}
        summary = self.written("styleclip", self.file, **options)
        console.print(f"{summary['direction']['moved']} style channels move")
        return summary


@dataclass(frozen=True, kw_only=True)
class Mapper(Importing):
    """Turn a StyleCLIP latent mapper (.pt) into weights, or into a graph where --out ends in .onnx.

    It is a network and no direction: `edgedit.Editor.edit` takes what a mapper gives for a code as `delta_w`.
    """

    file: FilePosition
    """The official checkpoint."""

    def run(self) -> dict[str, Any]:
        from edgedit.importing import import_mapper

        check_output(self.out, (SUFFIX, ".onnx"))
        with needing("edgedit import mapper", "export"):
            from training.importers.mapper import rows_of

            known = import_mapper(self.file, self.out, **self.words())
        levels = ", ".join(known.levels)
        say(
            f"wrote {self.out}: latent mapper {known.name}, levels {levels} "
            f"(rows {rows_of(known.levels, family(self.family))}), strengths {known.min_strength:g} to "
            f"{known.max_strength:g}; licence {known.licence}"
        )
        return {"out": str(self.out), "family": self.family, "mapper": asdict(known)}


@dataclass(frozen=True)
class ImportDirection:
    """Turn a published direction file into one of edgedit's: kind, layers, units, usable strengths and licence with it.

    Needs the `train` extra. Reading runs no code of the file. What is written goes into
    `edgedit edit --direction FILE:STRENGTH`, `Editor.add_direction` or a bundle that is exported.
    """

    verb: (
        Annotated[Interfacegan, tyro.conf.subcommand("interfacegan")]
        | Annotated[Ganspace, tyro.conf.subcommand("ganspace")]
        | Annotated[Stylespace, tyro.conf.subcommand("stylespace")]
        | Annotated[Styleclip, tyro.conf.subcommand("styleclip")]
    )


@dataclass(frozen=True)
class Import:
    """Turn files of others into edgedit's: weights of methods, generators and backbones, edit directions, mappers."""

    verb: (
        Annotated[Weights, tyro.conf.subcommand("weights")]
        | Annotated[ImportDirection, tyro.conf.subcommand("direction")]
        | Annotated[Mapper, tyro.conf.subcommand("mapper")]
    )
