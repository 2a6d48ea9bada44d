"""Imports over the API: a file sent, its run followed, its refused rows fetched."""

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Any
from zoneinfo import ZoneInfo

import msgspec
from aiohttp import web

from edge.admin.api.operation import ADMIN, Call, Operation, Reply
from edge.admin.api.problems import Problem, bad_fields, not_found
from edge.admin.import_queue import NoRoom, Order, queue_of
from edge.errors import UserError
from edge.imports.columns import Kind, Vendor, fields_of
from edge.imports.values import Mark
from edge.tracking.parameters import clean
from storage.postgres.import_runs import find_run, list_runs

_Text = Annotated[str, msgspec.Meta(max_length=256)]
_Id = Annotated[int, msgspec.Meta(ge=1, le=2**31 - 1)]


class KindPath(msgspec.Struct):
    """What the file is of."""

    kind: Kind


class RunPath(msgspec.Struct):
    """Which run."""

    import_id: _Id


class UploadQuery(msgspec.Struct, rename={"vendor": "from", "constants": "set"}):
    """How the file is to be read: as the options of `clickedge import`. `map`, `set`: `field=column`, `field=value`."""

    file_name: _Text = "upload.csv"
    vendor: Vendor | None = None
    map: list[_Text] = []
    constants: list[_Text] = []
    timezone: _Text = ""
    date_format: _Text = ""
    decimal: Mark = ""
    dry_run: bool = False
    update: bool = False
    postbacks: bool = True
    tolerance_hours: Annotated[int, msgspec.Meta(ge=0, le=720)] = 24
    feed: Annotated[str, msgspec.Meta(max_length=64)] = ""


class ListQuery(msgspec.Struct):
    """A page of runs, the latest first."""

    limit: Annotated[int, msgspec.Meta(ge=1, le=1000)] = 50
    cursor: Annotated[str, msgspec.Meta(pattern="^[0-9]{1,9}$")] = ""


class ImportRun(msgspec.Struct):
    """A run: how far it is, and what became of the rows. `preview`: what the file was taken for."""

    import_id: int
    kind: str
    file_name: str
    actor: str
    state: str
    error: str
    dry_run: bool
    started_at: datetime
    finished_at: datetime | None
    size_bytes: int
    read_bytes: int
    rows_stored: int
    rows_known: int
    rows_differ: int
    rows_changed: int
    rows_skipped: int
    rows_rejected: int
    preview: dict[str, Any]
    examples: list[dict[str, Any]]
    has_rejects: bool


class ImportList(msgspec.Struct):
    """A page."""

    data: list[ImportRun]
    next_cursor: str | None


async def start(call: Call) -> Reply:
    """Take the body for the file; it is imported in its turn."""
    if call.request.content_type.startswith("multipart/"):
        raise Problem(415, "send the file itself as the body, not a form")
    query: UploadQuery = call.query
    kind: Kind = call.path.kind
    order = Order(
        kind=kind,
        file_name=clean(query.file_name.replace("\\", "/").rpartition("/")[2]) or "upload.csv",
        actor=call.caller.name,
        vendor=query.vendor,
        mapped=_pairs("map", query.map, kind, may_be_empty=True),
        constants=_pairs("set", query.constants, kind, may_be_empty=False),
        timezone=_zone_name(query.timezone),
        date_format=query.date_format,
        decimal=query.decimal,
        dry_run=query.dry_run,
        update=query.update,
        postbacks=query.postbacks,
        tolerance_s=query.tolerance_hours * 3600,
        feed=clean(query.feed),
    )
    try:
        import_id = await queue_of(call.backend).submit(order, call.request.content.iter_any())
        async with call.backend.connection() as conn:
            found = await find_run(conn, import_id)
    except NoRoom as error:
        raise Problem(507, str(error)) from error
    except UserError as error:
        raise Problem(422, str(error)) from error
    if found is None:
        raise not_found("import")
    return Reply(_run_of(call, found), 202, {"Location": f"/api/v1/imports/{import_id}"})


async def show(call: Call) -> ImportRun:
    """One run."""
    async with call.backend.connection() as conn:
        found = await find_run(conn, call.path.import_id)
    if found is None:
        raise not_found("import")
    return _run_of(call, found)


async def list_all(call: Call) -> ImportList:
    """Runs, the latest first; those of the command too."""
    limit = call.query.limit
    async with call.backend.connection() as conn:
        found = await list_runs(conn, limit + 1, int(call.query.cursor) if call.query.cursor else None)
    runs = [_run_of(call, row) for row in found[:limit]]
    return ImportList(runs, str(runs[-1].import_id) if len(found) > limit else None)


async def rejects(call: Call) -> web.StreamResponse:
    """The refused rows, each with line and reason, as CSV."""
    path = queue_of(call.backend).rejects(call.path.import_id)
    if not path.is_file():
        raise not_found("file of rejects")
    name = f"import-{call.path.import_id}.rejects.csv"
    headers = {"Content-Disposition": f'attachment; filename="{name}"', "Content-Type": "text/csv; charset=utf-8"}
    return web.FileResponse(path, headers=headers)


def _run_of(call: Call, row: dict[str, Any]) -> ImportRun:
    shared = {name: row[name] for name in ImportRun.__struct_fields__ if name in row}
    plan = row["plan"]
    return ImportRun(
        **shared,
        dry_run=bool(plan.get("dry_run")),
        preview={name: plan[name] for name in _PREVIEW if name in plan},
        has_rejects=queue_of(call.backend).rejects(row["import_id"]).is_file(),
    )


_PREVIEW = ("form", "separator", "columns", "unused", "date_order", "feed", "rows")


def _pairs(name: str, texts: Sequence[str], kind: Kind, *, may_be_empty: bool) -> dict[str, str]:
    pairs = {}
    for text in texts:
        field, sign, value = text.partition("=")
        if not sign or not field.strip() or not (value.strip() or may_be_empty):
            raise bad_fields([(name, f"{text[:64]!r}: write field=…, the field one of {', '.join(fields_of(kind))}")])
        pairs[field.strip()] = value.strip()
    return pairs


def _zone_name(name: str) -> str:
    try:
        return name and ZoneInfo(name).key
    except (OSError, LookupError, ValueError):
        raise bad_fields([("timezone", "is no IANA time zone such as Europe/Berlin")]) from None


OPERATIONS: Sequence[Operation] = (
    Operation(
        "POST", "/imports/{kind}", "start_import", "Import a file of conversions, costs or contacts: the body is the file",
        start, ADMIN, KindPath, UploadQuery, answer_type=ImportRun, status=202, commits=True,
    ),
    Operation("GET", "/imports", "list_imports", "Imports, the latest first", list_all, ADMIN, None, ListQuery, answer_type=ImportList),
    Operation("GET", "/imports/{import_id}", "show_import", "An import's progress", show, ADMIN, RunPath, answer_type=ImportRun),
    Operation(
        "GET", "/imports/{import_id}/rejects", "import_rejects", "The rows that an import refused", rejects, ADMIN, RunPath,
        media=("text/csv",),
    ),
)  # fmt: skip
