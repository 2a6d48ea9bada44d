"""The cutter: what a journal is cut into, put together again by the rule of the drains, is the journal (S1 to S4)."""

from pathlib import Path
from uuid import uuid4

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.tracking.click_id import ms_of
from storage.journal.events import Click, Conversion, Event, Heartbeat, Session, decode, encode
from storage.journal.framing import Record
from storage.journal.reader import Batch, Damaged
from storage.journal.segments import Journal, Position
from storage.stream.cutting import Cutter, Progress, read_progress, write_progress
from storage.stream.shipments import MAX_BYTES, VERSION, Beat, LaterVersion, Message, Place, Shipment, decode_message
from storage.stream.shipments import encode as encode_message

PARTITIONS = 4


def make_journal(partitions: int = PARTITIONS) -> Journal:
    return Journal(uuid4(), 3, 1, 0, Path("/nowhere"), partitions)


def click(ms: int, number: int, **params: str) -> Click:
    click_id = ms.to_bytes(6, "big") + number.to_bytes(10, "big")
    session = Session(click_id, 1, 17, 2, 0, 0, "", "203.0.113.9", "agent")
    return Click(session, "redirected", "", [], "", params, "", "", b"")


def conversion(ms: int, number: int, click_id: bytes = b"", transaction_id: str = "") -> Conversion:
    conversion_id = ms.to_bytes(6, "big") + number.to_bytes(10, "big")
    return Conversion(conversion_id, 1, ms, "postback", transaction_id, click_id, b"", 17, 0, {}, "", "", "")


def records_of(events: list[Event | bytes], segment: int = 1) -> list[Record]:
    """As a journal has them: each frame where the one before ended."""
    records, offset = [], 43
    for event in events:
        payload = event if isinstance(event, bytes) else encode(event)
        records.append(Record(segment, offset, offset + 9 + len(payload), payload))
        offset = records[-1].end_offset
    return records


def batches_of(records: list[Record], size: int) -> list[Batch]:
    parts = [records[start : start + size] for start in range(0, len(records), size)]
    return [Batch(Position(part[-1].segment, part[-1].end_offset), part) for part in parts]


class Taker:
    """A drain's rule for one journal: what lies before its place is skipped, beyond a gap nothing is taken."""

    def __init__(self) -> None:
        self.places: dict[int, Place] = dict.fromkeys(range(PARTITIONS), (1, 0))
        self.payloads: dict[int, list[bytes]] = {number: [] for number in range(PARTITIONS)}
        self.watermarks = dict.fromkeys(range(PARTITIONS), 0)
        self.gaps = 0
        self.is_finished: set[int] = set()

    def take(self, message: Message) -> None:
        for number in range(PARTITIONS) if isinstance(message, Beat) else [message.partition]:
            self._take(message.for_partition(number) if isinstance(message, Beat) else message)

    def _take(self, one: Shipment) -> None:
        place = self.places[one.partition]
        if one.before > place:
            self.gaps += 1
        elif one.after > place or one.is_last:
            self.payloads[one.partition] += [
                sent.payload for sent in one.entries if (sent.segment, sent.byte_offset) >= place
            ]
            self.places[one.partition] = max(place, one.after)
            self.watermarks[one.partition] = max(self.watermarks[one.partition], one.watermark_ms)
            if one.is_last:
                self.is_finished.add(one.partition)

    @property
    def all_payloads(self) -> list[bytes]:
        return sorted(payload for payloads in self.payloads.values() for payload in payloads)


KINDS = ("click", "conversion", "beat", "named", "nonsense")
EVENTS = st.lists(st.tuples(st.sampled_from(KINDS), st.integers(0, 50)), min_size=1, max_size=60)
RESTARTS = st.dictionaries(st.integers(1, 20), st.integers(0, 20), max_size=4)
"""After which batch, and how many batches back the place was written down."""


def make_events(kinds: list[tuple[str, int]]) -> list[Event | bytes]:
    made: list[Event | bytes] = []
    ms = 1_800_000_000_000
    for number, (kind, later_ms) in enumerate(kinds):
        ms += later_ms
        kinds_of: dict[str, Event | bytes] = {
            "click": click(ms, number),
            "conversion": conversion(ms, number, click_id=click(ms - 5, 1).session.click_id),
            "named": conversion(ms, number, transaction_id=f"order-{number % 3}"),
            "beat": Heartbeat(ms),
            "nonsense": b"\xc1" + bytes([number]),
        }
        made.append(kinds_of[kind])
    return made


@settings(deadline=None)
@given(EVENTS, st.integers(1, 20), RESTARTS)
def test_a_journal_put_together_again_is_the_journal(
    kinds: list[tuple[str, int]], size: int, restarts: dict[int, int]
) -> None:
    """However it is cut, resumed and sent again, each event arrives once, and no watermark promises what is still to come."""
    events = make_events(kinds)
    records = records_of(events)
    cutter, taker = Cutter(make_journal(), None), Taker()
    beats = {encode(event) for event in events if isinstance(event, Heartbeat)}
    kept = [cutter.progress]
    position = 0
    batches = batches_of(records, size)
    while position < len(batches):
        for message in cutter.cut(batches[position]):
            taker.take(decode_message(encode_message(message)))
        kept.append(cutter.progress)
        position += 1
        taken = set(taker.all_payloads)
        left = [one for batch in batches[position:] for one in batch.records if one.payload not in taken]
        for record in left:
            if record.payload not in beats:
                assert max(taker.watermarks.values()) < _ms_of(record), "a watermark covers what is still to come"
        if position in restarts:
            position -= min(position, restarts.pop(position))
            cutter.progress = kept[position]
            del kept[position + 1 :]
    sent = sorted(record.payload for record, event in zip(records, events, strict=True) if not isinstance(event, Heartbeat))
    assert taker.all_payloads == sent
    assert taker.gaps == 0
    for message in cutter.closing():
        taker.take(message)
    assert taker.is_finished == set(range(PARTITIONS))
    assert set(taker.places.values()) == {(1, records[-1].end_offset)}


def _ms_of(record: Record) -> int:
    if record.payload[0] == 0xC1:
        return 1 << 60
    event = decode(record.payload)
    if isinstance(event, Heartbeat):
        return event.ms
    return ms_of(event.conversion_id if isinstance(event, Conversion) else event.session.click_id)


def test_a_lost_message_is_a_gap_until_it_is_sent_again() -> None:
    """What follows it is not taken, and everything is there once the journal was cut again from where the taker is."""
    events: list[Event | bytes] = [click(1_800_000_000_000 + number, number) for number in range(40)]
    records = records_of(events)
    cutter, taker = Cutter(make_journal(), None), Taker()
    messages = [message for batch in batches_of(records, 10) for message in cutter.cut(batch)]
    lost = next(message for message in messages if isinstance(message, Shipment) and message.entries)
    for message in messages:
        if message is not lost:
            taker.take(message)
    assert taker.gaps
    assert taker.places[lost.partition] == lost.before
    cutter.go_back(lost.before)
    for batch in batches_of(records, 40):
        for message in cutter.cut(batch):
            taker.take(message)
    assert taker.all_payloads == sorted(record.payload for record in records)


def test_a_click_and_its_conversion_share_a_partition() -> None:
    """By the click's id, or by the name that both bring from another network."""
    first = click(1_800_000_000_000, 1)
    named = click(1_800_000_000_001, 2, ad_id="order-7")
    pairs: list[Event | bytes] = [
        first, conversion(1_800_000_000_002, 3, click_id=first.session.click_id),
        named, conversion(1_800_000_000_003, 4, transaction_id="order-7"),
    ]  # fmt: skip
    (batch,) = batches_of(records_of(pairs), 10)
    where = {
        sent.payload: message.partition
        for message in Cutter(make_journal(64), None).cut(batch)
        if isinstance(message, Shipment)
        for sent in message.entries
    }
    partitions = [where[record.payload] for record in batch.records]
    assert partitions[0] == partitions[1]
    assert partitions[2] == partitions[3]


def test_no_message_is_larger_than_a_server_takes() -> None:
    """A share that is too large goes in several that follow each other, the watermark with the last."""
    large = [Record(1, 43 + n * 200_009, 43 + (n + 1) * 200_009, b"\xc1" * 200_000) for n in range(20)]
    batch = Batch(Position(1, large[-1].end_offset), large)
    cutter, taker = Cutter(make_journal(1), None), Taker()
    messages = cutter.cut(batch)
    assert len(messages) > 4
    assert all(len(encode_message(message)) < MAX_BYTES + 210_000 < 2**20 for message in messages)
    for message in messages:
        taker.take(message)
    assert len(taker.payloads[0]) == 20


def test_damage_travels_with_what_was_wrong() -> None:
    """A damaged region is cut to what fits, once, with its place and error; of a missing segment every partition hears."""
    damaged = [Damaged(1, 43, 1_000_043, b"x" * 1_000_000, "no valid frame"), Damaged(2, 0, 0, b"", "is missing")]
    cutter = Cutter(make_journal(), None)
    messages = cutter.cut(Batch(Position(3, 0), [], damaged))
    sent = [one for message in messages if isinstance(message, Shipment) for one in message.entries]
    assert sorted((one.segment, one.byte_offset, one.end_offset) for one in sent) == [(1, 43, 1_000_043), *[(2, 0, 0)] * PARTITIONS]
    assert all(one.error for one in sent)
    assert all(len(encode_message(message)) < 2**20 for message in messages)


def test_a_later_release_s_message_is_no_nonsense() -> None:
    """It must not be thrown away by a drain that is not upgraded yet."""
    (beat,) = Cutter(make_journal(), None).opening()
    later = encode_message(Beat(VERSION + 1, *[getattr(beat, name) for name in beat.__struct_fields__[1:]]))
    with pytest.raises(LaterVersion):
        decode_message(later)


def test_progress_is_kept_or_begun_anew(tmp_path: Path) -> None:
    """A place that cannot be read, or of another number of partitions, is none: everything is sent again."""
    progress = Progress((2, 77), [(1, 5), (2, 77)], 12345)
    assert read_progress(tmp_path, 2) is None
    write_progress(tmp_path, progress)
    assert read_progress(tmp_path, 2) == progress
    assert read_progress(tmp_path, 3) is None
    (tmp_path / "shipped").write_bytes(b'{"place":[2,')
    assert read_progress(tmp_path, 2) is None
