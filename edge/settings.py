"""Every setting of the product: read once, checked together, frozen.

Flags beat the environment (`EDGE_*`), which beats the TOML file (the same names in lower case without the prefix),
which beats the defaults. An empty value means "not set here". Nothing else in the product reads the environment.
`Settings` says what each is for and what a wrong one does; `_SETTINGS`, at the end, how its text is read.
"""

import difflib
import os
import tomllib
from collections.abc import Callable, Iterable, Mapping
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import Any, Literal, NamedTuple

import msgspec

from edge import setting_values as kinds
from edge.errors import UserError

Durability = Literal["process", "disk", "replicated"]
IpStorage = Literal["full", "truncated", "none"]

ROOT_DATA_DIR = "/var/lib/clickedge"


class SettingsFaults(UserError):
    """Everything wrong with the settings; one fault a line."""

    def __init__(self, faults: Iterable[str]) -> None:
        self.faults = tuple(faults)
        super().__init__("\n".join(self.faults))


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """All settings, parsed. Paths are absolute strings, so that children in any folder read the same."""

    host: str = "0.0.0.0"
    """Public listener. Wrong: the networks' clicks are refused."""
    port: int = 8080
    """Public port; 0 takes a free one. Wrong: as `host`."""
    admin_host: str = "127.0.0.1"
    """Admin listener. Open to the world: reports and keys are one token away from anybody."""
    admin_port: int = 8081
    """Admin port; 0 takes a free one."""
    workers: int = 1
    """Edge processes. More than cores: tail latency grows. At most 62: two worker numbers of the id are taken."""
    drains: int = 1
    """Drain processes; 0, with a stream: others drain. Too few: the backlog grows at peak."""
    database_url: str = ""
    """PostgreSQL; empty: the embedded one. Wrong: redirects go on, the journal fills."""
    data_dir: str
    """Journals, snapshot, embedded database, secrets. Changed: a new, empty installation starts."""
    node_id: int = 0
    """This machine's number. Used twice: click ids could collide; the lease in Postgres stops the second machine."""
    secrets: tuple[str, ...] = ()
    """Keys of the click ids' tag; empty: generated. Lost: every open click's id counts as forged."""
    click_durability: Durability = "process"
    """`process`: a power cut costs the last fsync interval of clicks. `replicated`: each waits for other machines."""
    conversion_durability: Durability = "disk"
    """`process` here: a power cut can lose conversions that were answered with success."""
    fsync_interval_ms: int = 50
    """Larger: a power cut costs more. Smaller: more fsyncs compete with the drain's reads."""
    journal_max_bytes: int = 10 * 2**30
    """Too small: a short Postgres outage drops clicks and answers conversions with 503. Beyond the disk: ENOSPC."""
    journal_keep_s: int = 3600
    """Shorter than the age of the last database backup: a restore cannot be replayed."""
    session_capacity: int = 200_000
    """Too small: more look-ups in the drain. Too large: about 300 bytes of memory each, per worker."""
    batch_rows: int = 5000
    """Rows in one transaction. Too small: the drain slows down; too large: each retry repeats more."""
    batch_interval_ms: int = 200
    """How long a batch waits for more rows; reports lag by it."""
    conversion_wait_s: int = 72 * 3600
    """Too short: a conversion that beats a stuck journal's click is `unknown_click` for a while."""
    timezone: str = "UTC"
    """Days of caps and reports. Wrong: they start at another hour than the contract's."""
    trusted_proxies: tuple[str, ...] = ()
    """CIDRs. Too wide: clients forge their address. Too narrow: every click comes from the proxy."""
    proxy_protocol: bool = False
    """On without such a proxy in front: every connection is refused."""
    geoip_db: str = ""
    """A missing or damaged file: places are unknown, and rules on them never match."""
    datacentre_list: str = ""
    """Empty: the packaged list of large clouds. A wrong file: buyers are flagged, or none of the bots there."""
    fallback_url: str = ""
    """Empty: a click that no offer can take is answered with 404."""
    unique_hours: int = 24
    """Longer: more memory in the drain, fewer unique clicks. 0: none is a duplicate."""
    unique_capacity: int = 10_000_000
    """Too small: visitors of the last hours are forgotten early. Too large: 27 to 53 bytes of memory each."""
    client_connections: int = 0
    """Of one client's address, in each worker; 0: three quarters of all. Too small: carriers' and offices' users are shut out."""
    lane: bool = True
    """Off: every request goes through aiohttp, one a connection, and costs more."""
    tls_cert: str = ""
    """PEM chain; with `tls_key`."""
    tls_key: str = ""
    """PEM key; with `tls_cert`."""
    click_retention_s: int = 400 * 86400
    """Shorter than the longest click window: late conversions find no click."""
    ip_storage: IpStorage = "full"
    """Less than `full`: addresses cannot be restored later."""
    honour_gpc: bool = True
    """Off: check the law of your visitors first."""
    honour_dnt: bool = False
    """On: visitors whose browser still sends the older `DNT: 1` get no cookie either: their pixels find no click."""
    postback_allow: tuple[str, ...] = ()
    """CIDRs. Too wide: whoever edits a partner's address reaches what only this machine should."""
    postback_timeout_s: int = 10
    """Shorter: slow partners count as failed and hear twice. Longer: a hanging one is waited for."""
    postback_retry_s: int = 5
    """The first pause after a failure; each next one is three times as long, at most 6 hours."""
    admin_token: str = ""
    """The first API key; empty: generated into a file."""
    stream_url: str = ""
    """NATS servers, with commas; empty: one machine, its drains read its journals. Wrong: the journals fill."""
    stream_credentials: str = ""
    """A NATS credentials file. Wrong: as a wrong `stream_url`."""
    stream_partitions: int = 16
    """Of the journals begun from now on. Fewer than drains: some stand by. More: smaller transactions."""
    stream_replicas: int = 3
    """Servers that have each event when it counts as shipped. 1: its disk's loss is a loss of events."""
    stream_keep_s: int = 3600
    """Shorter than the age of the last database backup: a restore must be replayed from the edges' disks."""
    stream_max_bytes: int = 0
    """0: as much as the servers allow. Too small: a short outage of the drains fills the edges' disks instead."""
    stream_monitor_port: int = 8222
    """The servers' monitoring port, where their sync_interval is looked up. Wrong: they count as unsynced."""
    allow_unsynced_stream: bool = False
    """On: a power cut of the stream's machines can lose events that no edge has any more."""
    shipper: bool = True
    """Off: `serve` starts no shipper; something else must run `clickedge ship` on the data dir."""
    api_rate_limit: int = 1200
    """Requests a minute of one API key; 0: any number. Too small: scripts get 429. Too large: one key can slow all."""

    @property
    def data_path(self) -> Path:
        """The data dir as a path."""
        return Path(self.data_dir)

    @property
    def trusted_networks(self) -> tuple[IPv4Network | IPv6Network, ...]:
        """`trusted_proxies`, parsed."""
        return tuple(ip_network(cidr) for cidr in self.trusted_proxies)

    @property
    def postback_networks(self) -> tuple[IPv4Network | IPv6Network, ...]:
        """`postback_allow`, parsed."""
        return tuple(ip_network(cidr) for cidr in self.postback_allow)

    def __repr__(self) -> str:
        """Without a secret in it: settings end up in logs and tracebacks."""
        hidden = {setting.field for setting in _SETTINGS.values() if setting.is_secret}
        values = msgspec.structs.asdict(self)
        shown = (f"{name}={'…' if name in hidden and value else repr(value)}" for name, value in values.items())
        return f"Settings({', '.join(shown)})"


class _Setting(NamedTuple):
    """How one setting is read: `parse` raises ValueError for what `allowed` does not describe."""

    field: str
    parse: Callable[[str], object]
    allowed: str
    is_secret: bool = False


def load_settings(
    environ: Mapping[str, str], config_file: Path | None, flags: Mapping[str, object], *, uid: int | None = None
) -> Settings:
    """Settings from all sources; `flags` by setting name, None where not given. SettingsFaults names every fault."""
    faults: list[str] = []
    given: dict[str, tuple[str, str]] = {}
    given.update(_from_file(config_file, faults))
    given.update(_from_environment(environ, faults))
    given.update(_from_flags(flags))
    values: dict[str, Any] = {"data_dir": _default_data_dir(os.geteuid() if uid is None else uid)}
    for name, (label, text) in given.items():
        _parse_one(_SETTINGS[name], label, text, values, faults)
    faults.extend(_cross_faults(values, given))
    if faults:
        raise SettingsFaults(faults)
    return Settings(**values)


def _default_data_dir(uid: int) -> str:
    return ROOT_DATA_DIR if uid == 0 else str(Path("data").absolute())


def _from_environment(environ: Mapping[str, str], faults: list[str]) -> dict[str, tuple[str, str]]:
    given = {}
    for label, text in environ.items():
        name = label.removeprefix("EDGE_").lower()
        if not label.startswith("EDGE_"):
            continue
        if name not in _SETTINGS or not label.isupper():
            faults.append(f"{label}: no such setting{_suggestion(name, 'EDGE_{}', str.upper)}")
        elif text:
            given[name] = (label, text)
    return given


def _from_file(config_file: Path | None, faults: list[str]) -> dict[str, tuple[str, str]]:
    given = {}
    for name, value in _read_toml(config_file, faults).items():
        label = f"{name} in {config_file}"
        if name not in _SETTINGS:
            faults.append(f"{label}: no such setting{_suggestion(name, '{}', str.lower)}")
        elif (text := _as_text(value)) is None:
            faults.append(f"{label}: is a {type(value).__name__}, allowed: {_SETTINGS[name].allowed}")
        elif text:
            given[name] = (label, text)
    return given


def _read_toml(config_file: Path | None, faults: list[str]) -> dict[str, Any]:
    if config_file is None:
        return {}
    try:
        return tomllib.loads(config_file.read_text("utf-8"))
    except OSError as error:
        faults.append(f"--config {config_file}: cannot be read ({error.strerror}); give a TOML file")
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        faults.append(f"--config {config_file}: is not TOML: {error}")
    return {}


def _from_flags(flags: Mapping[str, object]) -> dict[str, tuple[str, str]]:
    return {
        name: (_flag(name), text) for name, value in flags.items() if value is not None and (text := _as_text(value))
    }


def _flag(name: str) -> str:
    return "--" + name.removesuffix("_url").replace("_", "-")


def _suggestion(name: str, form: str, case: Callable[[str], str]) -> str:
    near = difflib.get_close_matches(name.lower(), _SETTINGS, n=1)
    return f"; did you mean {form.format(case(near[0]))}?" if near else ""


def _as_text(value: object) -> str | None:
    """What the environment would say for a value of a TOML file or flag; None for what it cannot say."""
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, list | tuple):
        return ",".join(value) if all(isinstance(item, str) for item in value) else None
    return str(value) if isinstance(value, str | int | Path) else None


def _parse_one(setting: _Setting, label: str, text: str, values: dict[str, Any], faults: list[str]) -> None:
    try:
        values[setting.field] = setting.parse(text.strip())
    except (ValueError, OSError, KeyError, RuntimeError):
        shown = f"({len(text)} characters, not shown)" if setting.is_secret else repr(text[:200])
        faults.append(f"{label}: {shown} is not allowed; allowed: {setting.allowed}")


def _cross_faults(values: Mapping[str, Any], given: Mapping[str, object]) -> Iterable[str]:
    """Faults of settings that are right one by one."""
    if "database_url" in given:
        for name in ("secret", "node_id"):
            if name not in given:
                yield f"EDGE_{name.upper()}: not set; with a database URL it must be: {_SETTINGS[name].allowed}"
    for name, other in (("tls_cert", "tls_key"), ("tls_key", "tls_cert")):
        if name in given and other not in given:
            yield f"EDGE_{other.upper()}: not set; EDGE_{name.upper()} needs it: {_SETTINGS[other].allowed}"
    yield from _stream_faults(values, given)
    is_faulty = any(name in given and name not in values for name in ("port", "admin_port"))
    settings = Settings(**values)
    if settings.port == settings.admin_port != 0 and not is_faulty:
        yield f"EDGE_ADMIN_PORT: {settings.admin_port} is the public port too; allowed: another port, or 0"


def _stream_faults(values: Mapping[str, Any], given: Mapping[str, object]) -> Iterable[str]:
    """Of one machine alone what only several can do, and of several what only one can."""
    if "stream_url" not in given:
        for name in ("click_durability", "conversion_durability"):
            if values.get(name) == "replicated":
                yield f"EDGE_{name.upper()}: 'replicated' needs EDGE_STREAM_URL: {_SETTINGS['stream_url'].allowed}"
        if values.get("drains") == 0:
            yield "EDGE_DRAINS: 0 needs EDGE_STREAM_URL: without a stream nobody else could drain"
    elif "database_url" not in given and values.get("drains") == 0:
        yield "EDGE_DRAINS: 0 needs EDGE_DATABASE_URL: other machines cannot drain into the embedded database"


_SETTINGS = {
    "host": _Setting("host", kinds.host, kinds.HOST),
    "port": _Setting("port", kinds.whole(0, 65535), kinds.PORT),
    "admin_host": _Setting("admin_host", kinds.host, kinds.HOST),
    "admin_port": _Setting("admin_port", kinds.whole(0, 65535), kinds.PORT),
    "workers": _Setting("workers", kinds.whole(1, 62), "1 to 62"),
    "drains": _Setting("drains", kinds.whole(0, 16), "1 to 16, or 0 with a stream"),
    "database_url": _Setting("database_url", kinds.database_url, "postgresql://user:password@host:port/database", True),
    "data_dir": _Setting("data_dir", kinds.path, "a directory's path"),
    "node_id": _Setting("node_id", kinds.whole(0, 1023), "0 to 1023, another on each machine"),
    "secret": _Setting("secrets", kinds.parse_secrets, f"{kinds.CHARACTERS}; several with commas between", True),
    "click_durability": _Setting("click_durability", kinds.choice(kinds.DURABILITIES), kinds.DURABLE),
    "conversion_durability": _Setting("conversion_durability", kinds.choice(kinds.DURABILITIES), kinds.DURABLE),
    "fsync_interval_ms": _Setting("fsync_interval_ms", kinds.whole(1, 10_000), "1 to 10000"),
    "journal_max_bytes": _Setting(
        "journal_max_bytes", kinds.scaled(kinds.SIZE, 2**20, 2**60), "a size such as 10GiB, from 1MiB"
    ),
    "journal_keep": _Setting(
        "journal_keep_s", kinds.scaled(kinds.DURATION, 0, kinds.YEARS_S), "a duration such as 1h, or 0"
    ),
    "session_capacity": _Setting("session_capacity", kinds.whole(1, 50_000_000), "1 to 50000000"),
    "batch_rows": _Setting("batch_rows", kinds.whole(1, 100_000), "1 to 100000"),
    "batch_interval_ms": _Setting("batch_interval_ms", kinds.whole(1, 60_000), "1 to 60000"),
    "conversion_wait": _Setting(
        "conversion_wait_s", kinds.scaled(kinds.DURATION, 0, kinds.YEARS_S), "a duration such as 72h, or 0"
    ),
    "timezone": _Setting("timezone", kinds.time_zone, "an IANA time zone such as Europe/Berlin"),
    "trusted_proxies": _Setting("trusted_proxies", kinds.networks, "CIDRs such as 10.0.0.0/8,2001:db8::/32"),
    "proxy_protocol": _Setting("proxy_protocol", kinds.choice(kinds.SWITCH), kinds.SWITCHED),
    "geoip_db": _Setting("geoip_db", kinds.path, "an .mmdb file's path"),
    "datacentre_list": _Setting("datacentre_list", kinds.path, "the path of a file with a CIDR a line"),
    "fallback_url": _Setting("fallback_url", kinds.web_url, "an http or https URL without a macro in its host"),
    "unique_hours": _Setting("unique_hours", kinds.whole(0, 8760), "0 to 8760"),
    "unique_capacity": _Setting("unique_capacity", kinds.whole(1000, 1_000_000_000), "1000 to 1000000000"),
    "client_connections": _Setting("client_connections", kinds.whole(0, 1_000_000), "0 to 1000000"),
    "lane": _Setting("lane", kinds.choice(kinds.SWITCH), kinds.SWITCHED),
    "tls_cert": _Setting("tls_cert", kinds.file, "an existing PEM file's path"),
    "tls_key": _Setting("tls_key", kinds.file, "an existing PEM file's path"),
    "click_retention": _Setting(
        "click_retention_s", kinds.scaled(kinds.DURATION, 86400, kinds.YEARS_S), "a duration from 1d"
    ),
    "ip_storage": _Setting("ip_storage", kinds.choice(kinds.IP_STORAGES), "full, truncated or none"),
    "honour_gpc": _Setting("honour_gpc", kinds.choice(kinds.SWITCH), kinds.SWITCHED),
    "honour_dnt": _Setting("honour_dnt", kinds.choice(kinds.SWITCH), kinds.SWITCHED),
    "postback_allow": _Setting("postback_allow", kinds.networks, "CIDRs such as 10.1.2.0/24"),
    "postback_timeout": _Setting(
        "postback_timeout_s", kinds.scaled(kinds.DURATION, 1, 60), "a duration from 1s to 60s"
    ),
    "postback_retry": _Setting("postback_retry_s", kinds.scaled(kinds.DURATION, 1, 3600), "a duration from 1s to 1h"),
    "stream_url": _Setting(
        "stream_url", kinds.stream_url, kinds.STREAM, True
    ),
    "stream_credentials": _Setting("stream_credentials", kinds.file, "an existing file's path"),
    "stream_partitions": _Setting("stream_partitions", kinds.whole(1, 256), "1 to 256"),
    "stream_replicas": _Setting("stream_replicas", kinds.whole(1, 5), "1 to 5"),
    "stream_keep": _Setting(
        "stream_keep_s", kinds.scaled(kinds.DURATION, 0, kinds.YEARS_S), "a duration such as 1h, or 0"
    ),
    "stream_max_bytes": _Setting("stream_max_bytes", kinds.scaled(kinds.SIZE, 0, 2**60), "a size such as 100GiB, or 0"),
    "stream_monitor_port": _Setting("stream_monitor_port", kinds.whole(1, 65535), "1 to 65535"),
    "allow_unsynced_stream": _Setting("allow_unsynced_stream", kinds.choice(kinds.SWITCH), kinds.SWITCHED),
    "shipper": _Setting("shipper", kinds.choice(kinds.SWITCH), kinds.SWITCHED),
    "admin_token": _Setting("admin_token", kinds.secret, kinds.CHARACTERS, True),
    "api_rate_limit": _Setting("api_rate_limit", kinds.whole(0, 1_000_000), "0 to 1000000"),
}
