"""`<data dir>/erasures`: what was erased, beside the database, so that a backup of the database does not bring it back.

One line an erasure, only ever appended: kind, prefix, hash, until (ISO 8601), the click's day or -, `asked` or `derived`.
A line that a crash tore is none. It holds hashes only, as the table does. `erasures.again` is there while a database is
brought up to it: what it has by then says nothing of whether the rows are gone.
"""

import os
from collections.abc import Iterable, Sequence
from datetime import date, datetime
from pathlib import Path

import structlog

from edge.erasing_again import erase_again
from storage.files import sync_directory
from storage.postgres.connection import Connection
from storage.postgres.erasures import Erasure, count_erasures, erasure_version, load_erasures

FILE = "erasures"
BEGUN = "erasures.again"
log = structlog.get_logger()


class TombstoneFile:
    """The file of one node; the node's first drain keeps it."""

    def __init__(self, data_dir: Path, secrets: Sequence[str]) -> None:
        self._path = data_dir / FILE
        self._begun = data_dir / BEGUN
        self._secrets = secrets
        self._version = (-1, 0)
        self._known: dict[tuple[str, bytes, int], Erasure] = {}

    async def restore(self, conn: Connection) -> None:
        """Erase again what the file knows and the database does not: it is older than that erasure."""
        self._known = _read(self._path)
        self._version = (-1, 0)
        stored = {row[:3]: row.until for row in await load_erasures(conn, clicks=True)}
        is_cut_off = self._begun.exists()
        missing = [row for key, row in self._known.items() if is_cut_off or key not in stored or stored[key] < row.until]
        if missing:
            log.warning("erasing_again", erasures=len(missing), hint="this database is older than they are")
            self._begun.touch(0o600)
            sync_directory(self._begun.parent)
            rows = await erase_again(conn, missing, self._secrets)
            self._begun.unlink(missing_ok=True)
            log.info("erased_again", erasures=len(missing), rows=sum(rows.values()))
        await self.follow(conn)

    async def follow(self, conn: Connection) -> None:
        """Take down what was erased since."""
        # Both: one that began earlier may be committed later, and its number is no news then.
        version = await erasure_version(conn), await count_erasures(conn)
        if version == self._version:
            return
        rows = await load_erasures(conn, clicks=True)
        fresh = [row for row in rows if row[:3] not in self._known or self._known[row[:3]].until < row.until]
        if fresh:
            _append(self._path, fresh)
            self._known.update((row[:3], row) for row in fresh)
        self._version = version


def _read(path: Path) -> dict[tuple[str, bytes, int], Erasure]:
    try:
        lines = path.read_text(encoding="ascii", errors="replace").splitlines()
    except FileNotFoundError:
        return {}
    rows = sorted(filter(None, map(_parse, lines)), key=lambda row: row.until)
    return {row[:3]: row for row in rows}


def _parse(line: str) -> Erasure | None:
    try:
        kind, prefix, value_hash, until, day, how = line.split(" ")
        id_day = None if day == "-" else date.fromisoformat(day)
        return Erasure(
            kind, bytes.fromhex(value_hash), int(prefix), datetime.fromisoformat(until), id_day, how == "derived", "file"
        )
    except ValueError:
        return None


def _append(path: Path, rows: Iterable[Erasure]) -> None:
    """In front of a torn line's rest comes a line's end, so that it spoils no other."""
    lines = [
        f"{row.kind} {row.prefix} {row.value_hash.hex()} {row.until.isoformat()} {row.id_day or '-'}"
        f" {'derived' if row.is_derived else 'asked'}\n"
        for row in rows
    ]
    is_new = not path.exists()
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "w", encoding="ascii") as file:
        file.write("" if is_new else "\n")
        file.writelines(lines)
        file.flush()
        os.fsync(file.fileno())
    if is_new:
        sync_directory(path.parent)
