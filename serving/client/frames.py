"""Which frames of a sweep to ask for next, over streams that may break."""

from __future__ import annotations


class Frames:
    """The order of a sweep's requests; answers come in the order of the requests.

    The first frame is asked for alone, and so is the first after a break: should the server not hold the photo, it is
    sent with that one and not with all of them.

    Args:
        count: how many frames there are.
        window: how many may be asked for and not taken at most.
    """

    def __init__(self, count: int, window: int) -> None:
        self._count = count
        self._window = window
        self._asked = self._taken = 0
        self._alone = True

    @property
    def done(self) -> bool:
        """Whether every frame was taken."""
        return self._taken == self._count

    @property
    def waiting(self) -> int:
        """How many frames were asked for and not taken yet."""
        return self._asked - self._taken

    @property
    def next(self) -> int:
        """The frame to be taken next."""
        return self._taken

    def ask(self) -> int | None:
        """The next frame to ask for; None if there is none for now."""
        if self._asked == self._count or self.waiting >= (1 if self._alone else self._window):
            return None
        self._asked += 1
        return self._asked - 1

    def unask(self) -> None:
        """Takes back the last `ask`, which could not be sent."""
        self._asked -= 1

    def take(self) -> int:
        """Notes that a frame is there; which one."""
        self._taken += 1
        self._alone = False
        return self._taken - 1

    def restart(self) -> None:
        """The stream is gone: all that was not taken is asked for again."""
        self._asked = self._taken
        self._alone = True
