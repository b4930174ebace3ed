"""`LocalTriton`: the development server on a model repository, from start to nothing left."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Self

from engines.bundle import Bundle
from engines.errors import EdgeditError
from serving.local import failure, ports, processes, supervisor
from serving.local.install import Installation, require

_HERE = Path(__file__).parent
_BACKENDS = _HERE.parent / "backends"
_RESTRICTED = ("trace", "logging", "model-repository")
_STARTS = 3
"""The most starts, if those before ended as on a busy machine, see `failure.starved`."""


class LocalServerError(EdgeditError):
    """The development server does not start, or has ended by itself."""


class _Crashed(LocalServerError):
    """The server, or the process of a model, has died of a signal while it started."""


class LocalTriton:
    """A Triton server on loopback; a context manager. Its methods may be called from several threads.

    Args:
        source: a model repository, or a bundle, of which one is written.
        http_port, grpc_port, metrics_port: 0 for a free one; kept over restarts.
        shared_memory: let clients register system shared memory: any local process may then, see the README.
        log: a file for the server's log, appended to; by default it lies in the scratch folder and goes with it.
        poll: look for new versions and models every second; otherwise the repository is read once.
        ready_timeout: seconds that the models may take to load.
        arguments: more of them for tritonserver.
        installation: by default the one that is set up.
    """

    def __init__(
        self,
        source: Path | Bundle,
        *,
        http_port: int = 0,
        grpc_port: int = 0,
        metrics_port: int = 0,
        shared_memory: bool = False,
        log: Path | None = None,
        poll: bool = False,
        ready_timeout: float = 120.0,
        arguments: Sequence[str] = (),
        installation: Installation | None = None,
    ) -> None:
        self.source = source
        self.shared_memory = shared_memory
        self.poll = poll
        self.ready_timeout = ready_timeout
        self.arguments = tuple(arguments)
        self.installation = installation
        self.ready_seconds: float | None = None
        """Seconds from the latest start to ready."""
        self.prefix = ""
        """The start of the names of the running server's shared-memory regions."""
        self._wanted = {"http": http_port, "grpc": grpc_port, "metrics": metrics_port}
        self._ports: dict[str, int] = {}
        self._log = log
        self._scratch: Path | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._pid: int | None = None
        self._lock = threading.RLock()
        self._closing = threading.Event()

    @property
    def http(self) -> str:
        """host:port of HTTP."""
        return self._address("http")

    @property
    def grpc(self) -> str:
        """host:port of gRPC."""
        return self._address("grpc")

    @property
    def metrics(self) -> str:
        """host:port of /metrics."""
        return self._address("metrics")

    @property
    def log(self) -> Path:
        """The server's log."""
        return self._log if self._log is not None else self._in_scratch("log")

    @property
    def repository(self) -> Path:
        """The model repository."""
        return self.source if isinstance(self.source, Path) else self._in_scratch("models")

    @property
    def models(self) -> list[str]:
        """Names of the models, sorted."""
        return sorted(p.name for p in self.repository.iterdir() if p.is_dir() and not p.name.startswith("."))

    @property
    def pid(self) -> int | None:
        """The server's process, None while it does not run."""
        return self._pid if self.alive else None

    @property
    def alive(self) -> bool:
        """Whether the server runs; it may not be ready."""
        return self._process is not None and self._process.poll() is None

    def processes(self) -> dict[int, str]:
        """Process id and name of the server and of its models' processes."""
        return processes.group(self._pid) if self._pid is not None else {}

    def memory_bytes(self) -> int:
        """Memory of the server and its models' processes; what they share counts once."""
        return sum(map(processes.memory_bytes, self.processes()))

    def start(self) -> Self:
        """Starts and waits until every model is ready and every port is listened on.

        Raises:
            RuntimeUnavailableError: if the development server is not set up.
            PortError: if a port is taken.
            LocalServerError: if the server or one of its models does not start.
        """
        with self._lock:
            if self._process is not None:
                raise LocalServerError("this server has been started already")
            self._closing.clear()
            if self.installation is None:
                self.installation = require()
            self.installation.check()
            for name, port in self._wanted.items():
                if port:
                    ports.check(port, name)
            try:
                self._prepare(self.installation)
                picked = iter(ports.pick(3))
                self._ports = {name: port or next(picked) for name, port in self._wanted.items()}
                self._launch(self.installation)
            except BaseException:
                self.stop(grace=False)
                raise
        return self

    def restart(self) -> None:
        """Ends the server at once and starts it on the same ports; calls in flight fail as if it had died.

        Raises:
            LocalServerError: if it does not start, or has been stopped for good.
        """
        with self._lock:
            if self._scratch is None or self.installation is None:
                raise LocalServerError("this server has been stopped: start it again")
            self._end("kill")
            self._launch(self.installation)

    def stop(self, grace: bool = True) -> None:
        """Ends the server and removes all that it left; calls in flight may finish within five seconds unless
        `grace` is False. Nothing to do if it does not run."""
        # A restart in another thread gives up and lets go of the lock.
        self._closing.set()
        with self._lock:
            try:
                self._end("stop" if grace else "kill")
            finally:
                scratch, self._scratch = self._scratch, None
                if scratch is not None:
                    shutil.rmtree(scratch, ignore_errors=True)

    def ready(self) -> bool:
        """Whether the server says that it and every model are ready; a model whose process has died still does."""
        connection = http.client.HTTPConnection(ports.HOST, self._ports["http"], timeout=2)
        try:
            connection.request("GET", "/v2/health/ready", headers={"Connection": "close"})
            return connection.getresponse().status == 200
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _address(self, kind: str) -> str:
        if not self._ports:
            raise LocalServerError("this server has not been started")
        return f"{ports.HOST}:{self._ports[kind]}"

    def _in_scratch(self, name: str) -> Path:
        if self._scratch is None:
            raise LocalServerError("this server does not run")
        return self._scratch / name

    def _prepare(self, installation: Installation) -> None:
        """Writes what the server reads, in a scratch folder."""
        self._scratch = Path(tempfile.mkdtemp(prefix=supervisor.PREFIX))
        backend = self._scratch / "backends" / "python"
        backend.mkdir(parents=True)
        for file in installation.backend_files():
            shutil.copy2(file, backend)
        (backend / "triton_python_backend_stub").chmod(0o755)
        if _BACKENDS.is_dir():
            for own in _BACKENDS.iterdir():
                if (own / "model.py").is_file():
                    shutil.copytree(own, backend.parent / own.name, ignore=shutil.ignore_patterns("__pycache__"))
        if isinstance(self.source, Bundle):
            from serving.repository import write_repository

            write_repository(self.source, self._scratch / "models")

    def _command(self, installation: Installation) -> list[str]:
        root = installation.root
        closed = _RESTRICTED if self.shared_memory else (*_RESTRICTED, "shared-memory")
        # Nobody holds this key: what it closes stays closed, to who cannot read the command lines of processes.
        key = secrets.token_urlsafe(24)
        command = [
            str(root / "bin" / "tritonserver"),
            f"--model-repository={self.repository.resolve()}",
            f"--backend-directory={self._in_scratch('backends')}",
            f"--cache-directory={root / 'caches'}",
            *(
                ("--model-control-mode=poll", "--repository-poll-secs=1")
                if self.poll
                else ("--model-control-mode=none",)
            ),
            "--model-config-name=cpu",
            "--disable-auto-complete-config",
            "--allow-gpu-metrics=false",
            "--exit-timeout-secs=4",
            "--backend-config=python,shm-region-prefix-name={prefix}",
            f"--http-restricted-api={','.join(closed)}:edgedit-closed={key}",
            f"--grpc-restricted-protocol={','.join(closed)}:edgedit-closed={key}",
        ]
        for name, port in self._ports.items():
            command += [f"--{name}-address={ports.HOST}", f"--{name}-port={port}"]
        return [*command, *self.arguments]

    def _launch(self, installation: Installation) -> None:
        for left in reversed(range(_STARTS)):
            try:
                return self._launch_once(installation)
            except _Crashed:
                if not left:
                    raise

    def _launch_once(self, installation: Installation) -> None:
        scratch = self._in_scratch("")
        order = {
            "command": self._command(installation),
            # Nothing of the caller's own environment: the server needs none of it.
            "environment": {
                "PATH": f"{installation.stub / 'bin'}:/usr/bin:/bin",
                "LD_LIBRARY_PATH": installation.library_path,
                "HOME": str(scratch),
                "LANG": "C.UTF-8",
                "OMP_NUM_THREADS": "1",
                "ORT_DISABLE_TELEMETRY": "1",
                "PYTHONDONTWRITEBYTECODE": "1",
                "CUDA_VISIBLE_DEVICES": "-1",  # It answers from the CPU, also where there is a GPU.
            },
            "scratch": str(scratch),
            "log": str(self.log.resolve()),
            "grace": 5.0,
            "caller": os.getpid(),
        }
        start = time.monotonic()
        process = subprocess.Popen(
            [sys.executable, "-I", "-S", str(_HERE / "supervisor.py")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        assert process.stdin is not None and process.stdout is not None
        self._process = process
        written = self.log.stat().st_size if self.log.exists() else 0
        process.stdin.write(json.dumps(order).encode() + b"\n")
        process.stdin.flush()
        said = json.loads(process.stdout.readline() or b"{}")
        self._pid, self.prefix = said.get("pid"), said.get("prefix", "")
        try:
            self._wait_ready(start, written)
        except BaseException:
            self._end("kill")
            raise
        self.ready_seconds = time.monotonic() - start

    def _wait_ready(self, start: float, written: int) -> None:
        # The endpoints open one after the other, metrics after the HTTP that says ready.
        while not (self.ready() and all(map(ports.answered, self._ports.values()))):
            if self._closing.is_set():
                raise LocalServerError("the development server was stopped while it started")
            if not self.alive:
                code = self._exit_code()
                why = failure.reason(self.log, written, code)
                kind = _Crashed if failure.starved(why, code) else LocalServerError
                raise kind(f"the development server did not start: {why}")
            if time.monotonic() - start > self.ready_timeout:
                why = failure.reason(self.log, written, None)
                raise LocalServerError(f"the development server was not ready after {self.ready_timeout:g} s: {why}")
            time.sleep(0.02)

    def _exit_code(self) -> int | None:
        """The exit code of a server that has ended, below 0 for a signal; None if the supervisor does not say."""
        assert self._process is not None and self._process.stdout is not None
        return json.loads(self._process.stdout.readline() or b"{}").get("exit")

    def _end(self, how: str) -> None:
        process, pid = self._process, self._pid
        self._process = self._pid = None
        if process is None or process.stdin is None or process.stdout is None:
            return
        with contextlib.suppress(OSError):
            process.stdin.write(how.encode() + b"\n")
            process.stdin.flush()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        for stream in (process.stdin, process.stdout):
            with contextlib.suppress(OSError):
                stream.close()
        if process.returncode and pid is not None:
            # The supervisor was killed: what it would have done is left to this process.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGKILL)
            supervisor.remove_regions(self.prefix)
