"""What the tests of the deployment share: its files, the programs that check them, and the image's root replayed."""

from __future__ import annotations

import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[3]
DEPLOY = ROOT / "serving" / "deploy"
KUBERNETES = DEPLOY / "kubernetes"
OVERLAYS = {"base": KUBERNETES / "base"} | {
    name: KUBERNETES / "overlays" / name for name in ("development", "production")
}


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    # Before -m is looked at, which comes in a hook of this name too.
    for item in items:
        if "program" in getattr(item, "fixturenames", ()):
            item.add_marker("deploy")


@pytest.fixture(scope="session")
def program() -> Callable[[str], str]:
    """A program that a package of requirements/deploy.lock brings, by name; skips where it is not installed."""

    def find(name: str) -> str:
        beside = Path(sys.executable).parent / name
        if not beside.is_file():
            pytest.skip(f"{name} is not installed (pip install --no-deps -r requirements/deploy.lock)")
        return str(beside)

    return find


@pytest.fixture(scope="session")
def rendered(program: Callable[[str], str]) -> Callable[[str], list[dict[str, Any]]]:
    """The resources of the base or of an overlay, rendered by kustomize."""
    yaml = pytest.importorskip("yaml", reason="PyYAML is not installed (pip install -r requirements/deploy.lock)")

    @cache
    def render(name: str) -> list[dict[str, Any]]:
        command = [program("kubectl"), "kustomize", str(OVERLAYS[name])]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        return list(yaml.safe_load_all(done.stdout))

    return render


def instructions(dockerfile: Path) -> list[tuple[str, str]]:
    """The instructions of a Dockerfile, continued lines joined, comments left out."""
    lines: list[str] = []
    for line in dockerfile.read_text().splitlines():
        if line.startswith("#") or not line.strip():
            continue
        if lines and lines[-1].endswith("\\"):
            lines[-1] = lines[-1][:-1].rstrip() + " " + line.strip()
        else:
            lines.append(line.strip())
    return [(word, rest.strip()) for word, _, rest in (line.partition(" ") for line in lines)]


def copy_as_docker_does(dockerfile: Path, context: Path, root: Path) -> None:
    """Replays WORKDIR and COPY of a Dockerfile with one stage into a folder."""
    here = root
    for word, rest in instructions(dockerfile):
        if word == "WORKDIR":
            here = root / rest.lstrip("/")
            here.mkdir(parents=True, exist_ok=True)
        if word != "COPY":
            continue
        *sources, target = shlex.split(rest)
        place = root / target.lstrip("/") if target.startswith("/") else here / target
        for source in sources:
            found = sorted(context.glob(source))
            assert found, f"COPY {source}: there is no such file"
            for path in found:
                if path.is_dir():
                    shutil.copytree(path, place, dirs_exist_ok=True)
                else:
                    target_file = place / path.name if target.endswith("/") else place
                    target_file.parent.mkdir(parents=True, exist_ok=True)
                    shutil.copyfile(path, target_file)


@pytest.fixture
def image_root(tmp_path: Path) -> Callable[[Path], Path]:
    """Replays the Triton image's COPY instructions: repository of models -> root of a file system."""

    def replay(models: Path) -> Path:
        context, root = tmp_path / "context", tmp_path / "root"
        context.mkdir()
        for package in ("engines", "serving"):
            (context / package).symlink_to(ROOT / package)
        (context / "models").symlink_to(models)
        copy_as_docker_does(DEPLOY / "triton.Dockerfile", context, root)
        return root

    return replay
