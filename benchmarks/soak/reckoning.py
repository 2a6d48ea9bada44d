"""The ledger against PostgreSQL: nothing answered is missing, nothing is there twice, verdicts and sums are right."""

import asyncio
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import asyncpg

from benchmarks import ledger as kinds
from benchmarks.soak.ledger import OK, REFUSED, WRONG, Entry
from benchmarks.soak.node import SoakFailed, SoakNode
from benchmarks.soak.traffic import BAD_KIND, LOST_KIND
from storage.journal.segments import list_journal_paths, list_segments
from tests.recount import differences
from tests.visits import misjudged

STORED_S, TOLD_S = 180.0, 180.0
CLICKS = (kinds.CLICKS, kinds.BOTS, kinds.PREVIEWS, LOST_KIND)
CONVERSIONS = (kinds.APPROVED, kinds.DUPLICATES)
MAX_LINES = 10
_AWAY = (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, TimeoutError)


@dataclass
class Count:
    """One kind of row. `dropped`: answered, not stored, and counted by the node as not recorded."""

    sent: int
    answered: int
    refused: int
    stored: int
    lost: int
    doubled: int
    dropped: int = 0


@dataclass
class Reckoning:
    """`faults` is empty when all is as it was answered."""

    counts: dict[str, Count] = field(default_factory=dict)
    dropped_counted: int = 0
    forged_unstored: int = 0
    told: int = 0
    told_again: int = 0
    stored_after_s: float = 0.0
    faults: list[str] = field(default_factory=list)


async def wait_until_stored(node: SoakNode) -> float:
    """Until all that the journals hold now is in PostgreSQL and no conversion waits; how long that took."""
    ends = _journal_ends(node)
    return await _wait(node, lambda conn: _has_passed(conn, ends), STORED_S, "the drain has not caught up")


async def wait_until_told(node: SoakNode) -> float:
    """Until partners have heard of all that they want to; how long that took."""
    return await _wait(node, _is_told, TOLD_S, "partners' postbacks are still to be sent")


async def _wait(node: SoakNode, is_done: Any, timeout_s: float, fault: str) -> float:
    began_s = time.monotonic()
    while True:
        try:
            conn = await asyncpg.connect(node.database_url, timeout=5)
            try:
                if await is_done(conn):
                    return time.monotonic() - began_s
            finally:
                conn.terminate()
        except _AWAY:
            pass
        if time.monotonic() - began_s > timeout_s:
            raise SoakFailed(f"{fault} after {timeout_s:.0f} s")
        await asyncio.sleep(0.2)


def _journal_ends(node: SoakNode) -> dict[UUID, tuple[int, int]]:
    """How far each journal is written: its last segment and that one's size."""
    ends = {}
    for directory in list_journal_paths(node.data_dir / "journal"):
        if segments := list_segments(directory):
            last = segments[-1]
            for path in (last.path, last.path.with_suffix(".done")):  # it may get that name between the two looks
                if path.exists():
                    ends[UUID(directory.name)] = (last.number, path.stat().st_size)
                    break
    return ends


async def _has_passed(conn: Any, ends: Mapping[UUID, tuple[int, int]]) -> bool:
    rows = await conn.fetch("SELECT journal_id, segment, byte_offset, finished_at FROM journal_positions")
    stored = {row["journal_id"]: row for row in rows}
    for journal_id, end in ends.items():
        row = stored.get(journal_id)
        if row is None or (row["finished_at"] is None and (row["segment"], row["byte_offset"]) < end):
            return False
    return not await conn.fetchval("SELECT EXISTS (SELECT FROM conversions_waiting WHERE decided_at IS NULL)")


async def _is_told(conn: Any) -> bool:
    return not await conn.fetchval("SELECT EXISTS (SELECT FROM postback_outbox WHERE state NOT IN ('delivered', 'dead'))")


async def reckon(
    conn: Any, entries: Mapping[str, Entry], *, dropped: int, unstored: int, told: Mapping[str, int], over_nodes: bool = False
) -> Reckoning:
    """`dropped`, `unstored`: what the node counted of clicks not recorded and forged ids not stored; `told`: how often
    partners answered 200, by conversion; `over_nodes`: clicks are unique among those of all nodes."""
    found = Reckoning(dropped_counted=dropped, forged_unstored=unstored)
    clicks = [(mark, one.hex) for mark, one in await conn.fetch("SELECT aff_sub4, click_id FROM clicks")]
    impressions = [row[0] for row in await conn.fetch("SELECT aff_sub4 FROM impressions")]
    rows = await conn.fetch("SELECT adv_sub4 AS mark, conversion_id, status, reason FROM conversions")
    found.faults += _unknown(entries, [*(mark for mark, _ in clicks), *impressions, *(row["mark"] for row in rows)])
    found.faults += _click_faults(entries, clicks)
    click_marks = [mark for mark, _ in clicks]
    found.faults += _count(found, entries, CLICKS, click_marks, may_be_dropped=True)
    found.faults += _count(found, entries, (kinds.IMPRESSIONS,), impressions, may_be_dropped=True)
    found.faults += _dropped_faults(found, entries)
    found.faults += _count(found, entries, CONVERSIONS, [row["mark"] for row in rows])
    found.faults += _count(found, entries, (kinds.FORGED,), [row["mark"] for row in rows], is_bounded=True)
    found.faults += _verdict_faults(entries, rows, {one for _, one in clicks})
    found.faults += [f"{one.kind} {mark} got a wrong answer" for mark, one in entries.items() if one.outcome == WRONG][:MAX_LINES]
    found.faults += _told_faults(found, rows, told)
    found.faults += await _database_faults(conn, over_nodes=over_nodes)
    return found


def _unknown(entries: Mapping[str, Entry], marks: Iterable[str]) -> list[str]:
    """Rows that nobody asked for: of no mark, or of a request that had to leave nothing behind."""
    strange = [mark for mark in marks if mark not in entries or entries[mark].kind == BAD_KIND]
    return [f"a row has the mark {mark!r}, which was not sent, or was a bad request" for mark in strange[:MAX_LINES]]


def _click_faults(entries: Mapping[str, Entry], clicks: Sequence[tuple[str, str]]) -> list[str]:
    """Ids given twice, or stored under another mark than they were answered to."""
    given = Counter(one.click_id for one in entries.values() if one.click_id and one.kind in CLICKS)
    faults = [f"id {one} was given {number} times" for one, number in given.items() if number > 1]
    faults += [
        f"click {mark} was answered with {entries[mark].click_id}, is stored under {click_id}"
        for mark, click_id in clicks
        if mark in entries and entries[mark].click_id not in ("", click_id)
    ]
    return faults[:MAX_LINES]


def _count(
    found: Reckoning,
    entries: Mapping[str, Entry],
    of: Sequence[str],
    marks: Sequence[str],
    *,
    may_be_dropped: bool = False,
    is_bounded: bool = False,
) -> list[str]:
    """What is missing or there twice of each kind; `is_bounded`: beyond a rate such rows are only counted."""
    stored, faults = Counter(marks), []
    for kind in of:
        ours = {mark: one for mark, one in entries.items() if one.kind == kind}
        answered = [mark for mark, one in ours.items() if one.outcome == OK]
        missing = [mark for mark in answered if not stored[mark]]
        refused = [mark for mark, one in ours.items() if one.outcome == REFUSED]
        doubled = [mark for mark in ours if stored[mark] > 1]
        count = Count(len(ours), len(answered), len(refused), sum(stored[mark] for mark in ours), len(missing), len(doubled))
        if may_be_dropped:
            count.dropped, count.lost = count.lost, 0
        elif is_bounded:
            count.lost = 0
            faults += _bounded_faults(found, count)
        found.counts[kind] = count
        if count.lost:
            faults.append(f"{count.lost} {kind} were answered and are not stored: {missing[:3]}")
        if doubled:
            faults.append(f"{len(doubled)} {kind} are stored twice: {doubled[:3]}")
        faults += [f"{kind} {mark} was refused with 503 and is stored" for mark in refused if stored[mark]][:MAX_LINES]
    return faults


def _bounded_faults(found: Reckoning, count: Count) -> list[str]:
    """Each refusal is a row or counted as none; of those that were never answered some may be."""
    accounted = count.stored + found.forged_unstored
    if count.answered <= accounted <= count.sent - count.refused:
        return []
    return [f"forged ids: {count.answered} to {count.sent} were refused, {accounted} are stored or counted"]


def _dropped_faults(found: Reckoning, entries: Mapping[str, Entry]) -> list[str]:
    """As many are missing as the node says; of those that were never answered some may be among them."""
    missing = sum(count.dropped for count in found.counts.values())
    unanswered = sum(one.outcome not in (OK, REFUSED) for one in entries.values() if one.kind in (*CLICKS, kinds.IMPRESSIONS))
    if missing <= found.dropped_counted <= missing + unanswered:
        return []
    return [f"{missing} clicks and impressions are missing, {found.dropped_counted} are counted as dropped"]


def _verdict_faults(entries: Mapping[str, Entry], rows: Sequence[Any], stored_clicks: set[str]) -> list[str]:
    """Of a click's conversions for a goal one earns, the others are duplicates; without its click it may be unknown."""
    verdicts: dict[str, Counter[str]] = defaultdict(Counter)
    faults = []
    for row in rows:
        entry = entries.get(row["mark"])
        if entry is None or not entry.family:
            continue
        verdict = row["reason"] or row["status"]
        if entry.family == "forged":
            faults += [f"forged {row['mark']} is {verdict}"] if verdict != "forged_id" else []
            continue
        verdicts[entry.family][verdict] += 1
    for family, seen in verdicts.items():
        if family.partition("/")[0] not in stored_clicks:
            seen.pop("unknown_click", None)
        elif seen["approved"] != 1:
            faults.append(f"of the conversions of {family} {seen['approved']} earn: {dict(seen)}")
        if others := set(seen) - {"approved", "duplicate"}:
            faults.append(f"conversions of {family} are {others}")
    return faults[:MAX_LINES]


def _told_faults(found: Reckoning, rows: Sequence[Any], told: Mapping[str, int]) -> list[str]:
    approved = {row["conversion_id"].hex for row in rows if row["status"] == "approved"}
    found.told = sum(one in told for one in approved)
    found.told_again = sum(number - 1 for number in told.values())
    faults = [f"conversion {one} is approved and its partner has not heard" for one in approved - set(told)]
    return (faults + [f"a partner heard of {one}, which is not approved" for one in set(told) - approved])[:MAX_LINES]


async def _database_faults(conn: Any, *, over_nodes: bool) -> list[str]:
    """What the rows say of themselves."""
    faults = [f"roll-ups: {line}" for line in await differences(conn)]
    faults += [f"uniqueness: {line}" for line in await misjudged(conn, over_nodes=over_nodes)]
    faults += [f"quarantined: {row[0]}" for row in await conn.fetch("SELECT error FROM quarantine LIMIT 10")]
    dead = await conn.fetchval("SELECT count(*) FROM postback_outbox WHERE state = 'dead'")
    return faults + ([f"{dead} postbacks were given up"] if dead else [])
