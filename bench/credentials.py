"""The cost of Content Credentials beside an edit: processor time and bytes per picture.

python -m bench.credentials --out FILE
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from bench.program import program, save, say
from edgedit.demo import ASTRONAUT
from edgedit.editor import PORTRAIT_BUNDLE, Editor
from engines.bundle.provenance import provenance
from engines.errors import CredentialsError
from engines.photo.credentials import Credentials, Statement
from engines.photo.images import encode_image
from engines.photo.sources import FORMATS


@dataclass(frozen=True, kw_only=True)
class CredentialsBenchOptions:
    """Time an edit of the astronaut, and writing the picture with credentials and without."""

    bundle: Path = PORTRAIT_BUNDLE
    """The bundle that edits."""
    passes: int = 10
    """Passes of each call."""
    out: Path
    """The JSON file to write."""


def _milliseconds(call: Callable[[], object]) -> float:
    """The processor's time that a call takes, which what else the machine does changes little."""
    before = time.process_time()
    call()
    return (time.process_time() - before) * 1e3


def run(options: CredentialsBenchOptions) -> None:
    """Measures, and writes the file.

    Raises:
        EdgeditError: if the bundle cannot be used, or nothing can be signed here.
    """
    editor = Editor.load(options.bundle, threads=1)
    portrait = editor.portrait(ASTRONAUT)
    credentials = Credentials()
    if credentials.key is None:
        raise CredentialsError(str(credentials.problem))
    edits = {"smile": 1.5}
    face = portrait.edit_face(edits)
    statement = Statement.of(editor.session.bundle, edits, portrait.photo)
    calls: dict[str, Callable[[], object]] = {"edit": lambda: portrait.edit_face(edits)}
    for form in FORMATS:
        calls[f"plain {form}"] = lambda form=form: encode_image(face, form)
        calls[f"signed {form}"] = lambda form=form: credentials.encode(face, form, statement)
    times = {name: [_milliseconds(call) for _ in range(options.passes)] for name, call in calls.items()}
    least = {name: min(samples) for name, samples in times.items()}
    rows = {}
    for form in FORMATS:
        signed = credentials.encode(face, form, statement)
        rows[form] = {
            "plain_cpu_ms": least[f"plain {form}"],
            "signed_cpu_ms": least[f"signed {form}"],
            "added_bytes": len(signed) - len(encode_image(face, form)),
        }
        say(f"{form}: {rows[form]}")
    say(f"an edit: {least['edit']:.0f} ms")
    result: dict[str, Any] = provenance("python -m bench.credentials --out FILE")
    result["c2pa-python"] = metadata.version("c2pa-python")
    result |= {"bundle": editor.session.bundle.name, "pixels": face.shape[:2], "passes": options.passes}
    save(options.out, result | {"edit_cpu_ms": least["edit"], "formats": rows, "samples_cpu_ms": times})


if __name__ == "__main__":
    program(run, CredentialsBenchOptions, "bench.credentials")
