"""Asks a server of one protocol, as NumPy arrays."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np

from serving.contract import EDIT_SESSION
from serving.local.server import LocalTriton


class Asker:
    """One client of the server; not for several threads."""

    def __init__(self, protocol: str, address: str) -> None:
        if protocol == "grpc":
            import tritonclient.grpc as api
        else:
            import tritonclient.http as api
        self.api: Any = api
        self.client = api.InferenceServerClient(address)
        # The server would compress what it sends, which takes longer than sending it.
        self.options = {"headers": {"Accept-Encoding": "identity"}} if protocol == "http" else {}

    def __call__(self, model: str, feeds: Mapping[str, np.ndarray], outputs: list[str]) -> dict[str, np.ndarray]:
        answer = self.client.infer(
            model, self.inputs(feeds), outputs=[self.api.InferRequestedOutput(name) for name in outputs], **self.options
        )
        return {name: answer.as_numpy(name) for name in outputs}

    def inputs(self, feeds: Mapping[str, np.ndarray]) -> list[Any]:
        """Tensors to send."""
        from tritonclient.utils import np_to_triton_dtype

        found = []
        for name, array in feeds.items():
            tensor = self.api.InferInput(name, array.shape, np_to_triton_dtype(array.dtype))
            tensor.set_data_from_numpy(array)
            found.append(tensor)
        return found

    def session(
        self,
        image: np.ndarray | None = None,
        handle: str | None = None,
        edits: Mapping[str, Any] | str | None = None,
        outputs: list[str] | None = None,
    ) -> tuple[str, np.ndarray | None]:
        """Handle and image that `edit_session` answers; by default an image is asked for if there are edits."""
        outputs = outputs or ["handle", *(["image"] if edits is not None else [])]
        answer = self(EDIT_SESSION, session_feeds(image, handle, edits), outputs)
        image = answer.get("image")
        return answer["handle"][0, 0].decode(), None if image is None else image[0]


def session_feeds(
    image: np.ndarray | None = None, handle: str | None = None, edits: Mapping[str, Any] | str | None = None
) -> dict[str, np.ndarray]:
    """Inputs of `edit_session`: an h x w x 3 image, a handle, edits."""
    feeds = {} if image is None else {"image": image[None]}
    if edits is not None and not isinstance(edits, str):
        edits = json.dumps(edits)
    for name, text in (("handle", handle), ("edits", edits)):
        if text is not None:
            feeds[name] = np.array([[text.encode()]], np.object_)
    return feeds


@contextmanager
def asking(server: LocalTriton, protocol: str = "grpc") -> Iterator[Asker]:
    """A client that is closed: an open HTTP connection would hold the server up when it stops."""
    asker = Asker(protocol, server.grpc if protocol == "grpc" else server.http)
    try:
        yield asker
    finally:
        asker.client.close()
