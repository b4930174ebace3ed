from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import get_args

import pytest
import torch
from safetensors import safe_open

from edgedit.commands.importing import WeightsKind
from engines.bundle.mobilestylegan import LICENCE
from engines.packages import GENERATOR
from tests.edgedit.conftest import Cli
from tests.training.importers.files import write
from training.imported import MOBILE
from training.importers.formats import FORMATS
from training.methods import load


def test_kinds_are_those_of_the_importers() -> None:
    """MobileStyleGAN is no checkpoint in a format of its own: it comes in a package."""
    assert [kind for kind in get_args(WeightsKind) if kind != MOBILE] == list(FORMATS) and MOBILE in get_args(
        WeightsKind
    )


def test_import_of_a_package(cli: Cli, tmp_path: Path) -> None:
    if GENERATOR.installed() is None:
        pytest.skip(f"{GENERATOR} is not installed")
    out = tmp_path / "generator.safetensors"
    done = cli("import", "weights", "mobilestylegan", "-o", out)
    assert done.status == 0 and done.err == "" and f"licence: {LICENCE}" in " ".join(done.out.split())
    assert "mobilestylegan of faces-1024-mobile, " in done.out and all(
        digest in done.out for digest in GENERATOR.members.values()
    )
    assert "filled in: latent_avg: the mean of W" in done.out
    out.unlink()
    refused = cli("import", "weights", "mobilestylegan", "-o", out, "--family", "faces-1024")
    assert refused.status == 1 and "is not a generator of the family faces-1024" in refused.error
    absent = cli("import", "weights", "mobilestylegan", tmp_path / "absent.whl", "-o", out)
    assert absent.status == 1 and "does not exist; name the wheel" in absent.error and not out.exists()


def test_import(cli: Cli, tmp_path: Path) -> None:
    first, second = write(tmp_path, "hyperstyle")
    out, report = tmp_path / "w.safetensors", tmp_path / "r.json"
    done = cli("import", "weights", "hyperstyle", second, first, "-o", out, "--json", report)
    assert done.status == 0 and done.err == ""
    assert "licence: MIT (2021, code); no separate statement for the weights" in done.out
    assert "left out of hyperstyle-checkpoint.pt: best_val_loss (settings)" in done.out
    assert f"wrote {out}: hyperstyle of square-64" in done.out
    summary = json.loads(report.read_text())
    digests = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in (first, second)}
    assert {source["file"]: source["sha256"] for source in summary["sources"]} == digests
    assert all(digest in done.out for digest in digests.values())
    assert summary["family"] == "square-64" and summary["kind"] == "hyperstyle"
    with safe_open(out, "pt") as file:
        metadata = file.metadata()
        assert len(file.keys()) == summary["tensors"]
    assert metadata["licence"] == summary["licence"] and json.loads(metadata["sources"]) == summary["sources"]
    assert not any("/" in text for text in (metadata["sources"],))
    assert load(out).info.key == "hyperstyle"


def test_the_summary_says_what_was_filled_in(cli: Cli, tmp_path: Path) -> None:
    (path,) = write(tmp_path, "stylegan2", latent_avg=None)
    report = tmp_path / "r.json"
    done = cli("import", "weights", "stylegan2", path, "-o", tmp_path / "w.safetensors", "--json", report)
    made = f"latent_avg: the mean of W over 100000 z from seed 0, by the mapping network of {path.name}"
    assert done.status == 0 and f"  filled in: {made}\n" in done.out
    assert json.loads(report.read_text())["filled_in"] == [made]


@pytest.mark.parametrize(
    ("kind", "file", "filled_in"),
    [
        ("stylegan2", "g_trainckpt.pt", ["latent_avg: the mean of W"]),
        ("stylegan2", "g_module.pt", []),
        ("stylegan2", "g_nonoise.pt", ["noise images: 9 drawn"]),
        ("e4e", "e4e_whole_codes.pt", ["latent_avg: zeros"]),
    ],
)
def test_files_that_others_could_not_import(
    cli: Cli, shared: Path, tmp_path: Path, kind: str, file: str, filled_in: list[str]
) -> None:
    if not (shared / "cases" / file).is_file():
        pytest.skip("the shared cases are not here")
    report = tmp_path / "r.json"
    done = cli("import", "weights", kind, shared / "cases" / file, "-o", tmp_path / "w.safetensors", "--json", report)
    assert (done.status, done.err) == (0, "")
    found = json.loads(report.read_text())["filled_in"]
    assert [text[: len(start)] for text, start in zip(found, filled_in, strict=True)] == filled_in


def test_refusals(cli: Cli, tmp_path: Path) -> None:
    (path,) = write(tmp_path, "e4e")
    out = tmp_path / "w.safetensors"
    assert "looks like an e4e checkpoint, not like an HFGI" in cli("import", "weights", "hfgi", path, "-o", out).error
    text = cli("import", "weights", "e4e", path, "-o", out, "--family", "cars-512x384").error
    assert "is of another resolution: it renders 64 pixels" in text
    assert "unknown model family 'cats'" in cli("import", "weights", "e4e", path, "-o", out, "--family", "cats").error
    assert "name must end in .safetensors" in cli("import", "weights", "e4e", path, "-o", tmp_path / "w.pt").error
    assert "no file to import" in cli("import", "weights", "e4e", "-o", out).error
    own = tmp_path / "own.safetensors"
    path.rename(own)
    assert "which is to be read" in cli("import", "weights", "e4e", own, "-o", own).error
    assert "No such file" in cli("import", "weights", "e4e", path, "-o", out).error
    assert cli("import", "weights", "psp", own, "-o", out).status == 2
    assert not out.exists()


@pytest.mark.parametrize("zipped", [True, False])
def test_a_hostile_file_runs_nothing(cli: Cli, tmp_path: Path, zipped: bool) -> None:
    mark = tmp_path / "ran"

    class Exploit:
        def __reduce__(self):
            return eval, (f"open({str(mark)!r}, 'w').close()",)

    torch.save({"state_dict": Exploit()}, tmp_path / "x.pt", _use_new_zipfile_serialization=zipped)
    assert (
        "refused; nothing of it ran"
        in cli("import", "weights", "e4e", tmp_path / "x.pt", "-o", tmp_path / "w.safetensors").error
    )
    assert not mark.exists()
    # The exploit is real.
    torch.load(tmp_path / "x.pt", weights_only=False)
    assert mark.exists()
