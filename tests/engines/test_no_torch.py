"""A machine that only serves installs no torch: no module of these packages may import it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

_ROOT = Path(__file__).resolve().parents[2]

_SCRIPT = """
import importlib, pkgutil, sys
from engines.errors import EdgeditError

package = importlib.import_module(sys.argv[1])
names = [sys.argv[1]] + [m.name for m in pkgutil.walk_packages(package.__path__, sys.argv[1] + ".")]
for name in names:
    if name.endswith(".__main__"):
        continue
    try:
        importlib.import_module(name)
    except ModuleNotFoundError as error:
        # Optional runtimes and clients are not installed everywhere; our own modules are.
        if error.name.partition(".")[0] in ("engines", "serving", "edgedit", "bench", "export", "training"):
            raise
    guilty = [m for m in sys.modules if m.partition(".")[0] in ("torch", "training")]
    assert not guilty, f"{name} imports {guilty[0]}"
print(len(names))
"""


@pytest.mark.parametrize("package", ["engines", "serving", "edgedit"])
def test_importing_every_module_imports_no_torch(package: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _SCRIPT, package],
        cwd=_ROOT,
        env={"PYTHONPATH": str(_ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    files = [p for p in (_ROOT / package).rglob("*.py") if p.name != "__main__.py"]
    walked = int(done.stdout)
    assert walked >= len(files)
