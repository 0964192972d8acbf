"""The report at the end of the start: what happened, and where to look."""

import json
import shlex
from typing import Any
from urllib.parse import urlencode

from devstack.places import Places
from devstack.queries import Example, Figures
from devstack.screen import Screen
from devstack.services import Wiring


def show_report(
    screen: Screen,
    found: Figures,
    example: Example | None,
    summary: dict[str, Any] | None,
    scored: int | None,
    quarantined: int,
    wiring: Wiring,
    places: Places,
) -> None:
    """Print a table of figures and one measurement with its addresses. `summary` is None when nothing was submitted."""
    rows = []
    if summary is not None:
        size, seconds = summary["bytes_sent"] / 1e6, summary["seconds"]
        rows += [
            ("submitted", f"{summary['submitted']} ({size:.1f} MB in {seconds:.1f} s)"),
            ("  accepted (with a uid)", str(summary["accepted"])),
            ("  dropped (country or network unknown)", str(summary["dropped"])),
            ("  refused (4xx)", str(summary["refused"])),
            ("  failed (no useful answer)", str(summary["failed"])),
            ("  scored (rows of the accepted)", str(scored)),
            ("  without a row (the document names no report or country)", str(summary["accepted"] - (scored or 0))),
        ]
    rows += [
        ("rows in the database", str(found.rows)),
        ("  anomaly", str(found.anomalies)),
        ("  confirmed", str(found.confirmed)),
        ("  failure", str(found.failures)),
        ("  scorer could make no sense of", str(found.without_sense)),
        ("in the object store", str(found.archived)),
        ("in quarantine", str(quarantined)),
    ]
    screen.table("Measurements", rows)
    for complaint in (summary or {}).get("complaints", ()):
        screen.say(f"failed: {complaint}")
    if example is not None:
        _show_example(screen, example, wiring, places)
    screen.say(f"Metrics   {wiring.api_metrics_url}  {wiring.fastpath_metrics_url}")
    screen.say(f"Logs      {places.logs}")


def show_sessions(screen: Screen, summary: dict[str, Any], scored: int) -> None:
    """Print a table about whole sessions of probes; `scored` counts the rows of their measurements."""
    rows = [
        (f"{name}: whole sessions", f"{count['whole']} of {count['ended']}")
        for name, count in summary["generations"].items()
    ]
    rows += [
        ("calls", f"{summary['calls']} (p50 {summary['p50_ms']} ms, p95 {summary['p95_ms']} ms)"),
        ("answers that real probes would not take", str(sum(summary["broken"].values()))),
        ("measurements accepted", str(summary["accepted"])),
        ("  scored (rows of the accepted)", str(scored)),
    ]
    screen.table("Sessions of probes", rows)


def _show_example(screen: Screen, example: Example, wiring: Wiring, places: Places) -> None:
    uid = urlencode({"measurement_uid": example.measurement_uid})
    scores = example.scores if isinstance(example.scores, str) else json.dumps(example.scores)
    verdict = "confirmed blocking" if example.confirmed else "a measurement"
    where = f"{example.probe_cc}, AS{example.probe_asn}"
    screen.say(f"Example   {verdict}: {example.test_name} of {example.input or '(no input)'} in {where}")
    screen.say(f"  scores  {scores[:200]}{'…' if len(scores) > 200 else ''}")
    screen.say(f"  meta    {wiring.url}/api/v1/measurement_meta?{uid}")
    screen.say(f"  body    {wiring.url}/api/v1/raw_measurement?{uid}")
    if example.s3path is not None and example.linenum is not None:
        path = shlex.quote(str(places.objects / example.s3path))
        screen.say(f"  object  zcat {path} | sed -n {example.linenum + 1}p")
