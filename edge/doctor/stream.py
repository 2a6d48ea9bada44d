"""The stream, where events go through one: its servers, whether they keep what they acknowledge, and what waits for them here."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime
from urllib.parse import urlsplit

from edge.doctor.findings import Finding, fail, format_bytes, ok, warn
from edge.doctor.installation import Installation, find_holder
from edge.stream_settings import SHIP_LOCK, stream_options
from edge.waiting_journals import count_undrained, find_unshipped
from storage.postgres import inspection
from storage.postgres.connection import Connection
from storage.stream.servers import (
    SILENT,
    StreamAway,
    StreamOptions,
    StreamUnusable,
    server_hosts,
    server_urls,
    unsynced_servers,
)

USUAL_REPLICAS = 3
STALLED_S = 600
KNOCK_S = 2.0
NATS_PORT = 4222


def check_stream(found: Installation) -> Iterator[Finding]:
    """The servers as they are now; nothing where no stream is configured."""
    if not found.settings.stream_url:
        return
    options = stream_options(found.settings)
    yield from _judge_replicas(options)
    faults = asyncio.run(unsynced_servers(options))
    is_minority = all(SILENT in fault for fault in faults) and len(faults) * 2 < len(server_hosts(options))
    yield _judge_syncing(faults, is_tolerated=is_minority or found.settings.allow_unsynced_stream)
    yield from asyncio.run(_connect_to_each(options))


def check_unshipped(found: Installation) -> Iterator[Finding]:
    """Journals of this disk that only a stream gets, and whether anybody ships them."""
    waiting = find_unshipped(found.data_dir / "journal")
    has_shipper = find_holder(found.data_dir / SHIP_LOCK) is not None
    said = f"{format_bytes(waiting.size_bytes)} of {waiting.journals} journals are not shipped yet"
    if not waiting.journals:
        if found.settings.stream_url:
            yield ok("shipping", "every journal that goes to the stream is shipped")
    elif has_shipper:
        yield ok("shipping", f"{said}, and a shipper works on them")
    elif not found.settings.stream_url:
        yield fail(
            "shipping",
            f"{said}, EDGE_STREAM_URL is empty, and no drain of this machine stores them",
            "run `clickedge ship` on this data dir with the former EDGE_STREAM_URL until they are: docs/streaming.md",
        )
    elif found.is_running:
        yield fail("shipping", f"{said}, and no shipper runs", "EDGE_SHIPPER=on, or run `clickedge ship` on this data dir")
    else:
        yield warn("shipping", f"{said}; nothing runs here", "start serve, or `clickedge ship`, while the disk is there")


def check_undrained(found: Installation) -> Iterator[Finding]:
    """With a stream: journals of this disk that nevertheless only a drain of this machine stores."""
    if not found.settings.stream_url:
        return
    waiting = count_undrained(found.data_dir / "journal")
    said = f"{waiting} journals were begun without a stream and are not wholly stored"
    if waiting and found.settings.drains:
        yield ok("draining", f"{said}: keep a drain here (EDGE_DRAINS above 0) until they are")
    elif waiting:
        advice = "start with EDGE_DRAINS=1 until they are: docs/streaming.md"
        yield fail("draining", f"{said}, and EDGE_DRAINS is 0", advice)
    else:
        yield ok("draining", "no journal of this machine needs a drain of its own")


async def check_stalled(conn: Connection, found: Installation) -> AsyncIterator[Finding]:
    """Journals of any node that came through the stream, are not finished and have said nothing for long."""
    stalled = await inspection.stalled_journals(conn, STALLED_S)
    for one in stalled:
        last = datetime.fromtimestamp(one.watermark_ms / 1000, UTC) if one.watermark_ms else None
        yield warn(
            "streamed journals",
            f"{one.journals} of node {one.node_id} are not finished and have stood still since"
            f" {f'{last:%Y-%m-%d %H:%M} UTC' if last else 'their beginning'}: conversions whose click may be in them wait",
            "drains that stand still: start them. That node: start it, or `clickedge ship` on its data dir."
            " Its disk is gone: `clickedge stream` and `clickedge stream end JOURNAL`, see docs/streaming.md",
        )
    if not stalled and found.settings.stream_url:
        yield ok("streamed journals", "none stands still")


def _judge_replicas(options: StreamOptions) -> Iterator[Finding]:
    servers = len(server_urls(options.url))
    said = f"each event on {options.replicas} of {servers} servers"
    if options.replicas > servers:
        advice = "name all servers in EDGE_STREAM_URL, or lower EDGE_STREAM_REPLICAS"
        yield warn("stream replicas", f"EDGE_STREAM_REPLICAS is {options.replicas}, and {servers} servers are named", advice)
    elif options.replicas < USUAL_REPLICAS:
        why = "its disk's loss is a loss of events" if options.replicas == 1 else "without one of them it takes nothing"
        yield warn("stream replicas", f"{said}: {why}", "three servers, EDGE_STREAM_REPLICAS=3")
    else:
        yield ok("stream replicas", said)


def _judge_syncing(faults: list[str], *, is_tolerated: bool) -> Finding:
    if not faults:
        return ok("stream syncing", "every server syncs each message before it acknowledges it")
    said = f"a power cut of theirs may lose acknowledged events: {'; '.join(faults)}"
    advice = "`sync_interval: always` in the servers' jetstream section; EDGE_STREAM_MONITOR_PORT must be reached from here"
    return (warn if is_tolerated else fail)("stream syncing", said, advice)


async def _connect_to_each(options: StreamOptions) -> list[Finding]:
    """One after the other, as a shipper or drain would come in."""
    faults: list[tuple[str, Exception]] = []
    urls = server_urls(options.url)
    for url in urls:
        try:
            await _enter(options._replace(url=url))
        except (StreamAway, StreamUnusable) as error:
            faults.append((url.rpartition("@")[2], error))
    if not faults:
        return [ok("stream", f"all of {len(urls)} servers let us in")]
    judge = fail if len(faults) == len(urls) or any(isinstance(error, StreamUnusable) for _, error in faults) else warn
    advice = "see that it runs and port and password are right; until a majority is back, journals grow and answers go on"
    return [judge("stream", f"{server}: {error}", advice) for server, error in faults]


async def _enter(options: StreamOptions) -> None:
    from storage.stream.connection import connect_stream  # noqa: PLC0415 - nats-py is for those who have a stream

    await _knock(options.url)
    connection = await connect_stream(options, "clickedge doctor")
    await connection.close()


async def _knock(url: str) -> None:
    """Where nobody listens, nats-py would try again for seconds."""
    parts = urlsplit(url)
    try:
        async with asyncio.timeout(KNOCK_S):
            _, writer = await asyncio.open_connection(parts.hostname, parts.port or NATS_PORT)
    except (OSError, TimeoutError) as error:
        raise StreamAway(f"nobody answers: {error or type(error).__name__}") from error
    writer.close()
