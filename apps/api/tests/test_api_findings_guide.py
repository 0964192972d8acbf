"""docs/what-people-write.md about findings and feedback: its lines for a shell work, and its figures are ours."""

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from people import signed_in_headers

from api import feedback, incident_changes, incident_fields

PAGE = Path(__file__).parents[3] / "docs" / "what-people-write.md"
SECTIONS = dict(re.findall(r"^## (.*?)\n(.*?)(?=^## |\Z)", PAGE.read_text(), re.DOTALL | re.MULTILINE))
TEXT = " ".join((SECTIONS["Findings"] + SECTIONS["Feedback"]).split())


@pytest.mark.skipif(not (shutil.which("curl") and shutil.which("jq")), reason="apt-get install curl jq")
def test_every_line(sampled_api: Any, module_dsn: str, tmp_path: Path) -> None:
    """They run in one shell, from top to bottom."""
    session = signed_in_headers(sampled_api, module_dsn)["Authorization"].removeprefix("Bearer ")
    lines = "".join(re.findall(r"```sh\n(.*?)```", SECTIONS["Findings"] + SECTIONS["Feedback"], re.DOTALL))
    assert lines.startswith("api=http://127.0.0.1:8080\n")
    script = lines.replace("api=http://127.0.0.1:8080", f"api={sampled_api.url}")
    done = subprocess.run(
        ["bash", "-euc", script],
        cwd=tmp_path,
        env={"TOKEN": session, "PATH": "/usr/local/bin:/usr/bin:/bin"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    created, listed, said, summary = map(json.loads, done.stdout.splitlines())
    assert created["r"] == 1
    assert listed == {"id": created["id"], "slug": "2024-messengers-blocked", "revision": 1, "published": False}
    assert said == {}
    assert "blocked.dns" in summary["summary"]
    head, *rows = (tmp_path / "findings.csv").read_text().splitlines()
    assert "short_description" in head
    assert rows, "the finding of the sample"


def test_the_figures_are_ours() -> None:
    most = incident_fields.MOST_ITEMS
    for sentence in (
        f"Titles above {incident_fields.LONGEST_TITLE} characters",
        f"short descriptions above {incident_fields.LONGEST_DESCRIPTION} bytes",
        f"texts above {incident_fields.LONGEST_TEXT // 1024} KiB",
        f"{most['CCs']} countries, {most['ASNs']} networks, {most['domains']} domains, {most['links']} links",
        f"{most['tags']} tags, {most['test_names']} tests, {most['themes']} themes",
        f"create {incident_changes.MOST_CREATED} findings in a day",
        f"change findings {incident_changes.MOST_UPDATED} times, and have {incident_changes.MOST_DRAFTS} drafts",
        f"submit or change {feedback.MOST_IN_A_DAY} answers in a day",
    ):
        assert sentence in TEXT
