"""The rendered resources: of the schema, and with what a user would miss at the first incident."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import tyro

from serving.deploy import start
from serving.deploy.start import StartSettings
from tests.serving.deploy.conftest import DEPLOY, OVERLAYS

Resources = list[dict[str, Any]]
Render = Callable[[str], Resources]
NAMES = sorted(OVERLAYS)
VERSIONS = ("1.33", "1.37")
"""The oldest Kubernetes these files are for, and the newest that the schemas know."""

_UNITS = {"": 1, "m": 1e-3, "k": 1e3, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30}


def quantity(text: str | int) -> float:
    number, unit = re.fullmatch(r"([\d.]+)(\D*)", str(text)).groups()  # type: ignore[union-attr]
    return float(number) * _UNITS[unit]


def of_kind(resources: Resources, kind: str) -> dict[str, dict[str, Any]]:
    return {resource["metadata"]["name"]: resource for resource in resources if resource["kind"] == kind}


def pods(resources: Resources) -> Iterator[tuple[str, dict[str, Any]]]:
    for name, deployment in of_kind(resources, "Deployment").items():
        yield name, deployment["spec"]["template"]["spec"]


def containers(resources: Resources) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    for _, pod in pods(resources):
        for container in (*pod.get("initContainers", []), *pod["containers"]):
            yield pod, container


def environment(container: dict[str, Any]) -> dict[str, str]:
    return {entry["name"]: entry["value"] for entry in container.get("env", [])}


@pytest.fixture(params=NAMES)
def resources(request: pytest.FixtureRequest, rendered: Render) -> Resources:
    return rendered(request.param)


@pytest.mark.parametrize("version", VERSIONS)
def test_schema(resources: Resources, version: str) -> None:
    validator = pytest.importorskip(
        "kubernetes_validate", reason="not installed (pip install -r requirements/deploy.lock)"
    )
    checked = 0
    for resource in resources:
        if "monitoring.coreos.com" not in resource["apiVersion"]:
            validator.validate(resource, version, strict=True)
            checked += 1
    assert checked >= 13
    broken = {**resources[0], "spec": {"replicas": "two"}, "metadata": 3}
    with pytest.raises(validator.ValidationError):
        validator.validate(broken, version, strict=True)


def test_there_is_one_of_each(resources: Resources) -> None:
    identities = [(r["kind"], r["metadata"].get("namespace"), r["metadata"]["name"]) for r in resources]
    assert len(set(identities)) == len(identities)
    assert {r["metadata"].get("namespace", "edgedit") for r in resources} == {"edgedit"}
    assert set(of_kind(resources, "Deployment")) == {"triton", "gateway"}


def test_every_container_is_bounded_and_probed(resources: Resources) -> None:
    seen = set()
    for _, container in containers(resources):
        seen.add(container["name"])
        for bound in ("requests", "limits"):
            assert {"cpu", "memory", "ephemeral-storage"} <= container["resources"][bound].keys(), container["name"]
        for name, amount in container["resources"]["requests"].items():
            assert quantity(amount) <= quantity(container["resources"]["limits"][name])
        assert "livenessProbe" in container and "startupProbe" in container
        if container.get("restartPolicy") != "Always":
            assert "readinessProbe" in container
        # What cannot answer in the probe's own second is not dead.
        assert all(container[p]["timeoutSeconds"] > 1 for p in ("livenessProbe",))
    assert seen == {"triton", "gateway", "envoy"}


def test_no_container_can_become_root(resources: Resources) -> None:
    for pod, container in containers(resources):
        assert pod["securityContext"]["runAsNonRoot"] and pod["securityContext"]["runAsUser"] == 1000
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert pod["automountServiceAccountToken"] is False and pod["serviceAccountName"] != "default"
        own = container["securityContext"]
        assert own["allowPrivilegeEscalation"] is False and own["readOnlyRootFilesystem"] is True
        assert own["capabilities"] == {"drop": ["ALL"]} and not own.get("privileged")
        assert not {"hostNetwork", "hostPID", "hostIPC"} & pod.keys()
    labels = of_kind(resources, "Namespace")["edgedit"]["metadata"]["labels"]
    assert labels["pod-security.kubernetes.io/enforce"] == "restricted"


@pytest.mark.parametrize("name", ["development", "production"])
def test_images_have_a_tag(rendered: Render, name: str) -> None:
    for _, container in containers(rendered(name)):
        assert re.fullmatch(r"[a-z/-]+:(?!latest$)[\w.-]+", container["image"]), container["image"]


def test_what_is_written_to_is_mounted(resources: Resources) -> None:
    """With a read-only root, every folder that the image's program writes to is a volume."""
    triton = dict(pods(resources))["triton"]
    (container,) = triton["containers"]
    mounts = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
    settings = StartSettings.read(environment(container))
    assert {str(settings.engines), str(settings.run), "/tmp", str(start.SHM)} <= mounts.keys()
    volumes = {volume["name"]: volume for volume in triton["volumes"]}
    assert set(mounts.values()) == volumes.keys()
    shm = volumes[mounts["/dev/shm"]]["emptyDir"]
    assert shm["medium"] == "Memory"
    # It counts as the container's memory.
    assert 2**30 <= quantity(shm["sizeLimit"]) < quantity(container["resources"]["limits"]["memory"]) / 2 + 1


def test_selectors_match(resources: Resources) -> None:
    labels = [d["spec"]["template"]["metadata"]["labels"] for d in of_kind(resources, "Deployment").values()]

    def matching(selector: dict[str, str]) -> int:
        return sum(selector.items() <= pod.items() for pod in labels)

    for deployment in of_kind(resources, "Deployment").values():
        assert matching(deployment["spec"]["selector"]["matchLabels"]) == 1
        for constraint in deployment["spec"]["template"]["spec"]["topologySpreadConstraints"]:
            assert matching(constraint["labelSelector"]["matchLabels"]) == 1
    for service in of_kind(resources, "Service").values():
        assert matching(service["spec"]["selector"]) == 1
    for kind in ("PodDisruptionBudget", "PodMonitor"):
        for resource in of_kind(resources, kind).values():
            assert matching(resource["spec"]["selector"]["matchLabels"]) == 1
    for name, policy in of_kind(resources, "NetworkPolicy").items():
        assert matching(policy["spec"]["podSelector"].get("matchLabels", {})) == (2 if name == "default-deny" else 1)
    assert set(of_kind(resources, "PodDisruptionBudget")) == {"triton", "gateway"}


def test_ports_match(resources: Resources) -> None:
    """Services, monitors and policies name ports that containers have."""
    named = {
        name: {
            p["name"]: p["containerPort"]
            for c in (*pod.get("initContainers", []), *pod["containers"])
            for p in c["ports"]
        }
        for name, pod in pods(resources)
    }
    for name, service in of_kind(resources, "Service").items():
        assert {port["targetPort"] for port in service["spec"]["ports"]} <= named[name].keys()
    for name, monitor in of_kind(resources, "PodMonitor").items():
        assert {endpoint["port"] for endpoint in monitor["spec"]["podMetricsEndpoints"]} <= named[name].keys()
    for name, policy in of_kind(resources, "NetworkPolicy").items():
        for rule in policy["spec"].get("ingress", []):
            assert {port["port"] for port in rule["ports"]} <= set(named[name].values())
    triton = named["triton"]
    assert triton == {"grpc": 8001, "metrics": 8002}  # Triton's own defaults, which the image keeps


def test_only_gateways_reach_triton(resources: Resources) -> None:
    policies = {name: policy["spec"] for name, policy in of_kind(resources, "NetworkPolicy").items()}
    assert policies["default-deny"] == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    grpc, metrics = policies["triton"]["ingress"]
    assert grpc["from"] == [{"podSelector": {"matchLabels": {"app.kubernetes.io/name": "gateway"}}}]
    assert [port["port"] for port in grpc["ports"]] == [8001] and [port["port"] for port in metrics["ports"]] == [8002]
    assert "egress" not in policies["triton"] and "Egress" in policies["triton"]["policyTypes"]
    reached = {port["port"] for rule in policies["gateway"]["egress"] for port in rule["ports"]}
    assert reached == {8001, 53}
    # HTTP, of which the admin interface of Triton is a part, stays on loopback.
    (container,) = dict(pods(resources))["triton"]["containers"]
    assert StartSettings.read(environment(container)).http_listen == "127.0.0.1"


def test_probes_infer(resources: Resources) -> None:
    everything = dict(pods(resources))
    (triton,), (gateway,) = everything["triton"]["containers"], everything["gateway"]["containers"]
    probe = ["python3", "-m", "serving.deploy.probe"]
    assert triton["startupProbe"]["exec"]["command"] == [*probe, "infer"]
    assert triton["livenessProbe"]["exec"]["command"] == [*probe, "live"]
    assert triton["readinessProbe"]["grpc"]["port"] == 8001
    # Engines may take an hour at the first start; no probe may end it before.
    startup = triton["startupProbe"]
    assert startup["failureThreshold"] * startup["periodSeconds"] >= 3600
    assert of_kind(resources, "Deployment")["triton"]["spec"]["progressDeadlineSeconds"] > 3600
    # A stub that died is seen and its container restarted in a minute; a moment's silence restarts nothing.
    liveness = triton["livenessProbe"]
    assert 30 <= liveness["failureThreshold"] * liveness["periodSeconds"] <= 120
    assert gateway["startupProbe"]["httpGet"]["path"] == gateway["readinessProbe"]["httpGet"]["path"] == "/readyz"
    # A gateway whose Triton is away is not restarted for it.
    assert gateway["livenessProbe"]["httpGet"]["path"] == "/healthz"


def test_triton_ends_with_grace(resources: Resources) -> None:
    pod = dict(pods(resources))["triton"]
    (container,) = pod["containers"]
    wait = container["lifecycle"]["preStop"]["sleep"]["seconds"]
    settings = StartSettings.read(environment(container))
    assert pod["terminationGracePeriodSeconds"] >= wait + settings.exit_seconds + 10
    # Envoy asks DNS every 5 s and a pod's health every 5 s, twice.
    assert wait >= 15


def test_gateway_is_started_as_it_can_be(resources: Resources) -> None:
    serve_gateway = pytest.importorskip("edgedit.commands.serve_gateway", reason="there is no gateway yet")
    pod = dict(pods(resources))["gateway"]
    (container,) = pod["containers"]
    verb = tyro.cli(serve_gateway.ServeGateway, args=container["args"])
    settings = verb.settings()
    assert settings.port == container["ports"][0]["containerPort"]
    assert pod["terminationGracePeriodSeconds"] >= settings.drain_delay + settings.drain_timeout + 10
    ready = container["readinessProbe"]
    # Balancers hear of the end before the socket closes, and the canary has its time.
    assert settings.drain_delay >= ready["periodSeconds"] * ready["failureThreshold"]
    assert ready["timeoutSeconds"] > settings.canary_timeout
    # Three copies of each decoded photo, and every body, see serving.gateway.settings.
    most = (
        settings.running * settings.megapixels * 1e6 * 9 + (settings.running + settings.waiting) * settings.body_bytes
    )
    assert quantity(container["resources"]["limits"]["memory"]) > most
    # Keys come from a secret that is not in these files.
    mount = next(m for m in container["volumeMounts"] if str(settings.api_keys).startswith(m["mountPath"]))
    volume = next(v for v in pod["volumes"] if v["name"] == mount["name"])
    assert mount["readOnly"] and f"{mount['mountPath']}/{volume['secret']['items'][0]['path']}" == str(
        settings.api_keys
    )
    assert not of_kind(resources, "Secret")


def test_gateway_speaks_to_its_envoy(resources: Resources) -> None:
    yaml = pytest.importorskip("yaml")
    pod = dict(pods(resources))["gateway"]
    (envoy,) = pod["initContainers"]
    assert envoy["restartPolicy"] == "Always"  # a sidecar: before the gateway, and after it
    volume = next(v for v in pod["volumes"] if v["name"] == envoy["volumeMounts"][0]["name"])
    config = of_kind(resources, "ConfigMap")[volume["configMap"]["name"]]
    assert volume["configMap"]["name"] != "envoy"  # the digest of its content is in its name
    bootstrap = yaml.safe_load(config["data"]["envoy.yaml"])
    triton, admin = (entry["address"]["socket_address"] for entry in bootstrap["static_resources"]["listeners"])
    (container,) = pod["containers"]
    assert f"--triton={triton['address']}:{triton['port_value']}" in container["args"]
    assert (
        triton["address"] == "127.0.0.1" and bootstrap["admin"]["address"]["socket_address"]["address"] == "127.0.0.1"
    )
    assert admin["port_value"] == envoy["ports"][0]["containerPort"]
    upstream = bootstrap["static_resources"]["clusters"][0]["load_assignment"]["endpoints"][0]["lb_endpoints"][0]
    address = upstream["endpoint"]["address"]["socket_address"]
    service = of_kind(resources, "Service")[address["address"]]
    assert service["spec"]["clusterIP"] == "None"  # headless: Envoy sees the pods
    assert address["port_value"] in {port["port"] for port in service["spec"]["ports"]}


@pytest.mark.parametrize("name", ["base", "production"])
def test_scaling(rendered: Render, name: str) -> None:
    resources = rendered(name)
    scalers = of_kind(resources, "HorizontalPodAutoscaler")
    assert set(scalers) == {"triton", "gateway"}
    for scaler in scalers.values():
        assert scaler["apiVersion"] == "autoscaling/v2"
        target = scaler["spec"]["scaleTargetRef"]
        # The scaler sets the replicas: a number in the file would undo it at every apply.
        assert "replicas" not in of_kind(resources, target["kind"])[target["name"]]["spec"]
        assert scaler["spec"]["minReplicas"] < scaler["spec"]["maxReplicas"]
    if name == "production":
        assert all(scaler["spec"]["minReplicas"] >= 2 for scaler in scalers.values())


def test_gpus(rendered: Render) -> None:
    for name in NAMES:
        (container,) = dict(pods(rendered(name)))["triton"]["containers"]
        bounds = [container["resources"][bound].get("nvidia.com/gpu") for bound in ("requests", "limits")]
        device = StartSettings.read(environment(container)).device
        assert (bounds, device) == (([None, None], "cpu") if name == "development" else (["1", "1"], "gpu"))


def test_production_keeps_its_engines(rendered: Render) -> None:
    resources = rendered("production")
    triton = dict(pods(resources))["triton"]
    (container,) = triton["containers"]
    engines = str(StartSettings.read(environment(container)).engines)
    mounted = next(m["name"] for m in container["volumeMounts"] if m["mountPath"] == engines)
    volume = next(volume for volume in triton["volumes"] if volume["name"] == mounted)
    assert volume == {"name": "plans", "persistentVolumeClaim": {"claimName": "plans"}}
    claim = of_kind(resources, "PersistentVolumeClaim")["plans"]
    assert claim["spec"]["accessModes"] == ["ReadWriteMany"]  # several pods, on several machines


def test_the_kserve_example_runs_the_same_container(rendered: Render) -> None:
    yaml = pytest.importorskip("yaml")
    validator = pytest.importorskip(
        "kubernetes_validate", reason="not installed (pip install -r requirements/deploy.lock)"
    )
    runtime, service = yaml.safe_load_all((DEPLOY / "examples" / "kserve.yaml").read_text())
    assert service["spec"]["predictor"]["model"]["runtime"] == runtime["metadata"]["name"]
    formats = {supported["name"] for supported in runtime["spec"]["supportedModelFormats"]}
    assert service["spec"]["predictor"]["model"]["modelFormat"]["name"] in formats
    pod = {key: runtime["spec"][key] for key in ("containers", "volumes")}
    validator.validate({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x"}, "spec": pod}, "1.37", strict=True)
    (example,), (own,) = pod["containers"], dict(pods(rendered("base")))["triton"]["containers"]
    for same in ("startupProbe", "livenessProbe"):
        assert example[same] == own[same]
    assert example["image"].split(":")[0] == own["image"]
    assert StartSettings.read(environment(example)).listen == "0.0.0.0"
