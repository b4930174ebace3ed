"""`edgedit directions ...`: what a bundle can do, and published direction files turned into edgedit's."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro
from rich.table import Table

from edgedit.commands.common import BundlePosition, Reporting, check_output, console, opened
from edgedit.commands.direction_files import SUFFIX, Known, lists, plain_name, read, vector
from edgedit.editor import PORTRAIT_BUNDLE
from engines.directions import Direction, load_directions, resolve
from engines.directions.published import About, ganspace, interfacegan, style_deviations, styleclip_global, stylespace
from engines.directions.recipes import CHANNELS, COMPONENTS, Channels, recipe
from engines.errors import DirectionError
from engines.family import FACES_1024, ModelFamily, family

OptionalText = Annotated[str | None, tyro.conf.arg(help_behavior_hint="")]


_GUI = (-15.0, 25.0)
"""The strengths that StyleCLIP's own interface offers for a global direction."""


@dataclass(frozen=True, kw_only=True)
class List(Reporting):
    """List a bundle's edit directions with their usable strengths. Published ones are made into files of edgedit's by
    `edgedit directions import` (see its --help)."""

    bundle: BundlePosition = PORTRAIT_BUNDLE
    """The bundle to look into."""

    def run(self) -> dict[str, Any]:
        directions = load_directions(opened(self.bundle))
        table = Table("direction", "strength", "kind", "space", "what it does")
        for name, d in directions.items():
            table.add_row(name, f"{d.min_strength:g} .. {d.max_strength:g}", d.kind, d.space, d.description)
        console.print(table)
        return {"bundle": str(self.bundle), "directions": {name: _row(d) for name, d in directions.items()}}


def _row(d: Direction) -> dict[str, Any]:
    fields = ("kind", "space", "rows", "min_strength", "max_strength", "units", "description", "source", "licence")
    return {field: getattr(d, field) for field in fields}


@dataclass(frozen=True, kw_only=True)
class Importing(Reporting):
    """Options of every kind."""

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
    """What it does."""
    source: OptionalText = None
    """Where it comes from."""
    licence: OptionalText = None
    """Its terms (SPDX); needed for a file that is not one of the official ones that edgedit knows."""

    @property
    def model_family(self) -> ModelFamily:
        """`family`, looked up."""
        return family(self.family)

    def about(self, name: str, description: str, known: Known | None, shown: tuple[float, float] | None) -> About:
        """What is said of the direction.

        Args:
            name, description: unless options give others; the name may be a file's, from which one is made.
            known: the official file it comes from.
            shown: strengths that were published.

        Raises:
            DirectionError: if its terms or its range are neither known nor given.
        """
        licence = self.licence or (known.licence if known else None)
        source = self.source or (known.source if known else "a file that edgedit does not know")
        strengths = self.range or shown
        if licence is None:
            raise DirectionError("this is not an official file that edgedit knows; say its terms with --licence")
        if strengths is None:
            raise DirectionError("no usable strengths are published for this; say them with --range LOW HIGH")
        return About(
            name=self.name or plain_name(name),
            min_strength=strengths[0],
            max_strength=strengths[1],
            description=self.description or description,
            source=source,
            licence=licence,
        )

    def written(self, direction: Direction, **more: Any) -> dict[str, Any]:
        """Writes the direction and says so.

        Raises:
            DirectionError: if it moves nothing that the family's generator reads.
        """
        strongest = max(direction.min_strength, direction.max_strength, key=abs)
        resolve({direction.name: direction}, {direction.name: strongest}, self.model_family)
        direction.save(self.out)
        console.print(
            f"wrote {self.out}: {direction.name}, {direction.kind}, {direction.extent}, strengths "
            f"{direction.min_strength:g} to {direction.max_strength:g} {direction.units}; licence {direction.licence}",
            markup=False,
        )
        return {
            "out": str(self.out),
            "family": self.family,
            "direction": {"name": direction.name} | _row(direction) | more,
        }


FilePosition = tyro.conf.Positional[Path]


@dataclass(frozen=True, kw_only=True)
class Interfacegan(Importing):
    """A vector in W or W+ (torch, NumPy, pickle or a text of numbers): 1 x 512, or 1 x rows x 512."""

    file: FilePosition
    """The official file."""

    def run(self) -> dict[str, Any]:
        check_output(self.out, (SUFFIX,))
        value, known = read(self.file)
        array = vector(self.file, value)
        about = self.about(self.file.stem, self.file.stem, known, known.range if known else None)
        return self.written(interfacegan(array, self.model_family, about))


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
        check_output(self.out, (SUFFIX,))
        if (self.recipe is None) == (self.component is None):
            raise DirectionError("give either --recipe NAME or --component NUMBER")
        component, rows, shown = self.component, self.rows, None
        if self.recipe is not None:
            if rows is not None:
                raise DirectionError("a recipe has its rows; leave --rows out")
            found = recipe(COMPONENTS, self.family, self.recipe)
            component, rows, shown = found.component, found.rows, found.range
        assert component is not None
        value, known = read(self.file)
        if not isinstance(value, dict):
            raise DirectionError(f"{self.file} holds no mean, comp and std and is no GANSpace file")
        name = self.recipe or f"pc{component:02d}"
        about = self.about(name, f"{name.replace('_', ' ')} (component {component})", known, shown)
        return self.written(ganspace(value, self.model_family, component, rows, about), component=component)


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
    """What a strength of 1 adds to each channel, where there are no statistics."""

    def run(self) -> dict[str, Any]:
        check_output(self.out, (SUFFIX,))
        if (self.recipe is None) == (not self.channels):
            raise DirectionError("give either --recipe NAME or --channels LAYER:CHANNEL ...")
        if (self.file is None) == (self.unit is None):
            raise DirectionError("give either a statistics file or --unit NUMBER")
        channels = _channels(self.channels) if self.recipe is None else recipe(CHANNELS, self.family, self.recipe)
        known = None
        if self.file is not None:
            value, known = read(self.file)
            unit: Any = style_deviations(lists(self.file, value), self.model_family)
        else:
            unit = self.unit
        words = ", ".join(f"{layer}:{channel}" for layer, channel in channels)
        name = self.recipe or "-".join(f"s{layer}.{channel}" for layer, channel in channels)
        about = self.about(name, f"{name.replace('_', ' ')} (style {words})", known, known.range if known else None)
        return self.written(stylespace(channels, self.model_family, unit, about), channels=channels)


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
        check_output(self.out, (SUFFIX,))
        about = self.about(self.text.stem, self.text.stem, None, _GUI)
        deviations = style_deviations(lists(self.statistics, read(self.statistics)[0]), self.model_family)
        matrix, text = (vector(path, read(path)[0]) for path in (self.file, self.text))
        direction, moved = styleclip_global(matrix, text, deviations, self.model_family, self.beta, about)
        console.print(f"{moved} style channels move")
        return self.written(direction, beta=self.beta, moved=moved)


@dataclass(frozen=True, kw_only=True)
class Mapper(Importing):
    """A StyleCLIP latent mapper (.pt): a network, so it is written as weights, or as a graph where --out ends in .onnx.

    Neither is a direction: `edgedit.Editor.edit` takes what a mapper gives for a code as `delta_w`.
    """

    file: FilePosition
    """The official checkpoint."""

    def run(self) -> dict[str, Any]:
        check_output(self.out, (SUFFIX, ".onnx"))
        try:
            from edgedit.commands import mapping
        except ModuleNotFoundError as error:
            needed = f"`edgedit directions import mapper` needs {error.name}: pip install 'edgedit[export]'"
            raise DirectionError(needed) from error
        return mapping.run(self)


@dataclass(frozen=True)
class Import:
    """Turn a published direction file into one of edgedit's: kind, layers, units, usable strengths and licence with it.

    Needs the `train` extra. Reading runs no code of the file. What is written goes into
    `edgedit edit --direction FILE:STRENGTH`, `Editor.add_direction` or a bundle that is exported.
    """

    verb: (
        Annotated[Interfacegan, tyro.conf.subcommand("interfacegan")]
        | Annotated[Ganspace, tyro.conf.subcommand("ganspace")]
        | Annotated[Stylespace, tyro.conf.subcommand("stylespace")]
        | Annotated[Styleclip, tyro.conf.subcommand("styleclip")]
        | Annotated[Mapper, tyro.conf.subcommand("mapper")]
    )


@dataclass(frozen=True)
class Directions:
    """List a bundle's edit directions with their usable strengths; `directions import` reads published ones."""

    verb: Annotated[List, tyro.conf.subcommand("list")] | Annotated[Import, tyro.conf.subcommand("import")]


def spelt_out(arguments: list[str]) -> list[str]:
    """The command line with the `list` put in that `edgedit directions [DIRECTORY]` leaves out."""
    if arguments[:1] == ["directions"] and arguments[1:2] not in (["list"], ["import"]):
        return ["directions", "list", *arguments[1:]]
    return arguments


def _channels(items: tuple[str, ...]) -> Channels:
    found = []
    for item in items:
        layer, colon, channel = item.partition(":")
        if not colon or not layer.isdecimal() or not channel.isdecimal():
            raise DirectionError(f"{item!r} is not LAYER:CHANNEL, such as 6:501")
        found.append((int(layer), int(channel)))
    return tuple(found)
