"""EDGE_STREAM_URL: what is allowed, which servers it names, and that its password is shown nowhere."""

import asyncio
import json
from typing import Any

import pytest

from edge.settings import Settings, SettingsFaults, load_settings
from edge.stream_settings import is_synced, refuse_unsynced
from storage.stream.servers import StreamAway, StreamOptions, server_hosts, server_urls, user_in
from tests.node import free_port


@pytest.mark.parametrize(
    ("text", "urls"),
    [
        ("a", ["nats://a"]),
        ("u:p@a:1,b:2", ["nats://u:p@a:1", "nats://u:p@b:2"]),
        ("tls://u:p@a, b:2,tls://c", ["tls://u:p@a", "tls://u:p@b:2", "tls://u:p@c"]),
        ("nats://u:p@a,nats://u:p@[::1]:4", ["nats://u:p@a", "nats://u:p@[::1]:4"]),
    ],
)
def test_scheme_user_and_password_of_the_first_hold_for_all(text: str, urls: list[str]) -> None:
    """Whatever the others leave out."""
    assert load_settings({"EDGE_STREAM_URL": text}, None, {}, uid=1000).stream_url == text
    assert server_urls(text) == urls


@pytest.mark.parametrize(
    "text",
    ["http://a", "tls://u:hunter22@a,nats://b", "nats://a,u:hunter22@b", "u:hunter22@a,v:hunter22@b", "u:hunter22@a,", "a:b", "a/b", "a?b"],
)
def test_what_would_speak_to_one_server_otherwise_than_to_the_others_is_refused(text: str) -> None:
    """In clear beside TLS, as somebody else, or not at all; the password is not repeated."""
    with pytest.raises(SettingsFaults, match="EDGE_STREAM_URL") as told:
        load_settings({"EDGE_STREAM_URL": text}, None, {}, uid=1000)
    assert "hunter22" not in str(told.value)


def test_a_user_is_as_in_any_url() -> None:
    """Percent-encoded where it must be; alone it is a token."""
    assert user_in("nats://a%40b:p%2Fw@host:1") == ("a@b", "p/w")
    assert user_in("nats://token@host") == ("token", None)
    assert user_in("nats://host") == (None, None)


def test_what_a_traceback_may_show_of_a_stream_has_no_password() -> None:
    """Hosts only."""
    options = StreamOptions("nats://edge:hunter22@a:1,b:2")
    assert repr(options) == "StreamOptions(a:1,b:2)"
    assert server_hosts(options) == ["a", "b"]


async def serve_varz(host: str, port: int, jetstream: dict[str, Any]) -> asyncio.Server:
    """A monitoring port that says this of JetStream."""
    body = json.dumps({"jetstream": jetstream}).encode()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
        writer.close()

    return await asyncio.start_server(answer, host, port)


async def test_a_server_whose_jetstream_is_off_counts_as_away() -> None:
    """NATS switches it off by itself when the disk is full: one of three stops nobody, and none of them stops a start."""
    port = free_port()
    said: list[dict[str, Any]] = [{"config": {"sync_always": True}}, {"config": {"sync_always": True}}, {}]
    servers = [await serve_varz(f"127.0.0.{number}", port, one) for number, one in enumerate(said, 1)]
    most, half = (
        Settings(data_dir="", stream_url=url, stream_monitor_port=port)
        for url in ("127.0.0.1,127.0.0.2,127.0.0.3", "127.0.0.1,127.0.0.3")
    )
    try:
        assert await is_synced(most)
        with pytest.raises(StreamAway, match=r"127\.0\.0\.3:\d+ does not say \(it has no JetStream\)"):
            await is_synced(half)
        await refuse_unsynced(half)
    finally:
        for server in servers:
            server.close()
