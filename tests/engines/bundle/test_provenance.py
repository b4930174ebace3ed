"""What a committed measurement says of itself."""

from __future__ import annotations

import datetime
import json
import os
from pathlib import Path

import pytest

from engines.bundle.provenance import peak_bytes, processor, provenance, tool_versions
from engines.cpus import usable
from engines.libraries import LIBRARIES
from engines.runtimes.backend import load


def test_versions_name_python_and_what_is_installed_only():
    versions = tool_versions()
    assert versions["python"].count(".") == 2
    assert "numpy" in versions and "tensorrt" not in versions
    assert all(versions.values())


@pytest.mark.rtx
def test_versions_name_the_library_that_builds_as_it_names_itself():
    library = LIBRARIES["tensorrt-rtx"]
    assert library.distribution is not None
    assert tool_versions()[library.distribution] == load("tensorrt-rtx").version


def test_the_device_names_the_cores_of_this_process():
    assert processor().endswith(f", {usable()} cores")


def test_a_measurement_is_json_with_a_date_in_utc_and_no_path_of_this_machine():
    record = provenance("edgedit train evaluate --run RUN")
    text = json.dumps(record)
    date = datetime.datetime.fromisoformat(str(record["date"]))
    assert date.utcoffset() == datetime.timedelta(0)
    assert record["command"] == "edgedit train evaluate --run RUN"
    assert str(Path.cwd()) not in text and str(Path.home()) not in text.replace('"/root"', "")


def test_peak_memory_grows_with_what_is_held():
    before = peak_bytes()
    held = bytearray(os.urandom(1)) * (256 * 2**20)
    after = peak_bytes()
    assert before is not None and after is not None and len(held) and after >= max(before, 2**28)
