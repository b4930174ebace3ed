from __future__ import annotations

import pytest

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
