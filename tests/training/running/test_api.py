from __future__ import annotations

import pytest

from engines.errors import EdgeditError
from training.losses.image import LossFiles
from training.running.api import evaluate, train


def test_stages_that_there_are_not(tmp_path):
    with pytest.raises(
        EdgeditError, match="unknown stage 'directions'; there are generator, pairs, e4e, encoder, editor"
    ):
        train("directions", run=tmp_path, faces=tmp_path)
    with pytest.raises(EdgeditError, match="--processes must be 1 or more, got 0"):
        train("e4e", run=tmp_path, faces=tmp_path, processes=0)


def test_a_file_that_is_needed_is_asked_for_before_the_work(tmp_path, loss_files):
    with pytest.raises(EdgeditError, match="measuring needs --age-gender"):
        evaluate(tmp_path, tmp_path, lpips=loss_files.lpips, identity=loss_files.identity)
    with pytest.raises(EdgeditError, match="--pose: there is no "):
        files = dict(lpips=loss_files.lpips, identity=loss_files.identity)
        evaluate(tmp_path, tmp_path, **files, age_gender=tmp_path, expression=tmp_path, pose=tmp_path / "no.onnx")


def test_loss_files_that_were_not_given():
    with pytest.raises(ValueError, match="this needs --identity"):
        LossFiles().require("identity")
