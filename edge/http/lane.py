"""The fast front of the public port: hot requests answered in place, everything else handed to aiohttp for good.

Hot is a GET or HEAD without a body whose path is a dialect's or an alias. llhttp (httptools) checks each head, without
telling Python of its headers. What the header lines say is read once and remembered (`known_blocks`): of a request
whose lines are known only the first line is looked at.

N1  An answer is written only after its event is journalled, and answers leave in the order of their requests.
N2  A connection reads no further while 32 of its requests are unanswered, or while its peer does not read.
N3  What is handed over goes once all earlier answers are written; aiohttp answers it and closes the connection.
N4  A connection has 10 s for a TLS handshake, 10 s for each head, 75 s between two requests, and 75 s to read what it was sent.
N5  Connections are limited, in all and of one client (`places`).
N6  A malformed request gets one 4xx (501, 505) and a close, and no event.
N7  Before a worker ends, each connection's next answer says that it is the last; only then are silent ones closed.
"""

import asyncio
from collections import deque
from ipaddress import IPv4Network, IPv6Network

import httptools

from edge.http.answers import Dated
from edge.http.client_address import client_address, is_https
from edge.http.deadlines import HEAD_S, Clock
from edge.http.known_blocks import Block, KnownBlocks, read_block
from edge.http.limits import (
    BAD_REQUEST,
    HEAD_TOO_LARGE,
    HEAD_TOO_SLOW,
    MAX_REQUEST_LINE_BYTES,
    NO_SUCH_VERSION,
    find_fault_in_part,
    is_too_large,
)
from edge.http.places import Place, Places
from edge.http.proxy_protocol import came_over_tls, read_proxy_header
from edge.http.routes import ConnectionFactory
from edge.http.tracker import Tracker
from edge.http.unanswered import Unanswered
from edge.tracking.dialects import HOT_PATHS, is_pattern
from edge.tracking.parameters import parse_clean_query
from edge.tracking.request import Answer, Handled, Kind, Request

MAX_UNANSWERED = 32

_VERSION = b" HTTP/1.1"
_END = b"\r\n\r\n"
_SPACE = ord(" ")  # looking for b" " costs an exception that CPython raises and drops within
MAX_TARGET_BYTES = MAX_REQUEST_LINE_BYTES - len("HEAD  HTTP/1.1")


class LanePort:
    """What all connections of one worker share. `cold` makes aiohttp's protocol for what is handed over."""

    def __init__(
        self,
        tracker: Tracker,
        *,
        cold: ConnectionFactory,
        trusted: tuple[IPv4Network | IPv6Network, ...],
        is_on: bool,
        has_proxy: bool,
        places: Places,
    ) -> None:
        self.tracker = tracker
        self.cold = cold
        self.trusted = trusted
        self.is_on = is_on
        self.has_proxy = has_proxy
        self.places = places
        self.dated = Dated()
        self.clock = Clock(self.dated.refresh)
        self.blocks = KnownBlocks()
        self.connections: set[Lane] = set()
        self.is_retiring = False  # whether each answer is its connection's last (N7)


class Lane(asyncio.Protocol):
    """One connection."""

    __slots__ = (
        "_buffer",
        "_client_ip",
        "_handover",
        "_is_complete",
        "_is_https",
        "_is_last",
        "_is_lost",
        "_is_write_paused",
        "_parser",
        "_peer",
        "_place",
        "_queue",
        "_spare",
        "_tell_spare",
        "_transport",
        "_wants_close",
        "_wants_proxy",
        "deadline_s",
        "port",
    )

    def __init__(self, port: LanePort) -> None:
        self.port = port
        self._parser = httptools.HttpRequestParser(self)
        self._queue: deque[Unanswered] = deque()
        # Most connections have one request at a time, and so need one of these.
        self._spare = Unanswered(self)
        self._tell_spare = self._spare.done
        self._buffer = b""
        self._handover = b""
        self._is_complete = False
        self._is_last = False
        self._is_lost = False
        self._is_write_paused = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self._transport = transport
        peer = transport.get_extra_info("peername")
        self._peer = peer[0] if peer else ""
        self._is_https = transport.get_extra_info("sslcontext") is not None
        self._client_ip = client_address(self._peer, None, ())
        self._wants_proxy = self.port.has_proxy
        self.deadline_s = self.port.clock.now_s + HEAD_S
        self._place = Place(self.port.places)
        is_full = not self._place.is_granted
        if is_full or not (self._wants_proxy or self._place.name(self._peer)):
            self._is_last = True
            self.port.tracker.turn_away(transport.abort, is_full=is_full)
        self.port.connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self.port.connections.discard(self)
        self._place.leave()
        self._is_lost = self._is_last = True
        self._buffer = b""
        self._queue.clear()
        self._break_cycles()

    def _break_cycles(self) -> None:
        """No more requests: what refers to this connection and is referred to by it waits for no collector."""
        del self._parser, self._spare, self._tell_spare

    def on_message_complete(self) -> None:
        """llhttp: the head that was fed is a whole request. Only now does it know whether it is the last one."""
        self._is_complete = True
        self._wants_close = not self._parser.should_keep_alive()

    def data_received(self, data: bytes) -> None:
        if not (
            self._buffer
            or self._is_last
            or self._handover
            or self._is_write_paused
            or self._wants_proxy
            or len(self._queue) >= MAX_UNANSWERED
        ):
            end = data.find(_VERSION)
            find = self.port.blocks.find
            block = find(data[end + len(_VERSION) :])
            if block is not None and data.startswith(b"GET ") and self._answer("GET", data[4:end], block):
                return
        self._receive(data)

    def _receive(self, data: bytes) -> None:
        if self._handover:
            self._handover += data
            return
        if self._buffer:
            data = self._buffer + data
            self._buffer = b""
        if self._wants_proxy:
            data = self._read_proxy(data)
        start, size = 0, len(data)
        while start < size:
            if self._is_last or len(self._queue) >= MAX_UNANSWERED or self._is_write_paused:
                self._hold(data[start:])
                return
            if data.startswith(b"\r\n", start):  # an empty line before a request is nothing
                start += 2
                continue
            end = data.find(_END, start) + 4
            if end < 4:
                self._await_rest(data[start:])
                return
            if self._take(data[start:end], is_final=end == size):
                self._begin_handover(data[start:])
                return
            start = end

    def eof_received(self) -> bool:
        """The client asks no more; it may still wait for what it asked. (TLS knows no half of an end.)"""
        self._is_last = True
        return bool(self._queue) and self._transport.get_extra_info("sslcontext") is None

    def retire(self) -> None:
        """Make the last answer that is still to be written the last of all; what is handed over says so by itself."""
        if self._queue and not (self._buffer or self._handover or self._queue[-1].answer):
            self._is_last = self._queue[-1].is_last = True

    def end_idle(self, *, is_fresh_too: bool) -> None:
        """Close it if nothing of it is in hand; one that was just opened, and will ask, only if `is_fresh_too`."""
        may_end = is_fresh_too or self.deadline_s > self.port.clock.now_s + HEAD_S
        if may_end and not (self._queue or self._handover or self._buffer):
            self._is_last = True
            self._transport.close()

    def abort(self) -> None:
        """Close now."""
        self._transport.abort()

    def expire(self) -> None:
        """The deadline has passed (N4)."""
        if self._is_write_paused or (self._is_last and not self._queue):
            self._transport.abort()  # closed already, perhaps, but the peer does not take what was sent
        elif self._queue:
            self.deadline_s = self.port.clock.idle_s
        elif self._buffer:
            self._refuse(HEAD_TOO_SLOW)
        else:
            self._transport.close()

    def pause_writing(self) -> None:
        self._is_write_paused = True
        self.deadline_s = self.port.clock.idle_s
        self._transport.pause_reading()

    def resume_writing(self) -> None:
        self._is_write_paused = False
        if not self._handover:
            self._resume()
        elif not self._queue:
            self._hand_over()

    def release(self) -> None:
        """Write the answers that are due."""
        if self._is_lost:  # uvloop raises at a write to a closed transport
            return
        queue, transport = self._queue, self._transport
        while queue and queue[0].answer:
            transport.write(queue.popleft().answer)
        self.deadline_s = self.port.clock.idle_s
        if queue:
            return
        if self._handover:
            self._hand_over()
        elif self._is_last:
            transport.close()
        elif self._buffer:
            self._resume()

    def _take(self, head: bytes, *, is_final: bool) -> bool:
        """Answer a whole head or refuse it; True: it is for aiohttp."""
        line_end = head.find(b"\r\n")
        line, sent = head[:line_end], head[line_end:]
        fault = self._find_fault(head, line)
        if fault is not None:
            self._refuse(fault)
            return False
        is_last = self._wants_close or (self.port.is_retiring and is_final)
        block = read_block(sent, is_hot=self._is_complete, is_last=is_last)
        if not line.endswith(_VERSION):
            if line.endswith(b" HTTP/1.0") and b"\ntransfer-encoding:" not in sent.lower():  # RFC 9112 6.1: faulty
                return True
            self._refuse(BAD_REQUEST if line.endswith(b" HTTP/1.0") else NO_SUCH_VERSION)
            return False
        if not block.has_one_host:
            self._refuse(BAD_REQUEST)
            return False
        method, _, target = line[: -len(_VERSION)].partition(b" ")
        if _SPACE in target:  # llhttp takes more than one blank between the words
            self._refuse(BAD_REQUEST)
            return False
        is_here = block.is_hot and self.port.is_on and method in (b"GET", b"HEAD")
        if not (is_here and self._answer(method.decode(), target, block)):
            return True
        if not self.port.is_retiring:
            self.port.blocks.add(sent, block)
        return False

    def _find_fault(self, head: bytes, line: bytes) -> Answer | None:
        """The refusal of this head, if there must be one: what llhttp says, then what it does not look at."""
        self._is_complete = self._wants_close = False
        try:
            self._parser.feed_data(head)
        except httptools.HttpParserUpgrade:
            self._is_complete = False
        except httptools.HttpParserError:
            return BAD_REQUEST
        return HEAD_TOO_LARGE if is_too_large(head, line) else None

    def _answer(self, method: str, target: bytes, block: Block) -> bool:
        """Handle the request if it is a hot one. llhttp has accepted its block, but perhaps not yet seen its target."""
        port = self.port
        tracker = port.tracker
        try:
            path, _, query = target.decode("ascii").partition("?")
            params = parse_clean_query(query)
        except ValueError:  # not ASCII, or a control character
            return False
        if (
            _SPACE in target
            or len(target) > MAX_TARGET_BYTES
            or not (path in HOT_PATHS or (path[:1] == "/" and (tracker.state.catalog.alias(path[1:]) or is_pattern(path))))
        ):
            return False
        client_ip, secure = self._client_ip, self._is_https
        if port.trusted:
            client_ip = client_address(self._peer, block.forwarded_for, port.trusted)
            secure = is_https(secure, self._peer, block.forwarded_proto, port.trusted)
        now_ms = tracker.turn_ms or tracker.begin_turn()
        handled = tracker.handle(Request(method, path, params, block.headers, client_ip, secure, now_ms))
        self._is_last = self._is_last or block.is_last
        unanswered, done = self._spare, self._tell_spare
        if self._queue:
            unanswered = Unanswered(self)
            done = unanswered.done
        unanswered.answer = b""
        unanswered.handled = handled
        unanswered.is_head = method == "HEAD"
        unanswered.is_last = self._is_last
        self._queue.append(unanswered)
        if handled.event:
            tracker.submit(handled, done)
        else:
            done(True)
        return True

    def _refuse(self, answer: Answer) -> None:
        """One short answer after those before it, then close (N6)."""
        self._is_last = True
        refused = Unanswered(self)
        refused.answer, refused.handled = b"", Handled(Kind.OTHER, "bad_request", answer)
        refused.is_head, refused.is_last = False, True
        self._queue.append(refused)
        refused.done(True)

    def _begin_handover(self, data: bytes) -> None:
        """Hand `data` and all that follows to aiohttp, once earlier answers are written (N3)."""
        self._handover = data
        self._transport.pause_reading()
        if not self._queue:
            self._hand_over()

    def _hand_over(self) -> None:
        if self._is_write_paused:  # aiohttp does not know it, and stumbles when it is over: `resume_writing` goes on
            return
        data, self._handover = self._handover, b""
        self._is_last = True
        self.port.connections.discard(self)
        cold = self.port.cold()
        cold.place, cold.peer, cold.is_https = self._place, self._peer, self._is_https
        self._break_cycles()
        self._transport.set_protocol(cold)
        cold.connection_made(self._transport)
        self._transport.resume_reading()
        cold.data_received(data)

    def _hold(self, data: bytes) -> None:
        """Keep what cannot be taken now, and read no more (N2). What comes behind the last request is nothing."""
        if not self._is_last:
            self._buffer = data
            self._transport.pause_reading()

    def _resume(self) -> None:
        self._transport.resume_reading()
        data, self._buffer = self._buffer, b""
        if data:
            self.data_received(data)

    def _await_rest(self, data: bytes) -> None:
        fault = find_fault_in_part(data)
        if fault is not None:
            self._refuse(fault)
            return
        # Only its first bytes set the deadline: one byte a second does not put it off.
        self.deadline_s = min(self.deadline_s, self.port.clock.now_s + HEAD_S)
        self._buffer = data

    def _read_proxy(self, data: bytes) -> bytes:
        """What follows the balancer's header; nothing while that is incomplete."""
        try:
            found = read_proxy_header(data)
        except ValueError:
            self._is_last = True
            self._transport.close()
            return b""
        if found is None:
            self._buffer = data
            return b""
        address, consumed = found
        self._wants_proxy = False
        if address:
            self._peer = address
            self._is_https = self._is_https or came_over_tls(data[:consumed])
            self._client_ip = client_address(address, None, ())
        if not self._place.name(self._peer):
            self._is_last = True
            self.port.tracker.turn_away(self._transport.abort, is_full=False)
        return data[consumed:]
