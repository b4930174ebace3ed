"""Errors that are a user's to mend: each message is one line that says what was wrong and what to do.

The command line prints the message and exits non-zero, without a traceback.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class EdgeditError(Exception):
    """Base of all errors with a message for the user.

    Example:
        >>> try:
        ...     edgedit.Editor.load("nowhere")
        ... except edgedit.EdgeditError as error:
        ...     print(error)
        nowhere is not a bundle: there is no such directory
    """


class BundleError(EdgeditError):
    """A bundle is missing a file, fails a digest or is not a bundle."""


class EngineError(EdgeditError):
    """An engine cannot be built, is damaged, or was built for another machine."""


class SignatureError(EdgeditError):
    """A signature is missing, does not match or cannot be made."""


class CredentialsError(EdgeditError):
    """A key or certificate cannot sign pictures, or what a picture says of itself cannot be read."""


class ImageError(EdgeditError):
    """A file is not an image that can be read, or is out of bounds."""


class ImageTooLargeError(ImageError):
    """An image has more pixels than are accepted."""


class NoFaceError(ImageError):
    """No face was found, or not the one asked for."""


class DirectionError(EdgeditError):
    """An edit names an unknown direction or an impossible strength."""


class RuntimeUnavailableError(EdgeditError):
    """The runtime or provider asked for is not installed or not usable here."""


class OutputError(EdgeditError):
    """An output file cannot be written."""


def first_line(error: BaseException) -> str:
    """The first line of what an exception of a library says; the name of its class where it says nothing."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def suggestion(name: str, known: Iterable[str]) -> str:
    """The names that a wrong one may have meant: "did you mean smile? ", or nothing; `known` are in lower case."""
    close = difflib.get_close_matches(name.lower(), known, n=3)
    return f"did you mean {' or '.join(close)}? " if close else ""


class StrengthWarning(UserWarning):
    """An edit's strength lies outside the direction's usable range."""
