#!/bin/sh
# Installs edgedit {{ edgedit }} on this machine from this folder alone. Nothing is fetched from a network.
#   ./install.sh [TARGET]      TARGET is ~/edgedit by default
#   PYTHON=/path/to/python{{ python }} ./install.sh [TARGET]
set -eu
fail() {
  echo "error: $*" >&2
  exit 1
}
[ $# -le 1 ] || fail "give one folder to install to, or none"
pack=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
target=${1:-$HOME/edgedit}
python=${PYTHON:-python{{ python }}}
unset PYTHONPATH PYTHONHOME

command -v sha256sum >/dev/null || fail "there is no sha256sum here to check the pack with; install coreutils"
cd "$pack"
sha256sum --check --strict --quiet SHA256SUMS || fail "the pack is damaged; copy it again"
[ "$(uname -s) $(uname -m)" = "Linux {{ machine }}" ] ||
  fail "this pack is for {{ platform }}, and this machine is $(uname -s) $(uname -m); pack for this one"
cd - >/dev/null
command -v "$python" >/dev/null || fail "there is no $python; install Python {{ python }}, or name it: PYTHON=... ./install.sh"
"$python" -c 'import sys; sys.exit("{{ python }}" != "%d.%d" % sys.version_info[:2])' ||
  fail "$python is not Python {{ python }}, which this pack is for"
if [ -e "$target" ] && [ -n "$(ls -A -- "$target" 2>&1)" ]; then
  fail "$target is there and not an empty folder; name another one: ./install.sh TARGET"
fi

# Nothing half-installed stays.
trap 'rm -rf -- "$target"' EXIT
trap 'exit 130' INT TERM
mkdir -p -- "$target" || fail "$target cannot be made"
target=$(CDPATH='' cd -- "$target" && pwd)
echo "installing {{ wheels | length }} wheels into $target/venv"
"$python" -m venv "$target/venv" || fail "$python cannot make a venv; install its package python{{ python }}-venv"
"$target/venv/bin/python" -m pip --isolated --disable-pip-version-check install --quiet --no-cache-dir \
  --no-index --find-links "$pack/wheels" --only-binary :all: --no-deps --require-hashes \
  --requirement "$pack/requirements.txt" || fail "the wheels cannot be installed"
echo "copying the bundle {{ bundle }}"
cp -R "$pack/bundle" "$pack/pack.json" "$pack/{{ expected_file }}" "$target/"
"$target/venv/bin/edgedit" pack --self-test "$target" || fail "the self-test failed, so nothing stays installed"
trap - EXIT
echo "installed; for example:"
echo "  $target/venv/bin/edgedit edit photo.jpg -b $target/bundle -d {{ expected.direction }}:{{ expected.strength }} -o out.png"
