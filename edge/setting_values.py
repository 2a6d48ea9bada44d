"""What the settings' texts mean: one parser for each kind of value, and how what is allowed is said.

A parser raises ValueError (OSError, KeyError, RuntimeError of a library) for what is not allowed.
"""

import re
from collections.abc import Callable, Mapping
from ipaddress import ip_network
from pathlib import Path
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo

from edge.tracking.urls import fault_in_url

MIN_SECRET_CHARACTERS = 16


def whole(least: int, most: int) -> Callable[[str], int]:
    """A whole number within these limits."""

    def parse(text: str) -> int:
        if not re.fullmatch(r"[0-9]{1,18}", text) or not least <= int(text) <= most:
            raise ValueError(text)
        return int(text)

    return parse


def scaled(units: Mapping[str, int], least: int, most: int) -> Callable[[str], int]:
    """A whole number with its unit; only 0 needs none."""

    def parse(text: str) -> int:
        match = re.fullmatch(r"([0-9]{1,15}) ?([A-Za-z]*)", text)
        if match is None:
            raise ValueError(text)
        number, unit = int(match[1]), match[2]
        value = number * (units[unit] if unit or number else 0)
        if not least <= value <= most:
            raise ValueError(text)
        return value

    return parse


def choice(choices: Mapping[str, object]) -> Callable[[str], object]:
    """One of these words, in any case."""
    return lambda text: choices[text.lower()]


def host(text: str) -> str:
    """A host name or an address."""
    if not re.fullmatch(r"[A-Za-z0-9.-]{1,253}|[0-9A-Fa-f:.]{2,45}", text):
        raise ValueError(text)
    text.encode("idna")  # as the resolver does: UnicodeError, a ValueError, for parts that are empty or too long
    return text


def path(text: str) -> str:
    """A path, made absolute."""
    if not text or "\0" in text:  # blanks alone would be the current folder
        raise ValueError(text)
    return str(Path(text).expanduser().absolute())


def file(text: str) -> str:
    """The path of an existing file."""
    if not Path(path(text)).is_file():
        raise ValueError(text)
    return path(text)


def database_url(text: str) -> str:
    """Where a PostgreSQL is."""
    parts = urlsplit(text)
    hosts = parts.netloc.rpartition("@")[2].split(",")
    if parts.scheme not in ("postgresql", "postgres") or not all(map(_HOST_AND_PORT.fullmatch, hosts)):
        raise ValueError(text)
    return text


def stream_url(text: str) -> str:
    """Where NATS servers are: one or more of nats://host:port; scheme, user and password of the first hold for all."""
    parts = [part.strip() for part in text.split(",")]
    scheme = parts[0].partition("://")[0] if "://" in parts[0] else "nats"
    urls = [urlsplit(part if "://" in part else f"{scheme}://{part}") for part in parts]
    user = urls[0].netloc.rpartition("@")[0]
    if scheme not in ("nats", "tls"):
        raise ValueError(text)
    for url in urls:
        # A server that is said to be another's than the first in these would be spoken to in clear, or as nobody.
        if url.scheme != scheme or url.netloc.rpartition("@")[0] not in ("", user):
            raise ValueError(text)
        if not url.hostname or url.path or url.query or url.fragment or not -1 < (url.port or 0) < 65536:
            raise ValueError(text)
    return text


def web_url(text: str) -> str:
    """An http or https URL without a macro in its host."""
    if fault_in_url(text) or not re.fullmatch(r"[!-~]{1,2048}", text):
        raise ValueError(text)
    return text


def time_zone(text: str) -> str:
    """An IANA time zone."""
    return ZoneInfo(text).key


def networks(text: str) -> tuple[str, ...]:
    """CIDRs with commas between."""
    return tuple(str(ip_network(part.strip())) for part in text.split(","))


def secret(text: str) -> str:
    """A secret of sufficient length."""
    if not re.fullmatch(rf"[!-~]{{{MIN_SECRET_CHARACTERS},512}}", text):
        raise ValueError("a secret")
    return text


def parse_secrets(text: str) -> tuple[str, ...]:
    """Comma-separated secrets, the signing one first; ValueError (which does not repeat them) for a bad one."""
    return tuple(secret(part.strip()) for part in text.split(","))


_HOST_AND_PORT = re.compile(r"(\[[^\]]*\]|[^:\[\]]*)(:[0-9]{0,5})?")
DURATION = {"s": 1, "m": 60, "h": 3600, "d": 86400}
SIZE = {"B": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40, "KB": 10**3, "MB": 10**6, "GB": 10**9}
SWITCH = {"on": True, "off": False, "true": True, "false": False, "1": True, "0": False}
DURABILITIES = {"process": "process", "disk": "disk", "replicated": "replicated"}
IP_STORAGES = {"full": "full", "truncated": "truncated", "none": "none"}
YEARS_S = 3650 * 86400

HOST = "a host name or an address"
PORT = "0 to 65535"
STREAM = "nats://host:port or tls://host:port; several with commas, all of one scheme and one user"
SWITCHED = "on or off"
DURABLE = "process, disk or, with a stream, replicated"
CHARACTERS = f"printable ASCII without spaces and commas, at least {MIN_SECRET_CHARACTERS} characters"
