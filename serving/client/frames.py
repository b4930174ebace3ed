"""Which frames of a sweep to ask for next, over connections that may break and servers that may forget the photo."""

from __future__ import annotations


class Frames:
    """The order of a sweep's requests; answers come in the order of the requests.

    The first frame is asked for alone, and so is the first after a break: should the server not hold the photo, one
    frame is sent again with it and not all of them.

    Args:
        count: how many frames there are.
        window: how many may be asked for and not taken at most.
    """

    def __init__(self, count: int, window: int) -> None:
        self._count = count
        self._window = window
        self._asked = self._taken = 0
        self._alone = True
        self._with_image = False

    @property
    def done(self) -> bool:
        """Whether every frame was taken."""
        return self._taken == self._count

    @property
    def waiting(self) -> int:
        """How many frames were asked for and not taken yet."""
        return self._asked - self._taken

    def ask(self) -> tuple[int, bool] | None:
        """The next frame to ask for and whether the photo goes with it; None if there is none for now."""
        if self._asked == self._count or self.waiting >= (1 if self._alone else self._window):
            return None
        self._asked += 1
        return self._asked - 1, self._with_image

    def unask(self) -> None:
        """Takes back the last `ask`, which could not be sent."""
        self._asked -= 1

    def take(self) -> int:
        """Notes that an answer is there; the index of its frame."""
        self._taken += 1
        self._alone = self._with_image = False
        return self._taken - 1

    def restart(self, with_image: bool) -> None:
        """The connection is gone: all that was not taken is asked for again, the first with the photo if need be."""
        self._asked = self._taken
        self._alone, self._with_image = True, with_image

    @property
    def sent_image(self) -> bool:
        """Whether the frame that is waited for was sent with the photo."""
        return self._with_image
