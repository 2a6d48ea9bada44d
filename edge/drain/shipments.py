"""What the stream brings, made into pieces for the store: each event of a journal once, however often it is sent. Pure.

The rule, for the place X up to which a journal's partition is stored: a shipment that ends at X or before is skipped,
but for its word that nothing follows; of one that X lies in, what follows X is stored; one that begins behind X waits
until what is missing has been sent again.
"""

from collections.abc import Iterable, Mapping
from typing import NamedTuple
from uuid import UUID

import msgspec

from edge.drain.contents import Entry, Piece
from storage.journal.framing import Record
from storage.journal.reader import Damaged
from storage.postgres.stream import Arrival, Place
from storage.stream.reading import ALL
from storage.stream.shipments import Beat, LaterVersion, Sent, Shipment, decode_message, is_possible

MAX_PARTITIONS = 4096
MAX_ID = 1 << 15
MAX_MS = (1 << 62) - 1

Key = tuple[UUID, int]
"""A journal, and one of the partitions."""


class OtherRelease(Exception):
    """The message is of a form that another release writes: that one's drains can read it."""


class Assembled(NamedTuple):
    """What a batch of shipments comes to."""

    pieces: list[Piece]
    redelivered: int
    """Shipments of which all was stored before."""
    gaps: dict[Key, tuple[int, int]]
    """For each journal and partition that goes on behind a gap: the place where."""
    rows: int
    """Entries in `pieces`."""


def read_shipments(message: bytes, partition: int, held: Iterable[int]) -> tuple[Shipment, ...]:
    """What a message of that partition, or of ALL, says to those that are held. ValueError: nothing that can be.

    OtherRelease: it may well say something.
    """
    try:
        content = decode_message(message)
    except LaterVersion as error:
        raise OtherRelease(str(error)) from error
    except msgspec.MsgspecError as error:
        raise ValueError(str(error)) from error
    if isinstance(content, Beat) != (partition == ALL):
        raise ValueError(f"{type(content).__name__.lower()} of the wrong subject")
    if isinstance(content, Beat):
        shipments = tuple(content.for_partition(number) for number in held if number < content.partitions)
    else:
        shipments = (content,)
    for shipment in shipments:
        if fault := _find_fault(shipment, shipment.partition if partition == ALL else partition):
            raise ValueError(fault)
    return shipments


def key_of(shipment: Shipment) -> Key:
    """Whose position the shipment moves."""
    return UUID(bytes=shipment.journal_id), shipment.partition


def arrival_of(shipment: Shipment) -> Arrival:
    """The journal, as it is to be registered."""
    return Arrival(UUID(bytes=shipment.journal_id), shipment.node_id, shipment.worker_id, shipment.partitions)


def assemble(shipments: Iterable[Shipment], places: Mapping[Key, Place]) -> Assembled:
    """Pieces of what is to be stored now, one for each journal and partition at most; `places`: what is stored."""
    growing: dict[Key, _Growing] = {}
    redelivered, gaps = 0, dict[Key, tuple[int, int]]()
    for shipment in shipments:
        key = key_of(shipment)
        piece = growing.get(key) or _Growing(places[key])
        if shipment.before > piece.after:
            gaps[key] = max(shipment.before, gaps.get(key, shipment.before))
        elif piece.is_new(shipment):
            growing[key] = piece
            piece.take(shipment)
        else:
            redelivered += shipment.before < shipment.after
    pieces = [piece.finish(key) for key, piece in sorted(growing.items())]
    left = {key: place for key, place in gaps.items() if key not in growing or growing[key].after < place}
    return Assembled(pieces, redelivered, left, sum(len(piece.entries) for piece in pieces))


class _Growing:
    """A piece to which shipments are added."""

    def __init__(self, stored: Place) -> None:
        self.before = self.after = (stored.segment, stored.byte_offset)
        self._is_last = stored.is_finished
        self._watermark_ms = 0
        self._entries: list[Entry] = []

    def is_new(self, shipment: Shipment) -> bool:
        """Whether there is something in it, be it only that nothing follows: a power cut may have cost the journal its end."""
        return shipment.after > self.after or (shipment.is_last and not self._is_last)

    def take(self, shipment: Shipment) -> None:
        for sent in shipment.entries:
            if (sent.segment, sent.byte_offset) >= self.after:
                self._entries.append(_entry_of(sent))
        self.after = max(self.after, shipment.after)
        self._watermark_ms = max(self._watermark_ms, shipment.watermark_ms)
        self._is_last = shipment.is_last

    def finish(self, key: Key) -> Piece:
        return Piece(key[0], self.before, self._entries, self.after, key[1], self._watermark_ms, self._is_last)


def _entry_of(sent: Sent) -> Entry:
    if sent.error:
        return Damaged(sent.segment, sent.byte_offset, sent.end_offset, sent.payload, sent.error)
    return Record(sent.segment, sent.byte_offset, sent.end_offset, sent.payload)


def _find_fault(shipment: Shipment, partition: int) -> str:
    """What no shipper of ours would send, and no table would take."""
    if len(shipment.journal_id) != 16 or not any(shipment.journal_id):
        return "the journal has no id"
    if shipment.partition != partition or not 0 <= partition < shipment.partitions <= MAX_PARTITIONS:
        return f"partition {shipment.partition} of {shipment.partitions}, sent to {partition}"
    if not (-1 <= shipment.node_id < MAX_ID and -1 <= shipment.worker_id < MAX_ID):
        return f"node {shipment.node_id}, worker {shipment.worker_id}"
    places = [shipment.before, *((sent.segment, sent.byte_offset) for sent in shipment.entries), shipment.after]
    if places != sorted(places) or not all(map(is_possible, places)):
        return f"places out of order between {shipment.before} and {shipment.after}"
    if not 0 <= shipment.watermark_ms <= MAX_MS:
        return f"watermark {shipment.watermark_ms}"
    return ""
