from __future__ import annotations

import sys
from pathlib import Path

import pytest

from bench.photos import main, measure
from edgedit.demo import ASTRONAUT
from edgedit.editor import PORTRAIT_BUNDLE, Editor
from engines.photo import open_image
from tests.random_bundle import RANDOM_BUNDLE


@pytest.mark.filterwarnings("ignore::engines.errors.StrengthWarning")
def test_odd_versions_of_a_photo_are_edited_as_the_photo_is() -> None:
    if not PORTRAIT_BUNDLE.is_dir():
        pytest.skip("the portrait bundle is not here")
    photo = open_image(ASTRONAUT).pixels[:260, 90:350]
    row = measure(Editor.load(threads=1), photo, {"smile": 1.5})
    assert row["plain"] == {"gain": 1.0, "toned": False}
    for kind in ("grey", "grey_jpeg"):
        assert row[kind]["tinted"] == row[kind]["channels_apart"] == 0 < row[kind]["tinted_without"]
    # A model that inverts as well as this one colours less by itself.
    assert row["sepia"]["tinted"] < 0.01 < 0.1 < row["sepia"]["tinted_without"]
    for share in (4, 8):
        dark = row[f"dark_{share}"]
        # A photo at a share of its brightness has steps of that many levels, off by a quarter of a step on average.
        assert dark["off"] - share / 4 < dark["change"] / 4 and dark["off"] < dark["off_without"] / 3
    # A crop of 1024 pixels enlarges the photo: its pixels are interpolated, not averages, and differ by a level more.
    assert all(turned["most"] <= 5 and turned["mean"] < 0.3 for turned in row["turned"].values())


def test_a_folder_without_photos_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "out.json"
    words = ["--photos", str(tmp_path), "--bundle", str(RANDOM_BUNDLE), "--out", str(out)]
    monkeypatch.setattr(sys, "argv", ["bench.photos", *words])
    with pytest.raises(SystemExit, match=r"error: .* holds no photo"):
        main()
    assert not out.exists()
