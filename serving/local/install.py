"""Sets the development server up: the wheel that carries it, and the environment its Python models run in.

Both are installed by pip from locked versions with hashes into the cache folder, each under a temporary name and then
renamed: an interrupted set-up is continued by the next one, and one that is done needs no network. Nothing is put
into the environment that edgedit runs in.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from contextlib import suppress
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from engines.errors import RuntimeUnavailableError
from engines.packages import Progress
from engines.pip import PINNED, QUIETLY, failure
from engines.store import cache_folder, made_once
from serving.local import PRODUCTION, RELEASE
from serving.local.interpreter import describe

OLDEST_GLIBC = (2, 35)
PYTHONS = ((3, 11), (3, 12))
"""The versions with both a stub in the wheel and a NumPy 1.26."""
PYTHON_VARIABLE = "EDGEDIT_TRITON_PYTHON"
"""Environment variable: the interpreter for the server's Python models, in place of the one that runs edgedit."""
SETUP_HINT = "run `edgedit serve setup`, which installs it for you (needs a package index)"

_HERE = Path(__file__).parent
_LOCKS = {"server": _HERE / "server.lock", "stub": _HERE / "stub.lock"}
_INSTEAD = f"use the production container, {PRODUCTION}"


@dataclass(frozen=True)
class Interpreter:
    """A Python interpreter, as `serving.local.interpreter.describe` says it."""

    system: str
    machine: str
    glibc: str
    python: tuple[int, int]
    executable: Path
    libpython: str | None

    @property
    def minor(self) -> str:
        return f"{self.python[0]}.{self.python[1]}"

    def problem(self) -> str | None:
        """The reason why the development server cannot run with this interpreter, in one line; None if it can."""
        if (self.system, self.machine) != ("Linux", "x86_64"):
            return (
                f"the development server is for Linux on x86_64, and this is {self.system} {self.machine}; {_INSTEAD}"
            )
        oldest = ".".join(map(str, OLDEST_GLIBC))
        glibc = tuple(int(part) for part in self.glibc.split(".")[:2] if part.isdigit())
        if glibc < OLDEST_GLIBC:
            return (
                f"the development server needs glibc {oldest}, and this system has "
                f"{self.glibc or 'another C library'}; {_INSTEAD}"
            )
        name = f"Python {self.minor} ({self.executable})"
        if self.python not in PYTHONS:
            fits = " or ".join(f"{major}.{minor}" for major, minor in PYTHONS)
            return f"the development server needs Python {fits}, not {name}: name one with {PYTHON_VARIABLE}"
        if self.libpython is None:
            return (
                f"{name} has no shared library, which the development server's models need: install "
                f"libpython{self.minor}, or name another interpreter with {PYTHON_VARIABLE}"
            )
        return None


@dataclass(frozen=True)
class Installation:
    """A development server that is set up."""

    server: Path
    """The folder of the wheel: pytriton/ and nvidia_pytriton.libs/."""
    stub: Path
    """The environment of the Python models."""
    interpreter: Interpreter

    @property
    def root(self) -> Path:
        return self.server / "pytriton" / "tritonserver"

    @property
    def library_path(self) -> str:
        folders = [str(self.server / "nvidia_pytriton.libs"), self.interpreter.libpython or ""]
        return ":".join(filter(None, folders))

    def backend_files(self) -> list[Path]:
        """The Python backend's files, which must lie in one folder as files: links out of it are refused."""
        stub = self.root / "python_backend_stubs" / self.interpreter.minor / "triton_python_backend_stub"
        backend = self.root / "backends" / "python"
        return [backend / "libtriton_python.so", backend / "triton_python_backend_utils.py", stub]

    def check(self) -> None:
        """Looks whether what was installed is there, and the NumPy that the Python backend can read.

        Raises:
            RuntimeUnavailableError: if not.
        """
        site = _site(self.stub, self.interpreter)
        needed = [self.root / "bin" / "tritonserver", *self.backend_files(), self.stub / "bin" / "python3"]
        missing = next((path for path in needed if not path.exists()), None)
        if missing is not None:
            raise RuntimeUnavailableError(f"the development server lacks {missing.name}: delete {missing.parents[1]}")
        versions = {d.name.lower(): d.version for d in metadata.distributions(path=[str(site)])}
        numpy = versions.get("numpy", "none")
        if not numpy.startswith("1.26."):
            raise RuntimeUnavailableError(
                f"the development server's models need NumPy 1.26, and {self.stub} has {numpy}, with which every "
                "output would be empty: delete that folder and run `edgedit serve setup`"
            )


def interpreter() -> Interpreter:
    """The one that `EDGEDIT_TRITON_PYTHON` names, or else this one.

    Raises:
        RuntimeUnavailableError: if the named one cannot be asked.
    """
    said: dict[str, Any] = dict(describe())
    if named := os.environ.get(PYTHON_VARIABLE):
        command = [named, "-I", str(_HERE / "interpreter.py")]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
            said = json.loads(done.stdout)
        except (OSError, subprocess.SubprocessError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is no Python interpreter"
            raise RuntimeUnavailableError(f"cannot use {PYTHON_VARIABLE}={named}: {reason}") from error
    return Interpreter(**said | {"python": tuple(said["python"]), "executable": Path(said["executable"])})


def unsupported() -> str | None:
    """The reason why the development server cannot run here, in one line; None if it can. Asks no network."""
    try:
        return interpreter().problem()
    except RuntimeUnavailableError as error:
        return str(error)


def find() -> Installation | None:
    """The development server, if it is set up.

    Raises:
        RuntimeUnavailableError: if it cannot run here, or is damaged.
    """
    python = interpreter()
    if problem := python.problem():
        raise RuntimeUnavailableError(problem)
    installation = Installation(_place("server"), _place("stub", python), python)
    # A virtual environment dies with the interpreter that it links to.
    if not (installation.server.is_dir() and (installation.stub / "bin" / "python3").exists()):
        return None
    installation.check()
    return installation


def require() -> Installation:
    """The development server.

    Raises:
        RuntimeUnavailableError: if it is not set up, or cannot run here.
    """
    installation = find()
    if installation is None:
        raise RuntimeUnavailableError(f"the development server is not installed: {SETUP_HINT}")
    return installation


def ensure(progress: Progress = lambda _: None) -> Installation:
    """The development server, set up now if it is not; `progress` is told in one line what takes long.

    Raises:
        RuntimeUnavailableError: if it cannot run here or cannot be installed.
        OutputError: if the cache folder cannot be written.
    """
    if (installation := find()) is not None:
        return installation
    python = interpreter()
    server, stub = _place("server"), _place("stub", python)

    def waiting() -> None:
        progress("waiting for another set-up of the development server")

    def make_server(folder: Path) -> None:
        progress("installing Triton 2.51 from the wheel nvidia-pytriton 0.7.0 (144 MB unpacked)")
        _pip(python, folder, "server", folder)

    def make_stub(folder: Path) -> None:
        progress(f"installing its Python {python.minor} environment: NumPy 1.26, ONNX Runtime (150 MB unpacked)")
        _run([str(python.executable), "-I", "-m", "venv", "--without-pip", str(folder)], "venv")
        _pip(python, _site(folder, python), "stub", folder)

    with suppress(OSError):  # which `made_once` puts into words
        _folder().mkdir(parents=True, exist_ok=True, mode=0o700)
    made_once(server, server.is_dir, make_server, waiting)
    made_once(stub, (stub / "bin" / "python3").exists, make_stub, waiting)
    return require()


def _folder() -> Path:
    return cache_folder() / "triton"


def _place(part: str, python: Interpreter | None = None) -> Path:
    """The folder of a part: another lock, or another interpreter, has another one."""
    digest = hashlib.sha256(_LOCKS[part].read_bytes())
    name = f"{part}-{RELEASE}"
    if python is not None:
        digest.update(os.fsencode(python.executable))
        name = f"{part}-cp{python.minor.replace('.', '')}"
    return _folder() / f"{name}-{digest.hexdigest()[:12]}"


def _site(stub: Path, python: Interpreter) -> Path:
    return stub / "lib" / f"python{python.minor}" / "site-packages"


def _pip(python: Interpreter, target: Path, part: str, scratch: Path) -> None:
    """Installs a lock into a folder with pip: this interpreter's own, or one made for it where it has none (uv)."""
    pip = [sys.executable if python.executable == Path(sys.executable).resolve() else str(python.executable)]
    if subprocess.run([*pip, "-m", "pip", "--version"], capture_output=True).returncode:
        helper = scratch / ".pip"
        _run([str(python.executable), "-I", "-m", "venv", str(helper)], "venv")
        pip = [str(helper / "bin" / "python")]
    options = ["install", *PINNED, *QUIETLY, "--no-user", "--target", str(target), "-r", str(_LOCKS[part])]
    _run([*pip, "-m", "pip", *options], "pip")
    shutil.rmtree(scratch / ".pip", ignore_errors=True)


def _run(command: list[str], name: str) -> None:
    if reason := failure(command):
        raise RuntimeUnavailableError(f"cannot install the development server: {name} says: {reason}")
