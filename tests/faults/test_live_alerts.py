"""deploy/ against a living node: Prometheus scrapes it under load, every panel has data, and real faults raise the alerts.

The rules are the files themselves; only scrapes and evaluations come each second. An alert that waits some minutes before it
fires is seen pending there, and firing by a second Prometheus, in whose rules the same durations are seconds. At which values
it fires is what promtool tests.
"""

import asyncio
import itertools
import math
import os
import resource
import signal
import socket
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path

import asyncpg
import pytest

from benchmarks.prometheus import Prometheus, fill
from deploy.grafana.panels import FIRING, RELEASES, panels
from edge.worker import SPARE_DESCRIPTORS
from storage.journal.segments import list_journal_paths, list_segments
from tests.faults.gate import Gate
from tests.faults.load import Client, Say, id_in
from tests.faults.offers import catalog_text
from tests.faults.traffic import Ledger, Traffic
from tests.faults.watching import SEEN_S, Watch
from tests.node import Node, eventually
from tests.ops.deployed import alerts, rules, selectors
from tests.ops.hurried import hurried_prometheus
from tests.partners import LOOPBACK, PartnerServer
from tests.partners import say as answer

pytestmark = [pytest.mark.faults, pytest.mark.debian("prometheus"), pytest.mark.timeout(300)]

MIB = 2**20
ROOM = 6 * MIB
FEW_DESCRIPTORS = SPARE_DESCRIPTORS + 60
DEPTH = 64 * 1024
RAISED_BY_A_FULL_JOURNAL = {
    "EdgeAvailabilityBurn", "EdgeBacklogGrowing", "EdgeDatabaseDown", "EdgeEventsDropped", "EdgeJournalNearlyFull",
}  # fmt: skip
RATE_INTERVAL = "10s"
OF_A_STREAM = ("edge_ship", "edge_stream", "edge_repli", 'role="shipper"')
"""In expressions that a node without a stream has nothing for: test_live_stream_alerts.py."""
MAY_BE_EMPTY = {
    "starts of {{role}} {{slot}}", "{{reason}}", "fallen back {{instance}}", "unsynced, says {{instance}}",
}  # fmt: skip
"""Lines that are drawn only when something happens."""
OF_THIS_TEST = {"EdgeGeoipStale", "EdgeRetentionStale", "EdgeVisitsForgotten", "EdgeForgedIdSpike"}
"""No database of places, no round of retention yet, the smallest memory of visits, traffic that forges from the start."""
OF_A_BUSY_MACHINE = {"EdgeDiskFilling", "EdgeJournalSyncSlow", "EdgeLatencyBurn", "EdgeLoopLag", "EdgeTargetDown"}
"""Whatever else runs beside the tests may raise these; a scrape has but a second here."""
AT_ONCE = {
    "EdgeClientShutOut", "EdgeConnectionsRefused", "EdgeCorruptRecords", "EdgeEventsDropped", "EdgeJournalWriteErrors", "EdgeProcessFlapping",
    "EdgeQuarantine", "EdgeSnapshotRefused", "EdgeVisitsForgotten",
}  # fmt: skip
"""Alerts that fire without a wait."""
PATIENT = {
    "EdgeAvailabilityBurn", "EdgeBacklogGrowing", "EdgeDatabaseDown", "EdgeDiskFilling", "EdgeFdsNearLimit",
    "EdgeForgedIdSpike", "EdgeGeoipStale", "EdgeJournalNearlyFull", "EdgePartitionMissing", "EdgePostbacksFailing",
    "EdgeProcessDown", "EdgeRetentionStale", "EdgeTargetDown",
}  # fmt: skip
"""Those that a fault of seconds makes pending, and that fire in a hurry."""
MORE_PATIENT = {"EdgeConversionsSilent", "EdgeStateStale"}
"""Those that it makes fire in a hurry only. The rest: test_patient_alerts.py."""


@pytest.fixture
def catalog(tmp_path: Path, partner: PartnerServer) -> Path:
    """The catalog of the load, with a partner who listens."""
    path = tmp_path / "catalog.toml"
    path.write_text(catalog_text(partner.origin))
    return path


@pytest.fixture
async def node(make_gated: Callable[..., Node], tmp_path: Path) -> Node:
    """One worker with a small journal, the smallest memory of visits and a database of places that cannot be read."""
    (tmp_path / "geo.mmdb").write_bytes(b"no database")
    return await make_gated(
        EDGE_JOURNAL_MAX_BYTES=f"{ROOM}B",
        EDGE_UNIQUE_CAPACITY="1000",
        EDGE_GEOIP_DB=str(tmp_path / "geo.mmdb"),
        EDGE_POSTBACK_ALLOW=LOOPBACK,
    ).start()


async def test_every_panel_has_data_and_real_faults_raise_the_alerts(
    node: Node, gate: Gate, partner: PartnerServer, tmp_path: Path, say: Say
) -> None:
    """Under mixed load: nothing of ours is raised while all is well, and each fault raises what it should."""
    stop, ledger, targets = asyncio.Event(), Ledger(), [node.admin.removeprefix("http://")]
    with Prometheus(tmp_path, targets) as prometheus, hurried_prometheus(tmp_path, targets) as hurried:
        watch = Watch(prometheus, hurried)
        traffic = asyncio.create_task(Traffic(node.port, ledger, seed=6, clients=8).run(stop))
        try:
            await eventually(lambda: asyncio.to_thread(has_data, prometheus), SEEN_S, lambda: str(missing(prometheus)))
            await eventually(lambda: asyncio.to_thread(is_quiet, prometheus), SEEN_S, lambda: str(prometheus.alerts()))
            async with watch.looking():
                partner.reply = answer(500)
                await break_beside_the_database(node, gate, watch)
                await break_the_database(node, gate, watch)
                stop.set()
                await break_the_processes(node, watch)
            assert await asyncio.to_thread(prometheus.rule_errors) == []
        finally:
            stop.set()
            await traffic
    assert ledger.faults == [] or all(": 503 " in fault for fault in ledger.faults)
    check(watch, say)


def check(watch: Watch, say: Say) -> None:
    """What was raised, how far, and in which words."""
    as_they_are = f"{len(watch.fired_as_they_are)} alerts fired by the rules as they are, {len(watch.raised)} were raised"
    say(f"{as_they_are}; {len(watch.fired)} of {len({rule.alert for rule in alerts()})} fired, be it in a hurry")
    assert watch.fired_as_they_are >= AT_ONCE
    assert watch.raised >= AT_ONCE | PATIENT
    assert watch.fired >= AT_ONCE | PATIENT | MORE_PATIENT
    wrong = ("<no value>", "<error", "%!", "NaN")
    assert [text for one in watch.said for text in one.annotations.values() if any(word in text for word in wrong)] == []


def is_of_a_stream(expression: str) -> bool:
    """Whether only a node with a stream has something for it."""
    return any(part in expression for part in OF_A_STREAM)


def empty(prometheus: Prometheus, *, of_a_stream: bool = False) -> list[str]:
    """The panels' lines without a single number, and the marks' expressions that cannot be evaluated."""
    for expression in (RELEASES, FIRING):
        prometheus.query(fill(expression, rate_interval=RATE_INTERVAL))
    return [
        f"{panel.title}: {query.legend}"
        for panel in panels()
        for query in panel.queries
        if query.legend not in MAY_BE_EMPTY
        and is_of_a_stream(query.expr) == of_a_stream
        and not any(
            math.isfinite(value)
            for series in prometheus.query(fill(query.expr, rate_interval=RATE_INTERVAL))
            for _, value in series.points
        )
    ]


def has_data(prometheus: Prometheus) -> bool:
    """Whether every panel shows something, and every rule compares something."""
    return not missing(prometheus)


def is_quiet(prometheus: Prometheus) -> bool:
    """Whether no alert is raised that has no reason to be; the first seconds of a node have some."""
    return {alert.name for alert in prometheus.alerts()} <= OF_THIS_TEST | OF_A_BUSY_MACHINE


def missing(prometheus: Prometheus) -> list[str]:
    """Panels' lines and rules' operands that have no data."""
    return empty(prometheus) + missing_operands(prometheus)


def missing_operands(prometheus: Prometheus, *, of_a_stream: bool = False) -> list[str]:
    """What rules compare and Prometheus does not have. A day or a week must pass before some recorded ones exist."""
    later = {"job:edge_conversions_rejected:ratio_rate1d_before"}
    found = {selector for rule in rules() for selector, name, _ in selectors(rule.expr) if name not in later}
    return [
        selector
        for selector in sorted(found)
        if is_of_a_stream(selector) == of_a_stream and not prometheus.query(f"count({selector})")
    ]


async def break_beside_the_database(node: Node, gate: Gate, watch: Watch) -> None:
    """Descriptors, the published catalog, the tables of the coming days, the disk's room."""
    await use_up_descriptors(node, watch)
    (node.data_dir / "catalog.snapshot").write_bytes(b"no snapshot")
    await drop_coming_partitions(gate.behind)
    await fill_disk(node.data_dir / "ballast", watch)
    await watch.sees("EdgeSnapshotRefused", "EdgePartitionMissing", "EdgePostbacksFailing")


async def use_up_descriptors(node: Node, watch: Watch) -> None:
    """A worker that starts with few is asked for more connections than that; and then its limit is lowered once more."""
    resource.prlimit(node.pid, resource.RLIMIT_NOFILE, (FEW_DESCRIPTORS, FEW_DESCRIPTORS))
    killed = node.kill("worker")

    async def has_another() -> bool:
        return node.pids("worker") not in ([], [killed])

    await eventually(has_another, SEEN_S, node.describe)
    with ExitStack() as stack:
        await crowd(node, stack, ["127.0.2.1"], watch, "EdgeClientShutOut")  # one alone is not let have all places
        await crowd(node, stack, [f"127.0.1.{number}" for number in range(1, 200)], watch, "EdgeConnectionsRefused")
        [worker] = node.pids("worker")
        limits = resource.prlimit(worker, resource.RLIMIT_NOFILE)

        async def is_near() -> bool:
            used = len(os.listdir(f"/proc/{worker}/fd"))  # fewer and fewer: it does not wait long for a first request
            resource.prlimit(worker, resource.RLIMIT_NOFILE, (used + 4, limits[1]))
            return not watch.lacking("EdgeFdsNearLimit")

        await eventually(is_near, SEEN_S, node.describe)
    resource.prlimit(worker, resource.RLIMIT_NOFILE, limits)


async def crowd(node: Node, stack: ExitStack, addresses: list[str], watch: Watch, name: str) -> None:
    """Connections from those addresses in turn, all kept, until the alert is seen."""
    clients = itertools.cycle(addresses)

    async def is_seen() -> bool:
        with suppress(OSError):
            place = ("127.0.0.1", node.port)
            stack.enter_context(socket.create_connection(place, timeout=1, source_address=(next(clients), 0)))
        return not watch.lacking(name)

    await eventually(is_seen, SEEN_S, node.describe)


async def drop_coming_partitions(url: str) -> None:
    """Of all days after tomorrow, of which nothing has been stored."""
    conn = await asyncpg.connect(url)
    try:
        names = await conn.fetch(
            "SELECT inhrelid::regclass::text AS name FROM pg_inherits WHERE inhparent = 'clicks'::regclass ORDER BY 1"
        )
        for row in names[-5:]:
            await conn.execute(f"DROP TABLE {row['name']}")
    finally:
        await conn.close()


async def fill_disk(path: Path, watch: Watch) -> None:
    """A file that takes a quarter of a gigabyte more each second until it is noticed; its blocks are reserved, not written."""
    with path.open("wb") as file:
        for number in range(30):
            if not watch.lacking("EdgeDiskFilling"):
                break
            os.posix_fallocate(file.fileno(), 0, (number + 1) * 256 * MIB)
            await asyncio.sleep(1)  # the fault itself
    path.unlink()
    await watch.sees("EdgeDiskFilling")


async def break_the_database(node: Node, gate: Gate, watch: Watch) -> None:
    """A journal that may not grow; then no way to PostgreSQL until it is full and damaged; then the way is free again."""
    clients = [Client(node.port) for _ in range(8)]
    click_id = id_in(await clients[0].ask("/aff_c?offer_id=1&aff_id=1&aff_sub=full"))
    await stop_the_journals_growth(node, watch, clients, click_id)
    await gate.shut()

    async def is_full() -> bool:
        await asyncio.gather(*(send_big(client, click_id) for client in clients))
        return not watch.lacking(*RAISED_BY_A_FULL_JOURNAL) and watch.fired >= MORE_PATIENT

    await eventually(is_full, 90, lambda: f"not seen: {watch.lacking(*RAISED_BY_A_FULL_JOURNAL)}, {MORE_PATIENT - watch.fired}")
    for client in clients:
        client.close()
    damage(node)
    await gate.open()
    await watch.sees("EdgeCorruptRecords", "EdgeQuarantine")


async def stop_the_journals_growth(node: Node, watch: Watch, clients: list[Client], click_id: str) -> None:
    """The kernel lets the worker's files grow no further, and then again."""
    [worker] = node.pids("worker")
    limits = resource.prlimit(worker, resource.RLIMIT_FSIZE)
    resource.prlimit(worker, resource.RLIMIT_FSIZE, (128 * 1024, limits[1]))

    async def is_broken() -> bool:
        await asyncio.gather(*(send_big(client, click_id) for client in clients))
        return not watch.lacking("EdgeJournalWriteErrors")

    await eventually(is_broken, SEEN_S, node.describe)
    resource.prlimit(worker, resource.RLIMIT_FSIZE, limits)


async def send_big(client: Client, click_id: str) -> None:
    """Ten clicks and a conversion, of 4 kB each; and ten forged ids."""
    for _ in range(10):
        await client.ask("/aff_lsr?transaction_id=01a2004f81c070008000369c4b260418")
        await client.ask(f"/aff_c?offer_id=1&aff_id=1{padding('aff_sub')}")
    await client.ask(f"/aff_lsr?transaction_id={click_id}{padding('adv_sub')}")


def padding(name: str) -> str:
    """Four long parameters."""
    return "".join(f"&{name}{number}={'p' * 900}" for number in range(2, 6))


def damage(node: Node) -> None:
    """One bit, near the end of what the drain has not read."""
    journals = list_journal_paths(node.data_dir / "journal")
    segments = [segment.path for directory in journals for segment in list_segments(directory)]
    # The last of all may have just begun.
    segment = max((one for one in segments if one.stat().st_size > DEPTH), key=lambda path: path.stat().st_mtime_ns)
    place = segment.stat().st_size - DEPTH
    with segment.open("r+b") as file:
        file.seek(place)
        byte = file.read(1)[0]
        file.seek(place)
        file.write(bytes([byte ^ 0x10]))


async def break_the_processes(node: Node, watch: Watch) -> None:
    """A worker that dies again and again, and an admin port that does not answer."""

    async def are_seen() -> bool:
        with suppress(ProcessLookupError, IndexError):  # it has just died, and its successor is not there yet
            node.kill("worker")
        return not watch.lacking("EdgeProcessFlapping", "EdgeProcessDown")

    await eventually(are_seen, SEEN_S, node.describe)
    [admin] = node.pids("admin")
    os.kill(admin, signal.SIGSTOP)
    await watch.sees("EdgeTargetDown")
    os.kill(admin, signal.SIGCONT)
