"""Where a postback may be sent to: every address that is not the open internet is refused, however it is written."""

import asyncio
import socket
from ipaddress import ip_address, ip_network
from typing import Any

import aiohttp
import pytest
from aiohttp.abc import AbstractResolver, ResolveResult

from edge.sender.delivery import open_client
from edge.sender.guard import fault_in_place, is_public
from tests.partners import LOOPBACK, PartnerServer, say

REFUSED = """
    0.0.0.0 0.1.2.3 10.0.0.1 10.255.255.255 100.64.0.1 100.127.255.255 127.0.0.1 127.255.255.254 169.254.169.254
    169.254.0.1 172.16.0.1 172.31.255.255 192.0.0.1 192.0.0.8 192.0.0.170 192.0.2.1 192.31.196.1 192.52.193.1 192.88.99.1
    192.168.0.1 192.175.48.1 198.18.0.1 198.19.255.255 198.51.100.1 203.0.113.1 224.0.0.1 239.255.255.255 240.0.0.1
    255.255.255.255
    :: ::1 ::7f00:1 ::ffff:127.0.0.1 ::ffff:10.0.0.1 ::ffff:169.254.169.254 ::ffff:0:127.0.0.1 64:ff9b::7f00:1
    64:ff9b::a9fe:a9fe 64:ff9b:1::808:808 100::1 2001::1 2001:0:4136:e378:8000:63bf:3fff:fdd2 2001:2::1 2001:20::1
    2001:db8::1 2002:7f00:1:: 2002:808:808:: 2620:4f:8000::1 3fff::1 5f00::1 fc00::1 fd00:ec2::254 fe80::1 fe80::1%eth0
    fec0::1 ff02::1 4000::1
""".split()  # noqa: SIM905
PUBLIC = """
    1.1.1.1 8.8.8.8 93.184.215.14 172.15.255.255 172.32.0.1 100.63.255.255 100.128.0.1 126.255.255.255 128.0.0.1
    192.0.1.1 192.167.255.255 198.17.255.255 223.255.255.255 2001:4860:4860::8888 2606:4700:4700::1111 2a00:1450::1
    ::ffff:8.8.8.8 64:ff9b::808:808
""".split()  # noqa: SIM905


@pytest.mark.parametrize("address", REFUSED)
@pytest.mark.reliability(number=27)
def test_an_address_that_is_not_the_open_internet_is_refused(address: str) -> None:
    """Loopback, private, link-local, shared, documentation, multicast, reserved; and IPv6 that wraps or tunnels them."""
    assert not is_public(ip_address(address))
    assert fault_in_place(address, 443, []) == f"{ip_address(address)} is no public address (EDGE_POSTBACK_ALLOW)"


@pytest.mark.parametrize("address", PUBLIC)
def test_a_public_address_is_not(address: str) -> None:
    """The neighbours of the refused blocks too."""
    assert is_public(ip_address(address))
    assert fault_in_place(address, 443, []) == ""


@pytest.mark.parametrize(("port", "is_allowed"), [(80, True), (443, True), (1024, True), (22, False), (25, False), (0, False)])
def test_ports_of_other_services_are_refused(port: int, is_allowed: bool) -> None:
    """The web's two, and those that anybody may listen on."""
    assert (fault_in_place("8.8.8.8", port, []) == "") is is_allowed


def test_what_the_operator_allows_may_be_reached() -> None:
    """Those networks only; an IPv4 address may come as IPv6."""
    allowed = [ip_network("10.1.0.0/16"), ip_network("fd00::/8")]
    for address in ("10.1.2.3", "::ffff:10.1.2.3", "fd00::5"):
        assert fault_in_place(address, 80, allowed) == ""
    for address in ("10.2.0.1", "127.0.0.1", "fe80::1"):
        assert fault_in_place(address, 80, allowed) != ""
    assert fault_in_place("nonsense", 80, allowed) == "'nonsense' is no address"


class Resolver(AbstractResolver):
    """Answers with the given addresses in turn, the last for ever; not even their family need be right."""

    def __init__(self, *answers: list[str]) -> None:
        self.answers = list(answers)

    async def resolve(self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET) -> list[ResolveResult]:
        addresses = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        return [
            ResolveResult(hostname=host, host=address, port=port, proto=0, flags=0, family=_family_of(address))
            for address in addresses
        ]

    async def close(self) -> None:
        """Nothing to close."""


def _family_of(address: str) -> int:
    return socket.AF_INET6 if ":" in address else socket.AF_INET


async def ask(url: str, *, allowed: tuple[str, ...] = (), resolver: AbstractResolver | None = None) -> Any:
    """The status of the answer, or what kept the client from asking."""
    async with open_client([ip_network(cidr) for cidr in allowed], 5, resolver) as client:
        try:
            async with client.get(url, allow_redirects=False) as response:
                return response.status
        except (aiohttp.ClientError, OSError, ValueError) as error:
            return str(error)


@pytest.mark.both_loops
@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "localhost", "[::1]", "[::ffff:127.0.0.1]", "127.1", "2130706433", "0x7f000001", "0177.0.0.1", "127.0.1",
     "0", "[::]", "[0:0:0:0:0:ffff:7f00:1]", "127.0.0.1.", "LOCALHOST", "①②⑦.0.0.1"],
)  # fmt: skip
@pytest.mark.reliability(number=27)
async def test_no_way_of_writing_this_machine_gets_through(host: str) -> None:
    """A server listens there, and hears nothing."""
    async with PartnerServer().listening() as partner:
        port = partner.origin.rpartition(":")[2]
        said = await ask(f"http://{host}:{port}/")
        assert isinstance(said, str)
        assert partner.heard == []


@pytest.mark.both_loops
async def test_the_refusal_says_what_it_is_about() -> None:
    """The address, and the setting that would allow it."""
    said = await ask("http://127.0.0.1:8080/")
    assert "refused: 127.0.0.1 is no public address (EDGE_POSTBACK_ALLOW)" in said


@pytest.mark.reliability(number=27)
async def test_a_name_that_changes_its_address_is_checked_where_it_connects() -> None:
    """DNS rebinding: public when asked first, this machine when asked again; and both at once."""
    async with PartnerServer().listening() as partner:
        port = partner.origin.rpartition(":")[2]
        for resolver in (Resolver(["127.0.0.1"]), Resolver(["::ffff:127.0.0.1"]), Resolver(["10.0.0.1", "127.0.0.1"])):
            assert "refused: " in await ask(f"http://partner.example:{port}/", resolver=resolver)
        rebinding = Resolver(["192.0.2.1"], ["127.0.0.1"])
        for _ in range(3):
            assert "refused: " in await ask(f"http://partner.example:{port}/", resolver=rebinding)
        assert partner.heard == []
        assert await ask(f"http://partner.example:{port}/", allowed=(LOOPBACK,), resolver=rebinding) == 200


@pytest.mark.reliability(number=27)
async def test_a_redirect_to_this_machine_is_not_followed() -> None:
    """Nor is any other: 3xx is the answer."""
    async with PartnerServer().listening() as inside, PartnerServer("127.0.0.2").listening() as partner:
        partner.reply = say(302, Location=inside.origin)
        assert await ask(partner.origin, allowed=("127.0.0.2/32",)) == 302
        assert "refused" in await ask(inside.origin, allowed=("127.0.0.2/32",))
        assert inside.heard == []


async def test_the_environments_proxy_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """A proxy would connect for us, past the guard."""
    async with PartnerServer().listening() as proxy:
        for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
            monkeypatch.setenv(name, proxy.origin)
        assert "refused: 10.0.0.1" in await ask("http://10.0.0.1/")
        assert proxy.heard == []


class HalfDeadNames(asyncio.DatagramProtocol):
    """A name server that knows alive.example, and never answers for anything else."""

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def datagram_received(self, data: bytes, addr: Any) -> None:
        end = data.index(b"\0", 12) + 5
        if b"\x05alive\x07example" not in data.lower():
            return
        is_ipv4 = data[end - 4 : end - 2] == b"\x00\x01"
        record = b"\xc0\x0c\x00\x01\x00\x01\x00\x00\x00\x3c\x00\x04\x7f\x00\x00\x01" if is_ipv4 else b""
        counts = b"\x00\x01" + (b"\x00\x01" if is_ipv4 else b"\x00\x00") + b"\x00\x00\x00\x00"
        self.transport.sendto(data[:2] + b"\x81\x80" + counts + data[12:end] + record, addr)


@pytest.mark.both_loops
async def test_names_that_nobody_answers_for_delay_no_other() -> None:
    """Fifty look-ups that hang; the fifty-first is answered at once."""
    loop = asyncio.get_running_loop()
    transport, _ = await loop.create_datagram_endpoint(HalfDeadNames, local_addr=("127.0.0.1", 0))
    names = aiohttp.AsyncResolver(nameservers=[f"127.0.0.1:{transport.get_extra_info('sockname')[1]}"])
    async with PartnerServer().listening() as partner:
        port = partner.origin.rpartition(":")[2]
        async with open_client([ip_network(LOOPBACK)], 20, names) as client:
            hanging = [asyncio.create_task(client.get(f"http://dead{number}.example:{port}/")) for number in range(50)]
            await asyncio.sleep(0)
            async with asyncio.timeout(15), client.get(f"http://alive.example:{port}/") as response:
                assert response.status == 200
            assert not any(task.done() for task in hanging)
            for task in hanging:
                task.cancel()
            await asyncio.gather(*hanging, return_exceptions=True)
    await names.close()
    transport.close()


async def test_the_clients_own_resolver_is_one_that_waits_side_by_side() -> None:
    """aiohttp takes aiodns where it is installed."""
    assert aiohttp.DefaultResolver is aiohttp.AsyncResolver
    async with open_client([], 5) as client:
        assert isinstance(client.connector, aiohttp.TCPConnector)
        assert isinstance(client.connector._resolver, aiohttp.AsyncResolver)
