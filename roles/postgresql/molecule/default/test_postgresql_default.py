"""What roles may do with the tables of the real migrations, from the moment they are made."""

import pytest
from testinfra.host import Host

COUNTERS = {
    "counters_input",
    "counters_domain",
    "counters_url",
    "counters_network",
    "counters_country",
    "counters_blocking",
    "counters_month_input",
    "counters_month_network",
    "counters_month_url",
    "counters_month_country",
}
FINGERPRINTS = {"fingerprints_dns", "fingerprints_http"}
WRITES = {
    "ooniapi": {"accounts", "ended_sessions", "used_login_links", "login_mails", "access_tokens"}
    | {"incidents", "msmt_feedback", "oonirun_links", "oonirun_revisions"}
    | {"test_list_proposals", "test_list_changes", "url_priorities"},
    "fastpath": {"fastpath", "fastpath_misdated", "obs_openvpn", "rerun", "rerun_day", "rerun_progress"}
    | COUNTERS
    | FINGERPRINTS,
    "uploader": {"jsonl", "upload_manifest"},
    "analysis": COUNTERS | FINGERPRINTS | {"citizenlab"},
}
APPENDS = {"ooniapi": {"audit_log"}}


def ask(host: Host, query: str, role: str) -> str:
    """Return what a query gives `role`; root may be the owner, the superuser may be everybody."""
    if role == "ooni":
        return host.check_output(f'psql -XAt -d ooni -U ooni -c "{query}"')
    return host.check_output(f'runuser -u postgres -- psql -XAtq -d ooni -c "SET ROLE {role}" -c "{query}"')


def refused(host: Host, query: str, role: str) -> bool:
    """Tell whether the database refuses `query` to `role` for lack of rights."""
    tried = host.run(f'runuser -u postgres -- psql -XAtq -v ON_ERROR_STOP=1 -d ooni -c "SET ROLE {role}" -c "{query}"')
    return tried.rc != 0 and "permission denied" in tried.stderr


@pytest.fixture(scope="module")
def migrated(host: Host) -> Host:
    """The host, with all migrations applied by the owner."""
    if ask(host, "SELECT to_regclass('jsonl') IS NULL", "ooni") == "t":
        # One transaction each, as `database_upgrade_schema` does; nobody is here for whom indexes must be made slowly.
        host.check_output(
            "for file in /migrations/*.sql; do sed 's/ CONCURRENTLY//' $file"
            " | psql -Xq1 -v ON_ERROR_STOP=1 -d ooni -U ooni -f - || exit 1; done"
        )
    return host


@pytest.mark.parametrize("role", sorted(WRITES))
def test_role_reads_everything_and_writes_its_tables_alone(migrated: Host, role: str) -> None:
    tables = "FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p')"
    assert (
        ask(migrated, f"SELECT count(*) {tables} AND NOT has_table_privilege('{role}', oid, 'SELECT')", "ooni") == "0"
    )
    for right in ("INSERT", "UPDATE", "DELETE"):
        writable = ask(migrated, f"SELECT relname {tables} AND has_table_privilege('{role}', oid, '{right}')", "ooni")
        assert set(writable.split()) == WRITES[role] | (APPENDS.get(role, set()) if right == "INSERT" else set())
    for right in ("TRUNCATE", "REFERENCES", "TRIGGER"):
        assert (
            ask(migrated, f"SELECT count(*) {tables} AND has_table_privilege('{role}', oid, '{right}')", "ooni") == "0"
        )
    assert refused(migrated, "CREATE TABLE mine (x int)", role)


def test_table_of_a_later_migration_is_readable_at_once_and_writable_for_those_named(migrated: Host) -> None:
    ask(migrated, "DROP TABLE IF EXISTS later; CREATE TABLE later (x int)", "ooni")
    assert ask(migrated, "SELECT count(*) FROM later", "ooniapi") == "0"
    assert refused(migrated, "INSERT INTO later VALUES (1)", "fastpath")
    ask(
        migrated,
        "DROP TABLE later; ALTER TABLE jsonl RENAME TO jsonl_old; CREATE TABLE jsonl (LIKE jsonl_old INCLUDING ALL)",
        "ooni",
    )
    try:
        assert ask(migrated, "SELECT has_table_privilege('uploader', 'jsonl', 'INSERT')", "ooni") == "t"
        assert ask(migrated, "SELECT has_table_privilege('ooniapi', 'jsonl', 'INSERT')", "ooni") == "f"
    finally:
        ask(migrated, "DROP TABLE jsonl; ALTER TABLE jsonl_old RENAME TO jsonl", "ooni")


def test_partitions_belong_to_the_owner_whoever_has_them_made(migrated: Host) -> None:
    make = "SELECT fastpath_ensure_partitions('2150-01-01', '2150-02-01')"
    assert refused(migrated, make, "ooniapi")
    assert refused(migrated, make, "fastpath")
    assert ask(migrated, make, "analysis") in ("1", "0")
    assert ask(migrated, "SELECT tableowner FROM pg_tables WHERE tablename = 'fastpath_215001'", "ooni") == "ooni"
    assert ask(migrated, "SELECT has_table_privilege('ooniapi', 'fastpath_215001', 'SELECT')", "ooni") == "t"


@pytest.mark.parametrize(
    ("role", "allowed"), [("ooniapi", False), ("fastpath", True), ("uploader", True), ("analysis", False)]
)
def test_temporary_tables_are_for_those_who_need_them(migrated: Host, role: str, allowed: bool) -> None:
    assert refused(migrated, "CREATE TEMPORARY TABLE mine (x int)", role) is not allowed


def test_accounts_become_their_roles_without_a_password(migrated: Host) -> None:
    migrated.check_output("getent passwd ooniapi || useradd --system ooniapi")
    for role in ("ooniapi", "uploader"):
        assert (
            migrated.check_output(f"runuser -u ooniapi -- psql -XAt -d ooni -U {role} -c 'SELECT current_user'") == role
        )
    assert migrated.run("runuser -u ooniapi -- psql -X -d ooni -U fastpath -c 'SELECT 1'").rc != 0


def test_it_listens_on_the_loopback_alone(migrated: Host) -> None:
    assert migrated.socket("tcp://127.0.0.1:5432").is_listening
    assert not migrated.socket("tcp://0.0.0.0:5432").is_listening
