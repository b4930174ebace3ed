"""Keeps one server and cleans up behind it, whatever dies first: the server, its stubs, or whoever asked for it.

A script of the standard library alone, run by `serving.local.server` as a process of its own. Its standard input is a
pipe that the caller holds: the first line is the order as JSON, then "stop" or "kill"; the end of the pipe means that
the caller is gone. On standard output it says {"pid": ...} and, when all is cleaned up, {"exit": ...}.

- The server gets a process group of its own, and what it leaves behind becomes a child of this process: all of it is
  killed and waited for before its shared memory is removed.
- If this process is killed, the kernel kills the server; idle stubs then end by themselves. What remains in shared
  memory is removed by the next supervisor: it belongs to a lock file that nobody holds any more. That lock is not one
  of `engines.store`: the server and its stubs inherit the open file, and hold it until the last of them is gone.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import json
import os
import secrets
import select
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

SHARED_MEMORY = Path("/dev/shm")
PREFIX = "edgedit-triton-"
"""The start of the name of every shared-memory region and every scratch folder of a server."""

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_LOOK = 0.5
"""Seconds between looks at the caller: a pipe that a fork of the caller holds too does not end with the caller."""

_DRAINED = b"All models are stopped"
"""A line that Triton 2.51 logs once no call is in flight any more, before it ends its models one by one."""
_SENDING = 0.3


def sweep() -> None:
    """Removes what servers have left behind whose every process is gone."""
    for lock in SHARED_MEMORY.glob(f"{PREFIX}*.lock"):
        with contextlib.suppress(OSError), lock.open("r+") as held:
            if os.fstat(held.fileno()).st_uid != os.getuid():
                continue
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            scratch = Path(held.read().strip() or "/")
            if scratch.name.startswith(PREFIX):
                shutil.rmtree(scratch, ignore_errors=True)
            remove_regions(lock.stem)


def remove_regions(prefix: str) -> None:
    """Removes the shared memory of one server, its lock file last."""
    if not prefix.startswith(PREFIX):
        return
    for region in SHARED_MEMORY.glob(f"{prefix}*"):
        if region.suffix != ".lock":
            region.unlink(missing_ok=True)
    (SHARED_MEMORY / f"{prefix}.lock").unlink(missing_ok=True)


def _claim(scratch: str) -> tuple[str, int]:
    """A prefix for regions, and a descriptor whose lock says, in every process that inherits it, that it is in use."""
    while True:
        prefix = f"{PREFIX}{secrets.token_hex(4)}"
        path = SHARED_MEMORY / f"{prefix}.lock"
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        # Another's sweep may have taken it for a leftover before it was locked.
        if path.exists():
            os.write(descriptor, scratch.encode())
            return prefix, descriptor
        os.close(descriptor)


def _die_with(parent: int) -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def _say(**what: Any) -> None:
    with contextlib.suppress(OSError):
        os.write(1, json.dumps(what).encode() + b"\n")


class Supervisor:
    """One server, from its start until nothing of it is left."""

    def __init__(self, order: dict[str, Any], rest: bytes) -> None:
        self.order, self.rest = order, rest
        self.caller = order["caller"]
        self.gone = False

    def run(self) -> int:
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1)
        for name in (signal.SIGINT, signal.SIGHUP):
            signal.signal(name, signal.SIG_IGN)
        wake, woken = os.pipe()
        os.set_blocking(woken, False)
        signal.set_wakeup_fd(woken, warn_on_full_buffer=False)
        for name in (signal.SIGCHLD, signal.SIGTERM):
            signal.signal(name, lambda *_: None)
        sweep()
        prefix, lock = _claim(self.order["scratch"])
        code: int | None = None
        try:
            code = self._keep(prefix, lock, wake)
        finally:
            remove_regions(prefix)
            if self.gone:
                shutil.rmtree(self.order["scratch"], ignore_errors=True)
        _say(exit=code)
        return 0

    def _keep(self, prefix: str, lock: int, wake: int) -> int | None:
        me = os.getpid()
        with open(self.order["log"], "ab") as log:
            server = subprocess.Popen(
                [word.replace("{prefix}", prefix) for word in self.order["command"]],
                env=self.order["environment"],
                cwd=self.order["scratch"],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                pass_fds=(lock,),
                start_new_session=True,
                preexec_fn=lambda: _die_with(me),
            )
        try:
            _say(pid=server.pid, prefix=prefix)
            patience = self._watch(server, wake)
            if patience:
                self._drain(server, patience)
        finally:
            self._clear(server)
        return server.returncode

    def _watch(self, server: subprocess.Popen[bytes], wake: int) -> float:
        """Waits until the server has ended or shall end; returns the seconds it is then given."""
        while server.poll() is None:
            for line in self.rest.split(b"\n"):
                if line in (b"stop", b"kill"):
                    return self.order["grace"] if line == b"stop" else 0.0
            if os.getppid() != self.caller:
                self.gone = True
                return 0.0
            ready, _, _ = select.select([0, wake], [], [], _LOOK)
            if 0 in ready:
                read = os.read(0, 4096)
                self.gone = not read
                if self.gone:
                    return 0.0
                self.rest += read
            if wake in ready and signal.SIGTERM in os.read(wake, 4096):
                return self.order["grace"]
        return 0.0

    def _drain(self, server: subprocess.Popen[bytes], patience: float) -> None:
        """Lets calls in flight finish. What the server does after that takes it seconds, and a kill does it as well."""
        log = Path(self.order["log"])
        written = log.stat().st_size
        until = time.monotonic() + patience
        server.terminate()
        while server.poll() is None and time.monotonic() < until:
            with log.open("rb") as stream:
                stream.seek(written)
                if _DRAINED in stream.read():
                    # For the last answer to be on its way.
                    until = min(until, time.monotonic() + _SENDING)
                    break
            time.sleep(0.02)
        with contextlib.suppress(subprocess.TimeoutExpired):
            server.wait(max(until - time.monotonic(), 0))

    def _clear(self, server: subprocess.Popen[bytes]) -> None:
        """Kills and waits for all that the server has started: its orphans are children of this process."""
        if server.poll() is None:
            server.kill()
            server.wait()
        until = time.monotonic() + 10
        while time.monotonic() < until:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(server.pid, signal.SIGKILL)
            try:
                if os.waitpid(-1, os.WNOHANG) == (0, 0):
                    time.sleep(0.01)
            except ChildProcessError:
                return


def main() -> int:
    read = b""
    while b"\n" not in read:
        more = os.read(0, 65536)
        if not more:
            return 1
        read += more
    line, _, rest = read.partition(b"\n")
    return Supervisor(json.loads(line), rest).run()


if __name__ == "__main__":
    sys.exit(main())
