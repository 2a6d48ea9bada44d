"""A request on the lane whose answer is not written yet."""

from typing import TYPE_CHECKING

from edge.tracking.request import Handled

if TYPE_CHECKING:
    from edge.http.lane import Lane


class Unanswered:
    """Its answer waits for the journal, or for the answers before it."""

    __slots__ = ("answer", "handled", "is_head", "is_last", "lane")

    answer: bytes
    """What to write; empty while the journal has not spoken."""
    handled: Handled
    is_head: bool
    is_last: bool

    def __init__(self, lane: "Lane") -> None:
        self.lane = lane

    def done(self, is_written: bool) -> None:
        """The journal has the event, or never will."""
        lane = self.lane
        port = lane.port
        answer = port.tracker.settle(self.handled, is_written)
        self.answer = port.dated.to_bytes(answer, self.is_head, self.is_last)
        lane.release()
