"""Who may write rows of the same hour at the same time."""

from collections.abc import Callable

import psycopg
import pytest

from core.row_locks import lock_to_change, lock_to_insert, lock_to_repair, lock_to_take_out

UID = "20240208220710.181572_MA_ndt_7888edc7748936bf"
SAME_HOUR = "20240208225959.000001_IT_signal_0123456789abcdef"
NEXT_HOUR = "20240208230000.000001_IT_signal_0123456789abcdef"
OF_OLD = "01202402080123456789abcdef0123456789"


Lock = Callable[[psycopg.Connection, list[str]], None]


def _waits(dsn: str, holder: Lock, waiter: Lock, held: list[str], wanted: list[str]) -> bool:
    with psycopg.connect(dsn) as first, psycopg.connect(dsn) as second:
        holder(first, held)
        second.execute("SET lock_timeout = '200ms'")
        try:
            waiter(second, wanted)
        except psycopg.errors.LockNotAvailable:
            return True
        return False


@pytest.mark.parametrize(
    ("holder", "waiter", "waits"),
    [
        (lock_to_insert, lock_to_insert, False),
        (lock_to_insert, lock_to_change, True),
        (lock_to_change, lock_to_insert, True),
        (lock_to_change, lock_to_change, True),
        (lock_to_take_out, lock_to_insert, True),
        (lock_to_insert, lock_to_take_out, True),
    ],
)
def test_only_insertions_go_together(empty_dsn: str, holder: Lock, waiter: Lock, waits: bool) -> None:
    assert _waits(empty_dsn, holder, waiter, [NEXT_HOUR, UID], [SAME_HOUR, OF_OLD]) is waits


def test_repairs_and_takedowns_of_any_hour_exclude_each_other(empty_dsn: str) -> None:
    def repair(connection: psycopg.Connection, _: list[str]) -> None:
        lock_to_repair(connection)

    assert _waits(empty_dsn, repair, lock_to_take_out, [], [UID])
    assert _waits(empty_dsn, lock_to_take_out, repair, [UID], [])
    assert not _waits(empty_dsn, repair, lock_to_insert, [], [UID])
    assert not _waits(empty_dsn, repair, lock_to_change, [], [UID])
    assert not _waits(empty_dsn, lock_to_take_out, lock_to_take_out, [UID], [NEXT_HOUR])


def test_hours_are_independent_and_any_text_will_do(empty_dsn: str) -> None:
    others = [NEXT_HOUR, OF_OLD, "", "x", "\ud800"]
    assert not _waits(empty_dsn, lock_to_change, lock_to_change, [UID], others)
    assert _waits(empty_dsn, lock_to_change, lock_to_insert, others, [OF_OLD])
    assert not _waits(empty_dsn, lock_to_change, lock_to_change, [], [UID])


def test_the_lock_ends_with_the_transaction(empty_dsn: str) -> None:
    with psycopg.connect(empty_dsn) as first, psycopg.connect(empty_dsn) as second:
        lock_to_change(first, [UID])
        first.rollback()
        second.execute("SET lock_timeout = '200ms'")
        lock_to_change(second, [UID])
