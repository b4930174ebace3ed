"""Engine folders with random bytes for engines, and key pairs: what the tests of folders and signatures share."""

from __future__ import annotations

import hashlib
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from engines.bundle import WEIGHTS_FILE, Bundle
from engines.bundle.engine_manifest import (
    ENGINE_DIGEST_FILE,
    ENGINE_FILE,
    ENGINES_FOLDER,
    BuiltWith,
    EngineGraph,
    EngineManifest,
    OptimizationProfile,
    PrecisionProof,
    engine_digest_line,
    engine_folder,
    engine_manifest_bytes,
)
from engines.bundle.manifest import FileEntry
from engines.bundle.signing import sign_bundle, verify_signature
from engines.errors import SignatureError

LIBRARIES = {"tensorrt": "TensorRT", "tensorrt-rtx": "TensorRT-RTX", "onnxruntime": "ONNX Runtime"}


def entry(data: bytes) -> FileEntry:
    return FileEntry(sha256=hashlib.sha256(data).hexdigest(), bytes=len(data))


def write_engine(
    path: Path,
    runtime: str = "tensorrt-rtx",
    target: str = "sm86",
    precision: str = "fp16",
    graphs: tuple[str, ...] = ("edit", "invert"),
    *,
    seed: int = 0,
    share: float = 0.995,
    profile: tuple[int, int, int] = (1, 1, 8),
    **built: Any,
) -> Path:
    """Writes an engine folder into the bundle at `path`; `built` overrides fields of `BuiltWith`."""
    bundle = Bundle.load(path, verify=False)
    files, entries, sources = {}, {}, bundle.manifest
    for graph in graphs:
        file, layers = f"{graph}.engine", f"layers/{graph}.json"
        files[file] = random.Random(f"{seed} {runtime} {target} {precision} {graph}").randbytes(300)
        files[layers] = b'{"layers": []}'
        entries[graph] = EngineGraph(
            file=file,
            layers=layers,
            source_sha256=sources.files[sources.graphs[graph].file].sha256,
            inputs=sources.graphs[graph].inputs,
            outputs=sources.graphs[graph].outputs,
            profile=OptimizationProfile(min=profile[0], opt=profile[1], max=profile[2]),
            proof=PrecisionProof(asked=precision, share=share, macs=1000, source="network", wide=[]),
            device_memory=1 << 20,
            weight_bytes=100,
            seconds=0.5,
            certificate=None,
        )
    sms = [name.removeprefix("sm") for name in target.split("+") if name.startswith("sm")]
    fields: dict[str, Any] = {
        "library": LIBRARIES[runtime],
        "version": "11.4.0",
        "compute_capabilities": [f"{sm[:-1]}.{sm[-1]}" for sm in sms],
        "hardware_compatible": False,
        "version_compatible": False,
        "driver_floor": None,
        "flags": {},
        "tools": {},
        "command": "pytest",
        "date": "2026-01-01T00:00:00Z",
    }
    manifest = EngineManifest(
        schema_version=1,
        bundle=bundle.name,
        weights_sha256=sources.files[WEIGHTS_FILE].sha256,
        runtime=runtime,
        target=target,
        precision=precision,
        graphs=entries,
        files={file: entry(data) for file, data in files.items()},
        built=BuiltWith(**(fields | built)),
    )
    folder = path / ENGINES_FOLDER / engine_folder(runtime, target, precision)
    for file, data in files.items():
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).write_bytes(data)
    seal(folder, engine_manifest_bytes(manifest))
    return folder


def seal(folder: Path, manifest: bytes) -> None:
    """Writes engine.json and makes its digest right, as a builder would, or somebody with an editor."""
    (folder / ENGINE_FILE).write_bytes(manifest)
    (folder / ENGINE_DIGEST_FILE).write_bytes(engine_digest_line(manifest))


def flip(file: Path, offset: int | None = None, mask: int = 1) -> Callable[[], object]:
    """Flips bits of one byte, by default the middle one; returns what undoes it."""
    sound = file.read_bytes()
    damaged = bytearray(sound)
    damaged[len(sound) // 2 if offset is None else offset] ^= mask
    file.write_bytes(damaged)
    return lambda: file.write_bytes(sound)


def write_keys(folder: Path, name: str = "key", curve: str = "secp256r1") -> tuple[Path, Path]:
    """The PEM files of a fresh key pair: private, public."""
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    curves = {"secp256r1": ec.SECP256R1(), "secp384r1": ec.SECP384R1(), "secp256k1": ec.SECP256K1()}
    return save_keys(folder, name, ec.generate_private_key(curves[curve]), serialization.NoEncryption())


def save_keys(folder: Path, name: str, key: Any, encryption: Any) -> tuple[Path, Path]:
    from cryptography.hazmat.primitives import serialization as s

    private, public = folder / f"{name}.pem", folder / f"{name}.pub.pem"
    private.write_bytes(key.private_bytes(s.Encoding.PEM, s.PrivateFormat.PKCS8, encryption))
    public.write_bytes(key.public_key().public_bytes(s.Encoding.PEM, s.PublicFormat.SubjectPublicKeyInfo))
    return private, public


def signed_bundle(source: Path, path: Path, private: Path) -> Path:
    """A copy of a bundle with an engine folder, signed."""
    shutil.copytree(source, path)
    write_engine(path)
    sign_bundle(Bundle.load(path), private)
    return path


def refusal(path: Path, public: Path) -> str:
    """What a signature's verification says of a bundle, whether its digests match or not."""
    with pytest.raises(SignatureError) as caught:
        verify_signature(Bundle.load(path, verify=False), public)
    assert "\n" not in str(caught.value)
    return str(caught.value)
