"""The bundle as all that runs, builds and serves it opens it: verified, and completed first where it needs to be."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Self

from engines.bundle.completion import complete, lacks_generator
from engines.bundle.contents import BundleContents
from engines.bundle.engine_manifest import ENGINES_FOLDER
from engines.bundle.folders import HIDDEN_ENGINES, engine_problems
from engines.bundle.integrity import FileProblem, check_entry, walk
from engines.bundle.manifest import MANIFEST_DIGEST_FILE, MANIFEST_FILE, SIGNATURE_FILES
from engines.errors import BundleError


class Bundle(BundleContents):
    """A bundle on disk whose manifest has been checked. Made by `Bundle.load`; safe to share between threads."""

    @classmethod
    def load(cls, path: str | Path, verify: bool = True, progress: Callable[[str], None] = lambda line: None) -> Self:
        """Opens a bundle; one without its generator is completed in the cache folder first.

        Args:
            verify: check every file now, else damage is found when a file is read; nothing is parsed unchecked.
            progress: called with one line if the bundle is to be completed.

        Raises:
            BundleError: if it is not a bundle, is of another schema, or any file is missing, damaged, unlisted or not
                a regular file inside the bundle.
            EdgeditError: as `engines.bundle.completion.complete`.
        """
        bundle = cls.open(path)
        if lacks_generator(bundle.path):
            bundle = cls.open(complete(bundle, progress))
        if verify and (problems := bundle.verify()):
            more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
            raise BundleError(f"{problems[0].refusal(bundle.name)}{more}")
        return bundle

    def verify(self) -> list[FileProblem]:
        """Checks every file against the manifest, and those of each engine folder against its engine.json.

        Parses nothing but engine.json files whose digests match. An empty list means that all is well.
        """
        problems = [p for f, entry in sorted(self.manifest.files.items()) if (p := check_entry(self.path, f, entry))]
        listed = {*self.manifest.files, MANIFEST_FILE, MANIFEST_DIGEST_FILE, *SIGNATURE_FILES}
        in_engines: list[tuple[str, int]] = []
        try:
            for name, mode in walk(self.path, without=HIDDEN_ENGINES):
                if name in SIGNATURE_FILES and not stat.S_ISREG(mode):
                    problems.append(FileProblem(name, "irregular", "is not a regular file"))
                elif name.startswith(f"{ENGINES_FOLDER}/") and name not in listed:
                    in_engines.append((name, mode))
                elif name not in listed:
                    problems.append(FileProblem(name, "unlisted", "is not listed in the manifest", "remove it"))
        except OSError as error:
            folder = os.path.relpath(error.filename or self.path, self.path)
            problems.append(FileProblem(folder, "irregular", f"cannot be listed: {error.strerror or error}"))
        return problems + engine_problems(self.path, in_engines)
