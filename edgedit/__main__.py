"""`python -m edgedit` is `edgedit`."""

from __future__ import annotations

import sys

from edgedit.cli import main

sys.exit(main())
