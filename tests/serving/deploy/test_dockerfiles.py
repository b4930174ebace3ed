"""The Dockerfiles: clean for hadolint, complete, without root, and nothing installed that is not pinned by a hash."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest
import tyro

from serving.deploy.start import StartSettings
from tests.serving.deploy.conftest import DEPLOY, ROOT, instructions

FILES = sorted(DEPLOY.glob("*.Dockerfile"))
TRITON, GATEWAY, JETSON = (DEPLOY / f"{name}.Dockerfile" for name in ("triton", "gateway", "jetson"))


def pins(lock: Path) -> dict[str, str]:
    """Version by name; every requirement has a hash."""
    text = "\n".join(line for line in lock.read_text().splitlines() if not line.startswith("#"))
    entries = re.split(r"\n(?=\S)", text.replace("\\\n", " ").strip())
    found = {}
    for entry in entries:
        match = re.match(r"([A-Za-z0-9._-]+)==(\S+)", entry)
        assert match and "--hash=sha256:" in entry, entry[:80]
        found[match[1]] = match[2]
    return found


def test_there_are_three() -> None:
    assert FILES == [GATEWAY, JETSON, TRITON]


def test_a_jetson_runs_the_same_program_within_a_memory_budget() -> None:
    """All that is copied is the same; the budget is one that the program understands."""
    jetson, triton = instructions(JETSON), instructions(TRITON)
    assert [pair for pair in jetson if pair[0] in ("COPY", "RUN")] == [
        pair for pair in triton if pair[0] in ("COPY", "RUN")
    ]
    assert json.loads(dict(jetson)["CMD"])[:3] == json.loads(dict(triton)["CMD"])
    variables = dict(word.split("=", 1) for word in shlex.split(dict(jetson)["ENV"]))
    assert StartSettings.read(variables).memory_budget == 10**9
    assert StartSettings.read({}).memory_budget is None


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_hadolint(path: Path, program: Callable[[str], str]) -> None:
    done = subprocess.run([program("hadolint"), "--format", "json", str(path)], capture_output=True, text=True)
    assert json.loads(done.stdout) == []


def test_hadolint_finds_something(tmp_path: Path, program: Callable[[str], str]) -> None:
    bad = tmp_path / "Dockerfile"
    bad.write_text("FROM debian\nRUN sudo apt-get install x\n")
    assert subprocess.run([program("hadolint"), str(bad)], capture_output=True).returncode


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_runs_as_user_1000(path: Path) -> None:
    words = instructions(path)
    last_stage = [pair for pair in words[[i for i, (word, _) in enumerate(words) if word == "FROM"][-1] :]]
    users = [rest for word, rest in last_stage if word == "USER"]
    assert users == ["1000:1000"]  # a number: Kubernetes cannot see that a name is not root
    after = [word for word, _ in last_stage[last_stage.index(("USER", "1000:1000")) :]]
    assert not {"RUN", "COPY", "ADD"} & set(after)
    assert "HEALTHCHECK" in after
    assert all(rest.startswith("[") for word, rest in last_stage if word in ("CMD", "ENTRYPOINT"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_base_images_have_a_tag(path: Path) -> None:
    arguments = dict(rest.split("=", 1) for word, rest in instructions(path) if word == "ARG" and "=" in rest)
    for image in (rest.split()[0] for word, rest in instructions(path) if word == "FROM"):
        name = arguments[image.strip("${}")]
        assert ":" in name and not name.endswith(":latest")


def test_the_registry_stands_in_one_place() -> None:
    """NVIDIA's images have no other name; nothing else here names a registry."""
    found = [
        (path.name, line)
        for path in sorted(DEPLOY.rglob("*"))
        if path.is_file() and "__pycache__" not in path.parts
        for line in path.read_text().splitlines()
        if re.search(r"\b(nvcr\.io|docker\.io|ghcr\.io|quay\.io|gcr\.io|registry\.k8s\.io)\b", line)
    ]
    assert found == [
        ("jetson.Dockerfile", "ARG TRITON_IMAGE=nvcr.io/nvidia/tritonserver:25.08-py3-igpu"),
        ("triton.Dockerfile", "ARG TRITON_IMAGE=nvcr.io/nvidia/tritonserver:26.11-py3"),
    ]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_the_context_holds_what_is_copied(path: Path) -> None:
    """Every source is there and let through by the ignore file; so is nothing else, keys and data among it."""
    ignored = path.with_name(f"{path.name}.dockerignore").read_text().splitlines()
    assert ignored[0] == "*"
    let_through = {line[1:].rstrip("/") for line in ignored if line.startswith("!")}
    sources = set()
    for word, rest in instructions(path):
        if word == "COPY" and not rest.startswith("--from"):
            *from_, _ = shlex.split(rest)
            sources |= {source.rstrip("/") for source in from_}
    for source in sources - {"models"}:  # what `edgedit serve repo` writes
        assert list(ROOT.glob(source)), source
        assert any(source == name or source.startswith(f"{name}/") for name in let_through), source
    assert {name.split("/")[0] for name in let_through} == {name.split("/")[0] for name in sources}


def test_the_gateways_packages_are_those_of_pyproject() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    extras = project["project"]["optional-dependencies"]
    wanted = [*project["project"]["dependencies"], *extras["serve"], *extras.get("gateway", [])]
    from packaging.requirements import Requirement

    locked = pins(DEPLOY / "gateway.lock")
    for requirement in map(Requirement, wanted):
        name = requirement.name.lower().replace("_", "-")
        if name == project["project"]["name"]:  # another of its own extras
            continue
        assert requirement.specifier.contains(locked[name]), f"{requirement}: run serving/deploy/lock.sh"
    assert {"fastapi", "uvicorn", "tritonclient"} <= locked.keys() and "torch" not in locked
    build = pins(DEPLOY / "build.lock")
    assert [f"{name}=={version}" for name, version in build.items()] == project["build-system"]["requires"]


def test_pip_installs_with_hashes_alone() -> None:
    text = GATEWAY.read_text()
    installs = re.findall(r"pip install ([^\\\n]*)", text)
    assert len(installs) == 3
    assert sum("--require-hashes" in line for line in installs) == 2
    assert all("--require-hashes" in line or "--no-index" in line for line in installs)


def test_the_gateways_command_is_one() -> None:
    """What ENTRYPOINT and CMD say is understood, and may listen beyond loopback since it has keys."""
    serve_gateway = pytest.importorskip("edgedit.commands.serve_gateway", reason="there is no gateway yet")
    words = dict(instructions(GATEWAY))
    assert json.loads(words["ENTRYPOINT"]) == ["edgedit", "serve", "gateway"]
    verb = tyro.cli(serve_gateway.ServeGateway, args=json.loads(words["CMD"]))
    assert (verb.host, str(verb.api_keys)) == ("0.0.0.0", "/run/secrets/edgedit/keys")
    assert verb.port == int(words["EXPOSE"])
