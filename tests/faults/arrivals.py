"""What has arrived in Postgres, held against the ledger of what was answered."""

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any
from uuid import UUID

import asyncpg

from storage.journal.segments import list_journal_paths, list_segments
from tests.cap_recount import cap_differences
from tests.faults.traffic import Ledger
from tests.node import Node, eventually
from tests.recount import differences
from tests.visits import misjudged

DRAINED_S = 90.0
MAX_LINES = 30
_AWAY = (OSError, asyncpg.PostgresError, asyncpg.InterfaceError)

Ends = dict[UUID, tuple[int, int]]


def journal_ends(data_dir: Path) -> Ends:
    """How far each journal is written now: its last segment and that one's size."""
    ends: Ends = {}
    for directory in list_journal_paths(data_dir / "journal"):
        if segments := list_segments(directory):
            last = segments[-1]
            # A segment may get its drained name between the two looks.
            for path in (last.path, last.path.with_suffix(".done")):
                if path.exists():
                    ends[UUID(directory.name)] = (last.number, path.stat().st_size)
                    break
    return ends


async def wait_until_stored(node: Node, url: str | None = None, timeout_s: float = DRAINED_S) -> None:
    """Until all that the journals hold at this moment is in Postgres and no conversion waits for its click."""
    ends = journal_ends(node.data_dir)

    async def is_stored() -> bool:
        try:
            conn = await asyncpg.connect(url or node.database_url)
        except _AWAY:
            return False
        try:
            return await _has_passed(conn, ends)
        except _AWAY:
            return False
        finally:
            conn.terminate()

    await eventually(is_stored, timeout_s, node.describe)


async def _has_passed(conn: asyncpg.Connection, ends: Ends) -> bool:
    rows = await conn.fetch("SELECT journal_id, segment, byte_offset, finished_at FROM journal_positions")
    stored = {row["journal_id"]: row for row in rows}
    for journal_id, end in ends.items():
        row = stored.get(journal_id)
        if row is None:
            return False
        # What lies behind a finished journal's position is a tail that was torn off.
        if row["finished_at"] is None and (row["segment"], row["byte_offset"]) < end:
            return False
    return not await conn.fetchval("SELECT count(*) FROM conversions_waiting WHERE decided_at IS NULL")


async def wait_until_told(node: Node, timeout_s: float = DRAINED_S) -> None:
    """Until the outbox is empty: partners have heard of all that they wanted to."""

    async def is_told() -> bool:
        try:
            return not await node.fetch("SELECT FROM postback_outbox WHERE state <> 'delivered' LIMIT 1")
        except _AWAY:
            return False

    await eventually(is_told, timeout_s, node.describe)


async def faults_in(conn: Any, ledger: Ledger, heard: Collection[str]) -> list[str]:
    """What is missing, there twice, not asked for, wrongly decided, added up or told; one line each.

    `heard`: the conversions that the partners were told of.
    """
    faults = list(ledger.faults)
    clicks = await conn.fetch("SELECT aff_sub1, click_id, offer_id, landing_page_id FROM clicks")
    ids = {row["aff_sub1"]: row["click_id"].hex for row in clicks}
    faults += _compare("click", ledger.clicks, [mark for mark, click_id in ledger.clicks.items() if click_id is not None],
                       [row["aff_sub1"] for row in clicks])  # fmt: skip
    faults += [
        f"click {mark} is stored under {ids.get(mark)}, answered with {click_id}"
        for mark, click_id in ledger.clicks.items()
        if click_id and ids.get(mark) != click_id
    ]
    faults += [
        f"click {mark} was led to {ledger.pages[mark]}, stored {place}"
        for mark, *place in clicks
        if mark in ledger.pages and ledger.pages[mark] != tuple(place[1:])
    ]
    impressions = [row["aff_sub1"] for row in await conn.fetch("SELECT aff_sub1 FROM impressions")]
    faults += _compare("impression", ledger.impressions, _answered(ledger.impressions), impressions)
    conversions = await conn.fetch("SELECT adv_sub1, transaction_id, goal_id, status, reason FROM conversions")
    answered = {mark: one.is_answered for mark, one in ledger.conversions.items()}
    # One that changed an earlier conversion has no row of its own: that change names it and keeps what it sent. Unless it
    # was decided before its click came: then it keeps its row, as a duplicate that earns nothing.
    causes = await conn.fetch(
        "SELECT cause_params ->> 'adv_sub1' AS mark FROM conversion_changes WHERE cause_id IS NOT NULL AND NOT EXISTS"
        " (SELECT FROM conversions WHERE conversion_id = cause_id AND status = 'rejected')"
    )
    marks = [row["adv_sub1"] for row in conversions] + [row["mark"] for row in causes]
    faults += _compare("conversion", answered, _answered(answered), marks)
    faults += _misjudged(ledger, conversions)
    faults += [f"quarantined: {row['error']}" for row in await conn.fetch("SELECT error FROM quarantine")]
    faults += await _untold(conn, heard)
    return [*faults[:MAX_LINES], *await differences(conn), *await cap_differences(conn), *await misjudged(conn)]


async def _untold(conn: Any, heard: Collection[str]) -> list[str]:
    """Every conversion that was approved is told, and nothing else is."""
    approved = await conn.fetch(
        "SELECT conversion_id FROM conversions WHERE status = 'approved'"
        " AND reason NOT IN ('unknown_partner', 'partner_blocked')"
    )
    ids = {row["conversion_id"].hex for row in approved}
    faults = [f"conversion {one} is approved and no partner has heard of it" for one in ids.difference(heard)]
    return faults + [f"partners heard of {one}, which is not approved" for one in set(heard).difference(ids)]


def _answered(marks: dict[str, bool]) -> list[str]:
    return [mark for mark, is_answered in marks.items() if is_answered]


def _compare(what: str, sent: Iterable[str], answered: Iterable[str], stored: list[str]) -> list[str]:
    counts = Counter(stored)
    known = set(sent)
    faults = [f"{what} {mark} was answered and is not stored" for mark in answered if not counts[mark]]
    faults += [f"{what} {mark} is stored {count} times" for mark, count in counts.items() if count > 1]
    faults += [f"{what} {mark} was never sent" for mark in counts if mark not in known]
    return faults


def _misjudged(ledger: Ledger, rows: Iterable[Any]) -> list[str]:
    """Of the good conversions of a family and goal one earns, or as many as it has clicks; the bad are what they are."""
    faults = []
    earning: dict[tuple[str, int], int] = defaultdict(int)
    for row in rows:
        sent = ledger.conversions.get(row["adv_sub1"])
        if sent is None:
            continue
        if row["status"] in ("approved", "pending"):
            earning[sent.family, sent.goal_id] += 1
        expected = set(sent.reason.split("|")) if sent.reason else {"", "duplicate"}
        if sent.is_good and sent.may_be_capped:
            expected.add("capped")
        if row["reason"] not in expected:
            faults.append(f"conversion {row['adv_sub1']} is {row['status']} {row['reason']}, expected {expected}")
    for place, (is_certain, count) in ledger.expected_verdicts().items():
        family, goal_id = place
        if earning[place] > max(1, ledger.families[family]) or (is_certain and not earning[place]):
            faults.append(f"{earning[place]} of {count} conversions of the family of {family} goal {goal_id} earn")
    return faults
