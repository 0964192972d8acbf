"""One visit to a website, as web_connectivity records it."""

import random
from typing import Any
from urllib.parse import urlsplit

from probesim.blockpages import BlockPage, answer
from probesim.finding import Finding
from probesim.vocabulary import Probe, page, site_address

_HELPER = {"backend": {"address": "https://helper.example.net/", "type": "https"}}


class Site:
    """One visit to a site, recorded step by step; `finding` turns the record into test keys."""

    def __init__(self, rng: random.Random, probe: Probe) -> None:
        """Choose one of the probe's sites; nothing has happened yet."""
        self._rng = rng
        self._probe = probe
        self.url = rng.choice(probe.sites)
        parts = urlsplit(self.url)
        self.host = parts.hostname or ""
        self.secure = parts.scheme == "https"
        self.port = parts.port or (443 if self.secure else 80)
        self.address = self._true_address = site_address(rng)
        self.title = f"{self.host.split('.')[0].capitalize()}: example page"
        self.page = page(rng, self.title, rng.choice((700, 1500, 4000, 9000, 20_000)))
        self.control_failure: str | None = None
        self._answers: list[dict[str, Any]] = [answer(self.address)]
        self._dns_failure: str | None = None
        self._tcp: list[dict[str, Any]] = []
        self._requests: list[dict[str, Any]] = []
        self._now = 0.0
        self._same_body = False

    def resolved(self, address: str) -> None:
        """The probe's resolver answered with `address`."""
        self._answers = [answer(address)]
        if address.replace(".", "").isdigit():
            self.address = address

    def not_resolved(self, failure: str) -> None:
        """The probe's resolver answered with an error."""
        self._answers = []
        self._dns_failure = failure
        self._request(failure, None)

    def connected(self, failure: str | None) -> None:
        """A TCP connection was tried; with a failure nothing comes after it."""
        self._tcp.append(
            {
                "ip": self.address,
                "port": self.port,
                "status": {"success": failure is None, "failure": failure, "blocked": failure is not None},
                "t": self._tick(),
            }
        )
        if failure is not None:
            self._request(failure, None)

    def requested(self, failure: str) -> None:
        """The connection worked and the request (or its TLS handshake) failed."""
        self.connected(None)
        self._request(failure, None)

    def served(self, body: str | dict[str, str], code: int = 200) -> None:
        """The site, or something in its place, answered with `body`."""
        self.connected(None)
        self._same_body = body is self.page
        self._request(None, response(code, body, self._headers()))

    def served_block_page(self, found: BlockPage) -> None:
        """Something in the place of the site answered with a block page."""
        self.connected(None)
        self._request(None, response(found.code, found.body, found.headers))

    def finding(
        self,
        *,
        accessible: bool | None,
        blocking: str | bool | None,
        experiment_failure: str | None = None,
        dns_consistency: str = "consistent",
        title_match: bool | None = True,
    ) -> Finding:
        """Return the finding with the probe's own verdict."""
        reached = experiment_failure is None
        keys: dict[str, Any] = {
            "agent": "redirect",
            "client_resolver": self._probe.resolver_ip,
            "retries": None,
            "socksproxy": None,
            "network_events": self._network_events(),
            "tls_handshakes": self._tls(experiment_failure),
            "queries": [self._query("A"), self._query("AAAA")],
            "dns_experiment_failure": self._dns_failure,
            "dns_consistency": dns_consistency,
            "control_failure": None,
            "control": self._control(),
            "tcp_connect": self._tcp,
            "requests": self._requests,
            "http_experiment_failure": experiment_failure,
            "body_length_match": self._same_body if reached else None,
            "body_proportion": 1 if self._same_body else 0.1 if reached else 0,
            "status_code_match": accessible if reached else None,
            "headers_match": accessible if reached else None,
            "title_match": title_match if reached else None,
            "accessible": accessible,
            "blocking": blocking,
            "x_status": 1 if accessible else 0,
        }
        return Finding("web_connectivity", "0.4.3", self.url, keys, self._now + self._rng.uniform(0.2, 2.5), _HELPER)

    def _tick(self) -> float:
        self._now = round(self._now + self._rng.uniform(0.01, 0.4), 9)
        return self._now

    def _headers(self) -> dict[str, str]:
        return {
            "Content-Type": "text/html; charset=utf-8",
            "Date": "Mon, 01 Jan 2024 00:00:00 GMT",
            "Server": "example-httpd",
            "Vary": "Accept-Encoding",
        }

    def _query(self, kind: str) -> dict[str, Any]:
        answers = [item for item in self._answers if (item["answer_type"] == "AAAA") == (kind == "AAAA")]
        failure = self._dns_failure or (None if answers else "dns_no_answer")
        return {
            "answers": answers or None,
            "engine": "getaddrinfo",
            "failure": failure,
            "hostname": self.host,
            "query_type": kind,
            "resolver_address": "",
            "resolver_hostname": None,
            "resolver_port": None,
            "t": self._tick(),
            "tags": None,
            "transaction_id": 1,
        }

    def _request(self, failure: str | None, answered: dict[str, Any] | None) -> None:
        sent = {"Accept": "*/*", "Accept-Language": "en-US,en;q=0.9", "User-Agent": "Mozilla/5.0 (example)"}
        self._requests.append(
            {
                "address": f"{self.address}:{self.port}",
                "alpn": "http/1.1",
                "failure": failure,
                "network": "tcp",
                "request": {
                    "body": "",
                    "body_is_truncated": False,
                    "headers": sent,
                    "headers_list": [[name, value] for name, value in sent.items()],
                    "method": "GET",
                    "tor": {"exit_ip": None, "exit_name": None, "is_tor": False},
                    "url": self.url,
                    "x_transport": "tcp",
                },
                "response": answered or response(0, "", {}),
                "t": self._tick(),
                "transaction_id": 1,
            }
        )

    def _network_events(self) -> list[dict[str, Any]]:
        return [
            {
                "address": f"{attempt['ip']}:{attempt['port']}",
                "failure": attempt["status"]["failure"],
                "operation": "connect",
                "proto": "tcp",
                "t": attempt["t"],
                "tags": ["tcptls_experiment"],
            }
            for attempt in self._tcp
        ]

    def _tls(self, failure: str | None) -> list[dict[str, Any]] | None:
        if not self.secure or not self._tcp or not self._tcp[-1]["status"]["success"]:
            return None
        return [
            {
                "address": f"{self.address}:{self.port}",
                "cipher_suite": "" if failure else "TLS_AES_128_GCM_SHA256",
                "failure": failure,
                "negotiated_protocol": "" if failure else "h2",
                "no_tls_verify": False,
                "peer_certificates": [],
                "server_name": self.host,
                "t": self._tick(),
                "tags": ["tcptls_experiment"],
                "tls_version": "" if failure else "TLSv1.3",
            }
        ]

    def _control(self) -> dict[str, Any]:
        endpoint = f"{self._true_address}:{self.port}"
        failed = self.control_failure is not None
        return {
            "dns": {"failure": None, "addrs": [self._true_address], "ASNs": [64999]},
            "tcp_connect": {endpoint: {"status": not failed, "failure": self.control_failure}},
            "http_request": {
                "body_length": -1 if failed else len(self.page),
                "failure": self.control_failure,
                "headers": {} if failed else self._headers(),
                "status_code": -1 if failed else 200,
                "title": "" if failed else self.title,
            },
        }


def response(code: int, body: str | dict[str, str], headers: dict[str, str]) -> dict[str, Any]:
    """Return an HTTP response in the published format; a body that is no text is an object with its base64."""
    return {
        "body": body,
        "body_is_truncated": False,
        "code": code,
        "headers": headers,
        "headers_list": [[name, value] for name, value in headers.items()],
        "locations": [headers["Location"]] if "Location" in headers else None,
    }
