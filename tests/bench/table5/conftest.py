"""A family in which every method of Table 5 takes a moment, and what a run of all ten gives."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from bench.table5.counts import PAPER_DEVICE, complete, row_family
from bench.table5.times import BASE, published
from bench.timing import summary
from engines.family import FACES_1024
from tests.training.methods.conftest import TINY, TINY_CARS
from training.methods import COMPARED

# FS and SFE shrink the rendered size to that of the encoder, and enlarge nothing.
SMALL = dataclasses.replace(TINY, name="small", size=128)
SMALL_CARS = dataclasses.replace(TINY_CARS, name="small-cars", size=128, visible_rows=(16, 112))


@pytest.fixture
def made_up() -> dict[str, Any]:
    """A result in the form of `measure`, without a measurement: a second for every 100 GMACs."""

    rows = []
    for key, method in COMPARED.items():
        gmacs = complete(key, row_family(key, FACES_1024)).macs / 1e9
        times = [10 * gmacs * (1 + 0.01 * i) for i in range(-2, 3)]
        rows.append(
            {
                "key": key,
                "method": method.info.title,
                "gmacs": gmacs,
                **{part: summary([share * t for t in times]) for part, share in (("invert", 0.4), ("edit", 0.6))},
                "complete": summary(times),
                "ratio": None,
                "peak_memory_bytes": 3 * 2**30,
                **published(key),
            }
        )
    return {
        "family": FACES_1024.name,
        "how": "eager",
        "precision": "fp32",
        "passes": 5,
        "passes_asked": 9,
        "base": BASE,
        "paper_device": PAPER_DEVICE,
        "device": {"name": "a machine"},
        "memory": "made up",
        "rows": rows,
        "not_measured": {"fs": "no time was left"},
    }
