"""What a click's user agent and address tell: device, browser, bot; country, region, city. Never fails a click.

Places are cached by exact address: a database's networks are of any size, so that a cache by /24 would answer wrongly.
"""

import os
import re
import time
from collections.abc import Callable
from functools import lru_cache
from itertools import takewhile
from pathlib import Path
from typing import NamedTuple, Self

import maxminddb
import structlog
from ua_parser import Domain, PartialResult
from ua_parser.loaders import load_builtins

from edge.crawlers import is_crawler, load_patterns
from edge.datacentres import Datacentres
from edge.errors import UserError
from edge.logs import RateLimited
from edge.settings import Settings
from edge.tracking.surroundings import UNKNOWN_DEVICE, UNKNOWN_PLACE, Device, Place

try:
    from ua_parser.regex import Resolver
except ImportError as missing:
    raise UserError(f"ua-parser's Rust core is missing ({missing}); install the locked packages: make setup") from None

USER_AGENT_CHARACTERS = 512
CACHED_USER_AGENTS = 20_000
CACHED_PLACES = 100_000
CHECK_INTERVAL_S = 1.0
LOG_INTERVAL_S = 60.0
LATEST_S = 1 << 40

_TELEVISION = re.compile(
    r"smart-?tv|\btv\b|appletv|googletv|hbbtv|web0s|bravia|crkey|roku|\baft[a-z]|playstation|xbox|nintendo",
    re.IGNORECASE,
)
_TABLET = re.compile(r"ipad|tablet|kindle|silk/|playbook", re.IGNORECASE)
_MOBILE = re.compile(r"mobi|iphone|ipod|midp|phone|opera mini|blackberry|kaios", re.IGNORECASE)
_DESKTOP_OS = re.compile(
    r"windows(?! phone| mobile| ce)|mac os|linux|chrome os|ubuntu|fedora|debian|bsd|solaris", re.IGNORECASE
)


class FoundDatabase(NamedTuple):
    """A geo database that is another than the one in use. No `reader`: there is none, or none that can be used."""

    reader: maxminddb.Reader | None
    stamp: tuple[int, ...]


class Enricher:
    """Device and place of one process. `clock` gives monotonic seconds. Loading takes about 0.3 s."""

    def __init__(
        self,
        geoip_path: Path | None,
        clock: Callable[[], float],
        datacentre_list: Path | None = None,
        *,
        checks_itself: bool = True,
    ) -> None:
        """`datacentre_list`: a file of address blocks; None: the packaged list. `checks_itself`: looks for another geo
        database while it is asked, which may take long; else its owner does.
        """
        self._resolve = Resolver(load_builtins())
        load_patterns()  # now, and not while a click waits
        self._device = lru_cache(CACHED_USER_AGENTS)(self._parse_device)
        self._place = lru_cache(CACHED_PLACES)(self._find_place)
        self._clock = clock
        self.is_datacentre = Datacentres(datacentre_list, clock).holds
        """Whether an address is in a data centre."""
        self._log = RateLimited(structlog.get_logger(), LOG_INTERVAL_S, clock)
        self._geoip_path = geoip_path
        self._geoip: maxminddb.Reader | None = None
        self._geoip_stamp: tuple[int, ...] = ()
        self._next_check_s = float("-inf" if checks_itself else "inf")

    @classmethod
    def of(cls, settings: Settings, *, checks_itself: bool = True) -> Self:
        """The enricher of a process with these settings."""
        geoip, datacentres = (Path(one) if one else None for one in (settings.geoip_db, settings.datacentre_list))
        return cls(geoip, time.monotonic, datacentres, checks_itself=checks_itself)

    def device(self, user_agent: str) -> Device:
        """The device that `user_agent` names."""
        return self._device(user_agent[:USER_AGENT_CHARACTERS])

    def place(self, ip: str) -> Place:
        """Where `ip` is, by the database as it stood at most a second ago."""
        if self._geoip_path is None:
            return UNKNOWN_PLACE
        now_s = self._clock()
        if now_s >= self._next_check_s:
            self._next_check_s = now_s + CHECK_INTERVAL_S
            self.take(self.look())
        return self._place(ip)

    def _parse_device(self, user_agent: str) -> Device:
        if not user_agent:
            return UNKNOWN_DEVICE
        return _device(user_agent.encode("utf-8", "replace").decode(), self._resolve)

    def look(self) -> FoundDatabase | None:
        """The database if it is another now. For any thread; a damaged successor leaves the last good one in use."""
        path = self._geoip_path
        if path is None:
            return None
        stamp: tuple[int, ...] = ()
        try:
            status = path.stat()
            stamp = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)
            return None if stamp == self._geoip_stamp else FoundDatabase(_open_private(path), stamp)
        except FileNotFoundError:
            self._log.warning("geoip database missing", path=str(path))
            return FoundDatabase(None, ()) if self._geoip else None
        except (OSError, ValueError, maxminddb.InvalidDatabaseError) as error:
            self._log.warning("geoip database unusable", path=str(path), error=str(error))
            return FoundDatabase(self._geoip, stamp)

    @property
    def geoip_built_s(self) -> int:
        """When the geo database in use says it was built, Unix seconds; 0: there is none, or it does not say."""
        built_s: object = self._geoip.metadata().build_epoch if self._geoip else 0
        return min(max(built_s, 0), LATEST_S) if isinstance(built_s, int) else 0

    def take(self, found: FoundDatabase | None) -> None:
        """Use what `look` found: in the thread that asks."""
        if found is not None:
            self._geoip, self._geoip_stamp = found
            self._place.cache_clear()

    def _find_place(self, ip: str) -> Place:
        if self._geoip is None:
            return UNKNOWN_PLACE
        try:
            return _place(self._geoip.get(ip))
        except (ValueError, TypeError):  # No address, a NUL in it, or an IPv6 one in an IPv4 database.
            return UNKNOWN_PLACE
        except maxminddb.InvalidDatabaseError as error:
            self._log.warning("geoip database damaged", path=str(self._geoip_path), error=str(error))
            return UNKNOWN_PLACE


def _open_private(path: Path) -> maxminddb.Reader:
    """A reader of a copy in memory: a file overwritten in place under a mapping of it would kill us with SIGBUS."""
    copy = os.memfd_create("geoip")
    try:
        with path.open("rb") as file:
            while os.sendfile(copy, file.fileno(), None, 1 << 24):
                pass
        return maxminddb.open_database(f"/proc/self/fd/{copy}")
    finally:
        os.close(copy)


def _device(user_agent: str, resolve: Resolver) -> Device:
    found = resolve(user_agent, Domain.ALL)
    family = found.device.family if found.device else ""
    brand = (found.device.brand if found.device else "") or ""
    os_family = found.os.family if found.os else ""
    is_bot = family == "Spider" or is_crawler(user_agent)
    return Device(
        device_type="bot" if is_bot else _device_type(user_agent, os_family, brand),
        device_brand="" if is_bot or brand.startswith("Generic") else brand,
        os=os_family,
        browser=found.user_agent.family if found.user_agent else "",
        is_bot=is_bot,
        device_model="" if is_bot else _model(found),
        os_version=_version(found),
    )


def _model(found: PartialResult) -> str:
    """The model, where the brand is one: of the rest the patterns say "Smartphone" or "Generic"."""
    brand = (found.device.brand if found.device else "") or ""
    return "" if not found.device or not brand or brand.startswith("Generic") else found.device.model or ""


def _version(found: PartialResult) -> str:
    """The system's version as far as it is told: `17.4`, `10`."""
    parts = (found.os.major, found.os.minor, found.os.patch) if found.os else ()
    return ".".join(takewhile(bool, (part or "" for part in parts)))


def _device_type(user_agent: str, os_family: str, brand: str) -> str:
    if _TELEVISION.search(user_agent):
        return "other"
    if _TABLET.search(user_agent) or "Tablet" in brand:
        return "tablet"
    if _MOBILE.search(user_agent):
        return "mobile"
    if os_family == "Android":  # Android's browsers say "Mobile" on phones only.
        return "tablet"
    return "desktop" if _DESKTOP_OS.search(os_family) else "other"


def _place(record: object) -> Place:
    country = _text(record, "country", "iso_code") or _text(record, "country_code")
    region = _text(record, "subdivisions", 0, "iso_code") or _text(record, "subdivisions", 0, "names", "en")
    return Place(country=country, region=region, city=_text(record, "city", "names", "en"))


def _text(record: object, *path: str | int) -> str:
    """The text at `path` of a database's record; "" where the record has another shape."""
    for step in path:
        if isinstance(step, str) and isinstance(record, dict):
            record = record.get(step)
        elif isinstance(step, int) and isinstance(record, list) and step < len(record):
            record = record[step]
        else:
            return ""
    return record if isinstance(record, str) else ""
