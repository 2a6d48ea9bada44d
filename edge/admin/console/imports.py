"""Imports: a file sent, its columns looked at, a rehearsal, the run with its progress, and all earlier ones."""

import re
from collections.abc import AsyncIterator
from pathlib import PurePosixPath
from typing import Any, get_args
from weakref import WeakKeyDictionary

from aiohttp import BodyPartReader, web
from msgspec.structs import replace

from edge.admin.api.operation import ADMIN, READERS
from edge.admin.backend import Backend
from edge.admin.console.import_form import read_order, shown_columns
from edge.admin.console.page import Page, Refusal, Route, Visit, not_found
from edge.admin.import_drafts import Drafts
from edge.admin.import_queue import NoRoom, Order, queue_of
from edge.errors import UserError
from edge.imports.columns import REQUIRED, VENDOR_NAMES, Kind, fields_of
from edge.tracking.parameters import clean
from storage.postgres.import_runs import COUNTS, find_run, list_runs

ROWS = 30
KINDS: tuple[Kind, ...] = get_args(Kind)
OVER = ("done", "failed", "interrupted")
_CHUNK_BYTES = 1 << 18
_MOST_CHARS = 256
_IN_OPTIONS = (
    (re.compile(r": is the header missing\? Say which column it is with --map .*$", re.DOTALL), ": choose it below"),
    (re.compile(r"say --date-format, such as .*$", re.DOTALL), "say below how they are written"),
    (re.compile(r"--map \S+=.*?: "), ""),
    (re.compile(r"say --(\w+)-?(\w*)"), r"say below: \1 \2"),
)
_drafts: WeakKeyDictionary[Backend, Drafts] = WeakKeyDictionary()


async def show_list(visit: Visit) -> web.Response:
    """The form, and the runs so far."""
    return await _list(visit)


async def upload(visit: Visit) -> web.StreamResponse:
    """Keep the file that is sent, as it comes; then its columns are looked at."""
    try:
        draft = await _receive(visit)
    except (UserError, ValueError) as error:
        fault = in_words(error) if isinstance(error, UserError) else "that was not sent as the form does it"
        status = 507 if isinstance(error, NoRoom) else 422
        if visit.is_fragment:  # htmx shows no answer but a good one
            return visit.render("import_fault.html", fault=fault)
        return await _list(visit, fault, status)
    where = f"/imports/drafts/{draft}"
    if visit.is_fragment:
        return web.Response(headers={"HX-Redirect": where})
    return _to(where)


async def show_draft(visit: Visit) -> web.Response:
    """What a kept file is taken for."""
    return await _draft(visit, _find(visit))


async def change_draft(visit: Visit) -> web.StreamResponse:
    """Take over what is said of the columns; then look again, rehearse, import or throw away."""
    order, faults = read_order(_find(visit), visit.form)
    drafts, wanted = _drafts_of(visit), str(visit.form.get("do", ""))
    if wanted == "discard":
        drafts.discard(order.draft)
        return _to("/imports")
    if faults:
        return await _draft(visit, order, faults, 200 if visit.is_fragment else 422)
    drafts.save(order)
    if wanted not in ("rehearse", "import"):
        return await _draft(visit, order)
    order = _by(visit, order, is_rehearsal=wanted == "rehearse")
    async with visit.connection() as conn:
        look = await drafts.look(conn, order)
        if look.fault:
            return await _draft(visit, order, status=422)
        import_id = await drafts.submit(conn, order)
    return _to(f"/imports/{import_id}")


async def import_after_all(visit: Visit) -> web.StreamResponse:
    """Import the file whose rehearsal has been looked at."""
    run = await _run(visit)
    order = _drafts_of(visit).find(run["plan"].get("order", {}).get("draft", ""))
    if order is None:
        raise Refusal(410, "The file is not kept any more", "Send it again.")
    async with visit.connection() as conn:
        import_id = await _drafts_of(visit).submit(conn, _by(visit, order, is_rehearsal=False))
    return _to(f"/imports/{import_id}")


async def show_run(visit: Visit) -> web.Response:
    """A run; its progress alone for htmx."""
    run = await _run(visit)
    order = run["plan"].get("order", {})
    rejects = queue_of(visit.shared.backend).rejects(run["import_id"])
    return visit.render(
        "import_progress.html" if visit.is_fragment else "import_run.html",
        run=run,
        is_over=run["state"] in OVER,
        is_rehearsal=bool(run["plan"].get("dry_run")),
        counts=[(name, run[f"rows_{name}"]) for name in COUNTS],
        has_rejects=rejects.is_file(),
        draft=_drafts_of(visit).find(order.get("draft", "")) if visit.may_edit else None,
        in_words=in_words,
    )


async def rejects(visit: Visit) -> web.StreamResponse:
    """The refused rows as a file."""
    run = await _run(visit)
    path = queue_of(visit.shared.backend).rejects(run["import_id"])
    if not path.is_file():
        raise not_found("file of rejects")
    name = f"import-{run['import_id']}.rejects.csv"
    headers = {"Content-Disposition": f'attachment; filename="{name}"', "Content-Type": "text/csv; charset=utf-8"}
    return web.FileResponse(path, headers=headers)


def in_words(error: object) -> str:
    """A fault in the console's words: where the command's name its options, the form has fields."""
    text = str(error)
    for option, words in _IN_OPTIONS:
        text = option.sub(words, text)
    return text


async def _list(visit: Visit, fault: str = "", status: int = 200) -> web.Response:
    before = visit.asked("before")
    async with visit.connection() as conn:
        runs = await list_runs(conn, ROWS + 1, int(before) if re.fullmatch(r"[0-9]{1,9}", before, re.ASCII) else None)
    return visit.render(
        "imports.html",
        status=status,
        kinds=KINDS,
        runs=runs[:ROWS],
        next_before=runs[ROWS - 1]["import_id"] if len(runs) > ROWS else None,
        fault=fault,
    )


async def _receive(visit: Visit) -> str:
    """The draft of the file in the body. UserError, ValueError for what no form of ours sends."""
    if visit.request.content_type != "multipart/form-data":
        raise ValueError(visit.request.content_type)
    kind = ""
    async for part in await visit.request.multipart():
        if not isinstance(part, BodyPartReader):
            raise UserError("send the file as the form does")
        if part.name == "kind":
            kind = (await part.text())[:_MOST_CHARS]
        elif part.name == "file":
            known = next((one for one in KINDS if one == kind), None)
            if known is None:
                raise UserError("say first what the file is of")
            if not part.filename:
                raise UserError("choose a file")
            name = PurePosixPath(part.filename.replace("\\", "/")).name
            order = Order(kind=known, file_name=clean(name)[:_MOST_CHARS] or "upload.csv", actor=visit.caller.name)
            return await _drafts_of(visit).keep(order, _chunks(part))
    raise UserError("choose a file")


async def _chunks(part: BodyPartReader) -> AsyncIterator[bytes]:
    while chunk := await part.read_chunk(_CHUNK_BYTES):
        yield chunk


def _drafts_of(visit: Visit) -> Drafts:
    backend = visit.shared.backend
    return _drafts.setdefault(backend, Drafts(queue_of(backend), backend.settings))


def _find(visit: Visit) -> Order:
    order = _drafts_of(visit).find(visit.request.match_info["draft"])
    if order is None:
        raise Refusal(404, "There is no such file", "It has been imported, thrown away, or waited for more than a day.")
    return order


def _by(visit: Visit, order: Order, *, is_rehearsal: bool) -> Order:
    return replace(order, actor=visit.caller.actor, dry_run=is_rehearsal)


async def _run(visit: Visit) -> dict[str, Any]:
    async with visit.connection() as conn:
        run = await find_run(conn, int(visit.request.match_info["import_id"]))
    if run is None:
        raise not_found("import")
    return run


async def _draft(visit: Visit, order: Order, faults: dict[str, str] | None = None, status: int = 200) -> web.Response:
    async with visit.connection() as conn:
        try:
            look = await _drafts_of(visit).look(conn, order)
        except UserError as error:
            raise Refusal(404, "The file cannot be read any more", str(error)) from error
    return visit.render(
        "import_look.html" if visit.is_fragment else "import_draft.html",
        status=status,
        order=order,
        look=look,
        faults=faults or {},
        fields=fields_of(order.kind),
        required=REQUIRED[order.kind],
        columns=shown_columns(look.header),
        vendors=VENDOR_NAMES,
        in_words=in_words,
    )


def _to(where: str) -> web.Response:
    return web.Response(status=303, headers={"Location": where})


_RUN = "/imports/{import_id:[0-9]{1,9}}"
_DRAFT = "/imports/drafts/{draft:[0-9a-f]{32}}"
PAGE = Page(
    path="/imports",
    title="Imports",
    group="Books",
    icon="imports",
    letter="i",
    scopes=READERS,
    routes=(
        Route("GET", "/imports", show_list),
        Route("POST", "/imports/upload", upload, ADMIN, takes_body=True),
        Route("GET", _DRAFT, show_draft, ADMIN),
        Route("POST", _DRAFT, change_draft, ADMIN),
        Route("GET", _RUN, show_run),
        Route("POST", _RUN, import_after_all, ADMIN),
        Route("GET", f"{_RUN}/rejects", rejects, ADMIN),
    ),
)
