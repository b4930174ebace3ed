from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bench.batch import SMOKE, SWEEPS, main, settings
from tests.random_bundle import RANDOM_BUNDLE


def test_a_sweep_varies_one_thing() -> None:
    for sweeps in (SWEEPS, SMOKE):
        chosen = list(settings(sweeps))
        assert len(chosen) == sum(map(len, sweeps.values()))
        for name, values in sweeps.items():
            own = [setting for sweep, setting in chosen if sweep == name]
            assert tuple(getattr(setting, name) for setting in own) == values
            others = {tuple(getattr(setting, key) for key in sweeps if key != name) for setting in own}
            assert len(others) == 1
    assert all(setting.photos >= setting.batch for _, setting in settings(SWEEPS))


@pytest.mark.filterwarnings("ignore::engines.errors.StrengthWarning")
def test_a_smoke_run_is_measured_and_drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("matplotlib", reason="plots need the bench extra")
    out, plot = tmp_path / "rows.json", tmp_path / "rows.svg"
    words = ["--smoke", "--passes", "1", "--threads", "1", "--bundle", RANDOM_BUNDLE, "--out", out, "--plot", plot]
    monkeypatch.setattr(sys, "argv", ["bench.batch", *map(str, words)])
    main()
    result = json.loads(out.read_text())
    assert result["command"].startswith("python -m bench.batch") and result["bundle"] == "random"
    assert [row["sweep"] for row in result["rows"]] == [name for name in SMOKE for _ in SMOKE[name]]
    assert all(len(row["samples_s"]) == 1 and row["median_s"] > 0 for row in result["rows"])
    assert b"photos at once" in plot.read_bytes()


def test_a_photo_without_a_face_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.fromarray(np.full((90, 120, 3), 128, np.uint8)).save(tmp_path / "wall.png")
    words = ["--smoke", "--photo", tmp_path / "wall.png", "--bundle", RANDOM_BUNDLE, "--out", tmp_path / "rows.json"]
    monkeypatch.setattr(sys, "argv", ["bench.batch", *map(str, words)])
    with pytest.raises(SystemExit, match=r"error: .*no face found"):
        main()
    assert not (tmp_path / "rows.json").exists()
