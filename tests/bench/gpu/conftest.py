"""The family, photos and loss networks of the training tests, and their recipe of a few steps."""

from __future__ import annotations

from tests.training.conftest import family, loss_files, photo_folder
from tests.training.running.test_run import recipe as small_recipe

__all__ = ["family", "loss_files", "photo_folder", "small_recipe"]
