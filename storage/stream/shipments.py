"""What travels: a stretch of one journal, as far as it is of one partition.

S1  A shipment for partition P from `before` to `after` holds every event of P that lies there, and every damaged region
    of the journal that falls to P; a segment that is missing falls to all. The places are the journal's own, so a record has the same place however it travels.
S2  The shipments of one journal and partition follow each other: each begins where the one before ended. They may come
    again, and cut differently; what lies before the stored position is then skipped, and beyond a gap nothing is stored.
S3  A beat is a shipment without entries to every partition at once: a stretch in which a journal had nothing for them.
    So one message a second tells all partitions that it lives, one that it has begun, and one that it has ended.
S4  All that the journal has up to `watermark_ms` lies before `after`, whatever its partition.
"""

from uuid import UUID
from zlib import crc32

import msgspec

from storage.errors import StorageError
from storage.journal.events import Conversion, Event, Heartbeat

SUBJECT = "clickedge.events"
STREAM = "CLICKEDGE"
RESEND = "clickedge.resend"
MAX_BYTES = 768 * 1024
"""Of a shipment's payloads: a server takes messages of up to 1 MiB."""

MAX_SEGMENT, MAX_OFFSET = (1 << 31) - 1, (1 << 62) - 1

Place = tuple[int, int]


class Sent(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """A record, or with `error` a damaged region of a journal, and where it lies."""

    segment: int
    byte_offset: int
    end_offset: int
    payload: bytes
    error: str = ""


class Shipment(msgspec.Struct, array_like=True, frozen=True, tag=1):
    """A message of one partition: S1, S2, S4."""

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


class Beat(msgspec.Struct, array_like=True, frozen=True, tag=2):
    """A message of all partitions: S3, S4. `befores`: of each partition."""

    version: int
    journal_id: bytes
    node_id: int
    worker_id: int
    partitions: int
    befores: list[Place]
    after: Place
    watermark_ms: int
    is_last: bool

    def for_partition(self, partition: int) -> Shipment:
        """What it says to one of them."""
        return Shipment(
            self.version, self.journal_id, self.node_id, self.worker_id, self.partitions, partition,
            self.befores[partition], self.after, self.watermark_ms, self.is_last, [],
        )  # fmt: skip


Message = Shipment | Beat


class Resend(msgspec.Struct, array_like=True, frozen=True):
    """A drain asks for a journal's events from there on: what it has been sent begins later."""

    journal_id: bytes
    partition: int
    place: Place


VERSION = 1
EVERYBODY = f"{SUBJECT}.all"
"""Where beats are published: every drain reads it beside its partitions."""


class LaterVersion(StorageError):
    """Written by a later release: not to be skipped, and not to be stored by this one."""


encode = msgspec.msgpack.Encoder().encode
_messages = msgspec.msgpack.Decoder(Message)
_resends = msgspec.msgpack.Decoder(Resend)


def decode_message(data: bytes) -> Message:
    """The message in `data`; msgspec.DecodeError or ValidationError if it is none. LaterVersion: it may well be one."""
    try:
        message: Message = _messages.decode(data)
    except msgspec.ValidationError:
        _refuse_later(_version_in(data))
        raise
    _refuse_later(message.version)
    if isinstance(message, Beat) and len(message.befores) != message.partitions:
        raise msgspec.ValidationError(f"a beat of {message.partitions} partitions with {len(message.befores)} places")
    return message


def _version_in(data: bytes) -> int:
    """What an array says in the place of the version, behind the tag; 0: nothing like it."""
    try:
        return msgspec.msgpack.decode(msgspec.msgpack.decode(data, type=list[msgspec.Raw])[1], type=int)
    except (msgspec.MsgspecError, IndexError):
        return 0


def _refuse_later(version: int) -> None:
    if version > VERSION:
        raise LaterVersion(f"a message of version {version}; this release knows {VERSION}")


def decode_resend(message: bytes) -> Resend:
    """The request in `message`; msgspec.DecodeError or ValidationError if it is none."""
    request: Resend = _resends.decode(message)
    if len(request.journal_id) != 16 or not is_possible(request.place):
        raise msgspec.ValidationError(f"no journal has {request.place}")
    return request


def is_possible(place: Place) -> bool:
    """Whether a journal can have that place: whoever may publish can name any."""
    return 0 < place[0] <= MAX_SEGMENT and 0 <= place[1] <= MAX_OFFSET


def subject_of(partition: int) -> str:
    """Where the shipments of a partition are published."""
    return f"{SUBJECT}.{partition}"


def subject_for(message: Message) -> str:
    """Where a message is published."""
    return EVERYBODY if isinstance(message, Beat) else subject_of(message.partition)


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
