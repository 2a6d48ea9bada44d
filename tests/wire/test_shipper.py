"""The shipper with real journals and a real NATS server that is killed, is full, or is asked to send again."""

import os
import subprocess
from pathlib import Path

import pytest

from edge.counters import Counters
from edge.processes import ChildOrders
from edge.shipper.process import run_shipper
from storage.errors import StorageError
from storage.files import hold_lock
from storage.journal.segments import list_segments
from storage.stream.resending import ask_to_resend
from storage.stream.shipments import Beat, Resend
from tests.node import COMMAND
from tests.postgres.drains import Scribe
from tests.streams import StreamServer
from tests.unit.test_cutting import PARTITIONS
from tests.wire.shippers import (
    Running,
    make_scribe,
    make_settings,
    read_all,
    shipping,
    take_all,
    until,
    until_shipped,
    write_some,
)


async def test_a_journal_that_is_written_meanwhile_reaches_the_stream_and_ends(
    stream_server: StreamServer, nats_url: str, data_dir: Path
) -> None:
    """Events, then more, then the writer's end: each once, without a gap, and all partitions hear that it was all."""
    scribe = make_scribe(data_dir)
    async with shipping(make_settings(stream_server, data_dir)) as running:
        write_some(scribe, 50)
        await until_shipped(stream_server, scribe)
        write_some(scribe, 50)
        scribe.writer.close()
        taker = await until_shipped(stream_server, scribe, is_finished=True)
        assert taker.gaps == 0
        await until(lambda: running.count("edge_shipped_events_total") == 100)
        first = next(one for one in await read_all(stream_server) if one.journal_id == scribe.writer.journal_id.bytes)
        assert isinstance(first, Beat)


async def test_a_journal_without_a_mark_is_left_to_its_machine_s_drains(
    stream_server: StreamServer, nats_url: str, data_dir: Path
) -> None:
    """It was begun before the node had a stream: its events go one way only."""
    local, streamed = Scribe(data_dir, worker=1), make_scribe(data_dir)
    write_some(local, 5)
    write_some(streamed, 5)
    async with shipping(make_settings(stream_server, data_dir)):
        await until_shipped(stream_server, streamed)
        assert {one.journal_id for one in await read_all(stream_server)} == {streamed.writer.journal_id.bytes}


async def test_a_shipper_that_died_goes_on_without_a_gap(
    stream_server: StreamServer, nats_url: str, data_dir: Path
) -> None:
    """Whatever it had written down of its progress, or had not, or had in part."""
    scribe, settings = make_scribe(data_dir), make_settings(stream_server, data_dir)
    for round_number in range(4):
        async with shipping(settings) as running:
            write_some(scribe, 30)
            await until_shipped(stream_server, scribe)
            if round_number == 1:
                await running.shipper._keep()
            if round_number == 2:
                (scribe.writer.directory / "shipped").write_bytes(b'{"place":[1')
    assert (await take_all(stream_server, scribe.writer.journal_id)).gaps == 0


@pytest.mark.reliability(number=17)
async def test_a_killed_server_delays_and_loses_nothing(
    stream_server: StreamServer, nats_url: str, data_dir: Path
) -> None:
    """What it had acknowledged it has; what it had not comes again; the shipper says that it is away."""
    scribe = make_scribe(data_dir)
    async with shipping(make_settings(stream_server, data_dir)) as running:
        write_some(scribe, 100)
        await until(lambda: running.count("edge_stream_up") == 1)
        stream_server.kill()
        write_some(scribe, 100)
        await until(lambda: running.count("edge_stream_up") == 0)
        stream_server.start()
        await until_shipped(stream_server, scribe)
        assert running.count("edge_ship_errors_total") > 0


@pytest.mark.reliability(number=17)
async def test_a_full_stream_is_waited_for(stream_server: StreamServer, nats_url: str, data_dir: Path) -> None:
    """The stream takes nothing more; the journal keeps it, and it goes on when there is room."""
    scribe = make_scribe(data_dir)
    settings = make_settings(stream_server, data_dir, stream_max_bytes=20_000)
    write_some(scribe, 500)
    async with shipping(settings) as running:
        await until(lambda: running.count("edge_ship_errors_total") > 1)
        assert len((await take_all(stream_server, scribe.writer.journal_id)).all_payloads) < 500
    assert not any(segment.is_done for segment in list_segments(scribe.writer.directory))
    async with shipping(make_settings(stream_server, data_dir)):
        await until_shipped(stream_server, scribe)


async def test_what_a_drain_misses_is_sent_again(stream_server: StreamServer, nats_url: str, data_dir: Path) -> None:
    """From the place that it names, to all partitions; also of a journal that had ended."""
    scribe = make_scribe(data_dir)
    write_some(scribe, 60)
    settings = make_settings(stream_server, data_dir)
    async with shipping(settings) as running:
        for is_finished in (False, True):
            if is_finished:
                scribe.writer.close()
            await until_shipped(stream_server, scribe, is_finished=is_finished)
            connection = await stream_server.connect()
            await connection.jetstream.purge_stream("CLICKEDGE")
            await ask_to_resend(connection, Resend(scribe.writer.journal_id.bytes, 2, (1, 0)))
            taker = await until_shipped(stream_server, scribe, is_finished=is_finished)
            assert taker.gaps == 0
            await connection.close()
        assert running.count("edge_ship_resends_total") == 2


async def test_requests_that_make_no_sense_change_nothing(
    stream_server: StreamServer, nats_url: str, data_dir: Path
) -> None:
    """Of unknown journals, of places still to come, of nonsense."""
    scribe = make_scribe(data_dir)
    write_some(scribe, 10)
    async with shipping(make_settings(stream_server, data_dir)) as running:
        await until_shipped(stream_server, scribe)
        connection = await stream_server.connect()
        for message in (b"", b"\xc1", b"\x93\xc4\x01x\x00\x92\x01\x00", b"\x93\xc4\x10" + bytes(16) + b"\x00\x92\x01\x00"):
            await connection.client.publish("clickedge.resend", message)
        for place in ((1 << 40, 0), (1, 1 << 63), (0, 0), (-1, -1)):
            await ask_to_resend(connection, Resend(scribe.writer.journal_id.bytes, 0, place))
        await connection.close()
        write_some(scribe, 10)
        await until_shipped(stream_server, scribe)
        assert running.count("edge_ship_resends_total") == 0


async def test_segments_are_given_back_once_the_stream_has_them(
    stream_server: StreamServer, nats_url: str, data_dir: Path
) -> None:
    """Marked when all of them was acknowledged, deleted after EDGE_JOURNAL_KEEP, and the ended journal's directory with them."""
    scribe = make_scribe(data_dir, max_segment_bytes=4096)
    for _ in range(5):
        write_some(scribe, 30)
    directory = scribe.writer.directory
    settings = make_settings(stream_server, data_dir, journal_keep_s=0)
    async with shipping(settings) as running:
        await until_shipped(stream_server, scribe)
        await until(lambda: len([one for one in list_segments(directory) if not one.is_done]) == 1)
        running.shipper._delete(0)
        assert len(list_segments(directory)) == 1
        scribe.writer.close()
        await until(lambda: scribe.writer.journal_id in running.shipper._journals.finished)
        running.shipper._delete(0)
        assert not directory.exists()


async def test_while_the_stream_is_away_kept_segments_make_room_for_unshipped_ones(
    stream_server: StreamServer, nats_url: str, data_dir: Path
) -> None:
    """As many as must, of those that it has acknowledged; what it has not is there, and is shipped when it is back."""
    scribe = make_scribe(data_dir, max_segment_bytes=1000)
    directory = scribe.writer.directory
    write_some(scribe, 40)
    room = size_of(directory)
    async with shipping(make_settings(stream_server, data_dir, journal_max_bytes=room)):
        await until(lambda: len([one for one in list_segments(directory) if not one.is_done]) == 1)
        kept = len(list_segments(directory)) - 1
        stream_server.kill()
        write_some(scribe, 20)
        unshipped = [one for one in list_segments(directory) if not one.is_done]
        await until(lambda: size_of(directory) <= room)
        assert size_of(directory) > room - 2000
        assert [one for one in list_segments(directory) if not one.is_done] == unshipped
        assert 0 < len([one for one in list_segments(directory) if one.is_done]) < kept
        stream_server.start()
        await until_shipped(stream_server, scribe)


def size_of(directory: Path) -> int:
    """Of all segments of a journal."""
    return sum(one.path.stat().st_size for one in list_segments(directory))


async def test_a_shipper_that_is_told_to_end_ships_what_its_workers_left(
    stream_server: StreamServer, nats_url: str, data_dir: Path
) -> None:
    """SIGTERM comes after the workers' end."""
    scribe = make_scribe(data_dir)
    running = Running(make_settings(stream_server, data_dir))
    await until(lambda: running.count("edge_stream_up") == 1)
    write_some(scribe, 200)
    scribe.writer.close()
    await running.is_told_to_end()
    taker = await take_all(stream_server, scribe.writer.journal_id)
    assert len(taker.all_payloads) == 200
    assert len(taker.is_finished) == PARTITIONS


async def test_one_shipper_a_data_dir(stream_server: StreamServer, nats_url: str, data_dir: Path) -> None:
    """A second one says so and ends."""
    orders = ChildOrders("shipper", 0, make_settings(stream_server, data_dir), -1, [])
    lock = hold_lock(data_dir / "ship.lock")
    assert lock is not None
    with pytest.raises(StorageError, match="another shipper runs"):
        await run_shipper(orders, Counters.private())
    os.close(lock)


def test_a_second_shipper_is_refused_in_one_line(stream_server: StreamServer, data_dir: Path) -> None:
    """By the command, with code 2: an operator starts it beside a `serve` that has its own."""
    settings = make_settings(stream_server, data_dir)
    lock = hold_lock(data_dir / "ship.lock")
    assert lock is not None
    environment = {
        "PATH": os.environ["PATH"],
        "EDGE_STREAM_URL": settings.stream_url,
        "EDGE_STREAM_MONITOR_PORT": str(settings.stream_monitor_port),
    }
    done = subprocess.run(
        [COMMAND, "ship", "--data-dir", data_dir, "--admin-port", "0"],
        env=environment, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    os.close(lock)
    assert done.returncode == 2, done.stderr
    [said] = [line for line in done.stderr.splitlines() if not line.startswith("{")]
    assert said.startswith(f"clickedge: EDGE_DATA_DIR: another shipper runs on {data_dir}: ")


async def test_a_journal_that_cannot_be_read_does_not_keep_the_others(
    stream_server: StreamServer, nats_url: str, data_dir: Path
) -> None:
    """It is tried again and again; nothing of it is passed over."""
    unreadable, other = make_scribe(data_dir), make_scribe(data_dir, worker=1)
    write_some(unreadable, 20)
    segment = unreadable.writer.directory / "00000001.log"
    segment.rename(data_dir / "aside")
    segment.mkdir()
    async with shipping(make_settings(stream_server, data_dir)):
        write_some(other, 20)
        await until_shipped(stream_server, other)
        segment.rmdir()
        (data_dir / "aside").rename(segment)
        await until_shipped(stream_server, unreadable)
