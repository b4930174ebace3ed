"""The files of one version of the `edit_session` model."""

from __future__ import annotations

import io
import json
import math
import warnings
from collections.abc import Mapping
from importlib.resources import files

import numpy as np

from engines.bundle import Bundle
from engines.contracts import style_width
from engines.directions import Direction, resolve
from engines.errors import DirectionError, StrengthWarning
from serving.models.edit_session.session_core import DELTA_W_FILE, SESSION_FILE, STYLE_DELTA_FILE

_CODE = {
    "model.py": "serving.models.edit_session",
    "session_core.py": "serving.models.edit_session",
    "lost_picture.py": "engines",
}
"""Files by name, and the package that each is copied from."""


def session_files(bundle: Bundle, digest: str, directions: Mapping[str, Direction]) -> dict[str, bytes]:
    """Content by name: code, the units of the directions, and what else the model must know of its bundle.

    Raises:
        BundleError: if the bundle lacks one of the three pipelines.
        DirectionError: if a direction was made for another family, or moves styles where the method edits codes alone.
    """
    family, inversion = bundle.family, bundle.inversion
    delta_w = np.zeros((len(directions), family.w_rows, family.style_dim), np.float32)
    style_delta = np.zeros((len(directions), style_width(family)), np.float32)
    with warnings.catch_warnings():
        # One unit may be more than a direction bears.
        warnings.simplefilter("ignore", StrengthWarning)
        for k, name in enumerate(directions):
            unit = resolve(directions, {name: 1.0}, family)
            delta_w[k], style_delta[k] = unit.delta_w, unit.style_delta
    if style_delta.any() and not bundle.edits_styles:
        raise DirectionError(
            f"{bundle.name}: method {bundle.method} edits codes alone, and the bundle has directions that move styles"
        )
    names = [spec.name for spec in inversion]
    taken = {graph: {spec.name for spec in bundle.graph(graph).inputs} for graph in ("edit", "reconstruct")}
    reads = {graph: [name for name in names if name in inputs] for graph, inputs in taken.items()}
    needed = {name for read in reads.values() for name in read}
    size = sum(
        math.prod(map(int, spec.shape[1:])) * np.dtype(spec.dtype).itemsize for spec in inversion if spec.name in needed
    )
    session = {
        "bundle_sha256": digest,
        "directions": list(directions),
        "inversion_bytes": size,
        "reads": reads,
        "deltas": [name for name in ("delta_w", "style_delta") if name in taken["edit"]],
    }
    code = {name: files(package).joinpath(name).read_bytes() for name, package in _CODE.items()}
    return {
        **code,
        SESSION_FILE: (json.dumps(session, indent=1) + "\n").encode(),
        DELTA_W_FILE: _npy(delta_w),
        STYLE_DELTA_FILE: _npy(style_delta),
    }


def _npy(array: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array, allow_pickle=False)
    return stream.getvalue()
