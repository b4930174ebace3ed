"""The outcome of a batch."""

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
    """The edit's name; "" for all of them."""
    failure: Failure


@dataclass(frozen=True, kw_only=True)
class Report:
    """The outcome of a batch; `report.json` in its folder says the same.

    Counts are of photos, those of earlier runs included. A photo with one failed edit of several has failed.
    """

    photos: int
    done: int
    present: int
    """The number of photos that were done before this run."""
    failures: tuple[FailedPhoto, ...]
    """The failed photos, in the order of their names."""
    results: int
    """Files that this run wrote."""
    seconds: float
    """The time that this run took."""
    bundle: str
    """The bundle's name."""
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
