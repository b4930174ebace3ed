from __future__ import annotations

from engines.bundle import Bundle
from engines.contracts import PARTS, PIPELINES
from tests.random_bundle import RANDOM_64, RANDOM_BUNDLE, directions


def test_it_is_what_its_definition_says() -> None:
    bundle = Bundle.load(RANDOM_BUNDLE)
    assert bundle.family == RANDOM_64, "the definition has changed: run `python -m tests.random_bundle`"
    assert set(bundle.manifest.graphs) == {*PARTS, *PIPELINES}
    assert bundle.manifest.directions == [direction.name for direction in directions(RANDOM_64)]
