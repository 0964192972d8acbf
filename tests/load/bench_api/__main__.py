"""The command behind `make bench-api`."""

import argparse
import asyncio
import json
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.load.bench_api import aggregations, facts, lists, server, statistics
from tests.load.bench_api.database import Log, Statement, explain
from tests.load.bench_api.http import Connection, Failed
from tests.load.bench_api.question import AGGREGATION, GOALS_MS, LIST, STATISTIC, Question
from tests.load.bench_api.timing import CLIENTS, many_clients, one_client, percentile
from tests.load.bench_api.yardstick import Yardstick
from tests.load.sample.draw import next_month
from tests.load.sample.loading import WORKERS

from devstack.postgres import PostgresCluster

EXEMPT_MS = 20.0
"""Database time below which a question is fast enough, whatever the yardstick takes."""

MOST_TIMES = 1.5
"""How many times the yardstick's time a question may take."""

_DATABASE_RUNS = 7
_RECONNECTED_S = 60.0
_PAGES = 10  # by cursor, before the one that is measured
_HOST = "127.0.0.1"
_TITLES = ("p50", "p95", "p99", f"{CLIENTS} p95", "cold", "db", "chdb", "ratio")


@dataclass(slots=True)
class Result:
    """One line; times in milliseconds. `trouble` has words for what is not as it should be."""

    question: Question
    warm: list[float]
    busy: list[float]
    cold_ms: float
    database_ms: float
    yardstick_ms: float | None
    trouble: list[str]
    statements: list[Statement]

    @property
    def p95(self) -> float:
        """p95 of one client."""
        return percentile(self.warm, 0.95)

    @property
    def too_slow(self) -> bool:
        """Whether the goal of its group is missed."""
        return self.p95 >= GOALS_MS[self.question.group]

    @property
    def behind(self) -> bool:
        """Whether the yardstick is too much faster."""
        return (
            self.yardstick_ms is not None
            and self.database_ms >= EXEMPT_MS
            and self.database_ms > MOST_TIMES * self.yardstick_ms
        )


def main(arguments: Sequence[str] | None = None) -> int:
    """Load, measure, print; exits 0 whatever the figures are."""
    options = _parser().parse_args(arguments)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # stops the server on the way out
    directory = Path(options.directory or tempfile.mkdtemp(prefix="bench-api-", dir="/var/tmp")).resolve()
    directory.mkdir(parents=True, exist_ok=True)
    directory.chmod(0o755)
    try:
        _measure(options, directory)
    finally:
        if not options.directory:
            shutil.rmtree(directory, ignore_errors=True)
    return 0


def _measure(options: argparse.Namespace, directory: Path) -> None:
    database, sampler = server.prepare(directory, options.rows, options.seed, _say)
    with database:
        dsn = database.dsn(server.DATABASE)
        Log(database.log_file, dsn).write_all(wanted=False)  # an interrupted run may have left it on
        yardstick = None if options.no_yardstick else Yardstick(directory / "chdb")
        try:
            if yardstick is not None:
                taken = yardstick.fill(dsn, [(month.first, next_month(month.first)) for month in sampler.months])
                _say(f"the same rows into chdb: {taken:.0f} s")
            about = facts.find(dsn)
            drop_caches = server.can_drop_caches() and not options.keep_caches
            with server.running_api(dsn) as port:
                questions = [
                    *lists.questions(about),
                    *_pages(port),
                    *aggregations.questions(about),
                    *statistics.questions(about),
                ]
                if options.only:
                    questions = [question for question in questions if options.only in question.name]
                _say(
                    f"{len(questions)} questions over {options.rows:,} rows, {WORKERS} cores with the client. In ms: "
                    f"one client (p50, p95, p99), {CLIENTS} clients (p95), cold (once, after a restart of PostgreSQL"
                    f"{' and with empty caches of the system' if drop_caches else '; the caches of the system stay'}),"
                    " database time (median), chdb's (median), and how many times as much"
                )
                _say(f"{'question':48}" + "".join(f"{title:>9}" for title in _TITLES))
                asked = (_one(question, port, database, dsn, yardstick, drop_caches) for question in questions)
                results = [result for result in asked if result is not None]
        finally:
            if yardstick is not None:
                yardstick.close()
        _summary(results, len(questions), Path(options.explain), dsn)


def _pages(port: int) -> list[Question]:
    """The page behind some pages, as a reader gets there: by following `next_url`."""
    base = f"http://{_HOST}:{port}"
    url = f"{base}/api/v1/measurements?limit=100"
    try:
        for _ in range(_PAGES):
            url = json.loads(server.fetch(url))["metadata"]["next_url"] or url
    except OSError as error:
        _say(f"list: page by cursor: {error}")
        return []
    return [Question(f"list: page {_PAGES + 1} by next_url", LIST, url.removeprefix(base))]


def _one(
    question: Question, port: int, database: PostgresCluster, dsn: str, yardstick: Yardstick | None, drop_caches: bool
) -> Result | None:
    trouble: list[str] = []
    try:
        cold_ms = asyncio.run(_cold(port, database, question.path, drop_caches))
        asyncio.run(_settled(port))
        warm, (busy, refused) = asyncio.run(_warm(port, question.path))
        statements, database_ms = _database_time(port, database, dsn, question.path)
        reply = json.loads(server.fetch(f"http://{_HOST}:{port}{question.path}"))
    except (Failed, OSError, asyncio.IncompleteReadError) as error:
        _say(f"{question.name:48} no answer: {error}")
        return None
    if refused:
        trouble.append(f"REFUSED {refused} of {refused + len(busy)} of {CLIENTS} clients")
    yardstick_ms = None
    if yardstick is not None and question.sql is not None:
        yardstick_ms = yardstick.ms(question.sql)
        if question.of_reply is not None and question.of_rows is not None:
            ours, theirs = list(question.of_reply(reply)), list(question.of_rows(yardstick.rows(question.sql)))
            if ours != theirs:
                trouble.append(f"DIFFERS {ours} {theirs}")
    result = Result(question, warm, busy, cold_ms, database_ms, yardstick_ms, trouble, statements)
    if result.too_slow:
        trouble.append("TOO SLOW")
    if result.behind:
        trouble.append("BEHIND")
    _say(_line(result))
    return result


async def _warm(port: int, path: str) -> tuple[list[float], tuple[list[float], int]]:
    connections = [Connection(_HOST, port) for _ in range(CLIENTS)]
    try:
        warm = await one_client(connections[0], path)
        return warm, await many_clients(connections, path)
    finally:
        for connection in connections:
            connection.close()


async def _cold(port: int, database: PostgresCluster, path: str, drop_caches: bool) -> float:
    server.forget_everything(database, drop_caches)
    connection = Connection(_HOST, port)
    try:
        # Only the connection to the database is made, by a question about other tables.
        await _until_connected(connection)
        started = time.perf_counter()
        await connection.get(path)
        return (time.perf_counter() - started) * 1000
    finally:
        connection.close()


async def _settled(port: int) -> None:
    """Wait until every worker process of the API has connections to the database again."""
    connections = [Connection(_HOST, port) for _ in range(CLIENTS)]
    try:
        for _ in range(3):
            await asyncio.gather(*map(_until_connected, connections))
    finally:
        for connection in connections:
            connection.close()


async def _until_connected(connection: Connection) -> None:
    """Wait until the API has noticed that its database is back."""
    deadline = time.monotonic() + _RECONNECTED_S
    while True:
        try:
            await connection.get("/api/_/asnmeta?asn=1")
        except Failed:
            if time.monotonic() > deadline:
                raise
            await asyncio.sleep(0.2)
        else:
            return


def _database_time(port: int, database: PostgresCluster, dsn: str, path: str) -> tuple[list[Statement], float]:
    """Return the statements of one request, and the median of their time together, in milliseconds."""
    log = Log(database.log_file, dsn)
    log.write_all(wanted=True)
    runs = []
    try:
        for _ in range(_DATABASE_RUNS):
            server.fetch(f"http://{_HOST}:{port}{path}")
            time.sleep(0.02)
            runs.append(log.since(server.APPLICATION))
    finally:
        log.write_all(wanted=False)
    times = sorted(sum(statement.ms for statement in run) for run in runs)
    return [
        statement for statement in runs[-1] if statement.sql.lstrip().upper().startswith(("SELECT", "WITH", "("))
    ], times[len(times) // 2]


def _line(result: Result) -> str:
    values = [percentile(result.warm, share) for share in (0.5, 0.95, 0.99)]
    values += [percentile(result.busy, 0.95), result.cold_ms, result.database_ms]
    text = "".join(f"{value:9.1f}" for value in values)
    if result.yardstick_ms is None:
        text += f"{'-':>9}{'-':>9}"
    else:
        text += f"{result.yardstick_ms:9.1f}{result.database_ms / result.yardstick_ms:9.2f}"
    return f"{result.question.name:48}{text}  {', '.join(result.trouble)}".rstrip()


def _summary(results: Sequence[Result], asked: int, file: Path, dsn: str) -> None:
    for group, goal in (
        (LIST, "lists and single measurements"),
        (AGGREGATION, "aggregation"),
        (STATISTIC, "statistics"),
    ):
        of_group = [result for result in results if result.question.group == group]
        met = sum(not result.too_slow for result in of_group)
        _say(f"{goal}: {met} of {len(of_group)} with p95 below {GOALS_MS[group]:.0f} ms")
    compared = [result for result in results if result.yardstick_ms is not None]
    _say(
        f"yardstick: {sum(not result.behind for result in compared)} of {len(compared)} take at most "
        f"{MOST_TIMES} times its time, or less than {EXEMPT_MS:.0f} ms"
    )
    differs = sum(any("DIFFERS" in word for word in result.trouble) for result in results)
    _say(f"answers: {differs} differ from the yardstick's, {asked - len(results)} of {asked} questions got none")
    slow = [result for result in results if result.too_slow or result.behind]
    if slow:
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("w", encoding="utf-8") as out:
            for result in slow:
                out.write(f"=== {result.question.name}\n{result.question.path}\n{_line(result)}\n\n")
                for statement in result.statements:
                    out.write(
                        f"{statement.ms:.1f} ms {statement.sql}\n{statement.parameters}\n{explain(dsn, statement)}\n\n"
                    )
        _say(f"plans of the {len(slow)} that miss a goal: {file}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="bench-api", description=__doc__)
    parser.add_argument("--rows", type=int, default=20_000_000, help="how many measurements; default: 20000000")
    parser.add_argument("--seed", type=int, default=1, help="of the sample; default: 1")
    parser.add_argument("--directory", default="", help="keep the loaded data here, and take what is there")
    parser.add_argument("--explain", default="run/bench-api-plans.txt", help="file for the plans of slow queries")
    parser.add_argument("--only", default="", help="ask only questions whose name has this text in it")
    parser.add_argument("--no-yardstick", action="store_true", help="do without chdb")
    parser.add_argument("--keep-caches", action="store_true", help="leave the system's cache of files alone")
    return parser


def _say(text: str) -> None:
    print(text, flush=True)


if __name__ == "__main__":
    sys.exit(main())
