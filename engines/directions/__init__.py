"""Edit directions: vectors in W, W+ or StyleSpace with a usable range, and their composition into one edit.

`direction` is one vector and its file, `compose` adds several up with masks over rows, `published` turns the arrays of
the published methods into directions, and `recipes` holds the named edits that those methods published.
"""

from engines.directions.compose import Edit, Strength, parse_edits, pick, resolve, within_range
from engines.directions.direction import Direction, Kind, Space, load_directions

__all__ = [
    "Direction",
    "Edit",
    "Kind",
    "Space",
    "Strength",
    "load_directions",
    "parse_edits",
    "pick",
    "resolve",
    "within_range",
]
