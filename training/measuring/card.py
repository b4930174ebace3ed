"""The model card of a trained run: what it is, what it was made from, how to repeat it, what it reaches."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from engines.bundle import completion, mobilestylegan
from engines.family import ModelFamily
from engines.packages import GENERATOR

_TRAINED = ("generator", "e4e", "encoder", "editor")
_FIRST = ("generator", "pairs", "e4e", "encoder")
"""Stages that come before the directions are fitted."""


def _stages(root: Path) -> dict[str, dict[str, Any]]:
    """The meta data of the stages that were run here; a run that starts from a bundle may lack some."""
    files = {name: root / name / "checkpoint" / "meta.json" for name in _TRAINED}
    return {name: json.loads(file.read_text()) for name, file in files.items() if file.exists()}


def _batch(stage: Mapping[str, Any]) -> str:
    """Images per step of one process, and how many processes trained together."""
    batch, processes = stage["config"]["options"]["batch"], stage.get("processes", 1)
    return str(batch) if processes == 1 else f"{batch} x {processes} processes"


def _reconstruction(metrics: Mapping[str, Any]) -> str:
    rows = ["| reconstruction | PSNR (dB) | LPIPS (Alex) | identity cosine |", "|---|---|---|---|"]
    titles = {"ours": "encoder E and feature", "e4e_w_plus": "e4e, W+ code alone"}
    for name, row in metrics["reconstruction"].items():
        rows.append(f"| {titles.get(name, name)} | {row['psnr']:.2f} | {row['lpips']:.4f} | {row['identity']:.3f} |")
    return "\n".join(rows)


def edit_cells(row: Mapping[str, Any], form: str) -> list[str]:
    """Change of the judge's score and identity of an edit, ours and linear; of faces with room for the change where it
    is a probability, a dash where nothing judges.

    Args:
        row: what `Evaluator.edit` returned.
        form: of numbers.
    """
    cells = []
    for way in ("ours", "linear"):
        change = row[way].get("change_with_room", row[way].get("change"))
        cells += ["-" if change is None else format(change, form), format(row[way]["identity"], form)]
    return cells


def _edits(metrics: Mapping[str, Any]) -> str:
    rows = [
        "| edit | strength | change of its judge | identity cosine | linear: change | linear: identity |",
        "|---|---|---|---|---|---|",
    ]
    for row in metrics["edits"]:
        rows.append(f"| {row['direction']} | {row['strength']:+.2f} | {' | '.join(edit_cells(row, '+.2f'))} |")
    return "\n".join(rows)


def _targets(metrics: Mapping[str, Any]) -> str:
    missed = [name for name, entry in metrics["targets"].items() if not entry["met"]]
    if not missed:
        return "All targets that were set for this model are met."
    return f"Targets that were set for this model and are not met: {', '.join(missed)}."


_TRAINED_HERE = """\
A StyleGAN2 generator of {size} x {size} pixels with two inversion encoders and a feature editor, after
Yan, Xu, Zhang, Xia and Li, "Edit-discrepancy-guided feature transformation in encoder-based GAN inversion for real
image attribute editing" (2026). It shows, on any machine, everything that the toolkit does with a full-scale model."""
_OF_A_PACKAGE = f"""\
Two light inversion encoders and a feature editor for a generator of {{size}} x {{size}} pixels, after
Yan, Xu, Zhang, Xia and Li, "Edit-discrepancy-guided feature transformation in encoder-based GAN inversion for real
image attribute editing" (2026). The generator is MobileStyleGAN (Belousov 2021, arXiv 2104.04767) of the package
{GENERATOR}: its weights are no part of the bundle as it is passed on, and are read from that package where the
bundle is opened."""
_THUMBNAILS = """\
At {size} pixels a face is a thumbnail: put back into a large photo, an edit adds its low-resolution change to
the photo's own texture. Large pose changes tear details, as the paper reports of its own model. Weights and directions
are under Apache-2.0."""
_LINEAGE = f"""\
The encoders see a face at {{side}} x {{side}} pixels; what is finer is the generator's own. Large pose changes
tear details, as the paper reports of its own model.

Licence of the generator's weights: {mobilestylegan.LICENCE}. Encoders, editor and directions were trained with that
generator and have the same lineage: they too are for research and evaluation."""


def model_card(
    root: Path, family: ModelFamily, recipe: str, metrics: Mapping[str, Any], *, data: str, device: str
) -> str:
    """Writes the card in Markdown.

    Args:
        root: the training run.
        family: of the model.
        recipe: the recipe's name.
        metrics: what `training.running.evaluation.evaluate` returned.
        data: statement on the training data.
        device: what it was trained on, in words.
    """
    ran = _stages(root)
    edited = metrics.get("edited_photos", metrics["photos"])
    stages = list(ran.values())
    together = max(stage.get("processes", 1) for stage in stages)
    options = f" --processes {together} --threads 1" if together > 1 else ""
    hours = sum(stage["seconds"] for stage in stages) / 3600
    steps = "\n".join(
        f"| {s['stage']} | {s['step']} | {_batch(s)} | {s['seconds'] / 60:.0f} | {s['seed']} |" for s in stages
    )
    packaged = family.generator == completion.KIND
    # Photos are kept at the size that light encoders see, and pictures averaged down to it.
    side = family.encoder_size[0] if packaged else family.size
    first = " ".join(name for name in _FIRST if name in ran or (name == "pairs" and packaged))
    stage = f"edgedit train %s $run --lpips LPIPS{options}\n"
    trained = f"for stage in {first}; do\n    {stage % '$stage'}done\n" if first else ""
    editor = stage % "editor" if "editor" in ran else ""
    start, rest, before, leave = "", "", "", ""
    if packaged:
        start, leave = " --generator GENERATOR", " --without-generator"
        before = "edgedit import weights mobilestylegan -o GENERATOR\n"
    if lacking := [name for name in _TRAINED if name not in ran and not (packaged and name == "generator")]:
        start += " --from-bundle START"
        rest = (
            "\nThe run started from START, an earlier bundle of this model, which holds what is not in the table: "
            f"{', '.join(lacking)}.\n"
        )
    return f"""# Model card: {family.name}

{(_OF_A_PACKAGE if packaged else _TRAINED_HERE).format(size=family.size)}

- W+ codes {family.w_rows} x {family.style_dim}, feature tensor {" x ".join(map(str, family.feature_shape))}
- For demonstrations, tests and benchmarks. Not for identification, and not for judging age, gender or feelings.
- Edit photos of people only with their consent, and say that a picture was edited.

## What it reaches

On {metrics["photos"]} photos that no stage has seen ({metrics["first"]} to {metrics["last"]}), at {side} x {side}, \
with the weights as they are shipped (FP16):

{_reconstruction(metrics)}

{_edits(metrics)}

Change: of p(happy) for smile, years for age, p(female) and p(male) for female and male, degrees for yaw; probabilities
of faces with room for the change. Edits are measured on {edited} of these photos.
Linear: F + G(w~) - G(w) in place of the feature editor. {_targets(metrics)}

## Data

{data.strip()}

## Training

Trained on {device} in {hours:.1f} hours with torch {stages[0]["torch"]}.

| stage | steps | batch | minutes | seed |
|---|---|---|---|---|
{steps}
{rest}
```
{before}run="--run RUN --faces FACES --recipe {recipe}{start} --identity EMBEDDER"
judges="--age-gender AGE_GENDER --expression EXPRESSION --pose POSE"
{trained}edgedit directions fit $run $judges
{editor}edgedit directions calibrate $run
edgedit evaluate $run --lpips LPIPS $judges --json RUN/evaluate.json
edgedit export --run RUN --faces FACES --recipe {recipe}{start} --metrics RUN/evaluate.json{leave} -o BUNDLE
```

## Limits

{(_LINEAGE if packaged else _THUMBNAILS).format(size=family.size, side=family.encoder_size[0])}
"""
