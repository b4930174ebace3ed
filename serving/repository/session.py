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
from engines.errors import StrengthWarning
from serving.models.edit_session.session_core import DELTA_W_FILE, SESSION_FILE, STYLE_DELTA_FILE

_TEMPLATE = "serving.models.edit_session"
_CODE = ("model.py", "session_core.py")


def session_files(bundle: Bundle, digest: str, directions: Mapping[str, Direction]) -> dict[str, bytes]:
    """Content by name: code, the units of the directions, and what else the model must know of its bundle.

    Raises:
        BundleError: if the bundle has no graph `invert`.
        DirectionError: if a direction was made for another family.
    """
    family, inversion = bundle.family, bundle.graph("invert").outputs
    delta_w = np.zeros((len(directions), family.w_rows, family.style_dim), np.float32)
    style_delta = np.zeros((len(directions), style_width(family)), np.float32)
    with warnings.catch_warnings():
        # One unit may be more than a direction bears.
        warnings.simplefilter("ignore", StrengthWarning)
        for k, name in enumerate(directions):
            unit = resolve(directions, {name: 1.0}, family)
            delta_w[k], style_delta[k] = unit.delta_w, unit.style_delta
    size = sum(math.prod(map(int, spec.shape[1:])) * np.dtype(spec.dtype).itemsize for spec in inversion)
    session = {"bundle_sha256": digest, "directions": list(directions), "inversion_bytes": size}
    code = {name: files(_TEMPLATE).joinpath(name).read_bytes() for name in _CODE}
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
