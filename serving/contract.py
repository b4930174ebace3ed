"""The names, limits and handles on which the model repository, its server, its clients and the gateway agree.

Tensors of the graphs are those of `engines.contracts`, with a batch dimension of at most `MAX_BATCH` first.
"""

from __future__ import annotations

from engines.contracts import PARTS, PIPELINES
from serving.models.edit_session.session_core import CACHE_BYTES as CACHE_BYTES
from serving.models.edit_session.session_core import HANDLE_DIGITS as HANDLE_DIGITS
from serving.models.edit_session.session_core import MAX_EDITS as MAX_EDITS
from serving.models.edit_session.session_core import handle_of as handle_of

GRAPH_MODELS = (*PIPELINES, *PARTS)
"""Models that are one graph of a bundle each, named as the graph is."""

EDIT_IMAGE = "edit_image"
"""The ensemble `invert` then `edit`: image, delta_w and style_delta in, edited_image out.

As `edit` itself, it takes any deltas and answers what the graphs compute, also where those leave no picture."""

EDITED_IMAGE = "edited_image"
"""The name of the output. It is not "image" too: tensors of one name are one tensor in an ensemble."""

EDIT_SESSION = "edit_session"
"""Inverts once and edits many times: image and/or handle, and edits in; handle and image out.

Edits that leave no picture are refused, as by the edit session in process (`engines.lost_picture`)."""

VERSION = "1"
"""The version that a fresh repository holds."""

MAX_BATCH = 8
"""`max_batch_size` of every model."""

CPU_CONFIG = "cpu"
"""`--model-config-name` on a machine without a GPU: configs/cpu.pbtxt."""

IMAGE, HANDLE, EDITS = "image", "handle", "edits"
"""Tensors of `edit_session`: UINT8 [1, h, w, 3], and strings [1, 1]; an input that is left out is not sent."""

HANDLE_HEADER = "edgedit-handle"
"""gRPC metadata and HTTP header with the handle that a request is about, or that its image will get. Balancers route by
it, so that a session stays on the server that holds its inversion; without it any server may be asked."""

RESEND = "resend image"
"""The message of NOT_FOUND for a handle that is no longer held."""

DIRECTIONS = "directions"
"""Parameter of `edit_session`: JSON, name -> {"min_strength", "max_strength", "description"}."""

CACHE_BYTES_PARAMETER = "cache_bytes"
"""Parameter of `edit_session`: the bytes that its inversions may take."""

BUNDLE_SHA256 = "bundle_sha256"
"""Parameter of `edit_session`: the digest of its latest version's bundle, which handles are made with."""
