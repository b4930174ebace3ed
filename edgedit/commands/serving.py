"""`edgedit serve ...`: the verbs of serving under one name."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import tyro

from edgedit.commands.serve_gateway import ServeGateway, ServeKey
from edgedit.commands.serve_repo import ServeRepo
from edgedit.commands.serve_up import ServeSetup, ServeUp


@dataclass(frozen=True)
class Serve:
    """Serve a bundle with Triton: write its model repository, run a server here, put an HTTP gateway in front."""

    verb: (
        Annotated[ServeRepo, tyro.conf.subcommand("repo")]
        | Annotated[ServeUp, tyro.conf.subcommand("up")]
        | Annotated[ServeSetup, tyro.conf.subcommand("setup")]
        | Annotated[ServeGateway, tyro.conf.subcommand("gateway")]
        | Annotated[ServeKey, tyro.conf.subcommand("key")]
    )
