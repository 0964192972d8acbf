"""docs/reading-the-api.md: every line for a shell gives what the text around it says, and its figures are ours."""

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from api_sample import EXAMPLE
from people import signed_in_headers

from api import access_token_routes
from api.config import ApiSettings
from api.measurement_list import DEFAULT_DAYS, MAX_LIMIT, MAX_OFFSET
from api.openapi.document import document
from api.quotas import MINIMUM_CHARGE

pytestmark = pytest.mark.skipif(not (shutil.which("curl") and shutil.which("jq")), reason="apt-get install curl jq")

PAGE = Path(__file__).parents[3] / "docs" / "reading-the-api.md"
TEXT = PAGE.read_text()
BLOCKS = re.findall(r"```sh\n(.*?)```", TEXT, re.DOTALL)


@pytest.fixture(scope="module")
def outputs(sampled_api: Any, module_dsn: str, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """What each line printed that is not an assignment; all run in one shell, from top to bottom."""
    lines = "".join(BLOCKS).splitlines()
    assert lines[0] == "api=http://127.0.0.1:8080"
    script = [f"api={sampled_api.url}"]
    session = signed_in_headers(sampled_api, module_dsn)["Authorization"].removeprefix("Bearer ")
    for line in lines[1:]:
        if line.startswith("bearer="):
            script += [f"bearer={session}"]
            continue
        script += [line] if re.match(r"[a-z]+=", line) else [line, "echo; echo '=== end ==='"]
    done = subprocess.run(
        ["bash", "-euc", "\n".join(script)],
        cwd=tmp_path_factory.mktemp("guide"),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return [part.strip() for part in done.stdout.split("=== end ===")][:-1]


def test_every_line(outputs: list[str]) -> None:
    first, meta, raw, days, table, total, status, same, tokens, revoked, bad_date, deep, bad_axis = outputs
    page = json.loads(first)
    assert len(page["results"]) == 2
    assert "cursor=" in page["metadata"]["next_url"]
    assert json.loads(meta)["measurement_uid"] == EXAMPLE.uid
    assert json.loads(raw) == EXAMPLE.body()
    assert {(row["measurement_start_day"], row["probe_cc"]) for row in json.loads(days)["result"]} >= {
        ("2024-01-01", "IE"),
        ("2024-01-02", "IE"),
    }
    assert table.splitlines()[0] == "anomaly_count,confirmed_count,domain,failure_count,measurement_count,ok_count"
    assert any(",www.example.org," in line for line in table.splitlines())
    result = json.loads(total)["result"]
    counts = [result[name] for name in ("anomaly_count", "confirmed_count", "failure_count", "ok_count")]
    assert sum(counts) == result["measurement_count"] > 0
    assert status == "304"
    assert json.loads(same)["results"] == page["results"]
    (token,) = json.loads(tokens)["access_tokens"]
    assert (token["name"], token["scope"], token["token_id"]) == ("thesis", "read", 1)
    assert token["last_used_on"] is not None, "the request before it was made with the token"
    assert json.loads(revoked) == {}
    assert "since" in json.loads(bad_date)["error"]
    assert "next_url" in json.loads(deep)["error"]
    assert "axis" in json.loads(bad_axis)["error"]


def test_the_figures_are_ours() -> None:
    assert f"at most {MAX_LIMIT} rows" in TEXT
    assert f"the first {MAX_OFFSET:,} rows".replace(",", " ") in TEXT
    assert f"the last {DEFAULT_DAYS} days" in TEXT
    assert f"at least {MINIMUM_CHARGE // 1_000_000} ms" in TEXT
    assert f"{ApiSettings().quota_token_factor} times\nthe quota of an address" in TEXT
    assert f"It lasts {access_token_routes.DEFAULT_DAYS} days" in TEXT
    assert f"up to {access_token_routes.MOST_DAYS};" in TEXT


def test_the_table_has_the_statuses_that_readers_meet() -> None:
    told = set(re.findall(r"^\| ([0-9]{3}) \|", TEXT, re.MULTILINE))
    routes = ("/api/v1/measurements", "/api/v1/aggregation")
    paths = document("https://api.example.org")["paths"]
    met = {status for route in routes for status in paths[route]["get"]["responses"] if status >= "400"}
    assert told == met | {"404"}
