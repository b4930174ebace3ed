#!/usr/bin/env bash
# Writes gateway.lock and build.lock afresh: what the gateway's image installs, with hashes, for Linux and Python 3.12.
# Needs uv; keeps pins that still fit, `serving/deploy/lock.sh --upgrade` moves them to the newest versions.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
compile() {
  uv pip compile --quiet --universal --python-version 3.12 --fork-strategy fewest --generate-hashes --no-emit-index-url \
    --no-annotate --custom-compile-command serving/deploy/lock.sh --override requirements/overrides.txt "$@"
}
compile pyproject.toml --extra serve --extra gateway --output-file serving/deploy/gateway.lock "$@"
# The gateway finds faces: it has the detector's weights installed, since nothing can be fetched where it runs.
python3 -c "from engines.packages import *; print(FACE_DETECTOR.locked)" >>serving/deploy/gateway.lock
# The build backend, which pip would otherwise fetch without a hash.
python3 -c "import tomllib; print(*tomllib.load(open('pyproject.toml', 'rb'))['build-system']['requires'], sep='\n')" |
  compile - --output-file serving/deploy/build.lock "$@"
