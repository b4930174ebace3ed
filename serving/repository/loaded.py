"""Waits for a running server to load what was added to its repository."""

from __future__ import annotations

import time

from engines.errors import RuntimeUnavailableError

PATIENCE = 600.0
"""Seconds. Loading TensorRT engines captures a CUDA graph per batch size."""


def wait_until_loaded(address: str, models: list[str], version: int, patience: float = PATIENCE) -> None:
    """Returns once the server whose gRPC is at `address`, host:port, says that a version of every model is ready.

    Raises:
        RuntimeUnavailableError: if the server cannot be asked, or has not loaded them in time.
    """
    from tritonclient.grpc import InferenceServerClient
    from tritonclient.utils import InferenceServerException

    deadline = time.monotonic() + patience
    with InferenceServerClient(address) as client:
        for model in models:
            try:
                while not client.is_model_ready(model, str(version), client_timeout=10.0):
                    if time.monotonic() > deadline:
                        raise RuntimeUnavailableError(
                            f"the server at {address} has not loaded version {version} of {model}; see its log, and "
                            f"remove the folders {version} from its repository to go back"
                        )
                    time.sleep(0.2)
            except InferenceServerException as error:
                raise RuntimeUnavailableError(f"no Triton server answers at {address}: {error.message()}") from error
