"""HTML and SVG that cannot forget to escape: text is text unless it was made here."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape

_EMPTY = frozenset({"meta", "link", "input", "br"})
# Inside SVG an element without content needs the slash that HTML does without.
_CLOSED = frozenset({"circle", "line", "path"})


class Html(str):
    """Markup: goes into the page as it is. Made by `el`, `join` and `raw` only."""

    __slots__ = ()


def raw(text: str) -> Html:
    """Our own markup, style sheet or script; never what was read from a file of a user."""
    return Html(text)


def text(value: object) -> Html:
    """Anything as escaped text; markup stays what it is."""
    return value if isinstance(value, Html) else Html(escape(str(value)))


def join(parts: Iterable[object], between: str = "") -> Html:
    """Parts one after the other, each escaped unless it is markup."""
    return Html(between.join(map(text, parts)))


def el(tag: str, *children: object, **attributes: object) -> Html:
    """An element; `class_` is written class and `data_l` data-l, None leaves an attribute out and True has no value."""
    written = []
    for name, value in attributes.items():
        if value is None or value is False:
            continue
        name = name.rstrip("_").replace("_", "-")
        written.append(f" {name}" if value is True else f' {name}="{escape(str(value))}"')
    opening = f"<{tag}{''.join(written)}"
    if tag in _EMPTY or tag in _CLOSED:
        return Html(opening + ("/>" if tag in _CLOSED else ">"))
    return Html(f"{opening}>{join(children)}</{tag}>")
