"""TLS on the way to the stream: asked for, it is spoken or nothing is said; the server is who its certificate says."""

import asyncio
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from storage.stream.connection import connect_stream
from storage.stream.servers import StreamAway, StreamOptions, StreamUnusable
from tests.doctoring import make_certificate
from tests.node import eventually, free_port
from tests.streams import StreamServer

pytestmark = pytest.mark.skipif(shutil.which("openssl") is None, reason="certificates are made with openssl")
PASSWORD = "p@ss/word"
IN_A_URL = "p%40ss%2Fword"


@pytest.fixture
def server(short_directory: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[StreamServer]:
    """One for `localhost` that speaks TLS only and knows a password; its certificate is trusted."""
    certificate = make_certificate(short_directory, days=2, name="localhost")
    monkeypatch.setenv("SSL_CERT_FILE", certificate[0])
    users = f'users = [{{ user: edge, password: "{PASSWORD}" }}]'
    server = StreamServer(short_directory, users=users, tls=certificate)
    server.start()
    yield server
    server.kill()


async def let_in(server: StreamServer, scheme: str, host: str = "localhost") -> str:
    """Empty when we are in; else why not."""

    async def listens() -> bool:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", server.port)
        except OSError:
            return False
        writer.close()
        return True

    await eventually(listens, 20.0)
    url = f"{scheme}://edge:{IN_A_URL}@{host}:{server.port}"
    try:
        connection = await connect_stream(server.options._replace(url=url), "test")
    except StreamAway as error:
        return str(error)
    await connection.close()
    return ""


@pytest.mark.parametrize("scheme", ["tls", "nats"])
async def test_a_trusted_server_lets_us_in_by_tls(server: StreamServer, scheme: str) -> None:
    """Whether we ask for it or the server does; a password may have any character, percent-encoded in the URL."""
    assert await let_in(server, scheme) == ""


async def test_a_server_of_another_name_is_not_spoken_to(server: StreamServer) -> None:
    """Its certificate is trusted, and says `localhost`."""
    assert "certificate is not valid for '127.0.0.1'" in await let_in(server, "tls", "127.0.0.1")


async def test_a_server_that_nobody_vouches_for_is_not_spoken_to(
    server: StreamServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without SSL_CERT_FILE a certificate of one's own is nobody's."""
    monkeypatch.delenv("SSL_CERT_FILE")
    assert "CERTIFICATE_VERIFY_FAILED" in await let_in(server, "tls")


async def test_where_tls_is_asked_for_nothing_is_said_in_clear(short_directory: Path) -> None:
    """Somebody on the way says that the server speaks none: neither a password nor anything else is sent."""
    heard = asyncio.get_running_loop().create_future()

    async def pretend(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        said = {"server_id": "x", "version": "2.12.0", "max_payload": 1 << 20, "auth_required": True, "headers": True}
        writer.write(b"INFO " + json.dumps(said).encode() + b"\r\n")
        heard.set_result(await reader.read())
        writer.close()

    port = free_port()
    async with await asyncio.start_server(pretend, "127.0.0.1", port):
        with pytest.raises(StreamUnusable, match="offers no TLS") as told:
            await connect_stream(StreamOptions(f"tls://edge:{IN_A_URL}@127.0.0.1:{port}"), "test")
        assert await heard == b""
    assert PASSWORD not in str(told.value)
    assert IN_A_URL not in str(told.value)
