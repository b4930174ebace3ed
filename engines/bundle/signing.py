"""Signatures that say who made a bundle, over every file of it, engines included.

A digest finds damage; a signature finds malice, since only the holder of the private key can make one. Bundles are
checked in this order: digests, then the signature, then whether an engine fits the machine.

What is signed is what a bundle holds when it is signed. An engine that is built later is not: the bundle is signed
again then. Not signed are the signature itself and what a builder keeps in `engines/` under names that begin with a
dot, which nothing reads.
"""

from __future__ import annotations

import shlex
from pathlib import Path
from stat import S_ISREG
from types import ModuleType
from weakref import WeakKeyDictionary

from engines.bundle import Bundle
from engines.bundle.engine_manifest import ENGINE_FILE, ENGINES_FOLDER
from engines.bundle.folders import HIDDEN_ENGINES, EngineFolder, find_engine
from engines.bundle.integrity import FileProblem, read_regular, walk
from engines.bundle.manifest import MANIFEST_FILE, MAX_MANIFEST_BYTES, SIGNATURE_FILE, parse_manifest
from engines.bundle.preflight import HostInfo, check_compatible, check_current
from engines.errors import SignatureError
from engines.store import Digest, write

MAX_SIGNATURE_BYTES = 16 * 2**20

_ensured: WeakKeyDictionary[Bundle, dict[str, dict[str, str]]] = WeakKeyDictionary()
"""The signed digests, by bundle and public key."""


def is_signed(bundle: Bundle) -> bool:
    """True if there is a signature; whose, and whether it holds, is for `verify_signature` to say."""
    return (bundle.path / SIGNATURE_FILE).is_file()


def sign_bundle(bundle: Bundle, private_key: str | Path) -> int:
    """Checks every digest and signs every file; a signature that is there is replaced.

    Args:
        private_key: PEM file of a P-256, P-384 or P-521 key without a passphrase.

    Returns:
        How many files were signed.

    Raises:
        SignatureError: if the bundle is damaged, the key will not do or model-signing is not installed.
        OutputError: if the signature cannot be written.
    """
    openssf = _library()
    old = bundle.path / SIGNATURE_FILE
    for problem in bundle.verify():
        if problem.file != SIGNATURE_FILE:
            raise SignatureError(f"{problem.refusal(bundle.name)}; it was not signed")
    files = _files(bundle)
    try:
        signature = openssf.sign(bundle.path, files, Path(private_key))
    except OSError as error:
        raise SignatureError(f"{bundle.name}: cannot be signed: {error}") from error
    write(old, signature)
    return len(files)


def verify_signature(bundle: Bundle, public_key: str | Path) -> dict[str, str]:
    """Makes sure that the holder of a key signed the bundle as it is, on disk and as it was loaded.

    Reads every file. Damage is better told by `Bundle.verify`, which comes first.

    Args:
        public_key: PEM file of the signer's public key.

    Returns:
        SHA-256 (hex) by path inside the bundle, of every file that was signed.

    Raises:
        SignatureError: if the bundle is not signed, signed with another key or changed since, the key will not do, or
            model-signing is not installed.
    """
    openssf = _library()
    try:
        signature = read_regular(bundle.path, SIGNATURE_FILE, MAX_SIGNATURE_BYTES, _advice(bundle))
    except FileProblem as problem:
        unsigned = f"{bundle.name} is not signed: {_advice(bundle)}"
        raise SignatureError(unsigned if problem.kind == "missing" else problem.refusal(bundle.name)) from None
    files = _files(bundle)
    try:
        signed, differing = openssf.verify(bundle.path, files, signature, Path(public_key))
    except SignatureError as error:
        raise SignatureError(f"{bundle.name}: {error}") from error.__cause__
    except OSError as error:
        raise SignatureError(f"{bundle.name}: cannot be verified: {error}") from error
    if differing:
        raise SignatureError(_difference(bundle, differing))
    # Files that are read from now on are held against the manifest in memory: it must be the one that was signed.
    try:
        raw = read_regular(bundle.path, MANIFEST_FILE, MAX_MANIFEST_BYTES)
    except FileProblem:
        raw = b""
    if Digest.of(raw).sha256 != signed.get(MANIFEST_FILE) or parse_manifest(raw, bundle.name) != bundle.manifest:
        raise SignatureError(f"{bundle.name}: {MANIFEST_FILE} changed while it was verified; try again")
    return signed


def ensure_signed(bundle: Bundle, public_key: str | Path) -> dict[str, str]:
    """Verifies like `verify_signature`, but reads the files once for an opened bundle and a key.

    That is enough, because what is read later is held against the manifests that were signed.
    """
    key = str(Path(public_key).resolve())
    known = _ensured.setdefault(bundle, {})
    if key not in known:
        known[key] = verify_signature(bundle, public_key)
    return known[key]


def open_engine(
    bundle: Bundle,
    runtime: str,
    graph: str,
    host: HostInfo,
    *,
    precision: str | None = None,
    target: str | None = None,
    public_key: str | Path | None = None,
) -> EngineFolder:
    """The engine folder to run a graph with: found, then checked for damage, for its signer and for this machine.

    What the folder's `read` returns is what was signed, since engine.json is, and vouches for it.

    Args:
        precision: as for `find_engine`.
        target: as for `find_engine`.
        public_key: PEM file of the public key that must have signed the bundle; None asks for no signature.

    Raises:
        BundleError: if the bundle has no such graph.
        EngineError: if there is no such engine, it is damaged, or was built for another machine or other weights.
        SignatureError: if a signature is required and is not there or does not hold.
    """
    bundle.graph(graph)
    folder = find_engine(bundle, runtime, graph, precision, target, host)
    if public_key is not None:
        signed = ensure_signed(bundle, public_key)
        if signed.get(f"{ENGINES_FOLDER}/{folder.name}/{ENGINE_FILE}") != folder.sha256:
            raise SignatureError(_difference(bundle, [f"{ENGINES_FOLDER}/{folder.name}/{ENGINE_FILE}"]))
    check_current(folder.manifest, bundle)
    check_compatible(folder.manifest, host, bundle.path)
    return folder


def _library() -> ModuleType:
    try:
        from engines.bundle import openssf
    except ModuleNotFoundError as error:
        raise SignatureError(f"signatures need {error.name}: pip install 'edgedit[sign]'") from error
    return openssf


def _files(bundle: Bundle) -> list[str]:
    files: list[str] = []
    for name, mode in walk(bundle.path, without=HIDDEN_ENGINES):
        if name != SIGNATURE_FILE:
            if not S_ISREG(mode):
                raise SignatureError(f"{bundle.name}: {name} is not a regular file; copy the bundle again")
            files.append(name)
    return files


def _advice(bundle: Bundle) -> str:
    return f"sign it with `edgedit sign -b {shlex.quote(str(bundle.path))} --private-key PRIVATE_KEY.pem`"


def _difference(bundle: Bundle, differing: list[str]) -> str:
    engines = [file for file in differing if file.startswith(f"{ENGINES_FOLDER}/")]
    # What is not an engine does not change in an honest bundle, so that it is told first.
    others = [file for file in differing if file not in engines]
    if others:
        first, more = others[0], len(differing) - 1
        advice = "copy the bundle again"
    else:
        folders = list(dict.fromkeys("/".join(file.split("/")[:2]) for file in engines))
        first, more = folders[0], len(folders) - 1
        advice = f"if it was built or removed since, {_advice(bundle).replace('sign it', 'sign the bundle again')}"
    return f"{bundle.name}: {first} is not as it was signed{f' (and {more} more)' if more else ''}; {advice}"
