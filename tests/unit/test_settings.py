"""edge/settings.py: every fault at once, in words; secrets never shown."""

from collections.abc import Mapping
from pathlib import Path

import msgspec
import pytest

from edge.errors import UserError
from edge.settings import Settings, SettingsFaults, load_settings

SECRET = "correct-horse-battery"
EXTERNAL = {"EDGE_DATABASE_URL": "postgresql://u:hunter22@db/x", "EDGE_SECRET": SECRET, "EDGE_NODE_ID": "3"}


def load(environ: Mapping[str, str], **flags: object) -> Settings:
    return load_settings(environ, None, flags, uid=1000)


def faults_of(environ: Mapping[str, str], config: Path | None = None, **flags: object) -> list[str]:
    with pytest.raises(UserError) as caught:
        load_settings(environ, config, flags, uid=1000)
    assert isinstance(caught.value, SettingsFaults)
    assert str(caught.value).splitlines() == list(caught.value.faults)
    return list(caught.value.faults)


def test_the_defaults_are_the_contracts() -> None:
    """With nothing set, the table of the contract holds."""
    settings = load({})
    assert (settings.host, settings.port, settings.admin_host, settings.admin_port) == (
        "0.0.0.0", 8080, "127.0.0.1", 8081,
    )  # fmt: skip
    assert (settings.workers, settings.drains, settings.node_id, settings.secrets) == (1, 1, 0, ())
    assert (settings.click_durability, settings.conversion_durability) == ("process", "disk")
    assert (settings.journal_max_bytes, settings.journal_keep_s) == (10 * 1024**3, 3600)
    assert (settings.conversion_wait_s, settings.click_retention_s) == (72 * 3600, 400 * 86400)
    assert (settings.session_capacity, settings.batch_rows, settings.batch_interval_ms) == (200_000, 5000, 200)
    assert (settings.lane, settings.honour_gpc, settings.proxy_protocol) == (True, True, False)


def test_the_default_data_dir_depends_on_the_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """root's data is where an unprivileged database user can reach it; everybody else's is in the folder."""
    monkeypatch.chdir(tmp_path)
    assert load_settings({}, None, {}, uid=0).data_dir == "/var/lib/clickedge"
    assert load({}).data_dir == str(tmp_path / "data")


def test_flags_beat_the_environment_which_beats_the_file(tmp_path: Path) -> None:
    """Each source wins over the next; a source that does not name a setting does not touch it."""
    config = tmp_path / "clickedge.toml"
    config.write_text(f'port = 1\nadmin_port = 11\nworkers = 3\nlane = false\nsecret = ["{SECRET}", "{SECRET * 2}"]\n')
    settings = load_settings({"EDGE_PORT": "2", "EDGE_ADMIN_PORT": "12"}, config, {"port": 5, "host": None}, uid=1)
    assert (settings.port, settings.admin_port, settings.workers, settings.lane) == (5, 12, 3, False)
    assert settings.secrets == (SECRET, SECRET * 2)
    assert settings.host == "0.0.0.0"


def test_an_empty_value_means_not_set_here() -> None:
    """`EDGE_PORT=` of a compose file is no fault."""
    assert load({"EDGE_PORT": "", "EDGE_GEOIP_DB": "", "PATH": "/bin"}) == load({})


@pytest.mark.parametrize(
    ("name", "text", "field", "value"),
    [
        ("JOURNAL_MAX_BYTES", "512MiB", "journal_max_bytes", 512 * 2**20),
        ("JOURNAL_MAX_BYTES", "2 GB", "journal_max_bytes", 2 * 10**9),
        ("JOURNAL_KEEP", "0", "journal_keep_s", 0),
        ("CONVERSION_WAIT", "90m", "conversion_wait_s", 5400),
        ("CLICK_RETENTION", "30d", "click_retention_s", 30 * 86400),
        ("TRUSTED_PROXIES", "10.0.0.0/8, 2001:db8::/32", "trusted_proxies", ("10.0.0.0/8", "2001:db8::/32")),
        ("PROXY_PROTOCOL", "ON", "proxy_protocol", True),
        ("HONOUR_GPC", "off", "honour_gpc", False),
        ("HONOUR_DNT", "on", "honour_dnt", True),
        ("IP_STORAGE", "truncated", "ip_storage", "truncated"),
        ("TIMEZONE", "Europe/Berlin", "timezone", "Europe/Berlin"),
        ("SECRET", f"{SECRET}, {SECRET}2", "secrets", (SECRET, SECRET + "2")),
        ("FALLBACK_URL", "https://example.com/?a=1", "fallback_url", "https://example.com/?a=1"),
        ("HOST", "::", "host", "::"),
        ("PORT", "0", "port", 0),
        ("WORKERS", "62", "workers", 62),
        ("NODE_ID", "1023", "node_id", 1023),
    ],
)
def test_a_value_is_parsed_into_its_unit(name: str, text: str, field: str, value: object) -> None:
    """Durations become seconds, sizes bytes, switches booleans, lists tuples."""
    assert getattr(load({f"EDGE_{name}": text}), field) == value


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("PORT", "65536"), ("PORT", "-1"), ("PORT", "80.0"), ("PORT", "٨٠"), ("WORKERS", "0"), ("WORKERS", "63"),
        ("DRAINS", "17"), ("NODE_ID", "1024"), ("JOURNAL_MAX_BYTES", "10"), ("JOURNAL_MAX_BYTES", "10 parsecs"),
        ("JOURNAL_MAX_BYTES", "1KiB"), ("JOURNAL_KEEP", "5"), ("CONVERSION_WAIT", "h"), ("CONVERSION_WAIT", "1.5h"),
        ("CLICK_RETENTION", "1h"), ("TIMEZONE", "Mars/Olympus"), ("TIMEZONE", "../../etc/passwd"),
        ("TIMEZONE", "Europe"), ("TRUSTED_PROXIES", "10.0.0.1/8"), ("TRUSTED_PROXIES", "proxy.example"),
        ("LANE", "maybe"), ("IP_STORAGE", "some"), ("CLICK_DURABILITY", "ram"), ("HOST", "a b"),
        ("FALLBACK_URL", "javascript:alert(1)"), ("FALLBACK_URL", "https://"), ("FALLBACK_URL", "https://a/\r\nX: y"),
        ("FALLBACK_URL", "https://[/"), ("TLS_CERT", "/nowhere/cert.pem"), ("DATA_DIR", "a\0b"),
        ("FSYNC_INTERVAL_MS", "0"), ("BATCH_ROWS", "9" * 40), ("DATA_DIR", " "), ("GEOIP_DB", " "), ("HOST", "a..b"),
        ("HOST", "."), ("ADMIN_HOST", "a" * 64),
    ],
)  # fmt: skip
def test_a_value_that_is_not_allowed_is_named_with_what_is(name: str, text: str) -> None:
    """The line holds the setting's name, the value given and what is allowed."""
    environ = {f"EDGE_{name}": text, "EDGE_TLS_KEY": __file__}
    if name != "TLS_CERT":
        del environ["EDGE_TLS_KEY"]
    (fault,) = faults_of(environ)
    assert fault.startswith(f"EDGE_{name}: {text!r} is not allowed; allowed: ")


def test_all_faults_are_reported_together(tmp_path: Path) -> None:
    """One start shows everything wrong, whichever source it came from."""
    config = tmp_path / "c.toml"
    config.write_text("prot = 1\ndrains = 99\nworkers = 1.5\nlane = {}\nbatch_rows = 1\n")
    environ = {"EDGE_PORTT": "1", "EDGE_node_id": "1", "EDGE_HOST": "a b", "EDGE_TLS_KEY": __file__}
    faults = faults_of(environ, config, workers=99, port=8081)
    assert faults == [
        f"prot in {config}: no such setting; did you mean port?",
        f"workers in {config}: is a float, allowed: 1 to 62",
        f"lane in {config}: is a dict, allowed: on or off",
        "EDGE_PORTT: no such setting; did you mean EDGE_PORT?",
        "EDGE_node_id: no such setting; did you mean EDGE_NODE_ID?",
        f"drains in {config}: '99' is not allowed; allowed: 1 to 16, or 0 with a stream",
        "EDGE_HOST: 'a b' is not allowed; allowed: a host name or an address",
        "--workers: '99' is not allowed; allowed: 1 to 62",
        "EDGE_TLS_CERT: not set; EDGE_TLS_KEY needs it: an existing PEM file's path",
        "EDGE_ADMIN_PORT: 8081 is the public port too; allowed: another port, or 0",
    ]


@pytest.mark.parametrize(
    ("content", "said"), [(None, "cannot be read"), (b"port = ", "is not TOML"), (b"\xff", "is not TOML")]
)
def test_a_config_file_that_cannot_be_used_is_one_line(tmp_path: Path, content: bytes | None, said: str) -> None:
    """A missing or broken file is a fault like any other, beside the others."""
    config = tmp_path / "c.toml"
    if content is not None:
        config.write_bytes(content)
    first, second = faults_of({"EDGE_PORT": "x"}, config)
    assert said in first
    assert second.startswith("EDGE_PORT")


def test_a_database_url_needs_a_secret_and_a_node_id() -> None:
    """Two machines on one database must share a secret and differ in number: neither may be left to chance."""
    assert load(EXTERNAL).node_id == 3
    faults = faults_of({}, database_url=EXTERNAL["EDGE_DATABASE_URL"])
    assert [fault.split(":")[0] for fault in faults] == ["EDGE_SECRET", "EDGE_NODE_ID"]


@pytest.mark.parametrize(
    "environ",
    [
        {"EDGE_SECRET": "hunter22"},
        {"EDGE_SECRET": f"{SECRET},hunter22"},
        {"EDGE_SECRET": f"{SECRET},"},
        {"EDGE_ADMIN_TOKEN": "hunter22"},
        {"EDGE_ADMIN_TOKEN": "hunter22 hunter22 hunter22"},
        {**EXTERNAL, "EDGE_DATABASE_URL": "mysql://u:hunter22@db/x"},
    ],
)
def test_a_faulty_secret_is_named_by_its_length_only(environ: dict[str, str]) -> None:
    """Start-up errors end in logs; a secret does not."""
    (fault,) = faults_of(environ)
    assert "not shown" in fault
    assert "hunter22" not in fault
    assert SECRET not in fault


def test_settings_show_no_secret_and_travel_to_children() -> None:
    """repr hides secrets; msgpack and JSON carry everything, secrets too, to a child process."""
    settings = load({**EXTERNAL, "EDGE_ADMIN_TOKEN": "hunter22" * 3})
    assert "hunter22" not in repr(settings)
    assert SECRET not in repr(settings)
    assert "node_id=3" in repr(settings)
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(settings), type=Settings) == settings
    assert msgspec.json.decode(msgspec.json.encode(settings), type=Settings) == settings


def test_relative_paths_are_made_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A child started in another folder reads the same files."""
    monkeypatch.chdir(tmp_path)
    settings = load({"EDGE_DATA_DIR": "d", "EDGE_GEOIP_DB": "geo.mmdb"})
    assert settings.data_path == tmp_path / "d"
    assert settings.geoip_db == str(tmp_path / "geo.mmdb")


def test_settings_cannot_be_changed() -> None:
    """Read once: nobody moves a port under another's feet."""
    with pytest.raises(AttributeError):
        load({}).port = 1  # type: ignore[misc]
