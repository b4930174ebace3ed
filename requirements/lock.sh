#!/usr/bin/env bash
# Writes base.lock, dev.lock and docs.lock afresh, for every platform and Python from 3.11 on. Needs uv; keeps pins that
# still fit, `requirements/lock.sh --upgrade` moves them to the newest versions.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
compile() {
  uv pip compile --quiet --universal --python-version 3.11 --fork-strategy fewest --generate-hashes --no-emit-index-url \
    --custom-compile-command requirements/lock.sh --override requirements/overrides.txt pyproject.toml "$@"
}
# Packages whose weights alone are used, as engines/packages.py knows them: what they ask for is left out.
weights() { python3 -c "from engines.packages import *; print(FACE_DETECTOR.locked, GENERATOR.locked, sep='\n')"; }
compile --output-file requirements/base.lock "$@"
# torch is resolved at the version of torch.lock, so that what is pinned for it fits, and is left out of the result.
compile requirements/torch.lock --constraint requirements/base.lock --extra dev \
  --no-emit-package torch --no-emit-package edgedit --output-file requirements/dev.lock "$@"
# What builds the pages, beside dev.lock or alone.
compile --constraint requirements/dev.lock --extra docs --output-file requirements/docs.lock "$@"
weights | tee -a requirements/base.lock >>requirements/dev.lock
