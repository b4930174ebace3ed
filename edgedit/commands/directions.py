"""`edgedit directions ...`: what a bundle can do, and the directions of a training run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro
from rich.table import Table

from edgedit.commands.common import BundleOption, OptionalBundle, OptionalFile, Reporting, console, needing, opened, say
from edgedit.editor import PORTRAIT_BUNDLE
from engines.directions import Direction, load_directions
from engines.family import DEFAULT_FAMILY


@dataclass(frozen=True, kw_only=True)
class List(Reporting):
    """List a bundle's edit directions with their usable strengths. Published ones are made into files of edgedit's by
    `edgedit import direction` (see its --help)."""

    bundle: BundleOption = PORTRAIT_BUNDLE
    """The bundle to look into."""

    def run(self) -> dict[str, Any]:
        directions = load_directions(opened(self.bundle))
        table = Table("direction", "strength", "kind", "space", "what it does")
        for name, d in directions.items():
            table.add_row(name, f"{d.min_strength:g} .. {d.max_strength:g}", d.kind, d.space, d.description)
        console.print(table)
        return {"bundle": str(self.bundle), "directions": {name: row(d) for name, d in directions.items()}}


def row(d: Direction) -> dict[str, Any]:
    """The fields of a direction in a summary."""
    fields = ("kind", "space", "rows", "min_strength", "max_strength", "units", "description", "source", "licence")
    return {field: getattr(d, field) for field in fields}


@dataclass(frozen=True, kw_only=True)
class OfRun(Reporting):
    """Options of the verbs that look at what a training run has learnt."""

    run_folder: Annotated[Path, tyro.conf.arg(name="run", metavar="RUN")]
    """Folder of the run, as made by `edgedit train`."""
    faces: Annotated[Path, tyro.conf.arg(metavar="PATH")]
    """Folder or tar of the photos that the run is trained on."""
    recipe: str = DEFAULT_FAMILY.name
    """The recipe of the run."""
    identity: OptionalFile = None
    """Face embedder (ONNX, 112x112), or for cars MoCo v2's ResNet-50 (`edgedit import weights moco-v2`); needed."""
    generator: OptionalFile = None
    """The imported generator that the run is trained on, if it is."""
    from_bundle: OptionalBundle = None
    """A bundle that stands in for what the run's folder lacks."""
    device: str = "cpu"
    """torch device."""
    threads: int = 0
    """torch threads, never more than this process may use by its affinity and its control group's quota; 0 leaves it to
    torch, within that."""

    def options(self, *more: str) -> dict[str, Any]:
        """The arguments of the functions of `training.running.api`, by name."""
        names = ("recipe", "identity", "generator", "from_bundle", "device", "threads", *more)
        return {"run": self.run_folder, "faces": self.faces, "progress": say} | {n: getattr(self, n) for n in names}


@dataclass(frozen=True, kw_only=True)
class Judging(OfRun):
    """Options of those that judge attributes."""

    age_gender: OptionalFile = None
    """Judge of age and gender (ONNX); needed for faces."""
    expression: OptionalFile = None
    """Judge of expression (ONNX); needed for faces."""
    pose: OptionalFile = None
    """Judge of head pose (ONNX)."""


@dataclass(frozen=True, kw_only=True)
class Fit(Judging):
    """Fit a recipe's directions to what judges say of the run's generator (needs the `train` extra)."""

    seed: int = 0
    """Seed of every draw."""

    def run(self) -> dict[str, Any]:
        with needing("edgedit directions fit", "train"):
            from training.running.api import fit_directions
        directions = fit_directions(**self.options("age_gender", "expression", "pose", "seed"))
        return {"directions": [d.name for d in directions]}


@dataclass(frozen=True, kw_only=True)
class Calibrate(OfRun):
    """Set the ranges of a run's directions to the strengths at which edited training photos keep their identity (needs
    the `train` extra)."""

    def run(self) -> dict[str, Any]:
        with needing("edgedit directions calibrate", "train"):
            from training.running.api import calibrate_directions
        ranges = calibrate_directions(**self.options())
        for name, entry in ranges.items():
            say(f"{name}: {entry['min_strength']:g} .. {entry['max_strength']:g}")
        return {"directions": ranges}


@dataclass(frozen=True)
class Directions:
    """List a bundle's edit directions with their usable strengths; fit and calibrate those of a training run."""

    verb: (
        Annotated[List, tyro.conf.subcommand("list")]
        | Annotated[Fit, tyro.conf.subcommand("fit")]
        | Annotated[Calibrate, tyro.conf.subcommand("calibrate")]
    )


def spelt_out(arguments: list[str]) -> list[str]:
    """The command line with the `list` put in that `edgedit directions [-b BUNDLE]` leaves out."""
    if arguments[:1] == ["directions"] and not {*arguments[1:2]} & {"list", "fit", "calibrate", "-h", "--help"}:
        return ["directions", "list", *arguments[1:]]
    return arguments
