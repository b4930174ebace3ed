"""The development server: a real Triton on loopback, for tests and for trying a model repository out.

It is release 2.51 (24.10), the last one that a package index carries, and older than later security fixes: production
runs NVIDIA's container (`PRODUCTION`) on the same repository.
"""

from __future__ import annotations

RELEASE = "2.51"
PRODUCTION = "NGC tritonserver:26.11-py3"
"""The container that serves the same repository in production."""
