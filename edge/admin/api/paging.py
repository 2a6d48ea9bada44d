"""Pages of lists: how many, and from where on."""

from base64 import urlsafe_b64decode, urlsafe_b64encode
from typing import Annotated, Any

import msgspec

from edge.admin.api.problems import bad_fields

MAX_LIMIT = 1000
Limit = Annotated[int, msgspec.Meta(ge=1, le=MAX_LIMIT, description="How many on a page.")]
Cursor = Annotated[str, msgspec.Meta(pattern="^[A-Za-z0-9_-]*$", description="`next_cursor` of the page before.")]


class Page(msgspec.Struct, frozen=True):
    """One page of a list; no `next_cursor`: it is the last."""

    data: list[Any]
    next_cursor: str | None


def cursor_after(place: Any) -> str:
    """The cursor of what comes after `place`, any JSON value."""
    return urlsafe_b64encode(msgspec.json.encode(place)).decode().rstrip("=")


def place_of(cursor: str, kind: Any) -> Any:
    """The place that a cursor names, of that type, None for an empty one; Problem 422 for one that is not ours."""
    if not cursor:
        return None
    try:
        text = urlsafe_b64decode(cursor.encode("ascii") + b"=" * (-len(cursor) % 4))
        return msgspec.json.decode(text, type=kind)
    except (ValueError, msgspec.MsgspecError) as error:
        raise bad_fields([("cursor", "is no cursor of this list")]) from error
