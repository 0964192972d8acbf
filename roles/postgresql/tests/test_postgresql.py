"""What every database host promises."""

import json

import pytest
from testinfra.host import Host


def ask(host: Host, query: str, *, database: str = "postgres") -> list[str]:
    """Return the lines that a query gives the superuser."""
    said = host.check_output(f'runuser -u postgres -- psql -XAt -F "|" -d {database} -c "{query}"')
    return said.splitlines()


def setting(host: Host, name: str) -> str:
    """Return the value of a setting that is in force."""
    return ask(host, f"SELECT setting FROM pg_settings WHERE name = '{name}'")[0]


def test_database_runs_and_starts_with_the_host(host: Host) -> None:
    assert host.service("postgresql").is_enabled
    assert ask(host, "SELECT datname FROM pg_database WHERE datname = 'ooni'") == ["ooni"]


def test_no_setting_waits_for_a_restart(host: Host) -> None:
    assert ask(host, "SELECT name FROM pg_settings WHERE pending_restart") == []
    assert ask(host, "SELECT sourcefile, error FROM pg_file_settings WHERE error IS NOT NULL") == []


def test_who_may_connect_is_exact(host: Host) -> None:
    rules = [
        dict(zip(("type", "users", "method", "address"), line.split("|"), strict=True))
        for line in ask(
            host, "SELECT type, user_name, auth_method, address FROM pg_hba_file_rules ORDER BY line_number"
        )
    ]
    assert {rule["method"] for rule in rules} <= {"peer", "scram-sha-256"}
    assert {rule["type"] for rule in rules} <= {"local", "hostssl"}
    assert all(rule["method"] == "scram-sha-256" for rule in rules if rule["type"] == "hostssl")
    assert not [
        rule for rule in rules if "all" in rule["users"] or ("postgres" in rule["users"] and rule["type"] != "local")
    ]
    assert "0.0.0.0" not in json.dumps(rules)


def test_only_the_superuser_may_everything(host: Host) -> None:
    assert ask(
        host,
        "SELECT rolname FROM pg_roles WHERE rolsuper OR rolcreaterole OR rolcreatedb OR rolreplication OR rolbypassrls",
    ) == ["postgres"]


def test_connections_are_encrypted_and_passwords_hashed(host: Host) -> None:
    assert setting(host, "ssl") == "on"
    assert setting(host, "ssl_min_protocol_version") == "TLSv1.2"
    assert setting(host, "password_encryption") == "scram-sha-256"
    assert (
        ask(
            host,
            "SELECT rolname FROM pg_authid WHERE rolpassword IS NOT NULL AND rolpassword NOT LIKE 'SCRAM-SHA-256$%'",
        )
        == []
    )


def test_log_has_no_address_of_a_client_and_no_parameters(host: Host) -> None:
    prefix = setting(host, "log_line_prefix")
    assert "%h" not in prefix
    assert "%r" not in prefix
    assert setting(host, "log_connections") == "off"
    assert setting(host, "log_parameter_max_length") == "0"


def test_memory_follows_the_host(host: Host) -> None:
    buffers = int(setting(host, "shared_buffers")) * 8192
    memory = host.check_output("awk '/^MemTotal/ {print $2}' /proc/meminfo")
    assert 128 * 1024 * 1024 <= buffers <= int(memory) * 1024 * 0.26


@pytest.mark.parametrize("account", ["nobody", "www-data"])
def test_accounts_that_are_nobodys_role_stay_out(host: Host, account: str) -> None:
    tried = host.run(f"runuser -u {account} -- psql -X -d ooni -U ooniapi -c 'SELECT 1'")
    assert tried.rc != 0
    assert "Peer authentication failed" in tried.stderr


def test_costly_statements_are_recorded(host: Host) -> None:
    assert ask(host, "SELECT count(*) > 0 FROM access.pg_stat_statements", database="ooni") == ["t"]
