"""PostgreSQL: whether it answers, is safe, is ours, and what of this node it has."""

import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID

from msgspec.structs import replace

from edge.doctor.findings import Finding, fail, format_bytes, format_duration, ok, skipped, warn
from edge.doctor.installation import Installation
from edge.doctor.stream import check_stalled
from edge.node import NODE_FILE, SECRET_FILE, secret_prints
from edge.setting_values import parse_secrets
from edge.settings import Settings
from storage.errors import DatabaseUnusable
from storage.journal.segments import list_journals
from storage.postgres import inspection
from storage.postgres.connection import Connection, is_retryable, resolve_url
from storage.postgres.health import measure_health
from storage.postgres.installation import recall
from storage.postgres.migrations import find_missing

SLOW_ANSWER_S = 0.02
CLOCK_WARNING_S, CLOCK_FAILURE_S = 1.0, 60.0
PARTITIONS_AHEAD_DAYS = 7
CONNECTIONS_OF_A_NODE = 20
OLD_TRANSACTION_S = 600.0
FROZEN_AGE = 1_500_000_000
OLD_POSTBACK_S = 3600.0
_SHOWN = 3


async def check_database(found: Installation) -> list[Finding]:
    """All of it; one line that says why where it cannot be reached."""
    settings = found.settings
    if not settings.database_url and not found.is_running:
        return [skipped("database", "the embedded one runs only with serve", "start serve and ask again")]
    findings: list[Finding] = []
    try:
        url = resolve_url(settings.database_url or None, settings.data_path)
        async with inspection.open_for_looking(url) as conn:
            for check in (check_server, check_clock, check_rights):
                findings += [finding async for finding in check(conn, found)]
            findings += await _check_contents(conn, found)
    except DatabaseUnusable as error:
        findings.append(fail("database", str(error), "correct EDGE_DATABASE_URL, or what the server allows"))
    except Exception as error:
        if not is_retryable(error):
            raise
        advice = "start it, or the way to it; until then redirects go on and the journal fills"
        findings.append(fail("database", f"it does not answer: {error or type(error).__name__}", advice))
    return findings


async def _check_contents(conn: Connection, found: Installation) -> list[Finding]:
    """What only a migrated database can be asked."""
    try:
        missing = await find_missing(conn)
    except DatabaseUnusable as error:
        return [fail("migrations", str(error), "run the release that this database belongs to")]
    if missing:
        said = f"{len(missing)} are not applied, from {missing[0]} on"
        if found.is_running:
            return [fail("migrations", said, "restart serve: it applies them at its start")]
        return [warn("migrations", said, "serve applies them at its next start; the rest was not looked at")]
    findings = [ok("migrations", "all applied")]
    for check in (
        check_partitions,
        check_lease,
        check_journals,
        check_stalled,
        check_burdens,
        check_leftovers,
        check_zone,
        check_backup,
    ):
        findings += [finding async for finding in check(conn, found)]
    return findings


async def check_server(conn: Connection, found: Installation) -> AsyncIterator[Finding]:
    """Version, distance, and the settings that decide whether a commit is one."""
    said = await inspection.ask_settings(conn)
    latency_s = await inspection.measure_latency_s(conn)
    burdens = await inspection.ask_burdens(conn)
    line = f"PostgreSQL {said['server_version']}, answers in {latency_s * 1000:.2f} ms"
    if latency_s > SLOW_ANSWER_S:
        yield warn(
            "database", f"{line}: the drain waits for many answers a batch", "bring it nearer, or raise EDGE_DRAINS"
        )
    else:
        yield ok("database", line)
    for name in ("fsync", "full_page_writes"):
        if said[name] != "on":
            yield fail(
                "database", f"{name} is off: a power cut can destroy the database", f"set {name} = on and reload it"
            )
    if said["synchronous_commit"] == "off":
        yield warn(
            "database",
            "synchronous_commit is off: a power cut loses commits whose journal may be deleted already",
            "set it to on; the drain commits a few times a second and does not need it off",
        )
    if said["autovacuum"] != "on":
        yield warn("database", "autovacuum is off: tables grow and slow down", "set autovacuum = on")
    if burdens.is_replica or said["default_transaction_read_only"] == "on":
        yield fail("database", "it takes no writes (a replica, or read only by default)", "give the primary's address")
    free = int(said["max_connections"]) - int(said["superuser_reserved_connections"]) - burdens.connections
    needed = 0 if found.is_running else CONNECTIONS_OF_A_NODE + found.settings.drains
    if free < max(needed, 5):
        yield warn(
            "database", f"{free} more connections fit", "raise max_connections: a node takes about 20 and its drains"
        )


async def check_clock(conn: Connection, found: Installation) -> AsyncIterator[Finding]:
    """Ours against the server's."""
    ahead_s = await inspection.measure_clock_s(conn)
    said = f"the database's is {abs(ahead_s):.3f} s {'ahead of' if ahead_s > 0 else 'behind'} ours"
    advice = "let NTP keep both: windows, caps and reports mix times of the two"
    if abs(ahead_s) > CLOCK_FAILURE_S:
        yield fail("clock", said, advice)
    elif abs(ahead_s) > CLOCK_WARNING_S:
        yield warn("clock", said, advice)
    else:
        yield ok("clock", said)


async def check_rights(conn: Connection, found: Installation) -> AsyncIterator[Finding]:
    """Migrations and partitions need tables of one's own."""
    rights = await inspection.ask_rights(conn)
    if not rights.can_create:
        advice = f"GRANT CREATE ON SCHEMA public TO {rights.role}, better: let it own the database"
        yield fail("rights", f"{rights.role} may make no tables in the schema public", advice)
    elif rights.unowned:
        some = ", ".join(rights.unowned[:_SHOWN])
        yield fail(
            "rights", f"{len(rights.unowned)} tables are another role's: {some}", f"REASSIGN OWNED … TO {rights.role}"
        )
    else:
        yield ok("rights", f"{rights.role} owns the tables and may make more")


async def check_partitions(conn: Connection, found: Installation) -> AsyncIterator[Finding]:
    """Made by the drain, a week ahead."""
    today = datetime.now(UTC).date()
    days = [today + timedelta(days=ahead) for ahead in range(PARTITIONS_AHEAD_DAYS + 1)]
    missing = await inspection.missing_partitions(conn, days)
    now = [name for name in missing if name.endswith((f"{today:%Y%m%d}", f"{today + timedelta(days=1):%Y%m%d}"))]
    if not missing:
        yield ok("partitions", f"there for today and the next {PARTITIONS_AHEAD_DAYS} days")
    elif not found.is_running:
        yield warn("partitions", f"{len(missing)} of the next days are missing", "start serve: its drain makes them")
    else:
        finding = fail if now else warn
        advice = "the drain makes them every 10 s: see its log for why it cannot"
        yield finding(
            "partitions",
            f"missing: {', '.join(missing[:_SHOWN])} and later" if now else f"{len(missing)} missing",
            advice,
        )


async def check_lease(conn: Connection, found: Installation) -> AsyncIterator[Finding]:
    """The node id is this data dir's, and the secret is the one that its clicks were signed with."""
    settings = found.settings
    lease = await inspection.ask_lease(conn, settings.node_id, secret_prints(_with_stored_secret(settings)))
    mine = _data_dir_id(settings.data_path)
    if lease is None:
        yield ok("node lease", f"node id {settings.node_id} is free")
    elif lease.data_dir_id != mine:
        yield fail(
            "node lease",
            f"node id {settings.node_id} is leased to another data dir (last started {lease.leased_at:%Y-%m-%d %H:%M} UTC)",
            "give this machine an EDGE_NODE_ID of its own; if the other is gone for good:"
            f" DELETE FROM nodes WHERE node_id = {settings.node_id}",
        )
    elif not lease.has_secret_in_common:
        advice = "put the former one behind the new: EDGE_SECRET=new,former"
        yield fail("node lease", "the secret is another one: ids of earlier clicks count as forged", advice)
    else:
        yield ok("node lease", f"node id {settings.node_id} is this data dir's")


async def check_journals(conn: Connection, found: Installation) -> AsyncIterator[Finding]:
    """Journals that the database waits for, and nobody has; those that came through a stream: `check_stalled`."""
    present = [journal.journal_id for journal in list_journals(found.data_dir / "journal")]
    lost = await inspection.lost_journals(conn, found.settings.node_id, present)
    if lost:
        yield warn(
            "positions",
            f"{len(lost)} journals of this node are not wholly stored and not on this disk, such as {lost[0].hex}:"
            " conversions whose click may be in them wait for EDGE_CONVERSION_WAIT",
            "put them back; if they are lost: UPDATE journal_positions SET finished_at = now()"
            f" WHERE node_id = {found.settings.node_id} AND journal_id = '{lost[0]}'",
        )
    else:
        yield ok("positions", "every journal that is not wholly stored is on this disk")


async def check_burdens(conn: Connection, found: Installation) -> AsyncIterator[Finding]:
    """Transactions that hold back vacuum, and how far the ids of transactions have come."""
    burdens = await inspection.ask_burdens(conn)
    old_s = max(burdens.oldest_transaction_s, burdens.prepared_s)
    if old_s > OLD_TRANSACTION_S:
        who = burdens.oldest_transaction_of or "a prepared one"
        yield warn("transactions", f"one is open for {format_duration(old_s)}: {who}", "end it: tables grow meanwhile")
    elif burdens.frozen_age > FROZEN_AGE:
        yield fail(
            "transactions", f"{burdens.frozen_age:,} old ones are not frozen", "run VACUUM FREEZE before 2 billion"
        )
    else:
        yield ok("transactions", "none is open for long")


async def check_leftovers(conn: Connection, found: Installation) -> AsyncIterator[Finding]:
    """Quarantine, conversions that wait, postbacks that were given up."""
    health = await measure_health(conn)
    if health.quarantined:
        yield warn(
            "quarantine",
            f"{health.quarantined} records",
            "SELECT journal_id, segment, byte_offset, error FROM quarantine",
        )
    else:
        yield ok("quarantine", "empty")
    line = f"{health.postbacks_pending} pending, {health.postbacks_dead} given up"
    if health.postbacks_dead or health.postbacks_oldest_s > OLD_POSTBACK_S:
        yield warn("postbacks", line, "clickedge postback list --failed")
    else:
        yield ok("postbacks", line)
    yield ok(
        "contents",
        f"{format_bytes(health.database_bytes)}, {health.conversions_waiting} conversions wait for their click",
    )


async def check_zone(conn: Connection, found: Installation) -> AsyncIterator[Finding]:
    """The same days everywhere."""
    zone = found.settings.timezone
    kept = await recall(conn, "timezone", zone)
    if not await inspection.knows_zone(conn, zone):
        yield fail("time zones", f"the database does not know {zone}", "install time zones there, or name another")
    elif kept != zone:
        advice = "set EDGE_TIMEZONE alike on all machines: the last to start wins, and days move"
        yield warn("time zones", f"EDGE_TIMEZONE is {zone}, the database's last node had {kept}", advice)
    else:
        yield ok("time zones", f"the database's days begin in {zone} too")


async def check_backup(conn: Connection, found: Installation) -> AsyncIterator[Finding]:
    """Whether the journal still holds what came after the last backup."""
    last, keep_s = await inspection.ask_backup(conn), found.settings.journal_keep_s
    if last is None and not found.settings.database_url:
        yield warn("backup", "none by clickedge backup is known", "clickedge backup FILE, by cron, to another disk")
        return
    if last is None:
        yield ok("backup", f"not known here: make them more often than EDGE_JOURNAL_KEEP ({format_duration(keep_s)})")
        return
    age_s = max(0.0, time.time() - last.timestamp())
    said = f"the last is {format_duration(age_s)} old, drained journals are kept for {format_duration(keep_s)}"
    if age_s > keep_s:
        yield warn(
            "backup", f"{said}: a restore would miss the difference", "back up more often, or raise EDGE_JOURNAL_KEEP"
        )
    else:
        yield ok("backup", said)


def _with_stored_secret(settings: Settings) -> Settings:
    """With the generated secret, where none is given; without any where that cannot be read."""
    if settings.secrets:
        return settings
    try:
        return replace(settings, secrets=parse_secrets((settings.data_path / SECRET_FILE).read_text("ascii").strip()))
    except (OSError, ValueError):
        return settings


def _data_dir_id(data_dir: Path) -> UUID | None:
    try:
        return UUID((data_dir / NODE_FILE).read_text("ascii").strip())
    except (OSError, ValueError):
        return None
