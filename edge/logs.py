"""Logs: one JSON object a line on stderr; on a terminal, the same for eyes. No line ever carries a secret.

What libraries log through `logging` comes out the same way. A line that cannot be written is lost, quietly: a full
disk or a closed pipe behind stderr must not stop a process that could still answer clicks.
"""

import logging
import os
import re
import time
from collections.abc import Callable

import orjson
import structlog
from structlog.typing import EventDict, FilteringBoundLogger, Processor, WrappedLogger

_SECRET_NAMES = re.compile(r"secret|token|passw|authorization|cookie|database_url|api_key", re.IGNORECASE)
# Up to the last @ before the path: a user or a password may have one, too. Without a password NATS takes a token.
_URL_PASSWORD = re.compile(r"(\b(?:nats|tls)://|\w://[^\s/:]*:)[^\s/]+@")


def configure_logs(role: str, *, fd: int = 2, level: int = logging.INFO, **bound: object) -> None:
    """Sends this process's logs to `fd`, each line with `role` (and `bound`, such as the worker's number)."""
    is_terminal = os.isatty(fd)
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            _binder({"role": role, **bound}),
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="%H:%M:%S" if is_terminal else "iso", utc=not is_terminal),
            structlog.processors.format_exc_info,
            hide_secrets,
            structlog.dev.ConsoleRenderer() if is_terminal else _render_json,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=lambda *_: _LineLogger(fd),
        cache_logger_on_first_use=False,
    )
    logging.basicConfig(handlers=[_LibraryHandler()], level=logging.WARNING, force=True)


def _binder(fixed: dict[str, object]) -> Processor:
    """Adds `fixed` to each line; a context variable would not reach the threads of an executor."""

    def bind(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
        return {**event, **fixed}

    return bind


def hide_secrets(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Replaces values whose name says secret, and passwords inside URLs wherever they stand."""
    for name, value in event.items():
        if _SECRET_NAMES.search(name):
            event[name] = "…"
        elif isinstance(value, str) and "://" in value:
            event[name] = _URL_PASSWORD.sub(r"\1…@", value)
    return event


def _render_json(_logger: WrappedLogger, _method: str, event: EventDict) -> bytes:
    return orjson.dumps(event, default=repr, option=orjson.OPT_NON_STR_KEYS)


class _LineLogger:
    """Writes whole lines with one write(2) each, so that processes sharing stderr do not mix them."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def msg(self, line: str | bytes) -> None:
        data = line.encode("utf-8", "backslashreplace") if isinstance(line, str) else line
        try:
            os.write(self._fd, data + b"\n")
        except OSError:
            pass

    debug = info = warning = error = critical = msg


class _LibraryHandler(logging.Handler):
    """Passes what libraries log on to structlog."""

    def emit(self, record: logging.LogRecord) -> None:
        structlog.get_logger().log(record.levelno, record.getMessage(), logger=record.name, exc_info=record.exc_info)


class RateLimited:
    """Logs one event at most once in `interval_s`, then says how many were suppressed meanwhile."""

    def __init__(
        self, logger: FilteringBoundLogger, interval_s: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._logger = logger
        self._interval_s = interval_s
        self._clock = clock
        self._last_s: dict[str, float] = {}
        self._suppressed: dict[str, int] = {}

    def warning(self, event: str, **fields: object) -> None:
        """Logs `event` as a warning, or counts it."""
        if self._is_due(event):
            self._logger.warning(event, suppressed=self._suppressed.pop(event, 0), **fields)

    def error(self, event: str, **fields: object) -> None:
        """Logs `event` as an error, or counts it."""
        if self._is_due(event):
            self._logger.error(event, suppressed=self._suppressed.pop(event, 0), **fields)

    def _is_due(self, event: str) -> bool:
        now_s = self._clock()
        if now_s - self._last_s.get(event, float("-inf")) < self._interval_s:
            self._suppressed[event] = self._suppressed.get(event, 0) + 1
            return False
        self._last_s[event] = now_s
        return True
