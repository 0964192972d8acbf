"""`analysis update-test-lists` on a real PostgreSQL."""

import socket
import tarfile
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import psycopg
import pytest

from analysis.download import DownloadError, downloaded
from core.testlists import SAMPLE

HEADER = "url,category_code,category_description,date_added,source,notes\n"


def line(number: int, category: str = "NEWS") -> str:
    return f"https://{number}.example.org/,{category},,,,\n"


@pytest.fixture
def lists(tmp_path: Path) -> Path:
    directory = tmp_path / "lists"
    directory.mkdir()
    (directory / "global.csv").write_text(HEADER + "".join(map(line, range(10))))
    (directory / "it.csv").write_text(HEADER + "".join(map(line, range(4))))
    return directory


def table(dsn: str) -> list[tuple[str, ...]]:
    with psycopg.connect(dsn) as connection:
        return connection.execute("SELECT cc, domain, url, category_code FROM citizenlab ORDER BY 1, 2").fetchall()


def metric(directory: Path, name: str) -> str:
    text = (directory / "analysis_update_test_lists.prom").read_text()
    return next(found.split()[1] for found in text.splitlines() if found.startswith(name))


def test_the_lists_become_those_of_the_files_and_a_second_run_changes_nothing(analysis, dsn, lists, tmp_path):
    done = analysis("update-test-lists", "--from", str(lists))
    assert done.returncode == 0, done.stderr
    assert len(table(dsn)) == 14
    assert table(dsn)[0] == ("ZZ", "0.example.org", "https://0.example.org/", "NEWS")
    assert metric(tmp_path, "analysis_test_list_added") == "14.0"
    assert metric(tmp_path, "analysis_test_list_entries") == "14.0"
    with psycopg.connect(dsn) as connection:
        before = connection.execute("SELECT array_agg(xmin::text) FROM citizenlab").fetchone()
        assert analysis("update-test-lists", "--from", str(lists.parent)).returncode == 0
        assert connection.execute("SELECT array_agg(xmin::text) FROM citizenlab").fetchone() == before
    assert metric(tmp_path, "analysis_test_list_added") == "0.0"


def test_changed_and_removed_lines_are_changed_and_removed(analysis, dsn, lists):
    analysis("update-test-lists", "--from", str(lists))
    (lists / "it.csv").write_text(HEADER + line(0, "HUMR") + line(1) + line(7))
    done = analysis("update-test-lists", "--from", str(lists))
    assert done.returncode == 0
    assert "2 new, 3 removed" in done.stderr
    assert [row[3] for row in table(dsn) if row[0] == "it"] == ["HUMR", "NEWS", "NEWS"]


def test_a_dry_run_changes_nothing(analysis, dsn, lists, tmp_path):
    done = analysis("update-test-lists", "--from", str(lists), "--dry-run")
    assert done.returncode == 0
    assert "would be: 14 entries in 2 lists, 14 new, 0 removed" in done.stderr
    assert table(dsn) == []
    assert not (tmp_path / "analysis_update_test_lists.prom").exists()


def test_bad_lines_are_told_with_file_and_line_and_cost_no_other(analysis, dsn, lists, tmp_path):
    with (lists / "it.csv").open("a") as file:
        file.write("nothing\n" + line(8, "NOSUCH") + line(9))
    done = analysis("update-test-lists", "--from", str(lists))
    assert done.returncode == 0
    assert "at=it.csv:6" in done.stderr
    assert "at=it.csv:7" in done.stderr
    assert len(table(dsn)) == 15
    assert metric(tmp_path, "analysis_test_list_bad_lines") == "2.0"


@pytest.mark.parametrize("how", ["shorter", "missing", "broken"])
def test_a_list_that_loses_more_than_half_changes_nothing_without_force(analysis, dsn, lists, tmp_path, how):
    analysis("update-test-lists", "--from", str(lists))
    before = table(dsn)
    with (lists / "global.csv").open("a") as file:
        file.write(line(11))
    if how == "shorter":
        (lists / "it.csv").write_text(HEADER + line(0))
    elif how == "missing":
        (lists / "it.csv").unlink()
    else:
        (lists / "it.csv").write_text("<html>\n")
    for arguments in ((), ("--dry-run",)):
        refused = analysis("update-test-lists", "--from", str(lists), *arguments)
        assert refused.returncode == 1
        assert "it (4 ->" in refused.stderr
        assert "--force" in refused.stderr
    assert table(dsn) == before
    assert metric(tmp_path, "analysis_job_failed") == "1.0"
    assert metric(tmp_path, "analysis_test_list_entries") == "14.0"
    assert analysis("update-test-lists", "--from", str(lists), "--force").returncode == 0
    assert len(table(dsn)) == (12 if how == "shorter" else 11)


def test_a_list_may_lose_half(analysis, dsn, lists):
    analysis("update-test-lists", "--from", str(lists))
    (lists / "it.csv").write_text(HEADER + line(0) + line(1))
    assert analysis("update-test-lists", "--from", str(lists)).returncode == 0
    assert len(table(dsn)) == 12


def test_what_is_no_list_is_refused_in_a_sentence(analysis, dsn, tmp_path):
    for source in (tmp_path / "nowhere", tmp_path):
        refused = analysis("update-test-lists", "--from", str(source))
        assert refused.returncode == 1
        assert str(source) in refused.stderr
        assert "Traceback" not in refused.stderr


def test_the_sample_fits_into_the_tables(analysis, dsn):
    assert analysis("update-test-lists", "--from", str(SAMPLE)).returncode == 0
    assert len(table(dsn)) == 15


@pytest.fixture
def web(tmp_path: Path) -> Iterator[str]:
    """Address of a server that gives the files of the test's directory."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(SimpleHTTPRequestHandler, directory=tmp_path))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_an_archive_can_be_fetched(analysis, dsn, lists, tmp_path, web):
    with tarfile.open(tmp_path / "main.tar.gz", "w:gz") as archive:
        archive.add(lists, "test-lists-main/lists")
    done = analysis("update-test-lists", "--url", f"{web}/main.tar.gz")
    assert done.returncode == 0, done.stderr
    assert len(table(dsn)) == 14


def test_what_cannot_be_fetched_is_told_in_a_sentence(analysis, dsn, tmp_path, web):
    (tmp_path / "page.html").write_text("<html>")
    dead = f"http://127.0.0.1:{free_port()}/x"
    for url, reason in (
        (f"{web}/nowhere.zip", "404"),
        (f"{web}/page.html", "no whole archive"),
        (dead, "refused"),
        ("file:///etc/hosts", "https://"),
        ("http://[/", "cannot be fetched"),
    ):
        refused = analysis("update-test-lists", "--url", url)
        assert refused.returncode == 1
        assert reason in refused.stderr
        assert "Traceback" not in refused.stderr


def test_a_download_has_a_limit(tmp_path, web):
    (tmp_path / "large").write_bytes(b"x" * 2000)
    with downloaded(f"{web}/large", max_bytes=2000) as path:
        assert path.stat().st_size == 2000
    assert not path.exists()
    with pytest.raises(DownloadError, match="larger"), downloaded(f"{web}/large", max_bytes=1999):
        pass


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_two_runs_at_once_do_not_mix(analysis, dsn, lists):
    with psycopg.connect(dsn) as other:
        other.execute("SELECT pg_advisory_lock(%s)", [0x6C697374])
        busy = analysis("update-test-lists", "--from", str(lists))
    assert busy.returncode == 75
    assert table(dsn) == []
