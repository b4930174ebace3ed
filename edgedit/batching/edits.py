"""The file of named edits: what a batch makes of every photo, checked before any work."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from engines.errors import EdgeditError
from engines.photo import PasteMode

MAX_BYTES = 2**20
"""The largest file of edits; far above any that people write."""

EXAMPLE = """\
# The edits that every photo gets, each under a name of your own: DIRECTION: STRENGTH, one or several.
# `edgedit directions` lists directions with their usable strengths.
smiling:
  smile: 1.5

younger:
  age: -2
  smile: 0.5
  options:            # all of them may be left out
    paste: true       # put the face back into the photo; false: the face alone; or detail, replace (see edgedit edit)
    format: jpeg      # png, jpeg or webp; by default that of the photo
    quality: 90       # of JPEG and WebP, 1 to 100; by default 95
    clamp: false      # limit strengths to the directions' usable ranges
"""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
"""Names of edits are names of folders, on every system."""


_Strength = Annotated[float, Field(strict=True, allow_inf_nan=False)]


class EditsError(EdgeditError):
    """A file of edits cannot be read, or says what cannot be."""


class Options(BaseModel):
    """Options of the result of one edit: how it is made and written."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    paste: Annotated[bool, Field(strict=True)] | PasteMode = True
    """True puts the face back as "auto" does; False writes the face alone."""
    format: Literal["png", "jpeg", "webp"] | None = None
    """The result's format; None for that of the photo."""
    quality: Annotated[int, Field(strict=True, ge=1, le=100)] = 95
    """The quality of JPEG and WebP."""
    clamp: Annotated[bool, Field(strict=True)] = False
    """Limit strengths to the usable ranges."""


class NamedEdit(BaseModel):
    """One edit: a strength for each direction, and the options."""

    model_config = ConfigDict(extra="allow", frozen=True)
    __pydantic_extra__: dict[str, _Strength]  # pyright: ignore[reportIncompatibleVariableOverride]

    options: Options = Options()

    @property
    def strengths(self) -> dict[str, float]:
        """Strength by direction."""
        return dict(self.__pydantic_extra__)


def read_edits(source: str | Path | Mapping[str, Any]) -> dict[str, NamedEdit]:
    """The edits of a YAML file, or of a mapping of the same form, by name.

    Args:
        source: a file as `EXAMPLE` is, or what such a file says.

    Raises:
        EditsError: with the file, the line and the field, and what to write there.
    """
    if isinstance(source, Mapping):
        return _checked(source, "edits", None)
    path = Path(source)
    try:
        with path.open("rb") as stream:
            data = stream.read(MAX_BYTES + 1)
    except OSError as error:
        raise EditsError(
            f"cannot read {path}: {error.strerror or error}; `edgedit batch --example` prints such a file"
        ) from error
    if len(data) > MAX_BYTES:
        raise EditsError(f"{path} is larger than {MAX_BYTES >> 10} KiB; a file of edits is a few lines of YAML")
    try:
        node = yaml.compose(data, yaml.SafeLoader)
        _check_keys(node, str(path))
        content = yaml.safe_load(data)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f":{mark.line + 1}" if mark else ""
        raise EditsError(f"{path}{line}: not YAML: {error.problem or error.context}; mend that line") from error
    # ValueError: a date that is none; RecursionError: brackets in brackets.
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise EditsError(f"{path} is not YAML: {' '.join(str(error).split())}") from error
    return _checked(content, str(path), node)


def _check_keys(node: yaml.Node | None, name: str) -> None:
    """
    Raises:
        EditsError: for a name that is none, or stands twice, of which YAML would take the last without a word.
    """
    if not isinstance(node, yaml.MappingNode):
        return
    known = set()
    for key, value in node.value:
        at = f"{name}:{key.start_mark.line + 1}"
        if not isinstance(key, yaml.ScalarNode):
            raise EditsError(f"{at}: a name before a colon is a word, not a list or mapping; mend that line")
        if key.value in known:
            raise EditsError(f"{at}: {key.value} stands twice; give it once")
        known.add(key.value)
        _check_keys(value, name)


def _checked(content: object, name: str, node: yaml.Node | None) -> dict[str, NamedEdit]:
    if not isinstance(content, Mapping) or not content:
        raise EditsError(
            f"{name}: there are no edits; write NAME: {{DIRECTION: STRENGTH}} (`edgedit batch --example` prints one)"
        )
    edits: dict[str, NamedEdit] = {}
    for key, edit in content.items():
        at = f"{name}{_line(node, (key,))}"
        if not isinstance(key, str) or not _NAME.fullmatch(key):
            raise EditsError(f"{at}: {key!r} is no name for an edit; use letters, digits, - and _, 64 at most")
        if key.lower() in map(str.lower, edits):
            raise EditsError(f"{at}: {key} differs from another edit in case alone; their folders could be the same")
        if not isinstance(edit, Mapping):
            raise EditsError(f"{at}: {key} is no edit; write {key}: {{DIRECTION: STRENGTH}}")
        if not all(isinstance(word, str) for word in edit):
            raise EditsError(f"{at}: {key} has a direction whose name is no text; put it in quotation marks")
        try:
            edits[key] = NamedEdit.model_validate(edit)
        except ValidationError as error:
            raise EditsError(_one_line(error, key, name, node)) from error
        if not edits[key].strengths:
            raise EditsError(f"{at}: {key} names no direction; write {key}: {{DIRECTION: STRENGTH}}")
    return edits


def _one_line(error: ValidationError, key: str, name: str, node: yaml.Node | None) -> str:
    errors = error.errors(include_url=False, include_context=False, include_input=False)
    place = tuple(str(part) for part in errors[0]["loc"])
    field = ".".join((key, *place[:2]))
    remedy = errors[0]["msg"]
    if place[0] != "options":
        remedy = f"{remedy}; write {place[0]}: 1.5, say"
    elif place[1:2] == ("paste",):
        # A union has a fault for each of its members.
        remedy = "paste is true, false, auto, detail or replace"
    elif errors[0]["type"] == "extra_forbidden":
        remedy = f"there is no such option; there are {', '.join(Options.model_fields)}"
    return f"{name}{_line(node, (key, *place[:2]))}: {field}: {remedy}"


def _line(node: yaml.Node | None, place: tuple[object, ...]) -> str:
    """ ":LINE" of a field, or of what it stands in; "" where there is no file."""
    if node is None:
        return ""
    line = node.start_mark.line
    for part in place:
        pairs = node.value if isinstance(node, yaml.MappingNode) else []
        pair = next(((key, value) for key, value in pairs if key.value == str(part)), None)
        if pair is None:
            break
        line, node = pair[0].start_mark.line, pair[1]
    return f":{line + 1}"
