"""HAProxy and nginx, as deploy/ configures them, in front of a real node."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import aiohttp
import pytest

from tests.conftest import HAPROXY, NGINX
from tests.node import Node, end, eventually, free_port
from tests.wire.port import serving

DEPLOY = Path(__file__).parents[2] / "deploy"
TLS = Path(__file__).parents[1] / "wire" / "tls"
VISITOR = "127.0.0.9"


@asynccontextmanager
async def running(*command: str | Path) -> AsyncIterator[None]:
    """A proxy in the foreground."""
    process = await asyncio.create_subprocess_exec(*map(str, command))
    try:
        yield
    finally:
        process.terminate()
        await process.wait()


async def click_through(port: int, node: Node) -> str:
    """The address that is stored of a visitor who clicks at that port."""
    connector = aiohttp.TCPConnector(local_addr=(VISITOR, 0))
    async with aiohttp.ClientSession(f"http://127.0.0.1:{port}", connector=connector) as session:

        async def is_ready() -> bool:
            try:
                async with session.get("/readyz") as answer:
                    return answer.status == 200
            except aiohttp.ClientError:
                return False

        await eventually(is_ready, 60.0, node.describe)
        async with session.get("/aff_c?offer_id=17&aff_id=2", allow_redirects=False) as answer:
            assert answer.status == 302

    async def is_stored() -> bool:
        return bool(await node.fetch("SELECT FROM clicks"))

    await eventually(is_stored, 20.0, node.describe)
    [row] = await node.fetch("SELECT host(ip) AS ip FROM clicks")
    return str(row["ip"])


def configured(path: Path, tmp_path: Path, node_port: int, bind: str) -> tuple[Path, int]:
    """The file with this node alone behind it, and a port of the test's in front."""
    port = free_port()
    text = path.read_text().replace("192.0.2.10:8080", f"127.0.0.1:{node_port}")
    address = f"{bind.split(maxsplit=1)[0]} 127.0.0.1:{port}"
    lines = [line.replace(bind, address) for line in text.splitlines() if "192.0.2.11" not in line]
    assert any(address in line for line in lines)
    copy = tmp_path / path.name
    copy.write_text("\n".join(lines) + "\n")
    return copy, port


async def open_node(home: Path, **env: str) -> Node:
    """A node whose public port the test reaches through a proxy only."""
    node = Node(home, env={"EDGE_BATCH_INTERVAL_MS": "20", **env})
    node.launch()
    return node


@pytest.mark.debian("haproxy")
async def test_a_click_through_haproxy_has_its_visitors_address(data_dir: Path, tmp_path: Path) -> None:
    """HAProxy takes the configuration; the PROXY header, on its own checks too, is what the node reads."""
    node = await open_node(data_dir, EDGE_PROXY_PROTOCOL="on")
    try:
        path, port = configured(DEPLOY / "haproxy" / "haproxy.cfg", tmp_path, node.port, "bind :80")
        async with running(HAPROXY, "-db", "-f", path):
            assert await click_through(port, node) == VISITOR
    finally:
        await end(node)


@pytest.mark.debian("haproxy")
async def test_a_visitor_of_haproxys_tls_gets_a_cookie_for_https(short_directory: Path, tmp_path: Path) -> None:
    """As the file has it for TLS that ends at HAProxy: the node hears of it."""
    pem = tmp_path / "clickedge.pem"
    pem.write_bytes(b"".join((TLS / name).read_bytes() for name in ("cert.pem", "key.pem")))
    async with serving(tmp_path, has_proxy=True) as port:
        path, front = configured(DEPLOY / "haproxy" / "haproxy.cfg", tmp_path, port.number, "bind :80")
        path.write_text(path.read_text().replace(f":{front}", f":{front} ssl crt {pem}"))
        async with running(HAPROXY, "-db", "-f", path), aiohttp.ClientSession() as session:
            click = f"https://127.0.0.1:{front}/aff_c?offer_id=17&aff_id=2"
            cookies = []

            async def is_answered() -> bool:
                with suppress(aiohttp.ClientError):
                    async with session.get(click, ssl=False, allow_redirects=False) as answer:
                        cookies.append(answer.headers["Set-Cookie"])
                return bool(cookies)

            await eventually(is_answered, 20.0)
            assert cookies[0].endswith("; SameSite=None; Secure")


@pytest.mark.debian("nginx")
async def test_a_click_through_nginx_has_its_visitors_address(data_dir: Path, tmp_path: Path) -> None:
    """nginx takes the configuration; the forwarding header is believed from its address alone."""
    node = await open_node(data_dir, EDGE_TRUSTED_PROXIES="127.0.0.1/32")
    try:
        path, port = configured(DEPLOY / "nginx" / "nginx.conf", tmp_path, node.port, "listen 80")
        async with running(NGINX, "-c", path, "-g", f"daemon off; pid {tmp_path}/pid; error_log stderr;"):
            assert await click_through(port, node) == VISITOR
    finally:
        await end(node)
