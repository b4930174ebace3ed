from __future__ import annotations

import json
import shutil
import threading
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engines.bundle import Bundle
from engines.bundle.folders import EngineFolder
from engines.bundle.manifest import SIGNATURE_FILE, manifest_digest_line
from engines.bundle.preflight import HostInfo
from engines.bundle.signing import ensure_signed, is_signed, open_engine, sign_bundle, verify_signature
from engines.errors import BundleError, EdgeditError, EngineError, SignatureError
from tests.engines.engine_folders import entry, flip, refusal, signed_bundle, write_engine

pytest.importorskip("model_signing", reason="signatures need the sign extra")

RTX = "tensorrt-rtx-sm86-fp16"
HERE = HostInfo("TensorRT-RTX", "11.4.0", "8.6")


@pytest.fixture(scope="module")
def scratch(tiny_bundle_path: Path, tmp_path_factory: pytest.TempPathFactory, private: Path) -> Path:
    """A signed bundle with an engine, damaged and mended by the fuzzer."""
    return signed_bundle(tiny_bundle_path, tmp_path_factory.mktemp("fuzz") / "tiny", private)


@pytest.fixture
def signed(scratch: Path, tmp_path: Path) -> Path:
    """A copy to damage."""
    return Path(shutil.copytree(scratch, tmp_path / "tiny"))


def test_a_signed_bundle(signed: Path, public: Path) -> None:
    bundle = Bundle.load(signed)
    assert is_signed(bundle)
    files = {p.relative_to(signed).as_posix() for p in signed.rglob("*") if p.is_file()} - {SIGNATURE_FILE}
    digests = verify_signature(bundle, public)
    assert set(digests) == files and f"engines/{RTX}/engine.json" in files
    assert {name: digests[name] for name in bundle.manifest.files} == {
        name: entry.sha256 for name, entry in bundle.manifest.files.items()
    }
    # A bundle may be moved and renamed.
    moved = signed.rename(signed.with_name("other name"))
    assert verify_signature(Bundle.load(moved), public) == digests


def test_a_bundle_that_is_not_signed(tiny_bundle: Bundle, public: Path) -> None:
    assert not is_signed(tiny_bundle)
    assert refusal(tiny_bundle.path, public) == (
        f"tiny is not signed: sign it with `edgedit sign -b {tiny_bundle.path} --private-key PRIVATE_KEY.pem`"
    )


@given(data=st.data())
@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_any_flipped_byte_of_a_signed_bundle_is_caught(scratch: Path, public: Path, data: st.DataObject) -> None:
    file = data.draw(st.sampled_from(sorted(p for p in scratch.rglob("*") if p.is_file())), label="file")
    offset = data.draw(st.integers(0, file.stat().st_size - 1), label="offset")
    lazy = Bundle.load(scratch, verify=False)
    undo = flip(file, offset, data.draw(st.integers(1, 255), label="mask"))
    try:
        # The digests find it before anything is parsed, and the signature finds it by itself.
        if file.name != SIGNATURE_FILE:
            with pytest.raises(EdgeditError, match=r"does not match|its digest differs"):
                Bundle.load(scratch)
        with pytest.raises(SignatureError):
            verify_signature(lazy, public)
    finally:
        undo()


def test_a_bundle_that_was_changed_with_all_digests_made_right(signed: Path, public: Path) -> None:
    manifest = json.loads((signed / "manifest.json").read_bytes())
    manifest["licence"] = "none"
    raw = json.dumps(manifest).encode()
    (signed / "manifest.json").write_bytes(raw)
    (signed / "manifest.sha256").write_bytes(manifest_digest_line(raw))
    assert Bundle.load(signed).manifest.licence == "none"
    said = refusal(signed, public)
    assert said == "tiny: manifest.json is not as it was signed (and 1 more); copy the bundle again"


def test_a_bundle_that_was_loaded_before_it_was_mended(signed: Path, public: Path) -> None:
    forged = json.loads((signed / "manifest.json").read_bytes()) | {"licence": "none"}
    bundle = Bundle(signed, Bundle.load(signed).manifest.model_validate_json(json.dumps(forged)))
    with pytest.raises(SignatureError, match=r"manifest\.json changed while it was verified"):
        verify_signature(bundle, public)


@pytest.mark.parametrize("built", ["new", "again", "removed", "swapped"])
def test_engines_built_after_signing(signed: Path, private: Path, public: Path, built: str) -> None:
    folder = signed / "engines" / RTX
    if built == "new":
        folder = write_engine(signed, precision="fp32")
    elif built == "again":
        write_engine(signed, seed=1)
    elif built == "removed":
        shutil.rmtree(folder)
    else:
        one, two = (folder / f"{graph}.engine" for graph in ("edit", "invert"))
        kept = one.read_bytes()
        one.write_bytes(two.read_bytes())
        two.write_bytes(kept)
    assert refusal(signed, public) == (
        f"tiny: engines/{folder.name} is not as it was signed; if it was built or removed since, sign the bundle again "
        f"with `edgedit sign -b {signed} --private-key PRIVATE_KEY.pem`"
    )
    if built == "swapped":
        with pytest.raises(SignatureError, match=r"edit\.engine is damaged .*; it was not signed"):
            sign_bundle(Bundle.load(signed, verify=False), private)
    else:
        sign_bundle(Bundle.load(signed), private)
        assert verify_signature(Bundle.load(signed), public)


@pytest.mark.parametrize("file", ["card.md", "graphs/edit.onnx", f"engines/{RTX}/edit.engine"])
def test_missing_linked_and_special_files(signed: Path, public: Path, tmp_path: Path, file: str) -> None:
    (signed / file).rename(tmp_path / "elsewhere")
    assert "is not as it was signed" in refusal(signed, public)
    (signed / file).symlink_to(tmp_path / "elsewhere")
    assert refusal(signed, public) == f"tiny: {file} is not a regular file; copy the bundle again"


@pytest.mark.parametrize("extra", [".gitignore", ".git/config", "notes.txt", f"engines/{RTX}/.hidden", "model.sig.bak"])
def test_extra_files(signed: Path, public: Path, extra: str) -> None:
    (signed / extra).parent.mkdir(exist_ok=True)
    (signed / extra).write_bytes(b"x")
    named = f"engines/{RTX}" if extra.startswith("engines") else extra
    assert f"tiny: {named} is not as it was signed" in refusal(signed, public)


def test_what_a_builder_keeps_under_hidden_names_is_not_signed(signed: Path, private: Path, public: Path) -> None:
    (signed / "engines" / ".lock").write_bytes(b"1")
    (signed / "engines" / ".staging").mkdir()
    (signed / "engines" / ".staging" / "half").write_bytes(b"x")
    digests = verify_signature(Bundle.load(signed), public)
    assert sign_bundle(Bundle.load(signed), private) == len(digests)
    shutil.rmtree(signed / "engines" / ".staging")
    assert verify_signature(Bundle.load(signed), public) == digests


def test_a_linked_signature(signed: Path, public: Path, tmp_path: Path) -> None:
    (signed / SIGNATURE_FILE).rename(tmp_path / "elsewhere")
    (signed / SIGNATURE_FILE).symlink_to(tmp_path / "elsewhere")
    assert "model.sig cannot be read: it is a symbolic link" in refusal(signed, public)


def test_a_damaged_bundle_is_not_signed(tiny_bundle_path: Path, tmp_path: Path, private: Path) -> None:
    path = Path(shutil.copytree(tiny_bundle_path, tmp_path / "tiny"))
    flip(path / "card.md")
    with pytest.raises(SignatureError, match=r"tiny: card\.md is damaged .*; copy the bundle again; it was not signed"):
        sign_bundle(Bundle.load(path, verify=False), private)
    assert not (path / SIGNATURE_FILE).exists()


def test_an_engine_is_opened_after_digest_signature_and_compatibility(signed: Path, public: Path) -> None:
    elsewhere = HostInfo("TensorRT-RTX", "11.4.0", "8.9")

    def opened(found: HostInfo = HERE, key: Path | None = public) -> EngineFolder:
        bundle = Bundle.load(signed, verify=False)
        return open_engine(bundle, "tensorrt-rtx", "edit", found, public_key=key)

    assert opened().read("edit.engine") == (signed / "engines" / RTX / "edit.engine").read_bytes()
    with pytest.raises(EngineError, match=r"built for SM86 .* found SM89: run `edgedit build "):
        opened(elsewhere)
    # The signature comes before the machine, and the digest before the signature.
    (signed / SIGNATURE_FILE).unlink()
    assert opened(key=None).name == RTX
    with pytest.raises(SignatureError, match="is not signed"):
        opened(elsewhere)
    flip(signed / "engines" / RTX / "engine.json")
    with pytest.raises(EngineError, match=r"does not match engine\.sha256"):
        opened(elsewhere)


def test_an_engine_that_is_replaced_after_it_was_opened_is_not_read(signed: Path, public: Path) -> None:
    folder = open_engine(Bundle.load(signed), "tensorrt-rtx", "edit", HERE, public_key=public)
    write_engine(signed, seed=1)
    with pytest.raises(EngineError, match=r"edit\.engine is damaged \(its digest differs\)"):
        folder.read("edit.engine")


def test_a_signature_is_checked_once_for_an_opened_bundle(signed: Path, public: Path) -> None:
    bundle = Bundle.load(signed)
    assert ensure_signed(bundle, public) == verify_signature(bundle, public)
    flip(signed / "card.md")
    assert ensure_signed(bundle, public)
    with pytest.raises(BundleError, match="its digest differs"):
        bundle.read("card.md")
    # Another bundle of the same place is another matter, and so is an engine that was not signed.
    with pytest.raises(SignatureError, match=r"card\.md is not as it was signed"):
        ensure_signed(Bundle.load(signed, verify=False), public)
    write_engine(signed, seed=1)
    with pytest.raises(SignatureError, match=f"engines/{RTX} is not as it was signed; if it was built"):
        open_engine(bundle, "tensorrt-rtx", "edit", HERE, public_key=public)


def test_an_engine_from_another_export_is_refused_although_it_is_signed(
    signed: Path, private: Path, public: Path
) -> None:
    raw = json.loads((signed / "manifest.json").read_bytes())
    (signed / "graphs" / "edit.onnx").write_bytes(b"other")
    raw["files"]["graphs/edit.onnx"] = entry(b"other").model_dump()
    data = json.dumps(raw).encode()
    (signed / "manifest.json").write_bytes(data)
    (signed / "manifest.sha256").write_bytes(manifest_digest_line(data))
    sign_bundle(Bundle.load(signed), private)
    with pytest.raises(EngineError, match=r"from other graph edit than this bundle has .*: run `edgedit build "):
        open_engine(Bundle.load(signed), "tensorrt-rtx", "edit", HERE, public_key=public)


def test_verification_by_several_threads_at_once(signed: Path, public: Path) -> None:
    bundle, done = Bundle.load(signed), []
    threads = [threading.Thread(target=lambda: done.append(verify_signature(bundle, public))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(done) == 4 and all(digests == done[0] for digests in done)
