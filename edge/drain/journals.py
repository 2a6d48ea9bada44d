"""The journals of this node as the drain follows them: found, registered, read in turn, marked and at last deleted."""

import math
import time
from collections.abc import Iterator
from uuid import UUID

import structlog

from edge.settings import Settings
from storage.journal.reader import Batch, JournalReader
from storage.journal.retention import delete_expired, keep_from, mark_drained, sweep_unborn
from storage.journal.segments import Journal, Position, list_journals
from storage.postgres.connection import Connection
from storage.postgres.positions import finish, read, register, unfinished_segments

log = structlog.get_logger()

MAX_BATCH_BYTES = 16 * 2**20


class Feed:
    """One journal being read. `position`: what Postgres has; `reader` may be ahead of it only within a batch."""

    def __init__(self, journal: Journal, position: Position) -> None:
        self.journal = journal
        self.position = position
        self.reader = JournalReader(journal.path, position)
        self.is_behind = False
        """Whether the last batch was a full one: more is waiting."""
        self.through_ms = 0
        """Unix milliseconds up to which this journal's events are stored."""

    @property
    def journal_id(self) -> UUID:
        return self.journal.journal_id

    def read(self, max_records: int) -> Batch:
        """The next batch from `position` on."""
        return self.reader.read(max_records, MAX_BATCH_BYTES)

    def commit(self, end: Position) -> None:
        """Everything up to `end` is in Postgres; segments left behind are marked as drained."""
        if end.segment > self.position.segment:
            mark_drained(self.journal.path, end.segment - 1, now_s=time.time())
        self.position = end

    def rewind(self, position: Position) -> None:
        """Read again from what Postgres has."""
        self.position = position
        self.reader.seek(position)


class JournalFeeds:
    """All journals that one drain owns: those of every `drains`-th worker."""

    def __init__(self, settings: Settings, slot: int) -> None:
        self.root = settings.data_path / "journal"
        self._settings = settings
        self._slot = slot
        self._feeds: dict[UUID, Feed] = {}
        self._finished: set[UUID] = set()
        self._others: set[UUID] = set()
        self._shipped: set[UUID] = set()
        """Those whose events go to a stream: they are the shipper's."""

    def __iter__(self) -> Iterator[Feed]:
        return iter(list(self._feeds.values()))

    async def discover(self, conn: Connection) -> None:
        """Take in journals that have appeared. All of the node are registered at once, whoever drains them."""
        new = [journal for journal in list_journals(self.root) if self._is_new(journal)]
        self._shipped |= {journal.journal_id for journal in new if journal.partitions}
        found = [journal for journal in new if not journal.partitions]
        if not found:
            return
        await register(conn, [(journal.journal_id, journal.node_id, journal.worker_id) for journal in found])
        # After a restore from a backup: any drain may delete what is old, those of the others too.
        behind = await unfinished_segments(conn, [journal.journal_id for journal in found])
        for journal in found:
            if journal.journal_id in behind:
                keep_from(journal.path, behind[journal.journal_id], now_s=time.time())
        for journal in found:
            if journal.worker_id % self._settings.drains != self._slot:
                # Not read: that would wait, again and again, for the end of the other drain's transaction.
                self._others.add(journal.journal_id)
                continue
            stored = await read(conn, journal.journal_id)
            # Again what a process that died after its commit did not come to: else the segments count as undrained.
            through = stored.segment if stored.is_finished else stored.segment - 1
            mark_drained(journal.path, through, now_s=time.time())
            if stored.is_finished:
                self._finished.add(journal.journal_id)
            else:
                self._feeds[journal.journal_id] = Feed(journal, Position(stored.segment, stored.byte_offset))

    async def end(self, conn: Connection, feed: Feed) -> None:
        """The feed's journal is wholly stored and its writer gone."""
        await finish(conn, feed.journal_id, feed.position)
        mark_drained(feed.journal.path, feed.position.segment, now_s=time.time())
        feed.reader.close()
        del self._feeds[feed.journal_id]
        self._finished.add(feed.journal_id)
        log.info("journal_finished", journal=feed.journal_id.hex, worker=feed.journal.worker_id)

    def forget_all(self) -> None:
        """Close everything: after a lost connection each journal's position is read again."""
        for feed in self._feeds.values():
            feed.reader.close()
        self._feeds.clear()
        self._finished.clear()
        self._others.clear()

    def delete_expired(self) -> None:
        """Give back the disk of what was drained long enough ago."""
        for feed in self._feeds.values():
            keep_from(feed.journal.path, feed.position.segment, now_s=time.time())
        self._delete(self._settings.journal_keep_s)
        sweep_unborn(self.root, time.time())
        present = {journal.journal_id for journal in list_journals(self.root)}
        self._finished &= present
        self._others &= present
        self._shipped &= present

    def make_room(self) -> None:
        """While the database is away: of what it is known to have, only what is too much beside the undrained."""
        self._delete(math.inf)

    def _delete(self, keep_s: float) -> None:
        stored_before: dict[UUID, float] = {feed.journal_id: feed.position.segment for feed in self._feeds.values()}
        stored_before |= dict.fromkeys(self._finished, math.inf)
        # A shipped journal's segments are the shipper's to mark, but who sees none left may take its directory away.
        ended = self._finished | self._shipped
        delete_expired(self.root, time.time(), keep_s, self._settings.journal_max_bytes, ended, stored_before)

    def _is_new(self, journal: Journal) -> bool:
        # Whatever node id it was written under: the data dir is ours alone, and its answers were given.
        return not any(journal.journal_id in known for known in (self._feeds, self._finished, self._others, self._shipped))
