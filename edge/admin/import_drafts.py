"""Uploaded files that wait for somebody to say what their columns are: kept beside the queue's, for a day.

D1  A draft is `<id>.draft` with `<id>.order`, which is written last and replaced as a whole: without it there is no draft.
D2  A dry run reads the same file under a second name; the import itself takes the file, and the draft is gone.
"""

import asyncio
import os
import re
from collections.abc import AsyncIterator
from itertools import islice
from pathlib import Path
from typing import NamedTuple
from uuid import uuid4

import msgspec

from edge.admin.import_queue import ImportQueue, Order, plan_of
from edge.drain.import_run import Preview, Source, preview_file
from edge.errors import UserError
from edge.imports.table_file import TableFile
from edge.settings import Settings
from storage.postgres.connection import Connection

SHOWN_ROWS = 5
_ID = re.compile(r"[0-9a-f]{32}", re.ASCII)


class Look(NamedTuple):
    """A file as it stands there, and what it is taken for; `fault`: why that cannot be told."""

    header: list[str]
    rows: list[list[str]]
    preview: Preview | None
    fault: str


class Drafts:
    """The files that are kept for the console."""

    def __init__(self, queue: ImportQueue, settings: Settings) -> None:
        """`queue`: who imports them in the end."""
        self._queue = queue
        self._settings = settings

    async def keep(self, order: Order, body: AsyncIterator[bytes]) -> str:
        """Keep a file; its draft's id. NoRoom; UserError if it is empty or no table."""
        await asyncio.to_thread(self._queue.forget_old)
        draft = uuid4().hex
        part = self._path(draft).with_suffix(".part")
        try:
            if not await self._queue.keep(part, body):
                raise UserError("the file is empty")
            await asyncio.to_thread(_read_start, part, order.file_name)
            part.rename(self._path(draft))
        finally:
            part.unlink(missing_ok=True)
        await asyncio.to_thread(self.save, msgspec.structs.replace(order, draft=draft))
        return draft

    def find(self, draft: str) -> Order | None:
        """What is to be done with it, as far as is known; None: there is no such draft."""
        if not _ID.fullmatch(draft) or not self._path(draft).is_file():
            return None
        try:
            return msgspec.json.decode(self._path(draft).with_suffix(".order").read_bytes(), type=Order)
        except (OSError, msgspec.MsgspecError):
            return None

    def save(self, order: Order) -> None:
        """Remember what is to be done with its draft."""
        path = self._path(order.draft)
        new = path.with_suffix(f".{uuid4().hex[:8]}.part")
        new.write_bytes(msgspec.json.encode(order))
        new.replace(path.with_suffix(".order"))

    async def look(self, conn: Connection, order: Order) -> Look:
        """The file's first rows, and how they are read. UserError if it is there no more."""
        path = self._path(order.draft)
        header, rows = await asyncio.to_thread(_read_start, path, order.file_name)
        try:
            plan = await plan_of(conn, order, self._settings)
            preview = await preview_file(Source(path, order.file_name, path), plan)
        except UserError as error:
            return Look(header, rows, None, str(error))
        return Look(header, rows, preview, "")

    async def submit(self, conn: Connection, order: Order) -> int:
        """Have it imported in its turn, or rehearsed; the run's id."""
        path = self._path(order.draft)
        if not order.dry_run:
            import_id = await self._queue.submit_file(conn, order, path)
            path.with_suffix(".order").unlink(missing_ok=True)
            return import_id
        twin = path.with_name(f"{uuid4().hex}.part")
        try:
            os.link(path, twin)
            return await self._queue.submit_file(conn, order, twin)
        finally:
            twin.unlink(missing_ok=True)

    def discard(self, draft: str) -> None:
        """Throw it away."""
        for path in (self._path(draft), self._path(draft).with_suffix(".order")):
            path.unlink(missing_ok=True)

    def _path(self, draft: str) -> Path:
        return self._queue.folder / f"{draft}.draft"


def _read_start(path: Path, name: str) -> tuple[list[str], list[list[str]]]:
    """The header and the first rows. UserError if it is no table."""
    file = TableFile(path, name)
    try:
        return list(file.header), [row.values for row in islice(file.rows(), SHOWN_ROWS)]
    finally:
        file.close()
