"""The verbs on photos, run with a small bundle."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest

from engines.photo import open_image
from tests.edgedit.conftest import Cli, Done


class Edits:
    """`edgedit edit` (or another verb) on the tests' bundle, its output in a folder of its own."""

    def __init__(self, cli: Cli, bundle: Path, folder: Path) -> None:
        self._cli, self._bundle = cli, bundle
        self.folder = folder / "out"
        self.folder.mkdir()
        self.out, self.json = self.folder / "out.png", self.folder / "out.json"

    def __call__(self, *words: object, verb: str = "edit", out: Path | None = None, bundle: Path | None = None) -> Done:
        common = ("-b", bundle or self._bundle, "--threads", 1, "--json", self.json)
        return self._cli(verb, *common, "-o", out or self.out, *words)

    @property
    def pixels(self) -> np.ndarray:
        return open_image(self.out).pixels

    @property
    def summary(self) -> dict:
        return json.loads(self.json.read_text())

    @property
    def written(self) -> list[str]:
        return sorted(os.listdir(self.folder))


@pytest.fixture
def edits(cli: Cli, bundle_path: Path, tmp_path: Path) -> Edits:
    return Edits(cli, bundle_path, tmp_path)
