"""TLS of the public port: what is spoken, and that everything else is refused without a trace in the log."""

import os
import ssl
import warnings
from pathlib import Path

import pytest

from edge.catalog_follower import SNAPSHOT
from edge.counters import Counters
from edge.errors import UserError
from edge.http.tls import load_tls
from edge.processes import ChildOrders
from edge.settings import Settings
from edge.worker import Worker
from storage.snapshot_file import write_snapshot
from tests.node import eventually
from tests.wire.port import Port, logged, serving

FILES = Path(__file__).parent / "tls"  # a key of the tests' own, good for nothing else


def server() -> ssl.SSLContext:
    """The public port's own."""
    context = load_tls(Settings(data_dir="", tls_cert=str(FILES / "cert.pem"), tls_key=str(FILES / "key.pem")))
    assert context
    return context


def client(version: ssl.TLSVersion, ciphers: str = "ALL:@SECLEVEL=0") -> ssl.SSLContext:
    """One that speaks this version alone, with nearly any cipher."""
    context = ssl.create_default_context(cafile=FILES / "cert.pem")
    context.check_hostname = False
    context.set_ciphers(ciphers)
    with warnings.catch_warnings(action="ignore", category=DeprecationWarning):
        context.minimum_version = context.maximum_version = version
    return context


async def clicked_over(port: Port, context: ssl.SSLContext) -> int:
    """The status of a click."""
    async with port.wire(tls=context) as wire:
        wire.get("/aff_c?offer_id=17&aff_id=2")
        return (await wire.reply()).status


async def are_left(port: Port, count: int) -> bool:
    """Whether the port has so many connections."""
    return port.public.connection_count == count


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_tls_1_2_and_1_3_are_spoken(tmp_path: Path, version: ssl.TLSVersion) -> None:
    """What every browser of the last ten years has."""
    async with serving(tmp_path, tls=server()) as port:
        assert await clicked_over(port, client(version)) == 302


@pytest.mark.parametrize(
    ("version", "ciphers"),
    [
        (ssl.TLSVersion.TLSv1, "ALL:@SECLEVEL=0"),
        (ssl.TLSVersion.TLSv1_1, "ALL:@SECLEVEL=0"),
        (ssl.TLSVersion.TLSv1_2, "AES256-GCM-SHA384"),
        (ssl.TLSVersion.TLSv1_2, "ECDHE-RSA-AES256-SHA384:ECDHE-ECDSA-AES256-SHA384"),
        (ssl.TLSVersion.TLSv1_2, "aNULL:eNULL:@SECLEVEL=0"),
    ],
)
async def test_nothing_older_or_weaker_is(tmp_path: Path, version: ssl.TLSVersion, ciphers: str) -> None:
    """Older versions, no forward secrecy, CBC, no authentication: no handshake, no event, no log line."""
    async with serving(tmp_path, tls=server()) as port:
        with logged() as lines, pytest.raises((ssl.SSLError, ConnectionError)):
            await clicked_over(port, client(version, ciphers))
        assert (port.events(), lines) == ([], [])


@pytest.mark.both_loops
async def test_a_handshake_has_its_clients_place(tmp_path: Path) -> None:
    """Who only connects takes no more connections than who asks for something; each is given back, and counted once."""
    async with serving(tmp_path, tls=server(), client_connections=2) as port:
        context = client(ssl.TLSVersion.TLSv1_3)
        async with port.wire():
            assert await clicked_over(port, context) == 302
            await eventually(lambda: are_left(port, 1), 5)
            async with port.wire(), port.wire() as refused:
                assert await refused.is_closed()
                assert port.count("edge_connections_refused_total", "client") == 1
        await eventually(lambda: are_left(port, 0), 5)
        async with port.wire(tls=context) as first, port.wire(tls=context) as second:
            for wire in (first, second):
                wire.get("/aff_c?offer_id=17&aff_id=2")
                assert (await wire.reply()).status == 302
            assert port.public.connection_count == 2
        await eventually(lambda: are_left(port, 0), 5)


@pytest.mark.both_loops
@pytest.mark.parametrize("has_proxy", [False, True])
async def test_handshakes_are_connections_of_the_port(tmp_path: Path, has_proxy: bool) -> None:
    """All together have so many, so that the process keeps descriptors for its journal."""
    async with serving(tmp_path, tls=server(), max_connections=2, has_proxy=has_proxy) as port:
        async with port.wire(), port.wire(), port.wire() as refused:
            assert await refused.is_closed()
            assert port.count("edge_connections_refused_total", "full") == 1
        await eventually(lambda: are_left(port, 0), 5)


async def test_plain_http_on_the_port_of_tls_gets_nothing(tmp_path: Path) -> None:
    """No redirect that anybody could change on its way, and no log line."""
    async with serving(tmp_path, tls=server()) as port:
        with logged() as lines:
            async with port.wire() as wire:
                wire.get("/aff_c?offer_id=17&aff_id=2")
                assert await wire.is_closed() or await wire.is_closed()
        assert (port.events(), lines) == ([], [])


def test_a_certificate_without_its_key_stops_the_start(tmp_path: Path) -> None:
    """One line that names the settings and shows nothing of the key."""
    (tmp_path / "key.pem").write_text("nonsense")
    with pytest.raises(UserError, match="EDGE_TLS_CERT, EDGE_TLS_KEY: "):
        load_tls(Settings(data_dir="", tls_cert=str(FILES / "cert.pem"), tls_key=str(tmp_path / "key.pem")))


async def test_a_worker_with_a_bad_certificate_does_not_ask_for_its_predecessors_place(tmp_path: Path) -> None:
    """A reload in the midst of a renewal: the worker that answers must stay."""
    (tmp_path / "key.pem").write_text("nonsense")
    (tmp_path / "node.lease").write_text("0\n")
    write_snapshot(tmp_path / SNAPSHOT, 1, [])
    settings = Settings(
        data_dir=str(tmp_path), secrets=("of the tests, not secret",),
        tls_cert=str(FILES / "cert.pem"), tls_key=str(tmp_path / "key.pem"),
    )  # fmt: skip
    heard, progress_fd = os.pipe()
    orders = ChildOrders("worker", 0, settings, -1, [], progress_fd=progress_fd, is_successor=True)
    with pytest.raises(UserError, match="EDGE_TLS_CERT, EDGE_TLS_KEY: "):
        await Worker(orders, Counters.private()).run()
    os.close(progress_fd)
    assert os.read(heard, 1) == b""
    os.close(heard)
