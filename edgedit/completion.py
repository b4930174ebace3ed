"""Scripts by which a shell completes `edgedit`'s verbs and options; they run nothing of edgedit's."""

from __future__ import annotations

import contextlib
import io
from typing import Literal

Shell = Literal["bash", "zsh", "fish"]


def completion_script(shell: Shell) -> str:
    """The script of a shell, as tyro writes it.

    Args:
        shell: for which.
    """
    from edgedit.cli import command_line

    script = io.StringIO()
    # tyro prints it and ends the program, as it does for its own option.
    with contextlib.redirect_stdout(script), contextlib.suppress(SystemExit):
        command_line(["--tyro-print-completion", shell])
    return script.getvalue()
