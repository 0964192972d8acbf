"""The private PostgreSQL: first start, restart, kill -9, a second instance, places where it cannot live."""

import os
import pwd
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from devstack import postgres
from devstack.postgres import AlreadyRunning, BinariesMissing, DataDirectoryUnreachable, PostgresCluster, PostgresError

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root runs the server as another user")


@pytest.fixture
def home() -> Iterator[Path]:
    """A directory that every user may enter (pytest's own is closed, for root)."""
    directory = Path(tempfile.mkdtemp(prefix="pgtest-"))
    directory.chmod(0o755)
    yield directory
    shutil.rmtree(directory)


@pytest.fixture
def cluster(home: Path) -> Iterator[PostgresCluster]:
    cluster = PostgresCluster(home / "db")
    yield cluster
    cluster.stop()
    cluster.stop_leftover()


def _show(cluster: PostgresCluster, setting: str) -> str:
    with psycopg.connect(cluster.dsn()) as connection:
        row = connection.execute("SELECT current_setting(%s)", [setting]).fetchone()
    assert row is not None
    return str(row[0])


def _write(cluster: PostgresCluster, *statements: str) -> None:
    with psycopg.connect(cluster.dsn()) as connection:
        for statement in statements:
            connection.execute(statement)


def _read(cluster: PostgresCluster) -> list[tuple[object, ...]]:
    with psycopg.connect(cluster.dsn()) as connection:
        return connection.execute("SELECT x FROM a ORDER BY x").fetchall()


def test_it_starts_on_nothing_and_again_on_its_data_at_the_same_address(cluster: PostgresCluster) -> None:
    address = cluster.dsn("ooni")
    cluster.start()
    cluster.ensure_database("ooni")
    cluster.ensure_database("ooni")
    _write(cluster, "CREATE TABLE a (x int)", "INSERT INTO a VALUES (1)")
    cluster.stop()
    assert cluster.pid is None
    with pytest.raises(psycopg.OperationalError):
        psycopg.connect(cluster.dsn())
    cluster.start()
    assert _read(cluster) == [(1,)]
    assert cluster.dsn("ooni") == address
    psycopg.connect(address).close()


def test_it_is_durable_private_and_off_the_network(cluster: PostgresCluster) -> None:
    cluster.start()
    assert _show(cluster, "fsync") == "on"
    assert _show(cluster, "synchronous_commit") == "on"
    assert _show(cluster, "full_page_writes") == "on"
    assert _show(cluster, "listen_addresses") == ""
    assert _show(cluster, "timezone") == "UTC"
    assert _show(cluster, "server_encoding") == "UTF8"
    for directory in (cluster.data_dir, cluster.pgdata, cluster.socket_dir):
        assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    pid = cluster.pid
    listening = subprocess.run(["ss", "-ltnp"], capture_output=True, text=True, check=False).stdout
    assert f"pid={pid}," not in listening


@as_root
def test_as_root_the_server_and_its_files_belong_to_an_unprivileged_user(cluster: PostgresCluster) -> None:
    cluster.start()
    assert cluster.pid is not None
    account = pwd.getpwuid(Path(f"/proc/{cluster.pid}").stat().st_uid)
    assert account.pw_name in postgres.SERVER_ACCOUNTS
    status = Path(f"/proc/{cluster.pid}/status").read_text().splitlines()
    assert [line.split() for line in status if line.startswith("Groups:")] == [["Groups:"]]
    for directory in (cluster.data_dir, cluster.pgdata, cluster.socket_dir):
        assert directory.stat().st_uid == account.pw_uid
    assert cluster.data_dir.parent.stat().st_uid == 0
    # Another unprivileged user does not even see the socket.
    other = pwd.getpwnam("nobody") if account.pw_name != "nobody" else pwd.getpwnam("daemon")
    seen = {
        user.pw_name: subprocess.run(
            ["/usr/bin/test", "-S", cluster.socket_dir / postgres.SOCKET_NAME],
            user=user.pw_uid,
            group=user.pw_gid,
            extra_groups=[],
            cwd="/",
            check=False,
        ).returncode
        for user in (account, other)
    }
    assert seen == {account.pw_name: 0, other.pw_name: 1}


@pytest.mark.parametrize("fsync", [True, False])
def test_kill_9_of_the_server_loses_no_commit_and_the_next_start_recovers(home: Path, fsync: bool) -> None:
    cluster = PostgresCluster(home / "db", fsync=fsync)
    try:
        cluster.start()
        _write(cluster, "CREATE TABLE a (x int)")
        for round_number in range(3):
            _write(cluster, f"INSERT INTO a VALUES ({round_number})")
            assert cluster.process is not None
            cluster.process.kill()
            cluster.process.wait(10)
            assert (cluster.pgdata / "postmaster.pid").exists()
            cluster.start()
        assert _read(cluster) == [(0,), (1,), (2,)]
    finally:
        cluster.stop()


def test_a_process_id_that_now_belongs_to_another_program_does_not_prevent_the_start(cluster: PostgresCluster) -> None:
    cluster.start()
    cluster.stop()
    # As after a reboot: the file of the old server is there, and its number is taken, here by this very process.
    (cluster.pgdata / "postmaster.pid").write_text(f"{os.getpid()}\n{cluster.pgdata}\n1\n5432\n\n\n\n")
    assert cluster.leftover_pid() is None
    cluster.start()
    assert cluster.pid is not None


def test_a_second_instance_gets_a_sentence_and_disturbs_nothing(cluster: PostgresCluster) -> None:
    cluster.start()
    second = PostgresCluster(cluster.data_dir)
    with pytest.raises(AlreadyRunning, match=f"process id {cluster.pid}") as caught:
        second.start()
    assert caught.value.pid == cluster.pid
    with pytest.raises(AlreadyRunning, match="Stop it first"):
        cluster.start()
    assert _show(cluster, "port") == "5432"


def test_what_a_killed_supervisor_left_can_be_stopped(home: Path) -> None:
    program = (
        "import os, signal, sys; from pathlib import Path; from devstack.postgres import PostgresCluster\n"
        "c = PostgresCluster(Path(sys.argv[1])); c.start(); print(c.pid, flush=True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(home / "db")], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    cluster = PostgresCluster(home / "db")
    assert cluster.leftover_pid() == int(done.stdout)
    assert cluster.stop_leftover() is True
    assert cluster.stop_leftover() is False
    cluster.start()
    cluster.stop()


def test_stop_is_quick_with_clients_connected_and_harmless_twice(cluster: PostgresCluster) -> None:
    cluster.start()
    with psycopg.connect(cluster.dsn()) as busy:
        busy.execute("SELECT 1")
        started = time.monotonic()
        cluster.stop()
        assert time.monotonic() - started < 15
        cluster.stop()
        with pytest.raises(psycopg.OperationalError):
            busy.execute("SELECT 1")
        busy.close()


@as_root
def test_a_place_that_the_servers_user_cannot_reach_is_said_before_anything_is_made(home: Path) -> None:
    private = home / "private"
    private.mkdir(mode=0o700)
    with pytest.raises(DataDirectoryUnreachable, match=f"cannot use {private}.*Choose a directory"):
        PostgresCluster(private / "deep" / "db").start()
    assert list(private.iterdir()) == []
    assert stat.S_IMODE(private.stat().st_mode) == 0o700


def test_a_long_path_gets_a_short_private_socket_directory(home: Path) -> None:
    cluster = PostgresCluster(home / ("d" * 100) / "db")
    (home / ("d" * 100)).mkdir()
    try:
        cluster.start()
        path = cluster.socket_dir / postgres.SOCKET_NAME
        assert len(os.fsencode(path)) <= postgres.SOCKET_PATH_LIMIT
        assert stat.S_IMODE(cluster.socket_dir.stat().st_mode) == 0o700
        assert _show(cluster, "port") == "5432"
        assert PostgresCluster(cluster.data_dir).dsn() == cluster.dsn()
    finally:
        cluster.stop()
        shutil.rmtree(cluster.socket_dir)


def test_a_socket_directory_that_somebody_else_made_is_not_used(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(home))
    long = home / ("d" * 100) / "db"
    expected = PostgresCluster(long).socket_dir
    expected.rmdir()
    expected.mkdir(mode=0o777)
    expected.chmod(0o777)
    assert PostgresCluster(long).socket_dir != expected


def test_an_interrupted_initdb_is_done_again(cluster: PostgresCluster) -> None:
    unfinished = cluster.data_dir / "pgdata.new"
    unfinished.mkdir(parents=True)
    (unfinished / "PG_VERSION").write_text("15\n")
    cluster.start()
    assert not unfinished.exists()
    assert _show(cluster, "port") == "5432"


def test_data_of_another_version_is_refused_with_its_number(cluster: PostgresCluster) -> None:
    cluster.start()
    cluster.stop()
    (cluster.pgdata / "PG_VERSION").write_text("9\n")
    with pytest.raises(BinariesMissing, match="written by PostgreSQL 9, which is not installed"):
        cluster.start()


def test_a_server_that_cannot_start_shows_the_end_of_its_log(home: Path) -> None:
    cluster = PostgresCluster(home / "db", settings={"shared_buffers": "nonsense"})
    with pytest.raises(PostgresError, match=r"(?s)did not start.*postgres\.log.*shared_buffers"):
        cluster.start()
    assert cluster.pid is None


def test_settings_are_passed_on(home: Path) -> None:
    with PostgresCluster(home / "db", fsync=False, settings={"max_connections": "33"}) as cluster:
        assert _show(cluster, "max_connections") == "33"
    assert cluster.pid is None


def test_binaries_can_be_forced(tmp_path: Path) -> None:
    with pytest.raises(BinariesMissing, match="has no postgres in it"):
        postgres.binary_directories({"PG_BINDIR": str(tmp_path)})
    some = postgres.binary_directories({})[0]
    assert postgres.binary_directories({"PG_BINDIR": str(some)}) == [some]
    assert postgres.major_version(some) >= 15


def test_every_installed_version_runs(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    versions = set()
    for bindir in postgres.binary_directories({}):
        monkeypatch.setenv("PG_BINDIR", str(bindir))
        with PostgresCluster(home / bindir.parent.name, fsync=False) as cluster:
            versions.add(int(_show(cluster, "server_version_num")) // 10000)
    assert versions == {postgres.major_version(bindir) for bindir in postgres.binary_directories({})}


def test_the_socket_is_a_socket(cluster: PostgresCluster) -> None:
    cluster.start()
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(cluster.socket_dir / postgres.SOCKET_NAME))
