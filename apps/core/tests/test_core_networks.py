"""Names of networks: files as they may be, and what becomes of them in the database."""

import os
import subprocess
import sys
from datetime import date
from pathlib import Path

import psycopg
import pytest

from core.networks import SAMPLE, NetworkName, NetworksError, load, read

HEADER = "asn,changed,org_name,cc,aut_name,source\n"


def write(directory: Path, *lines: str) -> Path:
    path = directory / "names.csv"
    path.write_text(HEADER + "\n".join(lines), encoding="utf-8")
    return path


def test_a_file_is_read(tmp_path: Path) -> None:
    path = write(tmp_path, '30722,2024-01-31," Società, Ltd ",IT,SHORT,here', "4294967295,2020-01-01,,,,")
    assert list(read(path)) == [
        NetworkName(30722, date(2024, 1, 31), "Società, Ltd", "IT", "SHORT", "here"),
        NetworkName(4294967295, date(2020, 1, 1), "", "", "", ""),
    ]


@pytest.mark.parametrize(
    "line",
    ["AS1,2024-01-01,x,,,", "4294967296,2024-01-01,x,,,", "-1,2024-01-01,x,,,", "1,2024,x,,,", "1,2024-01-01,x", '1,"'],
)
def test_a_line_that_is_no_name(tmp_path: Path, line: str) -> None:
    with pytest.raises(NetworksError, match=r"Line [23] of names\.csv"):
        list(read(write(tmp_path, "1,2024-01-01,x,,,", line)))


def test_a_file_with_other_columns(tmp_path: Path) -> None:
    path = tmp_path / "names.csv"
    path.write_text("number,name\n1,x\n")
    with pytest.raises(NetworksError, match="The first line is asn,changed,org_name"):
        list(read(path))


def test_names_are_written_and_replaced(dsn: str) -> None:
    first = [NetworkName(1, date(2024, 1, 1), "One"), NetworkName(1, date(2024, 2, 1), "Two")]
    with psycopg.connect(dsn) as connection:
        assert load(connection, first) == 2
        assert load(connection, [NetworkName(1, date(2024, 2, 1), "Three", "IT", "T", "s")]) == 1
        found = connection.execute("SELECT * FROM asnmeta ORDER BY changed").fetchall()
    assert found == [(1, date(2024, 1, 1), "One", "", "", ""), (1, date(2024, 2, 1), "Three", "IT", "T", "s")]


def test_the_sample_is_loaded_whole(dsn: str) -> None:
    with psycopg.connect(dsn) as connection:
        count = load(connection, read(SAMPLE))
        row = connection.execute("SELECT count(*), min(asn), max(asn) FROM asnmeta").fetchone()
    assert row == (count, min(name.asn for name in read(SAMPLE)), max(name.asn for name in read(SAMPLE)))
    assert count > 50


def command(*arguments: object, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-I", "-m", "core.networks", *map(str, arguments)],
        env={**{name: value for name, value in os.environ.items() if name != "OONI_DSN"}, **environ},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def stored(dsn: str) -> list[tuple[object, ...]]:
    with psycopg.connect(dsn) as connection:
        return connection.execute("SELECT asn, changed, org_name FROM asnmeta ORDER BY asn, changed").fetchall()


def test_the_command_loads_a_file_and_can_be_repeated(dsn: str, tmp_path: Path) -> None:
    path = write(tmp_path, "2,2024-01-01,Two,,,", "1,2024-01-01,One,IT,O,x")
    path.write_text("\ufeff" + path.read_text("utf-8"), "utf-8")  # as spreadsheets write it
    for done in (command(path, "--dsn", dsn), command(path, OONI_DSN=dsn)):
        assert (done.returncode, done.stdout, done.stderr) == (0, "2 names of networks loaded\n", "")
        assert stored(dsn) == [(1, date(2024, 1, 1), "One"), (2, date(2024, 1, 1), "Two")]


def test_the_command_changes_nothing_when_something_is_wrong(dsn: str, tmp_path: Path) -> None:
    for content, text in (
        (HEADER + "1,2024-01-01,One,,,\n2,yesterday,Two,,,\n", "Line 3 of names.csv is no name of a network"),
        ("", "holds no names"),
        (HEADER, "holds no names"),
        ("asn;changed\n1;2\n", "The first line is asn,changed"),
    ):
        (tmp_path / "names.csv").write_text(content)
        done = command(tmp_path / "names.csv", "--dsn", dsn)
        assert done.returncode == 2
        assert text in done.stderr
    (tmp_path / "names.csv").write_bytes(HEADER.encode() + b"1,2024-01-01,\xff,,,\n")
    assert command(tmp_path / "names.csv", "--dsn", dsn).returncode == 2
    (tmp_path / "names.csv").write_text(HEADER + "1,2024-01-01,One,,,\n2,2024-01-01,T\x00wo,,,\n")
    done = command(tmp_path / "names.csv", "--dsn", dsn)
    assert done.returncode in {1, 2}
    assert "Traceback" not in done.stderr
    done = command(tmp_path / "absent.csv", "--dsn", dsn)
    assert done.returncode == 2
    assert "absent.csv cannot be read" in done.stderr
    assert stored(dsn) == []


def test_the_command_says_what_the_database_is_missing(empty_dsn: str, tmp_path: Path) -> None:
    path = write(tmp_path, "1,2024-01-01,One,,,")
    done = command(path, "--dsn", empty_dsn)
    assert done.returncode == 1
    assert "database_upgrade_schema" in done.stderr
    assert command(path, "--dsn", f"host={tmp_path} dbname=ooni").returncode == 3
