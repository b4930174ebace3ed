"""The verb `studio`: what keeps it from starting is one line."""

from __future__ import annotations

import builtins
import socket
from typing import Any

import pytest

from tests.edgedit.conftest import Cli


def test_a_port_that_is_taken(cli: Cli) -> None:
    pytest.importorskip("uvicorn", reason="the studio needs the gateway extra")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = cli("studio", "--port", str(port), "--no-browser")
    assert done.status == 1 and done.err.count("\n") == 1
    assert f"cannot listen on 127.0.0.1:{port}" in done.err and "choose another" in done.err


def test_a_missing_extra(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def lacking(name: str, *more: Any) -> Any:
        if name == "serving.gateway.server":
            raise ModuleNotFoundError("No module named 'uvicorn'", name="uvicorn")
        return real(name, *more)

    monkeypatch.setattr(builtins, "__import__", lacking)
    done = cli("studio", "--no-browser")
    assert done.status == 1
    assert done.err == "error: the studio needs the package uvicorn: pip install 'edgedit[gateway]'\n"
