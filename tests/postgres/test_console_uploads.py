"""Files sent to the console: whose form it is is asked before any of it is kept, and none is held in memory."""

import resource
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from aiohttp import FormData

from tests.conftest import _TEMPLATE, Server, _fresh_database
from tests.postgres.consoles import Client, Filled, fill, log_in, open_console, read, token_of

ROWS_BYTES = 96 << 20


@pytest.fixture(scope="module")
def filled(embedded_server: Server) -> Iterator[Filled]:
    """One database for all tests of this file."""
    for url in _fresh_database(embedded_server, _TEMPLATE):
        yield fill(url)


def form(body: bytes | AsyncIterator[bytes], kind: str = "conversions", name: str = "a.csv") -> FormData:
    """What the page's form sends."""
    fields = FormData(quote_fields=False)  # as browsers send names
    fields.add_field("kind", kind)
    fields.add_field("file", body, filename=name, content_type="text/csv")
    return fields


async def send(client: Client, body: FormData, token: str) -> tuple[int, str]:
    """Status, and where it leads or what it says."""
    answer = await client.post(f"/imports/upload?csrf={token}", data=body, allow_redirects=False)
    text = await answer.text()
    return answer.status, answer.headers.get("Location", text)


async def test_a_file_is_kept_only_of_our_own_form_and_for_an_admin(filled: Filled, data_dir: Path) -> None:
    """No token, another's token, a key that only reads: refused, and nothing is on the disk."""
    async with open_console(filled.url, data_dir) as client:
        await log_in(client, "reports")
        assert (await send(client, form(b"a,b\n1,2\n"), await token_of(client)))[0] == 403
        await log_in(client, "admin")
        for token in ("", "0" * 64):
            assert (await send(client, form(b"a,b\n1,2\n"), token))[0] == 403
        assert not list(data_dir.glob("imports/*"))


@pytest.mark.parametrize(
    ("body", "kind", "said"),
    [
        (b"", "conversions", "empty"),
        (b"PK\x03\x04zip", "conversions", "Excel"),
        (b"a,b\n", "people", "say first"),
    ],
)
async def test_what_is_no_table_is_told_and_not_kept(
    filled: Filled, data_dir: Path, body: bytes, kind: str, said: str
) -> None:
    """The form comes again with the reason."""
    async with open_console(filled.url, data_dir) as client:
        await log_in(client, "admin")
        status, text = await send(client, form(body, kind), await token_of(client))
        assert (status, said in text) == (422, True), text
        assert not list(data_dir.glob("imports/*"))


async def test_old_spreadsheets_files_are_read_and_their_names_are_text(filled: Filled, data_dir: Path) -> None:
    """Windows-1252 with semicolons; a file's name and cells with scripts in them are shown as text."""
    body = "Klick;Betrag;Käufer\nabc;1,50;<script>alert(1)</script> Müller\n".encode("cp1252")
    async with open_console(filled.url, data_dir) as client:
        await log_in(client, "admin")
        status, where = await send(client, form(body, name="<b>März.csv"), await token_of(client))
        assert status == 303
        page = await read(client, where)
        assert "Käufer" in page
        assert "&lt;b&gt;März.csv" in page
        assert "<script>alert(1)" not in page
        await read(client, "/imports/drafts/" + "0" * 32, 404)


async def test_a_large_file_goes_to_the_disk_as_it_comes(filled: Filled, data_dir: Path) -> None:
    """96 MiB take less than a third of that in memory."""
    line = b"01a20283ebff700080002ade98d3aca6,12.50,2026-11-22T09:09:04Z\n"

    async def rows() -> AsyncIterator[bytes]:
        yield b"click_id,amount,date\n"
        block = line * 4096
        for _ in range(ROWS_BYTES // len(block)):
            yield block

    async with open_console(filled.url, data_dir) as client:
        await log_in(client, "admin")
        token = await token_of(client)
        before_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        status, where = await send(client, form(rows()), token)
        assert status == 303, where
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before_kib < ROWS_BYTES // 3 // 1024
        [kept] = data_dir.glob("imports/*.draft")
        assert kept.stat().st_size > ROWS_BYTES - (1 << 20)
