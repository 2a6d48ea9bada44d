"""A NATS credentials file, as an operator's account server gives it out, in the place of a user and password."""

import base64
import json
import os
import subprocess
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, NamedTuple

import nkeys
import pytest

from storage.stream.connection import connect_stream
from storage.stream.servers import StreamOptions, StreamUnusable
from tests.node import eventually, free_port
from tests.streams import NATS_SERVER

PREFIXES = {"operator": nkeys.PREFIX_BYTE_OPERATOR, "account": nkeys.PREFIX_BYTE_ACCOUNT, "user": nkeys.PREFIX_BYTE_USER}


class Identity(NamedTuple):
    """A key of NATS, and what signs with it."""

    seed: bytes
    public: str
    sign: Callable[[bytes], bytes]

    def vouch(self, kind: str, subject: "Identity", claims: dict[str, Any]) -> str:
        """A token by which this one says who `subject` is."""
        nats = {"type": kind, "version": 2, **claims}
        body = {"jti": "X", "iat": int(time.time()), "iss": self.public, "sub": subject.public, "name": kind, "nats": nats}
        parts = [_encode(json.dumps(one).encode()) for one in ({"typ": "JWT", "alg": "ed25519-nkey"}, body)]
        return ".".join([*parts, _encode(self.sign(".".join(parts).encode()))])


def make_identity(kind: str) -> Identity:
    """A new one."""
    seed = nkeys.encode_seed(os.urandom(32), PREFIXES[kind])
    pair = nkeys.from_seed(bytearray(seed))
    return Identity(seed, pair.public_key.decode(), pair.sign)


def _encode(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def write_credentials(path: Path, account: Identity) -> Path:
    """As `nsc generate creds` does."""
    user = make_identity("user")
    limits = {"subs": -1, "data": -1, "payload": -1, "pub": {}, "sub": {}}
    token = account.vouch("user", user, limits)
    path.write_text(
        f"-----BEGIN NATS USER JWT-----\n{token}\n------END NATS USER JWT------\n\n"
        f"-----BEGIN USER NKEY SEED-----\n{user.seed.decode()}\n------END USER NKEY SEED------\n"
    )
    return path


class Served(NamedTuple):
    """A server that lets in whom the account vouches for."""

    account: Identity
    options: StreamOptions


@pytest.fixture
async def served(short_directory: Path) -> AsyncIterator[Served]:
    """A server of an operator's, with one account."""
    operator, account, port = make_identity("operator"), make_identity("account"), free_port()
    limits = {"subs": -1, "data": -1, "payload": -1, "imports": -1, "exports": -1, "conn": -1, "leaf": -1, "wildcards": True}
    config = short_directory / "nats.conf"
    config.write_text(
        f"listen: '127.0.0.1:{port}'\noperator: {operator.vouch('operator', operator, {})}\nresolver: MEMORY\n"
        f"resolver_preload: {{ {account.public}: {operator.vouch('account', account, {'limits': limits})} }}\n"
    )
    assert NATS_SERVER
    with (short_directory / "server.log").open("wb") as log:
        process = subprocess.Popen([NATS_SERVER, "-c", str(config)], stdout=log, stderr=log)

    async def listens() -> bool:
        return b"Server is ready" in (short_directory / "server.log").read_bytes()

    try:
        await eventually(listens, 20.0, (short_directory / "server.log").read_text)
        yield Served(account, StreamOptions(f"nats://127.0.0.1:{port}"))
    finally:
        process.kill()
        process.wait()


async def test_a_credentials_file_lets_us_in(served: Served, tmp_path: Path) -> None:
    """Signed for with the key in it; nothing is in the URL."""
    path = write_credentials(tmp_path / "edge.creds", served.account)
    connection = await connect_stream(served.options._replace(credentials=str(path)), "test")
    assert connection.client.is_connected
    await connection.close()


@pytest.mark.parametrize("text", [None, "", "nothing of the kind\n", "-----BEGIN USER NKEY SEED-----\nSUAA\n"])
async def test_a_file_that_is_none_is_a_clear_error(served: Served, tmp_path: Path, text: str | None) -> None:
    """It names the setting; without a file we are not let in, nor with another account's."""
    path = tmp_path / "edge.creds"
    if text is None:
        write_credentials(path, make_identity("account"))
    else:
        path.write_text(text)
    with pytest.raises(StreamUnusable, match="EDGE_STREAM_CREDENTIALS" if text is not None else "credentials"):
        await connect_stream(served.options._replace(credentials=str(path)), "test")
