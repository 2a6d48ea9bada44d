"""/metrics of a running node under requests of every kind: what Prometheus's own tool says of it, and what it tells."""

import asyncio
import re
import socket
import subprocess
import time
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path

import aiohttp
import pytest
from prometheus_client.parser import text_string_to_metric_families

from edge.metric_families import METRICS, ROLES
from tests.node import Node, end, eventually
from tests.unit.test_enrich import OTTAWA, write_database

ROOT = Path(__file__).parents[2]
SEEN_S = 20.0
JOURNAL_BYTES = 2 << 20
Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


@pytest.fixture(scope="module")
def node(short_directory: Path) -> Iterator[Node]:
    """One node for all tests of this file; its journal's segments are small, and it has a geo database."""
    database = short_directory / f"{uuid.uuid4().hex[:8]}.mmdb"
    write_database(database, {"192.0.2.0/25": OTTAWA})
    database.chmod(0o644)
    node = Node(
        short_directory / f"metrics-{uuid.uuid4().hex[:8]}",
        env={"EDGE_GEOIP_DB": str(database), "EDGE_JOURNAL_MAX_BYTES": "2MiB", "EDGE_SESSION_CAPACITY": "777"},
    )
    try:
        asyncio.run(node.start())
        yield node
    finally:
        asyncio.run(end(node))


def parse(page: str) -> Samples:
    """The samples, as Prometheus's own library reads them."""
    families = text_string_to_metric_families(page)
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in families
        for sample in family.samples
    }


def value(samples: Samples, name: str, **labels: str) -> float:
    """The sum of a metric's samples that have these labels; there must be one."""
    found = [number for (key, has), number in samples.items() if key == name and labels.items() <= dict(has).items()]
    assert found, f"{name} {labels}"
    return sum(found)


def check(page: str) -> tuple[int, str]:
    """What `promtool check metrics` says: its exit code and words."""
    done = subprocess.run(
        ["promtool", "check", "metrics"], input=page, text=True, capture_output=True, timeout=30, check=False
    )
    return done.returncode, done.stdout + done.stderr


class Visitor:
    """Asks the node."""

    def __init__(self, node: Node, session: aiohttp.ClientSession) -> None:
        self._node = node
        self._session = session

    async def page(self) -> str:
        """/metrics."""
        async with self._session.get(f"{self._node.admin}/metrics") as answer:
            assert answer.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
            return await answer.text()

    async def scrape(self) -> Samples:
        """Its samples."""
        return parse(await self.page())

    async def ask(self, path: str, *, admin: bool = False, body: str | None = None) -> tuple[int, str]:
        """Status, and where it leads or what it says."""
        origin = self._node.admin if admin else self._node.origin
        method = "GET" if body is None else "POST"
        async with self._session.request(method, origin + path, data=body, allow_redirects=False) as answer:
            return answer.status, answer.headers.get("Location") or (await answer.read()).decode("latin-1")

    async def ask_everything(self) -> str:
        """A request of each kind, with each outcome that a well node has; the click's id."""
        _, location = await self.ask("/aff_c?offer_id=17&aff_id=2")
        found = re.search(r"clickid=([0-9a-f]{32})", location)
        assert found
        click_id = found[1]
        for path in (
            f"/aff_lsr?transaction_id={click_id}&amount=9.99",
            "/aff_lsr?transaction_id=01a2004f81c070008000369c4b260418",
            "/aff_i?offer_id=17&aff_id=2",
            "/aff_l?offer_id=17",
            f"/aff_c?offer_id={time.time_ns()}&aff_id={time.time_ns()}&source={uuid.uuid4()}",
            f"/{uuid.uuid4()}",
        ):
            await self.ask(path)
        for path in ("/login", "/api/v1/offers", "/livez", f"/{uuid.uuid4()}", f"/api/v1/offers/{time.time_ns()}"):
            await self.ask(path, admin=True)
        return click_id

    async def until(self, name: str, at_least: float, **labels: str) -> Samples:
        """Scrape until a metric is that high; that scrape."""
        samples: Samples = {}

        async def is_there() -> bool:
            nonlocal samples
            samples = await self.scrape()
            return value(samples, name, **labels) >= at_least

        await eventually(is_there, SEEN_S, self._node.describe)
        return samples


@asynccontextmanager
async def visiting(node: Node) -> AsyncIterator[Visitor]:
    """A visitor."""
    async with aiohttp.ClientSession() as session:
        yield Visitor(node, session)


@pytest.mark.debian("prometheus")
async def test_promtool_finds_no_fault_in_the_page_of_a_busy_node(node: Node) -> None:
    """Names, units, types and help as Prometheus wants them; the tool says nothing and ends with 0."""
    async with visiting(node) as visitor:
        await visitor.ask_everything()
        await visitor.until("edge_drain_rows_total", 2, table="conversions")
        page = await visitor.page()
    assert check(page) == (0, "")


async def test_no_label_has_a_value_outside_its_fixed_set(node: Node) -> None:
    """Whatever is asked for: no offer, partner, address or path ever becomes a line of its own."""
    fixed: dict[str, dict[str, set[str]]] = {
        metric.name: {name: set(values) for name, values in metric.labels.items()} for metric in METRICS
    }
    fixed |= {"edge_drain_lag_seconds": {}, "edge_build_info": {"version": set(), "python": set()}}
    async with visiting(node) as visitor:
        lines = (await visitor.scrape()).keys()
        await visitor.ask_everything()
        await visitor.ask_everything()
        samples = await visitor.until("edge_requests_total", 2, kind="click", outcome="rejected")
    assert samples.keys() == lines
    assert len(lines) < 500
    for name, pairs in lines:
        family = re.sub(r"_(bucket|sum|count)$", "", name) if name not in fixed else name
        for label, text in pairs:
            if label == "role":
                assert text in ROLES
            elif label == "slot":
                assert text == "0"
            elif label == "le":
                assert text == "+Inf" or float(text) > 0
            elif family != "edge_build_info":
                assert text in fixed[family][label], (name, label, text)


async def test_the_operations_page_tells_every_metric_and_no_other(node: Node) -> None:
    """Each name on the page has its line, with its labels as they are; no line is of a metric that is not there."""
    text = (ROOT / "docs" / "operations.md").read_text()
    section = text[text.index("\n## Metrics\n") : text.index("\n## Alerts\n")]
    told = dict(re.findall(r"`(edge_\w+)(?:\{([a-z,]+)\})?`", section))
    async with visiting(node) as visitor:
        families = list(text_string_to_metric_families(await visitor.page()))
    wanted = {
        family.name + ("_total" if family.type == "counter" else ""): {
            label for sample in family.samples for label in sample.labels if label != "le"
        }
        for family in families
        if family.samples
    }
    assert {name: set(filter(None, told.get(name, "none").split(","))) for name in wanted} == wanted
    of_a_stream = {"edge_shipped_through_seconds"}  # a line a shipper, and this node has none
    assert told.keys() - of_a_stream <= wanted.keys()


async def test_requests_are_counted_by_kind_and_outcome(node: Node) -> None:
    """What was asked, no more and no less; what was malformed too, whoever of lane and aiohttp refused it."""
    async with visiting(node) as visitor:
        before = await visitor.scrape()
        await visitor.ask_everything()
        assert (await visitor.ask("/aff_lsr", body="{" * 70_000))[0] == 413
        with socket.create_connection(("127.0.0.1", node.port), timeout=20) as wire:
            wire.sendall(b"GET / HTTP/9.9\r\nHost: x\r\n\r\n")
            assert wire.recv(4096)
        after = await visitor.scrape()
    counted = {
        (labels["kind"], labels["outcome"]): number - before[key]
        for key, number in after.items()
        if key[0] == "edge_requests_total" and number > before[key] and (labels := dict(key[1]))
    }
    assert counted == {
        ("click", "redirected"): 1,
        ("click", "rejected"): 1,
        ("postback", "recorded"): 1,
        ("postback", "refused"): 1,
        ("impression", "recorded"): 1,
        ("pixel", "recorded"): 1,
        ("other", "bad_request"): 3,
    }


async def test_the_admin_port_s_requests_are_counted_by_part(node: Node) -> None:
    """API, console, scrapes and probes, each by the kind of its answer; and how long each took to begin."""
    async with visiting(node) as visitor:
        before = await visitor.scrape()
        await visitor.ask_everything()
        after = await visitor.scrape()
    counted = {
        (labels["part"], labels["code"]): number - before[key]
        for key, number in after.items()
        if key[0] == "edge_admin_requests_total" and number > before[key] and (labels := dict(key[1]))
    }
    assert counted == {
        ("console", "2xx"): 1,
        ("console", "4xx"): 1,
        ("api", "4xx"): 2,
        ("health", "2xx"): 1,
        ("metrics", "2xx"): 1,
    }
    for part, count in (("console", 2), ("api", 2), ("health", 1), ("metrics", 1)):
        grown = [value(page, "edge_admin_answer_seconds_count", part=part) for page in (before, after)]
        assert grown[1] - grown[0] == count


async def test_every_process_tells_what_it_uses(node: Node) -> None:
    """Memory, descriptors, processor time, collections: all of them, the supervisor too, at the latest after a second."""
    async with visiting(node) as visitor:
        samples = await visitor.until("edge_process_cpu_seconds_total", 0.05, role="admin")
    for role in (role for role in ROLES if role != "shipper"):
        assert value(samples, "edge_process_up", role=role) == 1
        assert 10e6 < value(samples, "edge_process_resident_memory_bytes", role=role) < 1e9
        is_open = value(samples, "edge_process_open_fds", role=role)
        assert 3 < is_open < value(samples, "edge_process_max_fds", role=role)
        assert 0 < value(samples, "edge_process_cpu_seconds_total", role=role) < 600
        assert value(samples, "edge_process_gc_collections_total", role=role, generation="0") > 0


async def test_the_node_tells_its_limits_and_how_it_stands(node: Node) -> None:
    """Settings that a backlog is compared with, disk, database, partitions, catalog and geo database."""
    async with visiting(node) as visitor:
        samples = await visitor.until("edge_partitions_ahead", 6)
    now_s = time.time()
    assert value(samples, "edge_build_info", version="0.1.0") == 1
    assert value(samples, "edge_journal_max_bytes") == JOURNAL_BYTES
    assert value(samples, "edge_journal_disk_free_bytes") > 0
    assert value(samples, "edge_sessions_max") == 777
    assert value(samples, "edge_partitions_ahead") <= 7
    assert value(samples, "edge_database_up") == 1
    for name in ("edge_catalog_published_seconds", "edge_geoip_built_seconds"):
        assert now_s - 600 < value(samples, name) <= now_s + 1
    assert value(samples, "edge_database_errors_total") == 0


async def test_rejected_conversions_are_counted_by_reason(node: Node) -> None:
    """A duplicate among them; the reasons together are the verdict's count."""
    async with visiting(node) as visitor:
        click_id = await visitor.ask_everything()
        before = value(await visitor.scrape(), "edge_conversions_rejected_total", reason="duplicate")
        await visitor.ask(f"/aff_lsr?transaction_id={click_id}&amount=9.99")
        samples = await visitor.until("edge_conversions_rejected_total", before + 1, reason="duplicate")
    rejected = value(samples, "edge_conversions_rejected_total")
    assert value(samples, "edge_conversions_decided_total", status="rejected") == rejected
    assert value(samples, "edge_conversions_rejected_total", reason="duplicate") == before + 1


async def test_rotations_of_the_journal_are_counted(node: Node) -> None:
    """As many as the journal has full segments."""
    async with visiting(node) as visitor:
        written = value(await visitor.scrape(), "edge_journal_bytes_total")
        while written < 3 * 64 * 1024:
            for _ in range(25):
                await visitor.ask(f"/aff_c?offer_id=17&aff_id=2&aff_sub={'x' * 4000}")
            written = value(await visitor.scrape(), "edge_journal_bytes_total")
        samples = await visitor.until("edge_journal_rotations_total", 2)
    assert value(samples, "edge_journal_rotations_total") <= written / (64 * 1024)
    assert value(samples, "edge_journal_corrupt_records_total") == 0


async def test_open_connections_are_told_until_they_are_closed(node: Node) -> None:
    """Those that say nothing too."""
    async with visiting(node) as visitor:
        with ExitStack() as wires:
            for _ in range(20):
                wires.enter_context(socket.create_connection(("127.0.0.1", node.port), timeout=20))
            await visitor.until("edge_connections", 20)

        async def are_gone() -> bool:
            return value(await visitor.scrape(), "edge_connections") == 0

        await eventually(are_gone, SEEN_S, node.describe)


async def test_no_counter_falls_when_a_worker_is_killed(node: Node) -> None:
    """Scrape after scrape, until its successor has answered for a while: processor time and collections too."""
    async with visiting(node) as visitor:
        await visitor.ask_everything()
        known = await visitor.until("edge_process_cpu_seconds_total", 0.1, role="worker")
        starts = value(known, "edge_process_starts_total", role="worker")
        used_s = value(known, "edge_process_cpu_seconds_total", role="worker")
        node.kill("worker")

        async def has_successor() -> bool:
            nonlocal known
            samples = await visitor.scrape()
            fallen = [
                key
                for key, number in known.items()
                if key[0].endswith(("_total", "_count", "_sum", "_bucket")) and samples[key] < number
            ]
            assert fallen == []
            known = samples
            used_more = value(samples, "edge_process_cpu_seconds_total", role="worker") > used_s + 0.1
            return used_more and value(samples, "edge_process_up", role="worker") == 1

        await eventually(has_successor, SEEN_S, node.describe)
    assert value(known, "edge_process_starts_total", role="worker") == starts + 1


async def test_a_stopped_process_holds_nothing_any_more(node: Node) -> None:
    """Its memory and descriptors are told as 0 until its successor is there: a sum over the processes stays true."""
    async with visiting(node) as visitor:
        await visitor.until("edge_process_resident_memory_bytes", 1, role="sender")
        node.kill("sender")
        gone: Samples = {}

        async def is_down() -> bool:
            nonlocal gone
            gone = await visitor.scrape()
            return value(gone, "edge_process_up", role="sender") == 0

        await eventually(is_down, SEEN_S, node.describe)
        assert value(gone, "edge_process_resident_memory_bytes", role="sender") == 0
        assert value(gone, "edge_process_open_fds", role="sender") == 0
        await visitor.until("edge_process_open_fds", 4, role="sender")


async def test_a_geo_database_that_went_away_is_told_from_none(node: Node) -> None:
    """As one built in 1970: whoever waits for an old one hears of it."""
    Path(node._env["EDGE_GEOIP_DB"]).unlink()
    async with visiting(node) as visitor:

        async def is_gone() -> bool:
            return value(await visitor.scrape(), "edge_geoip_built_seconds") == 1

        await eventually(is_gone, SEEN_S, node.describe)
