"""Sent against stored: a load run's ledger on standard input, what Postgres has of that run on standard output, as JSON.

A program of its own, since asyncpg does not run in Locust's process. The database's URL is in CLICKEDGE_DATABASE_URL, the
admin page's address (optional) in CLICKEDGE_ADMIN; both as `serve` has them. The roll-ups are compared with all rows of the
database, the run's and others: stats_hourly does not say who counted.
"""

import asyncio
import json
import os
import sys
import time
from collections import Counter
from dataclasses import asdict, dataclass
from typing import Any
from uuid import UUID

import asyncpg

from benchmarks.ledger import APPROVED, BOTS, CLICKS, DUPLICATES, FORGED, IMPRESSIONS, KINDS, PREVIEWS, Ledger
from benchmarks.serving import metric_of
from tests.recount import differences

DRAINED_S = 60.0
CLOCKS_MS = 1000
"""How far the clocks of this machine and of the edge may differ."""
_CLICKS = "SELECT click_id, flags FROM clicks WHERE aff_sub5 = $1"
_IMPRESSIONS = "SELECT count(*) FROM impressions WHERE aff_sub5 = $1"
_CONVERSIONS = "SELECT status, reason, count(*) FROM conversions WHERE adv_sub5 = $1 GROUP BY 1, 2"
_UNDRAINED = """
    SELECT count(*) FILTER (WHERE watermark_ms < $1) > 0 OR count(*) = 0
           OR EXISTS (SELECT FROM conversions_waiting WHERE decided_at IS NULL)
    FROM journal_positions WHERE finished_at IS NULL
"""


@dataclass
class Row:
    """One kind; `difference`: rows too many (positive) or missing (negative). What was never answered may be there or not."""

    kind: str
    sent: int
    answered: int
    stored: int
    difference: int


@dataclass
class Reconciliation:
    """`faults` is empty when all is as it was sent. `unstored`: refusals of this run that were only counted."""

    rows: list[Row]
    faults: list[str]
    unstored: int | None
    drained_s: float


async def wait_until_drained(conn: Any, timeout_s: float = DRAINED_S) -> float:
    """Seconds until all that was journalled before this moment is stored; TimeoutError when it takes too long."""
    began_s, until_ms = time.monotonic(), int(time.time() * 1000) + CLOCKS_MS
    while await conn.fetchval(_UNDRAINED, until_ms):
        if time.monotonic() - began_s > timeout_s:
            raise TimeoutError(f"the drain has not caught up within {timeout_s:.0f} s")
        await asyncio.sleep(0.1)
    return time.monotonic() - began_s


async def reconcile(conn: Any, ledger: Ledger, unstored: int | None, drained_s: float = 0.0) -> Reconciliation:
    """The run's ledger beside the rows that carry its mark. `unstored` None: unknown, then forged ids may be missing."""
    clicks = {row["click_id"]: set(row["flags"]) for row in await conn.fetch(_CLICKS, ledger.run)}
    stored = Counter(map(_kind_of_click, clicks.values()))
    stored[IMPRESSIONS] = await conn.fetchval(_IMPRESSIONS, ledger.run)
    verdicts = {(status, reason): count for status, reason, count in await conn.fetch(_CONVERSIONS, ledger.run)}
    stored[APPROVED] = verdicts.pop(("approved", ""), 0)
    stored[DUPLICATES] = verdicts.pop(("rejected", "duplicate"), 0)
    stored[FORGED] = verdicts.pop(("rejected", "forged_id"), 0) + (unstored or 0)
    rows = [_row(ledger, kind, stored[kind], is_bounded=kind == FORGED and unstored is None) for kind in KINDS]
    faults = [f"{row.kind}: {row.difference:+}" for row in rows if row.difference]
    faults += [f"{count} conversions {status} {reason}" for (status, reason), count in verdicts.items()]
    faults += _id_faults(ledger.click_ids, set(clicks))
    faults += [f"roll-ups: {line}" for line in await differences(conn)]
    if quarantined := await conn.fetchval("SELECT count(*) FROM quarantine"):
        faults.append(f"{quarantined} records in quarantine")
    return Reconciliation(rows, faults, unstored, round(drained_s, 1))


def _row(ledger: Ledger, kind: str, stored: int, *, is_bounded: bool) -> Row:
    """`is_bounded`: rows may be missing."""
    sent, answered = ledger.sent.get(kind, 0), ledger.answered.get(kind, 0)
    missing = 0 if is_bounded else min(0, stored - answered)
    return Row(kind, sent, answered, stored, max(0, stored - sent) + missing)


def _kind_of_click(flags: set[str]) -> str:
    if "prefetch" in flags:
        return PREVIEWS
    return BOTS if "bot" in flags else CLICKS


def _id_faults(answered: list[str], stored: set[UUID]) -> list[str]:
    """Counts may agree by chance; ids do not."""
    given = set(map(UUID, answered))
    faults = [f"{len(answered) - len(given)} click ids were given twice"] if len(given) < len(answered) else []
    if lost := given - stored:
        faults.append(f"{len(lost)} clicks were answered and are not stored, {min(lost).hex} among them")
    return faults


async def _run() -> Reconciliation:
    ledger = Ledger(**json.load(sys.stdin))
    conn = await asyncpg.connect(os.environ["CLICKEDGE_DATABASE_URL"])
    try:
        drained_s = await wait_until_drained(conn)
        unstored = None
        if (admin := os.environ.get("CLICKEDGE_ADMIN")) and ledger.unstored_before is not None:
            unstored = int(metric_of(admin, "edge_unstored_refusals_total") - ledger.unstored_before)
        return await reconcile(conn, ledger, unstored, drained_s)
    finally:
        await conn.close()


if __name__ == "__main__":
    try:
        json.dump(asdict(asyncio.run(_run())), sys.stdout)
    except (OSError, TimeoutError, asyncpg.PostgresError) as error:
        sys.exit(f"cannot reconcile: {error}")
