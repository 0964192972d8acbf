"""The documents and playbooks that the stack test follows, checked without a host."""

import re
from pathlib import Path

import yaml
from stackhosts import ROOT
from stackhosts.guide import commands, fill_in, places
from stackhosts.ports import ALLOWED, Listener, read_listeners, unexpected
from stackhosts.recap import read_recap

GUIDE = ROOT / "docs" / "new-host.md"
FELLOWS = "./play deploy-<foo>.yml --diff"
PLAYBOOKS = {path.name for path in (ROOT / "ansible").glob("deploy-*.yml")}


def test_the_guide_for_a_new_host_only_needs_what_it_explains() -> None:
    lines = commands(GUIDE)
    assert places(lines) == {"name", "address", "stage", "foo"}
    introduction = GUIDE.read_text().split("**1.")[0]
    for place in places(lines):
        assert f"`<{place}>`" in introduction


def test_the_guide_names_playbooks_that_exist_and_ends_with_monitoring() -> None:
    lines = commands(GUIDE)
    for line in lines:
        if line.startswith("./play"):
            name = fill_in(line.split()[1], {"foo": "api"})
            assert (ROOT / "ansible" / name).is_file(), line
    assert lines[-1] == "./play deploy-prometheus.yml -t prometheus-conf --diff"
    assert "./play deploy-<foo>.yml -l <name> --diff -u root" in lines


def test_the_site_playbook_runs_every_playbook() -> None:
    imported = [play["ansible.builtin.import_playbook"] for play in yaml.safe_load(site().read_text())]
    # Prometheus and Grafana are parts of monitoring.
    assert set(imported) == {"bootstrap.yml"} | PLAYBOOKS - {"deploy-prometheus.yml", "deploy-grafana.yml"}
    assert imported[0] == "bootstrap.yml"
    for first, second in [("apt-archive", "api"), ("database", "api"), ("api", "fastpath"), ("database", "analysis")]:
        assert imported.index(f"deploy-{first}.yml") < imported.index(f"deploy-{second}.yml")


def site() -> Path:
    return ROOT / "ansible" / "site.yml"


def test_every_group_of_the_inventory_has_its_ports_told() -> None:
    groups = yaml.safe_load((ROOT / "inventory/staging/hosts.yml").read_text())["all"]["children"]
    assert set(ALLOWED) == set(groups) | {"all"}


def test_a_listener_that_nobody_allowed_is_found() -> None:
    shown = (
        'tcp LISTEN 0 128 0.0.0.0:22 0.0.0.0:* users:(("sshd",pid=12,fd=3))\n'
        'tcp LISTEN 0 4096 127.0.0.1:631 0.0.0.0:* users:(("cupsd",pid=9,fd=7))\n'
        'tcp LISTEN 0 128 [::]:22 [::]:* users:(("sshd",pid=12,fd=4))\n'
        'udp UNCONN 0 0 127.0.0.1:323 0.0.0.0:* users:(("chronyd",pid=1,fd=5))\n'
    )
    found = read_listeners(shown, own_address="192.0.2.1")
    assert Listener("tcp", "any", 22, "sshd") in found
    assert unexpected(found, ["all"]) == {Listener("tcp", "loopback", 631, "cupsd")}
    assert unexpected({Listener("tcp", "any", 22, "nc")}, ["all"])
    assert unexpected({Listener("tcp", "any", 5432, "postgres")}, ["all", "database"])


def test_the_recap_names_what_changed() -> None:
    output = (
        "TASK [base : Packages] ****\nchanged: [a.example.org]\nok: [b.example.org]\n\nPLAY RECAP ****\n"
        "a.example.org : ok=3 changed=1 unreachable=0 failed=0 skipped=0\n"
        "b.example.org : ok=3 changed=0 unreachable=0 failed=0 skipped=0\n"
    )
    recap = read_recap(output)
    assert recap.changed == {"a.example.org": 1, "b.example.org": 0}
    assert recap.changed_tasks == ["a.example.org: base : Packages"]


def test_every_command_of_the_guide_is_for_one_host_or_says_for_which() -> None:
    for line in commands(GUIDE):
        if re.match(r"\./play (bootstrap|deploy-(?!database|prometheus))", line) and line != FELLOWS:
            assert " -l " in line, line
