"""What sessions of all generations share: the probe, its documents, and the calls that several of them make."""

import dataclasses
import hashlib
import random
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime, timedelta
from typing import Any, TypeVar

import yaml

from probesim.blockpages import Demonstration
from probesim.client import ACCEPTED, DROPPED, FAILED, encode_json
from probesim.countries import choose_scenario
from probesim.measurement import write_measurement
from probesim.rules import (
    Acknowledgement,
    Broken,
    CheckIn,
    Helper,
    LoggedIn,
    OpenedReport,
    Registered,
    TestUrl,
    Violation,
    demand,
    demand_rfc_3339,
)
from probesim.sample import IDENTITY, SCENARIOS
from probesim.strict import StrictClient
from probesim.submissions import Submitted
from probesim.vocabulary import Probe

_T = TypeVar("_T")

PASSWORD_LENGTH = 64
_LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
_FOLLOWED_HELPERS = ("https", "cloudfront")
_OFF_BY_DEFAULT = frozenset({"vanilla_tor"})


@dataclasses.dataclass(frozen=True, slots=True)
class Written:
    """A measurement and what the generator had in mind with it."""

    scenario: str
    test_name: str
    measurement: dict[str, Any]


class Session:
    """One probe at work. Broken rules are noted, never raised to the caller; `run` of the generations drives it."""

    def __init__(
        self,
        number: int,
        probe: Probe,
        rng: random.Random,
        now: datetime,
        shown: Demonstration,
        client: StrictClient,
        on_violation: Callable[[Violation], None],
        on_document: Callable[[Submitted], None],
    ) -> None:
        """Describe the session; nothing is sent. `now` is an aware time, before which everything was measured."""
        self.number = number
        self.probe = probe
        self.rng = rng
        self.client = client
        self.moment = now - timedelta(minutes=8)
        self._shown = shown
        self._on_violation = on_violation
        self._on_document = on_document

    @property
    def generation(self) -> str:
        """How the probe submits, of `probesim.vocabulary.GENERATIONS`."""
        return self.probe.software.generation

    async def attempt(self, call: str, answer: Awaitable[_T]) -> _T | None:
        """Return what a call gives, or None when the answer broke a rule, which is noted."""
        try:
            return await answer
        except Broken as broken:
            self.violated(call, broken)
            return None

    def violated(self, call: str, broken: Broken) -> None:
        """Note a broken rule."""
        self._on_violation(Violation(self.number, self.generation, call, broken.rule, broken.detail[:300]))

    async def test_helpers(self) -> dict[str, list[Helper]]:
        """Fetch the test helpers, which tells the probe that the backend lives. Raises Broken."""
        found = await self.client.get("test-helpers", "/api/v1/test-helpers", dict[str, list[Helper]])
        usable = [helper for helper in found.get("web-connectivity", ()) if helper.type in _FOLLOWED_HELPERS]
        demand(bool(usable), "helper-web-connectivity", f"web-connectivity: {found.get('web-connectivity')}"[:200])
        for name in ("tcp-echo", "http-return-json-headers"):
            first = next(iter(found.get(name, ())), None)
            demand(first is not None and first.type == "legacy", "helper-legacy-first", f"{name}: first is {first}")
        return found

    async def check_in(self, *, charging: bool, on_wifi: bool, run_type: str, categories: Sequence[str]) -> CheckIn:
        """Ask what to test; the URLs in the answer are those of the asked categories. Raises Broken."""
        request = {
            **self._description(),
            "charging": charging,
            "on_wifi": on_wifi,
            "run_type": run_type,
            "web_connectivity": {"category_codes": list(categories)},
        }
        found = await self.client.post("check-in", "/api/v1/check-in", request, CheckIn)
        demand_rfc_3339(found.utc_time, "utc_time")
        websites = found.tests.web_connectivity
        demand(websites is not None and bool(websites.report_id), "report-id", "tests.web_connectivity.report_id")
        assert websites is not None
        websites.urls = [url for url in websites.urls or () if not categories or url.category_code in categories]
        demand(bool(websites.urls), "urls-not-empty", f"tests.web_connectivity.urls, asked for {list(categories)}")
        return found

    def visits(self, urls: Sequence[TestUrl] | None, most: int) -> list[str]:
        """Choose which of the given URLs this short session visits."""
        given = [url.url for url in urls or ()]
        return self.rng.sample(given, min(most, len(given)))

    def enabled(self, features: dict[str, bool], test_name: str) -> bool:
        """Tell whether the flags of check-in let the probe run a test."""
        return features.get(f"{test_name}_enabled", test_name not in _OFF_BY_DEFAULT)

    async def log_in(self) -> tuple[str, str] | None:
        """Register and log in; return client id and token, or None when an answer broke a rule, which is noted."""
        password = "".join(self.rng.choice(_LETTERS) for _ in range(PASSWORD_LENGTH))
        registered = await self.attempt("register", self._register(password))
        if registered is None:
            return None
        logged_in = await self.attempt("login", self._log_in(registered.client_id, password))
        return None if logged_in is None else (registered.client_id, logged_in.token)

    def measure(self, test_name: str, inputs: Sequence[str] = ()) -> list[Written]:
        """Make the measurements of one test run: one per input, or a single one without."""
        started, written = self.moment, []
        for url in inputs or ("",):
            probe = dataclasses.replace(self.probe, sites=(url,)) if url else self.probe
            scenario = choose_scenario(self.rng, probe.network.cc, test_name)
            finding = SCENARIOS[scenario][1](self.rng, probe, self._shown)
            self.moment += timedelta(seconds=self.rng.uniform(0.5, 5))
            written.append(Written(scenario, test_name, write_measurement(probe, finding, started, self.moment)))
        return written

    async def open_report(self, first: dict[str, Any], *, json_type: bool = True) -> str:
        """Open a report for a test run and return its id. Raises Broken."""
        request = {
            "data_format_version": "0.2.0",
            "format": "json",
            **{key: first[key] for key in ("probe_asn", "probe_cc", "software_name", "software_version")},
            **{key: first[key] for key in ("test_name", "test_start_time", "test_version")},
        }
        opened = await self.client.post("open-report", "/report", request, OpenedReport, json_type=json_type)
        demand(bool(opened.report_id), "report-id", "report_id is empty")
        demand("json" in opened.supported_formats, "json-supported", f"supported_formats: {opened.supported_formats}")
        return opened.report_id

    async def submit_to_report(
        self,
        report_id: str,
        written: Written,
        *,
        encoding: str = IDENTITY,
        as_yaml: bool = False,
        json_type: bool = True,
    ) -> None:
        """Submit one measurement to a report and note what became of it."""
        document = {**written.measurement, "report_id": report_id}
        content = encode_json(document)
        body = b'{"format":"json","content":%s}' % content
        if as_yaml:
            body = encode_json({"format": "yaml", "content": yaml.dump(document, Dumper=_Dumper, allow_unicode=True)})
        digest = "" if as_yaml else hashlib.sha256(content).hexdigest()
        answer = self.client.post_bytes(
            "submit-to-report", f"/report/{report_id}", body, Acknowledgement, encoding=encoding, json_type=json_type
        )
        await self.acknowledged("submit-to-report", written, answer, len(body), report_id, digest)

    async def acknowledged(
        self, call: str, written: Written, answer: Awaitable[Acknowledgement], size: int, report_id: str, digest: str
    ) -> None:
        """Wait for the answer to a submission, hold it to the rules and note the document's fate."""
        outcome, uid, detail = FAILED, "", ""
        try:
            found = await answer
            uid, report_id = found.measurement_uid or "", found.report_id or report_id
            outcome = ACCEPTED if uid else DROPPED
            demand(bool(uid), "measurement-uid", f"no uid for a {written.test_name}, report {report_id}")
        except Broken as broken:
            detail = f"{broken.rule}: {broken.detail}"
            self.violated(call, broken)
        self._on_document(
            Submitted(
                id=f"session-{self.number}",
                scenario=written.scenario,
                test_name=written.test_name,
                generation=self.generation,
                outcome=outcome,
                status=200 if outcome != FAILED else 0,
                uid=uid,
                report_id=report_id,
                bytes_sent=size,
                sha256=digest,
                detail=detail,
            )
        )

    async def _register(self, password: str) -> Registered:
        asked = {**self._description(), "password": password, "supported_tests": ["web_connectivity"]}
        found = await self.client.post("register", "/api/v1/register", asked, Registered)
        demand(bool(found.client_id), "credentials", "client_id is empty")
        return found

    async def _log_in(self, client_id: str, password: str) -> LoggedIn:
        asked = {"username": client_id, "password": password}
        found = await self.client.post("login", "/api/v1/login", asked, LoggedIn)
        demand(bool(found.token), "credentials", "token is empty")
        demand_rfc_3339(found.expire, "expire")
        return found

    def _description(self) -> dict[str, Any]:
        software, network = self.probe.software, self.probe.network
        return {
            "platform": software.platform,
            "probe_asn": f"AS{network.asn}",
            "probe_cc": network.cc,
            "software_name": software.name,
            "software_version": software.version,
        }


class _Dumper(getattr(yaml, "CSafeDumper", yaml.SafeDumper)):  # type: ignore[misc] # the fast one where there is one
    """Writes equal lists out each time: aliases are refused in measurements."""

    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002 the parameter is the library's
        """Never use an alias."""
        return True
