"""A slider on one photo beside as many plain edits of it, and what an edit takes outside the networks.

    python -m bench.slider --out FILE.json

A plain edit is a photo's bytes to a picture's: read, find the face, cut it out, invert, edit, put back, encode. Of a
slider all before the edit happens once. The two run in turns, and their files are compared to the bit.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import numpy as np

from bench.program import program, save, say
from edgedit.demo import ASTRONAUT
from edgedit.editor import PORTRAIT_BUNDLE, Editor
from engines.bundle.provenance import provenance
from engines.cpus import usable
from engines.errors import EngineError
from engines.photo.images import encode_image

LEAST = 0.5
"""The first strength, so that no step is an edit by nothing."""


@dataclass(frozen=True, kw_only=True)
class SliderBenchOptions:
    """Time a slider's steps and plain edits of one photo in turns, and write down both."""

    photo: Path = ASTRONAUT
    """The photo; it has a face."""
    bundle: Path = PORTRAIT_BUNDLE
    """The bundle that edits it."""
    runtime: str = "onnxruntime"
    """The runtime of its graphs."""
    direction: str = "smile"
    """The direction of the slider."""
    steps: int = 20
    """Strengths along it."""
    passes: int = 3
    """Times that each way is run."""
    threads: int = 0
    """Threads for one network; 0: one per core."""
    out: Path
    """The JSON file to write."""


class Networks:
    """A clock of the session's three pipelines, which are all that runs networks but those that find a face."""

    def __init__(self, editor: Editor) -> None:
        self.seconds = 0.0
        for name in ("invert", "edit", "reconstruct"):
            setattr(editor.session, name, self._timed(getattr(editor.session, name)))

    def _timed(self, pipeline: Callable[..., Any]) -> Callable[..., Any]:
        def run(*arguments: Any, **named: Any) -> Any:
            start = perf_counter()
            result = pipeline(*arguments, **named)
            self.seconds += perf_counter() - start
            return result

        return run


def measure(options: SliderBenchOptions) -> dict[str, Any]:
    """Times all passes.

    Raises:
        EdgeditError: if the bundle or the photo cannot be used.
    """
    if min(options.passes, options.steps) < 1:
        raise EngineError(f"--passes and --steps must be 1 or more, got {options.passes} and {options.steps}")
    editor = Editor.load(options.bundle, options.runtime, progress=say, threads=options.threads)
    if options.direction not in editor.directions:
        raise EngineError(
            f"{editor.session.bundle.name} has no {options.direction}; it has {', '.join(editor.directions)}"
        )
    content = options.photo.read_bytes()
    strengths = np.linspace(LEAST, editor.directions[options.direction].max_strength, options.steps).tolist()
    networks = Networks(editor)

    def plain() -> list[bytes]:
        return [encode_image(editor.edit_photo(BytesIO(content), {options.direction: s}), "JPEG") for s in strengths]

    def slider() -> list[bytes]:
        portrait = editor.portrait(BytesIO(content))
        return [encode_image(portrait.edit({options.direction: s}), "JPEG") for s in strengths]

    rows: list[dict[str, Any]] = [{"way": way.__name__, "seconds": [], "networks_s": []} for way in (plain, slider)]
    slider()
    files: list[list[bytes]] = []
    for turn in range(options.passes):
        for row, way in zip(rows, (plain, slider), strict=True):
            networks.seconds, start = 0.0, perf_counter()
            files.append(way())
            row["seconds"].append(perf_counter() - start)
            row["networks_s"].append(networks.seconds)
            say(f"pass {turn + 1} of {options.passes}: {row['way']}, {row['seconds'][-1]:.2f} s")
    step, outside = _warm_step(editor, content, options.direction, strengths, networks)
    return {
        "bundle": editor.session.bundle.name,
        "runtime": options.runtime,
        "threads": options.threads or usable(),
        "steps": options.steps,
        "rows": rows,
        "files_equal": all(made == files[0] for made in files),
        "times_faster": median(a / b for a, b in zip(rows[0]["seconds"], rows[1]["seconds"], strict=True)),
        "networks_times_faster": median(
            a / b for a, b in zip(rows[0]["networks_s"], rows[1]["networks_s"], strict=True)
        ),
        "warm_step_s": step,
        "outside_networks": outside,
    }


def _warm_step(
    editor: Editor, content: bytes, direction: str, strengths: list[float], networks: Networks
) -> tuple[float, float]:
    """The median time of a slider's step, from a strength to the bytes of a picture, and its share outside networks."""
    portrait = editor.portrait(BytesIO(content))
    times, shares = [], []
    for strength in strengths:
        networks.seconds, start = 0.0, perf_counter()
        encode_image(portrait.edit({direction: strength}), "JPEG")
        times.append(perf_counter() - start)
        shares.append(1 - networks.seconds / times[-1])
    return median(times), median(shares)


def run(options: SliderBenchOptions) -> None:
    """Measures and writes the file.

    Raises:
        EdgeditError: if the bundle or the photo cannot be used, or the file cannot be written.
    """
    result = provenance("python -m bench.slider --out FILE.json") | measure(options)
    save(options.out, result)
    say(
        f"{options.steps} steps {result['times_faster']:.2f} times as fast as plain edits (networks alone "
        f"{result['networks_times_faster']:.2f}); a warm step {result['warm_step_s']:.3f} s, "
        f"{result['outside_networks']:.1%} of it outside the networks"
    )


def main() -> None:
    """Runs the command line."""
    program(run, SliderBenchOptions, "bench.slider")


if __name__ == "__main__":
    main()
