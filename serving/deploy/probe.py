"""Asks the server in this container whether it serves: 0 if so, else 1 and one line.

    python3 -m serving.deploy.probe live     the stub of edit_session answers; costs no inference
    python3 -m serving.deploy.probe infer    a photo is inverted and edited

A dead stub is not restarted by its server, and an older server goes on saying READY: only a question shows it.
"""

from __future__ import annotations

import argparse
import http.client
import json
import sys
from typing import Any

EDIT_SESSION = "edit_session"
INVERT = "invert"
RESEND = "resend image"
_NO_HANDLE = "0" * 32


class ProbeError(Exception):
    """The server does not serve."""


class Probe:
    """A server over HTTP."""

    def __init__(self, host: str, port: int, timeout: float) -> None:
        self.connection = http.client.HTTPConnection(host, port, timeout=timeout)

    def live(self) -> None:
        """Asks for a handle that cannot be: the stub alone knows that it is not there.

        Raises:
            ProbeError: if any other answer comes, or none.
        """
        status, body = self._infer([_string("handle", _NO_HANDLE), _string("edits", "{}")])
        if status != 404 or RESEND.encode() not in body:
            raise ProbeError(f"edit_session answered {status} instead of {RESEND!r}")

    def infer(self) -> None:
        """Inverts and renders one photo of uniform grey; the server keeps its inversion, so that the next one is cheap.

        Raises:
            ProbeError: if no image of the size of the photo comes back.
        """
        status, body = self._ask("GET", f"/v2/models/{INVERT}", b"", {})
        try:
            _, height, width, channels = json.loads(body)["inputs"][0]["shape"]
        except (ValueError, LookupError, TypeError):
            raise ProbeError(f"the server answered {status} when asked for {INVERT}") from None
        pixels = bytes([128]) * (height * width * channels)
        shape, size = [1, height, width, channels], {"binary_data_size": len(pixels)}
        image = {"name": "image", "datatype": "UINT8", "shape": shape, "parameters": size}
        status, body = self._infer([_string("edits", "{}"), image], pixels)
        if status != 200:
            raise ProbeError(f"edit_session answered {status} to a photo")
        if len(body) < len(pixels):
            raise ProbeError(f"edit_session answered {len(body)} bytes, fewer than a photo's {len(pixels)}")

    def _infer(self, inputs: list[dict[str, Any]], pixels: bytes = b"") -> tuple[int, bytes]:
        """Asks for an image; `pixels` are the data of the last input, the others have theirs."""
        outputs = [{"name": "image", "parameters": {"binary_data": True}}]
        head = json.dumps({"inputs": inputs, "outputs": outputs}).encode()
        headers = {"Inference-Header-Content-Length": str(len(head)), "Content-Type": "application/octet-stream"}
        return self._ask("POST", f"/v2/models/{EDIT_SESSION}/infer", head + pixels, headers)

    def _ask(self, method: str, path: str, body: bytes, headers: dict[str, str]) -> tuple[int, bytes]:
        try:
            self.connection.request(method, path, body, headers)
            answer = self.connection.getresponse()
            return answer.status, answer.read()
        except (OSError, http.client.HTTPException) as error:
            raise ProbeError(f"no answer: {error or type(error).__name__}") from error
        finally:
            # A connection that stays open would hold up the server's end for its whole exit timeout.
            self.connection.close()


def _string(name: str, text: str) -> dict[str, Any]:
    return {"name": name, "datatype": "BYTES", "shape": [1, 1], "data": [text]}


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="serving.deploy.probe", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("what", choices=("live", "infer"))
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--timeout", type=float, default=8.0, help="seconds for each answer")
    options = parser.parse_args(arguments)
    probe = Probe(options.host, options.port, options.timeout)
    try:
        probe.live() if options.what == "live" else probe.infer()
    except ProbeError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
