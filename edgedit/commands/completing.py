"""The verb completion."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import tyro

from edgedit.commands.common import Reporting, console
from edgedit.completion import Shell, completion_script


@dataclass(frozen=True, kw_only=True)
class Completion(Reporting):
    """Print the script by which a shell completes verbs and options. bash: put
    `eval "$(edgedit completion bash)"` into ~/.bashrc. zsh: write it to a file `_edgedit` in a folder of $fpath. fish:
    write it to ~/.config/fish/completions/edgedit.fish."""

    shell: tyro.conf.Positional[Shell]
    """The shell."""

    def run(self) -> dict[str, Any]:
        script = completion_script(self.shell)
        # As it is: rich would turn its tabs to blanks.
        console.file.write(script)
        return {"shell": self.shell, "script": script}
