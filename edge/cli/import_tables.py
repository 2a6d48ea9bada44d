"""`clickedge import conversions | costs | contacts`: files of any size, with what was refused beside them."""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar
from zoneinfo import ZoneInfo

import click
from msgspec.structs import replace

from edge.cli.conversion import user
from edge.cli.database import database_options, run_connected
from edge.drain.import_run import Preview, Report, Source, run_import
from edge.drain.takers import Plan
from edge.errors import UserError
from edge.imports.columns import VENDORS, Kind, fields_of
from edge.node import claim_lease, with_secrets
from edge.settings import Settings, load_settings
from storage.postgres.audit import Entry
from storage.postgres.connection import Connection, resolve_url
from storage.postgres.installation import recall

F = TypeVar("F", bound=Callable[..., Any])
Progress = Callable[[Report], None]
_VALUE_CHARS = 60
_NOUNS: dict[Kind, str] = {"conversions": "conversions", "costs": "sums of costs", "contacts": "contacts"}


def _shared(function: F) -> F:
    """The options that all three have."""
    options = (
        click.argument("file", type=click.Path(path_type=Path)),
        click.option("--map", "mapped", multiple=True, metavar='FIELD="COLUMN"', help="Which column a field is, where it is not guessed; FIELD= for none."),
        click.option("--set", "constants", multiple=True, metavar="FIELD=VALUE", help="A field's value in every row."),
        click.option("--timezone", default="", help="Of dates that name none. [default: EDGE_TIMEZONE]"),
        click.option("--date-format", default="", help="Such as %m/%d/%Y %H:%M:%S, where dates could be read in two ways."),
        click.option("--decimal", type=click.Choice([".", ","]), default=None, help="What stands before the decimals, where it could be either."),
        click.option("--dry-run", is_flag=True, help="Show what would happen; store nothing."),
        click.option("--rejects", type=click.Path(path_type=Path), help="Where refused rows go. [default: FILE.rejects.csv]"),
        click.option("--config", type=click.Path(path_type=Path), help="Settings as TOML, as for serve."),
    )  # fmt: skip
    for option in reversed(options):
        function = option(function)
    return database_options(function)


@click.command(name="conversions")
@_shared
@click.option("--from", "vendor", type=click.Choice(VENDORS), help="Whose report it is. [default: guessed]")
@click.option("--update", is_flag=True, help="Change known conversions to the status and amount in the file.")
@click.option("--no-postbacks", is_flag=True, help="Do not tell partners of what is imported.")
@click.option("--tolerance", type=click.IntRange(0, 30 * 24), default=24, show_default=True, help="How many hours a sale and its postback may be apart.")  # fmt: skip
def import_conversions(
    file: Path, vendor: str | None, update: bool, no_postbacks: bool, tolerance: int, **options: Any
) -> None:
    """Take in the conversions in FILE: TUNE's, Everflow's or impact.com's report, or click_id, amount, date.

    What a postback or an earlier import brought is known and not brought again: run a file as often as you like. Rows that
    are refused go to FILE.rejects.csv with line and reason; then the exit code is 1.
    """
    _run(
        "conversions",
        file,
        options,
        vendor=vendor,
        update=update,
        postbacks=not no_postbacks,
        tolerance_s=tolerance * 3600,
    )


@click.command(name="costs")
@_shared
@click.option("--feed", default="", help="The feed that the file is of. [default: its name without dates]")
def import_costs(file: Path, feed: str, **options: Any) -> None:
    """Take in the costs and sends in FILE, a day a row: day, offer_id, aff_id, creative_id, list, currency, amount, sends.

    Rows of the same day, offer, partner, creative, list and currency are added up, and replace what the same feed said of
    them before. All of a file is stored, or nothing.
    """
    _run("costs", file, options, feed=feed)


@click.command(name="contacts")
@_shared
def import_contacts(file: Path, **options: Any) -> None:
    """Take in the contacts in FILE: contact_id, list, signed_up_at; other columns are kept beside them."""
    _run("contacts", file, options)


def describe_preview(preview: Preview) -> Iterator[str]:
    """What the file is taken for, in lines."""
    form = f" of {preview.form}" if preview.kind == "conversions" else ""
    yield f"{preview.kind}{form}, separated by {preview.separator}"
    if preview.feed:
        yield f"feed: {preview.feed}"
    width = max(map(len, preview.columns), default=0)
    for field, column in preview.columns.items():
        example = next((row[field] for row in preview.rows if field in row), "")
        yield f"  {field:<{width}}  <- {_shown(column)}{f'   such as {_shown(example)}' if example else ''}"
    if preview.date_order:
        yield f"dates: {'day' if preview.date_order == 'dmy' else 'month'} first"
    if preview.unused:
        yield f"columns left out: {', '.join(map(_shown, preview.unused))}"


def describe_report(report: Report, kind: Kind, *, dry_run: bool) -> Iterator[str]:
    """What became of the rows, in lines."""
    if report.same_as:
        yield f"this very file was imported before, as import {report.same_as}"
    shown = [one for one in report.examples if dry_run or one["fate"] != "stored"]
    yield from (f"line {one['line']}: {one['fate']}: {one['reason']}" for one in shown[:10])
    would = "would be " if dry_run else ""
    parts = [f"{report.count('stored')} {_NOUNS[kind]} {would}imported", f"{report.count('known')} known already"]
    if changed := report.count("changed"):
        parts.append(f"{changed} {would}changed")
    if differ := report.count("differ"):
        parts.append(f"{differ} known that differ (--update changes them)")
    if skipped := report.count("skipped"):
        parts.append(f"{skipped} left out")
    yield ", ".join([*parts, f"{report.count('rejected')} rejected"])
    if report.count("rejected"):
        yield f"rejected rows, with line and reason: {report.rejects}"
    if not dry_run:
        yield f"import {report.import_id}"


def _run(kind: Kind, file: Path, options: dict[str, Any], **chosen: Any) -> None:
    settings = load_settings(
        os.environ, options["config"], {"data_dir": options["data_dir"], "database_url": options["database"]}
    )
    url = resolve_url(settings.database_url, settings.data_path)
    if kind == "conversions":
        settings = with_secrets(settings)
    plan = Plan(
        kind=kind,
        zone=_zone(options["timezone"] or settings.timezone),
        mapped=dict(_split(kind, text) for text in options["mapped"]),
        constants=dict(_constant(text) for text in options["constants"]),
        date_format=options["date_format"],
        decimal=options["decimal"] or "",
        dry_run=options["dry_run"],
        actor=user(),
        **chosen,
    )
    source = Source(file, file.name, options["rejects"] or file.with_name(f"{file.name}.rejects.csv"))

    async def work(conn: Connection) -> Report:
        if kind == "conversions" and not plan.dry_run:
            await claim_lease(settings, url)
        return await _import(conn, settings, source, plan, is_zone_said=bool(options["timezone"]))

    report = run_connected(
        url,
        "import",
        work,
        written=lambda done: None if plan.dry_run else Entry(user(), f"import {kind}", f"import_id={done.import_id}"),
    )
    for line in describe_report(report, kind, dry_run=plan.dry_run):
        click.echo(line)
    if report.count("rejected"):
        raise SystemExit(1)


async def _import(conn: Connection, settings: Settings, source: Source, plan: Plan, *, is_zone_said: bool) -> Report:
    if not is_zone_said:
        plan = replace(plan, zone=_zone(await recall(conn, "timezone", settings.timezone)))

    def show(preview: Preview) -> None:
        for line in describe_preview(preview):
            click.echo(line)

    with _progress(source.name) as progress:
        return await run_import(conn, settings, source, plan, on_preview=show, on_progress=progress)


@contextmanager
def _progress(name: str) -> Iterator[Progress]:
    """A bar on a terminal; nothing elsewhere."""
    if not sys.stderr.isatty():
        yield lambda report: None
        return
    from rich.console import Console  # noqa: PLC0415 - takes a tenth of a second, and only a terminal needs it
    from rich.progress import BarColumn, DownloadColumn, TextColumn, TimeRemainingColumn  # noqa: PLC0415
    from rich.progress import Progress as Bar  # noqa: PLC0415

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Bar(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(name, total=None)

        def show(report: Report) -> None:
            text = (
                f"{report.count('stored')} imported, {report.count('known')} known, {report.count('rejected')} rejected"
            )
            bar.update(task, completed=report.read_bytes, total=report.size_bytes, description=text)

        yield show


def _split(kind: Kind, text: str) -> tuple[str, str]:
    """Field and column of `--map`; the other way round too, as `import clicks` has it, where only that makes sense."""
    field, sign, column = text.partition("=")
    fields = fields_of(kind)
    if sign and field not in fields:
        other, _, last = text.rpartition("=")
        if last in fields:
            return last, other
    if not sign or not field:
        raise UserError(f'--map {text}: write FIELD="COLUMN", such as amount="Sale Amount"')
    return field.strip(), column.strip()


def _constant(text: str) -> tuple[str, str]:
    field, sign, value = text.partition("=")
    if not sign or not field.strip() or not value.strip():
        raise UserError(f"--set {text}: write FIELD=VALUE, such as currency=USD")
    return field.strip(), value.strip()


def _zone(name: str) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    except (OSError, LookupError, ValueError):
        raise UserError(f"--timezone {name}: no IANA time zone such as Europe/Berlin") from None


def _shown(text: str) -> str:
    shown = text if len(text) <= _VALUE_CHARS else f"{text[:_VALUE_CHARS]}…"
    return shown if shown.isprintable() else ascii(shown)
