"""Repositories of other methods: each model takes what its graph reads of the inversion."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest

from engines.bundle import Bundle
from engines.contracts import PIPELINES
from engines.directions import load_directions, resolve
from engines.errors import DirectionError
from engines.session import EditSession
from serving.contract import EDIT_IMAGE, EDIT_SESSION, EDITED_IMAGE
from serving.local.install import Installation
from serving.local.server import LocalTriton
from serving.repository import write_repository
from tests.engines.conftest import TINY, tiny_directions
from tests.engines.methods import write_method
from tests.serving.repository.asking import asking

configs = pytest.importorskip("serving.repository.configs", reason="tritonclient is not installed")


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return Bundle.load(write_method(tmp_path_factory.mktemp("method") / "other"))


@pytest.fixture(scope="module")
def models(other: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_repository(other, tmp_path_factory.mktemp("repository") / "models")


def test_models_have_the_methods_tensors(models: Path) -> None:
    assert {path.name for path in models.iterdir() if path.is_dir()} == {*PIPELINES, EDIT_IMAGE, EDIT_SESSION}
    edit = configs.parse((models / "edit" / "config.pbtxt").read_text())
    assert [tensor.name for tensor in edit.input] == ["w", "residual", "delta_w"]
    ensemble = configs.parse((models / EDIT_IMAGE / "config.pbtxt").read_text())
    assert [tensor.name for tensor in ensemble.input] == ["image", "delta_w"]
    invert, second = ensemble.ensemble_scheduling.step
    assert dict(invert.output_map) == {"w": "inversion_w", "residual": "inversion_residual"}
    assert set(second.input_map) == {"w", "residual", "delta_w"}


def test_a_session_is_told_what_to_keep_and_to_feed(models: Path) -> None:
    session = json.loads((models / EDIT_SESSION / "1" / "session.json").read_text())
    assert session["reads"] == {"edit": ["w", "residual"], "reconstruct": ["w"]} and session["deltas"] == ["delta_w"]
    assert session["inversion_bytes"] == 4 * (math.prod((TINY.w_rows, TINY.style_dim)) + 3 * 16 * 16)


def test_directions_that_move_styles_are_refused(tmp_path: Path) -> None:
    bundle = Bundle.load(write_method(tmp_path / "other", directions=tiny_directions(TINY)))
    with pytest.raises(DirectionError, match="method hfgi edits codes alone, and the bundle has directions that move"):
        write_repository(bundle, tmp_path / "models")
    assert [path.name for path in tmp_path.iterdir()] == ["other"]


@pytest.mark.triton
def test_a_server_equals_this_process(models: Path, other: Bundle, development_server: Installation) -> None:
    images = np.random.default_rng(2).integers(0, 256, (2, *TINY.image_shape, 3), np.uint8)
    session, edits = EditSession(other, threads=1), {"smile": 2.0, "age": -1.5}
    delta_w = resolve(load_directions(other), edits, TINY).delta_w
    inversion = session.invert(images)
    edited = session.edit(inversion, delta_w)
    with LocalTriton(models, installation=development_server) as server, asking(server) as ask:
        feeds = {"image": images, "delta_w": np.stack([delta_w] * 2)}
        assert np.array_equal(ask(EDIT_IMAGE, feeds, [EDITED_IMAGE])[EDITED_IMAGE], edited)
        for index, image in enumerate(images):
            handle, picture = ask.session(image, edits=edits)
            assert np.array_equal(picture, edited[index])
            assert np.array_equal(ask.session(handle=handle, edits={})[1], session.reconstruct(inversion)[index])
