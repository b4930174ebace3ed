"""The gateways' sidecar, run as it stands, in front of small gRPC servers that say who they are.

Ports and addresses are the test's, everything else is the file's.
"""

from __future__ import annotations

import json
import subprocess
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent import futures
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgedit.editor import open_bundle
from serving.client import Client
from serving.client.deadline import Deadline, pauses
from serving.contract import HANDLE_HEADER
from serving.local import ports
from serving.local.install import Installation
from serving.local.server import LocalTriton
from tests.random_bundle import RANDOM_BUNDLE
from tests.serving.deploy.conftest import KUBERNETES

grpc = pytest.importorskip("grpc", reason="gRPC is not installed (pip install 'edgedit[serve]')")
yaml = pytest.importorskip("yaml", reason="PyYAML is not installed (pip install -r requirements/deploy.lock)")

INFER = "/inference.GRPCInferenceService/ModelInfer"
HEALTH = "/grpc.health.v1.Health/Check"
SERVING, NOT_SERVING = b"\x08\x01", b"\x08\x02"
CONFIG = KUBERNETES / "base" / "envoy.yaml"


class Backend(grpc.GenericRpcHandler):
    """Answers any inference with its name and the size of the request, and says how it is."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.health = SERVING
        self.deadlines: list[float] = []
        self.start()

    def service(self, details: Any) -> Any:
        answers = {INFER: self.infer, HEALTH: lambda request, context: self.health}
        if details.method in answers:
            return grpc.unary_unary_rpc_method_handler(answers[details.method])
        return None

    def infer(self, request: bytes, context: Any) -> bytes:
        self.deadlines.append(context.time_remaining())
        return json.dumps([self.port, len(request)]).encode()

    def start(self) -> None:
        self.server = grpc.server(
            futures.ThreadPoolExecutor(4), options=[("grpc.max_receive_message_length", -1), ("grpc.so_reuseport", 0)]
        )
        self.server.add_generic_rpc_handlers((self,))
        assert self.server.add_insecure_port(f"127.0.0.1:{self.port}")
        self.server.start()

    def stop(self) -> None:
        self.server.stop(None).wait()


class Envoy:
    """One sidecar."""

    def __init__(self, program: str, folder: Path, backends: list[int]) -> None:
        self.port, self.admin, own_admin = ports.pick(3)
        config = yaml.safe_load(CONFIG.read_text())
        listeners = config["static_resources"]["listeners"]
        triton, admin = config["static_resources"]["clusters"]
        for listener, port in zip(listeners, (self.port, self.admin), strict=True):
            listener["address"]["socket_address"] |= {"address": "127.0.0.1", "port_value": port}
        config["admin"]["address"]["socket_address"]["port_value"] = own_admin
        admin["load_assignment"]["endpoints"][0]["lb_endpoints"] = [endpoint(own_admin)]
        triton["load_assignment"]["endpoints"][0]["lb_endpoints"] = [endpoint(port) for port in backends]
        # Sooner than in production, so that the test does not wait.
        triton["health_checks"][0] |= {"interval": "0.2s", "no_traffic_interval": "0.2s"}
        path = folder / f"envoy-{self.port}.yaml"
        path.write_text(yaml.safe_dump(config))
        command = [program, "-c", str(path), "--log-level", "error", "--concurrency", "1", "--disable-hot-restart"]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.channel = grpc.insecure_channel(
            f"127.0.0.1:{self.port}", options=[("grpc.max_send_message_length", -1), ("grpc.enable_http_proxy", 0)]
        )
        self.call = self.channel.unary_unary(INFER)

    def ask(self, handle: str | None, body: bytes = b"", timeout: float = 20) -> list[int]:
        metadata = [] if handle is None else [(HANDLE_HEADER, handle)]
        return json.loads(self.call(body, timeout=timeout, metadata=metadata))

    def get(self, path: str, method: str = "GET") -> tuple[int, str]:
        request = urllib.request.Request(f"http://127.0.0.1:{self.admin}{path}", method=method)
        try:
            with urllib.request.urlopen(request, timeout=20) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, ""

    def wait(self, healthy: int) -> None:
        """Until so many backends are healthy."""
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            with suppress(OSError):
                text = self.get("/stats/prometheus")[1]
                if f'envoy_cluster_membership_healthy{{envoy_cluster_name="triton"}} {healthy}\n' in text:
                    return
            time.sleep(0.1)
        raise AssertionError(f"there are not {healthy} healthy backends after a minute")

    def stop(self) -> None:
        self.channel.close()
        self.process.terminate()
        self.process.wait(30)


def endpoint(port: int) -> dict[str, Any]:
    return {"endpoint": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": port}}}}


@pytest.fixture
def backends() -> Iterator[list[Backend]]:
    started = [Backend(port) for port in ports.pick(3)]
    yield started
    for backend in started:
        backend.stop()


@pytest.fixture
def envoys(program: Callable[[str], str], backends: list[Backend], tmp_path: Path) -> Iterator[list[Envoy]]:
    """Two of them, as of two gateways."""
    started = [Envoy(program("envoy"), tmp_path, [backend.port for backend in backends]) for _ in range(2)]
    try:
        for envoy in started:
            envoy.wait(healthy=3)
        yield started
    finally:
        for envoy in started:
            envoy.stop()


HANDLES = [f"{number:032x}" for number in range(90)]


def homes(envoy: Envoy) -> dict[str, int]:
    return {handle: envoy.ask(handle)[0] for handle in HANDLES}


def test_the_file_is_valid(program: Callable[[str], str]) -> None:
    command = [program("envoy"), "--mode", "validate", "-c", str(CONFIG)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]


def test_it_routes_by_what_the_client_sends() -> None:
    """In every route to Triton: a header of another name would leave each request to chance, and nobody would see."""
    text = CONFIG.read_text()
    (policy,) = (
        route["route"]["hash_policy"]
        for listener in yaml.safe_load(text)["static_resources"]["listeners"]
        for chain in listener["filter_chains"]
        for one in chain["filters"]
        for host in one["typed_config"]["route_config"]["virtual_hosts"]
        for route in host["routes"]
        if route["route"]["cluster"] == "triton"
    )
    assert policy == [{"header": {"header_name": HANDLE_HEADER}}]


def test_sessions_have_a_home(envoys: list[Envoy], backends: list[Backend]) -> None:
    """A handle goes to one pod, whichever gateway asks; handles spread over all of them."""
    first = homes(envoys[0])
    assert homes(envoys[0]) == first and homes(envoys[1]) == first
    counts = Counter(first.values())
    assert set(counts) == {backend.port for backend in backends} and min(counts.values()) >= 10
    # What has no handle goes anywhere.
    assert len({envoys[0].ask(None)[0] for _ in range(60)}) == 3


def test_a_pod_dies(envoys: list[Envoy], backends: list[Backend]) -> None:
    """Its sessions move, the others stay, and what fails on a connection as it ends may be asked again, as the client
    does."""
    envoy, dead = envoys[0], backends[1]
    before = homes(envoy)
    dead.stop()
    at_once = {}
    for handle in HANDLES:  # It is found out by the requests themselves, which are sent again elsewhere.
        delays = pauses(2, Deadline(60))
        while handle not in at_once:
            try:
                at_once[handle] = envoy.ask(handle)[0]
            except grpc.RpcError as error:
                assert error.code() == grpc.StatusCode.UNAVAILABLE
                delay = next(delays, None)
                assert delay is not None, error
                time.sleep(delay)
    envoy.wait(healthy=2)
    later = homes(envoy)
    others = [handle for handle, home in before.items() if home != dead.port]
    for after in (at_once, later):
        assert set(after.values()) == {backends[0].port, backends[2].port}
        assert sum(after[handle] != before[handle] for handle in others) <= len(others) // 20
    dead.start()
    envoy.wait(healthy=3)
    assert homes(envoy) == before


def test_a_pod_that_is_not_ready_gets_nothing(envoys: list[Envoy], backends: list[Backend]) -> None:
    backends[2].health = NOT_SERVING
    envoys[0].wait(healthy=2)
    assert backends[2].port not in homes(envoys[0]).values()


def test_no_pod_is_unavailable_at_once(envoys: list[Envoy], backends: list[Backend]) -> None:
    for backend in backends:
        backend.health = NOT_SERVING
    envoys[0].wait(healthy=0)
    with pytest.raises(grpc.RpcError) as raised:
        envoys[0].ask(HANDLES[0])
    assert raised.value.code() == grpc.StatusCode.UNAVAILABLE


def test_photos_and_deadlines_pass(envoys: list[Envoy], backends: list[Backend]) -> None:
    photo = bytes(3 * 1024 * 1024 + 500)
    port, size = envoys[0].ask(HANDLES[0], photo, timeout=7)
    assert size == len(photo)
    (home,) = (backend for backend in backends if backend.port == port)
    assert 0 < home.deadlines[-1] <= 7
    envoys[0].ask(HANDLES[0], timeout=3600)
    assert home.deadlines[-1] > 7


def test_what_is_seen_from_outside(envoys: list[Envoy]) -> None:
    """Readiness and metrics; nothing that shows or changes the configuration."""
    assert envoys[0].get("/ready")[0] == 200
    assert "envoy_cluster_upstream_rq" in envoys[0].get("/stats/prometheus")[1]
    for path, method in (("/config_dump", "GET"), ("/quitquitquit", "POST"), ("/ready", "POST"), ("/logging", "POST")):
        assert envoys[0].get(path, method)[0] == 404
    assert envoys[0].process.poll() is None


@pytest.mark.triton
def test_a_photo_is_inverted_once_whichever_triton_holds_it(
    program: Callable[[str], str], triton: LocalTriton, development_server: Installation, tmp_path: Path
) -> None:
    """The client says where it belongs from the first request on: no inversion is lost and made again elsewhere."""
    sidecar, bundle = program("envoy"), open_bundle(RANDOM_BUNDLE)
    crops = np.random.default_rng(3).integers(0, 256, (12, *bundle.family.image_shape, 3), np.uint8)

    def inverted(server: LocalTriton) -> int:
        with urllib.request.urlopen(f"http://{server.http}/v2/models/invert/stats", timeout=60) as answer:
            return json.load(answer)["model_stats"][0]["inference_count"]

    with LocalTriton(bundle, installation=development_server) as other:
        both = triton, other
        envoy = Envoy(sidecar, tmp_path, [int(server.grpc.rpartition(":")[2]) for server in both])
        try:
            envoy.wait(healthy=2)
            before = [inverted(server) for server in both]
            with Client(f"127.0.0.1:{envoy.port}", timeout=240) as client:
                # Handles alone: without the photo, one that comes to the wrong server fails.
                handles = [client.invert(crop, aligned=True).id for crop in crops]
                for handle in handles:
                    client.edit(handle, {"smile": 1})
                    assert len(list(client.sweep(handle, "smile", -1, 1, 3))) == 3
            counts = [inverted(server) - count for server, count in zip(both, before, strict=True)]
        finally:
            envoy.stop()
    assert sum(counts) == len(crops) and min(counts) > 0
