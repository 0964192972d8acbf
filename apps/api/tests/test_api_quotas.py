"""Quotas without HTTP: the arithmetic of the buckets, and the table that processes share."""

import os
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.quota_store import QuotaTable, entries, find
from api.quota_summary import NoQuotas, subject_text, summary
from api.quotas import (
    BUCKETS,
    DAY,
    SECOND,
    Balance,
    Factors,
    Subject,
    buckets_of,
    charged,
    exhausted,
    full,
    is_full,
    refilled,
    remaining_s,
    retry_after_s,
    subject_of_account,
    subjects_of,
)

FACTORS = Factors(prefix=10, account=5)
KINDS = ("address", "prefix", "account")
NOW = 10**15
amounts = st.tuples(*(st.integers(-bucket.capacity, bucket.capacity) for bucket in BUCKETS))
balances = st.builds(Balance, amounts, st.just(NOW))
durations = st.integers(0, 40 * DAY)
costs = st.integers(0, 120 * SECOND)


def subject(number: int, kind: str = "address") -> Subject:
    if kind == "account":
        return subject_of_account(f"{number:032x}")
    return Subject(kind, 4, number.to_bytes(4, "big"))


# arithmetic


def test_a_new_address_has_the_buckets_of_the_contract() -> None:
    assert [(bucket.name, bucket.capacity // SECOND, bucket.period // DAY) for bucket in BUCKETS] == [
        ("day", 4000, 1),
        ("week", 20000, 7),
        ("month", 60000, 30),
    ]
    assert remaining_s(full(BUCKETS, NOW)) == 4000
    assert remaining_s(charged(full(BUCKETS, NOW), BUCKETS, 1)) == 3999


def test_each_bucket_refills_in_its_period() -> None:
    empty = Balance((0, 0, 0), NOW)
    for index, bucket in enumerate(BUCKETS):
        assert refilled(empty, BUCKETS, NOW + bucket.period // 2).left[index] == bucket.capacity // 2
        assert refilled(empty, BUCKETS, NOW + bucket.period - 1).left[index] < bucket.capacity
        assert refilled(empty, BUCKETS, NOW + bucket.period).left[index] == bucket.capacity
    assert is_full(refilled(empty, BUCKETS, NOW + 30 * DAY), BUCKETS)


@given(balances, durations, durations)
def test_refilling_in_two_steps_is_refilling_in_one(balance: Balance, first: int, second: int) -> None:
    one = refilled(balance, BUCKETS, NOW + first + second)
    two = refilled(refilled(balance, BUCKETS, NOW + first), BUCKETS, NOW + first + second)
    assert one.at == two.at
    for single, split, bucket in zip(one.left, two.left, BUCKETS, strict=True):
        assert single - 1 <= split <= single <= bucket.capacity


@given(balances, durations, costs)
def test_a_balance_stays_within_its_bounds(balance: Balance, waited: int, cost: int) -> None:
    after = charged(refilled(balance, BUCKETS, NOW + waited), BUCKETS, cost)
    for before, left, bucket in zip(balance.left, after.left, BUCKETS, strict=True):
        assert max(-bucket.capacity, before - cost) <= left <= bucket.capacity
    assert 0 <= remaining_s(after) <= 4000


@given(balances)
def test_a_clock_that_goes_back_gives_nothing(balance: Balance) -> None:
    assert refilled(balance, BUCKETS, NOW - DAY).left == balance.left


@given(balances)
def test_retry_after_is_when_requests_are_let_in_again(balance: Balance) -> None:
    wait = retry_after_s(balance, BUCKETS)
    bucket = exhausted(balance, BUCKETS)
    assert (wait == 0) == (bucket is None)
    assert exhausted(refilled(balance, BUCKETS, NOW + wait * SECOND), BUCKETS) is None
    if wait:
        assert exhausted(refilled(balance, BUCKETS, NOW + (wait - 1) * SECOND), BUCKETS) == bucket


@given(balances)
def test_who_is_told_that_nothing_remains_is_refused_and_nobody_else(balance: Balance) -> None:
    assert (remaining_s(balance) == 0) == (exhausted(balance, BUCKETS) is not None)


def test_a_debt_is_paid_before_requests_are_let_in() -> None:
    """A request that costs more than is left must not be the first of many."""
    after = charged(Balance((SECOND, 10**13, 10**13), NOW), BUCKETS, 60 * SECOND)
    bucket = exhausted(after, BUCKETS)
    assert bucket is not None
    assert bucket.name == "day"
    assert retry_after_s(after, BUCKETS) == 60 * 86400 // 4000


@pytest.mark.parametrize(
    ("address", "own", "prefix"),
    [
        ("192.0.2.77", "192.0.2.77", "192.0.2.0"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64", "2001:db8:1::/64"),
    ],
)
def test_subjects_of_an_address(address: str, own: str, prefix: str) -> None:
    first, second = subjects_of(ip_address(address))
    assert (first.kind, second.kind) == ("address", "prefix")
    assert (subject_text(first), subject_text(second)) == (own, prefix)


def test_each_kind_has_its_multiple_of_an_address() -> None:
    held = {kind: [bucket.capacity // SECOND for bucket in buckets_of(kind, FACTORS)] for kind in KINDS}
    assert held == {
        "address": [4_000, 20_000, 60_000],
        "prefix": [40_000, 200_000, 600_000],
        "account": [20_000, 100_000, 300_000],
    }
    assert [bucket.period for bucket in buckets_of("account", FACTORS)] == [bucket.period for bucket in BUCKETS]


# the table


@pytest.fixture
def table() -> Iterator[QuotaTable]:
    made = QuotaTable(FACTORS)
    yield made
    made.close()


@given(st.lists(st.tuples(st.integers(0, 5), st.sampled_from(KINDS), costs, durations), max_size=30))
def test_the_table_is_the_arithmetic(steps: list[tuple[int, str, int, int]]) -> None:
    table, now = QuotaTable(FACTORS, entries=1), NOW  # one set of slots, so everything shares it
    model: dict[Subject, Balance] = {}
    for number, kind, cost, waited in steps:
        now += waited
        who = subject(number, kind)
        buckets = buckets_of(kind, FACTORS)
        balance = model.get(who, full(buckets, now))
        model[who] = charged(refilled(balance, buckets, now), buckets, cost)
        assert table.charge(who, cost, now) == (model[who], False)
    for who, balance in model.items():
        assert table.balance(who, now) == refilled(balance, table.buckets(who), now)
    owed = {who for who in model if not is_full(table.balance(who, now), table.buckets(who))}
    assert {who for who, _ in entries(table.descriptor, FACTORS, now)} == owed
    table.close()


def test_a_full_table_forgets_who_used_least() -> None:
    table = QuotaTable(FACTORS, entries=16)
    for number in range(16):
        assert table.charge(subject(number), (number + 1) * SECOND, NOW)[1] is False
    assert table.charge(subject(99), 50 * SECOND, NOW)[1] is True
    left = {who.packed[3] for who, _ in entries(table.descriptor, FACTORS, NOW)}
    assert left == {*range(1, 16), 99}
    later = NOW + DAY * 29  # all full again: there is room without forgetting anybody
    assert table.charge(subject(100), SECOND, later)[1] is False
    table.close()


def test_an_account_is_nobody_elses_address(table: QuotaTable) -> None:
    """Its sixteen bytes may be those of a network, or begin like those of an IPv4 address."""
    network = subjects_of(ip_address("2001:db8:1:2::"))[0]
    alike = [subject_of_account(network.packed.hex()), subject_of_account(subject(7).packed.ljust(16, b"\0").hex())]
    for who in alike:
        table.charge(who, 1000 * SECOND, NOW)
    assert dict(entries(table.descriptor, FACTORS, NOW)).keys() == set(alike)
    assert [remaining_s(table.balance(who, NOW)) for who in alike] == [19_000, 19_000]
    assert [remaining_s(table.balance(who, NOW)) for who in (network, subject(7))] == [4_000, 4_000]
    table.charge(network, SECOND, NOW)
    assert remaining_s(table.balance(alike[0], NOW)) == 19_000


def test_a_flood_of_addresses_takes_no_more_memory(table: QuotaTable) -> None:
    small = QuotaTable(FACTORS, entries=64)
    spent = subject(1)
    small.charge(spent, 3000 * SECOND, NOW)
    for number in range(1000, 3000):
        small.charge(subject(number), SECOND // 100, NOW)
    assert os.fstat(small.descriptor).st_size == 64 * 64
    assert remaining_s(small.balance(spent, NOW)) == 1000, "who used most must not be washed out by others"
    small.close()


@given(st.binary(min_size=1024, max_size=1024))
def test_whatever_lies_in_the_memory_is_read_as_balances(garbage: bytes) -> None:
    table = QuotaTable(FACTORS, entries=16)
    os.pwrite(table.descriptor, garbage, 0)
    who = subject(1)
    for _, balance in entries(table.descriptor, FACTORS, NOW):
        assert 0 <= remaining_s(balance) <= 40000
    after, _ = table.charge(who, SECOND, NOW)
    assert exhausted(after, BUCKETS) is None
    assert table.balance(who, NOW) == after
    table.close()


def test_a_torn_moment_does_not_lock_an_address_out(table: QuotaTable) -> None:
    who = subject(1)
    table.charge(who, 5000 * SECOND, NOW)
    content = os.pread(table.descriptor, os.fstat(table.descriptor).st_size, 0)
    at = content.index(struct.pack("<q", NOW))
    os.pwrite(table.descriptor, struct.pack("<q", 2**62), at)
    table.charge(who, 0, NOW)
    assert exhausted(table.balance(who, NOW + DAY), BUCKETS) is None


CHILD = """
import fcntl, os, sys, time
table = int(sys.argv[1])
fcntl.lockf(table, fcntl.LOCK_EX)  # every set at once
print("held", flush=True)
time.sleep(600)
"""


def holder(table: QuotaTable) -> subprocess.Popen[bytes]:
    """A process that holds the lock of every set."""
    process = subprocess.Popen(
        [sys.executable, "-c", CHILD, str(table.descriptor)], stdout=subprocess.PIPE, pass_fds=[table.descriptor]
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"held\n"
    return process


def test_a_holder_of_the_lock_neither_stalls_nor_when_killed_keeps_it(table: QuotaTable) -> None:
    who = subject(1)
    with holder(table) as process:
        try:
            process.send_signal(signal.SIGSTOP)
            table.charge(who, SECOND, NOW)  # goes on without the lock
            assert remaining_s(table.balance(who, NOW)) == 3999
        finally:
            process.kill()
    started = time.process_time()
    for _ in range(100):
        table.charge(who, SECOND, NOW)
    assert time.process_time() - started < 10
    assert remaining_s(table.balance(who, NOW)) == 3899


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_charges_of_several_processes_add_up(table: QuotaTable) -> None:
    """Four processes charge one address; some are killed in the middle and lose their own charges at most."""
    who, children = subject(1), []
    for number in range(4):
        pid = os.fork()
        if pid == 0:
            try:
                for _ in range(500):
                    table.charge(who, SECOND // 10, NOW)
                if number == 3:
                    while True:
                        table.charge(subject(2), SECOND, NOW)
            finally:
                os._exit(0)
        children.append(pid)
    for pid in children[:3]:
        os.waitpid(pid, 0)
    while table.balance(subject(2), NOW) == full(BUCKETS, NOW):
        time.sleep(0.01)
    os.kill(children[3], signal.SIGKILL)
    os.waitpid(children[3], 0)
    table.charge(who, 0, NOW)
    # A charge is lost only when a lock is not had within some 20 ms.
    assert 3800 <= remaining_s(table.balance(who, NOW)) <= 3805


# what the administrator sees


def test_the_summary_reads_the_table_of_another_process() -> None:
    table = QuotaTable(FACTORS, name="unix:/run/test-quotas.sock")
    now = time.monotonic_ns()
    for number in range(30):
        table.charge(subject(number), number * SECOND, now)
    table.charge(subjects_of(ip_address("2001:db8::1"))[0], 100 * SECOND, now)
    table.charge(subjects_of(ip_address("0.0.0.9"))[1], 1000 * SECOND, now)
    table.charge(subject(0xA, "account"), 16_050 * SECOND, now)  # 3950 left of five times as much
    listed = summary("unix:/run/test-quotas.sock", FACTORS)
    assert listed[:3] == [("2001:db8::/64", 3900), (f"{0xA:032x}", 3950), ("0.0.0.29", 3971)]
    assert len(listed) == 20
    descriptor = find("self", "unix:/run/test-quotas.sock")
    assert descriptor is not None
    os.close(descriptor)
    table.close()
    with pytest.raises(NoQuotas, match="quotas_enabled"):
        summary("unix:/run/test-quotas.sock", FACTORS)


def test_the_table_is_on_no_disk(table: QuotaTable) -> None:
    assert str(Path(f"/proc/self/fd/{table.descriptor}").readlink()).startswith("/memfd:")
