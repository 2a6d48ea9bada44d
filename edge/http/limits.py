"""How large a head may be, and the short answers to what is no request."""

from edge.tracking.request import Answer, text

MAX_REQUEST_LINE_BYTES = 8192
MAX_HEAD_BYTES = 32 * 1024
MAX_HEADERS = 100
BAD_REQUEST = text(400, "bad request")
HEAD_TOO_LARGE = text(431, "the request line may have 8192 bytes, the head 32768")
HEAD_TOO_SLOW = text(408, "the head did not arrive in time")
NO_SUCH_VERSION = text(505, "HTTP/1.1, please")


def is_too_large(head: bytes, line: bytes) -> bool:
    """Whether a whole head has more bytes or lines than it may; llhttp has refused bare line feeds already."""
    # A single byte is counted a fifth faster than two.
    return len(line) > MAX_REQUEST_LINE_BYTES or len(head) > MAX_HEAD_BYTES or head.count(b"\n") > MAX_HEADERS + 2


def find_fault_in_part(data: bytes) -> Answer | None:
    """The refusal of a head that is not whole yet; None: its rest may be awaited."""
    if len(data) > MAX_HEAD_BYTES or (len(data) > MAX_REQUEST_LINE_BYTES and b"\n" not in data):
        return HEAD_TOO_LARGE
    if not (data[:1].isalpha() or data == b"\r") or data.count(b"\n") != data.count(b"\r\n"):
        return BAD_REQUEST  # no method, or a bare line feed: the end of this head may never come
    return None
