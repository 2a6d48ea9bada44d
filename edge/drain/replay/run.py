"""A whole replay: a period, a file of changed rules, the figures before and after. Nothing is written."""

from collections.abc import Callable, Collection
from datetime import UTC, date, datetime, timedelta
from typing import NamedTuple
from zoneinfo import ZoneInfo

from edge.drain.replay.clicks import ClickReplay
from edge.drain.replay.conversions import ConversionReplay
from edge.drain.replay.figures import Compared, Tally, total
from edge.drain.replay.rules import ReplayHistory, RuleChange, read_rules
from edge.errors import UserError
from storage.postgres.connection import Connection
from storage.postgres.installation import recall
from storage.postgres.replays import Window, count_clicks, measure_window, open_snapshot

Progress = Callable[[str, int, int], None]
"""Told what is being replayed, how much of it is done, and of how much."""


class Asked(NamedTuple):
    """What to replay: whole days of the network's time zone, both included; empty: all offers, all partners."""

    first_day: date
    last_day: date
    offer_ids: Collection[int] = ()
    aff_ids: Collection[int] = ()


class Replay(NamedTuple):
    """What came out. `total`: one for each currency."""

    starts_at: datetime
    ends_at: datetime
    rules: RuleChange
    compared: list[Compared]
    total: list[Compared]


async def replay(
    conn: Connection, asked: Asked, text: str, file: str, on_progress: Progress = lambda *_: None
) -> Replay:
    """The days of `asked`, decided again as if the catalog had held what `text` changes in it. CatalogFaults."""
    async with open_snapshot(conn):
        rules = await read_rules(conn, text, file)
        zone = ZoneInfo(await recall(conn, "timezone", "UTC"))
        starts_at, ends_at = _first_hour(asked.first_day, zone), _first_hour(asked.last_day + timedelta(days=1), zone)
        if starts_at >= ends_at:
            raise UserError(f"{asked.first_day} is after {asked.last_day}: nothing lies between them")
        window, count = await measure_window(conn, Window(starts_at, ends_at, tuple(sorted(asked.offer_ids))))
        clicks = await count_clicks(conn, window)
        tally, history = Tally(), ReplayHistory(rules.bodies)
        conversions = ConversionReplay(window, rules, history, zone, tally)
        follow = _counter(on_progress, "clicks", clicks)
        touches = ClickReplay(window, rules, history, zone, tally, conversions.caps, follow)
        decided = _counter(on_progress, "conversions", count)
        await conversions.run(conn, decided, touches.until, is_fine=touches.meets_new_caps)
        await touches.until(conn, ends_at)
    compared = list(tally.compare(frozenset(asked.offer_ids), frozenset(asked.aff_ids)))
    return Replay(starts_at, ends_at, rules, compared, total(compared))


def _counter(on_progress: Progress, what: str, count: int) -> Callable[[int], None]:
    """Adds up what is done of it."""
    done = 0

    def follow(more: int) -> None:
        nonlocal done
        done += more
        on_progress(what, done, max(count, done))

    follow(0)
    return follow


def _first_hour(day: date, zone: ZoneInfo) -> datetime:
    """The first whole UTC hour that begins on that day, as days of caps and roll-ups do."""
    midnight = datetime(day.year, day.month, day.day, tzinfo=zone).astimezone(UTC)
    hour = midnight.replace(minute=0, second=0, microsecond=0)
    return hour if hour == midnight else hour + timedelta(hours=1)
