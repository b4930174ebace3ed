"""The verb `serve repo`: a bundle as a Triton model repository."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from edgedit.commands.common import BundleOption, Reporting, opened, parse_size, say
from edgedit.editor import PORTRAIT_BUNDLE
from engines.bundle.engine_manifest import FloatPrecision
from serving.contract import CACHE_BYTES


@dataclass(frozen=True, kw_only=True)
class ServeRepo(Reporting):
    """Write a bundle as a model repository for Triton: TensorRT on GPUs, ONNX Runtime on machines without one."""

    bundle: BundleOption = PORTRAIT_BUNDLE
    """The bundle to serve."""
    out: Annotated[Path, tyro.conf.arg(aliases=("-o",), metavar="DIRECTORY")]
    """The repository's folder; a repository that is there is replaced."""
    add_version: bool = False
    """Put the bundle into the repository that is there as its models' next version, for a running server to load."""
    server: Annotated[str | None, tyro.conf.arg(metavar="HOST:PORT", help_behavior_hint="")] = None
    """With --add-version: gRPC of a server that watches this repository (--model-control-mode=poll); edit_session gets
    the new version once the server has loaded the others. For other servers: load edit_session last."""
    threads: int = 1
    """Threads of ONNX Runtime for one network; 0 for as many as there are cores."""
    cache: Annotated[str | None, tyro.conf.arg(metavar="SIZE", help_behavior_hint="(default: 256 MiB)")] = None
    """The memory that edit_session may fill with inversions, such as 512M or 2G; on a GPU, of its memory."""
    busy_wait: bool = False
    """Have TensorRT wait for the GPU in a loop: the lowest latency, and a core at 100 % per model."""
    build_engines: Annotated[FloatPrecision | None, tyro.conf.arg(help_behavior_hint="")] = None
    """Also write what a server on a GPU builds its TensorRT engines from, in this precision (needs onnx and
    onnx-ir)."""

    def run(self) -> dict[str, Any]:
        from serving.repository import RepositoryOptions, put_into_repository

        options = RepositoryOptions(
            threads=self.threads,
            cache_bytes=parse_size("--cache", self.cache) or CACHE_BYTES,
            busy_wait=self.busy_wait,
            plan_sources=self.build_engines,
        )
        bundle = opened(self.bundle)
        written = put_into_repository(bundle, self.out, options, new_version=self.add_version, server=self.server)
        say(f"wrote {self.out}: {written.bundle} as version {written.version} of {', '.join(written.models)}")
        for line in written.remarks(bundle.manifest.graphs):
            say(line)
        return {"out": str(self.out), **asdict(written)}
