from __future__ import annotations

from pathlib import Path

import pytest

from bench.serve import perf
from bench.serve.perf import read_row
from engines.errors import EdgeditError

# As perf_analyzer of release 2.51 writes it, in microseconds.
TABLE = (
    "Concurrency,Inferences/Second,Client Send,Network+Server Send/Recv,Server Queue,Server Compute Input,"
    "Server Compute Infer,Server Compute Output,Client Recv,p50 latency,p90 latency,p95 latency,p99 latency\n"
    "8,123.456,20,300,100,50,7000,60,5,7511,8000,8222,9000\n"
)


def test_its_table_is_read_in_milliseconds() -> None:
    assert read_row(TABLE) == {"p50_ms": 7.511, "p95_ms": 8.222, "p99_ms": 9.0, "images_per_second": 123.46}


@pytest.mark.parametrize("text", ["", TABLE.splitlines()[0], TABLE + "8,1,2", TABLE.replace("p95", "p96")])
def test_another_table_is_refused(text: str) -> None:
    with pytest.raises(EdgeditError, match="not understood"):
        read_row(text)


@pytest.mark.parametrize(
    ("script", "says"),
    [
        ("exec sleep 60", r"no stable value within 0\.3 s"),
        ("echo working; echo 'no such model' >&2; exit 3", "^perf_analyzer failed: no such model$"),
        ("exit 3", "it says nothing"),
        ("echo done", "^perf_analyzer failed: done$"),
    ],
)
def test_its_failures_are_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, says: str) -> None:
    monkeypatch.setattr(perf, "_PATIENCE", 0.3 if "sleep" in script else 60.0)
    tool = tmp_path / "perf_analyzer"
    tool.write_text(f"#!/bin/sh\n{script}\n")
    tool.chmod(0o755)
    with pytest.raises(EdgeditError, match=says) as caught:
        perf._ask([str(tool)], {"PATH": "/usr/bin:/bin"}, tmp_path / "rows.csv")
    assert "\n" not in str(caught.value) and str(tmp_path) not in str(caught.value)


def test_what_finds_no_stable_value_is_a_row_that_says_so(tmp_path: Path) -> None:
    tool = tmp_path / "perf_analyzer"
    tool.write_text("#!/bin/sh\necho 'Failed to obtain stable measurement within 10 measurement windows'\nexit 2\n")
    tool.chmod(0o755)
    assert perf._ask([str(tool)], {"PATH": "/usr/bin:/bin"}, tmp_path / "rows.csv") == {"stable": False}
