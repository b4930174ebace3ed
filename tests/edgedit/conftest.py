"""A bundle of hand-made graphs for 64-pixel faces, the astronaut's photo, and the command line run in process."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edgedit.cli import main
from edgedit.demo import ASTRONAUT
from edgedit.editor import Editor, Portrait
from engines.contracts import PIPELINES, style_width
from engines.directions import Direction
from engines.family import EditorArchitecture, ModelFamily
from engines.photo import open_image
from tests.engines.conftest import write_tiny

FACES = ModelFamily(
    name="tiny-faces",
    size=64,
    style_dim=8,
    channel_base=256,
    channel_max=8,
    feature_resolution=32,
    encoder_size=(64, 64),
    encoder_width=4,
    head_width=8,
    editor=EditorArchitecture(window=8, heads=4),
)

HEAD = (slice(0, 260), slice(90, 350))
"""Rows and columns of the astronaut's photo around her face."""


def directions() -> list[Direction]:
    """Small enough that no edit saturates the image."""
    rng = np.random.default_rng(3)

    def make(name: str, kind: str, space: str, low: float, high: float, size: int, **more: object) -> Direction:
        vector = rng.normal(0, 0.1, size).astype(np.float32)
        return Direction(
            name=name,
            kind=kind,
            space=space,
            vector=vector,
            min_strength=low,
            max_strength=high,
            description=f"changes the {name}",
            source="random",
            licence="CC0-1.0",
            **more,
        )

    return [
        make("smile", "interfacegan", "w", -3, 3, FACES.style_dim),
        make("age", "interfacegan", "w", -2, 2.5, FACES.style_dim, rows=(2, 8)),
        make("hair", "stylespace", "s", -1, 4, style_width(FACES)),
    ]


def write_faces(path: Path, family: ModelFamily = FACES) -> Path:
    return write_tiny(path, family, PIPELINES, name="faces", directions=directions() if family is FACES else [])


@pytest.fixture(scope="session")
def bundle_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shared by all tests: not to be changed."""
    return write_faces(tmp_path_factory.mktemp("edgedit") / "faces")


@pytest.fixture
def own_bundle(bundle_path: Path, tmp_path: Path) -> Path:
    """A copy to damage."""
    return Path(shutil.copytree(bundle_path, tmp_path / "own"))


@pytest.fixture(scope="session")
def editor(bundle_path: Path) -> Editor:
    return Editor.load(bundle_path, threads=1)


@pytest.fixture(scope="session")
def astronaut() -> np.ndarray:
    """uint8 512 x 512 x 3."""
    return open_image(ASTRONAUT).pixels


@pytest.fixture(scope="session")
def head(astronaut: np.ndarray) -> np.ndarray:
    """uint8 260 x 260 x 3: a photo whose face is found quickly."""
    return np.ascontiguousarray(astronaut[HEAD])


@pytest.fixture(scope="session")
def head_path(head: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("photos") / "head.png"
    Image.fromarray(head).save(path)
    return path


@pytest.fixture(scope="session")
def portrait(editor: Editor, astronaut: np.ndarray) -> Portrait:
    return editor.portrait(astronaut)


@dataclass(frozen=True)
class Done:
    """What a run of the command line left behind."""

    status: int
    out: str
    err: str

    @property
    def error(self) -> str:
        """The message of a refusal, which is one line and no traceback."""
        assert self.status != 0
        lines = self.err.splitlines()
        assert len(lines) == 1 and lines[0].startswith("error: "), self.err
        return lines[0].removeprefix("error: ")


Cli = Callable[..., Done]


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str]) -> Cli:
    """Runs `edgedit` with these words in this process."""

    def run(*words: object) -> Done:
        capsys.readouterr()
        status = main([str(word) for word in words])
        return Done(status, *capsys.readouterr())

    return run
