"""The packages on a systemd host: install, use, upgrade, remove, purge. The tests are steps and run in this order.

PACKAGES_DIR names a directory with packages that are built already; without it they are built first.
"""

import json
import os
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
IMAGE = os.environ.get("MOLECULE_IMAGE", "localhost/local/debian12:systemd")
NAMES = ("ooni-api", "fastpath", "analysis")
LONG_RUNNING = ("ooni-api", "fastpath")
UNITS = (
    "ooni-api.service",
    "fastpath.service",
    "ooni-api-uploader.timer",
    "ooni-api-uploader-verify.timer",
    "ooni-update-counters.timer",
    "ooni-ensure-partitions.timer",
)
API = "http://127.0.0.1:8000"
SPOOL = "/var/lib/ooniapi/measurements"

# What a package manager and a running system write on their own.
NOT_OURS = re.compile(
    r"/(proc|sys|dev|run|tmp|packages)(/|$)|/var/(cache|log|lib/(apt|dpkg|systemd|postgresql)|tmp)(/|$)"
    r"|/etc/(passwd|group|shadow|gshadow|subuid|subgid)-?$|/etc/\.pwd\.lock$"
)

pytestmark = [
    pytest.mark.stack,
    pytest.mark.timeout(1200),
    pytest.mark.skipif(shutil.which("podman") is None, reason="podman is not on this machine"),
]


@dataclass
class Host:
    """A Debian host in a container."""

    name: str
    environ: dict[str, str]

    def run(self, command: str, *, check: bool = True, timeout: float = 600) -> str:
        """Run a shell command as root and return what it prints."""
        done = subprocess.run(
            ["podman", "exec", "-i", self.name, "sh", "-c", command],
            env=self.environ,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        if check and done.returncode != 0:
            raise AssertionError(f"{command}\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}")
        return done.stdout + done.stderr

    def sql(self, statement: str) -> str:
        return self.run(f'cd / && su postgres -c "psql -d ooni -Atqc \\"{statement}\\""').strip()

    def apt(self, arguments: str) -> str:
        return self.run(f"DEBIAN_FRONTEND=noninteractive apt-get -y -q --no-install-recommends {arguments}")

    def files(self) -> set[str]:
        return {path for path in self.run("find / -xdev -print").splitlines() if not NOT_OURS.match(path)}

    def accounts(self) -> str:
        return self.run("cut -d: -f1 /etc/passwd; cut -d: -f1,4 /etc/group")

    def listening(self) -> set[str]:
        return {line.split()[3] for line in self.run("ss -H -ltn").splitlines()}

    def is_active(self, unit: str) -> bool:
        return self.run(f"systemctl is-active {unit}", check=False).strip() == "active"

    def pid(self, unit: str) -> int:
        return int(self.run(f"systemctl show --property MainPID --value {unit}"))

    def post(self, test_name: str = "web_connectivity", cc: str = "IT") -> str:
        """Submit one measurement as a probe does and return its uid."""
        report, opening = self.open_report(test_name, cc)
        content = opening | {
            "report_id": report,
            "measurement_start_time": "2024-01-02 03:04:06",
            "input": "https://example.org/",
            "test_runtime": 1.5,
            "test_keys": {"accessible": True, "blocking": False},
        }
        return json.loads(self._curl(f"/report/{report}", {"format": "json", "content": content}))["measurement_uid"]

    def open_report(self, test_name: str = "web_connectivity", cc: str = "IT") -> tuple[str, dict[str, str]]:
        """Open a report; return its id and what was sent."""
        opening = {
            "data_format_version": "0.2.0",
            "format": "json",
            "probe_asn": "AS30722",
            "probe_cc": cc,
            "software_name": "ooniprobe-cli",
            "software_version": "3.20.0",
            "test_name": test_name,
            "test_start_time": "2024-01-02 03:04:05",
            "test_version": "0.4.3",
        }
        return json.loads(self._curl("/report", opening))["report_id"], opening

    def _curl(self, path: str, body: object) -> str:
        text = json.dumps(body).replace("'", "'\\''")
        return self.run(f"curl -sSf -X POST -H 'Content-Type: application/json' {API}{path} --data-binary '{text}'")


@dataclass(frozen=True)
class Before:
    """What there is on a host: files, accounts, listening addresses."""

    files: set[str]
    accounts: str
    listening: set[str]


def eventually(condition: Callable[[], object], seconds: float = 30) -> None:
    """Wait until `condition` returns something true."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.3)


@pytest.fixture(scope="module")
def podman_environ() -> dict[str, str]:
    """The environment in which podman works on this machine."""
    shown = subprocess.run(
        ["bash", "-c", ". tests/images/podman-env.sh && env -0"], cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout
    return dict(entry.split("=", 1) for entry in shown.split("\0") if "=" in entry)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The three packages, by name."""
    directory = Path(os.environ.get("PACKAGES_DIR") or tmp_path_factory.mktemp("dist"))
    if not os.environ.get("PACKAGES_DIR"):
        environ = os.environ | {"PR": "1", "BUILD": "1", "PYTHONPATH": str(ROOT / "packaging")}
        subprocess.run(["packaging/build", "--output", str(directory)], cwd=ROOT, env=environ, check=True)
    return {name: max(directory.glob(f"{name}_*.deb"), key=lambda path: path.stat().st_mtime) for name in NAMES}


@pytest.fixture(scope="module")
def packages(built: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the packages as `old/*.deb`, and with a higher version as `new/*.deb`."""
    directory = tmp_path_factory.mktemp("packages")
    (directory / "old").mkdir()
    (directory / "new").mkdir()
    for name, path in built.items():
        shutil.copy(path, directory / "old" / f"{name}.deb")
        tree = directory / "tree"
        subprocess.run(["dpkg-deb", "-R", path, tree], check=True)
        control = tree / "DEBIAN/control"
        control.write_text(re.sub(r"^(Version: .*)$", r"\1.1", control.read_text(), flags=re.MULTILINE))
        subprocess.run(
            ["dpkg-deb", "--root-owner-group", "-Zgzip", "-z1", "--build", tree, directory / "new" / f"{name}.deb"],
            check=True,
            stdout=subprocess.DEVNULL,
        )
        shutil.rmtree(tree)
    return directory


@pytest.fixture(scope="module")
def host(packages: Path, podman_environ: dict[str, str]) -> Iterator[Host]:
    """A fresh host with PostgreSQL and what the packages depend on, but none of our packages."""
    subprocess.run(["tests/images/debian12/build"], cwd=ROOT, env=podman_environ, check=True)
    made = Host(f"test-packages-{os.getpid()}", podman_environ)
    options = ["--detach", "--name", made.name, "--systemd=always", "--cap-add=SYS_ADMIN,NET_ADMIN"]
    subprocess.run(
        ["podman", "run", *options, f"--volume={packages}:/packages:ro", IMAGE, "/sbin/init"],
        env=podman_environ,
        check=True,
        stdout=subprocess.DEVNULL,
    )
    try:
        eventually(lambda: made.run("systemctl is-system-running", check=False).strip() in ("running", "degraded"))
        made.run("apt-get update -q")
        made.apt("install postgresql-15 curl ca-certificates adduser git libstdc++6 python3")
        yield made
    finally:
        subprocess.run(["podman", "rm", "--force", made.name], env=podman_environ, check=True)


@pytest.fixture(scope="module")
def before(host: Host) -> Before:
    """The host before anything of ours was installed."""
    return Before(host.files(), host.accounts(), host.listening())


def test_build_is_reproducible(built, tmp_path):
    if os.environ.get("PACKAGES_DIR"):
        pytest.skip("the packages were built elsewhere, perhaps from another tree")
    environ = os.environ | {"PR": "1", "BUILD": "1", "PACKAGES": "analysis"}
    subprocess.run(["packaging/build", "--output", str(tmp_path)], cwd=ROOT, env=environ, check=True)
    assert next(tmp_path.glob("*.deb")).read_bytes() == built["analysis"].read_bytes()


def test_all_three_install_side_by_side_and_start(host, before):
    said = host.apt("install /packages/old/*.deb")
    assert "W:" not in said
    for unit in UNITS:
        assert host.run(f"systemctl is-enabled {unit}").strip() == "enabled"
        eventually(lambda unit=unit: host.is_active(unit))
    for command in ("ooni-api", "uploader", "fastpath", "analysis", "database_upgrade_schema"):
        assert "usage" in host.run(f"/usr/bin/{command} --help").lower()
    assert host.run("dpkg --audit") == ""
    assert host.run("dpkg --verify ooni-api fastpath analysis") == ""


def test_secrets_and_spool_are_closed_to_others(host):
    for file, group in (
        ("api", "ooniapi"),
        ("uploader", "ooniapi"),
        ("fastpath", "fastpath"),
        ("analysis", "analysis"),
    ):
        assert host.run(f"stat -c '%a %U %G' /etc/ooni/{file}.toml").strip() == f"640 root {group}"
    assert host.run(f"stat -c '%a %U %G' {SPOOL}").strip() == "2770 root oonispool"
    for user in ("ooniapi", "fastpath"):
        assert "oonispool" in host.run(f"id -nG {user}").split()
    assert "oonispool" not in host.run("id -nG analysis").split()
    for user in ("ooniapi", "fastpath", "analysis"):
        assert host.run(f"getent passwd {user}").strip().endswith("nologin")


def test_measurement_becomes_a_row_although_the_database_came_late(host):
    for role in ("ooniapi", "fastpath", "analysis"):
        host.run(f"cd / && su postgres -c 'createuser {role}'")
    host.run("cd / && su postgres -c 'createuser --no-login ooni && createdb --owner ooni ooni'")
    for role in ("ooniapi", "fastpath", "analysis"):
        host.sql(f"GRANT ooni TO {role}; ALTER ROLE {role} SET role = 'ooni'")
    uid = host.post()  # acknowledged before there is a single table
    host.run("cd / && runuser -u ooniapi -- database_upgrade_schema --dsn postgresql:///ooni")
    data = host.run("echo /usr/lib/fastpath/lib/python3.*/site-packages/core/data").strip()
    host.run(f"cd / && runuser -u fastpath -- fastpath --import-fingerprints {data}")
    eventually(lambda: host.sql(f"SELECT count(*) FROM fastpath WHERE measurement_uid = '{uid}'") == "1", seconds=60)
    assert host.sql("SELECT sum(measurement_count) FROM counters_country") == "1"


def test_names_of_networks_are_loaded_as_the_readme_says(host):
    host.run(
        "printf 'asn,changed,org_name,cc,aut_name,source\\n30722,2024-01-31,Example ISP,IT,E,x\\n' > /tmp/names.csv"
    )
    load = "/usr/lib/ooni-api/bin/python3 -I -m core.networks"
    assert load in (ROOT / "apps/api/README.md").read_text()
    for _ in range(2):
        host.run(f"cd / && runuser -u ooniapi -- {load} /tmp/names.csv --dsn postgresql:///ooni")
    assert "Example ISP" in host.run(f"curl -sSf '{API}/api/_/asnmeta?asn=30722'")


def test_the_api_reference_has_its_files(host):
    page = host.run(f"curl -sSf {API}/apidocs/")
    for name in re.findall(r"assets/([a-z0-9.-]+)\?v=", page):
        assert int(host.run(f"curl -sSf {API}/apidocs/assets/{name} | wc -c")) > 100
    assert "swagger-ui-bundle.js" in page


def test_uploader_archives_inside_its_sandbox(host):
    drop_in = "/run/systemd/system/ooni-api-uploader.service.d"
    override = "[Service]\\nExecStart=\\nExecStart=/usr/bin/uploader --now\\n"
    host.run(f"mkdir -p {drop_in} && printf '{override}' > {drop_in}/now.conf && systemctl daemon-reload")
    host.run("systemctl start ooni-api-uploader.service")
    host.run(f"rm -r {drop_in} && systemctl daemon-reload")
    assert host.sql("SELECT count(*) FROM jsonl") == "1"
    assert host.run(f"find {SPOOL} -name '*.post'") == ""
    uid = host.sql("SELECT measurement_uid FROM jsonl")
    assert "example.org" in host.run(f"curl -sSf '{API}/api/v1/raw_measurement?measurement_uid={uid}'")
    assert "uploader_last_success_timestamp_seconds" in host.run("cat /var/lib/ooniapi/metrics/uploader.prom")


def test_a_rerun_may_read_the_archive_and_nobody_else(host):
    read = "sh -c 'find /var/lib/ooniapi/objects -name \\*.tar.gz -exec cat {} +' | tar tz"
    uid = host.sql("SELECT measurement_uid FROM jsonl")
    assert uid in host.run(f"runuser -u fastpath -- {read}")
    assert uid not in host.run(f"runuser -u analysis -- {read}", check=False)


def test_analysis_jobs_work_inside_their_sandbox(host):
    host.sql("UPDATE counters_country SET ok_count = 17")
    host.run("systemctl start ooni-update-counters.service ooni-ensure-partitions.service")
    assert (
        host.sql("SELECT sum(ok_count + anomaly_count + confirmed_count + failure_count) FROM counters_country") == "1"
    )
    metrics = host.run("runuser -u nobody -- cat /var/lib/analysis/metrics/analysis_update_counters.prom")
    assert "analysis_counters_repaired_rows 1.0" in metrics


def test_journal_commands_of_the_documentation_show_something(host):
    assert "Listening at" in host.run("journalctl --no-pager --identifier gunicorn3")
    assert "fastpath started" in host.run("journalctl --no-pager -u fastpath")
    assert "counters corrected" in host.run("journalctl --no-pager --identifier analysis")


def test_nothing_tried_what_the_sandbox_forbids(host):
    said = host.run("journalctl --no-pager -u ooni-api -u fastpath -u 'ooni-*'")
    for text in ("Permission denied", "Operation not permitted", "Read-only file system", "uncaught exception"):
        assert text not in said


def test_only_loopback_listens(host, before):
    ports = host.listening() - before.listening
    assert "127.0.0.1:8000" in ports
    assert all(port.startswith("127.0.0.1:") for port in ports), ports


def test_a_wrong_setting_stops_the_unit_with_a_sentence(host):
    host.run("cp -p /etc/ooni/fastpath.toml /root/ && echo 'wrokers = 3' >> /etc/ooni/fastpath.toml")
    host.run("systemctl restart fastpath", check=False)
    eventually(lambda: host.run("systemctl is-active fastpath", check=False).strip() == "failed")
    assert "unknown key wrokers" in host.run("journalctl --no-pager -u fastpath -n 20")
    host.run("cp -p /root/fastpath.toml /etc/ooni/ && rm /root/fastpath.toml")
    host.run("systemctl reset-failed fastpath && systemctl start fastpath")


@pytest.mark.parametrize("unit", LONG_RUNNING)
def test_a_crash_is_followed_by_a_new_start(host, unit):
    pid = host.pid(unit)
    host.run(f"kill -KILL {pid}")
    eventually(lambda: host.pid(unit) not in (0, pid) and host.is_active(unit))


def test_a_restart_lets_a_request_in_flight_finish(host):
    report, opening = host.open_report()
    content = opening | {"report_id": report, "measurement_start_time": "2024-01-02 03:04:06", "test_keys": {}}
    body = {"format": "json", "content": content | {"annotations": {"padding": "x" * 400_000}}}
    subprocess.run(
        ["podman", "exec", "-i", host.name, "sh", "-c", "cat > /root/body.json"],
        env=host.environ,
        input=json.dumps(body),
        text=True,
        check=True,
    )
    upload = f"curl -sSf --limit-rate 50k -H 'Content-Type: application/json' -H 'Expect:' {API}/report/{report}"
    host.run(f"({upload} --data-binary @/root/body.json > /root/reply 2>&1; echo $? >> /root/reply) & sleep 2")
    pid = host.pid("ooni-api")
    host.run("systemctl restart ooni-api")
    assert host.pid("ooni-api") != pid
    reply = host.run("cat /root/reply; rm /root/reply /root/body.json")
    assert '"measurement_uid"' in reply
    assert reply.endswith("0\n")


def test_upgrade_restarts_drained_and_keeps_what_the_administrator_set(host):
    host.run("sed -i 's/^collector_id = .*/collector_id = \"7\"/' /etc/ooni/api.toml /etc/ooni/uploader.toml")
    host.run("systemctl disable --now ooni-ensure-partitions.timer")
    uid = host.post()
    pids = {unit: host.pid(unit) for unit in LONG_RUNNING}
    now = host.run("date +%s").strip()
    host.apt("install /packages/new/*.deb")
    assert host.run("dpkg-query -W -f '${Version} ' ooni-api fastpath analysis").count(".1 ") == 3
    for unit, pid in pids.items():
        eventually(lambda unit=unit: host.is_active(unit))
        assert host.pid(unit) != pid, f"{unit} was not restarted"
        said = host.run(f"journalctl --no-pager -u {unit} --since @{now}")
        assert "code=killed" not in said, f"{unit} did not stop by itself"
        assert "Failed with result 'timeout'" not in said
    assert 'collector_id = "7"' in host.run("cat /etc/ooni/api.toml")
    assert host.run("stat -c '%a %G' /etc/ooni/api.toml").strip() == "640 ooniapi"
    assert host.run("systemctl is-enabled ooni-ensure-partitions.timer", check=False).strip() == "disabled"
    assert host.run("systemctl is-active ooni-ensure-partitions.timer", check=False).strip() == "inactive"
    eventually(lambda: host.sql(f"SELECT count(*) FROM fastpath WHERE measurement_uid = '{uid}'") == "1")
    assert "_n7_" in host.open_report()[0]


def test_downgrade_works_as_the_upgrade_does(host):
    host.apt("install --allow-downgrades /packages/old/*.deb")
    for unit in LONG_RUNNING:
        eventually(lambda unit=unit: host.is_active(unit))
    host.post()


def test_removing_keeps_configuration_and_data(host):
    host.run("systemctl stop fastpath")  # so that something stays to be scored
    host.post(cc="DE")
    host.apt("remove ooni-api fastpath analysis")
    assert host.run("ls /usr/lib/ooni-api /usr/lib/fastpath /usr/lib/analysis", check=False).count("No such file") == 3
    assert host.run("systemctl list-units --no-legend --plain 'ooni-*' 'fastpath*'") == ""
    host.run("test -f /etc/ooni/api.toml")
    assert host.run(f"find {SPOOL}/incoming -name '*_DE_*.post'") != ""


def test_purging_keeps_a_spool_that_holds_measurements_and_says_how_to_drain_it(host):
    said = host.apt("purge ooni-api fastpath")
    assert f"kept {SPOOL}" in said
    assert "systemctl start ooni-api-uploader" in said
    assert host.run(f"find {SPOOL}/incoming -name '*_DE_*.post'") != ""
    assert host.run("id -un ooniapi").strip() == "ooniapi"


def test_installing_again_drains_the_spool(host):
    host.apt("install /packages/new/*.deb")
    eventually(lambda: host.sql("SELECT count(*) FROM fastpath WHERE probe_cc = 'DE'") == "1", seconds=60)
    host.run("cd / && runuser -u ooniapi -- uploader --now")
    assert host.run(f"find {SPOOL} -name '*.post'") == ""


def test_purging_leaves_a_local_object_store_and_nothing_else(host, before):
    said = host.apt("purge ooni-api fastpath analysis")
    assert "kept /var/lib/ooniapi/objects" in said
    left = {path for path in host.files() - before.files if not path.startswith("/var/lib/ooniapi/objects/")}
    assert left == {"/var/lib/ooniapi", "/var/lib/ooniapi/objects"}
    assert host.run("id -un ooniapi").strip() == "ooniapi"
    # Without the store, nothing at all is left.
    host.apt("install /packages/new/ooni-api.deb")
    host.run("systemctl stop ooni-api && rm -r /var/lib/ooniapi/objects/*")
    host.apt("purge ooni-api")
    assert host.files() - before.files == set()
    assert host.accounts() == before.accounts
    assert host.run("find /var/lib/systemd -name '*ooni*' -o -name '*fastpath*'") == ""


def test_lintian_finds_nothing_that_is_not_explained(host):
    host.apt("install lintian")
    host.run("cp -r /packages/old /tmp/lintian && chmod -R a+rX /tmp/lintian")  # it does not want to run as root
    said = host.run("cd / && runuser -u nobody -- lintian --fail-on error,warning /tmp/lintian/*.deb", check=False)
    assert said == ""
