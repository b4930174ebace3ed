"""The growth of a batch's time with photos, photos at once, edits and the photos' size.

    python -m bench.batch --out FILE.json --plot FILE.svg

One of them is varied while the others stay; a pass takes every setting once, so that what else the machine does meets
all alike. A time is that of a whole `edgedit.batch`, into an empty folder: loading the networks, finding the faces and
writing the results included.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from PIL import Image

import edgedit
from bench.program import program, save, say
from edgedit.demo import ASTRONAUT
from edgedit.editor import PORTRAIT_BUNDLE, open_bundle
from engines.bundle.provenance import provenance
from engines.cpus import usable
from engines.directions import load_directions
from engines.errors import EngineError
from engines.photo import open_image, save_image


@dataclass(frozen=True)
class Setting:
    """One batch."""

    photos: int = 8
    batch: int = 1
    edits: int = 1
    side: int = 512
    """Longer side of the photos, in pixels."""


SWEEPS = {
    "photos": (2, 4, 8, 16, 32),
    "batch": (1, 2, 4, 8, 16),
    "edits": (1, 2, 4, 8),
    "side": (512, 1024, 2048, 4096),
}
"""Values of each field of a setting, by its name."""
SMOKE = {"photos": (1, 2), "batch": (1, 2), "edits": (1, 2), "side": (256, 512)}
"""Values for finding out whether it runs."""


@dataclass(frozen=True, kw_only=True)
class BatchBenchOptions:
    """Time batches of copies of one photo, and write down and draw how the time grows."""

    photo: Path = ASTRONAUT
    """The photo; it has a face."""
    bundle: Path = PORTRAIT_BUNDLE
    """The bundle that edits it."""
    passes: int = 3
    """Times that each setting is run."""
    threads: int = 0
    """Threads for one network; 0: one per core."""
    smoke: bool = False
    """A run with few and small settings, to see that it works: no figures to keep."""
    out: Path
    """The JSON file to write."""
    plot: Path | None = None
    """Also draw it, to this SVG or PNG."""


def settings(sweeps: dict[str, tuple[int, ...]]) -> Iterator[tuple[str, Setting]]:
    """Every setting with the name of what is varied in it; the others are the first of their sweep, or the default."""
    base = Setting() if sweeps is SWEEPS else Setting(**{name: values[0] for name, values in sweeps.items()})
    for name, values in sweeps.items():
        # Batches of 16 need as many photos.
        start = replace(base, photos=max(values)) if name == "batch" else base
        yield from ((name, replace(start, **{name: value})) for value in values)


def measure(setting: Setting, options: BatchBenchOptions, direction: str, place: Path) -> float:
    """Seconds of one batch.

    Args:
        setting, options: what is run.
        direction: which is edited along, each edit by another strength.
        place: an empty folder.

    Raises:
        EngineError: if a photo failed.
    """
    photo = Image.fromarray(open_image(options.photo).pixels)
    factor = setting.side / max(photo.size)
    photo = photo.resize((round(photo.width * factor), round(photo.height * factor)), Image.Resampling.LANCZOS)
    (place / "in").mkdir()
    first = save_image(place / "in" / "0.jpg", np.asarray(photo))
    for number in range(1, setting.photos):
        (place / "in" / f"{number}.jpg").write_bytes(first.read_bytes())
    edits = {f"edit-{number}": {direction: 1 + number / 16} for number in range(setting.edits)}
    more: dict[str, Any] = {"threads": options.threads} if options.threads else {}
    report = edgedit.batch(place / "in", place / "out", edits, bundle=options.bundle, batch_size=setting.batch, **more)
    if report.failures:
        raise EngineError(f"{options.photo}: {report.failures[0].failure.why}; name a photo with a face")
    return report.seconds


def measure_all(options: BatchBenchOptions) -> dict[str, Any]:
    """Times all passes of all settings.

    Raises:
        EdgeditError: if the bundle or the photo cannot be used.
    """
    if options.passes < 1:
        raise EngineError(f"--passes must be 1 or more, got {options.passes}")
    bundle = open_bundle(options.bundle, progress=say)
    known = load_directions(bundle)
    if not known:
        raise EngineError(f"{bundle.name} has no directions to edit along")
    direction = "smile" if "smile" in known else min(known)
    chosen = list(settings(SMOKE if options.smoke else SWEEPS))
    samples: list[list[float]] = [[] for _ in chosen]
    for turn in range(options.passes):
        for (sweep, setting), times in zip(chosen, samples, strict=True):
            with TemporaryDirectory() as folder:
                times.append(measure(setting, options, direction, Path(folder)))
            say(f"pass {turn + 1} of {options.passes}: {sweep}, {setting}: {times[-1]:.2f} s")
    rows = [
        {"sweep": sweep, **asdict(setting), "median_s": median(times), "samples_s": times}
        for (sweep, setting), times in zip(chosen, samples, strict=True)
    ]
    return {"bundle": bundle.name, "direction": direction, "threads": options.threads or usable(), "rows": rows}


def draw(result: dict[str, Any], path: Path) -> None:
    """Draws seconds against each of what is varied, to an SVG or PNG file.

    Raises:
        OutputError: if it cannot be written.
        RuntimeUnavailableError: without matplotlib.
    """
    from bench.figures import Figure
    from bench.figures import save as save_figure

    labels = {"photos": "photos", "batch": "photos at once", "edits": "edits of each photo", "side": "longer side, px"}
    figure = Figure(figsize=(12, 3.4), layout="constrained")
    for axis, (name, label) in zip(figure.subplots(1, len(labels)), labels.items(), strict=True):
        rows = [row for row in result["rows"] if row["sweep"] == name]
        values = [row[name] for row in rows]
        axis.plot(values, [row["median_s"] for row in rows], "-o", color="#1f77b4", markersize=4)
        for row in rows:
            axis.plot([row[name]] * len(row["samples_s"]), row["samples_s"], ".", color="#1f77b4", alpha=0.35)
        held = ", ".join(f"{key} {rows[0][key]}" for key in labels if key != name)
        axis.set_title(held, fontsize=8)
        axis.set_xlabel(label)
        axis.set_ylim(bottom=0)
        axis.grid(alpha=0.25)
    figure.axes[0].set_ylabel(f"seconds, {result['bundle']}")
    save_figure(figure, path)


def run(options: BatchBenchOptions) -> None:
    """Measures, writes the file, and draws the plot if one is wanted.

    Raises:
        EdgeditError: if the bundle or the photo cannot be used, or a file cannot be written.
    """
    result = provenance("python -m bench.batch --out FILE.json --plot FILE.svg") | measure_all(options)
    save(options.out, result)
    if options.plot:
        draw(result, options.plot)


def main() -> None:
    """Runs the command line."""
    program(run, BatchBenchOptions, "bench.batch")


if __name__ == "__main__":
    main()
