"""The whole stack on systemd hosts, deployed by ./play over ssh from this tree: rehearsed, deployed, used, deployed
again, rebooted, upgraded, and grown by a host. The tests are steps and run in this order; README.md tells how to go on
with the hosts of an earlier run.
"""

import hashlib
import json
import os
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from stackhosts import ROOT, guide, mail, packages
from stackhosts.podman import CommandFailed, Host, eventually
from stackhosts.ports import OPEN_TO_EVERYBODY, read_listeners, unexpected
from stackhosts.probes import Probes, Replay, answers, get, missing_rows
from stackhosts.stage import FIRST, KEEP, NEW, Stage

pytestmark = [
    pytest.mark.stack,
    pytest.mark.timeout(2400),
    pytest.mark.skipif(shutil.which("podman") is None, reason="podman is not on this machine: tools/setup-stack"),
    pytest.mark.skipif(os.geteuid() != 0, reason="hosts with addresses of their own need rootful podman: run as root"),
]

PLAYBOOKS = sorted(path.name for path in (ROOT / "ansible").glob("*.yml") if path.name.startswith(("deploy-", "boot")))
# In this order on bare hosts; docs/deploy.md says the same.
DEPLOYMENT = [
    "bootstrap.yml",
    "deploy-apt-archive.yml",
    "deploy-database.yml",
    "deploy-api.yml",
    "deploy-fastpath.yml",
    "deploy-analysis.yml",
    "deploy-monitoring.yml",
]
GOAL_S = 900
COUNT = 60
SPOOL = "/var/lib/ooniapi/measurements"
MAIL_VARIABLES = "group_vars/api/mail.yml"


@pytest.fixture(scope="module")
def packages_new() -> list[Path]:
    """Packages of this tree."""
    return packages.build_new()


@pytest.fixture(scope="module")
def packages_old(packages_new: list[Path], summary: list[str]) -> list[Path]:
    """Packages of the release before."""
    files, what = packages.old_release(packages_new)
    summary.append(f"The release before: {what}")
    return files


@pytest.fixture(scope="module")
def bare(summary: list[str], packages_new: list[Path]) -> Iterator[Stage]:
    """Hosts that nothing was deployed to, and an operator with an inventory. Packages are built before."""
    stage = Stage(summary=summary)
    try:
        stage.up()
        yield stage
        for arguments, seconds in stage.operator.durations.items():
            summary.append(f"{seconds:6.0f} s  ./play {arguments}")
    finally:
        if KEEP:
            stage.operator.close_connections()
            summary.append(
                "Hosts and inventory were kept. `make test-stack KEEP=1` goes on with them, without removes them."
            )
        else:
            stage.down()


@pytest.fixture(scope="module")
def stage(bare: Stage, packages_old: list[Path]) -> Stage:
    """The hosts, deployed with the release before."""
    if bare.went_on and answers(bare, bare.hosts["api1"]):
        return bare
    started = time.monotonic()
    for playbook in DEPLOYMENT:
        bare.operator.play(f"{playbook} --diff -u root")
        if playbook == "deploy-apt-archive.yml":
            publish(bare, packages_old)
    eventually(lambda: answers(bare, bare.hosts["api1"]), 30, "the API answers")
    seconds = time.monotonic() - started
    bare.summary.append(f"{seconds:6.0f} s  from bare hosts to everything deployed (goal on an idle machine: {GOAL_S})")
    return bare


@pytest.fixture(scope="module")
def sent(stage: Stage) -> Replay:
    """Measurements of simulated probes of every generation."""
    return Probes(stage, stage.hosts["api1"], f"--count {COUNT} --seed {time.time_ns() % 10**6}").finish()


def publish(stage: Stage, files: list[Path]) -> None:
    """Put packages into the archive, as its README says."""
    host = stage.hosts["monitoring"]
    host.run("rm -rf /root/publish && mkdir /root/publish")
    for file in files:
        host.run(f"cat > /root/publish/{file.name}", stdin=file.read_bytes())
    said = host.run("apt-archive-publish /root/publish/*.deb")
    assert all(f" {packages.version(file)}" in said for file in files), said


def state_of(host: Host) -> set[str]:
    """What a rehearsal must not change: packages, accounts, units and files, one line each."""
    listing = host.run(
        "dpkg-query -W; cut -d: -f1 /etc/passwd /etc/group;"
        " systemctl list-unit-files --no-legend --type=service,timer,socket;"
        " find /etc /usr/local /root -xdev -type f -not -path '/root/.ansible/*' -exec sha256sum {} +"
    )
    return set(listing.splitlines())


class TestRehearsal:
    """--check --diff on hosts that were never deployed."""

    def test_every_playbook_rehearses_on_virgin_hosts_and_changes_nothing(self, bare: Stage) -> None:
        if bare.went_on:
            pytest.skip("the hosts of an earlier run are not virgin any more")
        bare.stand_in()
        before = {name: state_of(host) for name, host in bare.hosts.items()}
        failures = {}
        for playbook in PLAYBOOKS:
            try:
                recap = bare.operator.play(f"{playbook} --check --diff -u root")
                assert recap.ok
            except (AssertionError, ValueError) as problem:
                failures[playbook] = str(problem)
        changed = {name: state_of(host) ^ before[name] for name, host in bare.hosts.items()}
        bare.stand_down()
        assert not failures, "\n\n".join(f"{name}: {problem}" for name, problem in failures.items())
        assert changed == {name: set() for name in bare.hosts}


class TestDeployment:
    """Hosts do what their groups say."""

    @pytest.mark.parametrize("name", FIRST)
    def test_no_unit_failed(self, stage: Stage, name: str) -> None:
        assert stage.hosts[name].failed_units() == []

    @pytest.mark.parametrize("name", FIRST)
    def test_only_ports_on_the_list_are_listened_on(self, stage: Stage, name: str) -> None:
        host = stage.hosts[name]
        found = read_listeners(host.run("ss -H -l -t -u -n -p"), host.address)
        assert found
        assert unexpected(found, stage.groups(name)) == set()

    @pytest.mark.parametrize("name", FIRST)
    def test_a_stranger_reaches_only_what_is_meant_for_everybody(self, stage: Stage, name: str) -> None:
        host = stage.hosts[name]
        listening = {entry.port for entry in read_listeners(host.run("ss -H -l -t -u -n -p"), host.address)}
        meant = set().union(*(OPEN_TO_EVERYBODY.get(group, set()) for group in stage.groups(name)))
        reached = {port for port in sorted(listening | {80, 443, 5432, 9100}) if reaches(host.address, port)}
        assert reached <= meant
        assert 22 in reached

    def test_people_reach_the_api_by_name_and_only_over_tls(self, stage: Stage) -> None:
        api = stage.hosts["api1"]
        assert get(stage, api, "/health") == (200, b"UP")
        answer = stage.hosts["db1"].run(
            f"curl -s -o /dev/null -w '%{{http_code}} %{{redirect_url}}' http://{api.fqdn}/health"
        )
        assert answer == f"301 https://{api.fqdn}/health"


class TestMeasurements:
    """From a probe's request to the archive, over HTTPS."""

    def test_every_measurement_is_acknowledged_and_has_its_row(self, stage: Stage, sent: Replay) -> None:
        assert sent.summary["submitted"] == COUNT
        assert (sent.summary["failed"], sent.summary["refused"]) == (0, 0)
        uids = [document["uid"] for document in sent.accepted]
        assert len(uids) >= COUNT - sent.summary["dropped"]
        assert missing_rows(stage.hosts["db1"], uids) == set()

    def test_the_list_and_a_body_are_served_as_sent(self, stage: Stage, sent: Replay) -> None:
        api = stage.hosts["api1"]
        document = next(document for document in sent.accepted if document["sha256"])
        status, body = get(stage, api, f"/api/v1/raw_measurement?measurement_uid={document['uid']}")
        assert status == 200
        assert hashlib.sha256(body).hexdigest() == document["sha256"]
        status, listing = get(stage, api, f"/api/v1/measurements?report_id={document['report_id']}")
        assert status == 200
        assert document["uid"] in {row["measurement_uid"] for row in json.loads(listing)["results"]}

    def test_block_pages_were_recognised(self, stage: Stage, sent: Replay) -> None:
        assert int(stage.hosts["db1"].sql("SELECT count(*) FROM fastpath WHERE confirmed")) > 0
        assert int(stage.hosts["db1"].sql("SELECT sum(measurement_count) FROM counters_country")) >= len(sent.accepted)

    def test_the_uploader_archives_them_and_bodies_stay_readable(self, stage: Stage, sent: Replay) -> None:
        api, database = stage.hosts["api1"], stage.hosts["db1"]
        api.run("systemctl start ooni-api-uploader.service", timeout=600)
        document = next(document for document in sent.accepted if document["sha256"])
        uid = document["uid"]
        # The hour that is still being filled stays in the spool, so that its archive is one file.
        waiting = api.run(f"find {SPOOL} -name '{uid}*'").strip()
        archived = database.sql(f"SELECT s3path FROM jsonl WHERE measurement_uid = '{uid}'")
        assert waiting or archived
        if archived:
            assert api.run(f"ls /var/lib/ooniapi/objects/{archived}")
        status, body = get(stage, api, f"/api/v1/raw_measurement?measurement_uid={uid}")
        assert (status, hashlib.sha256(body).hexdigest()) == (200, document["sha256"])

    def test_the_jobs_of_the_analysis_run(self, stage: Stage, sent: Replay) -> None:
        for job in ("ooni-update-counters", "ooni-ensure-partitions"):
            stage.hosts["api1"].run(f"systemctl start {job}.service", timeout=300)

    @pytest.mark.parametrize("name", FIRST)
    def test_no_log_holds_the_address_of_a_client(self, stage: Stage, sent: Replay, name: str) -> None:
        host = stage.hosts[name]
        gateway = host.run("ip -4 route show default").split()[2]  # where all requests of this test come from
        lines = host.run(
            "journalctl --no-pager -q; grep -rIs '' /var/log/nginx /var/log/postgresql || true"
        ).splitlines()
        assert lines
        address = re.compile(rf"\b{re.escape(gateway)}\b")
        # Who logged in to administer the host is known to sshd.
        holding = [line for line in lines if address.search(line) and "sshd[" not in line]
        assert holding == []
        if name == "api1":
            assert any('method=POST path="/report' in line for line in lines)


class TestMonitoring:
    """Prometheus sees every host and service."""

    def test_every_target_is_up(self, stage: Stage, sent: Replay) -> None:
        eventually(lambda: stage.targets_down() == [], 120, f"all targets are up; now down: {stage.targets_down()}")
        jobs = {target["labels"]["job"] for target in stage.prometheus("targets?state=active")["activeTargets"]}
        assert {"node", "api", "fastpath", "prometheus", "alertmanager", "blackbox"} <= jobs

    def test_metrics_count_what_was_sent(self, stage: Stage, sent: Replay) -> None:
        def counted() -> float:
            found = stage.query("sum(api_measurements_acknowledged_total)")
            return float(found[0]["value"][1]) if found else 0.0  # not scraped yet

        eventually(lambda: counted() >= len(sent.accepted), 60, "the counter of the API reaches Prometheus")

    def test_every_probe_from_outside_succeeds(self, stage: Stage) -> None:
        def failing() -> list[str]:
            found = stage.query("probe_success == 0")
            return [str(entry["metric"]) for entry in found]

        eventually(lambda: stage.query("probe_success"), 120, "probes are made")
        eventually(lambda: failing() == [], 120, f"probes succeed; failing: {failing()}")

    def test_every_rule_can_be_evaluated(self, stage: Stage) -> None:
        rules = [rule for group in stage.prometheus("rules")["groups"] for rule in group["rules"]]
        assert rules
        eventually(
            lambda: all(
                rule["health"] == "ok" for group in stage.prometheus("rules")["groups"] for rule in group["rules"]
            ),
            60,
            "every rule is evaluated without an error",
        )

    def test_every_query_of_a_dashboard_returns_data(self, stage: Stage, sent: Replay) -> None:
        dashboards = sorted((ROOT / "dashboards" / "grafana").glob("*.json"))
        if not dashboards:
            pytest.skip("there is no dashboard yet")
        asked = {query for file in dashboards for query in queries(json.loads(file.read_text()))}
        assert {query for query in asked if not self.has_data(stage, query)} == set()

    @staticmethod
    def has_data(stage: Stage, query: str) -> bool:
        plain = query.replace("$__rate_interval", "5m").replace("$__interval", "1m").replace("$__range", "1h")
        return bool(stage.query(plain))


class TestSecondRun:
    """What is deployed stays as it is."""

    def test_every_playbook_again_changes_nothing(self, stage: Stage) -> None:
        recap = stage.operator.play("site.yml --diff -u root")
        assert recap.changed_tasks == []
        assert set(recap.changed.values()) == {0}
        assert {name.split(".")[0] for name in recap.ok} == set(FIRST)

    def test_the_inventory_agrees_with_the_hosts(self, stage: Stage) -> None:
        stage.operator.play("inventory-check.yml -u root")


class TestReboot:
    """A host that comes back needs nobody."""

    @pytest.mark.parametrize("name", FIRST)
    def test_everything_comes_back(self, stage: Stage, name: str, sent: Replay) -> None:
        host = stage.hosts[name]
        before = read_listeners(host.run("ss -H -l -t -u -n -p"), host.address)
        host.reboot()
        eventually(
            lambda: read_listeners(host.run("ss -H -l -t -u -n -p"), host.address) >= before,
            90,
            f"{name} listens where it did",
        )
        assert host.failed_units() == []
        assert "policy drop" in host.run("nft list table inet host_firewall")
        eventually(lambda: answers(stage, stage.hosts["api1"]), 60, "the API answers")
        eventually(lambda: stage.targets_down() == [], 180, f"all targets are up after the reboot of {name}")

    def test_measurements_are_taken_after_the_reboots(self, stage: Stage) -> None:
        again = Probes(stage, stage.hosts["api1"], "--count 10 --seed 4711").finish()
        assert again.summary["failed"] == 0
        assert missing_rows(stage.hosts["db1"], [document["uid"] for document in again.accepted]) == set()


class TestUpgrade:
    """From the release before to this one, in place, while probes submit."""

    def test_nothing_is_lost_while_everything_is_upgraded(
        self, stage: Stage, packages_old: list[Path], packages_new: list[Path]
    ) -> None:
        api, database = stage.hosts["api1"], stage.hosts["db1"]
        old, new = (dict(zip(packages.NAMES, [""] * 3, strict=True)) for _ in range(2))
        for found, files in ((old, packages_old), (new, packages_new)):
            for file in files:
                found[file.name.split("_")[0]] = packages.version(file)
        publish(stage, packages_new)
        pin_versions(stage, new)
        probes = Probes(stage, api, "--count 750 --rate 5 --concurrency 4 --seed 99")
        try:
            for playbook in ("deploy-database.yml", "deploy-api.yml", "deploy-fastpath.yml", "deploy-analysis.yml"):
                stage.operator.play(f"{playbook} --diff -u root")
        finally:
            replay = probes.finish(timeout=600)
        for name in packages.NAMES:
            assert api.run(f"dpkg-query -W -f '${{Version}}' {name}") == new[name] != old[name]
        assert (replay.summary["failed"], replay.summary["refused"]) == (0, 0)
        assert len(replay.accepted) == replay.summary["submitted"] - replay.summary["dropped"]
        assert missing_rows(database, [document["uid"] for document in replay.accepted], 120) == set()
        assert api.failed_units() == []
        stage.summary.append(
            f"upgraded under load: none of {replay.summary['submitted']} measurements lost,"
            f" {replay.summary['seconds']:.0f} s"
        )

    def test_the_old_release_works_on_the_schema_of_the_new_one(
        self, stage: Stage, packages_old: list[Path], packages_new: list[Path]
    ) -> None:
        """Back to the release before on the upgraded database, and forward again, by the documented steps."""
        api = stage.hosts["api1"]
        for seed, files in ((100, packages_old), (101, packages_new)):
            versions = {file.name.split("_")[0]: packages.version(file) for file in files}
            pin_versions(stage, versions)
            for playbook in ("deploy-api.yml", "deploy-fastpath.yml"):
                stage.operator.play(f"{playbook} --diff -u root")
            assert api.run("dpkg-query -W -f '${Version}' ooni-api") == versions["ooni-api"]
            replay = Probes(stage, api, f"--count 20 --seed {seed}").finish()
            assert replay.summary["failed"] == 0
            assert missing_rows(stage.hosts["db1"], [document["uid"] for document in replay.accepted]) == set()

    def test_probe_services_are_accepted(self, stage: Stage) -> None:
        """The list of tests/acceptance, and whole sessions of three generations, of this release, over HTTPS."""
        accept(stage, "test_probe_services.py")


class TestPeople:
    """Somebody logs in by mail, and people write: docs/deploy.md, on the release of this tree."""

    def test_accounts_are_accepted_with_a_mail_server(self, stage: Stage) -> None:
        api = stage.hosts["api1"]
        with mail.mail_server(api) as server:
            stage.operator.write_vars(MAIL_VARIABLES, server.settings)
            try:
                stage.operator.play("deploy-api.yml --diff -u root")
                accept(
                    stage,
                    "test_accounts.py",
                    ACCEPTANCE_HOST=stage.operator.ssh_command(api),
                    ACCEPTANCE_MAILDIR=mail.MAILDIR,
                    ACCEPTANCE_REDIRECT="https://explorer.example.org/findings",
                )
            finally:  # the release before does not know these settings
                (stage.operator.inventory / MAIL_VARIABLES).unlink()
        assert api.run(f"ls {mail.MAILDIR}/new")

    def test_who_logged_in_is_in_no_log_and_no_table(self, stage: Stage) -> None:
        for name in FIRST:
            logged = stage.hosts[name].run(
                "journalctl --no-pager -q --all; find /var/log -type f ! -path '*/journal/*' -exec cat {} +"
            )
            assert "gunicorn" in logged or name != "api1"
            assert not re.search(r"(user|other|admin|expunged)\.[0-9a-f]{12}(@|%40)", logged)
        dumped = stage.hosts["db1"].run(
            "cd / && runuser -u postgres -- pg_dump -d ooni --data-only -T 'fastpath*' -T 'counters*'"
        )
        assert "audit_log" in dumped
        assert not re.search(r"\.[0-9a-f]{12}@example\.org", dumped)


class TestNewHost:
    """docs/new-host.md, followed to the letter, on a bad day: the first attempts go wrong and the next mends it."""

    def test_following_the_guide_gives_a_host_that_serves_and_is_watched(self, stage: Stage) -> None:
        host = stage.hosts[NEW]
        values = {"name": host.fqdn, "address": host.address, "stage": "staging", "foo": "api"}
        lines = guide.commands(ROOT / "docs" / "new-host.md")
        stage.join(NEW, "api", "fastpath")  # step 2, first sentence
        for line in lines:
            if line == "./play bootstrap.yml -l <name> --diff -u root":
                self.bad_day(stage, host, guide.fill_in(line, values))
            stage.operator.run(guide.fill_in(line, values), title=f"guide {line}")
            if line == "./play deploy-<foo>.yml -l <name> --diff -u root":  # several groups: once for each
                stage.operator.run(guide.fill_in(line, values | {"foo": "fastpath"}))
        assert answers(stage, host)
        replay = Probes(stage, host, "--count 10 --seed 12").finish()
        assert replay.summary["failed"] == 0
        uids = [document["uid"] for document in replay.accepted]
        assert missing_rows(stage.hosts["db1"], uids) == set()
        # What lies in the new host's spool is served by its fellow.
        assert get(stage, stage.hosts["api1"], f"/api/v1/raw_measurement?measurement_uid={uids[0]}")[0] == 200

        def watched() -> set[str]:
            targets = stage.prometheus("targets?state=active")["activeTargets"]
            return {target["labels"]["job"] for target in targets if target["labels"]["instance"] == host.fqdn}

        eventually(lambda: {"node", "api", "fastpath"} <= watched(), 60, "Prometheus watches the new host")
        eventually(lambda: stage.targets_down() == [], 120, "every target is up, the new host's too")
        assert unexpected(read_listeners(host.run("ss -H -l -t -u -n -p"), host.address), stage.groups(NEW)) == set()

    @staticmethod
    def bad_day(stage: Stage, host: Host, line: str) -> None:
        """Try a playbook while the host is away, with a full disk, and with a controller that dies in the middle."""
        host.run("systemctl stop ssh")
        with pytest.raises(CommandFailed, match="UNREACHABLE"):
            stage.operator.run(line, title="unreachable")
        host.run("systemctl start ssh")

        host.run("mount -t tmpfs -o size=64k tmpfs /var/cache/apt/archives")
        with pytest.raises(CommandFailed, match=r"(?i)space"):
            stage.operator.run(line, title="full disk")
        host.run("umount /var/cache/apt/archives")

        # Killed while dpkg has entries in its journal: between two of its runs nothing would be half-done.
        middle = "pgrep -x dpkg >/dev/null && ls /var/lib/dpkg/updates | grep -q . && pkill -KILL -x 'dpkg|apt-get'"
        running = stage.operator.start(line)
        try:
            host.run(f"for _ in $(seq 10000); do {middle} && exit 0; sleep 0.02; done; exit 1", timeout=600)
        finally:
            stage.operator.kill(running)
        host.run("pkill -KILL -x 'dpkg|apt-get'", check=False)
        assert host.run("dpkg --audit") or host.run("ls -A /var/lib/dpkg/updates"), "nothing was left half-done"


def accept(stage: Stage, tests: str, **environ: str) -> None:
    """Run a file of tests/acceptance against the first host of the API."""
    url = f"https://{stage.hosts['api1'].fqdn}"
    done = subprocess.run(
        stage.operator.acceptance_command(url, stage.certificates(), tests, **environ),
        env=stage.operator.environ,
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    assert "skipped" not in done.stdout.splitlines()[-1] or tests == "test_probe_services.py"


def reaches(address: str, port: int) -> bool:
    """Return whether a stranger can connect."""
    try:
        socket.create_connection((address, port), timeout=1).close()
    except OSError:
        return False
    return True


def pin_versions(stage: Stage, versions: dict[str, str]) -> None:
    """Say in the inventory which releases are wanted, as docs/deploy.md tells."""
    stage.operator.write_vars(
        "group_vars/all/releases.yml",
        {f"{name.replace('-', '_')}_version": version for name, version in versions.items()},
    )


def queries(panel: dict[str, object]) -> Iterator[str]:
    """Yield the queries of a dashboard and of all its panels."""
    for target in panel.get("targets", []):  # type: ignore[attr-defined] # JSON
        yield target["expr"]
    for inner in panel.get("panels", []):  # type: ignore[attr-defined] # JSON
        yield from queries(inner)
