"""What strangers send to the public port: heads, addresses, queries, bodies, cookies, ids."""

from ipaddress import ip_address, ip_network

import httptools

from edge.enrich import Enricher
from edge.http.client_address import client_address, is_https
from edge.http.known_blocks import _read_lines, read_block
from edge.http.limits import find_fault_in_part, is_too_large
from edge.http.proxy_protocol import SIGNATURE, read_proxy_header
from edge.http.routes import add_fields
from edge.tracking import cookies
from edge.tracking.click_id import is_well_formed
from edge.tracking.deep_links import find_location
from edge.tracking.dialects import HOT_PATHS, dispatch
from edge.tracking.headers import first_language, read_headers
from edge.tracking.macros import compile_template
from edge.tracking.parameters import clean, parse_clean_query, parse_query
from edge.tracking.urls import host_of
from storage.journal.events import Conversion, decode
from tests.fuzz.harness import as_text, target
from tests.wire.edge_state import CATALOG, DELIVERY, HOSTS, NOW_MS, build_catalog, build_state, request_of

STATE = build_state(build_catalog(CATALOG + DELIVERY))
OFFER = STATE.catalog.offer(17)
ID = STATE.ids.mint(NOW_MS).hex()
PATHS = sorted(HOT_PATHS)
TRUSTED = (ip_network("10.0.0.0/8"), ip_network("2001:db8::/32"))
HEAD = b"GET /aff_c?offer_id=17 HTTP/1.1\r\nHost: x\r\nUser-Agent: a b\r\nReferer: https://b/\r\nAccept-Language: de\r\n\r\n"
ENRICHER = Enricher(None, lambda: 0.0)


class Complete:
    """llhttp's callbacks: nothing but the end."""

    is_complete = False

    def on_message_complete(self) -> None:
        self.is_complete = True


@target(HEAD, HEAD.replace(b"Host", b"hOST"), HEAD.replace(b"\r\n\r\n", b"\r\nCookie: ce_17=a.b\r\nExpect: x\r\n\r\n"))
def heads(data: bytes) -> None:
    """The quick reading of header lines says what the reading line by line says, of all that llhttp accepts."""
    find_fault_in_part(data)
    end = data.find(b"\r\n\r\n") + 4
    head = data[: end or len(data)]
    seen = Complete()
    try:
        httptools.HttpRequestParser(seen).feed_data(head)
    except (httptools.HttpParserError, httptools.HttpParserUpgrade):
        return
    line_end = head.find(b"\r\n")
    if end < 4 or line_end < 0 or is_too_large(head, head[:line_end]):
        return
    sent = head[line_end:]
    quick = read_block(sent, is_hot=seen.is_complete, is_last=False)
    assert quick == _read_lines(sent, is_hot=seen.is_complete, is_last=False), (quick, sent)


@target(SIGNATURE + b"\x21\x11\x00\x0c" + bytes(12), SIGNATURE + b"\x20\x00\x00\x00", SIGNATURE + b"\x21\x21\x00\x24" + bytes(36))
def proxy_headers(data: bytes) -> None:
    """An address and where it ends, more to wait for, or ValueError."""
    try:
        found = read_proxy_header(data)
    except ValueError:
        return
    if found:
        address, consumed = found
        assert 16 <= consumed <= len(data)
        assert not address or ip_address(address)


@target(b"10.1.2.3, 203.0.113.9:80", b"[2001:db8::1]:443,fe80::1%eth0", b"::ffff:10.0.0.1")
def forwarded_addresses(data: bytes) -> None:
    """Whatever a header says, an address comes out."""
    text = as_text(data)
    assert ip_address(client_address("10.0.0.1", text, TRUSTED))
    is_https(False, "10.0.0.1", text, TRUSTED)
    peer = client_address(text, None, TRUSTED)
    assert peer == "" or ip_address(peer)


@target(b"offer_id=17&aff_sub=a%20b+c&aff_sub=%ff%00", b"a=%ED%A0%80&&=x&%zz")
def queries(data: bytes) -> None:
    """Any query is parameters, clean for good; the quick way reads what it takes alike."""
    text = as_text(data)
    params = parse_query(text)
    assert all(clean(part) == part for pair in params.items() for part in pair)
    try:
        quick = parse_clean_query(data.decode("ascii"))
    except ValueError:
        return
    assert quick == params


@target(b'{"amount": 1.50, "adv_sub": null, "x": [1]}', b"amount=1.5&adv_sub=%41", b"[" * 500)
def bodies(data: bytes) -> None:
    """A form or JSON becomes clean text, or is refused with an answer."""
    for is_json in (True, False):
        params: dict[str, str] = {}
        if add_fields(params, data, is_json=is_json) is None:
            assert all(clean(part) == part for pair in params.items() for part in pair)


@target(f"ce_17={ID}.{ID}".encode(), f"a=b; ce_17={ID}.{ID}.{'0' * 32}; ce_17=".encode())
def cookie_headers(data: bytes) -> None:
    """Ids come out only where they verify."""
    assert OFFER
    request = request_of("", {"Cookie": as_text(data)})
    for found in cookies.session_ids(request, OFFER, STATE.ids) or ():
        assert STATE.ids.parse(found.hex()) == found
    cookies.seed(request, OFFER, STATE.ids)


@target(ID.encode(), ID.upper().encode(), f"{ID[:8]}-{ID[8:12]}-{ID[12:16]}-{ID[16:20]}-{ID[20:]}".encode())
def click_ids(data: bytes) -> None:
    """What verifies is one of ours written in one of its forms; nothing else does."""
    text = as_text(data)
    found = STATE.ids.parse(text)
    if found is not None:
        assert is_well_formed(text)
        assert found.hex() == text.replace("-", "").lower()


@target(b"Mozilla/5.0 (Linux; Android 14; Pixel 8) AppleWebKit/537.36 Chrome/120 Mobile", b"curl/8", b"Googlebot")
def user_agents(data: bytes) -> None:
    """A device of texts that PostgreSQL takes."""
    text = as_text(data)
    headers = read_headers([("user-agent", text), ("accept-language", text), ("referer", text)])
    device = ENRICHER.device(headers.user_agent)
    assert "\0" not in str(device)
    first_language(text)


@target(b"https://shop.example.com/a?b=c", b"https://shop.example.com@evil.example/", b"//shop.example.com")
def deep_links(data: bytes) -> None:
    """A link leads to an allowed host in printable ASCII, or is none."""
    location = find_location(as_text(data), ("shop.example.com",))
    if location:
        assert location.isascii()
        assert location.isprintable()
        assert f".{host_of(location)}".endswith(".shop.example.com")


@target(b"https://x.example/?a={aff_sub}&b={transaction_id}&{unknown}{", b"https://x.example/{referer}/%zz")
def macros(data: bytes) -> None:
    """Any template and any value expand to printable ASCII."""
    text = clean(as_text(data))
    expanded = compile_template(text).expand(lambda name: text)
    assert expanded.isascii()
    assert expanded.isprintable() or not expanded


@target(b"\x00offer_id=17&aff_id=2", b"\x07transaction_id=" + ID.encode(), b"\x20click_id=x&sum=1&goal=2", b"\x11clickid=" + ID.encode())
def vendors_requests(data: bytes) -> None:
    """Any path of any vendor with any query: an answer that leads nowhere else, and an event that decodes."""
    path = PATHS[data[0] % len(PATHS)] if data else "/"
    handled = dispatch(STATE, request_of(as_text(data[1:]), path=path))
    answer = handled.answer
    assert 200 <= answer.status < 500 or answer.status == 503
    if answer.location:
        assert host_of(answer.location) in HOSTS
        assert answer.location.isprintable()
    if handled.event:
        event = decode(handled.event)
        if isinstance(event, Conversion):
            assert clean(event.transaction_id) == event.transaction_id
