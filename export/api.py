"""Export from plain arguments: what `edgedit export` does, and what `edgedit.export` is."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from engines.bundle import Bundle
from engines.bundle.completion import leave_out_generator, require_package
from engines.bundle.provenance import peak_bytes, provenance
from engines.contracts import DEFAULT_METHOD
from engines.errors import BundleError
from engines.family import DEFAULT_FAMILY
from export.build import export_bundle
from export.models import Model, imported_model, random_model, trained_model
from export.weights import half_weights
from training.measuring.card import model_card

PLAIN_CARD = "# {name}\n\n{what} weights of family {family}: for trying engines and machines, not for images.\n"


def export(
    out: str | Path,
    *,
    run: str | Path | None = None,
    weights: str | Path | None = None,
    random: str | None = None,
    recipe: str = DEFAULT_FAMILY.name,
    faces: str | Path | None = None,
    max_faces: int = 8,
    from_bundle: str | Path | None = None,
    generator: str | Path | None = None,
    without_generator: bool = False,
    method: str | None = None,
    graphs: str | Sequence[str] = "all",
    name: str | None = None,
    licence: str | None = None,
    metrics: str | Path | None = None,
    card: str | Path | None = None,
    data_statement: str | Path | None = None,
    trained_on: str = "an unnamed device",
    progress: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """Turns a training run, imported weights or random ones into a verified bundle of ONNX graphs.

    Args:
        out: the bundle's directory; a bundle that is there is replaced.
        run: a training run, as `edgedit.train` makes it; with `faces`.
        weights: instead of a run, those of another method of the paper's Table 5, as `edgedit import weights` writes
            them.
        random: instead of either, a model family to export with random weights.
        recipe: the recipe of the run.
        faces: folder or tar of aligned faces, of which the held-out ones verify a run.
        max_faces: photos to verify with at most.
        from_bundle: the bundle that the run was started from, for the stages that were not run.
        generator: the imported generator that the run was trained on; with `random`, one to use.
        without_generator: leave out the generator's weights, which must be those of the package random-face.
        method: ours, e4e, fs, hfgi, clcae, styleres, sdic, sfe or hyperstyle; None: ours, or what `weights` hold.
        graphs: "all", "pipelines", "split" or names of single graphs.
        name: of the bundle; None: demo, or the method.
        licence: of the weights; None: Apache-2.0, or what a file says.
        metrics: JSON file of measured figures, as `edgedit evaluate` writes it, for the manifest.
        card: the model card, Markdown; None: it is written from the run and `metrics`.
        data_statement: Markdown file of what that card says of the training data.
        trained_on: what that card says the model was trained on.
        progress: called with one line before each step.

    Returns:
        The command that repeats it, seconds, peak memory and the verification report.

    Raises:
        EdgeditError: if the arguments do not go together, or the run, a file or the exported graphs will not do.
        ValueError: if there is no such method, or it does not exist for the family.
        OSError: if a file cannot be read.

    Example:
        >>> report = edgedit.export("trial", random="demo-64", graphs="reconstruct", max_faces=1)
    """
    out = Path(out)
    given = [item for item in (run, weights, random) if item is not None]
    if len(given) != 1 or (run is not None and faces is None):
        raise BundleError(
            "give either a training run with --run, with --faces to verify with, or --random FAMILY, or --weights of "
            "another method"
        )
    if max_faces < 1:
        raise BundleError(f"--max-faces must be 1 or more, got {max_faces}")
    progress(f"exporting {given[0]} to {out}")
    model, photos = _model(run, weights, random, recipe, faces, max_faces, from_bundle, generator, method)
    names = graphs if isinstance(graphs, str) else " ".join(graphs)
    if run is not None:
        command = f"edgedit export --run RUN --faces FACES --recipe {recipe} --graph {names}"
        command += " --generator GENERATOR" if generator is not None else ""
        command += " --without-generator" if without_generator else ""
    else:
        words = ["edgedit export", *([f"--method {method}"] if method else [])]
        command = " ".join([*words, "--weights WEIGHTS" if weights is not None else f"--random {random}"])
    title = name or model.name
    if without_generator:
        # Before the export, which takes minutes.
        require_package({key: tensor.numpy() for key, tensor in half_weights(model.network).tensors.items()})
    figures = json.loads(Path(metrics).read_text()) if metrics else {}
    if not isinstance(figures, dict):
        raise BundleError(f"{metrics} is not a JSON object of figures")
    if card is not None:
        text = Path(card).read_text()
    elif run is not None and figures:
        data = Path(data_statement).read_text() if data_statement else "No statement was given."
        text = model_card(Path(run), model.family, recipe, figures, data=data, device=trained_on)
    else:
        text = PLAIN_CARD.format(name=title, family=model.family.name, what=model.what)
    started = time.monotonic()
    report = export_bundle(
        model.network,
        model.directions,
        photos,
        out,
        name=title,
        card=text,
        licence=licence or model.licence,
        metrics=figures,
        graphs=graphs,
        command=command,
        progress=progress,
    )
    if without_generator:
        leave_out_generator(Bundle.load(out))
    seconds = time.monotonic() - started
    held = peak_bytes()
    peak = None if held is None else held / 2**30
    used = f"{seconds:.0f} s" + (f" and {peak:.1f} GiB at most" if peak else "")
    progress(f"wrote {out}: {len(report['graphs'])} graphs, all verified, in {used}")
    about = {"method": model.method, "family": model.family.name}
    return (
        provenance(command)
        | {"out": str(out)}
        | about
        | {"seconds": seconds, "peak_gib": peak}
        | {"verification": report}
    )


def _model(
    run: str | Path | None,
    weights: str | Path | None,
    random: str | None,
    recipe: str,
    faces: str | Path | None,
    max_faces: int,
    from_bundle: str | Path | None,
    generator: str | Path | None,
    method: str | None,
) -> tuple[Model, np.ndarray]:
    """The model to export, and photos to verify it with: those of a run, else noise."""
    own = None if generator is None else Path(generator)
    if run is not None and faces is not None:
        if method not in (None, DEFAULT_METHOD):
            raise BundleError(f"a training run is of method {DEFAULT_METHOD}; give --weights or --random for {method}")
        start = None if from_bundle is None else Path(from_bundle)
        return trained_model(
            Path(run), Path(faces), recipe=recipe, max_faces=max_faces, from_bundle=start, generator=own
        )
    if weights is not None:
        model = imported_model(Path(weights), method)
    else:
        assert random is not None
        model = random_model(random, method, own)
    shape = (max_faces, *model.family.image_shape, 3)
    return model, np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
