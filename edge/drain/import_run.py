"""One file imported: opened, its columns guessed, its rows taken in by batches, refused ones written beside it, counted.

Command, API and console share this. A file is read again from its beginning after whatever broke a run off: what is
stored already is known, so nothing is there twice.
"""

import asyncio
import csv
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import IO, Any, NamedTuple, Self

import msgspec

from edge.drain.takers import Fate, Outcome, Plan, Taker, make_taker
from edge.errors import UserError
from edge.imports.columns import VENDOR_NAMES, Columns, find_columns
from edge.imports.cost_rows import feed_of
from edge.imports.table_file import Row, TableFile
from edge.imports.values import Calendar, ValueFault, find_order, first_texts, is_ambiguous
from edge.settings import Settings
from storage.postgres.connection import Connection
from storage.postgres.import_runs import (
    Progress,
    create_run,
    find_same_file,
    finish_run,
    note_progress,
    start_run,
)

BATCH_ROWS = 500
SAMPLE_ROWS = 1000
MAX_EXAMPLES = 20
_EXAMPLE_CHARS = 500
_BROKEN_OFF = "it was broken off: the same file can be imported again"
_DATE_FIELDS = ("datetime", "day", "signed_up_at")
_SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}


class Preview(NamedTuple):
    """What a file is taken for, before anything is stored. `columns`: each field and what it is taken from."""

    kind: str
    form: str
    separator: str
    columns: dict[str, str]
    unused: tuple[str, ...]
    date_order: str
    feed: str
    rows: list[dict[str, str]]
    """The first rows, by field."""


class Report(msgspec.Struct):
    """How far a run is, and what became of the rows. `examples`: of what was not simply stored."""

    import_id: int = 0
    size_bytes: int = 0
    read_bytes: int = 0
    sha256: str = ""
    counts: dict[Fate, int] = {}
    examples: list[dict[str, Any]] = []
    rejects: str = ""
    same_as: int | None = None
    """An earlier run that read this very file."""

    def count(self, fate: Fate) -> int:
        """So many rows met that fate."""
        return self.counts.get(fate, 0)


class Source(NamedTuple):
    """The file. `name`: as the user knows it; `rejects`: where refused rows are written, each with line and reason."""

    path: Path
    name: str
    rejects: Path


def _ignore(_: Any) -> None:
    """Nobody asked."""


class _Opened(NamedTuple):
    file: TableFile
    rows: Iterator[Row]
    columns: Columns
    calendar: Calendar
    preview: Preview


async def run_import(
    conn: Connection,
    settings: Settings,
    source: Source,
    plan: Plan,
    *,
    import_id: int = 0,
    on_preview: Callable[[Preview], None] = _ignore,
    on_progress: Callable[[Report], None] = _ignore,
) -> Report:
    """Import a file on a connection that nobody else uses. UserError before anything is stored, or where it stopped.

    `import_id`: a run that `create_run` has made; 0: one is made here, unless it is a dry run.
    """
    opened = await asyncio.to_thread(_open, source, plan)
    try:
        on_preview(opened.preview)
        plan = msgspec.structs.replace(plan, feed=opened.preview.feed)
        report = Report(import_id, opened.file.size_bytes, rejects=str(source.rejects))
        if plan.dry_run and not import_id:
            return await _read_all(conn, settings, source, plan, opened, report, on_progress)
        said = _preview_of(opened.preview)
        if not report.import_id:
            report.import_id = await create_run(conn, plan.kind, source.name, report.size_bytes, plan.actor, said)
        await start_run(conn, report.import_id, report.size_bytes, said)
        work = _read_all(conn, settings, source, plan, opened, report, on_progress)
        return await _recorded(conn, report, work, is_rehearsal=plan.dry_run, is_begun_again=bool(import_id))
    finally:
        opened.file.close()


async def preview_file(source: Source, plan: Plan) -> Preview:
    """What a file would be taken for; UserError where it cannot be told."""
    opened = await asyncio.to_thread(_open, source, plan)
    opened.file.close()
    return opened.preview


async def _recorded(
    conn: Connection, report: Report, work: Any, *, is_rehearsal: bool, is_begun_again: bool
) -> Report:
    """The run's end is written down, whatever it is.

    `is_begun_again`: a file that is kept until its run is over, so that one broken off is left as if it had been killed.
    """
    try:
        done: Report = await work
    except (Exception, asyncio.CancelledError) as error:
        is_broken_off = isinstance(error, asyncio.CancelledError)
        if not conn.is_closed() and not (is_broken_off and is_begun_again):
            text = _BROKEN_OFF if is_broken_off else str(error) or type(error).__name__
            await finish_run(conn, report.import_id, error=text[:1000])
        raise
    await finish_run(conn, report.import_id, sha256="" if is_rehearsal else report.sha256)
    return done


def _preview_of(preview: Preview) -> dict[str, Any]:
    """The preview as it is kept with the run."""
    shown = [{field: text[:_EXAMPLE_CHARS] for field, text in row.items()} for row in preview.rows]
    return {**preview._asdict(), "unused": list(preview.unused), "rows": shown}


async def _read_all(
    conn: Connection,
    settings: Settings,
    source: Source,
    plan: Plan,
    opened: _Opened,
    report: Report,
    on_progress: Callable[[Report], None],
) -> Report:
    taker: Taker[Any] = make_taker(settings, plan, report.import_id)
    await taker.begin(conn)
    with Rejects(source, opened.columns.header) as rejects:
        while True:
            rows, refused, is_end = await asyncio.to_thread(_read_batch, opened, taker)
            outcomes = [*refused, *await taker.take(conn, rows)] if rows else refused
            _count(report, rejects, outcomes)
            report.read_bytes = opened.file.read_bytes
            if is_end:
                break
            await _note(conn, report, plan)
            on_progress(report)
        _count(report, rejects, await taker.finish(conn))
    report.sha256 = opened.file.sha256
    report.same_as = await find_same_file(conn, plan.kind, report.sha256, report.import_id or None)
    await _note(conn, report, plan)
    on_progress(report)
    return report


async def _note(conn: Connection, report: Report, plan: Plan) -> None:
    if report.import_id:
        progress = Progress(
            report.read_bytes, {str(fate): rows for fate, rows in report.counts.items()}, report.examples
        )
        await note_progress(conn, report.import_id, progress)


def _read_batch(opened: _Opened, taker: Taker[Any]) -> tuple[list[Any], list[Outcome], bool]:
    """Rows to be taken in, refused ones, and whether this is the end."""
    rows, refused = [], []
    taken = list(islice(opened.rows, BATCH_ROWS))
    for row in taken:
        if row.fault:
            refused.append(Outcome("rejected", row.line, row.values, row.fault))
            continue
        if len(row.values) > len(opened.columns.header) and any(row.values[len(opened.columns.header) :]):
            text = f"it has {len(row.values)} values, and the header {len(opened.columns.header)}"
            refused.append(Outcome("rejected", row.line, row.values, text))
            continue
        try:
            rows.append(taker.read(row.line, row.values, opened.columns, opened.calendar))
        except ValueFault as fault:
            refused.append(Outcome("rejected", row.line, row.values, str(fault)))
    return rows, refused, len(taken) < BATCH_ROWS


def _count(report: Report, rejects: "Rejects", outcomes: Sequence[Outcome]) -> None:
    for one in outcomes:
        report.counts[one.fate] = report.counts.get(one.fate, 0) + one.rows
        if one.fate == "rejected":
            rejects.add(one)
        if one.text and len(report.examples) < MAX_EXAMPLES:
            row = ", ".join(one.values)[:_EXAMPLE_CHARS]
            report.examples.append({"line": one.line, "fate": one.fate, "reason": one.text, "row": row})


def _open(source: Source, plan: Plan) -> _Opened:
    file = TableFile(source.path, source.name)
    try:
        columns = find_columns(plan.kind, file.header, plan.mapped, plan.constants, plan.vendor)
        rows = file.rows()
        sample = list(islice(rows, SAMPLE_ROWS))
        values = [row.values for row in sample if not row.fault]
        calendar = _calendar_of(columns, values, plan)
        preview = Preview(
            plan.kind,
            VENDOR_NAMES[columns.vendor],
            _SEPARATORS[file.delimiter],
            columns.described(),
            () if plan.kind == "contacts" else tuple(columns.unused.values()),
            calendar.order,
            (plan.feed or feed_of(source.name)) if plan.kind == "costs" else "",
            [columns.values(one) for one in values[:3]],
        )
    except BaseException:
        file.close()
        raise
    return _Opened(file, _chain(sample, rows), columns, calendar, preview)


def _chain(sample: list[Row], rows: Iterator[Row]) -> Iterator[Row]:
    """The sample, given back, then what follows."""
    while sample:
        yield sample.pop(0)
    yield from rows


def _calendar_of(columns: Columns, sample: Sequence[Sequence[str]], plan: Plan) -> Calendar:
    """How the file's dates are read: as the user says, or as some of them show. UserError where none shows it."""
    place = next((columns.places[field] for field in _DATE_FIELDS if field in columns.places), None)
    if plan.date_format or place is None:
        return Calendar(plan.zone, plan.date_format)
    texts = first_texts(sample, place)
    try:
        order = find_order(texts)
    except ValueFault as fault:
        raise UserError(str(fault)) from fault
    unclear = next((text for text in texts if is_ambiguous(text)), "") if not order else ""
    if unclear:
        raise UserError(
            f"the dates may name the day or the month first, as {unclear!r} does:"
            " say --date-format, such as %m/%d/%Y or %d/%m/%Y (with a time: %m/%d/%Y %H:%M:%S)"
        )
    return Calendar(plan.zone, "", order)


class Rejects:
    """Refused rows as they were, each with its line and the reason; the file is made with the first of them.

    It can be corrected and imported: those two columns are passed over.
    """

    def __init__(self, source: Source, header: Sequence[str]) -> None:
        """A file left by an earlier run is removed: it speaks of that run. Never the file that is read itself."""
        self._path = source.rejects
        self._file: IO[str] | None = None
        self._header = list(header[2:] if [name.lower() for name in header[:2]] == ["line", "reason"] else header)
        self._skip = len(header) - len(self._header)
        try:
            if self._path.exists() and self._path.samefile(source.path):
                raise UserError(f"{self._path} is the file to be imported: say another --rejects")
            self._path.unlink(missing_ok=True)
        except OSError as error:
            raise UserError(f"cannot replace {self._path}: {error.strerror}") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file is not None:
            self._file.close()

    def add(self, one: Outcome) -> None:
        """Keep one; UserError if it cannot be written."""
        try:
            if self._file is None:
                self._file = self._path.open("w", encoding="utf-8", newline="", errors="replace")
                csv.writer(self._file).writerow(["line", "reason", *self._header])
            csv.writer(self._file).writerow([one.line, one.text, *one.values[self._skip :]])
        except OSError as error:
            raise UserError(f"cannot write {self._path}: {error.strerror}") from error
