from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engines.bundle import SIGNATURE_FILES, WEIGHTS_FILE, Bundle, BundleWriter, ProducedBy
from engines.bundle.manifest import MAX_MANIFEST_BYTES, SCHEMA_VERSION, manifest_digest_line
from engines.contracts import PARTS, PIPELINES
from engines.directions import load_directions
from engines.errors import BundleError, EdgeditError, OutputError
from engines.family import ModelFamily
from engines.session import EditSession

PRODUCED_BY = ProducedBy(tools={}, command="pytest", date="2026-01-01")


@pytest.fixture
def bundle_copy(tiny_bundle_path: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_bundle_path, tmp_path / "tiny"))


def forge(path: Path, change: Callable[[dict], None]) -> None:
    """Changes the manifest and makes its digest right again, as somebody with an editor could."""
    manifest = json.loads((path / "manifest.json").read_bytes())
    change(manifest)
    raw = json.dumps(manifest).encode()
    (path / "manifest.json").write_bytes(raw)
    (path / "manifest.sha256").write_bytes(manifest_digest_line(raw))


def writer(path: Path, family: ModelFamily) -> BundleWriter:
    return BundleWriter(path, name="tiny", family=family, precision="fp16", licence="CC0-1.0", produced_by=PRODUCED_BY)


def test_what_was_written_is_read_back(tiny_bundle: Bundle, tiny_family: ModelFamily) -> None:
    manifest = tiny_bundle.manifest
    assert manifest.schema_version == SCHEMA_VERSION
    assert tiny_bundle.family == tiny_family
    assert set(manifest.graphs) == {*PARTS, *PIPELINES}
    assert len(manifest.files) == 8 + 4 + 2
    assert manifest.metrics == {"max_error": 0.25}
    assert list(load_directions(tiny_bundle)) == manifest.directions == ["smile", "age", "pose", "hair"]
    assert [spec.name for spec in tiny_bundle.graph("edit").inputs][-2:] == ["delta_w", "style_delta"]
    assert tiny_bundle.verify() == []
    for name, entry in manifest.files.items():
        data = tiny_bundle.read(name)
        assert (len(data), hashlib.sha256(data).hexdigest()) == (entry.bytes, entry.sha256)


def test_manifest_digest_is_in_the_format_of_sha256sum(tiny_bundle_path: Path) -> None:
    digest = hashlib.sha256((tiny_bundle_path / "manifest.json").read_bytes()).hexdigest()
    assert (tiny_bundle_path / "manifest.sha256").read_text() == f"{digest}  manifest.json\n"


@pytest.fixture(scope="module")
def scratch_bundle(tiny_bundle_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(shutil.copytree(tiny_bundle_path, tmp_path_factory.mktemp("fuzz") / "tiny"))


@given(data=st.data())
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_any_flipped_byte_is_caught_before_anything_is_parsed(scratch_bundle: Path, data: st.DataObject) -> None:
    files = sorted(p for p in scratch_bundle.rglob("*") if p.is_file())
    file = data.draw(st.sampled_from(files), label="file")
    sound = file.read_bytes()
    offset = data.draw(st.integers(0, len(sound) - 1), label="offset")
    damaged = bytearray(sound)
    damaged[offset] ^= data.draw(st.integers(1, 255), label="mask")
    name = file.relative_to(scratch_bundle).as_posix()
    try:
        file.write_bytes(damaged)
        with pytest.raises(BundleError) as caught:
            Bundle.load(scratch_bundle)
        assert name in str(caught.value)
        assert "\n" not in str(caught.value)
        if name.startswith("manifest"):
            assert "does not match" in str(caught.value)
        else:
            lazy = Bundle.load(scratch_bundle, verify=False)
            assert [(p.file, p.kind) for p in lazy.verify()] == [(name, "digest")]
            with pytest.raises(BundleError, match="its digest differs"):
                lazy.read(name)
    finally:
        file.write_bytes(sound)


@pytest.mark.parametrize("file", ["graphs/invert.onnx", WEIGHTS_FILE])
def test_a_lazy_session_never_hands_damaged_bytes_to_a_parser(bundle_copy: Path, file: str) -> None:
    damaged = bytearray((bundle_copy / file).read_bytes())
    damaged[len(damaged) // 2] ^= 1
    session = EditSession(Bundle.load(bundle_copy, verify=False))
    (bundle_copy / file).write_bytes(damaged)
    with pytest.raises(BundleError, match=rf"{file} is damaged \(its digest differs\); copy the bundle again"):
        session.invert(np.zeros((1, *session.family.image_shape, 3), np.uint8))


@pytest.mark.parametrize(("file", "kind"), [("graphs/edit.onnx", "size"), (WEIGHTS_FILE, "size"), ("card.md", "size")])
def test_truncated_and_grown_files(bundle_copy: Path, file: str, kind: str) -> None:
    sound = (bundle_copy / file).read_bytes()
    for wrong in (sound[:-1], b"", sound + b"x"):
        (bundle_copy / file).write_bytes(wrong)
        with pytest.raises(BundleError, match=f"{file} has {len(wrong)} bytes instead of {len(sound)}"):
            Bundle.load(bundle_copy)
        bundle = Bundle.load(bundle_copy, verify=False)
        assert [(p.file, p.kind) for p in bundle.verify()] == [(file, kind)]
        with pytest.raises(BundleError, match=file):
            bundle.read(file)


def test_a_missing_file_is_named_with_what_to_do(bundle_copy: Path) -> None:
    (bundle_copy / "graphs/edit.onnx").unlink()
    with pytest.raises(BundleError) as caught:
        Bundle.load(bundle_copy)
    assert str(caught.value) == "tiny: graphs/edit.onnx is missing; copy the bundle again"
    (bundle_copy / "card.md").unlink()
    with pytest.raises(BundleError, match=r"card\.md is missing; copy the bundle again \(and 1 more\)"):
        Bundle.load(bundle_copy)
    bundle = Bundle.load(bundle_copy, verify=False)
    assert [(p.file, p.kind) for p in bundle.verify()] == [("card.md", "missing"), ("graphs/edit.onnx", "missing")]
    with pytest.raises(BundleError, match=r"^tiny: graphs/edit.onnx is missing; copy the bundle again$"):
        bundle.read("graphs/edit.onnx")


@pytest.mark.parametrize("file", ["manifest.json", "manifest.sha256"])
def test_a_missing_manifest(bundle_copy: Path, file: str) -> None:
    (bundle_copy / file).unlink()
    with pytest.raises(BundleError, match=file):
        Bundle.load(bundle_copy)


@pytest.mark.parametrize("extra", ["graphs/other.onnx", "directions/deep/er.bin", ".hidden", "manifest.json.bak"])
def test_an_unlisted_file_is_refused(bundle_copy: Path, extra: str) -> None:
    (bundle_copy / extra).parent.mkdir(parents=True, exist_ok=True)
    (bundle_copy / extra).write_bytes(b"x")
    with pytest.raises(BundleError, match=f"{extra} is not listed in the manifest; remove it"):
        Bundle.load(bundle_copy)
    with pytest.raises(BundleError, match=f"there is no {extra} in this bundle"):
        Bundle.load(bundle_copy, verify=False).read(extra)


def test_a_signature_may_lie_beside_the_manifest(bundle_copy: Path) -> None:
    (bundle_copy / SIGNATURE_FILES[0]).write_bytes(b"x")
    assert Bundle.load(bundle_copy).verify() == []


@pytest.mark.parametrize("file", ["graphs/edit.onnx", WEIGHTS_FILE, "manifest.json", "manifest.sha256"])
def test_a_symbolic_link_is_refused_even_to_the_right_bytes(bundle_copy: Path, tmp_path: Path, file: str) -> None:
    (bundle_copy / file).rename(tmp_path / "elsewhere")
    (bundle_copy / file).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(BundleError, match=f"{file} cannot be read: it is a symbolic link"):
        Bundle.load(bundle_copy)


def test_a_linked_directory_is_refused(bundle_copy: Path, tmp_path: Path) -> None:
    (bundle_copy / "graphs").rename(tmp_path / "graphs")
    (bundle_copy / "graphs").symlink_to(tmp_path / "graphs")
    with pytest.raises(BundleError, match="behind a symbolic link"):
        Bundle.load(bundle_copy)
    with pytest.raises(BundleError, match="behind a symbolic link"):
        Bundle.load(bundle_copy, verify=False).read("graphs/edit.onnx")


@pytest.mark.parametrize("kind", ["directory", "fifo"])
def test_only_regular_files_are_opened(bundle_copy: Path, kind: str) -> None:
    (bundle_copy / "card.md").unlink()
    (bundle_copy / "card.md").mkdir() if kind == "directory" else os.mkfifo(bundle_copy / "card.md")
    with pytest.raises(BundleError, match=r"card\.md cannot be read: it is not a regular file"):
        Bundle.load(bundle_copy)


def test_a_bundle_may_be_reached_through_a_link(bundle_copy: Path, tmp_path: Path) -> None:
    (tmp_path / "current").symlink_to(bundle_copy)
    assert Bundle.load(tmp_path / "current").path == bundle_copy.resolve()


@pytest.mark.parametrize(
    "path",
    ["../secret", "/etc/passwd", "graphs/../../secret", "./card.md", "a//b", "", "a\\..\\b", "C:x", "a\0b", "a\nb",
     "manifest.json", "manifest.sha256", SIGNATURE_FILES[0], "x" * 300],
)  # fmt: skip
def test_paths_that_leave_the_bundle_are_refused(
    bundle_copy: Path, tmp_path: Path, tiny_family: ModelFamily, path: str
) -> None:
    (tmp_path / "secret").write_bytes(b"secret")
    entry = {"sha256": hashlib.sha256(b"secret").hexdigest(), "bytes": 6}
    forge(bundle_copy, lambda manifest: manifest["files"].update({path: entry}))
    with pytest.raises(BundleError, match=r"manifest\.json is not valid: files"):
        Bundle.load(bundle_copy, verify=False)
    with pytest.raises(ValueError), writer(tmp_path / "new", tiny_family) as new:
        new.add_bytes(path, b"secret")
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: m.update(schema_version=SCHEMA_VERSION + 1), "has schema 2 and this edgedit reads 1"),
        (lambda m: m.pop("schema_version"), "has schema None"),
        (lambda m: m.update(schema_version="1"), "has schema '1'"),
        (lambda m: m.update(surprise=1), "surprise: Extra inputs are not permitted"),
        (lambda m: m.pop("licence"), "licence: Field required"),
        (lambda m: m.update(name="../x"), "name: String should match"),
        (lambda m: m["family"].update(size=100), "size must be a power of two"),
        (lambda m: m["family"].update(size="64"), "not a model family"),
        (lambda m: m["family"].update(colour="red"), "unknown family fields: colour"),
        (lambda m: m["files"]["card.md"].update(bytes=-1), "files.card.md.bytes"),
        (lambda m: m["files"]["card.md"].update(bytes="7"), "files.card.md.bytes"),
        (lambda m: m["files"]["card.md"].update(sha256="A" * 64), "files.card.md.sha256"),
        (lambda m: m["files"].pop("graphs/edit.onnx"), "graph edit refers to graphs/edit.onnx"),
        (lambda m: m["directions"].append("nose"), "direction nose has no file"),
        (lambda m: m["graphs"]["edit"]["inputs"][0].update(dtype="object"), "graphs.edit.inputs.0.dtype"),
        (lambda m: m["graphs"]["edit"]["inputs"][0].update(shape=[0]), "graphs.edit.inputs.0.shape"),
    ],
)
def test_invalid_manifests(bundle_copy: Path, change: Callable[[dict], None], message: str) -> None:
    forge(bundle_copy, change)
    with pytest.raises(BundleError) as caught:
        Bundle.load(bundle_copy)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("raw", [b"", b"[]", b"null", b"{", b"\xff\xfe", b"[" * 100_000, b'{"schema_version": 1}'])
def test_manifests_that_are_not_manifests(bundle_copy: Path, raw: bytes) -> None:
    (bundle_copy / "manifest.json").write_bytes(raw)
    (bundle_copy / "manifest.sha256").write_bytes(manifest_digest_line(raw))
    with pytest.raises(BundleError, match=r"manifest\.json"):
        Bundle.load(bundle_copy)


def test_an_oversized_manifest_is_not_read(bundle_copy: Path) -> None:
    with (bundle_copy / "manifest.json").open("r+b") as stream:
        stream.truncate(MAX_MANIFEST_BYTES + 1)
    with pytest.raises(BundleError, match=f"manifest.json has {MAX_MANIFEST_BYTES + 1} bytes instead of at most"):
        Bundle.load(bundle_copy)


@given(raw=st.binary(max_size=400))
@settings(max_examples=50, deadline=None)
def test_no_manifest_bytes_raise_anything_but_a_user_error(scratch_bundle: Path, raw: bytes) -> None:
    keep = {name: (scratch_bundle / name).read_bytes() for name in ("manifest.json", "manifest.sha256")}
    try:
        (scratch_bundle / "manifest.json").write_bytes(raw)
        (scratch_bundle / "manifest.sha256").write_bytes(manifest_digest_line(raw))
        with pytest.raises(BundleError):
            Bundle.load(scratch_bundle)
    finally:
        for name, data in keep.items():
            (scratch_bundle / name).write_bytes(data)


def test_places_that_are_not_bundles(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="no such directory"):
        Bundle.load(tmp_path / "nowhere")
    with pytest.raises(BundleError, match=r"has no manifest\.json"):
        Bundle.load(tmp_path)


def test_an_unknown_graph_lists_those_there_are(tiny_bundle: Bundle) -> None:
    with pytest.raises(BundleError, match="no graph 'edti' in this bundle; it has e4e, edit, editor"):
        tiny_bundle.graph("edti")


def test_a_failed_write_leaves_nothing_and_keeps_the_old_bundle(
    bundle_copy: Path, tmp_path: Path, tiny_family: ModelFamily
) -> None:
    for target in (tmp_path / "new", bundle_copy):
        before = sorted(tmp_path.rglob("*"))
        with pytest.raises(RuntimeError, match="out of luck"), writer(target, tiny_family) as new:
            new.add_bytes("card.md", b"other")
            raise RuntimeError("out of luck")
        with pytest.raises(ValueError), writer(target, tiny_family) as new:
            new.metrics["error"] = float("nan")
        assert sorted(tmp_path.rglob("*")) == before
    assert Bundle.load(bundle_copy).read("card.md") == b"# tiny\n"


def test_a_successful_write_replaces_the_old_bundle(
    bundle_copy: Path, tmp_path: Path, tiny_family: ModelFamily
) -> None:
    (tmp_path / "source.bin").write_bytes(bytes(3_000_000))
    with writer(bundle_copy, tiny_family) as new:
        new.add_file("engines/x/source.bin", tmp_path / "source.bin")
        assert Bundle.load(bundle_copy).read("card.md") == b"# tiny\n"
    bundle = Bundle.load(bundle_copy)
    assert list(bundle.manifest.files) == ["engines/x/source.bin"]
    assert bundle.read("engines/x/source.bin") == bytes(3_000_000)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["source.bin", "tiny"]


def test_the_writer_replaces_nothing_but_a_bundle(tmp_path: Path, tiny_family: ModelFamily) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "file").write_bytes(b"x")
    for target in ("photos", "file", "file/below"):
        with pytest.raises(OutputError), writer(tmp_path / target, tiny_family):
            pass
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "photos"]


def test_the_writer_refuses_a_file_twice_and_a_missing_source(tmp_path: Path, tiny_family: ModelFamily) -> None:
    with writer(tmp_path / "new", tiny_family) as new:
        new.add_bytes("card.md", b"1")
        with pytest.raises(ValueError, match=r"card\.md is in the bundle already"):
            new.add_bytes("card.md", b"2")
        with pytest.raises(EdgeditError, match="cannot read"):
            new.add_file("other", tmp_path / "nowhere")
    with pytest.raises(RuntimeError, match="inside its with block"):
        new.add_bytes("late", b"")
    assert Bundle.load(tmp_path / "new").read("card.md") == b"1"
