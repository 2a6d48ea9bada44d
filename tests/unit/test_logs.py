"""edge/logs.py: lines that machines read, without secrets, not too many of them."""

import io
import json
import logging
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog

from edge.logs import RateLimited, configure_logs


@pytest.fixture(autouse=True)
def configuration() -> Iterator[None]:
    """Gives other tests their logging back."""
    handlers, level = logging.root.handlers[:], logging.root.level
    yield
    structlog.reset_defaults()
    logging.root.handlers[:], logging.root.level = handlers, level


@pytest.fixture
def log_file(tmp_path: Path) -> Iterator[Path]:
    """A file that receives the process's logs."""
    path = tmp_path / "log"
    with path.open("wb") as file:
        configure_logs("worker", fd=file.fileno(), worker=3)
        yield path


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_line_is_one_json_object_that_names_its_process(log_file: Path) -> None:
    """Event, level, time, role and worker stand in each line, whatever the values are."""
    structlog.get_logger().info("started", port=8080, raw=b"\xff", path=Path("/x"), text="two\nlines")
    (line,) = lines(log_file)
    assert line["event"] == "started"
    assert (line["role"], line["worker"], line["level"], line["port"]) == ("worker", 3, "info", 8080)
    assert line["timestamp"].endswith("Z")
    assert line["text"] == "two\nlines"


def test_lines_of_other_threads_name_the_process_too(log_file: Path) -> None:
    """The role is the process's, not a context's."""
    thread = threading.Thread(target=lambda: structlog.get_logger().info("from a thread"))
    thread.start()
    thread.join()
    assert lines(log_file)[0]["role"] == "worker"


def test_what_libraries_log_comes_out_as_json_with_its_traceback(log_file: Path) -> None:
    """aiohttp and asyncio log through `logging`; nothing of it is lost or in another format."""
    try:
        raise OSError("postgresql://me:hunter22@db/x refused")
    except OSError:
        logging.getLogger("aiohttp.server").exception("request %d failed", 7)
    (line,) = lines(log_file)
    assert (line["event"], line["logger"], line["level"]) == ("request 7 failed", "aiohttp.server", "error")
    assert "OSError" in line["exception"]
    assert "hunter22" not in json.dumps(line)


@pytest.mark.parametrize("name", ["secret", "admin_token", "password", "Authorization", "database_url", "api_key"])
def test_values_named_like_secrets_are_hidden(log_file: Path, name: str) -> None:
    """A secret passed to a logger by mistake is not printed."""
    structlog.get_logger().info("x", **{name: "hunter22hunter22"})
    assert "hunter22" not in log_file.read_text()


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("postgresql://me:hun@ter22@db:5432/x", "postgresql://me:…@db:5432/x"),
        ("postgresql://me@corp:hun@:ter22@db/x?a=b@c", "postgresql://me@corp:…@db/x?a=b@c"),
        ("nats://me:hun@ter22@n1:4222,nats://me:hun@ter22@n2 is away", "nats://…@n1:4222,nats://…@n2 is away"),
        ("tls://ter22@n1", "tls://…@n1"),
        ("https://shop.example/@me:22", "https://shop.example/@me:22"),
    ],
)
def test_a_password_in_a_url_is_hidden_whole(log_file: Path, url: str, shown: str) -> None:
    """Whatever stands in it, and in the user's name; host and path are left."""
    structlog.get_logger().info(url)
    assert lines(log_file)[0]["event"] == shown


def test_passwords_in_urls_are_hidden(log_file: Path) -> None:
    """A database URL shows its host, not its password, wherever it stands."""
    structlog.get_logger().info("cannot reach postgresql://me:hunter22@db:5432/x", url="redis://:hunter22@cache/0")
    assert "hunter22" not in log_file.read_text()
    assert "db:5432" in log_file.read_text()


def test_a_closed_stderr_stops_nothing() -> None:
    """A line that cannot be written is lost; the process goes on."""
    reading, writing = os.pipe()
    os.close(reading)
    configure_logs("worker", fd=writing)
    structlog.get_logger().error("nobody listens")
    os.close(writing)
    structlog.get_logger().error("the descriptor is gone")


def test_a_terminal_gets_lines_for_eyes() -> None:
    """On a TTY the lines are not JSON."""
    controller, terminal = os.openpty()
    try:
        configure_logs("supervisor", fd=terminal)
        structlog.get_logger().info("ready", port=8080)
        text = os.read(controller, 4096).decode()
    finally:
        os.close(controller)
        os.close(terminal)
    assert "ready" in text
    assert not text.startswith("{")


def test_the_same_event_is_logged_once_in_an_interval_with_the_count_of_the_others() -> None:
    """A fault that repeats a thousand times a second costs one line a minute, and the count is exact."""
    now_s = 100.0
    out = io.StringIO()
    logger = structlog.wrap_logger(
        structlog.PrintLogger(out), processors=[structlog.processors.JSONRenderer()], wrapper_class=structlog.BoundLogger
    )
    limited = RateLimited(logger, 60, lambda: now_s)
    for _ in range(1000):
        limited.warning("disk full")
    limited.error("another")
    now_s += 60
    limited.warning("disk full", free_bytes=0)
    now_s += 60
    limited.warning("disk full")
    assert [(line["event"], line["suppressed"]) for line in map(json.loads, out.getvalue().splitlines())] == [
        ("disk full", 0),
        ("another", 0),
        ("disk full", 999),
        ("disk full", 0),
    ]
