"""The image's program with a real Triton: it starts, its probes infer, and a dead stub is seen."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from engines.bundle import Bundle
from serving.deploy import probe
from serving.deploy.probe import Probe, ProbeError
from serving.local import ports
from serving.local.install import Installation

pytestmark = pytest.mark.triton
BACKENDS = Path(__file__).resolve().parents[3] / "serving" / "backends"


class Started:
    """The image's program, become tritonserver."""

    def __init__(self, process: subprocess.Popen[bytes], http: int, grpc: int, log: Path) -> None:
        self.process, self.http, self.grpc, self.log = process, http, grpc, log

    def wait(self) -> None:
        deadline = time.monotonic() + 180
        while time.monotonic() < deadline:
            assert self.process.poll() is None, self.log.read_text()[-3000:]
            try:
                Probe("127.0.0.1", self.http, 30).infer()
                return
            except ProbeError:
                time.sleep(0.2)
        raise AssertionError(self.log.read_text()[-3000:])

    def stubs(self, model: str) -> list[int]:
        """Processes of the group whose command line names a model's stub."""
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                try:
                    line = (entry / "cmdline").read_bytes().decode(errors="replace")
                    group = os.getpgid(int(entry.name))
                except OSError:
                    continue
                if group == self.process.pid and "triton_python_backend_stub" in line and f"/{model}/" in line:
                    found.append(int(entry.name))
        return found


@pytest.fixture
def started(
    pipelines: Path, development_server: Installation, image_root: Callable[[Path], Path], tmp_path: Path
) -> Iterator[Started]:
    """The random bundle, served from the files that the Dockerfile copies."""
    from serving.repository import write_repository

    image = image_root(write_repository(Bundle.load(pipelines), tmp_path / "written"))
    backends = tmp_path / "backends"
    (backends / "python").mkdir(parents=True)
    for file in development_server.backend_files():
        shutil.copy2(file, backends / "python")
    (backends / "python" / "triton_python_backend_stub").chmod(0o755)
    shutil.copytree(BACKENDS / "onnxruntime", backends / "onnxruntime")
    http, grpc, metrics = ports.pick(3)
    environment = {
        "PATH": f"{development_server.stub / 'bin'}:/usr/bin:/bin",
        "LD_LIBRARY_PATH": development_server.library_path,
        "HOME": str(tmp_path),
        "OMP_NUM_THREADS": "1",
        "CUDA_VISIBLE_DEVICES": "-1",
        "EDGEDIT_DEVICE": "cpu",
        "EDGEDIT_MODELS": str(image / "models"),
        "EDGEDIT_EXIT_SECONDS": "3",
        "EDGEDIT_TRITONSERVER": str(development_server.root / "bin" / "tritonserver"),
    }
    log = tmp_path / "log"
    own = [f"--backend-directory={backends}", f"--http-port={http}", f"--grpc-port={grpc}", f"--metrics-port={metrics}"]
    with log.open("wb") as stream:
        process = subprocess.Popen(
            [sys.executable, "-S", "-m", "serving.deploy", *own],
            cwd=image / "opt" / "edgedit",
            env=environment,
            stdout=stream,
            stderr=stream,
            start_new_session=True,
        )
    server = Started(process, http, grpc, log)
    try:
        server.wait()
        yield server
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(30)
        from serving.deploy.start import sweep_shm

        sweep_shm()


def test_serves_is_closed_and_a_dead_stub_is_seen(started: Started) -> None:
    ask = ["--port", str(started.http), "--timeout", "30"]
    assert probe.main(["live", *ask]) == 0 and probe.main(["infer", *ask]) == 0

    # What changes or shows the server is closed, over both protocols.
    grpcclient = pytest.importorskip("tritonclient.grpc", reason="tritonclient is not installed")
    httpclient = pytest.importorskip("tritonclient.http", reason="tritonclient is not installed")
    for library, port in ((grpcclient, started.grpc), (httpclient, started.http)):
        client = library.InferenceServerClient(f"127.0.0.1:{port}")
        closed = (
            client.get_system_shared_memory_status,
            client.get_model_repository_index,
            client.get_log_settings,
            client.get_trace_settings,
            client.get_inference_statistics,
        )
        for call in closed:
            with pytest.raises(library.InferenceServerException, match=r"restricted|not available|allowed"):
                call()
        assert client.get_model_config("edit_session")  # what clients need stays
        client.close()

    # A stub that died: its server may go on saying that it is ready, the probe does not.
    (stub,) = started.stubs("edit_session")
    os.kill(stub, signal.SIGKILL)
    time.sleep(0.5)
    assert probe.main(["live", *ask]) == 1
    assert probe.main(["infer", *ask]) == 1

    # SIGTERM reaches the server, which is this very process, and it ends in its own time.
    started.process.send_signal(signal.SIGTERM)
    started.process.wait(60)
    assert probe.main(["live", *ask]) == 1


def test_probes_of_what_is_no_triton(capsys: pytest.CaptureFixture[str]) -> None:
    (port,) = ports.pick(1)
    for what in ("live", "infer"):
        assert probe.main([what, "--port", str(port)]) == 1
        assert capsys.readouterr().err.startswith("no answer: ")
