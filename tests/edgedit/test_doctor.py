"""The doctor's findings of this machine, and of machines that lack something."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from edgedit import doctor
from engines import cpus
from engines.memory import memory
from engines.packages import FACE_DETECTOR
from tests.edgedit.conftest import Cli


def test_it_edits_a_photo(cli: Cli, bundle_path: Path, tmp_path: Path) -> None:
    report = tmp_path / "machine.json"
    done = cli("doctor", "-b", bundle_path, "--json", report)
    assert (done.status, done.err) == (0, "") and "photos can be edited here" in done.out
    told = json.loads(report.read_text())
    found = {one["name"]: one for one in told["findings"]}
    assert told["works"] and "an edit took" in found["self-test"]["detail"]
    assert f"{cpus.usable()} cores" in found["processor"]["detail"]
    assert "CPUExecutionProvider" in found["ONNX Runtime"]["detail"] and "edgedit" in told["versions"]
    assert {"memory", "GPU", "TensorRT", "TensorRT-RTX", "OpenVINO", "PyTorch", "bundle", "face detector"} <= set(found)
    assert {"generator", "cache folder", "Content Credentials", "development server"} <= set(found)
    assert str(Path.home()) not in report.read_text() or Path.home() == Path("/")
    # What is missing comes with what gets it, printed as it is to be typed: `edgedit[train]` is not a style's name.
    missing = [one for one in told["findings"] if one["state"] != "good"]
    assert all(one["remedy"] for one in missing if one["name"].startswith("extra "))
    assert all(one["remedy"] in done.out for one in missing if one["remedy"])


def test_a_damaged_bundle_is_an_exit_status(cli: Cli, own_bundle: Path) -> None:
    shutil.rmtree(own_bundle / "graphs")
    done = cli("doctor", "-b", own_bundle)
    assert done.status == 1 and "photos cannot be edited here: self-test:" in done.error
    assert "nowhere is not a bundle" in cli("doctor", "--quick", "-b", "nowhere").error


def test_what_is_missing_is_told_with_its_command(
    cli: Cli, no_index: Path, bundle_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(type(FACE_DETECTOR), "installed", lambda self: None)
    done = cli("doctor", "--quick", "-b", bundle_path)
    assert done.status == 1 and FACE_DETECTOR.install in done.error
    # Looking fetches nothing and makes nothing.
    assert not (no_index.parent / "cache").exists()


def test_without_the_library_pictures_are_told_to_be_unsigned(monkeypatch: pytest.MonkeyPatch) -> None:
    version = doctor._version
    monkeypatch.setattr(doctor, "_version", lambda name: None if name == "c2pa-python" else version(name))
    finding = doctor._credentials()
    assert finding.state == "absent" and finding.remedy == "pip install 'edgedit[credentials]'"


def test_memory_and_instructions_of_other_machines(tmp_path: Path) -> None:
    assert memory(tmp_path) == (None, None) and cpus.features(tmp_path) == []
    (tmp_path / "proc" / "self").mkdir(parents=True)
    (tmp_path / "proc" / "meminfo").write_text("MemTotal: 8000 kB\nMemFree: 10 kB\nMemAvailable: 4000 kB\n")
    (tmp_path / "proc" / "cpuinfo").write_text("model name\t: X\nFeatures\t: fp asimd asimddp crc32\n")
    assert memory(tmp_path) == (8000 * 1024, 4000 * 1024) and cpus.features(tmp_path) == ["asimd", "asimddp"]
    (tmp_path / "proc" / "self" / "cgroup").write_text("0::/\n")
    mount = "30 23 0:27 / /sys/fs/cgroup rw - cgroup2 cgroup rw\n"
    (tmp_path / "proc" / "self" / "mountinfo").write_text(mount)
    group = tmp_path / "sys" / "fs" / "cgroup"
    group.mkdir(parents=True)
    (group / "memory.max").write_text("1000000\n")
    (group / "memory.current").write_text("400000\n")
    assert memory(tmp_path) == (1_000_000, 600_000)
