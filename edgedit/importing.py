"""Imports from plain arguments: `edgedit.import_weights`, `import_direction` and `import_mapper`.

Reading a file of others runs no code in it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from engines.directions.direction import SUFFIX
from engines.errors import EdgeditError, OutputError
from engines.family import FACES_1024
from engines.family import family as find_family
from engines.packages import Progress
from engines.store import write

if TYPE_CHECKING:
    from training.importers.checkpoints import Result
    from training.importers.mapper import AboutMapper

MOBILE = "mobilestylegan"
"""The kind that comes in a package, not in a file."""


def import_weights(
    kind: str,
    files: Sequence[str | Path],
    out: str | Path,
    *,
    family: str | None = None,
    progress: Progress = lambda line: None,
) -> Result:
    """Turns an official checkpoint into safetensors.

    Args:
        kind: the method, generator or backbone, a key of `training.importers.formats.FORMATS`, or mobilestylegan.
        files: the official files that it consists of, in any order; for mobilestylegan none, or the wheel or folder of
            the package random-face.
        out: the safetensors file to write.
        family: the model family that it must be of; None: as the file is.
        progress: called with one line before a package is fetched.

    Returns:
        What was written, what was left out of the files, and what they lack and was filled in.

    Raises:
        EdgeditError: if a file is missing, of another kind or incomplete.
        OutputError: if `out` is one of the files, or cannot be written.
        ValueError: if there is no such family, or the kind does not exist for it.
        ModuleNotFoundError: without PyTorch.

    Example:
        >>> edgedit.import_weights("e4e", ["e4e_ffhq_encode.pt"], "e4e.safetensors")
    """
    paths, target = [Path(file) for file in files], Path(out)
    model_family = None if family is None else find_family(family)
    if not paths and kind != MOBILE:
        raise EdgeditError("no file to import; name the checkpoint")
    for path in paths:
        if path.exists() and target.exists() and path.samefile(target):
            raise OutputError(f"--out names {path}, which is to be read; give another name")
    from training.imported import write as write_imported
    from training.importers.checkpoints import import_checkpoint
    from training.importers.mobilestylegan import import_package

    result = (
        import_package(paths, model_family, progress)
        if kind == MOBILE
        else import_checkpoint(kind, paths, model_family)
    )
    write_imported(target, result.imported)
    return result


def import_mapper(
    file: str | Path,
    out: str | Path,
    *,
    family: str = FACES_1024.name,
    name: str | None = None,
    range: tuple[float, float] | None = None,
    description: str | None = None,
    source: str | None = None,
    licence: str | None = None,
) -> AboutMapper:
    """Turns a StyleCLIP latent mapper into weights, or into a graph where `out` ends in .onnx.

    Args:
        file: the official checkpoint (.pt).
        out: the file to write.
        family: of the generator that it was trained for.
        name, range, description, source, licence: as of `import_direction`; the licence is needed.

    Raises:
        EdgeditError: if it is no such checkpoint, or its terms are not given.
        ModuleNotFoundError: without PyTorch, or for a graph without what exports it.

    Example:
        >>> edgedit.import_mapper("mohawk.pt", "mohawk.onnx", licence="MIT")
    """
    from training.importers.directions import Words
    from training.importers.mapper import AboutMapper, mapper_bytes
    from training.importers.mapper import import_mapper as read_mapper
    from training.importers.opening import open_checkpoint
    from training.networks.mapper import STRENGTH

    path, target, chosen = Path(file), Path(out), find_family(family)
    words = Words(name=name, range=range, description=description, source=source, licence=licence)
    about = words.about(path.stem, path.stem, None, (0.0, STRENGTH))
    mapper = read_mapper(open_checkpoint(path), chosen)
    known = AboutMapper(
        **asdict(about), levels=tuple(mapper.levels), style_dim=chosen.style_dim, units="the mapper's own output"
    )
    if target.suffix.lower() == SUFFIX:
        data = mapper_bytes(mapper, known)
    else:
        from export.mapper import export_mapper

        data = export_mapper(mapper, chosen)
    write(target, data)
    return known
