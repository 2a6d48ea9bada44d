"""`clickedge import catalog`: another tracker's offers, partners and advertisers, as a catalog file to review."""

import re
from pathlib import Path

import click

from edge.errors import UserError
from edge.imports import everflow, everflow_tables, tune, tune_tables
from edge.imports.draft import Draft

_VENDORS = {"tune": (tune_tables.read_files, tune.build), "everflow": (everflow_tables.read_files, everflow.build)}


@click.command(name="catalog")
@click.argument("files", metavar="FILE...", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--from", "vendor", type=click.Choice(sorted(_VENDORS)), required=True, help="Whose export it is.")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Where to write the catalog; else it is printed.")
@click.option("--currency", default="USD", show_default=True, help="Of offers that name none.")
def import_catalog(files: tuple[Path, ...], vendor: str, output: Path | None, currency: str) -> None:
    """Make a catalog file of an export (JSON or CSV files, all in one go).

    What has no counterpart here stands in comments above its item. Nothing is applied: review the file, then
    clickedge apply --dry-run FILE.
    """
    if not re.fullmatch(r"[A-Z]{3}", currency):
        raise UserError(f"--currency {currency}: wanted is an ISO 4217 code such as USD")
    read_files, build = _VENDORS[vendor]
    tables, remarks = read_files(list(files))
    draft = build(tables, currency)
    draft.title = f"{draft.title} Files: {', '.join(path.name for path in files)}."
    draft.remark("Review it: what could not be carried over stands in comments. Then: clickedge apply --dry-run FILE")
    for remark in remarks:
        draft.remark(remark)
    text = draft.finish()
    if output is None:
        click.echo(text, nl=False)
    else:
        _write(output, text)
    click.echo(describe(draft), err=True)


def describe(draft: Draft) -> str:
    """One line: what was carried over, and what a reader must look at."""
    counts = ", ".join(f"{len(draft.items(kind))} {kind}" for kind in ("advertisers", "partners", "offers"))
    return f"{counts}; {len(draft.left_out())} left out, {draft.count_notes()} comments to read"


def _write(path: Path, text: str) -> None:
    """A new file, for its owner's eyes alone: it holds the advertisers' tokens."""
    try:
        path.touch(mode=0o600, exist_ok=False)
        path.write_text(text, encoding="utf-8")
    except FileExistsError:
        raise UserError(f"{path} is there already, perhaps with your edits: remove it, or choose another name") from None
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}") from error
