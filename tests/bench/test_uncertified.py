from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench.latency.inputs import feeds
from bench.program import program
from bench.uncertified import UncertifiedOptions, run
from edgedit.editor import PORTRAIT_BUNDLE
from engines.bundle import Bundle
from engines.bundle.folders import EngineFolder
from engines.runtimes import create
from tests.random_bundle import RANDOM_BUNDLE


def main(monkeypatch: pytest.MonkeyPatch, *words: Any) -> None:
    monkeypatch.setattr(sys, "argv", ["bench.uncertified", *map(str, words)])
    program(run, UncertifiedOptions, "bench.uncertified")


def test_an_engine_of_random_weights_runs_and_says_that_it_has_no_certificate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("openvino")
    bundle = shutil.copytree(RANDOM_BUNDLE, tmp_path / "bundle")
    main(monkeypatch, "--bundle", bundle, "--graph", "edit")
    engine = EngineFolder.load(Bundle.load(bundle), "openvino-cpu-int8").manifest.graphs["edit"]
    assert engine.certificate is None and engine.proof.asked == "int8" and engine.proof.share > 0
    given = feeds(engine.inputs, 1, {})
    image = create("openvino", Bundle.load(bundle), "edit", precision="int8").run(given)["image"]
    assert image.dtype == np.uint8 and image.std() > 0


def test_trained_weights_and_other_precisions_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SystemExit, match="error: portrait has no random weights: edgedit build makes"):
        main(monkeypatch, "--bundle", PORTRAIT_BUNDLE)
    with pytest.raises(SystemExit, match="error: --precision fp16: certify it"):
        main(monkeypatch, "--bundle", RANDOM_BUNDLE, "--precision", "fp16")
