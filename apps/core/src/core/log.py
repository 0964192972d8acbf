"""Logging: one event per line, key=value, on stderr; native fields in the journal when systemd runs the program.

    core.log.setup("api")
    log = structlog.get_logger(__name__)
    log.info("measurement accepted", uid=uid)

What libraries say through `logging` (gunicorn, uvicorn, psycopg) comes out in the same form. Values may be hostile:
every character that is not printable is escaped, so that no value can forge a line, a field or a terminal command.
"""

import logging
import os
import re
import sys
import threading
import traceback
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, TextIO

import structlog
from logging_journald import Facility, JournaldTransport  # type: ignore[import-untyped]  # annotated but not marked so

from core.config import ConfigError

LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")
VALUE_LIMIT = 4096  # characters of one value; the rest is cut off and counted
TRACEBACK_LIMIT = 32_768  # characters; the end matters most, so the middle goes
JOURNAL_SOCKET: Path = JournaldTransport.SOCKET_PATH

_BARE = re.compile(r'[^\s"=\\]+')
_SHORT_ESCAPES = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}
_KEY = re.compile(r"[^A-Za-z0-9_.-]")
_JOURNAL_KEY = re.compile(r"[^A-Z0-9_]")
_JOURNAL_RESERVED = ("MESSAGE", "PRIORITY", "SYSLOG_", "CODE_", "LOGGER", "ERRNO", "INVOCATION_ID")
_PRIORITIES = ((logging.CRITICAL, 2), (logging.ERROR, 3), (logging.WARNING, 4), (logging.INFO, 6))
_OWN_HANDLERS = ("gunicorn", "gunicorn.error", "gunicorn.access", "uvicorn", "uvicorn.error", "uvicorn.access")
_TALKATIVE = ("httpx", "httpcore", "urllib3", "asyncio")  # a line for each request, at level INFO

log = structlog.get_logger(__name__)


def setup(
    app: str,
    level: str = "INFO",
    *,
    identifier: str | None = None,
    stream: TextIO | None = None,
    journal_socket: Path = JOURNAL_SOCKET,
) -> None:
    """Send all logging of this process to stderr (or `stream`), or to the journal when stderr is connected to it.

    `identifier`: name of the program in the journal (journalctl -t), default `app`. Safe to call again, for example in
    each worker, after a library made handlers of its own. Raises ConfigError for a level that does not exist.
    """
    level = level.upper()
    if level not in LEVELS:
        raise ConfigError(f"log_level must be one of {', '.join(LEVELS)}. Write it like: INFO")
    number = logging.getLevelNamesMapping()[level]
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.StackInfoRenderer(),
            structlog.processors.format_exc_info,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,  # hands the fields on to the handler
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.make_filtering_bound_logger(number),
        cache_logger_on_first_use=True,
    )
    handler = _journal_handler(identifier or app, journal_socket) if stream is None else None
    if handler is None:
        handler = logging.StreamHandler(stream or sys.stderr)
        handler.setFormatter(LogfmtFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(number)
    for name in _OWN_HANDLERS:
        library = logging.getLogger(name)
        library.handlers.clear()
        library.propagate = True
    for name in _TALKATIVE:
        logging.getLogger(name).setLevel(max(number, logging.WARNING))
    logging.captureWarnings(capture=True)
    sys.excepthook = _log_uncaught
    threading.excepthook = _log_uncaught_in_thread


class LogfmtFormatter(logging.Formatter):
    """A record as one line of key=value, beginning with time (UTC), level, event and logger."""

    def format(self, record: logging.LogRecord) -> str:
        """The line, without its end."""
        head = {
            "time": f"{datetime.fromtimestamp(record.created, UTC):%Y-%m-%dT%H:%M:%S.%f}Z",
            "level": record.levelname.lower(),
            "event": "",
            "logger": record.name,
        }
        return logfmt(head | event_of(record))


def event_of(record: logging.LogRecord) -> dict[str, Any]:
    """The fields of a record, whether it comes from structlog or from a library that uses `logging`."""
    if isinstance(record.msg, dict):
        return dict(record.msg)
    event = {"event": record.getMessage(), **structlog.contextvars.get_contextvars()}
    if record.exc_info and record.exc_info[0] is not None:
        event["exception"] = "".join(traceback.format_exception(*record.exc_info)).rstrip()
    return event


def logfmt(fields: Mapping[str, Any]) -> str:
    """The fields as one line of key=value."""
    return " ".join(f"{_KEY.sub('_', str(key))}={quote(_text(key, value))}" for key, value in fields.items())


def quote(text: str) -> str:
    """`text` as a logfmt value: quoted when it needs to be, everything unprintable escaped."""
    if text.isprintable() and _BARE.fullmatch(text):
        return text
    return '"' + _printable(text.replace("\\", "\\\\").replace('"', '\\"')) + '"'


def _printable(text: str) -> str:
    return text if text.isprintable() else "".join(char if char.isprintable() else _escape(char) for char in text)


def _escape(char: str) -> str:
    code = ord(char)
    return _SHORT_ESCAPES.get(char) or (f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}")


def _text(key: str, value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    text = value if isinstance(value, str) else str(value)
    if key == "exception":
        if len(text) > TRACEBACK_LIMIT:
            half = TRACEBACK_LIMIT // 2
            text = f"{text[:half]}\n… {len(text) - TRACEBACK_LIMIT} characters …\n{text[-half:]}"
    elif len(text) > VALUE_LIMIT:
        text = f"{text[:VALUE_LIMIT]}… {len(text) - VALUE_LIMIT} more"
    return text


class JournalHandler(logging.Handler):
    """Events as native journal fields: MESSAGE is the line without time and level, each key is a field as well."""

    def __init__(self, identifier: str, socket: Path) -> None:
        super().__init__()
        self._identifier = identifier
        self._transport = JournaldTransport(socket)

    def emit(self, record: logging.LogRecord) -> None:
        """Send one event; when the journal does not take it, it goes to stderr as a line."""
        try:
            self._transport.send(self.fields(record).items())
        except OSError:
            sys.stderr.write(LogfmtFormatter().format(record) + "\n")

    def fields(self, record: logging.LogRecord) -> dict[str, str | int]:
        """The journal fields of one event."""
        event = event_of(record)
        message = _printable(_text("event", event.pop("event", "")))
        fields: dict[str, str | int] = {
            "MESSAGE": f"{message} {logfmt(event)}".strip(),
            "PRIORITY": next((priority for level, priority in _PRIORITIES if record.levelno >= level), 7),
            "SYSLOG_IDENTIFIER": self._identifier,
            "SYSLOG_FACILITY": int(Facility.DAEMON),
            "LOGGER": record.name,
            "CODE_FILE": record.pathname,
            "CODE_LINE": record.lineno,
        }
        for key, value in event.items():
            # Lone surrogates cannot be sent as UTF-8.
            fields[_journal_key(key)] = _text(key, value).encode("utf-8", "backslashreplace").decode()
        return fields


def _journal_handler(identifier: str, socket: Path) -> logging.Handler | None:
    """The handler for the journal when stderr is connected to it, as systemd says in JOURNAL_STREAM."""
    device, _, inode = os.environ.get("JOURNAL_STREAM", "").partition(":")
    try:
        found = os.fstat(sys.stderr.fileno())
        if (str(found.st_dev), str(found.st_ino)) != (device, inode):
            return None
        return JournalHandler(identifier, socket)
    except (OSError, ValueError):  # no stderr, or no journal socket: stderr it is
        return None


def _journal_key(key: str) -> str:
    name = _JOURNAL_KEY.sub("_", str(key).upper()).lstrip("_")[:60]
    if not name or name[0].isdigit() or name.startswith(_JOURNAL_RESERVED):
        name = f"F_{name}"
    return name


def _log_uncaught(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    if issubclass(kind, KeyboardInterrupt):
        sys.__excepthook__(kind, error, trace)
        return
    log.critical("uncaught exception", exc_info=(kind, error, trace))


def _log_uncaught_in_thread(arguments: threading.ExceptHookArgs) -> None:
    if arguments.exc_value is None or issubclass(arguments.exc_type, SystemExit):
        return
    name = arguments.thread.name if arguments.thread else "?"
    log.critical(
        "uncaught exception in a thread",
        thread=name,
        exc_info=(arguments.exc_type, arguments.exc_value, arguments.exc_traceback),
    )
