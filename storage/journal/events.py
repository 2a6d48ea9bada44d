"""What a worker writes into its journal: one msgpack array per event, the kind first.

Every event names the catalog revision in force when it happened. Strings are clean: no control bytes, valid UTF-8.
Ids are 16 bytes; 0 and "" stand for "none". A click's session is an array within its event; the conversion that meets
it in the worker's memory carries it encoded, as bytes that may be empty.
"""

from typing import Literal

import msgspec

ID_BYTES = 16
Outcome = Literal["redirected", "fallback", "rejected", "recorded"]
Via = Literal["postback", "pixel", "import"]
"""Files of conversions are imported without a journal, as the same events."""


class Session(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """What attribution needs of a click; its time is the id's. Mirrors columns of `clicks`."""

    click_id: bytes
    revision: int
    offer_id: int
    aff_id: int
    landing_page_id: int
    creative_id: int
    contact_id: str
    ip: str
    user_agent: str


class Click(msgspec.Struct, array_like=True, frozen=True, tag=1, gc=False):
    """A click, answered. `params`: the request's parameters, an alias's frozen ones merged in."""

    session: Session
    outcome: Outcome
    reason: str
    flags: list[str]
    alias: str
    params: dict[str, str]
    referrer: str
    language: str
    visitor: bytes
    """The cookie's first click id; empty: the drain derives one from address and user agent."""


class Impression(msgspec.Struct, array_like=True, frozen=True, tag=2, gc=False):
    """An ad seen; the fields are a click's."""

    session: Session
    outcome: Outcome
    reason: str
    flags: list[str]
    alias: str
    params: dict[str, str]
    referrer: str
    language: str
    visitor: bytes


class Conversion(msgspec.Struct, array_like=True, frozen=True, tag=3, gc=False):
    """A conversion, received: nothing about it is decided yet."""

    conversion_id: bytes
    revision: int
    received_ms: int
    via: Via
    transaction_id: str
    """As sent, at most 64 characters; empty where a pixel brought none."""
    click_id: bytes
    """The id, verified; empty: forged, malformed or not ours."""
    session: bytes
    """The click's session, encoded, when this worker still held it; else empty."""
    offer_id: int
    goal_id: int
    params: dict[str, str]
    ip: str
    user_agent: str
    referrer: str
    is_external: bool = False
    """Its `transaction_id` is none of ours and may be another network's: the drain looks it up."""


class Heartbeat(msgspec.Struct, array_like=True, frozen=True, tag=4, gc=False):
    """Every later record of this journal has an id of `ms` or above."""

    ms: int


Event = Click | Impression | Conversion | Heartbeat

encode = msgspec.msgpack.Encoder().encode
_decoder = msgspec.msgpack.Decoder(Event)
_session_decoder = msgspec.msgpack.Decoder(Session)


def decode(payload: bytes) -> Event:
    """The event in `payload`, its ids and session whole; msgspec.DecodeError or ValidationError if it is none."""
    event: Event = _decoder.decode(payload)
    if isinstance(event, Conversion):
        _check_id(event.conversion_id)
        if event.click_id:
            _check_id(event.click_id)
        if event.session:
            decode_session(event.session)
    elif not isinstance(event, Heartbeat):
        _check_id(event.session.click_id)
    return event


def decode_session(payload: bytes) -> Session:
    """The session in `payload`; msgspec.DecodeError or ValidationError if it is none."""
    session = _session_decoder.decode(payload)
    _check_id(session.click_id)
    return session


def _check_id(event_id: bytes) -> None:
    """Whose parts are looked at further on."""
    if len(event_id) != ID_BYTES:
        raise msgspec.ValidationError(f"an id of {len(event_id)} bytes")
