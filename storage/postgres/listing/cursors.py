"""Where a list goes on: the sort key of the last row shown, as opaque text."""

import base64
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

import msgspec

from storage.errors import StorageError


class PerhapsTime:
    """The kind of a time that may be None."""


class BadCursor(StorageError):
    """A cursor that no list gave."""

    def __init__(self) -> None:
        super().__init__("the cursor is none that this list has given")


def encode_cursor(key: Sequence[object]) -> str:
    """A sort key of times, ids and text as a cursor."""
    return base64.urlsafe_b64encode(msgspec.json.encode(key)).decode().rstrip("=")


def decode_cursor(cursor: str, *kinds: type[Any]) -> list[Any] | None:
    """The key behind a cursor, of these types; None for no cursor. BadCursor."""
    if not cursor:
        return None
    try:
        raw = msgspec.json.decode(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)), type=list[Any])
        if len(raw) != len(kinds):
            raise BadCursor
        return [_PARSERS.get(kind, kind)(value) for kind, value in zip(kinds, raw, strict=True)]
    except (ValueError, TypeError, AttributeError, msgspec.MsgspecError) as error:
        raise BadCursor from error


def _moment(text: Any) -> datetime:
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError("without a time zone")
    return moment


def _text(value: Any) -> str:
    if not isinstance(value, str) or "\0" in value:
        raise TypeError("no text")
    value.encode()
    return value


def _perhaps(value: Any) -> datetime | None:
    return None if value is None else _moment(value)


_PARSERS: dict[type[Any], Callable[[Any], Any]] = {datetime: _moment, PerhapsTime: _perhaps, UUID: UUID, str: _text}
