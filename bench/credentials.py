"""What Content Credentials cost beside an edit: processor time and bytes per picture.

python -m bench.credentials --out FILE
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import tyro
from rich.console import Console

from edgedit.demo import ASTRONAUT
from edgedit.editor import PORTRAIT_BUNDLE, Editor
from engines.bundle.provenance import provenance
from engines.errors import EdgeditError
from engines.photo.credentials import Credentials, Statement
from engines.photo.images import encode_image
from engines.photo.sources import FORMATS
from engines.store import write

console = Console(highlight=False, soft_wrap=True)


@dataclass(frozen=True, kw_only=True)
class CredentialsBenchOptions:
    """Time an edit of the astronaut, and writing the picture with credentials and without."""

    bundle: Path = PORTRAIT_BUNDLE
    """What edits."""
    passes: int = 10
    """Of each."""
    out: Path
    """The JSON file to write."""


def _milliseconds(call: Callable[[], object]) -> float:
    """The processor's time that a call takes, which what else the machine does changes little."""
    before = time.process_time()
    call()
    return (time.process_time() - before) * 1e3


def main() -> None:
    """Runs the command line."""
    options = tyro.cli(CredentialsBenchOptions, prog="python -m bench.credentials", config=(tyro.conf.OmitArgPrefixes,))
    try:
        editor = Editor.load(options.bundle, threads=1)
        portrait = editor.portrait(ASTRONAUT)
        credentials = Credentials()
    except EdgeditError as error:
        raise SystemExit(f"error: {error}") from None
    if credentials.key is None:
        raise SystemExit(f"error: {credentials.problem}")
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
        console.print(f"{form}: {rows[form]}")
    told = provenance("python -m bench.credentials --out FILE")
    told["c2pa-python"] = metadata.version("c2pa-python")
    told |= {"bundle": editor.session.bundle.name, "pixels": face.shape[:2], "passes": options.passes}
    console.print(f"an edit: {least['edit']:.0f} ms")
    result = told | {"edit_cpu_ms": least["edit"], "formats": rows, "samples_cpu_ms": times}
    write(options.out, (json.dumps(result, indent=1) + "\n").encode())


if __name__ == "__main__":
    main()
