"""`edgedit serve up` as a person at a terminal has it."""

from __future__ import annotations

import json
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from edgedit.cli import main
from serving.local import ports, processes
from serving.local.canary import ModelCanary
from serving.local.install import Installation
from serving.local.supervisor import PREFIX, SHARED_MEMORY
from tests.serving.local.small import wait_for

pytestmark = pytest.mark.triton
_ROOT = Path(__file__).resolve().parents[3]

Up = Callable[..., subprocess.Popen[str]]
Refused = Callable[..., tuple[str, str]]


@pytest.fixture
def up(pipelines: Path, development_server: Installation) -> Iterator[Up]:
    """Starts `edgedit serve up` with arguments."""
    started: list[subprocess.Popen[str]] = []

    def start(*arguments: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "edgedit", "serve", "up", "-b", str(pipelines), *arguments]
        pipe = subprocess.PIPE
        process = subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, cwd=_ROOT, start_new_session=True)
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


@pytest.fixture
def refused(pipelines: Path, development_server: Installation, capsys: pytest.CaptureFixture[str]) -> Refused:
    """What `edgedit serve up` with arguments, in this process, says on standard output and error when it fails."""

    def run(*arguments: str) -> tuple[str, str]:
        assert main(["serve", "up", "-b", str(pipelines), *arguments]) == 1
        out, err = capsys.readouterr()
        return out, err

    return run


def until_ready(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    lines = []
    for line in process.stdout:
        lines.append(line)
        if line.startswith("ready after"):
            return "".join(lines)
    assert process.stderr is not None
    raise AssertionError(process.stderr.read())


def servers(parent: int) -> set[int]:
    """Process groups of the servers below a process: its supervisor's children."""
    found = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            _, parent_pid, group, *_ = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        found[int(stat.parent.name)] = int(parent_pid), int(group)
    children = {pid for pid, (above, _) in found.items() if above == parent}
    return {group for above, group in found.values() if above in children}


def shared_memory_prefix(groups: set[int]) -> str:
    """As it stands in the command line of a server."""
    lines = [Path(f"/proc/{pid}/cmdline").read_text() for group in groups for pid in processes.group(group)]
    return next(found[1] for line in lines if (found := re.search(rf"prefix-name=({PREFIX}\w+)", line)))


def regions(prefix: str) -> list[str]:
    return [path.name for path in SHARED_MEMORY.glob(f"{prefix}*")]


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_it_serves_until_it_is_interrupted(up: Up, tmp_path: Path, how: signal.Signals) -> None:
    report = tmp_path / "up.json"
    process = up("--port", "0", "--json", str(report))
    said = until_ready(process)
    addresses = {
        kind: found[1] for kind in ("gRPC", "HTTP", "metrics") if (found := re.search(rf"{kind} +(\S+)", said))
    }
    assert len(addresses) == 3
    assert "development server" in said and "2.51" in said and "tritonserver:26.11" in said
    image = ModelCanary(addresses["HTTP"].removeprefix("http://"), 60).infer("edit_session")["image"]
    assert isinstance(image, np.ndarray) and image.size
    groups = servers(process.pid)
    assert any("tritonserver" in processes.group(group).values() for group in groups)
    assert regions(prefix := shared_memory_prefix(groups))
    process.send_signal(how)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (0, "")
    assert out == "stopping\n"
    assert not any(map(processes.group, groups))
    assert not regions(prefix)
    summary = json.loads(report.read_text())
    assert summary["http"] == addresses["HTTP"].removeprefix("http://")
    assert summary["restarts"] == 0 and summary["memory_bytes"] > 0


def test_a_killed_command_leaves_nothing(up: Up) -> None:
    process = up("--port", "0")
    until_ready(process)
    groups = servers(process.pid)
    prefix = shared_memory_prefix(groups)
    process.kill()
    assert wait_for(lambda: not any(map(processes.group, groups)) and not regions(prefix))


def test_a_server_that_dies_ends_the_command_without_a_watchdog(up: Up) -> None:
    process = up("--port", "0", "--no-watchdog")
    until_ready(process)
    (server,) = [
        pid for group in servers(process.pid) for pid, name in processes.group(group).items() if name == "tritonserver"
    ]
    subprocess.run(["kill", "-9", str(server)], check=True)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 1
    assert err == "error: the development server has died; without --no-watchdog it would be restarted\n"


def test_a_port_in_use_is_one_line(refused: Refused) -> None:
    port = ports.pick(1)[0]
    with socket.create_server((ports.HOST, port)):
        out, err = refused("--port", str(port))
    assert out == ""
    assert re.fullmatch(rf"error: port {port} for http is in use[^\n]*\n", err)


def test_a_missing_installation_is_one_line(refused: Refused, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEDIT_CACHE", str(tmp_path / "empty"))
    out, err = refused("--no-setup")
    assert out == ""
    assert re.fullmatch(r"error: the development server is not installed: [^\n]*edgedit serve setup[^\n]*\n", err)


def test_an_impossible_set_up_is_one_line(refused: Refused, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEDIT_CACHE", str(tmp_path / "empty"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    _, err = refused("--port", "0")
    assert re.fullmatch(r"error: cannot install the development server: [^\n]*nvidia-pytriton[^\n]*\n", err)
