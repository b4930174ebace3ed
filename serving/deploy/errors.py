"""The one error that ends the start of the image."""


class StartError(Exception):
    """The server cannot be started. The message is one line: what is wrong and what to do."""
