"""The image's program: which builder it finds, which flags it passes, and what it says when it cannot start."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from serving import contract
from serving.deploy import probe, repository, start
from serving.deploy.builders import find_builder
from serving.deploy.errors import StartError
from serving.deploy.start import StartSettings, server_command
from tests.serving.deploy.models import repository as small_repository
from tests.serving.deploy.models import runs, stand_in

SERVER = """#!{python}
import json, os, sys
if sys.argv[1:] == ["--help"]:
    print("Usage: tritonserver [options]")
    for flag in {flags}:
        print(f"\\t{{flag}} <string>\\n\\tSays something of --no-such-flag.")
    sys.exit(1)
print("SERVER " + json.dumps(sys.argv[1:]), flush=True)
"""
FLAGS_OF_2_51 = (
    "--model-repository --model-control-mode --disable-auto-complete-config --strict-readiness --exit-timeout-secs "
    "--grpc-address --http-address --metrics-address --http-restricted-api --grpc-restricted-protocol "
    "--backend-config --log-format --model-config-name --allow-gpu-metrics"
).split()


def server(folder: Path, flags: list[str]) -> Path:
    """A program that lists flags in its help, as tritonserver does, and says how it was started."""
    path = folder / "tritonserver"
    path.write_text(SERVER.format(python=sys.executable, flags=flags))
    path.chmod(0o755)
    return path


def settings(**environment: str) -> StartSettings:
    return StartSettings.read({f"EDGEDIT_{name}": value for name, value in environment.items()})


def test_names_are_those_of_the_contract() -> None:
    """The image has no engines package, so that its program cannot import them."""
    typed = pytest.importorskip("serving.repository.typed", reason="serving.repository cannot be imported")
    assert probe.EDIT_SESSION == contract.EDIT_SESSION and probe.RESEND == contract.RESEND
    assert probe.INVERT in contract.GRAPH_MODELS and len(probe._NO_HANDLE) == contract.HANDLE_DIGITS
    assert repository.ENGINE_SOURCE == typed.ENGINE_SOURCE


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("DEVICE", "tpu", "EDGEDIT_DEVICE must be gpu or cpu, got 'tpu'"),
        ("LISTEN", "triton", "EDGEDIT_LISTEN must be an IP address, got 'triton'"),
        ("LISTEN", "0.0.0.0 --http-restricted-api=", "EDGEDIT_LISTEN must be an IP address"),
        ("EXIT_SECONDS", "-1", "EDGEDIT_EXIT_SECONDS must be a whole number of at least 1, got '-1'"),
        ("EXIT_SECONDS", "3e1", "EDGEDIT_EXIT_SECONDS must be a whole number"),
        ("MEMORY_BUDGET", "half", "EDGEDIT_MEMORY_BUDGET must be a size such as 512M or 2G, got 'half'"),
        ("TUNE_FOR_BATCH", "0", "EDGEDIT_TUNE_FOR_BATCH must be a whole number of at least 1"),
    ],
)
def test_settings_are_checked(name: str, value: str, message: str) -> None:
    with pytest.raises(StartError, match=re.escape(message)):
        settings(**{name: value})


def test_without_settings_only_loopback_listens() -> None:
    command = server_command(settings(), Path("/run/models"), frozenset(FLAGS_OF_2_51))
    addresses = [argument for argument in command if "-address=" in argument]
    assert sorted(addresses) == ["--grpc-address=127.0.0.1", "--http-address=127.0.0.1", "--metrics-address=127.0.0.1"]


def test_what_is_closed() -> None:
    known = frozenset([*FLAGS_OF_2_51, "--http-max-input-size", "--allow-client-shm"])
    first, second = (server_command(settings(LISTEN="0.0.0.0"), Path("/m"), known) for _ in range(2))
    flags = dict(argument.partition("=")[::2] for argument in first[1:])
    assert flags["--model-control-mode"] == "none" and "--disable-auto-complete-config" in flags
    assert flags["--grpc-address"] == "0.0.0.0" and flags["--http-address"] == "127.0.0.1"
    assert flags["--allow-client-shm"] == "false" and int(flags["--http-max-input-size"]) == 32 * 2**20
    for name in ("--http-restricted-api", "--grpc-restricted-protocol"):
        closed, _, key = flags[name].partition(":")
        assert {"shared-memory", "model-repository", "trace", "logging"} <= set(closed.split(","))
        assert re.fullmatch(r"edgedit-admin=[0-9a-f]{64}", key)
        assert flags[name] not in second  # another key at every start
    assert "--model-config-name" not in flags
    assert "--model-config-name=cpu" in server_command(settings(DEVICE="cpu"), Path("/m"), known)


def test_flags_of_newer_servers_are_left_out() -> None:
    command = server_command(settings(), Path("/m"), frozenset(FLAGS_OF_2_51))
    assert {argument.partition("=")[0] for argument in command[1:]} <= set(FLAGS_OF_2_51)


@pytest.mark.parametrize("flag", ["--http-restricted-api", "--grpc-restricted-protocol", "--model-control-mode"])
def test_a_server_that_cannot_be_closed_is_not_started(flag: str) -> None:
    known = frozenset(FLAGS_OF_2_51) - {flag}
    with pytest.raises(StartError, match=f"does not know {flag}"):
        server_command(settings(), Path("/m"), known)


def test_known_flags_reads_the_help(tmp_path: Path) -> None:
    assert start.known_flags(str(server(tmp_path, FLAGS_OF_2_51))) == frozenset(FLAGS_OF_2_51)
    with pytest.raises(StartError, match="does not list the flags of a tritonserver"):
        start.known_flags("/bin/true")
    with pytest.raises(StartError, match="does not list the flags"):
        start.known_flags(str(tmp_path / "gone"))


@pytest.mark.triton
def test_the_development_server_takes_every_flag(development_server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LD_LIBRARY_PATH", development_server.library_path)
    known = start.known_flags(str(development_server.root / "bin" / "tritonserver"))
    assert set(FLAGS_OF_2_51) <= known and "--http-max-input-size" not in known


def describing(monkeypatch: pytest.MonkeyPatch, **found: object) -> None:
    line = json.dumps({"library": None, "bindings": None, "gpus": [], **found})
    monkeypatch.setattr("serving.deploy.builders._child", lambda verb: [sys.executable, "-c", f"print({line!r})"])


def test_which_builder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trtexec = stand_in(tmp_path).trtexec
    assert trtexec is not None
    describing(monkeypatch, library="11.2.0.5", bindings="11.2.0.5", gpus=["sm90", "sm90"])
    found = find_builder(trtexec)
    assert (found.version, found.gpus, found.trtexec) == ("11.2.0.5", ("sm90", "sm90"), trtexec)
    assert find_builder(tmp_path / "gone").trtexec is None
    describing(monkeypatch, library="11.2.0.5", bindings="11.3.0.1", gpus=["sm90"])
    with pytest.raises(StartError, match=r"bindings are TensorRT 11\.3\.0\.1, and the server loads 11\.2\.0\.5"):
        find_builder(tmp_path / "gone")
    describing(monkeypatch, library="11.2.0.5", gpus=["sm90"])
    with pytest.raises(StartError, match=r"neither .* nor its Python bindings"):
        find_builder(tmp_path / "gone")
    describing(monkeypatch, gpus=["sm90"])
    with pytest.raises(StartError, match="this image has no TensorRT"):
        find_builder(trtexec)


@pytest.mark.skipif(shutil.which("nvidia-smi") is not None, reason="this machine has a GPU")
def test_no_gpu_is_said(tmp_path: Path) -> None:
    with pytest.raises(StartError, match=r"no NVIDIA GPU is visible: run with --gpus all .* or set EDGEDIT_DEVICE=cpu"):
        find_builder(tmp_path / "gone")


def run(
    image: Path, *arguments: str, python: str = sys.executable, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Runs the image's program as the image does, on the standard library alone."""
    return subprocess.run(
        [python, "-S", "-m", "serving.deploy", *arguments],
        cwd=image / "opt" / "edgedit",
        env={
            "PATH": os.environ["PATH"],
            "PYTHONDONTWRITEBYTECODE": "1",
            **{f"EDGEDIT_{name}": value for name, value in environment.items()},
        },
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_the_image_starts_its_server(tmp_path: Path, image_root: Callable[[Path], Path]) -> None:
    """From the files that the Dockerfile copies, without any package: becomes the server."""
    image = image_root(small_repository(tmp_path / "small"))
    assert (image / "models" / "edit" / "1" / "model.plan.onnx").is_file()
    program = server(tmp_path, FLAGS_OF_2_51)
    done = run(image, "--log-verbose=1", DEVICE="cpu", MODELS=str(image / "models"), TRITONSERVER=str(program))
    assert done.returncode == 0, done.stderr
    arguments = json.loads(done.stdout.removeprefix("SERVER "))
    assert arguments[0] == f"--model-repository={image / 'models'}" and arguments[-1] == "--log-verbose=1"
    # The image's files are not written to: they may be read-only.
    assert not list(image.rglob("__pycache__"))


@pytest.mark.parametrize("version", ["3.12", "3.13", "3.14"])
def test_runs_on_the_images_python(tmp_path: Path, image_root: Callable[[Path], Path], version: str) -> None:
    # Beside this one, as version managers put them, or on the path.
    beside = sorted(str(path) for path in Path(sys.base_prefix).parent.glob(f"{version}*/bin/python{version}"))
    found = [path for path in (*beside, shutil.which(f"python{version}")) if path]
    python = next((p for p in found if subprocess.run([p, "--version"], capture_output=True).returncode == 0), None)
    if python is None:
        pytest.skip(f"no Python {version} here")
    image, program = image_root(small_repository(tmp_path / "small")), server(tmp_path, FLAGS_OF_2_51)
    done = run(image, python=python, DEVICE="cpu", MODELS=str(image / "models"), TRITONSERVER=str(program))
    assert done.stdout.startswith("SERVER "), done.stderr


def test_failures_are_one_line(tmp_path: Path, image_root: Callable[[Path], Path]) -> None:
    image = image_root(small_repository(tmp_path / "small"))
    done = run(image, TRITONSERVER="no-such-server")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "edgedit: there is no no-such-server: build the image FROM a tritonserver image\n"
    done = run(image, TRITONSERVER=str(server(tmp_path, FLAGS_OF_2_51)), DEVICE="cpu", MODELS="/no/models")
    assert done.stderr == "edgedit: there is no /no/models: build the image with what `edgedit serve repo` wrote\n"


def test_a_stop_while_engines_are_built(tmp_path: Path) -> None:
    """SIGTERM ends the builder too, and nothing half-built is left."""
    builder = stand_in(tmp_path / "bin")
    (tmp_path / "bin" / "seconds").write_text("60")
    code = (
        "import os, sys; from pathlib import Path; from serving.deploy import start, builders; "
        f"start.find_builder = lambda: builders.Builder('11.2.0.5', ('sm90',), Path({str(builder.trtexec)!r})); "
        "sys.exit(start.main([]))"
    )
    environment = {
        "EDGEDIT_MODELS": str(small_repository(tmp_path / "models")),
        "EDGEDIT_PLANS": str(tmp_path / "plans"),
        "EDGEDIT_RUN": str(tmp_path / "run"),
        "EDGEDIT_TRITONSERVER": str(server(tmp_path, FLAGS_OF_2_51)),
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(Path(__file__).resolve().parents[3]),
    }
    process = subprocess.Popen([sys.executable, "-c", code], env=environment, start_new_session=True)
    deadline = time.monotonic() + 60
    while not runs(builder) and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 128 + signal.SIGTERM
    with pytest.raises(ProcessLookupError):
        for _ in range(200):  # the group is empty once the builder is gone
            os.killpg(process.pid, 0)
            time.sleep(0.05)
    assert {path.suffix for path in (tmp_path / "plans").iterdir()} <= {".lock"}


def test_sweeps_its_own_regions_only(tmp_path: Path) -> None:
    own = tmp_path / f"{start.shm_prefix()}triton_python_backend_shm_region_1"
    other = tmp_path / "edgedit_otherhost_region"
    own.touch()
    other.touch()
    assert start.sweep_shm(tmp_path) == 1
    assert not own.exists() and other.exists()
