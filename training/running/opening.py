"""The steps before a stage, a fit or a measurement: files are looked for, PyTorch set up, the run put together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from engines.bundle.provenance import option
from engines.cpus import usable
from engines.errors import EdgeditError, first_line
from training import parallel
from training.losses.image import LossFiles
from training.measuring.judges import JudgeFiles
from training.recipes import recipe as find_recipe
from training.running.folder import Run, check_generator
from training.running.memory import keep_freed_memory

LOSSES = ("lpips", "identity")
JUDGES = ("age_gender", "expression")
"""Files that only recipes of faces need."""


def paths(**files: str | Path | None) -> dict[str, Path | None]:
    """Files by the names of their arguments; None stays None."""
    return {name: None if file is None else Path(file) for name, file in files.items()}


def check_files(what: str, verb: str, files: Mapping[str, Path | None], needs: Sequence[str]) -> None:
    """Checks before any work that every file is there.

    Raises:
        EdgeditError: if one is needed and was not given, or was given and is not there.
    """
    for name in (*needs, *files):
        path = files[name]
        if path is None:
            if name in needs:
                raise EdgeditError(f"{what} needs {option(name)}; `edgedit {verb} --help` says what each file is")
        elif not path.exists():
            raise EdgeditError(f"{option(name)}: there is no {path}")


def begin(device: str, threads: int) -> str:
    """Sets PyTorch up, and joins the processes that train together; returns this one's device.

    Raises:
        EdgeditError: if the device cannot be used.
    """
    try:
        own = parallel.begin(device)
        torch.empty(0, device=own)
    except (RuntimeError, AssertionError) as error:
        raise EdgeditError(f"--device {device} cannot be used: {first_line(error)}") from error
    torch.set_num_threads(min(threads or torch.get_num_threads(), usable()))
    # Values near zero otherwise make CPU arithmetic many times slower.
    torch.set_flush_denormal(True)
    keep_freed_memory()
    return own


def trained_run(
    what: str,
    verb: str,
    needs: Sequence[str],
    root: str | Path,
    recipe: str,
    device: str,
    threads: int,
    **files: str | Path | None,
) -> tuple[Run, tuple[str, ...]]:
    """A run that was trained, to fit, calibrate or measure, and the names of the files that this needs."""
    chosen = find_recipe(recipe)
    wanted = tuple(name for name in needs if chosen.faces or name not in JUDGES)
    given = paths(**files)
    from_bundle = given.pop("from_bundle")
    check_files(what, verb, given, (*wanted, "faces"))
    assert given["faces"] is not None
    made = Run(
        recipe=chosen,
        root=Path(root),
        data=given["faces"],
        losses=LossFiles(lpips=given.get("lpips"), identity=given["identity"]),
        judges=JudgeFiles(**{name: given.get(name) for name in (*JUDGES, "pose")}),
        from_bundle=from_bundle,
        generator=given["generator"],
        device=begin(device, threads),
    )
    check_generator(made)
    return made, wanted
