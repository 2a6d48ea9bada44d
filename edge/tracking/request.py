"""What a handler takes and gives: a request without a server, and an answer without a socket."""

from enum import IntEnum

import msgspec

from edge.tracking.headers import Headers
from storage.journal.events import Session


class Request(msgspec.Struct, frozen=True, gc=False):
    """One request, parsed. `params`: cleaned, see `parameters`; `received_ms`: Unix milliseconds."""

    method: str
    path: str
    params: dict[str, str]
    headers: Headers
    client_ip: str
    is_https: bool
    received_ms: int


class Answer(msgspec.Struct, frozen=True, gc=False):
    """What goes out. `location` is the compiled URL, byte for byte; `cookie` is a whole Set-Cookie value."""

    status: int
    body: bytes = b""
    content_type: str = "text/plain; charset=utf-8"
    location: str = ""
    cookie: str = ""
    retry_after_s: int = 0
    allow: str = ""
    extra: tuple[tuple[str, str], ...] = ()
    """More header lines, of our own words only."""


class Kind(IntEnum):
    """What a request is, for counting; the order is `counters.KINDS`. Plain numbers index faster: use `.value`."""

    CLICK = 0
    IMPRESSION = 1
    POSTBACK = 2
    PIXEL = 3
    OTHER = 4


class Handled(msgspec.Struct, frozen=True, gc=False):
    """A handler's result. `event` is journalled before `answer` leaves.

    A click whose event finds no room is answered all the same and counted as dropped; a conversion is not
    (`is_droppable`): its sender gets `UNAVAILABLE` and tries again.
    """

    kind: int
    outcome: str
    answer: Answer
    event: bytes = b""
    is_droppable: bool = False
    session: Session | None = None
    """To be remembered once `event` is journalled: no verdict may hang on a click that never was."""


def text(status: int, message: str) -> Answer:
    """A short plain answer; `message` never holds what a client sent."""
    return Answer(status, message.encode() + b"\n")


UNAVAILABLE = Answer(503, b"try again: this could not be recorded durably\n", retry_after_s=5)
NOT_FOUND = text(404, "not found")

# The smallest transparent GIF: 43 bytes, 1 x 1 pixel.
PIXEL_GIF = bytes.fromhex("47494638396101000100800000000000ffffff21f90401000000002c00000000010001000002024401003b")
GIF = Answer(200, PIXEL_GIF, "image/gif")
