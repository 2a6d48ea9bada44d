"""What travels: a stretch of one journal, as far as it is of one partition.

S1  A shipment for partition P from `before` to `after` holds every event of P that lies there, and every damaged region
    of the journal that falls to P. The places are the journal's own, so a record has the same place however it travels.
S2  The shipments of one journal and partition follow each other: each begins where the one before ended. They may come
    again, and cut differently; what lies before the stored position is then skipped, and beyond a gap nothing is stored.
S3  All that the journal has up to `watermark_ms` lies before `after`, whatever its partition.
"""

from uuid import UUID
from zlib import crc32

import msgspec

from storage.journal.events import Conversion, Event, Heartbeat

SUBJECT = "clickedge.events"
STREAM = "CLICKEDGE"
RESEND = "clickedge.resend"
MAX_BYTES = 768 * 1024
"""Of a shipment's payloads: a server takes messages of up to 1 MiB."""

Place = tuple[int, int]


class Sent(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """A record, or with `error` a damaged region of a journal, and where it lies."""

    segment: int
    byte_offset: int
    end_offset: int
    payload: bytes
    error: str = ""


class Shipment(msgspec.Struct, array_like=True, frozen=True):
    """One message. See S1 to S3."""

    version: int
    journal_id: bytes
    node_id: int
    worker_id: int
    partitions: int
    partition: int
    before: Place
    after: Place
    watermark_ms: int
    is_last: bool
    """The journal's writer is gone, and nothing follows `after`."""
    entries: list[Sent]


class Resend(msgspec.Struct, array_like=True, frozen=True):
    """A drain asks for a journal's events from there on: what it has been sent begins later."""

    journal_id: bytes
    partition: int
    place: Place


VERSION = 1
encode = msgspec.msgpack.Encoder().encode
_shipments = msgspec.msgpack.Decoder(Shipment)
_resends = msgspec.msgpack.Decoder(Resend)


def decode_shipment(message: bytes) -> Shipment:
    """The shipment in `message`; msgspec.DecodeError or ValidationError if it is none, or one of a later release."""
    shipment = _shipments.decode(message)
    if shipment.version != VERSION:
        raise msgspec.ValidationError(f"a shipment of version {shipment.version}, not {VERSION}")
    return shipment


def decode_resend(message: bytes) -> Resend:
    """The request in `message`; msgspec.DecodeError or ValidationError if it is none."""
    return _resends.decode(message)


def subject_of(partition: int) -> str:
    """Where the shipments of a partition are published."""
    return f"{SUBJECT}.{partition}"


def partition_of(event: Event, partitions: int) -> int:
    """The partition of an event: a conversion's is that of the click which it names. A heartbeat's: -1, for all."""
    if isinstance(event, Heartbeat):
        return -1
    if isinstance(event, Conversion):
        key = event.click_id or event.transaction_id.encode() or event.conversion_id
    else:
        key = event.params.get("ad_id", "").encode() or event.session.click_id
    return crc32(key) % partitions


def partition_of_damage(journal_id: UUID, place: Place, partitions: int) -> int:
    """The partition that a damaged region of a journal falls to."""
    return crc32(journal_id.bytes + repr(place).encode()) % partitions
