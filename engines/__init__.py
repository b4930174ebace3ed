"""Bundles, directions, photos, precision, engine builds, runtimes and the edit session.

ONNX Runtime reports what it runs to its makers from version 1.29 on, unless this variable says otherwise when it is
first imported: names of models and a number for the machine. Photos of people are edited here, so it is told not to; a
value that is there already stands. The thread that it reports from would also keep a forked process from ending.
"""

from __future__ import annotations

import os

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
