"""What a batch came to."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass
from typing import Any

from edgedit.batching.journal import Failure

FILE = "report.json"


@dataclass(frozen=True)
class FailedPhoto:
    """A photo, or one edit of it, that there is no result of."""

    photo: str
    edit: str
    """"" for all of them."""
    failure: Failure


@dataclass(frozen=True, kw_only=True)
class Report:
    """What a batch came to; `report.json` in its folder says the same.

    Counts are of photos, those of earlier runs included. A photo with one failed edit of several has failed.
    """

    photos: int
    done: int
    present: int
    """Of those that are done, how many were before this run."""
    failures: tuple[FailedPhoto, ...]
    """By name."""
    results: int
    """Files that this run wrote."""
    seconds: float
    """That this run took."""
    bundle: str
    """Its name."""
    edits: dict[str, dict[str, float]]
    """Strength by direction, by edit."""

    @property
    def failed(self) -> int:
        """Photos that failed, wholly or in one edit."""
        return self.photos - self.done

    @property
    def kinds(self) -> dict[str, int]:
        """Failures by kind, the most frequent first."""
        return dict(Counter(one.failure.kind for one in self.failures).most_common())

    def to_json(self) -> dict[str, Any]:
        """The report as plain values."""
        rows = [{"photo": one.photo, "edit": one.edit or None, **one.failure._asdict()} for one in self.failures]
        return asdict(self) | {"failed": self.failed, "kinds": self.kinds, "failures": rows}
