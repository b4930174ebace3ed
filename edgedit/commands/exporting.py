"""The verb export: weights -> a bundle."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from edgedit.commands.common import Graphs, OptionalBundle, OptionalFile, OptionalText, Reporting, needing, say
from engines.family import DEFAULT_FAMILY


@dataclass(frozen=True, kw_only=True)
class Export(Reporting):
    """Turn the weights of a training run, or imported ones of another method of the paper's Table 5, into a verified
    bundle of ONNX graphs (needs the `export` extra)."""

    run_folder: Annotated[Path | None, tyro.conf.arg(name="run", metavar="RUN", help_behavior_hint="")] = None
    """The training run, as made by `edgedit train`; leave it out with --weights or --random."""
    out: Annotated[Path, tyro.conf.arg(aliases=("-o",), metavar="BUNDLE")]
    """The bundle's directory; a bundle that is there is replaced."""
    recipe: str = DEFAULT_FAMILY.name
    """The recipe of the run."""
    faces: OptionalFile = None
    """Photos to verify with: folder or tar of aligned faces, of which the held-out ones are used. Needed for a run."""
    max_faces: int = 8
    """Photos to verify with at most."""
    generator: OptionalFile = None
    """The imported generator that the run was trained on, as for `edgedit train`; with --random, one to use."""
    from_bundle: OptionalBundle = None
    """The bundle that the run was started from, for the stages that were not run."""
    method: Annotated[str | None, tyro.conf.arg(help_behavior_hint="(default: ours, or what --weights hold)")] = None
    """ours, e4e, fs, hfgi, clcae, styleres, sdic, sfe or hyperstyle. Others than ours have the pipelines alone."""
    weights: OptionalFile = None
    """Weights of another method, as `edgedit import weights` writes them, instead of a run."""
    name: Annotated[str | None, tyro.conf.arg(help_behavior_hint="(default: demo, or the method)")] = None
    """The bundle's name."""
    card: OptionalFile = None
    """The model card, Markdown; written from the run and --metrics if it is left out."""
    data_statement: OptionalFile = None
    """The card's words on the training data, a file of Markdown."""
    trained_on: str = "an unnamed device"
    """The device that the card says the model was trained on."""
    metrics: OptionalFile = None
    """Measured figures (JSON, as `edgedit evaluate` writes them) for the manifest."""
    licence: Annotated[str | None, tyro.conf.arg(help_behavior_hint="(default: Apache-2.0, or what the file says)")] = (
        None
    )
    """The licence of the weights."""
    graph: Graphs = ("all",)
    """all, pipelines (invert, edit, reconstruct), split (the five separate graphs) or names of single ones."""
    random: Annotated[OptionalText, tyro.conf.arg(metavar="FAMILY")] = None
    """Export this model family with random weights instead of a run, to try engines and machines with."""
    without_generator: bool = False
    """Leave out the generator's weights, which must be those of the package random-face: wherever the bundle is opened,
    it is completed from that package, once."""

    def run(self) -> dict[str, Any]:
        with needing("edgedit export", "export"):
            from export.api import export
        return export(
            self.out,
            run=self.run_folder,
            weights=self.weights,
            random=self.random,
            recipe=self.recipe,
            faces=self.faces,
            max_faces=self.max_faces,
            from_bundle=self.from_bundle,
            generator=self.generator,
            without_generator=self.without_generator,
            method=self.method,
            graphs=self.graph,
            name=self.name,
            licence=self.licence,
            metrics=self.metrics,
            card=self.card,
            data_statement=self.data_statement,
            trained_on=self.trained_on,
            progress=say,
        )
