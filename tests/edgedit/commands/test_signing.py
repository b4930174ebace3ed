from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from edgedit.demo import ASTRONAUT
from edgedit.editor import Editor
from engines.bundle.manifest import SIGNATURE_FILE
from engines.errors import SignatureError
from tests.edgedit.conftest import Cli
from tests.engines.engine_folders import flip, seal, write_engine, write_keys

_ROOT = Path(__file__).resolve().parents[3]
RTX = "tensorrt-rtx-sm86-fp16"

_WITHOUT = """
import sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "model_signing":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Blocker())
from edgedit.cli import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.fixture
def keys(tmp_path: Path) -> tuple[Path, Path]:
    """Private and public."""
    pytest.importorskip("model_signing", reason="signatures need the sign extra")
    return write_keys(tmp_path)


@pytest.fixture
def engine(own_bundle: Path) -> Path:
    return write_engine(own_bundle)


@pytest.fixture
def signed(cli: Cli, own_bundle: Path, engine: Path, keys: tuple[Path, Path]) -> Path:
    assert cli("sign", "-b", own_bundle, "--private-key", keys[0]).status == 0
    return own_bundle


def test_sign_and_verify(cli: Cli, own_bundle: Path, engine: Path, keys: tuple[Path, Path], tmp_path: Path) -> None:
    private, public = keys
    assert "not signed" in cli("verify", "-b", own_bundle).out
    summary = tmp_path / "s.json"
    done = cli("sign", "-b", own_bundle, "--private-key", private, "--json", summary)
    count = sum(p.is_file() for p in own_bundle.rglob("*")) - 1
    assert done.status == 0 and done.err == ""
    assert done.out == f"faces: signed {count} files, signature in model.sig\n"
    assert json.loads(summary.read_text())["files"] == count
    done = cli("verify", "-b", own_bundle, "--public-key", public, "--json", summary)
    assert done.status == 0 and done.err == ""
    assert "every digest matches" in done.out and f"signed with {public}: all {count} files" in done.out
    said = json.loads(summary.read_text())
    assert (said["signed"], said["verified"], said["files"]) == (True, True, count)
    done = cli("verify", "-b", own_bundle, "--json", summary)
    assert done.status == 0 and "signed, but not checked by whom: give --public-key" in done.out
    assert json.loads(summary.read_text())["verified"] is False


def test_what_is_not_signed_fails(cli: Cli, own_bundle: Path, keys: tuple[Path, Path]) -> None:
    done = cli("verify", "-b", own_bundle, "--public-key", keys[1])
    assert (
        done.error == f"faces is not signed: sign it with `edgedit sign -b {own_bundle} --private-key PRIVATE_KEY.pem`"
    )
    done = cli("verify", "-b", own_bundle, "--public-key")
    assert done.status == 2 and done.error.startswith("Missing value for --public-key")


def test_engines_built_since_are_told_with_what_to_do(cli: Cli, signed: Path, keys: tuple[Path, Path]) -> None:
    private, public = keys
    write_engine(signed, precision="fp32")
    assert cli("verify", "-b", signed, "--public-key", public).error == (
        "faces: engines/tensorrt-rtx-sm86-fp32 is not as it was signed; if it was built or removed since, sign the "
        f"bundle again with `edgedit sign -b {signed} --private-key PRIVATE_KEY.pem`"
    )
    assert cli("sign", "-b", signed, "--private-key", private).status == 0
    assert cli("verify", "-b", signed, "--public-key", public).status == 0


def test_damage_is_told_as_damage(cli: Cli, signed: Path, keys: tuple[Path, Path]) -> None:
    flip(signed / "engines" / RTX / "edit.engine")
    for words in (("verify", "--public-key", keys[1]), ("verify",), ("info", "--verify")):
        assert cli(*words, "-b", signed).error.startswith(
            f"faces: engines/{RTX}/edit.engine is damaged (its digest differs); build"
        )
    assert "it was not signed" in cli("sign", "-b", signed, "--private-key", keys[0]).error


@pytest.mark.parametrize("kind", ["another key", "a flipped byte", "no signature"])
def test_verbs_that_run_a_bundle_refuse_it(
    cli: Cli, signed: Path, keys: tuple[Path, Path], tmp_path: Path, kind: str
) -> None:
    public, out = keys[1], tmp_path / "out.png"
    words = ("reconstruct", ASTRONAUT, "-b", signed, "-o", out, "--threads", 1)
    assert cli(*words, "--public-key", public).status == 0 and out.is_file()
    out.unlink()
    if kind == "another key":
        _, public = write_keys(tmp_path, "other")
    elif kind == "a flipped byte":
        flip(signed / SIGNATURE_FILE)
    else:
        (signed / SIGNATURE_FILE).unlink()
    message = cli(*words, "--public-key", public).error
    expected = {"another key": "made with another key", "a flipped byte": "model.sig", "no signature": "is not signed"}
    assert expected[kind] in message and not out.exists()
    with pytest.raises(SignatureError, match=expected[kind]):
        Editor.load(signed, public_key=public)
    # Nobody asked for a signature.
    assert cli(*words).status == 0


def test_info_lists_the_engines(cli: Cli, own_bundle: Path, tmp_path: Path) -> None:
    assert "engines: none" in cli("info", "-b", own_bundle).out
    write_engine(own_bundle)
    write_engine(own_bundle, "tensorrt", "sm86+sm89", "fp32", ("edit",), share=1.0)
    done = cli("info", "-b", own_bundle, "--verify", "--json", tmp_path / "i.json")
    assert done.status == 0 and done.err == ""
    for text in (RTX, "99.50 % in fp16", "tensorrt-sm86+sm89-fp32", "100.00 % in fp32", "not signed", "all match"):
        assert text in done.out
    summary = json.loads((tmp_path / "i.json").read_text())
    assert summary["signed"] is False and list(summary["engines"]) == [RTX, "tensorrt-sm86+sm89-fp32"]
    engine = summary["engines"][RTX]
    assert engine["graphs"] == {"edit": 0.995, "invert": 0.995} and engine["problem"] is None
    folder = own_bundle / "engines" / RTX
    assert engine["bytes"] == sum(p.stat().st_size for p in folder.rglob("*.*") if not p.name.startswith("engine."))
    assert f"verified {len(summary['files']) + 4 + 2} files: all match" in done.out


def test_info_names_damaged_and_stale_engines(cli: Cli, own_bundle: Path, tmp_path: Path) -> None:
    stale = write_engine(own_bundle, precision="fp32")
    data = json.loads((stale / "engine.json").read_bytes()) | {"weights_sha256": "0" * 64}
    seal(stale, json.dumps(data).encode())
    flip(write_engine(own_bundle) / "engine.json")
    done = cli("info", "-b", own_bundle, "--json", tmp_path / "i.json")
    assert done.status == 0 and done.out.count("UNFIT") == 2
    assert f"UNFIT faces: engines/{RTX}/engine.json does not match engine.sha256; build the engine again" in done.out
    engines = json.loads((tmp_path / "i.json").read_text())["engines"]
    assert "does not match engine.sha256" in engines[RTX]["problem"]
    assert "the bundle was exported again since" in engines["tensorrt-rtx-sm86-fp32"]["problem"]
    assert cli("info", "-b", own_bundle, "--verify").error == (
        f"faces: engines/{RTX}/engine.json does not match engine.sha256; build the engine again"
    )


@pytest.mark.parametrize(
    "words",
    [("sign", "-b", "{bundle}", "--private-key", "k.pem"), ("verify", "-b", "{bundle}", "--public-key", "k.pem")],
)
def test_without_model_signing(bundle_path: Path, words: tuple[str, ...]) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _WITHOUT, *(word.format(bundle=bundle_path) for word in words)],
        cwd=_ROOT,
        env={**os.environ, "PYTHONPATH": str(_ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert done.stderr == "error: signatures need model_signing: pip install 'edgedit[sign]'\n"


def test_a_place_that_cannot_be_written(cli: Cli, signed: Path, keys: tuple[Path, Path]) -> None:
    (signed / SIGNATURE_FILE).unlink()
    (signed / SIGNATURE_FILE).mkdir()
    assert "Is a directory" in cli("sign", "-b", signed, "--private-key", keys[0]).error
    assert sorted(p.name for p in signed.iterdir() if p.name.startswith(".")) == []
    shutil.rmtree(signed / SIGNATURE_FILE)
    assert cli("sign", "-b", signed, "--private-key", keys[0]).status == 0
