"""The rules for alerts and their runbooks; with promtool (in PATH, or named by PROMTOOL) also what the alerts do."""

import os
import re
import shutil
import subprocess
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
RULES = sorted(path for path in (ROOT / "dashboards/prometheus").glob("*.yaml") if "_test" not in path.stem)
TESTS = sorted((ROOT / "dashboards/prometheus").glob("*_test.yaml"))
RUNBOOKS = sorted((ROOT / "runbooks/alerts").glob("*.md"))
SEVERITIES = {"page", "ticket", "info"}
HEADINGS = ["Meaning", "Impact", "Diagnosis", "Mitigation"]
LONGEST_RUNBOOK = 40
# Metrics of programs that are not ours, and of the backup role's command.
FOREIGN = {
    "up", "probe_success", "probe_ssl_earliest_cert_expiry", "node_systemd_unit_state", "node_filesystem_avail_bytes",
    "node_filesystem_size_bytes", "node_filesystem_readonly", "node_timex_sync_status", "node_timex_offset_seconds",
    "backup_last_success_timestamp_seconds", "backup_restore_test_last_success_timestamp_seconds",
}  # fmt: skip


def alerts_in(path: Path) -> list[dict[str, Any]]:
    return [rule for group in yaml.safe_load(path.read_text())["groups"] for rule in group["rules"] if "alert" in rule]


ALERTS = [(path, rule) for path in RULES for rule in alerts_in(path)]
of_alerts = pytest.mark.parametrize(("path", "rule"), ALERTS, ids=[rule["alert"] for _, rule in ALERTS])


def seconds(text: str) -> int:
    """Read Prometheus' durations, such as 24h30m; 0 for none."""
    units = {"s": 1, "m": 60, "h": 3600, "d": 86400}
    return sum(int(number) * units[unit] for number, unit in re.findall(r"(\d+)([smhd])", text))


def names_of_metrics() -> str:
    return "\n".join(path.read_text() for path in sorted(ROOT.glob("apps/*/src/*/metrics.py")))


@pytest.fixture(scope="module")
def promtool() -> str:
    program = os.environ.get("PROMTOOL") or shutil.which("promtool")
    if not program:
        pytest.skip("promtool is not here: install Debian's package prometheus, or set PROMTOOL to the program")
    return program


@of_alerts
def test_alert_says_how_urgent_it_is_and_what_to_do(path: Path, rule: dict[str, Any]) -> None:
    assert re.fullmatch(r"[A-Z][A-Za-z]+", rule["alert"])
    assert rule["labels"]["severity"] in SEVERITIES
    assert re.fullmatch(r"[a-z]+", rule["labels"]["app"])
    annotations = rule["annotations"]
    assert set(annotations) == {"summary", "description", "runbook_url"}
    assert annotations["runbook_url"] == f"runbooks/alerts/{rule['alert']}.md"
    assert "{{" in annotations["summary"] or "vector(" in rule["expr"], "the summary names neither host nor value"
    assert not annotations["summary"].endswith("."), "a summary is a headline"
    assert annotations["description"].endswith("."), "a description is a sentence"


@of_alerts
def test_nobody_is_woken_for_what_passes_within_five_minutes(path: Path, rule: dict[str, Any]) -> None:
    if rule["labels"]["severity"] == "page":
        assert seconds(rule.get("for", "")) >= 300


@of_alerts
def test_alert_watches_metrics_that_exist(path: Path, rule: dict[str, Any]) -> None:
    expression = re.sub(r'"[^"]*"', "", rule["expr"])
    expression = re.sub(r"\{[^}]*\}", "", expression)
    words = set(re.findall(r"\b[a-z]\w*_\w+\b|\bup\b", expression)) - {"predict_linear"}
    assert words or "vector(" in expression
    ours = names_of_metrics()
    unknown = {
        word for word in words - FOREIGN if f'"{word}"' not in ours and f'"{word.removesuffix("_total")}"' not in ours
    }
    assert not unknown, f"no app exports {unknown}"


@of_alerts
def test_alert_is_tested_silent_pending_and_firing(path: Path, rule: dict[str, Any]) -> None:
    test = path.with_name(f"{path.stem}_test.yaml")
    seen: dict[str, int] = defaultdict(int)
    for case in yaml.safe_load(test.read_text())["tests"]:
        for step in case["alert_rule_test"]:
            if step["alertname"] == rule["alert"]:
                seen["firing" if step["exp_alerts"] else "quiet"] += 1
    assert seen["firing"], f"{test.name} has no case where {rule['alert']} fires"
    if "vector(" not in rule["expr"]:
        assert seen["quiet"] >= (2 if "for" in rule else 1), f"{test.name}: {rule['alert']} silent, and pending"


@of_alerts
def test_alert_has_a_runbook(path: Path, rule: dict[str, Any]) -> None:
    assert (ROOT / rule["annotations"]["runbook_url"]).is_file()


def test_names_of_alerts_are_unique_and_runbooks_have_alerts() -> None:
    names = [rule["alert"] for _, rule in ALERTS]
    assert len(names) == len(set(names))
    assert {path.stem for path in RUNBOOKS} == set(names)


@pytest.mark.parametrize("path", TESTS, ids=lambda path: path.name)
def test_tests_stand_beside_the_one_file_they_test(path: Path) -> None:
    assert yaml.safe_load(path.read_text())["rule_files"] == [path.name.replace("_test", "")]
    assert path.with_name(path.name.replace("_test", "")).is_file()


@pytest.mark.parametrize("path", RUNBOOKS, ids=lambda path: path.stem)
class TestRunbook:
    """What somebody finds who was woken."""

    def test_it_has_the_four_headings_with_something_below(self, path: Path) -> None:
        text = path.read_text()
        assert text.startswith(f"# {path.stem}\n")
        assert re.findall(r"^## (.*)$", text, re.MULTILINE) == HEADINGS
        parts = re.split(r"^## .*$", text, flags=re.MULTILINE)[1:]
        assert all(len(part.strip()) > 20 for part in parts)

    def test_it_is_short(self, path: Path) -> None:
        assert len(path.read_text().splitlines()) <= LONGEST_RUNBOOK

    def test_it_names_units_playbooks_metrics_and_variables_that_exist(self, path: Path) -> None:
        text = path.read_text()
        units = {unit.name for unit in ROOT.glob("packaging/*/*.service")}
        for unit in re.findall(r"\b(ooni-[a-z-]+|fastpath)\.service\b", text):
            assert f"{unit}.service" in units
        for unit in re.findall(r"systemctl (?:re)?start (ooni-[a-z-]+|fastpath)\b", text):
            assert f"{unit}.service" in units
        for playbook in re.findall(r"\./play ([a-z-]+\.yml)", text):
            assert (ROOT / "ansible" / playbook).is_file(), playbook
        ours = names_of_metrics()
        for metric in re.findall(r"\b(?:fastpath|uploader|api|analysis)_[a-z]+_[a-z_]+\b", text):
            assert metric.removesuffix("_total") in ours, metric
        defaults = "\n".join(file.read_text() for file in ROOT.glob("roles/*/defaults/main.yml"))
        for variable in re.findall(r"`((?:prometheus|alertmanager|backup)_[a-z_]+)`", text):
            assert f"\n{variable}:" in defaults, variable


@pytest.mark.parametrize("path", RULES, ids=lambda path: path.name)
def test_promtool_accepts_the_rules(promtool: str, path: Path) -> None:
    result = subprocess.run([promtool, "check", "rules", path], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.parametrize("path", TESTS, ids=lambda path: path.name)
def test_alerts_do_what_their_tests_say(promtool: str, path: Path) -> None:
    result = subprocess.run([promtool, "test", "rules", path], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
