"""Logging in real processes: to stderr, and to a real datagram socket in the place of the journal."""

import io
import logging
import os
import re
import shlex
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog

from core import log
from core.config import ConfigError

SETUP = (
    "import core.log, logging, structlog, sys, threading, warnings; core.log.setup('app', 'INFO', identifier='ident')\n"
)
FIELD = re.compile(r'[A-Za-z0-9_.-]+=("(?:[^"\\]|\\.)*"|[^\s"=\\]*)')


def _run(program: str, *, expect: int = 0, **environ: str) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", SETUP + program],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, "JOURNAL_STREAM": "", **environ},
    )
    assert done.returncode == expect, done.stderr
    assert done.stdout == ""
    return done.stderr.splitlines()


def _parse(line: str) -> dict[str, str]:
    """Fields of a logfmt line; fails when the line is not logfmt through and through."""
    rest, fields = line, {}
    while rest:
        found = FIELD.match(rest)
        assert found, f"not logfmt: {rest!r}"
        key, _, value = found.group().partition("=")
        assert key not in fields
        fields[key] = value[1:-1] if value.startswith('"') else value
        rest = rest[found.end() :].removeprefix(" ")
    return fields


def test_an_event_is_one_line_of_fields() -> None:
    (line,) = _run("structlog.get_logger('api.submit').info('measurement accepted', uid='u_1', n=3, ok=True, x=None)")
    time, rest = line.split(" ", 1)
    assert re.fullmatch(r"time=\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", time)
    assert rest == 'level=info event="measurement accepted" logger=api.submit uid=u_1 n=3 ok=true x=None'


@pytest.mark.parametrize(
    "hostile",
    [
        'x" level=error event="forged',
        "a\nlevel=error event=forged",
        "a\r\nb",
        "\x1b[31mred\x1b[0m",
        "\x00\x7f\x85",
        "\u2028\u2029",
        "\u202eright to left",
        "\udcff lone surrogate \ud800",
        "\\",
        'ends with \\"',
        "",
        " ",
        "a=b",
        "\U000e0001",
    ],
)
def test_hostile_values_stay_inside_their_field(hostile: str) -> None:
    lines = _run(f"structlog.get_logger('x').info('got', value={hostile!r}, after='end')")
    assert len(lines) == 1
    fields = _parse(lines[0])
    assert list(fields) == ["time", "level", "event", "logger", "value", "after"]
    assert fields["after"] == "end"
    assert fields["level"] == "info"
    assert lines[0].isprintable()


def test_hostile_keys_and_messages() -> None:
    (line,) = _run("structlog.get_logger('x').info('a\\nb', **{'k y\\n=\"': 1})")
    assert _parse(line) | {"time": ""} == {"time": "", "level": "info", "event": "a\\nb", "logger": "x", "k_y___": "1"}


def test_text_of_the_world_is_readable() -> None:
    (line,) = _run("structlog.get_logger('x').info('got', value='Привет мир 你好')", PYTHONIOENCODING="utf-8")
    assert _parse(line)["value"] == "Привет мир 你好"


def test_long_values_are_cut_and_say_so() -> None:
    (line,) = _run("structlog.get_logger('x').info('got', value='a' * 1_000_000)")
    assert len(line) < 5000
    assert "995904 more" in line


def test_libraries_log_in_the_same_form() -> None:
    lines = _run(
        "for name in ('gunicorn.error', 'uvicorn.access', 'psycopg.pool'):\n"
        "    logging.getLogger(name).warning('hello %s', 'a\\nb')\n"
        "logging.getLogger('httpx').info('GET')\n"
        "logging.getLogger('x').debug('no')"
    )
    assert [_parse(line)["logger"] for line in lines] == ["gunicorn.error", "uvicorn.access", "psycopg.pool"]
    assert {_parse(line)["event"] for line in lines} == {"hello a\\nb"}


def test_handlers_that_libraries_made_do_not_double_the_lines() -> None:
    lines = _run(
        "l = logging.getLogger('gunicorn.error'); l.addHandler(logging.StreamHandler()); l.propagate = False\n"
        "core.log.setup('app'); l.error('once')"
    )
    assert len(lines) == 1


def test_tracebacks_are_one_line() -> None:
    lines = _run("try:\n    1/0\nexcept ZeroDivisionError:\n    structlog.get_logger('x').exception('failed')")
    assert len(lines) == 1
    fields = _parse(lines[0])
    assert fields["level"] == "error"
    assert fields["exception"].startswith("Traceback (most recent call last):\\n")
    assert fields["exception"].endswith("ZeroDivisionError: division by zero")


def test_uncaught_exceptions_are_one_line_in_the_program_and_in_threads() -> None:
    (line,) = _run("raise ValueError('a\\nb')", expect=1)
    assert _parse(line)["level"] == "critical"
    assert _parse(line)["exception"].endswith("ValueError: a\\nb")
    (line,) = _run("t = threading.Thread(target=lambda: 1/0, name='worker'); t.start(); t.join()")
    assert _parse(line)["thread"] == "worker"
    assert _parse(line)["exception"].endswith("division by zero")


def test_warnings_are_logged() -> None:
    (line,) = _run("warnings.warn('careful')")
    assert _parse(line)["logger"] == "py.warnings"
    assert "careful" in _parse(line)["event"]


def test_the_level_holds_for_both_kinds() -> None:
    lines = _run(
        "core.log.setup('app', 'error')\n"
        "structlog.get_logger('x').warning('no'); logging.getLogger('y').warning('no')\n"
        "structlog.get_logger('x').error('yes'); logging.getLogger('y').error('yes')"
    )
    assert [_parse(line)["event"] for line in lines] == ["yes", "yes"]


def test_a_level_that_does_not_exist() -> None:
    with pytest.raises(ConfigError, match="must be one of DEBUG, INFO"):
        log.setup("app", "LOUD")


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[socket.socket]:
    """A datagram socket that receives what the journal would."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as server:
        server.bind(str(tmp_path / "journal"))
        server.settimeout(10)
        yield server


def _run_in_journal(tmp_path: Path, program: str, socket_path: Path) -> str:
    """Run with JOURNAL_STREAM naming stderr, as systemd does; what came out on stderr all the same."""
    script = tmp_path / "program.py"
    script.write_text(
        SETUP.replace("identifier='ident'", f"identifier='ident', journal_socket=Path({str(socket_path)!r})").replace(
            "import core.log", "from pathlib import Path; import core.log"
        )
        + program
    )
    stderr = tmp_path / "stderr"
    stderr.touch()
    found = stderr.stat()
    with stderr.open("wb") as file:
        subprocess.run(
            [sys.executable, script],
            stderr=file,
            timeout=60,
            check=True,
            env={**os.environ, "JOURNAL_STREAM": f"{found.st_dev}:{found.st_ino}"},
        )
    return stderr.read_text()


def _fields(datagram: bytes) -> dict[str, str]:
    """The native journal protocol: KEY=value\\n, or KEY\\n, length in 8 bytes, value, \\n."""
    fields = {}
    while datagram:
        line, _, rest = datagram.partition(b"\n")
        if b"=" in line:
            key, _, value = line.partition(b"=")
        else:
            (length,) = struct.unpack("<Q", rest[:8])
            key, value, rest = line, rest[8 : 8 + length], rest[9 + length :]
        fields[key.decode()] = value.decode()
        datagram = rest
    return fields


def test_under_systemd_events_become_journal_fields(journal: socket.socket, tmp_path: Path) -> None:
    said = _run_in_journal(
        tmp_path,
        "log = structlog.get_logger('api.submit')\n"
        "log.warning('slow\\nanswer', uid='a b', n=3, message='m', _pid='0', lone='\\ud800')",
        tmp_path / "journal",
    )
    fields = _fields(journal.recv(65536))
    assert said == ""
    assert fields["MESSAGE"] == 'slow\\nanswer uid="a b" n=3 message=m _pid=0 lone="\\ud800"'
    assert fields["PRIORITY"] == "4"
    assert fields["SYSLOG_IDENTIFIER"] == "ident"
    assert fields["LOGGER"] == "api.submit"
    assert fields["UID"] == "a b"
    assert fields["PID"] == "0"
    assert fields["N"] == "3"
    assert fields["F_MESSAGE"] == "m"
    assert fields["LONE"] == "\\ud800"
    assert not any(key.startswith("_") for key in fields)


def test_under_systemd_libraries_and_tracebacks(journal: socket.socket, tmp_path: Path) -> None:
    _run_in_journal(
        tmp_path,
        "logging.getLogger('gunicorn.error').info('hello %s', 'x')\n"
        "try:\n    1/0\nexcept ZeroDivisionError:\n    structlog.get_logger('x').exception('failed')",
        tmp_path / "journal",
    )
    first, second = _fields(journal.recv(65536)), _fields(journal.recv(65536))
    assert (first["MESSAGE"], first["PRIORITY"], first["LOGGER"]) == ("hello x", "6", "gunicorn.error")
    assert second["PRIORITY"] == "3"
    assert second["EXCEPTION"].splitlines()[-1] == "ZeroDivisionError: division by zero"
    assert "ZeroDivisionError" in second["MESSAGE"]


def test_without_a_journal_socket_lines_go_to_stderr(tmp_path: Path) -> None:
    said = _run_in_journal(tmp_path, "structlog.get_logger('x').info('hello')", tmp_path / "absent")
    assert _parse(said.strip())["event"] == "hello"


def test_a_journal_that_goes_away_loses_nothing(journal: socket.socket, tmp_path: Path) -> None:
    said = _run_in_journal(
        tmp_path,
        f"import os\nos.unlink({str(tmp_path / 'journal')!r})\n"
        "for h in logging.getLogger().handlers: h._transport.socket.close()\n"
        "structlog.get_logger('x').info('hello', uid='u')",
        tmp_path / "journal",
    )
    assert _parse(said.strip())["event"] == "hello"


@pytest.mark.parametrize("stream", ["", "nonsense", "1:2", "x:y"])
def test_a_journal_stream_that_is_not_our_stderr_is_ignored(stream: str) -> None:
    (line,) = _run("structlog.get_logger('x').info('hello')", JOURNAL_STREAM=stream)
    assert _parse(line)["event"] == "hello"


def test_the_shell_takes_quoted_values_for_one_word() -> None:
    """A line can be split by an ordinary tool, so that operators can grep and cut it."""
    words = shlex.split("event=" + log.quote("a b=c d"))
    assert words == ["event=a b=c d"]


def test_a_stream_can_be_given() -> None:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    hooks = sys.excepthook, log.threading.excepthook
    out = io.StringIO()
    try:
        log.setup("app", stream=out)
        logging.getLogger("somewhere").warning("hello")
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)
        sys.excepthook, log.threading.excepthook = hooks
        logging.captureWarnings(capture=False)
        structlog.reset_defaults()
    assert _parse(out.getvalue().strip())["event"] == "hello"
