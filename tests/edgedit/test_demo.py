from __future__ import annotations

import numpy as np
import pytest

from edgedit.demo import demo_strengths, in_order
from engines.directions import Direction


def test_the_order_of_attributes() -> None:
    assert in_order(["hair", "male", "age", "yaw", "beard", "smile"]) == [
        "smile",
        "age",
        "yaw",
        "male",
        "hair",
        "beard",
    ]


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (-3, 3, [-3, -1.5, 1.5, 3]),
        (-1, 4, [-1, -0.5, 2, 4]),
        (0, 4, [1, 2, 3, 4]),
        (-4, 0, [-4, -3, -2, -1]),
        (1, 3, [1.5, 2, 2.5, 3]),
    ],
)
def test_strengths_of_the_demo(low: float, high: float, expected: list[float]) -> None:
    direction = Direction(
        name="d",
        kind="interfacegan",
        space="w",
        vector=np.ones(4, np.float32),
        min_strength=low,
        max_strength=high,
        description="",
        source="",
        licence="",
    )
    assert demo_strengths(direction) == expected
