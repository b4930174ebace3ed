from __future__ import annotations

from pathlib import Path

import pytest

from engines.runtimes.backend import current_capability
from tests.edgedit.conftest import Cli
from tests.engines.engine_folders import write_engine


def test_what_cannot_be_refitted_is_one_line(cli: Cli, own_bundle: Path, bundle_path: Path) -> None:
    folder = write_engine(own_bundle)
    assert "was built without --refit" in cli("refit", folder, "--from-bundle", bundle_path).error
    assert "is not an engine folder" in cli("refit", own_bundle, "--from-bundle", bundle_path).error
    assert "Missing required --from-bundle BUNDLE" in cli("refit", folder).error
    words = ("refit", folder, "--from-bundle", bundle_path, "--faces", own_bundle)
    assert "--faces measures ranges for int8 and fp8, and tensorrt-rtx-sm86-fp16 is fp16" in cli(*words).error


@pytest.mark.rtx
@pytest.mark.skipif(current_capability() is not None, reason="a GPU is here")
def test_building_for_refitting_needs_a_gpu(cli: Cli, own_bundle: Path) -> None:
    done = cli(
        "build", "-b", own_bundle, "--target", "sm86", "--precision", "fp32", "--graph", "reconstruct", "--refit"
    )
    assert "refit needs an NVIDIA GPU when building" in done.error
    assert not (own_bundle / "engines").exists()
