"""`clickedge journal`: look into journals, living or left behind, without changing them."""

import sys
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import click
import msgspec

from edge.errors import UserError
from storage.journal import events
from storage.journal.framing import Record
from storage.journal.reader import Batch, Damaged, JournalReader
from storage.journal.segments import (
    Journal,
    Position,
    is_alive,
    list_journals,
    list_segments,
    parse_journal_name,
    read_journal,
)

_BATCH_RECORDS = 10_000
_BATCH_BYTES = 8 * 1024 * 1024
_DIRECTORY = click.argument("directory", metavar="DIR", type=click.Path(path_type=Path))


class Findings(msgspec.Struct):
    """What one journal holds. Times in Unix milliseconds; `undecodable`: valid frames that hold no event."""

    segments: int = 0
    kinds: Counter[str] = msgspec.field(default_factory=Counter)
    first_ms: int | None = None
    last_ms: int | None = None
    undecodable: int = 0
    damaged: list[Damaged] = []
    torn_bytes: int = 0

    def is_clean(self) -> bool:
        """Whether every record can be read; a torn tail is a journal's ordinary end."""
        return not self.damaged and not self.undecodable


@click.group()
def journal() -> None:
    """Look into the write-ahead journal (DIR: a data dir, its journal dir, or one journal)."""


@journal.command()
@_DIRECTORY
@click.option("--records", "with_records", is_flag=True, help="Print every event as one line of JSON.")
def inspect(directory: Path, *, with_records: bool) -> None:
    """Print what each journal holds."""
    journals = _find_journals(directory)
    if not journals:
        click.echo(f"no journal in {directory}", err=with_records)
    for found in journals:
        findings = _examine(found, with_records=with_records)
        click.echo("\n".join(_describe_findings(found, findings)), err=with_records)


@journal.command()
@_DIRECTORY
def verify(directory: Path) -> None:
    """Check every record; exit code 1 if any is damaged."""
    journals = _find_journals(directory)
    unclean = 0
    for found in journals:
        findings = _examine(found, with_records=False)
        unclean += not findings.is_clean()
        click.echo(f"{found.journal_id.hex}: {_describe_health(findings)}")
    click.echo(f"{len(journals)} journals, {unclean} with damage")
    sys.exit(1 if unclean else 0)


def _find_journals(directory: Path) -> list[Journal]:
    if not directory.is_dir():
        raise UserError(f"{directory} is no directory; give a data dir, its journal dir, or one journal")
    if parse_journal_name(directory.resolve()):
        return [read_journal(directory.resolve())]
    inner = directory / "journal"
    return list_journals(inner if inner.is_dir() else directory)


def _examine(found: Journal, *, with_records: bool) -> Findings:
    segments = list_segments(found.path)
    findings = Findings(segments=len(segments))
    for batch in _read_batches(found.path, segments[0].number if segments else 1):
        findings.damaged += [_drop_bytes(damaged) for damaged in batch.damaged]
        findings.torn_bytes = batch.torn_bytes
        for record in batch.records:
            _count(findings, record, with_records=with_records)
    return findings


def _read_batches(directory: Path, first_segment: int) -> Iterator[Batch]:
    """Everything there is now: a living journal is not waited for. Segments deleted after draining are not missed."""
    reader = JournalReader(directory, Position(first_segment, 0))
    try:
        while True:
            batch = reader.read(_BATCH_RECORDS, _BATCH_BYTES)
            yield batch
            if not batch.records and not batch.damaged:
                return
    finally:
        reader.close()


def _drop_bytes(damaged: Damaged) -> Damaged:
    return msgspec.structs.replace(damaged, raw=b"")


def _count(findings: Findings, record: Record, *, with_records: bool) -> None:
    try:
        event = events.decode(record.payload)
        at_ms = _get_time(event)
        fields = _describe_event(event) if with_records else None
    except msgspec.DecodeError:
        findings.undecodable += 1
        return
    findings.kinds[type(event).__name__.lower()] += 1
    findings.first_ms = at_ms if findings.first_ms is None else min(findings.first_ms, at_ms)
    findings.last_ms = at_ms if findings.last_ms is None else max(findings.last_ms, at_ms)
    if fields is not None:
        place = {"segment": record.segment, "byte_offset": record.byte_offset}
        click.echo(msgspec.json.encode(place | fields))


def _get_time(event: events.Event) -> int:
    match event:
        case events.Heartbeat():
            return event.ms
        case events.Conversion():
            return event.received_ms
        case _:
            return int.from_bytes(event.session.click_id[:6], "big")


def _describe_event(event: events.Event | events.Session) -> dict[str, object]:
    kind = {} if isinstance(event, events.Session) else {"kind": type(event).__name__.lower()}
    return kind | {name: _describe_value(value) for name, value in msgspec.structs.asdict(event).items()}


def _describe_value(value: object) -> object:
    if isinstance(value, events.Session):
        return _describe_event(value)
    return value.hex() if isinstance(value, bytes) else value


def _describe_findings(found: Journal, findings: Findings) -> Iterator[str]:
    state = "being written" if is_alive(found.path) else "ended"
    yield f"journal {found.journal_id.hex}  node {found.node_id}  worker {found.worker_id}  {state}"
    yield f"  created   {_format_time(found.created_ms)}"
    yield f"  segments  {findings.segments}"
    counts = ", ".join(f"{count} {kind}" for kind, count in sorted(findings.kinds.items()))
    yield f"  records   {findings.kinds.total()}{f' ({counts})' if counts else ''}"
    if findings.first_ms is not None and findings.last_ms is not None:
        yield f"  times     {_format_time(findings.first_ms)} to {_format_time(findings.last_ms)}"
    yield f"  health    {_describe_health(findings)}"
    for damaged in findings.damaged:
        yield f"    segment {damaged.segment}, bytes {damaged.byte_offset} to {damaged.end_offset}: {damaged.error}"


def _describe_health(findings: Findings) -> str:
    faults = [
        f"{len(findings.damaged)} damaged regions" if findings.damaged else "",
        f"{findings.undecodable} records that are no event" if findings.undecodable else "",
    ]
    text = ", ".join(filter(None, faults)) or "clean"
    return f"{text}, {findings.torn_bytes} bytes of a torn tail" if findings.torn_bytes else text


def _format_time(unix_ms: int) -> str:
    # isoformat fails beyond the year 9999, which a damaged clock can reach.
    if unix_ms >= 253_402_300_800_000:
        return f"{unix_ms} ms"
    return datetime.fromtimestamp(unix_ms / 1000, UTC).isoformat(timespec="milliseconds")
