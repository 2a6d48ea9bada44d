"""The shipper's window against a real NATS server that stands still: what is under way, forgotten or asked for again."""

import os
import signal
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from edge.counters import Counters
from edge.processes import ChildOrders
from edge.shipper.journals import RESEND_PAUSE_S, ShippedJournal, ShippedJournals
from edge.shipper.process import Shipper
from storage.journal.retention import delete_expired
from storage.journal.segments import Position, list_segments, read_journal
from storage.stream import publishing
from storage.stream.cutting import PROGRESS_NAME, Progress, write_progress
from storage.stream.publishing import Publisher
from storage.stream.servers import StreamAway
from tests.node import eventually
from tests.postgres.drains import now_ms
from tests.streams import StreamServer
from tests.unit.test_cutting import PARTITIONS
from tests.wire.shippers import make_scribe, make_settings


@pytest.fixture
async def publisher(stream_server: StreamServer, nats_url: str) -> AsyncIterator[Publisher]:
    connection = await stream_server.connect()
    yield Publisher(connection, lambda events, size_bytes, duration_us: None, lambda: None)
    assert stream_server._process is not None
    os.kill(stream_server._process.pid, signal.SIGCONT)
    await connection.close()


def stand_still(server: StreamServer) -> None:
    assert server._process is not None
    os.kill(server._process.pid, signal.SIGSTOP)


async def test_a_request_does_not_make_what_is_under_way_count_as_acknowledged(
    stream_server: StreamServer, publisher: Publisher, data_dir: Path
) -> None:
    """One partition may be stored further than the acknowledgements of the others have come."""
    scribe = make_scribe(data_dir)
    scribe.click()
    asked_for = scribe.writer.appended
    scribe.click()
    scribe.beat(now_ms())
    journal = ShippedJournal(read_journal(scribe.writer.directory))
    stand_still(stream_server)
    await journal.send_next(publisher)
    journal.resend_from(asked_for)
    assert journal.acknowledged.place == (1, 0)
    assert await journal.send_next(publisher) == 3
    journal.close()


async def test_what_is_sent_again_does_not_take_up_room_for_ever(
    stream_server: StreamServer, publisher: Publisher, data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An acknowledgement that never comes ends the connection, though nobody waits for it any more."""
    monkeypatch.setattr(publishing, "ACK_S", 0.1)
    scribe = make_scribe(data_dir)
    scribe.click()
    scribe.beat(now_ms())
    journal = ShippedJournal(read_journal(scribe.writer.directory))
    stand_still(stream_server)
    await journal.send_next(publisher)
    journal.resend_from((1, 0))
    journal.collect()

    async def is_noticed() -> bool:
        try:
            publisher.check()
        except StreamAway as error:
            return "not acknowledged" in str(error)
        return False

    await eventually(is_noticed, 20.0)
    journal.close()


async def test_nothing_of_a_journal_is_sent_before_it_was_announced(
    stream_server: StreamServer, publisher: Publisher, data_dir: Path
) -> None:
    """Also of one that appeared while the stream was away."""
    scribe = make_scribe(data_dir)
    scribe.click()
    shipper = Shipper(ChildOrders("shipper", 0, make_settings(stream_server, data_dir), -1, []), Counters.private())
    shipper._journals.discover()
    assert await shipper._send(publisher) == 0
    await shipper._discover(publisher)
    assert await shipper._send(publisher) == 1


async def test_a_place_that_cannot_be_written_down_does_not_end_the_shipping(
    publisher: Publisher, data_dir: Path
) -> None:
    """A full disk gets room again only by what is shipped."""
    scribe = make_scribe(data_dir, max_segment_bytes=64)
    (scribe.writer.directory / PROGRESS_NAME).mkdir()
    scribe.click()
    scribe.click()
    journal = ShippedJournal(read_journal(scribe.writer.directory))
    await journal.send_next(publisher)

    async def is_acknowledged() -> bool:
        return journal.collect()

    await eventually(is_acknowledged, 20.0)
    journal.keep()
    assert [segment.is_done for segment in list_segments(scribe.writer.directory)] == [True, False]
    journal.close()


async def test_who_asks_again_and_again_is_sent_it_once(
    publisher: Publisher, data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A drain that is behind has not read yet what was sent for it; after a while it may have been lost again."""
    scribe = make_scribe(data_dir)
    places = [Position(1, 0)]
    for _ in range(3):
        scribe.click()
        places.append(scribe.writer.appended)
    journal = ShippedJournal(read_journal(scribe.writer.directory))
    await journal.send_next(publisher)
    for place, is_sent in ((places[2], True), (places[2], False), (places[1], True), (places[2], False)):
        assert journal.is_due_again(place) == is_sent
        if is_sent:
            journal.resend_from(place)
        await journal.send_next(publisher)
    now_s = time.monotonic()
    monkeypatch.setattr("time.monotonic", lambda: now_s + 2 * RESEND_PAUSE_S)
    assert journal.is_due_again(places[2])
    journal.close()


@pytest.mark.parametrize("max_total_bytes", [1 << 30, 0])
def test_what_is_to_be_sent_again_stays_however_long_ago_it_was_shipped(data_dir: Path, max_total_bytes: int) -> None:
    """A restored database, or a lost stream, asks for more than can be sent before it would be deleted, or has room."""
    scribe = make_scribe(data_dir, max_segment_bytes=64)
    for _ in range(3):
        scribe.click()
    end = scribe.writer.appended
    scribe.writer.close()
    directory, root = scribe.writer.directory, scribe.writer.directory.parent
    write_progress(directory, Progress(end, [end] * PARTITIONS, is_finished=True))
    journals = ShippedJournals(root)
    journals.discover()
    for segment in list_segments(directory):
        assert segment.is_done
        os.utime(segment.path, (1, 1))
    journal = journals.find(scribe.writer.journal_id)
    assert journal is not None
    journal.resend_from((2, 0))
    journal.keep()
    stored_before = {scribe.writer.journal_id: journal.acknowledged.place[0]}
    delete_expired(root, time.time(), 3600.0, max_total_bytes, set(), stored_before)
    assert [segment.number for segment in list_segments(directory)] == [2, 3]
    journal.close()
