"""What scoring together with a database promises."""

import hashlib
import json
import time
from collections.abc import Callable
from datetime import UTC, datetime

from testinfra.host import Host


def psql(host: Host, query: str) -> str:
    """Return what a query gives the owner of the database."""
    return host.check_output(f'psql -XAt -d ooni -U ooni -c "{query}"')


def test_it_is_ready_to_score(host: Host, fetch: Callable) -> None:
    assert json.loads(fetch(host, "/ready", tls=False, port=8472).text) == {"ready": True, "reasons": []}


def test_fingerprints_were_imported_once(host: Host) -> None:
    assert int(psql(host, "SELECT count(*) FROM fingerprints_http")) > 0
    assert int(psql(host, "SELECT count(*) FROM fingerprints_dns")) > 0


def test_measurement_becomes_a_row_with_counters_within_seconds(host: Host, fetch: Callable) -> None:
    now = datetime.now(UTC)
    report = f"{now:%Y%m%dT%H%M%SZ}_telegram_IT_64500_n1_abcdefgh12345678"
    body = json.dumps({
        "format": "json",
        "content": {
            "report_id": report, "probe_cc": "IT", "probe_asn": "AS64500", "test_name": "telegram", "input": None,
            "measurement_start_time": f"{now:%Y-%m-%d %H:%M:%S}", "test_start_time": f"{now:%Y-%m-%d %H:%M:%S}",
            "software_name": "test", "software_version": "1", "test_version": "0.1", "test_keys": {},
        },
    })  # fmt: skip
    uid = f"{now:%Y%m%d%H%M%S.%f}_IT_telegram_{hashlib.sha512(body.encode()).hexdigest()[:16]}"
    assert fetch(host, f"/{uid}", method="POST", body=body, tls=False, port=8472).status == 200
    for _ in range(50):
        if psql(host, f"SELECT report_id FROM fastpath WHERE measurement_uid = '{uid}'") == report:  # noqa: S608 our own
            break
        time.sleep(0.2)
    else:
        raise AssertionError(host.check_output("journalctl -u fastpath --no-pager -n 20"))
    assert int(psql(host, "SELECT sum(measurement_count) FROM counters_country WHERE probe_cc = 'IT'")) >= 1


def test_restart_is_orderly_and_the_service_is_ready_again(host: Host, fetch: Callable) -> None:
    host.check_output("systemctl restart fastpath")
    assert "fastpath stopped" in host.check_output("journalctl -u fastpath --no-pager -n 50")
    for _ in range(50):
        if fetch(host, "/ready", tls=False, port=8472).status == 200:
            return
        time.sleep(0.2)
    raise AssertionError("not ready after a restart")


def test_rights_are_those_of_its_role(host: Host) -> None:
    tried = host.run("runuser -u fastpath -- psql -X -d ooni -U fastpath -c 'DELETE FROM jsonl'")
    assert "permission denied" in tried.stderr
